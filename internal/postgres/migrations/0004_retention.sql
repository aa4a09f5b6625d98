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
	gone bigint;
	n bigint;
	kept bigint := 0;
	size bigint;
	over boolean := false;
	lie int[];
BEGIN
	FOR try IN 1..5 LOOP
		SELECT * INTO log FROM eventhose.logs WHERE tenant = of_tenant;
		IF NOT FOUND OR log.last = 0 THEN
			RETURN QUERY SELECT 1::bigint, 0::bigint, 0::bigint, NULL::text, NULL::bigint;
			RETURN;
		END IF;
		next := log.first;
		left_bytes := log.bytes;
		gone := 0;
		n := 0;
		SELECT array_agg(x.part ORDER BY x.first) INTO lie FROM eventhose.spans x WHERE x.tenant = of_tenant AND x.first <= log.last;
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
		EXIT WHEN n = 0;
		-- Events may have been carried elsewhere meanwhile, and then they were not counted.
		PERFORM FROM eventhose.logs l WHERE l.tenant = of_tenant FOR UPDATE;
		UPDATE eventhose.logs l SET first = next, bytes = l.bytes - gone WHERE l.tenant = of_tenant AND l.first = log.first
			AND lie = (SELECT array_agg(x.part ORDER BY x.first) FROM eventhose.spans x WHERE x.tenant = of_tenant AND x.first <= log.last);
		EXIT WHEN FOUND;
		SELECT l.first, 0, 0 INTO next, n, gone FROM eventhose.logs l WHERE l.tenant = of_tenant;
		EXIT WHEN next > log.first; -- somebody else trimmed it
	END LOOP;
	IF n > 0 THEN
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
					retrying = greatest(0, l.retrying - CASE WHEN lost.state IN ('retrying', 'leased') THEN 1 ELSE 0 END),
					dead = greatest(0, l.dead - CASE WHEN lost.state = 'dead' THEN 1 ELSE 0 END)
					FROM lost WHERE l.id = lost.lane RETURNING l.subscription)
				SELECT NULL::bigint, NULL::bigint, NULL::bigint, c.subscription, p.seq FROM counted c ORDER BY c.subscription;
		END IF;
	END LOOP;
END $$;

