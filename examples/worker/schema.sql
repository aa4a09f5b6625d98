CREATE TABLE done (source text, event text, PRIMARY KEY (source, event));
CREATE TABLE accounts (customer text PRIMARY KEY, balance bigint NOT NULL);
