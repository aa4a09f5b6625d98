-- Where a tenant's events come in. What a node has appended itself it delivers from memory, and reads back what others have, so nodes
-- trade shards, one for one, of which nearly all comes in at the other.

-- How many events of each shard's tenants it has appended of late, shard 0 first; NULL: not told.
ALTER TABLE eventhose.nodes ADD COLUMN intake real[];
-- When it changed hands last, or became free.
ALTER TABLE eventhose.leases ADD COLUMN since timestamptz NOT NULL DEFAULT '-infinity';

-- The node at which a shard's events come in, of those shards where much comes in, at least two thirds of it there.
CREATE FUNCTION eventhose._nearest() RETURNS TABLE (shard smallint, node text) LANGUAGE sql STABLE AS $$
	SELECT (x.n - 1)::smallint, x.node FROM (
		SELECT i.n, o.node, i.came, row_number() OVER most AS place, lead(i.came) OVER most AS next
			FROM eventhose.nodes o, unnest(o.intake) WITH ORDINALITY AS i(came, n) WINDOW most AS (PARTITION BY i.n ORDER BY i.came DESC)) x
	WHERE x.place = 1 AND x.came >= 100 AND x.came >= 2 * coalesce(x.next, 0)
$$;

-- The leases, in place of _claim: keeps those of a node except give, takes free and expired ones up to its share of the live nodes,
-- those that are near to it first, and answers all that it then holds. o_trade is true of those that it is to give because they are
-- near to a node that has, or has just given, one that is near to it. ttl 0 gives all back. What is given is told.
CREATE FUNCTION eventhose._claim_near(me text, give smallint[], ttl interval, came real[], tell text)
	RETURNS TABLE (o_shard smallint, o_epoch bigint, o_trade boolean, o_share int, o_nodes text[]) LANGUAGE plpgsql AS $$
DECLARE
	t timestamptz;
	live text[];
	share int;
	mine int;
	given smallint[];
	trade smallint[];
BEGIN
	-- One claim at a time: they are few, and so nobody waits for a row while holding another.
	PERFORM pg_advisory_xact_lock(hashtext('eventhose.leases'));
	t := clock_timestamp();
	DELETE FROM eventhose.nodes n WHERE n.until < t OR n.node = me;
	IF ttl > interval '0' THEN
		INSERT INTO eventhose.nodes (node, until, intake) VALUES (me, t + ttl, came);
	END IF;
	SELECT array_agg(n.node ORDER BY n.node) INTO live FROM eventhose.nodes n;
	share := CASE WHEN ttl > interval '0' THEN ceil(256.0 / cardinality(live)) ELSE 0 END;
	WITH g AS (UPDATE eventhose.leases l SET node = NULL, until = '-infinity', since = t
		WHERE l.node = me AND (ttl <= interval '0' OR l.shard = ANY (give)) RETURNING l.shard)
	SELECT array_agg(g.shard) INTO given FROM g;
	IF given IS NOT NULL AND live IS NOT NULL THEN
		PERFORM pg_notify('eventhose', tell);
	END IF;
	-- What has run out may have been another's in between, so taking it up again is a change of hands, too.
	UPDATE eventhose.leases l SET until = t + ttl WHERE l.node = me AND l.until >= t;
	SELECT count(*) INTO mine FROM eventhose.leases l WHERE l.node = me AND l.until >= t;
	IF mine < share THEN
		-- What was given to another in a trade is left to it for a while.
		WITH free AS (SELECT l.shard FROM eventhose.leases l LEFT JOIN eventhose._nearest() n ON n.shard = l.shard
			WHERE (l.node IS NULL OR l.until < t) AND l.shard <> ALL (coalesce(given, '{}')) AND (coalesce(n.node, me) = me OR l.since < t - ttl / 2)
			ORDER BY coalesce(n.node = me, false) DESC, l.shard LIMIT share - mine FOR UPDATE OF l)
		UPDATE eventhose.leases l SET node = me, epoch = l.epoch + 1, until = t + ttl, since = t FROM free WHERE l.shard = free.shard;
	END IF;
	IF cardinality(live) > 1 AND share > 0 THEN
		-- What has changed hands a moment ago stays where it is, so that nothing is passed to and fro.
		WITH far AS (SELECT l.shard, l.node AS holder, n.node AS nearest FROM eventhose.leases l JOIN eventhose._nearest() n ON n.shard = l.shard
			WHERE l.node IS NULL OR l.until >= t AND l.node <> n.node AND l.since < t - 5 * ttl),
		out AS (SELECT f.shard, f.nearest, row_number() OVER (PARTITION BY f.nearest ORDER BY f.shard) AS place FROM far f WHERE f.holder = me)
		SELECT array_agg(o.shard) INTO trade FROM out o
			WHERE o.place <= (SELECT count(*) FROM far f WHERE f.nearest = me AND (f.holder = o.nearest OR f.holder IS NULL));
	END IF;
	RETURN QUERY SELECT l.shard, l.epoch, l.shard = ANY (coalesce(trade, '{}')), share, live FROM eventhose.leases l WHERE l.node = me AND l.until >= t ORDER BY l.shard;
	IF NOT FOUND THEN
		RETURN QUERY SELECT NULL::smallint, NULL::bigint, NULL::boolean, share, live;
	END IF;
END $$;
