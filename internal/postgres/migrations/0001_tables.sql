-- Everything that Eventhose keeps. Text that is compared or ordered has the collation "C", so that the order is that of bytes.

-- One row a log. Only _append, _trim and _erase lock these rows, each in one statement, so that no client can hold one:
-- whoever is frozen in the middle of a request holds nothing.
CREATE TABLE eventhose.logs (
	tenant      text COLLATE "C" PRIMARY KEY,
	incarnation bigint NOT NULL,
	first       bigint NOT NULL DEFAULT 1, -- the first sequence left; what is below it is not there any more for anybody
	last        bigint NOT NULL DEFAULT 0,
	bytes       bigint NOT NULL DEFAULT 0, -- of data between first and last
	part        int NOT NULL DEFAULT 0,    -- the partition of the newest events, 0 if there are none
	class       smallint NOT NULL DEFAULT 0,
	forks       jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- How far each log is matched. Beside logs, since progress must not wait for appends.
CREATE TABLE eventhose.matched (
	tenant  text COLLATE "C" PRIMARY KEY,
	matched bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- A partition holds the events of some days of the logs that keep them for about as long (their class), and the attempts
-- at those events. It is dropped whole. The newest one of a class that is not closed takes what is appended.
CREATE TABLE eventhose.partitions (
	part    int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	class   smallint NOT NULL,
	opened  timestamptz NOT NULL DEFAULT now(),
	closed  timestamptz,
	settled xid8 -- began after it was closed: an append that took it for open has a lower one
);

-- Which partition a log's events are in, from a sequence on.
CREATE TABLE eventhose.spans (
	tenant text COLLATE "C" NOT NULL,
	first  bigint NOT NULL,
	part   int NOT NULL,
	PRIMARY KEY (tenant, first)
);
CREATE INDEX spans_part ON eventhose.spans (part);

CREATE TABLE eventhose.events (
	part          int NOT NULL,
	nanos         smallint NOT NULL,           -- of time, below its microseconds
	erased        boolean NOT NULL DEFAULT false,
	seq           bigint NOT NULL,
	random        bigint NOT NULL DEFAULT 0,   -- with seq makes the id of an event that came without one
	origin_seq    bigint,
	time          timestamptz NOT NULL,
	appended      timestamptz NOT NULL,
	tenant        text COLLATE "C" NOT NULL,
	id            text COLLATE "C",            -- NULL: made of seq and random
	scope         text COLLATE "C" NOT NULL,
	type          text COLLATE "C" NOT NULL,
	key           text COLLATE "C" NOT NULL,
	version       text COLLATE "C" NOT NULL,
	content_type  text COLLATE "C" NOT NULL,
	attributes    jsonb,
	origin_tenant text COLLATE "C",            -- of a place in a parent's log: where the event is, and its data
	data          bytea
) PARTITION BY LIST (part);

-- Events of parked sequences whose partition was dropped, and parked places of parents' logs that were trimmed: these hold the data, which their own log
-- may lose before they are unparked.
CREATE TABLE eventhose.kept_events (LIKE eventhose.events);
CREATE UNIQUE INDEX kept_events_place ON eventhose.kept_events (tenant, seq);
CREATE INDEX kept_events_origin ON eventhose.kept_events (origin_tenant, origin_seq) WHERE origin_tenant IS NOT NULL;

-- The ids that clients gave, by a digest of tenant, scope and id. A row whose event is trimmed counts as none.
CREATE TABLE eventhose.event_ids (
	id     uuid PRIMARY KEY,
	digest uuid NOT NULL,
	seq    bigint NOT NULL,
	tenant text COLLATE "C" NOT NULL
);

-- Events that applications appended in their own transactions, until they get their places.
CREATE TABLE eventhose.unplaced (
	id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	appended   timestamptz NOT NULL DEFAULT clock_timestamp(),
	time       timestamptz,
	tenant     text COLLATE "C" NOT NULL,
	event_id   text NOT NULL,
	type       text NOT NULL,
	key        text NOT NULL,
	version    text NOT NULL,
	attributes jsonb,
	data       bytea NOT NULL
);
CREATE INDEX unplaced_tenant ON eventhose.unplaced (tenant, id);

-- What each subscription's delivery stores. row is the rest of it in the encoding of internal/row; what people ask for stands beside it.
CREATE TABLE eventhose.lanes (
	id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	cursor       bigint NOT NULL,
	due          timestamptz,
	retrying     int NOT NULL,
	dead         int NOT NULL,
	waiting      int NOT NULL,
	behind       boolean NOT NULL,
	work         boolean NOT NULL, -- behind, or due
	tenant       text COLLATE "C" NOT NULL,
	subscription text COLLATE "C" NOT NULL,
	row          bytea NOT NULL,
	UNIQUE (tenant, subscription)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX lanes_work ON eventhose.lanes (tenant, subscription) WHERE work;

CREATE TABLE eventhose.parked (
	lane   bigint NOT NULL,
	seq    bigint NOT NULL,
	tenant text COLLATE "C" NOT NULL,
	state  text COLLATE "C" NOT NULL,
	row    bytea NOT NULL,
	PRIMARY KEY (lane, seq)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX parked_place ON eventhose.parked (tenant, seq);

CREATE TABLE eventhose.blocked_keys (
	lane bigint NOT NULL,
	key  text COLLATE "C" NOT NULL,
	row  bytea NOT NULL,
	PRIMARY KEY (lane, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Runs of attempts: what one commit brought of one lane, newest last, in the encoding of internal/row. A run whose events are all
-- within 64 places is found by its highest one; the others (wide) by each. A deleted lane's runs are left to their partition.
CREATE TABLE eventhose.attempts (
	part     int NOT NULL,
	wide     boolean NOT NULL,
	lane     bigint NOT NULL,
	hi       bigint NOT NULL, -- the highest sequence, 0 for tests
	at       timestamptz NOT NULL,
	tenant   text COLLATE "C" NOT NULL,
	first_id text COLLATE "C" NOT NULL,
	seqs     bigint[] NOT NULL,
	taken    boolean[] NOT NULL, -- of each of seqs
	runs     bytea NOT NULL
) PARTITION BY LIST (part);

CREATE TABLE eventhose.records (
	version bigint NOT NULL,
	expires timestamptz,
	tenant  text COLLATE "C" NOT NULL,
	kind    text COLLATE "C" NOT NULL,
	id      text COLLATE "C" NOT NULL,
	value   bytea NOT NULL,
	PRIMARY KEY (tenant, kind, id)
);
CREATE INDEX records_expires ON eventhose.records (expires) WHERE expires IS NOT NULL;

CREATE TABLE eventhose.nodes (
	node  text COLLATE "C" PRIMARY KEY,
	until timestamptz NOT NULL
);

-- node NULL: free. epoch grows with each change of hands.
CREATE TABLE eventhose.leases (
	shard smallint PRIMARY KEY,
	epoch bigint NOT NULL DEFAULT 0,
	until timestamptz NOT NULL DEFAULT '-infinity',
	node  text COLLATE "C"
) WITH (fillfactor = 25);
INSERT INTO eventhose.leases (shard) SELECT generate_series(0, 255);

-- Makes a partition and has a class's new events go there.
CREATE FUNCTION eventhose._open_partition(of_class smallint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	n int;
BEGIN
	INSERT INTO eventhose.partitions (class) VALUES (of_class) RETURNING part INTO n;
	EXECUTE format('CREATE TABLE eventhose.events_%s (LIKE eventhose.events INCLUDING DEFAULTS, CHECK (part = %1$s))', n);
	EXECUTE format('CREATE UNIQUE INDEX events_%s_place ON eventhose.events_%1$s (tenant, seq)', n);
	EXECUTE format('ALTER TABLE eventhose.events ATTACH PARTITION eventhose.events_%s FOR VALUES IN (%1$s)', n);
	EXECUTE format('CREATE TABLE eventhose.attempts_%s (LIKE eventhose.attempts INCLUDING DEFAULTS, CHECK (part = %1$s))', n);
	EXECUTE format('CREATE UNIQUE INDEX attempts_%s_lane ON eventhose.attempts_%1$s (lane, first_id)', n);
	EXECUTE format('CREATE INDEX attempts_%s_place ON eventhose.attempts_%1$s (tenant, hi)', n);
	EXECUTE format('CREATE INDEX attempts_%s_wide ON eventhose.attempts_%1$s USING gin (seqs) WHERE wide', n);
	EXECUTE format('ALTER TABLE eventhose.attempts ATTACH PARTITION eventhose.attempts_%s FOR VALUES IN (%1$s)', n);
	RETURN n;
END $$;

SELECT eventhose._open_partition(0::smallint);
