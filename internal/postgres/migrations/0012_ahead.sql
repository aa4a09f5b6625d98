-- A clock that was ahead for a moment, or one node's, no longer keeps retention by age from going on until the time that it had stamped.

-- Moves a log's floor over what is older than before, and over what is too much for max_bytes (0: no bound), at most so many
-- events at once and never over the newest. What was stamped by a clock that was ahead of the present is as old as what came after it. Parked events
-- below the floor stay.
CREATE OR REPLACE FUNCTION eventhose._trim_log(of_tenant text, before timestamptz, max_bytes bigint, most bigint)
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
	old boolean;
	sure_next bigint; -- what follows up to next was stamped ahead of the present
	sure_gone bigint;
	sure_n bigint;
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
		sure_next := next;
		sure_gone := 0;
		sure_n := 0;
		SELECT array_agg(x.part ORDER BY x.first) INTO lie FROM eventhose.spans x WHERE x.tenant = of_tenant AND x.first <= log.last;
		<<spans>>
		FOR s IN SELECT x.part, lead(x.first) OVER (ORDER BY x.first) AS until FROM eventhose.spans x WHERE x.tenant = of_tenant ORDER BY x.first LOOP
			CONTINUE WHEN s.until <= next;
			FOR e IN EXECUTE format('SELECT seq, appended, CASE WHEN origin_tenant IS NULL THEN octet_length(data) ELSE 0 END AS size FROM eventhose.events_%s
				WHERE tenant = $1 AND seq >= $2 AND seq < $3 ORDER BY seq', s.part) USING of_tenant, next, least(coalesce(s.until, log.last), log.last) LOOP
				old := coalesce(e.appended < before, false) OR max_bytes > 0 AND left_bytes > max_bytes;
				EXIT spans WHEN n >= most OR NOT (old OR before IS NOT NULL AND e.appended > clock_timestamp());
				next := e.seq + 1;
				left_bytes := left_bytes - e.size;
				gone := gone + e.size;
				n := n + 1;
				IF old THEN
					sure_next := next;
					sure_gone := gone;
					sure_n := n;
				END IF;
			END LOOP;
		END LOOP;
		next := sure_next;
		gone := sure_gone;
		n := sure_n;
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
