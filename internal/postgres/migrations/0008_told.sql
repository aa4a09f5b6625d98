-- Parked events that there is no room to keep are told of before they are lost: what _trim did at once is done in three steps.

-- Moves a log's floor over what is older than before, and over what is too much for max_bytes (0: no bound), at most so many
-- events at once and never over the newest. Parked events below the floor stay.
CREATE FUNCTION eventhose._trim_log(of_tenant text, before timestamptz, max_bytes bigint, most bigint)
RETURNS TABLE (o_first bigint, o_removed bigint, o_bytes bigint) LANGUAGE plpgsql AS $$
DECLARE
	log eventhose.logs%ROWTYPE;
	s record;
	e record;
	p record;
	next bigint;
	left_bytes bigint;
	gone bigint;
	n bigint;
	lie int[];
BEGIN
	FOR try IN 1..5 LOOP
		SELECT * INTO log FROM eventhose.logs WHERE tenant = of_tenant;
		IF NOT FOUND OR log.last = 0 THEN
			RETURN QUERY SELECT 1::bigint, 0::bigint, 0::bigint;
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
				EXIT spans WHEN n >= most OR NOT (coalesce(e.appended < before, false) OR max_bytes > 0 AND left_bytes > max_bytes);
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
	RETURN QUERY SELECT next, n, gone;
END $$;

-- The parked rows below a log's floor that keep bytes have no room for; the newest events have it first.
CREATE FUNCTION eventhose._over(of_tenant text, keep bigint) RETURNS TABLE (o_sub text, o_seq bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
	p record;
	kept bigint := 0;
BEGIN
	FOR p IN SELECT DISTINCT x.seq FROM eventhose.parked x JOIN eventhose.logs l ON l.tenant = of_tenant WHERE x.tenant = of_tenant AND x.seq < l.first ORDER BY x.seq DESC LOOP
		kept := kept + eventhose._size(of_tenant, p.seq);
		IF kept > keep THEN
			RETURN QUERY SELECT l.subscription, x.seq FROM eventhose.parked x JOIN eventhose.lanes l ON l.id = x.lane
				WHERE x.tenant = of_tenant AND x.seq <= p.seq ORDER BY x.seq, l.subscription;
			RETURN;
		END IF;
	END LOOP;
END $$;

-- Removes parked rows below a log's floor, and answers those that were there.
CREATE FUNCTION eventhose._lose(of_tenant text, subs text[], seqs bigint[]) RETURNS TABLE (o_sub text, o_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM eventhose.lanes l WHERE l.tenant = of_tenant AND l.subscription = ANY (subs) ORDER BY l.id FOR UPDATE;
	RETURN QUERY WITH lost AS (DELETE FROM eventhose.parked x
			USING unnest(subs, seqs) AS o(subscription, seq), eventhose.lanes l, eventhose.logs g
			WHERE l.tenant = of_tenant AND l.subscription = o.subscription AND g.tenant = of_tenant AND o.seq < g.first AND x.lane = l.id AND x.seq = o.seq
			RETURNING x.lane, x.seq, x.state, l.subscription),
		counts AS (SELECT lost.lane, count(*) FILTER (WHERE lost.state IN ('retrying', 'leased')) AS retrying, count(*) FILTER (WHERE lost.state = 'dead') AS dead FROM lost GROUP BY lost.lane),
		counted AS (UPDATE eventhose.lanes l SET retrying = greatest(0, l.retrying - c.retrying), dead = greatest(0, l.dead - c.dead) FROM counts c WHERE l.id = c.lane)
		SELECT lost.subscription, lost.seq FROM lost ORDER BY lost.seq, lost.subscription;
END $$;
