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

-- The embedded store keeps the data of parked places in parents' logs aside, so that they outlive the events that they stand
-- for. Copied ones have it in kept_events; it counts there, and goes when the event is erased.
CREATE INDEX kept_events_origin ON eventhose.kept_events (origin_tenant, origin_seq) WHERE origin_tenant IS NOT NULL;

CREATE OR REPLACE FUNCTION eventhose._size(of_tenant text, of_seq bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
	p int := eventhose._part(of_tenant, of_seq);
	size bigint;
	from_tenant text;
	from_seq bigint;
	gone boolean; -- NULL until the event is found
BEGIN
	IF p IS NOT NULL THEN
		EXECUTE format('SELECT octet_length(data), origin_tenant, origin_seq, erased FROM eventhose.events_%s WHERE tenant = $1 AND seq = $2', p)
			INTO size, from_tenant, from_seq, gone USING of_tenant, of_seq;
	END IF;
	IF gone IS NULL THEN -- also if there is no partition any more
		SELECT octet_length(k.data), k.origin_tenant, k.origin_seq, k.erased INTO size, from_tenant, from_seq, gone
			FROM eventhose.kept_events k WHERE k.tenant = of_tenant AND k.seq = of_seq;
	END IF;
	IF from_tenant IS NULL OR size IS NOT NULL THEN
		RETURN coalesce(size, 0);
	END IF;
	IF gone OR NOT eventhose._visible(from_tenant, from_seq) THEN
		RETURN 0;
	END IF;
	RETURN eventhose._size(from_tenant, from_seq);
END $$;

CREATE OR REPLACE FUNCTION eventhose._erase(of_tenant text, of_seq bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	p int := eventhose._part(of_tenant, of_seq);
	size bigint;
	n int := 0;
BEGIN
	IF NOT eventhose._visible(of_tenant, of_seq) THEN
		RETURN false;
	END IF;
	IF p IS NOT NULL THEN
		EXECUTE format('WITH was AS (SELECT coalesce(octet_length(data), 0) AS size FROM eventhose.events_%1$s WHERE tenant = $1 AND seq = $2 FOR UPDATE)
			UPDATE eventhose.events_%1$s e SET data = '''', erased = true FROM was WHERE e.tenant = $1 AND e.seq = $2 RETURNING was.size', p)
			INTO size USING of_tenant, of_seq;
		UPDATE eventhose.logs l SET bytes = l.bytes - size WHERE l.tenant = of_tenant AND l.first <= of_seq AND size > 0;
	END IF;
	UPDATE eventhose.kept_events k SET data = '', erased = true WHERE k.tenant = of_tenant AND k.seq = of_seq;
	GET DIAGNOSTICS n = ROW_COUNT;
	UPDATE eventhose.kept_events k SET data = '', erased = true WHERE k.origin_tenant = of_tenant AND k.origin_seq = of_seq AND k.data IS NOT NULL;
	RETURN size IS NOT NULL OR n > 0;
END $$;
