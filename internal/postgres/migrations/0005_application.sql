-- What people and applications use.

-- The id of an event that came without one: base 32 of its sequence and the random part.
CREATE FUNCTION eventhose.event_id(seq bigint, random bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	bits bit varying := seq::bit(64) || random::bit(64) || B'00';
	made text := 'evt_';
BEGIN
	FOR i IN 0..25 LOOP
		made := made || substr('0123456789abcdefghjkmnpqrstvwxyz', substring(bits FROM i * 5 + 1 FOR 5)::bit(5)::int + 1, 1);
	END LOOP;
	RETURN made;
END $$;

-- Data as text, or in hex what is not UTF-8.
CREATE FUNCTION eventhose.payload(data bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN convert_from(data, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
	RETURN data::text;
END $$;

-- A line for each event, for people who look with SQL. status is dead if a subscription has given up on it, failed if one is trying
-- again, processed if at least one took it, and pending until then.
CREATE VIEW eventhose.webhook_events AS
SELECT e.tenant, e.seq AS sequence,
	CASE WHEN e.origin_tenant IS NULL THEN coalesce(e.id, eventhose.event_id(e.seq, e.random))
		ELSE e.origin_tenant || '/' || coalesce(e.id, eventhose.event_id(e.origin_seq, e.random)) END AS event_id,
	split_part(e.type, '.', 1) AS provider,
	CASE WHEN strpos(e.type, '.') > 0 THEN substr(e.type, strpos(e.type, '.') + 1) ELSE e.type END AS topic,
	eventhose.payload(CASE WHEN e.erased THEN '' WHEN e.origin_tenant IS NULL THEN e.data WHEN eventhose._visible(e.origin_tenant, e.origin_seq) THEN coalesce(
		(SELECT o.data FROM eventhose.events o WHERE o.part = eventhose._part(e.origin_tenant, e.origin_seq) AND o.tenant = e.origin_tenant AND o.seq = e.origin_seq),
		(SELECT o.data FROM eventhose.kept_events o WHERE o.tenant = e.origin_tenant AND o.seq = e.origin_seq)) END) AS payload,
	CASE WHEN p.dead THEN 'dead' WHEN p.tried THEN 'failed' WHEN a.at IS NOT NULL THEN 'processed' ELSE 'pending' END AS status,
	e.appended AS received_at, a.at AS processed_at
FROM eventhose.events e JOIN eventhose.logs l ON l.tenant = e.tenant AND e.seq >= l.first
	LEFT JOIN LATERAL (SELECT bool_or(x.state = 'dead') AS dead, bool_or(x.state = 'retrying') AS tried FROM eventhose.parked x WHERE x.tenant = e.tenant AND x.seq = e.seq) p ON true
	LEFT JOIN LATERAL (
		SELECT max(x.at) AS at FROM eventhose.attempts x, unnest(x.seqs, x.taken) AS u(seq, taken)
		WHERE x.tenant = e.tenant AND u.seq = e.seq AND u.taken
			AND (x.hi BETWEEN e.seq AND e.seq + 63 AND NOT x.wide OR x.wide AND x.seqs @> ARRAY[e.seq])) a ON true;

-- Appends an event within the caller's transaction: it is there if and only if that commits, and gets its place in the log right after.
-- data is kept byte for byte. An id that the log knows makes it the same event. The transaction may stay open for as long as it
-- likes, and holds up nobody. Errors have SQLSTATE 22023.
CREATE FUNCTION eventhose.append(tenant text, type text, data json, key text DEFAULT '', id text DEFAULT '', attributes jsonb DEFAULT NULL,
	version text DEFAULT '', event_time timestamptz DEFAULT NULL) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	wrong text;
BEGIN
	wrong := CASE
		WHEN tenant IS NULL OR NOT EXISTS (SELECT FROM eventhose.records r WHERE r.tenant = '' AND r.kind = 'tenant' AND r.id = append.tenant) THEN 'tenant: there is none of this name'
		WHEN type IS NULL OR octet_length(type) > 256 OR type !~ '^[A-Za-z0-9_/:-]+(\.[A-Za-z0-9_/:-]+)*$' THEN 'type: must be parts of letters, digits, _ - / : joined by full stops, at most 256 bytes'
		WHEN type LIKE 'eventhose.%' THEN 'type: must not begin with "eventhose.", which is for system events'
		WHEN data IS NULL THEN 'data: is required'
		WHEN octet_length(data::text) > 1048576 THEN 'data: is larger than 1 MiB'
		WHEN octet_length(key) > 256 OR key ~ '[\x01-\x1f\x7f-\x9f]' THEN 'key: must be at most 256 bytes of printable text'
		WHEN octet_length(id) > 256 OR id ~ '[\x01-\x1f\x7f-\x9f]' THEN 'id: must be at most 256 bytes of printable text'
		WHEN id IN ('/', '.', '..', 'search', 'stream', 'ws') THEN 'id: must be none of / . .. search stream ws, which the paths of the API have for something else'
		WHEN octet_length(version) > 64 OR version ~ '[\x01-\x1f\x7f-\x9f]' THEN 'version: must be at most 64 bytes of printable text'
		WHEN event_time IS NOT NULL AND (event_time < '0001-01-02' OR event_time >= '9999-12-31') THEN 'event_time: must be between the years 1 and 9999'
		WHEN attributes IS NOT NULL AND jsonb_typeof(attributes) <> 'object' THEN 'attributes: must be an object of texts'
	END;
	IF wrong IS NULL AND attributes IS NOT NULL THEN
		wrong := CASE
			WHEN (SELECT count(*) FROM jsonb_object_keys(attributes)) > 32 THEN 'attributes: must be at most 32'
			WHEN EXISTS (SELECT FROM jsonb_each(attributes) a WHERE a.key !~ '^[A-Za-z0-9_.-]{1,64}$' OR jsonb_typeof(a.value) <> 'string'
				OR octet_length(a.value #>> '{}') > 1024 OR a.value #>> '{}' ~ '[\x01-\x1f\x7f-\x9f]')
				THEN 'attributes: names must be 1 to 64 letters, digits, _ . or -, and values at most 1024 bytes of printable text'
			WHEN attributes ->> 'source' ~ '^src_[0123456789abcdefghjkmnpqrstvwxyz]{25}[048cgmrw]$' THEN 'attributes: source must not be the id of an inbound source'
		END;
	END IF;
	IF wrong IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = wrong;
	END IF;
	INSERT INTO eventhose.unplaced (time, tenant, event_id, type, key, version, attributes, data)
	VALUES (event_time, tenant, coalesce(id, ''), type, coalesce(key, ''), coalesce(version, ''), attributes, convert_to(data::text, 'UTF8'));
	PERFORM pg_notify('eventhose', 'unplaced');
END $$;
REVOKE EXECUTE ON FUNCTION eventhose.append FROM PUBLIC;

-- Begins a new incarnation of every log: after a failover that may have lost something, or a restored backup. Cursors are good up
-- to where each log ends now.
CREATE FUNCTION eventhose.fork() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	UPDATE eventhose.logs SET forks = forks || jsonb_build_object('Incarnation', incarnation, 'At', last),
		incarnation = 1 + (incarnation + floor(random() * 4294967294)::bigint) % 4294967295;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;
REVOKE EXECUTE ON FUNCTION eventhose.fork FROM PUBLIC;
