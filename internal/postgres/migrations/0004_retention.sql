-- What a log forgets. Trimming moves a floor, below which nobody sees anything; the rows go when their partition is dropped.
-- Events of parked sequences are seen below the floor, too, wherever they lie.

CREATE FUNCTION eventhose._part(of_tenant text, of_seq bigint) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT part FROM eventhose.spans WHERE tenant = of_tenant AND first <= of_seq ORDER BY first DESC LIMIT 1
$$;

CREATE FUNCTION eventhose._visible(of_tenant text, of_seq bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
	SELECT of_seq >= coalesce((SELECT first FROM eventhose.logs WHERE tenant = of_tenant), 1)
		OR EXISTS (SELECT FROM eventhose.parked WHERE tenant = of_tenant AND seq = of_seq)
$$;

-- Bytes of data of an event, of a place in a parent's log those of the event that it stands for; 0 for what is gone.
CREATE FUNCTION eventhose._size(of_tenant text, of_seq bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
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

-- The data of an event, locked against being erased until the transaction ends; NULL if it is erased, or gone, or a place in a parent's log.
CREATE FUNCTION eventhose._held_data(of_tenant text, of_seq bigint) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	p int := eventhose._part(of_tenant, of_seq);
	held bytea;
BEGIN
	IF NOT eventhose._visible(of_tenant, of_seq) THEN
		RETURN NULL;
	END IF;
	IF p IS NOT NULL THEN
		EXECUTE format('SELECT data FROM eventhose.events_%s WHERE tenant = $1 AND seq = $2 AND NOT erased FOR SHARE', p) INTO held USING of_tenant, of_seq;
	END IF;
	IF held IS NULL THEN
		SELECT k.data INTO held FROM eventhose.kept_events k WHERE k.tenant = of_tenant AND k.seq = of_seq AND NOT k.erased FOR SHARE;
	END IF;
	RETURN held;
END $$;

-- Keeps a parked place in a parent's log aside with the data that it stands for. One whose data is gone stays as it is.
CREATE FUNCTION eventhose._keep_place(of_tenant text, of_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	p int := eventhose._part(of_tenant, of_seq);
	from_tenant text;
	from_seq bigint;
	held bytea;
BEGIN
	IF p IS NULL THEN
		RETURN;
	END IF;
	EXECUTE format('SELECT origin_tenant, origin_seq FROM eventhose.events_%s WHERE tenant = $1 AND seq = $2 AND NOT erased', p) INTO from_tenant, from_seq USING of_tenant, of_seq;
	IF from_tenant IS NULL THEN -- it has its data itself, and can stay where it is
		RETURN;
	END IF;
	held := eventhose._held_data(from_tenant, from_seq);
	IF held IS NOT NULL THEN
		EXECUTE format('WITH e AS (DELETE FROM eventhose.events_%s WHERE tenant = $1 AND seq = $2 AND NOT erased RETURNING *)
			INSERT INTO eventhose.kept_events (part, nanos, erased, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type, attributes, origin_tenant, data)
			SELECT part, nanos, erased, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type, attributes, origin_tenant, $3 FROM e
			ON CONFLICT DO NOTHING', p) USING of_tenant, of_seq, held;
	END IF;
END $$;

-- Moves a log's floor over what is older than before, and over what is too much for max_bytes (0: no bound), at most a million
-- events at once and never over the newest. Parked events below the floor stay as long as keep bytes have room for
-- them, the newest first; the first row of the answer says what was removed, the others which parked rows were lost.
CREATE FUNCTION eventhose._trim(of_tenant text, before timestamptz, max_bytes bigint, keep bigint)
RETURNS TABLE (o_first bigint, o_removed bigint, o_bytes bigint, o_sub text, o_seq bigint) LANGUAGE plpgsql AS $$
DECLARE
	log eventhose.logs%ROWTYPE;
	s record;
	e record;
	p record;
	next bigint;
	left_bytes bigint;
	gone bigint := 0;
	n bigint := 0;
	kept bigint := 0;
	size bigint;
	over boolean := false;
BEGIN
	SELECT * INTO log FROM eventhose.logs WHERE tenant = of_tenant;
	IF NOT FOUND OR log.last = 0 THEN
		RETURN QUERY SELECT 1::bigint, 0::bigint, 0::bigint, NULL::text, NULL::bigint;
		RETURN;
	END IF;
	next := log.first;
	left_bytes := log.bytes;
	<<spans>>
	FOR s IN SELECT x.part, lead(x.first) OVER (ORDER BY x.first) AS until FROM eventhose.spans x WHERE x.tenant = of_tenant ORDER BY x.first LOOP
		CONTINUE WHEN s.until <= next;
		FOR e IN EXECUTE format('SELECT seq, appended, CASE WHEN origin_tenant IS NULL THEN octet_length(data) ELSE 0 END AS size FROM eventhose.events_%s
			WHERE tenant = $1 AND seq >= $2 AND seq < $3 ORDER BY seq', s.part) USING of_tenant, next, least(coalesce(s.until, log.last), log.last) LOOP
			EXIT spans WHEN n >= 1000000 OR NOT (coalesce(e.appended < before, false) OR max_bytes > 0 AND left_bytes > max_bytes);
			next := e.seq + 1;
			left_bytes := left_bytes - e.size;
			gone := gone + e.size;
			n := n + 1;
		END LOOP;
	END LOOP;
	IF n > 0 THEN
		UPDATE eventhose.logs l SET first = next, bytes = l.bytes - gone WHERE l.tenant = of_tenant AND l.first = log.first;
		IF NOT FOUND THEN -- somebody else trimmed it
			SELECT l.first, 0, 0 INTO next, n, gone FROM eventhose.logs l WHERE l.tenant = of_tenant;
		END IF;
		FOR p IN SELECT DISTINCT x.seq FROM eventhose.parked x WHERE x.tenant = of_tenant AND x.seq >= log.first AND x.seq < next LOOP
			PERFORM eventhose._keep_place(of_tenant, p.seq);
		END LOOP;
	END IF;
	RETURN QUERY SELECT next, n, gone, NULL::text, NULL::bigint;

	FOR p IN SELECT DISTINCT x.seq FROM eventhose.parked x WHERE x.tenant = of_tenant AND x.seq < next ORDER BY x.seq DESC LOOP
		size := eventhose._size(of_tenant, p.seq);
		over := over OR kept + size > keep;
		kept := kept + size;
		IF over THEN
			RETURN QUERY WITH lost AS (DELETE FROM eventhose.parked x WHERE x.tenant = of_tenant AND x.seq = p.seq RETURNING x.lane, x.state),
				counted AS (UPDATE eventhose.lanes l SET
					retrying = greatest(0, l.retrying - CASE WHEN lost.state = 'retrying' THEN 1 ELSE 0 END),
					dead = greatest(0, l.dead - CASE WHEN lost.state = 'dead' THEN 1 ELSE 0 END)
					FROM lost WHERE l.id = lost.lane RETURNING l.subscription)
				SELECT NULL::bigint, NULL::bigint, NULL::bigint, c.subscription, p.seq FROM counted c ORDER BY c.subscription;
		END IF;
	END LOOP;
END $$;

-- Removes an event's data. false: there is no such event.
CREATE FUNCTION eventhose._erase(of_tenant text, of_seq bigint) RETURNS boolean LANGUAGE plpgsql AS $$
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

-- The spans of a partition of which something is left, with how many events.
CREATE FUNCTION eventhose._live(of_part int) RETURNS TABLE (tenant text, first bigint, events bigint) LANGUAGE sql STABLE AS $$
	SELECT s.tenant, s.first, least(l.last, coalesce(n.first - 1, l.last)) - greatest(s.first, l.first) + 1
	FROM eventhose.spans s JOIN eventhose.logs l ON l.tenant = s.tenant
		LEFT JOIN LATERAL (SELECT x.first FROM eventhose.spans x WHERE x.tenant = s.tenant AND x.first > s.first ORDER BY x.first LIMIT 1) n ON true
	WHERE s.part = of_part AND (n.first IS NULL OR n.first > l.first)
$$;

-- Closes the partitions that have taken events for long enough or are large enough, and opens others in their place.
CREATE FUNCTION eventhose._turn_partitions(age interval, size bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	p record;
	n int := 0;
BEGIN
	FOR p IN SELECT x.part, x.class FROM eventhose.partitions x WHERE x.closed IS NULL
			AND (x.opened < now() - age OR pg_total_relation_size(format('eventhose.events_%s', x.part)::regclass) > size)
			AND EXISTS (SELECT FROM eventhose.spans s WHERE s.part = x.part) LOOP
		PERFORM eventhose._open_partition(p.class);
		UPDATE eventhose.partitions x SET closed = now() WHERE x.part = p.part;
		n := n + 1;
	END LOOP;
	RETURN n;
END $$;

-- Carries what is left of one log in a closed partition into the open one of its class: a log of which nothing is appended keeps its newest
-- event for ever, and with it would keep the partition.
CREATE FUNCTION eventhose._carry(of_part int, of_tenant text, of_first bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	log eventhose.logs%ROWTYPE;
	into_part int;
	low bigint;
	high bigint;
BEGIN
	SELECT * INTO log FROM eventhose.logs l WHERE l.tenant = of_tenant FOR UPDATE;
	SELECT max(x.part) INTO into_part FROM eventhose.partitions x WHERE x.class = log.class AND x.closed IS NULL;
	IF into_part IS NULL OR into_part = of_part OR NOT EXISTS (SELECT FROM eventhose.spans s WHERE s.tenant = of_tenant AND s.first = of_first AND s.part = of_part) THEN
		RETURN;
	END IF;
	low := greatest(of_first, log.first);
	SELECT coalesce(min(s.first) - 1, 9223372036854775807) INTO high FROM eventhose.spans s WHERE s.tenant = of_tenant AND s.first > of_first;
	EXECUTE format('WITH gone AS (DELETE FROM eventhose.events_%s WHERE tenant = $1 AND seq BETWEEN $2 AND $3 RETURNING *)
		INSERT INTO eventhose.events (part, nanos, erased, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type, attributes, origin_tenant, data)
		SELECT $4, nanos, erased, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type, attributes, origin_tenant, data FROM gone', of_part)
		USING of_tenant, low, high, into_part;
	EXECUTE format('WITH gone AS (DELETE FROM eventhose.attempts_%s WHERE tenant = $1 AND hi BETWEEN $2 AND $3 RETURNING *)
		INSERT INTO eventhose.attempts (part, wide, lane, hi, at, tenant, first_id, seqs, taken, runs)
		SELECT $4, wide, lane, hi, at, tenant, first_id, seqs, taken, runs FROM gone ON CONFLICT DO NOTHING', of_part)
		USING of_tenant, low, high, into_part;
	-- What is below the floor stays where it is until the partition goes.
	IF low > of_first THEN
		INSERT INTO eventhose.spans VALUES (of_tenant, low, into_part);
	ELSE
		UPDATE eventhose.spans s SET part = into_part WHERE s.tenant = of_tenant AND s.first = of_first;
	END IF;
	UPDATE eventhose.logs l SET part = into_part WHERE l.tenant = of_tenant AND l.part = of_part;
END $$;

-- Prepares a partition of which nothing is left for being dropped: what is parked is kept aside, ids are forgotten.
CREATE FUNCTION eventhose._empty_partition(of_part int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM eventhose._live(of_part)) THEN
		RETURN false;
	END IF;
	EXECUTE format('INSERT INTO eventhose.kept_events SELECT e.* FROM eventhose.events_%s e
		WHERE EXISTS (SELECT FROM eventhose.parked p WHERE p.tenant = e.tenant AND p.seq = e.seq) ON CONFLICT DO NOTHING', of_part);
	EXECUTE format('DELETE FROM eventhose.event_ids i USING eventhose.events_%s e WHERE i.tenant = e.tenant AND i.seq = e.seq
		AND NOT EXISTS (SELECT FROM eventhose.parked p WHERE p.tenant = e.tenant AND p.seq = e.seq)', of_part);
	RETURN true;
END $$;
