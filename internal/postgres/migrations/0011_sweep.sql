-- What has expired is removed in pieces until nothing is left. Before, it was one statement, of ten thousand records a minute and of all kept events at once:
-- records grew where more than that expired, and of very many kept events none were ever removed.

-- Removes so many of the records that expired a while ago, and answers how many there were.
CREATE FUNCTION eventhose._sweep_records(most int) RETURNS bigint LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM eventhose.records WHERE ctid = ANY (ARRAY(SELECT ctid FROM eventhose.records WHERE expires < now() - interval '1 minute' LIMIT most)) RETURNING 1)
	SELECT count(*) FROM gone
$$;

-- Removes of so many kept events, those after a place, the ones that nothing is parked for any more, with their ids. It answers where the next ones begin,
-- nothing at the end.
CREATE FUNCTION eventhose._sweep_kept(after_tenant text, after_seq bigint, most int) RETURNS TABLE (o_tenant text, o_seq bigint) LANGUAGE sql AS $$
	WITH these AS MATERIALIZED (SELECT k.tenant, k.seq FROM eventhose.kept_events k WHERE (k.tenant, k.seq) > (after_tenant, after_seq) ORDER BY k.tenant, k.seq LIMIT most),
		gone AS (DELETE FROM eventhose.kept_events k USING these t WHERE k.tenant = t.tenant AND k.seq = t.seq
			AND NOT EXISTS (SELECT FROM eventhose.parked p WHERE p.tenant = k.tenant AND p.seq = k.seq)
			RETURNING k.tenant, k.seq, k.scope, k.id, k.random, k.origin_tenant),
		forgotten AS (DELETE FROM eventhose.event_ids i USING gone e WHERE i.id = eventhose._id_key(e.tenant, e.scope, e.id, e.random, e.origin_tenant) AND i.tenant = e.tenant AND i.seq = e.seq)
	SELECT t.tenant, t.seq FROM these t ORDER BY t.tenant DESC, t.seq DESC LIMIT 1
$$;
