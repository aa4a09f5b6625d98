-- The group append waits for a log that somebody else holds, and for how long. Before, it held the logs that it had while it waited for the next
-- one, so that one log which was held for long kept those of others from all nodes.

-- Places events at the ends of their logs. It is _append (0002) but for what it waits for: the logs of wait_for, one after the other and at most
-- patience milliseconds each, before it holds any other, and nothing else. They are an entry's log and then its parent's, if it has one: whoever
-- is kept waiting by the first would have to wait for the second, too.
--
-- It answers one of these things. kind k: ids that are remembered. kind b: logs that others hold, and n: logs that are not there yet, for
-- _make_logs, which waits for whoever makes them just then. kind v: a log of wait_for that was waited for in vain. With all of these nothing was
-- done. kind p: each log with its last sequence before.
CREATE FUNCTION eventhose._append_group(
	heads text[], counts bigint[], sizes bigint[], wait_for text[], patience int, keys uuid[], drop_unplaced bigint[],
	r_head int[], r_off bigint[], r_id text[], r_random bigint[], r_scope text[], r_type text[], r_key text[], r_time timestamptz[], r_nanos smallint[],
	r_appended timestamptz[], r_version text[], r_content text[], r_attributes text[], r_data bytea[], r_origin int[], r_origin_off bigint[],
	i_id uuid[], i_digest uuid[], i_head int[], i_off bigint[]
) RETURNS TABLE (kind text, o_tenant text, o_seq bigint, o_id uuid, o_digest uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	n int := cardinality(heads);
	head text;
	before text;
	held text[];
	lasts bigint[];
	parts int[];
	classes smallint[];
	class_parts int[];
	dropped bigint;
BEGIN
	FOREACH head IN ARRAY wait_for LOOP
		PERFORM FROM eventhose.logs WHERE tenant = head FOR UPDATE SKIP LOCKED;
		IF NOT FOUND THEN
			BEGIN
				before := current_setting('lock_timeout');
				PERFORM set_config('lock_timeout', patience::text, true);
				PERFORM FROM eventhose.logs WHERE tenant = head FOR UPDATE;
				PERFORM set_config('lock_timeout', before, true);
			EXCEPTION WHEN lock_not_available THEN
				RETURN QUERY SELECT 'v', head, NULL::bigint, NULL::uuid, NULL::uuid;
				RETURN;
			END;
		END IF;
	END LOOP;
	SELECT array_agg(l.tenant), array_agg(l.last), array_agg(l.part), array_agg(l.class) INTO held, lasts, parts, classes FROM
		(SELECT * FROM eventhose.logs WHERE tenant = ANY (heads) ORDER BY tenant FOR UPDATE SKIP LOCKED) l;
	IF coalesce(cardinality(held), 0) < n THEN
		RETURN QUERY SELECT CASE WHEN EXISTS (SELECT FROM eventhose.logs l WHERE l.tenant = h) THEN 'b' ELSE 'n' END, h, NULL::bigint, NULL::uuid, NULL::uuid
			FROM unnest(heads) h WHERE h <> ALL (coalesce(held, '{}'));
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
