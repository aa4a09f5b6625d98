-- The group append. It is one statement for the client, so that nothing is held while a client is frozen or away.

-- Makes the logs that do not exist yet.
CREATE FUNCTION eventhose._make_logs(heads text[], incarnations bigint[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO eventhose.logs (tenant, incarnation)
	SELECT h.tenant, h.incarnation FROM unnest(heads, incarnations) AS h(tenant, incarnation)
	WHERE NOT EXISTS (SELECT FROM eventhose.logs l WHERE l.tenant = h.tenant)
	ORDER BY h.tenant
	ON CONFLICT DO NOTHING
$$;

-- Places events at the ends of their logs. heads are the logs concerned, in order, each once; counts and sizes are what
-- each gets. r_ are the events: log (index into heads), offset from its last sequence, and what they hold; with an
-- origin (index into heads, offset) they stand for an event of that log; columns in which all have the default are NULL. i_ are the ids to remember, and keys those of them
-- that must not be remembered yet. drop are the unplaced rows that become events.
--
-- It answers one of three things. kind k: ids that are remembered; nothing was done. kind b: logs that others hold; nothing was done, which
-- happens only without wait. kind p: each log with its last sequence before.
CREATE FUNCTION eventhose._append(
	heads text[], incarnations bigint[], counts bigint[], sizes bigint[], wait boolean, keys uuid[], drop_unplaced bigint[],
	r_head int[], r_off bigint[], r_id text[], r_random bigint[], r_scope text[], r_type text[], r_key text[], r_time timestamptz[], r_nanos smallint[],
	r_appended timestamptz[], r_version text[], r_content text[], r_attributes text[], r_data bytea[], r_origin int[], r_origin_off bigint[],
	i_id uuid[], i_digest uuid[], i_head int[], i_off bigint[]
) RETURNS TABLE (kind text, o_tenant text, o_seq bigint, o_id uuid, o_digest uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	n int := cardinality(heads);
	held text[];
	lasts bigint[];
	parts int[];
	classes smallint[];
	class_parts int[];
	dropped bigint;
BEGIN
	FOR i IN 1..2 LOOP
		IF wait THEN
			SELECT array_agg(l.tenant), array_agg(l.last), array_agg(l.part), array_agg(l.class) INTO held, lasts, parts, classes FROM
				(SELECT * FROM eventhose.logs WHERE tenant = ANY (heads) ORDER BY tenant FOR UPDATE) l;
		ELSE
			SELECT array_agg(l.tenant), array_agg(l.last), array_agg(l.part), array_agg(l.class) INTO held, lasts, parts, classes FROM
				(SELECT * FROM eventhose.logs WHERE tenant = ANY (heads) ORDER BY tenant FOR UPDATE SKIP LOCKED) l;
		END IF;
		EXIT WHEN coalesce(cardinality(held), 0) = n;
		IF i = 1 THEN
			PERFORM eventhose._make_logs(heads, incarnations);
		END IF;
	END LOOP;
	IF coalesce(cardinality(held), 0) < n THEN
		RETURN QUERY SELECT 'b', h, NULL::bigint, NULL::uuid, NULL::uuid FROM unnest(heads) h WHERE h <> ALL (coalesce(held, '{}'));
		RETURN;
	END IF;

	IF cardinality(keys) > 0 THEN
		RETURN QUERY SELECT 'k', i.tenant, i.seq, i.id, i.digest FROM eventhose.event_ids i JOIN eventhose.logs l ON l.tenant = i.tenant
			WHERE i.id = ANY (keys) AND i.seq >= l.first;
		IF FOUND THEN
			RETURN;
		END IF;
	END IF;

	SELECT array_agg(p ORDER BY c) INTO class_parts FROM
		(SELECT c, (SELECT max(part) FROM eventhose.partitions WHERE class = c AND closed IS NULL) p FROM generate_series(0, 15) c) x;
	FOR i IN 1..n LOOP
		IF counts[i] > 0 AND parts[i] IS DISTINCT FROM class_parts[classes[i] + 1] THEN
			parts[i] := class_parts[classes[i] + 1];
			INSERT INTO eventhose.spans VALUES (heads[i], lasts[i] + 1, parts[i]) ON CONFLICT (tenant, first) DO UPDATE SET part = excluded.part;
		END IF;
	END LOOP;

	INSERT INTO eventhose.events (part, nanos, seq, random, origin_seq, time, appended, tenant, id, scope, type, key, version, content_type,
		attributes, origin_tenant, data)
	SELECT h.part, coalesce(r.nanos, 0), h.last + r.off, coalesce(r.random, 0), o.last + r.origin_off, r.time, r.appended, h.tenant, NULLIF(r.id, ''), coalesce(r.scope, ''), r.type,
		coalesce(r.key, ''), coalesce(r.version, ''), coalesce(r.content, ''), NULLIF(r.attributes, '')::jsonb, o.tenant, CASE WHEN coalesce(r.origin, 0) = 0 THEN r.data END
	FROM unnest(r_head, r_off, r_id, r_random, r_scope, r_type, r_key, r_time, r_nanos, r_appended, r_version, r_content, r_attributes, r_data, r_origin, r_origin_off)
		AS r(head, off, id, random, scope, type, key, time, nanos, appended, version, content, attributes, data, origin, origin_off)
		JOIN unnest(heads, lasts, parts) WITH ORDINALITY AS h(tenant, last, part, n) ON h.n = r.head
		LEFT JOIN unnest(heads, lasts) WITH ORDINALITY AS o(tenant, last, n) ON o.n = r.origin;

	IF cardinality(i_id) > 0 THEN
		INSERT INTO eventhose.event_ids (id, digest, seq, tenant)
		SELECT i.id, i.digest, h.last + i.off, h.tenant FROM unnest(i_id, i_digest, i_head, i_off) AS i(id, digest, head, off)
			JOIN unnest(heads, lasts) WITH ORDINALITY AS h(tenant, last, n) ON h.n = i.head
		ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, digest = excluded.digest;
	END IF;

	UPDATE eventhose.logs l SET last = l.last + h.count, bytes = l.bytes + h.size, part = h.part
	FROM unnest(heads, counts, sizes, parts) AS h(tenant, count, size, part) WHERE l.tenant = h.tenant AND h.count > 0;

	IF cardinality(drop_unplaced) > 0 THEN
		DELETE FROM eventhose.unplaced WHERE id = ANY (drop_unplaced);
		GET DIAGNOSTICS dropped = ROW_COUNT;
		IF dropped <> cardinality(drop_unplaced) THEN
			RAISE EXCEPTION 'placed by another node' USING ERRCODE = 'EH002';
		END IF;
	END IF;

	RETURN QUERY SELECT 'p', h.tenant, h.last, NULL::uuid, NULL::uuid FROM unnest(heads, lasts) AS h(tenant, last);
END $$;
