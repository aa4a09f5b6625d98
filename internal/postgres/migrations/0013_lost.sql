-- A lane of which retention has taken parked events has something to do, until whoever delivers has written it again: what they held up goes on. Before,
-- that was told to the node that delivers, and if that came to its end first, what waited behind them waited until the lane was due something else.

CREATE OR REPLACE FUNCTION eventhose._lose(of_tenant text, subs text[], seqs bigint[]) RETURNS TABLE (o_sub text, o_seq bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM eventhose.lanes l WHERE l.tenant = of_tenant AND l.subscription = ANY (subs) ORDER BY l.id FOR UPDATE;
	RETURN QUERY WITH lost AS (DELETE FROM eventhose.parked x
			USING unnest(subs, seqs) AS o(subscription, seq), eventhose.lanes l, eventhose.logs g
			WHERE l.tenant = of_tenant AND l.subscription = o.subscription AND g.tenant = of_tenant AND o.seq < g.first AND x.lane = l.id AND x.seq = o.seq
			RETURNING x.lane, x.seq, x.state, l.subscription),
		counts AS (SELECT lost.lane, count(*) FILTER (WHERE lost.state IN ('retrying', 'leased')) AS retrying, count(*) FILTER (WHERE lost.state = 'dead') AS dead FROM lost GROUP BY lost.lane),
		counted AS (UPDATE eventhose.lanes l SET retrying = greatest(0, l.retrying - c.retrying), dead = greatest(0, l.dead - c.dead), due = coalesce(l.due, 'epoch'), work = true
			FROM counts c WHERE l.id = c.lane)
		SELECT lost.subscription, lost.seq FROM lost ORDER BY lost.seq, lost.subscription;
END $$;
