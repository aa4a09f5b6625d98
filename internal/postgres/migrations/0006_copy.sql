-- A copy of an embedded store, at most one. position is how far it has come, in the words of that store; it is written in the
-- same transaction as what was copied. Until it is finished no node serves on this database.
CREATE TABLE eventhose.copies (
	one        boolean PRIMARY KEY DEFAULT true CHECK (one),
	source     text NOT NULL,
	commits    bigint NOT NULL,
	begun      timestamptz NOT NULL DEFAULT now(),
	finished   timestamptz,
	events     bigint NOT NULL DEFAULT 0, -- copied so far
	part_bytes bigint NOT NULL DEFAULT 0, -- of them in the open partition
	position   bytea NOT NULL DEFAULT '',
	result     jsonb
);
