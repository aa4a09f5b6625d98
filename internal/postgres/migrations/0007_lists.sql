-- Lists of the attempts of all of a tenant's subscriptions.
CREATE OR REPLACE FUNCTION eventhose._open_partition(of_class smallint) RETURNS int LANGUAGE plpgsql AS $$
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
	EXECUTE format('CREATE INDEX attempts_%s_time ON eventhose.attempts_%1$s (tenant, first_id)', n);
	EXECUTE format('ALTER TABLE eventhose.attempts ATTACH PARTITION eventhose.attempts_%s FOR VALUES IN (%1$s)', n);
	RETURN n;
END $$;

DO $$
DECLARE
	n int;
BEGIN
	FOR n IN SELECT part FROM eventhose.partitions LOOP
		IF to_regclass(format('eventhose.attempts_%s', n)) IS NOT NULL THEN
			EXECUTE format('CREATE INDEX attempts_%s_time ON eventhose.attempts_%1$s (tenant, first_id)', n);
		END IF;
	END LOOP;
END $$;
