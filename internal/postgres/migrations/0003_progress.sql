-- Writes lanes and what hangs on them: the part that progress and records have in common. l_ are the lanes, each once: op is c (make or replace),
-- u (replace) or d (delete). The others name their lane by its index in l_: parked rows to put and to remove, blocked
-- keys to put and to remove, runs of attempts. Lanes that are not there are left out with all that is theirs.
CREATE FUNCTION eventhose._lanes(
	l_tenant text[], l_sub text[], l_op text[], l_cursor bigint[], l_due timestamptz[], l_retrying int[], l_dead int[], l_waiting int[], l_behind boolean[], l_row bytea[],
	p_lane int[], p_seq bigint[], p_state text[], p_row bytea[], u_lane int[], u_seq bigint[],
	b_lane int[], b_key text[], b_row bytea[], n_lane int[], n_key text[],
	a_lane int[], a_first text[], a_hi bigint[], a_at timestamptz[], a_wide boolean[], a_seqs text[], a_taken text[], a_runs bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	ids bigint[];
	spanless text[];
BEGIN
	IF 'd' = ANY (l_op) THEN
		WITH gone AS (DELETE FROM eventhose.lanes l USING unnest(l_tenant, l_sub, l_op) AS c(tenant, sub, op)
				WHERE c.op = 'd' AND l.tenant = c.tenant AND l.subscription = c.sub RETURNING l.id),
			unparked AS (DELETE FROM eventhose.parked p USING gone WHERE p.lane = gone.id)
		DELETE FROM eventhose.blocked_keys b USING gone WHERE b.lane = gone.id;
	END IF;
	IF 'c' = ANY (l_op) THEN
		INSERT INTO eventhose.lanes (cursor, due, retrying, dead, waiting, behind, work, tenant, subscription, row)
		SELECT c.cursor, c.due, c.retrying, c.dead, c.waiting, c.behind, c.behind OR c.due IS NOT NULL, c.tenant, c.sub, c.row
		FROM unnest(l_tenant, l_sub, l_op, l_cursor, l_due, l_retrying, l_dead, l_waiting, l_behind, l_row)
			AS c(tenant, sub, op, cursor, due, retrying, dead, waiting, behind, row)
		WHERE c.op = 'c' ORDER BY c.tenant, c.sub
		ON CONFLICT (tenant, subscription) DO NOTHING;
	END IF;
	UPDATE eventhose.lanes l SET cursor = c.cursor, due = c.due, retrying = c.retrying, dead = c.dead, waiting = c.waiting, behind = c.behind,
		work = c.behind OR c.due IS NOT NULL, row = c.row
	FROM unnest(l_tenant, l_sub, l_op, l_cursor, l_due, l_retrying, l_dead, l_waiting, l_behind, l_row)
		AS c(tenant, sub, op, cursor, due, retrying, dead, waiting, behind, row)
	WHERE c.op <> 'd' AND l.tenant = c.tenant AND l.subscription = c.sub;

	IF cardinality(p_lane) + cardinality(u_lane) + cardinality(b_lane) + cardinality(n_lane) + cardinality(a_lane) = 0 THEN
		RETURN;
	END IF;
	SELECT array_agg(l.id ORDER BY c.n) INTO ids FROM unnest(l_tenant, l_sub, l_op) WITH ORDINALITY AS c(tenant, sub, op, n)
		LEFT JOIN eventhose.lanes l ON c.op <> 'd' AND l.tenant = c.tenant AND l.subscription = c.sub;

	IF cardinality(p_lane) > 0 THEN
		INSERT INTO eventhose.parked (lane, seq, tenant, state, row)
		SELECT ids[p.lane], p.seq, l.tenant, p.state, p.row FROM unnest(p_lane, p_seq, p_state, p_row) AS p(lane, seq, state, row)
			JOIN unnest(l_tenant) WITH ORDINALITY AS l(tenant, n) ON l.n = p.lane
		WHERE ids[p.lane] IS NOT NULL
		ON CONFLICT (lane, seq) DO UPDATE SET state = excluded.state, row = excluded.row;
	END IF;
	IF cardinality(u_lane) > 0 THEN
		DELETE FROM eventhose.parked p USING unnest(u_lane, u_seq) AS u(lane, seq) WHERE p.lane = ids[u.lane] AND p.seq = u.seq;
	END IF;
	IF cardinality(b_lane) > 0 THEN
		INSERT INTO eventhose.blocked_keys (lane, key, row)
		SELECT ids[b.lane], b.key, b.row FROM unnest(b_lane, b_key, b_row) AS b(lane, key, row) WHERE ids[b.lane] IS NOT NULL
		ON CONFLICT (lane, key) DO UPDATE SET row = excluded.row;
	END IF;
	IF cardinality(n_lane) > 0 THEN
		DELETE FROM eventhose.blocked_keys b USING unnest(n_lane, n_key) AS n(lane, key) WHERE b.lane = ids[n.lane] AND b.key = n.key;
	END IF;
	IF cardinality(a_lane) > 0 THEN
		-- An attempt lies with its events; a log without any gets its first partition.
		SELECT array_agg(DISTINCT l_tenant[a]) INTO spanless FROM unnest(a_lane) a
			WHERE ids[a] IS NOT NULL AND NOT EXISTS (SELECT FROM eventhose.spans s WHERE s.tenant = l_tenant[a]);
		IF spanless IS NOT NULL THEN
			INSERT INTO eventhose.spans SELECT t, 1, (SELECT max(part) FROM eventhose.partitions WHERE class = 0 AND closed IS NULL) FROM unnest(spanless) t
			ON CONFLICT DO NOTHING;
		END IF;
		INSERT INTO eventhose.attempts (part, wide, lane, hi, at, tenant, first_id, seqs, taken, runs)
		SELECT coalesce((SELECT s.part FROM eventhose.spans s WHERE s.tenant = l.tenant AND (a.hi = 0 OR s.first <= a.hi) ORDER BY s.first DESC LIMIT 1),
				(SELECT s.part FROM eventhose.spans s WHERE s.tenant = l.tenant ORDER BY s.first LIMIT 1)),
			a.wide, ids[a.lane], a.hi, a.at, l.tenant, a.first_id, a.seqs::bigint[], a.taken::boolean[], a.runs
		FROM unnest(a_lane, a_first, a_hi, a_at, a_wide, a_seqs, a_taken, a_runs) AS a(lane, first_id, hi, at, wide, seqs, taken, runs)
			JOIN unnest(l_tenant) WITH ORDINALITY AS l(tenant, n) ON l.n = a.lane
		WHERE ids[a.lane] IS NOT NULL
		ON CONFLICT DO NOTHING;
	END IF;
END $$;

-- Refuses unless every lease is held with that epoch. Nobody takes one of them over before this transaction has ended.
CREATE FUNCTION eventhose._fence(shards smallint[], epochs bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	held bigint;
BEGIN
	SELECT count(*) INTO held FROM
		(SELECT l.epoch, l.shard FROM eventhose.leases l WHERE l.shard = ANY (shards) AND l.node IS NOT NULL ORDER BY l.shard FOR KEY SHARE) l
		JOIN unnest(shards, epochs) AS f(shard, epoch) ON f.shard = l.shard AND f.epoch = l.epoch;
	IF held <> cardinality(shards) THEN
		RAISE EXCEPTION 'lease lost' USING ERRCODE = 'EH001';
	END IF;
END $$;

CREATE FUNCTION eventhose._matched(m_tenant text[], m_matched bigint[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO eventhose.matched (tenant, matched) SELECT t, max(m) FROM unnest(m_tenant, m_matched) AS x(t, m) GROUP BY t ORDER BY t
	ON CONFLICT (tenant) DO UPDATE SET matched = excluded.matched WHERE matched.matched < excluded.matched
$$;

-- The leases: keeps those of a node except give, takes free and expired ones up to its share of the live nodes, answers all that
-- it then holds. ttl 0 gives all back.
CREATE FUNCTION eventhose._claim(me text, give smallint[], ttl interval) RETURNS TABLE (o_shard smallint, o_epoch bigint, o_share int, o_nodes text[]) LANGUAGE plpgsql AS $$
DECLARE
	t timestamptz;
	live text[];
	share int;
	mine int;
	given smallint[];
BEGIN
	-- One claim at a time: they are few, and so nobody waits for a row while holding another.
	PERFORM pg_advisory_xact_lock(hashtext('eventhose.leases'));
	t := clock_timestamp();
	DELETE FROM eventhose.nodes n WHERE n.until < t OR n.node = me;
	IF ttl > interval '0' THEN
		INSERT INTO eventhose.nodes VALUES (me, t + ttl);
	END IF;
	SELECT array_agg(n.node ORDER BY n.node) INTO live FROM eventhose.nodes n;
	share := CASE WHEN ttl > interval '0' THEN ceil(256.0 / cardinality(live)) ELSE 0 END;
	WITH g AS (UPDATE eventhose.leases l SET node = NULL, until = '-infinity' WHERE l.node = me AND (ttl <= interval '0' OR l.shard = ANY (give)) RETURNING l.shard)
	SELECT array_agg(g.shard) INTO given FROM g;
	-- What has run out may have been another's in between, so taking it up again is a change of hands, too.
	UPDATE eventhose.leases l SET until = t + ttl WHERE l.node = me AND l.until >= t;
	SELECT count(*) INTO mine FROM eventhose.leases l WHERE l.node = me AND l.until >= t;
	IF mine < share THEN
		WITH free AS (SELECT l.shard FROM eventhose.leases l WHERE (l.node IS NULL OR l.until < t) AND l.shard <> ALL (coalesce(given, '{}')) ORDER BY l.shard LIMIT share - mine FOR UPDATE)
		UPDATE eventhose.leases l SET node = me, epoch = l.epoch + 1, until = t + ttl FROM free WHERE l.shard = free.shard;
	END IF;
	RETURN QUERY SELECT l.shard, l.epoch, share, live FROM eventhose.leases l WHERE l.node = me AND l.until >= t ORDER BY l.shard;
	IF NOT FOUND THEN
		RETURN QUERY SELECT NULL::smallint, NULL::bigint, share, live;
	END IF;
END $$;

-- Saves records over the versions that were read; refuses all of them if one is another.
CREATE FUNCTION eventhose._save(r_tenant text[], r_kind text[], r_id text[], r_version bigint[], r_value bytea[], r_expires timestamptz[], r_delete boolean[], tell text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	good bigint;
BEGIN
	-- Those that are not there cannot be locked; of two who make the same one the second fails at the insert.
	PERFORM 1 FROM eventhose.records s JOIN unnest(r_tenant, r_kind, r_id) AS r(tenant, kind, id) ON (s.tenant, s.kind, s.id) = (r.tenant, r.kind, r.id)
		ORDER BY s.tenant, s.kind, s.id FOR UPDATE OF s;
	SELECT count(*) INTO good FROM unnest(r_tenant, r_kind, r_id, r_version) AS r(tenant, kind, id, version)
		LEFT JOIN eventhose.records s ON (s.tenant, s.kind, s.id) = (r.tenant, r.kind, r.id) AND (s.expires IS NULL OR s.expires > now())
		WHERE coalesce(s.version, 0) = r.version;
	IF good <> cardinality(r_id) THEN
		RAISE EXCEPTION 'another version' USING ERRCODE = 'EH003';
	END IF;
	-- What is made anew may be there and expired, or, since a moment ago, another's: then the insert fails.
	DELETE FROM eventhose.records s USING unnest(r_tenant, r_kind, r_id, r_delete, r_version) AS r(tenant, kind, id, del, version)
		WHERE (s.tenant, s.kind, s.id) = (r.tenant, r.kind, r.id) AND (r.del AND s.version = r.version OR r.version = 0 AND s.expires <= now());
	UPDATE eventhose.records s SET version = r.version + 1, value = r.value, expires = r.expires
		FROM unnest(r_tenant, r_kind, r_id, r_version, r_value, r_expires, r_delete) AS r(tenant, kind, id, version, value, expires, del)
		WHERE (s.tenant, s.kind, s.id) = (r.tenant, r.kind, r.id) AND NOT r.del AND r.version > 0;
	INSERT INTO eventhose.records (version, expires, tenant, kind, id, value)
		SELECT 1, r.expires, r.tenant, r.kind, r.id, r.value FROM unnest(r_tenant, r_kind, r_id, r_version, r_value, r_expires, r_delete) AS r(tenant, kind, id, version, value, expires, del)
		WHERE NOT r.del AND r.version = 0 ORDER BY r.tenant, r.kind, r.id;
	PERFORM pg_notify('eventhose', t) FROM unnest(tell) t;
EXCEPTION WHEN unique_violation THEN
	RAISE EXCEPTION 'another version' USING ERRCODE = 'EH003';
END $$;
