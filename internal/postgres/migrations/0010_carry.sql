-- What is left of a log in a closed partition is carried on in pieces. Before, it was one statement that held the log for as long as it took, and with it all
-- appends to that log.

-- Carries one piece of what is left of one log in a closed partition into the open one of its class: at most so many events, and about so many bytes of
-- data. It answers where the next piece begins, to be called with as of_first, and NULL if nothing is left. In between others append, trim and read: the
-- log then lies in both partitions, and its spans say what is where.
CREATE FUNCTION eventhose._carry_piece(of_part int, of_tenant text, of_first bigint, most_events int, most_bytes bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	log eventhose.logs%ROWTYPE;
	into_part int;
	low bigint;
	high bigint;
	until bigint; -- the last one of the piece
BEGIN
	SELECT * INTO log FROM eventhose.logs l WHERE l.tenant = of_tenant FOR UPDATE;
	SELECT max(x.part) INTO into_part FROM eventhose.partitions x WHERE x.class = log.class AND x.closed IS NULL;
	IF into_part IS NULL OR into_part = of_part OR NOT EXISTS (SELECT FROM eventhose.spans s WHERE s.tenant = of_tenant AND s.first = of_first AND s.part = of_part) THEN
		RETURN NULL;
	END IF;
	low := greatest(of_first, log.first);
	SELECT coalesce(min(s.first) - 1, 9223372036854775807) INTO high FROM eventhose.spans s WHERE s.tenant = of_tenant AND s.first > of_first;
	IF low > high THEN -- it was trimmed meanwhile
		RETURN NULL;
	END IF;
	EXECUTE format('SELECT max(y.seq) FROM (SELECT x.seq, sum(x.size) OVER (ORDER BY x.seq) - x.size AS before FROM
			(SELECT e.seq, octet_length(e.data)::bigint AS size FROM eventhose.events_%s e WHERE e.tenant = $1 AND e.seq BETWEEN $2 AND $3 ORDER BY e.seq LIMIT $4) x) y
		WHERE coalesce(y.before, 0) < $5', of_part) INTO until USING of_tenant, low, high, most_events, most_bytes;
	IF until IS NULL OR until >= least(high, log.last) THEN
		until := high;
	END IF;
	EXECUTE format('WITH gone AS (DELETE FROM eventhose.events_%s WHERE tenant = $1 AND seq BETWEEN $2 AND $3 RETURNING *)
		INSERT INTO eventhose.events (part, nanos, erased, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type, attributes, origin_tenant, data)
		SELECT $4, nanos, erased, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type, attributes, origin_tenant, data FROM gone', of_part)
		USING of_tenant, low, until, into_part;
	EXECUTE format('WITH gone AS (DELETE FROM eventhose.attempts_%s WHERE tenant = $1 AND hi BETWEEN $2 AND $3 RETURNING *)
		INSERT INTO eventhose.attempts (part, wide, lane, hi, at, tenant, first_id, seqs, taken, runs)
		SELECT $4, wide, lane, hi, at, tenant, first_id, seqs, taken, runs FROM gone ON CONFLICT DO NOTHING', of_part)
		USING of_tenant, low, until, into_part;
	-- What is below the floor stays where it is until the partition goes. Every piece has a span of its own, so that who trims sees that something was
	-- carried (_trim compares in which partitions the log lies).
	IF low > of_first THEN
		INSERT INTO eventhose.spans VALUES (of_tenant, low, into_part);
	ELSE
		UPDATE eventhose.spans s SET part = into_part WHERE s.tenant = of_tenant AND s.first = of_first;
	END IF;
	IF until < high THEN
		INSERT INTO eventhose.spans VALUES (of_tenant, until + 1, of_part);
		RETURN until + 1;
	END IF;
	-- The log itself says where its last piece is: where it says that, an append goes on without a look at the spans.
	IF high = 9223372036854775807 THEN
		UPDATE eventhose.logs l SET part = into_part WHERE l.tenant = of_tenant;
	END IF;
	RETURN NULL;
END $$;