-- Removes an event's data. false: there is no such event.
CREATE FUNCTION eventhose._erase(of_tenant text, of_seq bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	p int;
	size bigint;
	n int := 0;
BEGIN
	PERFORM FROM eventhose.logs l WHERE l.tenant = of_tenant FOR UPDATE; -- so that nobody carries it elsewhere meanwhile
	IF NOT eventhose._visible(of_tenant, of_seq) THEN
		RETURN false;
	END IF;
	p := eventhose._part(of_tenant, of_seq);
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
	IF low > high THEN -- it was trimmed meanwhile
		RETURN;
	END IF;
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
	-- The log itself says where its last piece is: where it says that, an append goes on without a look at the spans.
	IF high = 9223372036854775807 THEN
		UPDATE eventhose.logs l SET part = into_part WHERE l.tenant = of_tenant;
	END IF;
END $$;

-- Says from when on nobody appends to the partitions that were closed before. It is for a transaction of its own: who began before that one, and
-- so may have taken them for open, has a lower number.
CREATE FUNCTION eventhose._settle() RETURNS void LANGUAGE sql AS $$
	UPDATE eventhose.partitions SET settled = pg_current_xact_id() WHERE closed IS NOT NULL AND settled IS NULL
$$;

-- The closed partitions to which nobody appends any more, those first whose dropping was interrupted: until it is done, no other can be detached.
CREATE FUNCTION eventhose._settled() RETURNS TABLE (o_part int, o_events bigint) LANGUAGE sql STABLE AS $$
	SELECT p.part, coalesce((SELECT c.reltuples FROM pg_class c WHERE c.oid = to_regclass(format('eventhose.events_%s', p.part))), 0)::bigint
	FROM eventhose.partitions p WHERE p.settled < pg_snapshot_xmin(pg_current_snapshot())
	ORDER BY EXISTS (SELECT FROM pg_inherits i WHERE i.inhdetachpending
		AND i.inhrelid IN (to_regclass(format('eventhose.events_%s', p.part)), to_regclass(format('eventhose.attempts_%s', p.part)))) DESC, p.part
$$;

-- Prepares a partition of which nothing is left for being dropped: what is parked is kept aside, and from now on attempts at what was here
-- go elsewhere. An event that is just being erased is waited for.
CREATE FUNCTION eventhose._empty_partition(of_part int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM eventhose._live(of_part)) THEN
		RETURN false;
	END IF;
	EXECUTE format('INSERT INTO eventhose.kept_events SELECT e.* FROM eventhose.events_%s e WHERE (e.tenant, e.seq) IN
		(SELECT p.tenant, p.seq FROM eventhose.spans s JOIN eventhose.parked p ON p.tenant = s.tenant AND p.seq >= s.first WHERE s.part = %1$s)
		FOR SHARE OF e ON CONFLICT DO NOTHING', of_part);
	DELETE FROM eventhose.spans s WHERE s.part = of_part;
	RETURN true;
END $$;

-- What an event's id is remembered by, NULL if it is not: keyOf and placeKey in append.go.
CREATE FUNCTION eventhose._id_key(tenant text, scope text, id text, random bigint, origin_tenant text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
	SELECT encode(substr(sha256(CASE
		WHEN origin_tenant IS NULL THEN 'own'::bytea || '\x00' || convert_to(tenant, 'UTF8') || '\x00' || convert_to(scope, 'UTF8') || '\x00' || convert_to(id, 'UTF8')
		WHEN id IS NULL THEN 'made place'::bytea || '\x00' || convert_to(tenant, 'UTF8') || '\x00' || convert_to(origin_tenant, 'UTF8') || '\x00' || convert_to(to_hex(random), 'UTF8')
		ELSE 'place'::bytea || '\x00' || convert_to(tenant, 'UTF8') || '\x00' || convert_to(scope, 'UTF8') || '\x00' || convert_to(origin_tenant || '/' || id, 'UTF8')
	END), 1, 16), 'hex')::uuid
$$;

-- Forgets the ids of a partition's events, n events at once, those after a place. It answers where the next ones begin, nothing at the end.
CREATE FUNCTION eventhose._forget_ids(of_part int, after_tenant text, after_seq bigint, n int) RETURNS TABLE (o_tenant text, o_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('WITH these AS MATERIALIZED (
			SELECT e.tenant, e.seq, e.scope, e.id, e.random, e.origin_tenant FROM eventhose.events_%s e WHERE (e.tenant, e.seq) > ($1, $2) ORDER BY e.tenant, e.seq LIMIT $3),
		gone AS (DELETE FROM eventhose.event_ids i USING these e WHERE i.id = eventhose._id_key(e.tenant, e.scope, e.id, e.random, e.origin_tenant)
			AND i.tenant = e.tenant AND i.seq = e.seq AND NOT EXISTS (SELECT FROM eventhose.parked p WHERE p.tenant = e.tenant AND p.seq = e.seq))
		SELECT e.tenant, e.seq FROM these e ORDER BY e.tenant DESC, e.seq DESC LIMIT 1', of_part) USING after_tenant, after_seq, n;
END $$;

-- Removes what has expired a while ago, and kept events that nothing is parked for any more, with their ids.
CREATE FUNCTION eventhose._sweep() RETURNS void LANGUAGE sql AS $$
	DELETE FROM eventhose.records WHERE ctid = ANY (ARRAY(SELECT ctid FROM eventhose.records WHERE expires < now() - interval '1 minute' LIMIT 10000));
	WITH gone AS (DELETE FROM eventhose.kept_events k WHERE NOT EXISTS (SELECT FROM eventhose.parked p WHERE p.tenant = k.tenant AND p.seq = k.seq)
		RETURNING tenant, seq, scope, id, random, origin_tenant)
	DELETE FROM eventhose.event_ids i USING gone e WHERE i.id = eventhose._id_key(e.tenant, e.scope, e.id, e.random, e.origin_tenant) AND i.tenant = e.tenant AND i.seq = e.seq
$$;
