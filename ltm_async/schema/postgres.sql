-- The catalog in PostgreSQL: tables, and one set-based function for each operation.
--
-- One call is one transaction, whoever makes it. Running this again changes nothing, and it is to
-- be run as one transaction: as one query, or between BEGIN and COMMIT. Instants are
-- microseconds since 1970, UTC, by this server's clock. Every function locks before it looks:
-- a statement that waited for a lock still judges by what it saw before, the next one does not.
-- A key without a row cannot be locked, and may have one by the next statement: what a function
-- removes is of the rows that it holds, not of the keys that it was asked for.
-- Rows are locked in the order of their keys, entries before the blobs they name.

-- Two that ran this at the same time would collide, IF NOT EXISTS or not.
SELECT pg_advisory_xact_lock(hashtextextended('ltm_async', 0));

DO $$
BEGIN
    IF to_regnamespace('@schema@') IS NULL THEN  -- CREATE needs a permission even where it exists
        CREATE SCHEMA @schema@;
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS @schema@.ltm_schema (version int NOT NULL);

DO $$
BEGIN
    IF EXISTS (SELECT FROM @schema@.ltm_schema WHERE version > @version@) THEN
        RAISE EXCEPTION 'the catalog is newer than this script' USING ERRCODE = 'LT003';
    END IF;
END $$;

CREATE TABLE IF NOT EXISTS @schema@.ltm_entries (
    namespace     text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    version       bigint NOT NULL,
    write_id      text NOT NULL,
    content_hash  text NOT NULL,
    byte_size     bigint NOT NULL,
    inlined_value text,             -- JSON as it was written: jsonb would change numbers
    blob_id       text,
    metadata      text NOT NULL,    -- the same
    expires_at    bigint,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    PRIMARY KEY (namespace, key),
    CHECK ((inlined_value IS NULL) <> (blob_id IS NULL))
);
CREATE INDEX IF NOT EXISTS ltm_entries_expiry ON @schema@.ltm_entries (namespace, expires_at)
    WHERE expires_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS @schema@.ltm_blobs (
    namespace text COLLATE "C" NOT NULL,
    blob_id   text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    state     text NOT NULL CHECK (state IN ('pending', 'live', 'dead')),
    committed boolean NOT NULL,     -- has been live: tells a dead one that once was stored
    byte_size bigint NOT NULL,
    due_at    bigint,               -- end of the lease, or when to delete the object
    PRIMARY KEY (namespace, blob_id)
);
CREATE INDEX IF NOT EXISTS ltm_blobs_live ON @schema@.ltm_blobs (namespace, key)
    WHERE state = 'live';
CREATE INDEX IF NOT EXISTS ltm_blobs_due ON @schema@.ltm_blobs (namespace, due_at)
    WHERE state <> 'live';

CREATE TABLE IF NOT EXISTS @schema@.ltm_deletions (
    namespace  text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    write_id   text NOT NULL,
    deleted_at bigint NOT NULL,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX IF NOT EXISTS ltm_deletions_age ON @schema@.ltm_deletions (namespace, deleted_at);

-- Apart from the entries, so that a touch does not write to the index.
CREATE TABLE IF NOT EXISTS @schema@.ltm_texts (
    namespace text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    words     tsvector NOT NULL,    -- with a lexeme that marks the namespace, for the index
    length    int NOT NULL,         -- in words
    PRIMARY KEY (namespace, key)
);
CREATE INDEX IF NOT EXISTS ltm_texts_words ON @schema@.ltm_texts USING gin (words);

-- Of a type that every server has; where pgvector is, it is asked to compare them all the same.
CREATE TABLE IF NOT EXISTS @schema@.ltm_vectors (
    namespace text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    vector    real[] NOT NULL,      -- of length 1
    PRIMARY KEY (namespace, key)
);
ALTER TABLE @schema@.ltm_vectors ALTER COLUMN vector SET STORAGE EXTERNAL;  -- nothing to compress

CREATE SEQUENCE IF NOT EXISTS @schema@.ltm_version;

-- Which transaction changed a row last. Transactions end in another order than they begin, so what
-- has changed since a moment is what that moment's snapshot does not see, and no number can tell.
-- Rows of before this column was there are seen by every snapshot.
ALTER TABLE @schema@.ltm_entries ADD COLUMN IF NOT EXISTS changed_by xid8 NOT NULL DEFAULT '0';
ALTER TABLE @schema@.ltm_deletions ADD COLUMN IF NOT EXISTS changed_by xid8 NOT NULL DEFAULT '0',
    ADD COLUMN IF NOT EXISTS expired boolean NOT NULL DEFAULT false;
-- Partial, so that no plan made while there are few rows looks for a key by them: what asks for
-- changes says that changed_by is not below 0, which it never is.
CREATE INDEX IF NOT EXISTS ltm_entries_changed
    ON @schema@.ltm_entries (namespace, changed_by, key) WHERE changed_by >= '0';
CREATE INDEX IF NOT EXISTS ltm_deletions_changed
    ON @schema@.ltm_deletions (namespace, changed_by, key) WHERE changed_by >= '0';
-- Rows that were restored into another cluster have numbers that are yet to come in this one.
UPDATE @schema@.ltm_entries SET changed_by = pg_current_xact_id()
    WHERE changed_by >= pg_snapshot_xmax(pg_current_snapshot());
UPDATE @schema@.ltm_deletions SET changed_by = pg_current_xact_id()
    WHERE changed_by >= pg_snapshot_xmax(pg_current_snapshot());

CREATE TABLE IF NOT EXISTS @schema@.ltm_pruned (  -- the last deletion that was forgotten
    namespace  text COLLATE "C" PRIMARY KEY,
    changed_by xid8 NOT NULL
);

CREATE TABLE IF NOT EXISTS @schema@.ltm_snapshots (
    namespace   text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    name        text NOT NULL,
    watermark   text NOT NULL,
    entry_count bigint,             -- NULL where there were too many to count
    total_bytes bigint,             -- the same
    created_at  bigint NOT NULL,
    PRIMARY KEY (namespace, id)
);
ALTER TABLE @schema@.ltm_snapshots ALTER COLUMN entry_count DROP NOT NULL,
    ALTER COLUMN total_bytes DROP NOT NULL;
DROP FUNCTION IF EXISTS @schema@.ltm_snapshot(text, text, text);  -- which counted them all

CREATE OR REPLACE FUNCTION @schema@.ltm_now() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- What is acknowledged is on disk, also where the server's default would not wait for that. As an
-- expression of a declaration it costs a fourth of what it does as a statement.
CREATE OR REPLACE FUNCTION @schema@.ltm_durably() RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT CASE current_setting('synchronous_commit')
        WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END
$$;

-- Locks in order, and says where the rows are.
--
-- A plan takes longer to make than most of these statements take to run, so plans are made once in
-- a session, for all parameters: functions in SQL would make theirs at each call. They are made
-- when tables are small, too, and must not read all of one that has grown since: so each row is
-- looked up by itself ("key = ANY (…)" may become a filter over a namespace), a locked one is
-- found by its place, and functions go without sequential scans; those that take the first rows of
-- an order also without sorting, so that an index gives them.
CREATE OR REPLACE FUNCTION @schema@.ltm_lock(in_namespace text, in_keys text[]) RETURNS tid[]
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN ARRAY (
        SELECT e.place
        FROM (SELECT k FROM unnest(in_keys) AS u (k) ORDER BY k COLLATE "C") AS x
        CROSS JOIN LATERAL (
            SELECT ctid FROM @schema@.ltm_entries
            WHERE namespace = in_namespace AND key = x.k FOR UPDATE) AS e (place));
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_lock_blobs(in_namespace text, in_blob_ids text[])
RETURNS tid[]
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN ARRAY (
        SELECT b.place
        FROM (SELECT id FROM unnest(in_blob_ids) AS u (id) ORDER BY id COLLATE "C") AS x
        CROSS JOIN LATERAL (
            SELECT ctid FROM @schema@.ltm_blobs
            WHERE namespace = in_namespace AND blob_id = x.id FOR UPDATE) AS b (place));
END $$;

-- Every live blob of these keys dies, but those to keep. The caller has locked the keys.
CREATE OR REPLACE FUNCTION @schema@.ltm_retire(
    in_namespace text, in_keys text[], in_kept text[], in_now bigint
) RETURNS TABLE (key text, blob_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE @schema@.ltm_blobs SET state = 'dead', due_at = in_now
    WHERE state = 'live' AND ctid = ANY (ARRAY (
        SELECT b.place FROM unnest(in_keys) AS x (k)
        CROSS JOIN LATERAL (
            SELECT ctid, blob_id FROM @schema@.ltm_blobs
            WHERE namespace = in_namespace AND key = x.k AND state = 'live'
            OFFSET 0) AS b (place, id)
        WHERE b.id <> ALL (in_kept)))
    RETURNING key, blob_id;
END $$;

-- Forget the texts of these keys, which the caller has locked, having looked whether any are kept:
-- where there are none, a call would take longer than the look.
CREATE OR REPLACE FUNCTION @schema@.ltm_drop_texts(in_namespace text, in_keys text[])
RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    DELETE FROM @schema@.ltm_texts WHERE ctid = ANY (ARRAY (
        SELECT t.place FROM unnest(in_keys) AS x (k)
        CROSS JOIN LATERAL (
            SELECT ctid FROM @schema@.ltm_texts
            WHERE namespace = in_namespace AND key = x.k LIMIT 1) AS t (place)));
END $$;

-- The same for their vectors.
CREATE OR REPLACE FUNCTION @schema@.ltm_drop_vectors(in_namespace text, in_keys text[])
RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    DELETE FROM @schema@.ltm_vectors WHERE ctid = ANY (ARRAY (
        SELECT v.place FROM unnest(in_keys) AS x (k)
        CROSS JOIN LATERAL (
            SELECT ctid FROM @schema@.ltm_vectors
            WHERE namespace = in_namespace AND key = x.k LIMIT 1) AS v (place)));
END $$;

-- Of these arrays in_blob_ids, in_ttls, in_ends, in_versions, in_texts and in_lengths are NULL where
-- all they hold is. in_vectors has the numbers of all vectors one after the other, and
-- in_dimensions how many are of each key, NULL for none.
-- LT001: another version than expected; DETAIL has the place among in_keys and the version found.
-- LT002: fenced.
DROP FUNCTION IF EXISTS @schema@.ltm_commit(text, text, text[], text[], bigint[], text[], text[],
    text[], bigint[], bigint[], bigint[], text[], int[]);  -- that of version 2
CREATE OR REPLACE FUNCTION @schema@.ltm_commit(
    in_namespace text, in_write_id text, in_keys text[], in_hashes text[], in_sizes bigint[],
    in_values text[], in_blob_ids text[], in_metadata text[], in_ttls bigint[], in_ends bigint[],
    in_versions bigint[], in_texts text[], in_lengths int[],
    in_vectors real[] DEFAULT NULL, in_dimensions int[] DEFAULT NULL
) RETURNS TABLE (new_version bigint, now_us bigint, unchanged int[])
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    durably text := @schema@.ltm_durably();
    fresh text[] := coalesce(array_remove(in_blob_ids, NULL), '{}');
    renewed text[];
    places tid[];
    changed bigint;
    present record;
    kept record;
    transaction xid8 := pg_current_xact_id();
BEGIN
    -- Called by hand with fewer, the loop below would wait for ever for rows that are not written.
    IF (cardinality(in_values) = cardinality(in_keys)) IS NOT TRUE THEN
        RAISE EXCEPTION 'as many values as keys are needed' USING ERRCODE = '22023';
    END IF;
    IF cardinality(fresh) > 0 THEN
        places := @schema@.ltm_lock_blobs(in_namespace, fresh);
        UPDATE @schema@.ltm_blobs SET state = 'live', committed = true, due_at = NULL
        WHERE ctid = ANY (places) AND state = 'pending';
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(fresh) THEN
            RAISE EXCEPTION '% of % reservations have ended', cardinality(fresh) - changed,
                cardinality(fresh) USING ERRCODE = 'LT002';
        END IF;
    END IF;

    LOOP
        -- A lock gives the row as it is once the lock is held. Rows of this write are of an
        -- earlier turn of this loop.
        SELECT count(e.place) AS held, array_agg(e.place ORDER BY x.n) AS places,
            coalesce(array_agg(x.n) FILTER (WHERE e.live AND e.content_hash = x.h), '{}') AS same,
            coalesce(bool_or(e.blob_id IS NOT NULL), false) AS had_blobs,
            min(x.n) FILTER (WHERE
                x.expected <> CASE WHEN e.live THEN e.version ELSE 0 END) AS conflict
        INTO present
        FROM (
            SELECT * FROM unnest(in_keys, in_hashes, in_versions)
            WITH ORDINALITY AS u (k, h, expected, n) ORDER BY k COLLATE "C") AS x
        LEFT JOIN LATERAL (
            SELECT ctid AS place, version, content_hash, blob_id, write_id <> in_write_id
                AND (expires_at IS NULL OR expires_at > @schema@.ltm_now()) AS live
            FROM @schema@.ltm_entries
            WHERE namespace = in_namespace AND key = x.k FOR UPDATE) AS e ON true;

        IF present.conflict IS NOT NULL THEN
            RAISE EXCEPTION 'another version than expected' USING ERRCODE = 'LT001',
                DETAIL = present.conflict || ' ' || coalesce((
                    SELECT version FROM @schema@.ltm_entries
                    WHERE namespace = in_namespace AND key = in_keys[present.conflict]
                        AND (expires_at IS NULL OR expires_at > @schema@.ltm_now())), 0);
        END IF;
        IF array_position(in_values, NULL) IS NOT NULL THEN
            SELECT array_agg(e.blob_id), count(*) FILTER (WHERE e.blob_id IS NULL)
            INTO renewed, changed
            FROM unnest(present.places, in_hashes, in_values, in_blob_ids) AS x (place, h, v, b)
            LEFT JOIN @schema@.ltm_entries AS e ON e.ctid = x.place AND e.content_hash = x.h
            WHERE x.v IS NULL AND x.b IS NULL;
            IF changed > 0 THEN
                RAISE EXCEPTION 'the value to renew changed' USING ERRCODE = 'LT002';
            END IF;
        END IF;
        now_us := @schema@.ltm_now();
        new_version := nextval('@schema@.ltm_version');
        EXIT WHEN present.held = cardinality(in_keys);

        INSERT INTO @schema@.ltm_entries (namespace, key, version, write_id, content_hash,
            byte_size, inlined_value, blob_id, metadata, expires_at, created_at, updated_at,
            changed_by)
        SELECT in_namespace, x.k, new_version, in_write_id, x.h, x.size, x.v, x.b, x.m,
            coalesce(now_us + x.ttl, x.ends), now_us, now_us, transaction
        FROM unnest(in_keys, in_hashes, in_sizes, in_values, in_blob_ids, in_metadata, in_ttls,
            in_ends) AS x (k, h, size, v, b, m, ttl, ends)
        WHERE x.v IS NOT NULL OR x.b IS NOT NULL
        ORDER BY x.k COLLATE "C"
        ON CONFLICT (namespace, key) DO NOTHING;
        GET DIAGNOSTICS changed = ROW_COUNT;
        EXIT WHEN present.held + changed = cardinality(in_keys);
        -- Another writer was first with one of them: what it wrote is locked now, and replaced.
    END LOOP;

    IF present.held > 0 THEN
        UPDATE @schema@.ltm_entries AS e SET
            version = new_version, write_id = in_write_id, content_hash = x.h, byte_size = x.size,
            inlined_value = x.v, blob_id = CASE WHEN x.v IS NULL THEN coalesce(x.b, e.blob_id) END,
            metadata = x.m, expires_at = coalesce(now_us + x.ttl, x.ends),
            created_at = CASE
                WHEN (e.expires_at IS NULL OR e.expires_at > now_us)
                    AND e.created_at BETWEEN 0 AND now_us  -- a forged one heals
                THEN e.created_at ELSE now_us END,
            updated_at = now_us, changed_by = transaction
        FROM unnest(present.places, in_hashes, in_sizes, in_values, in_blob_ids, in_metadata,
            in_ttls, in_ends) AS x (place, h, size, v, b, m, ttl, ends)
        WHERE e.ctid = x.place;
    END IF;
    IF present.had_blobs THEN
        PERFORM @schema@.ltm_retire(in_namespace, in_keys, fresh || renewed, now_us);
    END IF;
    SELECT EXISTS (SELECT FROM @schema@.ltm_texts WHERE @within@) AS texts,
        EXISTS (SELECT FROM @schema@.ltm_vectors WHERE @within@) AS vectors
    INTO kept;
    IF kept.texts AND (in_texts IS NULL OR array_position(in_texts, NULL) IS NOT NULL) THEN
        PERFORM @schema@.ltm_drop_texts(in_namespace, in_keys);
    END IF;
    IF in_texts IS NOT NULL THEN
        INSERT INTO @schema@.ltm_texts AS t (namespace, key, words, length)
        SELECT in_namespace, x.k, x.words::tsvector, x.length
        FROM unnest(in_keys, in_texts, in_lengths) AS x (k, words, length)
        WHERE x.words IS NOT NULL
        ON CONFLICT (namespace, key) DO UPDATE SET
            words = excluded.words, length = excluded.length
        WHERE t.words <> excluded.words;
    END IF;
    IF kept.vectors
        AND (in_vectors IS NULL OR array_position(in_dimensions, NULL) IS NOT NULL)
    THEN
        PERFORM @schema@.ltm_drop_vectors(in_namespace, in_keys);
    END IF;
    IF in_vectors IS NOT NULL THEN
        INSERT INTO @schema@.ltm_vectors AS v (namespace, key, vector)
        SELECT in_namespace, x.k, in_vectors[x.until - x.size + 1 : x.until]
        FROM (
            SELECT u.k, u.size, (sum(u.size) OVER (ORDER BY u.n))::int AS until
            FROM unnest(in_keys, in_dimensions) WITH ORDINALITY AS u (k, size, n)) AS x
        WHERE x.size IS NOT NULL
        ON CONFLICT (namespace, key) DO UPDATE SET vector = excluded.vector
        WHERE v.vector <> excluded.vector;
    END IF;
    unchanged := present.same;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_get(in_namespace text, in_keys text[]) RETURNS TABLE (
    key text, version bigint, content_hash text, byte_size bigint, inlined_value text,
    blob_id text, metadata text, expires_at bigint, created_at bigint, updated_at bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.* FROM unnest(in_keys) AS x (k)
    CROSS JOIN LATERAL (
        SELECT key, version, content_hash, byte_size, inlined_value, blob_id, metadata,
            expires_at, created_at, updated_at
        FROM @schema@.ltm_entries WHERE namespace = in_namespace AND key = x.k LIMIT 1) AS e
    WHERE e.expires_at IS NULL OR e.expires_at > (SELECT @schema@.ltm_now());
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_touch(
    in_namespace text, in_key text, in_write_id text, in_new_expiry boolean, in_ttl bigint,
    in_end bigint, in_metadata text
) RETURNS TABLE (
    key text, version bigint, content_hash text, byte_size bigint, inlined_value text,
    blob_id text, metadata text, expires_at bigint, created_at bigint, updated_at bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    durably text := @schema@.ltm_durably();
    now_us bigint;
BEGIN
    PERFORM @schema@.ltm_lock(in_namespace, ARRAY[in_key]);
    now_us := @schema@.ltm_now();
    RETURN QUERY
    UPDATE @schema@.ltm_entries AS e SET
        version = nextval('@schema@.ltm_version'), write_id = in_write_id, updated_at = now_us,
        expires_at = CASE WHEN in_new_expiry THEN coalesce(now_us + in_ttl, in_end)
            ELSE e.expires_at END,
        metadata = coalesce(in_metadata, e.metadata), changed_by = pg_current_xact_id()
    WHERE e.namespace = in_namespace AND e.key = in_key
        AND (e.expires_at IS NULL OR e.expires_at > now_us)
    RETURNING e.key, e.version, e.content_hash, e.byte_size, e.inlined_value, e.blob_id,
        e.metadata, e.expires_at, e.created_at, e.updated_at;
END $$;

-- Remove rows that the caller has locked, at these places. It sorts, whoever calls it: a plan that
-- has to do what is switched off counts as so expensive that it is compiled each time it runs.
DROP FUNCTION IF EXISTS @schema@.ltm_remove(text, text[], tid[], text, bigint);  -- of version 3
CREATE OR REPLACE FUNCTION @schema@.ltm_remove(
    in_namespace text, in_places tid[], in_write_id text, in_now bigint
) RETURNS TABLE (key text, was_live boolean, blob_id text)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_sort = on SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    keys text[];  -- no field of a record: that has the columns' collation, and so plans of its own
    has_texts boolean;
    has_vectors boolean;
BEGIN
    SELECT ARRAY (SELECT e.key FROM @schema@.ltm_entries AS e WHERE e.ctid = ANY (in_places)),
        EXISTS (SELECT FROM @schema@.ltm_texts WHERE @within@),
        EXISTS (SELECT FROM @schema@.ltm_vectors WHERE @within@)
    INTO keys, has_texts, has_vectors;
    IF has_texts THEN
        PERFORM @schema@.ltm_drop_texts(in_namespace, keys);
    END IF;
    IF has_vectors THEN
        PERFORM @schema@.ltm_drop_vectors(in_namespace, keys);
    END IF;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM @schema@.ltm_entries AS e WHERE e.ctid = ANY (in_places)
        RETURNING e.key, (e.expires_at IS NULL OR e.expires_at > in_now) AS was_live
    ), marked AS (
        INSERT INTO @schema@.ltm_deletions AS d
            (namespace, key, version, write_id, deleted_at, expired, changed_by)
        SELECT in_namespace, gone.key, nextval('@schema@.ltm_version'), in_write_id, in_now,
            NOT gone.was_live, pg_current_xact_id()
        FROM gone ORDER BY gone.key
        ON CONFLICT (namespace, key) DO UPDATE SET version = excluded.version,
            write_id = excluded.write_id, deleted_at = excluded.deleted_at,
            expired = excluded.expired, changed_by = excluded.changed_by
    )
    -- What the ledger says was theirs, not what a row said: that may be another's.
    SELECT gone.key, gone.was_live, dead.blob_id
    FROM gone
    LEFT JOIN @schema@.ltm_retire(in_namespace, keys, '{}', in_now) AS dead USING (key);
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_delete(
    in_namespace text, in_keys text[], in_write_id text, in_if_version bigint
) RETURNS TABLE (key text, was_live boolean, blob_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    durably text := @schema@.ltm_durably();
    now_us bigint;
    places tid[];
    live record;
BEGIN
    places := @schema@.ltm_lock(in_namespace, in_keys);
    now_us := @schema@.ltm_now();
    IF in_if_version IS NOT NULL THEN
        SELECT array_position(in_keys, e.key) AS n, e.version INTO live
        FROM @schema@.ltm_entries AS e
        WHERE e.ctid = ANY (places) AND (e.expires_at IS NULL OR e.expires_at > now_us)
        ORDER BY e.version = in_if_version, e.key LIMIT 1;
        IF live.version IS DISTINCT FROM in_if_version THEN
            RAISE EXCEPTION 'another version than expected' USING ERRCODE = 'LT001',
                DETAIL = coalesce(live.n, 1) || ' ' || coalesce(live.version, 0);
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM
        @schema@.ltm_remove(in_namespace, places, in_write_id, now_us);
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_expire(
    in_namespace text, in_limit bigint, in_write_id text
) RETURNS TABLE (key text, was_live boolean, blob_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    durably text := @schema@.ltm_durably();
    now_us bigint := @schema@.ltm_now();
    places tid[];
BEGIN
    places := ARRAY (
        SELECT ctid FROM @schema@.ltm_entries
        WHERE namespace = in_namespace AND expires_at <= now_us
        ORDER BY expires_at LIMIT in_limit FOR UPDATE SKIP LOCKED);
    RETURN QUERY SELECT * FROM
        @schema@.ltm_remove(in_namespace, places, in_write_id, now_us);
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_list(
    in_namespace text, in_start text, in_after text, in_end text, in_limit bigint
) RETURNS TABLE (
    key text, version bigint, content_hash text, byte_size bigint, inlined_value text,
    blob_id text, metadata text, expires_at bigint, created_at bigint, updated_at bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT e.key, e.version, e.content_hash, e.byte_size, NULL::text, e.blob_id, e.metadata,
        e.expires_at, e.created_at, e.updated_at
    FROM @schema@.ltm_entries AS e
    WHERE e.namespace = in_namespace AND e.key >= in_start AND e.key > in_after AND e.key < in_end
        AND (e.expires_at IS NULL OR e.expires_at > (SELECT @schema@.ltm_now()))
    ORDER BY e.key LIMIT in_limit;
END $$;

-- Whether metadata is what a filter's jsonpath asks for. What is no JSON is for the caller to see.
CREATE OR REPLACE FUNCTION @schema@.ltm_wanted(
    in_metadata text, in_path jsonpath, in_variables jsonb
) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce(jsonb_path_match(in_metadata::jsonb, in_path, in_variables, true), true);
EXCEPTION WHEN data_exception THEN
    RETURN true;
END $$;

-- Up to in_wanted entries that a filter wants, of up to in_limit rows that are looked at, expired
-- ones too. In a last row the key is the last that was looked at and can be one.
CREATE OR REPLACE FUNCTION @schema@.ltm_filter(
    in_namespace text, in_start text, in_after text, in_end text, in_path text,
    in_variables text, in_wanted bigint, in_limit bigint
) RETURNS TABLE (
    key text, version bigint, content_hash text, byte_size bigint, inlined_value text,
    blob_id text, metadata text, expires_at bigint, created_at bigint, updated_at bigint,
    looked bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    path jsonpath := in_path;
    variables jsonb := in_variables;
    now_us bigint := @schema@.ltm_now();
    found bigint := 0;
    last text;
BEGIN
    looked := 0;
    FOR key, version, content_hash, byte_size, blob_id, metadata, expires_at, created_at,
        updated_at
    IN
        SELECT e.key, e.version, e.content_hash, e.byte_size, e.blob_id, e.metadata,
            e.expires_at, e.created_at, e.updated_at
        FROM @schema@.ltm_entries AS e
        WHERE e.namespace = in_namespace AND e.key >= in_start AND e.key > in_after
            AND e.key < in_end
        ORDER BY e.key LIMIT in_limit
    LOOP
        looked := looked + 1;
        IF octet_length(key) BETWEEN 1 AND 1024 THEN
            last := key;
        END IF;
        CONTINUE WHEN expires_at <= now_us
            OR NOT @schema@.ltm_wanted(metadata, path, variables);
        found := found + 1;
        RETURN NEXT;
        EXIT WHEN found = in_wanted;
    END LOOP;
    key := last;
    RETURN NEXT;
END $$;

-- The entries that match a query, best first, each with the places of the words that are sought;
-- and how many match, how many have a text, and in how many each term is. If none matches, one row
-- without a key. The index is asked for the words before anything else is looked at.
CREATE OR REPLACE FUNCTION @schema@.ltm_search(
    in_namespace text, in_query text, in_terms text[], in_words text[], in_prefixes text[],
    in_path text, in_variables text, in_best bigint, in_most bigint, in_counted bigint
) RETURNS TABLE (
    key text, version bigint, content_hash text, byte_size bigint, inlined_value text,
    blob_id text, metadata text, expires_at bigint, created_at bigint, updated_at bigint,
    places text, length int, total bigint, entries bigint, having_terms bigint[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    query tsquery := in_query;
    path jsonpath := in_path;
    variables jsonb := in_variables;
    now_us bigint := @schema@.ltm_now();
    counted bigint;
    per_term bigint[] := '{}';
    term tsquery;
BEGIN
    FOREACH term IN ARRAY in_terms::tsquery[] LOOP
        SELECT count(*) INTO counted FROM (
            SELECT FROM @schema@.ltm_texts WHERE @within@ AND words @@ term LIMIT in_counted) AS t;
        per_term := per_term || counted;
    END LOOP;
    SELECT count(*) INTO counted FROM (
        SELECT FROM @schema@.ltm_texts WHERE namespace = in_namespace LIMIT in_counted) AS t;
    RETURN QUERY
    WITH matching AS MATERIALIZED (
        SELECT e.place AS entry, t.place AS text, t.key, ts_rank(t.words, query) AS rank
        FROM (
            SELECT ctid AS place, namespace, key, words FROM @schema@.ltm_texts
            WHERE @within@ AND words @@ query OFFSET 0) AS t
        CROSS JOIN LATERAL (
            SELECT ctid AS place, metadata FROM @schema@.ltm_entries
            WHERE namespace = t.namespace AND key = t.key
                AND (expires_at IS NULL OR expires_at > now_us) LIMIT 1) AS e
        WHERE t.namespace = in_namespace
            AND (path IS NULL OR @schema@.ltm_wanted(e.metadata, path, variables))
        LIMIT in_most
    ), best AS (
        SELECT * FROM matching AS m ORDER BY m.rank DESC, m.key LIMIT in_best
    )
    SELECT e.key, e.version, e.content_hash, e.byte_size, NULL::text, e.blob_id, e.metadata,
        e.expires_at, e.created_at, e.updated_at, (
            SELECT jsonb_object_agg(w.lexeme, to_jsonb(w.positions))::text
            FROM unnest(t.words) AS w
            WHERE w.lexeme = ANY (in_words) OR w.lexeme ^@ ANY (in_prefixes)),
        t.length, matched.count, counted, per_term
    FROM (SELECT count(*) FROM matching) AS matched (count)
    LEFT JOIN best ON true
    LEFT JOIN @schema@.ltm_entries AS e ON e.ctid = best.entry
    LEFT JOIN @schema@.ltm_texts AS t ON t.ctid = best.text;
END $$;

-- The entries whose vectors are nearest to in_vector, all of its length being compared with it, and
-- before them a row without a key, with how many were compared. Where it is installed, pgvector
-- compares; where it is not, no more than in_most are: if there are more, that row is the only one.
CREATE OR REPLACE FUNCTION @schema@.ltm_nearest(
    in_namespace text, in_vector real[], in_path text, in_variables text, in_best bigint,
    in_most bigint
) RETURNS TABLE (
    key text, version bigint, content_hash text, byte_size bigint, inlined_value text,
    blob_id text, metadata text, expires_at bigint, created_at bigint, updated_at bigint,
    cosine float8, compared bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    extension text := (
        SELECT quote_ident(n.nspname)
        FROM pg_extension AS x JOIN pg_namespace AS n ON n.oid = x.extnamespace
        WHERE x.extname = 'vector' AND has_schema_privilege(n.oid, 'USAGE'));
    product text := CASE WHEN extension IS NULL
        THEN '(SELECT sum(x.a::float8 * x.b) FROM unnest(v.vector, $2) AS x (a, b))'
        ELSE format('-(v.vector::%1$s.vector OPERATOR(%1$s.<#>) $2::%1$s.vector)', extension) END;
BEGIN
    RETURN QUERY EXECUTE format($query$
        WITH compared AS MATERIALIZED (
            SELECT v.key, %s AS cosine
            FROM @schema@.ltm_vectors AS v
            CROSS JOIN LATERAL (
                SELECT e.metadata FROM @schema@.ltm_entries AS e
                WHERE e.namespace = v.namespace AND e.key = v.key
                    AND (e.expires_at IS NULL OR e.expires_at > $6) LIMIT 1) AS e
            WHERE v.namespace = $1 AND cardinality(v.vector) = cardinality($2)
                AND ($3 IS NULL OR @schema@.ltm_wanted(e.metadata, $3, $4))
            LIMIT $7 + 1
        ), counted AS (
            SELECT count(*) AS n FROM compared
        ), best AS (
            SELECT c.key, c.cosine FROM compared AS c, counted
            WHERE $7 IS NULL OR counted.n <= $7
            ORDER BY c.cosine DESC, c.key LIMIT $5
        )
        SELECT NULL, NULL::bigint, NULL, NULL::bigint, NULL, NULL, NULL, NULL::bigint,
            NULL::bigint, NULL::bigint, NULL::float8, counted.n FROM counted
        UNION ALL (
            SELECT e.key, e.version, e.content_hash, e.byte_size, NULL::text, e.blob_id,
                e.metadata, e.expires_at, e.created_at, e.updated_at, best.cosine, NULL::bigint
            FROM best CROSS JOIN LATERAL (
                SELECT * FROM @schema@.ltm_entries AS e
                WHERE e.namespace = $1 AND e.key = best.key LIMIT 1) AS e
            ORDER BY best.cosine DESC, e.key)
        $query$, product)
    USING in_namespace, in_vector, in_path::jsonpath, in_variables::jsonb, in_best,
        @schema@.ltm_now(), CASE WHEN extension IS NULL THEN in_most END;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_reserve(
    in_namespace text, in_blob_ids text[], in_keys text[], in_hashes text[], in_sizes bigint[],
    in_lease bigint
) RETURNS TABLE (key text, blob_id text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH held AS (
        SELECT x.k AS key, e.blob_id
        FROM unnest(in_keys, in_hashes) AS x (k, h)
        CROSS JOIN LATERAL (
            SELECT content_hash, blob_id FROM @schema@.ltm_entries
            WHERE namespace = in_namespace AND key = x.k LIMIT 1) AS e
        WHERE e.content_hash = x.h AND e.blob_id IS NOT NULL
    ), reserved AS (
        INSERT INTO @schema@.ltm_blobs
            (namespace, blob_id, key, state, committed, byte_size, due_at)
        SELECT in_namespace, x.b, x.k, 'pending', false, x.size, @schema@.ltm_now() + in_lease
        FROM unnest(in_blob_ids, in_keys, in_sizes) AS x (b, k, size)
        WHERE NOT EXISTS (SELECT FROM held WHERE held.key = x.k)
        ON CONFLICT DO NOTHING
    )
    SELECT key, blob_id FROM held;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_abandon(
    in_namespace text, in_blob_ids text[], in_grace bigint
) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    places tid[] := @schema@.ltm_lock_blobs(in_namespace, in_blob_ids);
BEGIN
    UPDATE @schema@.ltm_blobs SET state = 'dead', due_at = @schema@.ltm_now() + in_grace
    WHERE ctid = ANY (places) AND state = 'pending';
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_resolve_write(
    in_namespace text, in_write_id text, in_keys text[], in_blob_ids text[], in_grace bigint
) RETURNS TABLE (known bigint, was_committed boolean, found_version bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    durably text := @schema@.ltm_durably();
    places tid[];
BEGIN
    PERFORM @schema@.ltm_abandon(in_namespace, in_blob_ids, in_grace);
    places := @schema@.ltm_lock_blobs(in_namespace, in_blob_ids);
    SELECT count(*), coalesce(bool_or(committed), false) INTO known, was_committed
    FROM @schema@.ltm_blobs WHERE ctid = ANY (places);
    places := @schema@.ltm_lock(in_namespace, in_keys);
    SELECT max(version) INTO found_version
    FROM @schema@.ltm_entries WHERE ctid = ANY (places) AND write_id = in_write_id;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_resolve_removal(
    in_namespace text, in_write_id text, in_keys text[]
) RETURNS TABLE (key text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM @schema@.ltm_lock(in_namespace, in_keys);
    RETURN QUERY SELECT x.k FROM unnest(in_keys) AS x (k)
    CROSS JOIN LATERAL (
        SELECT write_id, expired FROM @schema@.ltm_deletions
        WHERE namespace = in_namespace AND key = x.k LIMIT 1) AS d
    WHERE d.write_id = in_write_id AND NOT d.expired;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_take_due(
    in_namespace text, in_limit bigint, in_backoff bigint, in_keep_deletions bigint
) RETURNS TABLE (blob_id text, byte_size bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    now_us bigint := @schema@.ltm_now();
    places tid[];
BEGIN
    places := ARRAY (
        SELECT ctid FROM @schema@.ltm_deletions
        WHERE namespace = in_namespace AND deleted_at <= now_us - in_keep_deletions
        ORDER BY deleted_at LIMIT in_limit FOR UPDATE SKIP LOCKED);
    IF cardinality(places) > 0 THEN
        WITH gone AS (
            DELETE FROM @schema@.ltm_deletions WHERE ctid = ANY (places) RETURNING changed_by)
        INSERT INTO @schema@.ltm_pruned AS p (namespace, changed_by)
        SELECT in_namespace, max(changed_by::text::numeric)::text::xid8 FROM gone
        ON CONFLICT (namespace) DO UPDATE SET
            changed_by = greatest(p.changed_by, excluded.changed_by);
    END IF;
    places := ARRAY (
        SELECT ctid FROM @schema@.ltm_blobs
        WHERE namespace = in_namespace AND state <> 'live' AND due_at <= now_us
        ORDER BY due_at LIMIT in_limit FOR UPDATE SKIP LOCKED);
    RETURN QUERY
    UPDATE @schema@.ltm_blobs SET state = 'dead', due_at = now_us + in_backoff
    WHERE ctid = ANY (places) RETURNING blob_id, byte_size;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_due(in_namespace text, in_limit bigint)
RETURNS TABLE (blob_id text, byte_size bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT b.blob_id, b.byte_size FROM @schema@.ltm_blobs AS b
    WHERE b.namespace = in_namespace AND b.state <> 'live'
        AND b.due_at <= (SELECT @schema@.ltm_now())
    ORDER BY b.due_at LIMIT in_limit;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_forget(in_namespace text, in_blob_ids text[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    places tid[] := @schema@.ltm_lock_blobs(in_namespace, in_blob_ids);
BEGIN
    DELETE FROM @schema@.ltm_blobs WHERE ctid = ANY (places) AND state = 'dead';
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_ledger(
    in_namespace text, in_after text, in_limit bigint
) RETURNS TABLE (blob_id text, key text, state text, byte_size bigint, named boolean)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT b.blob_id, b.key, b.state, b.byte_size, coalesce(e.blob_id = b.blob_id, false)
    FROM (
        SELECT * FROM @schema@.ltm_blobs
        WHERE namespace = in_namespace AND blob_id > in_after
        ORDER BY blob_id LIMIT in_limit) AS b
    LEFT JOIN LATERAL (
        SELECT blob_id FROM @schema@.ltm_entries
        WHERE namespace = in_namespace AND key = b.key LIMIT 1) AS e ON true
    ORDER BY b.blob_id;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_known(in_namespace text, in_blob_ids text[])
RETURNS TABLE (blob_id text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT x.id FROM unnest(in_blob_ids) AS x (id)
    CROSS JOIN LATERAL (
        SELECT FROM @schema@.ltm_blobs
        WHERE namespace = in_namespace AND blob_id = x.id LIMIT 1) AS b;
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_stats(in_namespace text) RETURNS TABLE (
    entries bigint, expired bigint, inlined bigint, inlined_bytes bigint, blobs bigint,
    blob_bytes bigint, pending_blobs bigint, dead_blobs bigint)
LANGUAGE sql STABLE AS $$
    WITH row AS (
        SELECT e.expires_at IS NULL OR e.expires_at > now.us AS live, e.blob_id, e.byte_size
        FROM @schema@.ltm_entries AS e, (SELECT @schema@.ltm_now()) AS now (us)
        WHERE e.namespace = in_namespace
    ), entry AS (
        SELECT count(*) FILTER (WHERE live) AS entries, count(*) FILTER (WHERE NOT live) AS expired,
            count(*) FILTER (WHERE live AND blob_id IS NULL) AS inlined,
            coalesce(sum(byte_size) FILTER (WHERE live AND blob_id IS NULL), 0)::bigint AS bytes
        FROM row
    ), blob AS (
        SELECT count(*) FILTER (WHERE state = 'live') AS live,
            coalesce(sum(byte_size) FILTER (WHERE state = 'live'), 0)::bigint AS bytes,
            count(*) FILTER (WHERE state = 'pending') AS pending,
            count(*) FILTER (WHERE state = 'dead') AS dead
        FROM @schema@.ltm_blobs WHERE namespace = in_namespace
    )
    SELECT entry.entries, entry.expired, entry.inlined, entry.bytes, blob.live, blob.bytes,
        blob.pending, blob.dead
    FROM entry, blob
$$;

CREATE OR REPLACE FUNCTION @schema@.ltm_find_snapshot(in_namespace text, in_id text)
RETURNS TABLE (id text, name text, watermark text, entry_count bigint, total_bytes bigint,
    created_at bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.id, s.name, s.watermark, s.entry_count, s.total_bytes, s.created_at
    FROM @schema@.ltm_snapshots AS s WHERE namespace = in_namespace AND id = in_id;
END $$;

-- What it counts and its watermark are of one statement, and so of one moment. Beyond in_limit rows,
-- expired ones too, it does not count. They are in an order for an index to give them one by one.
CREATE OR REPLACE FUNCTION @schema@.ltm_snapshot(
    in_namespace text, in_id text, in_name text, in_limit bigint
) RETURNS TABLE (id text, name text, watermark text, entry_count bigint, total_bytes bigint,
    created_at bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off AS $$
DECLARE
    durably text := @schema@.ltm_durably();
BEGIN
    INSERT INTO @schema@.ltm_snapshots AS s
    SELECT in_namespace, in_id, in_name, pg_current_snapshot()::text,
        CASE WHEN count(*) <= in_limit THEN count(*) FILTER (WHERE e.live) END,
        CASE WHEN count(*) <= in_limit
            THEN coalesce(sum(e.byte_size) FILTER (WHERE e.live), 0)::bigint END,
        (SELECT @schema@.ltm_now())
    FROM (
        SELECT byte_size, expires_at IS NULL OR expires_at > (SELECT @schema@.ltm_now()) AS live
        FROM @schema@.ltm_entries WHERE namespace = in_namespace
        ORDER BY key LIMIT in_limit + 1) AS e
    ON CONFLICT ON CONSTRAINT ltm_snapshots_pkey DO NOTHING;
    RETURN QUERY SELECT * FROM @schema@.ltm_find_snapshot(in_namespace, in_id);
END $$;

CREATE OR REPLACE FUNCTION @schema@.ltm_delete_snapshot(in_namespace text, in_id text)
RETURNS TABLE (id text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY DELETE FROM @schema@.ltm_snapshots AS s
    WHERE s.namespace = in_namespace AND s.id = in_id RETURNING s.id;
END $$;

-- A page of what in_since, a snapshot, does not see and in_upper does, above the place of the page
-- before. Without in_since it is all, and without in_upper what can be seen now. In a first row
-- without a kind is how far the pass goes. As transactions are not in the order of their ends, a
-- deletion is left out where its key has a row: that is later, and in this pass or the next.
-- LT004: deletions since then were forgotten. LT005: it is ahead of this cluster. LT006: rows are.
CREATE OR REPLACE FUNCTION @schema@.ltm_changes(
    in_namespace text, in_since text, in_upper text, in_after text, in_after_key text,
    in_limit bigint
) RETURNS TABLE (
    kind text, changed_by text, key text, version bigint, content_hash text, byte_size bigint,
    inlined_value text, blob_id text, metadata text, expires_at bigint, created_at bigint,
    updated_at bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    seen pg_snapshot := in_since;
    upper pg_snapshot := coalesce(in_upper::pg_snapshot, pg_current_snapshot());
    ends xid8 := pg_snapshot_xmax(pg_current_snapshot());
    after xid8 := coalesce(in_after, pg_snapshot_xmin(seen)::text, '0');
BEGIN
    IF pg_snapshot_xmax(seen) > ends OR pg_snapshot_xmax(upper) > ends THEN
        RAISE EXCEPTION 'a snapshot of another cluster' USING ERRCODE = 'LT005';
    END IF;
    IF EXISTS (
        SELECT FROM @schema@.ltm_pruned
        WHERE namespace = in_namespace AND changed_by >= pg_snapshot_xmin(seen)
    ) THEN
        RAISE EXCEPTION 'deletions were forgotten' USING ERRCODE = 'LT004';
    END IF;
    IF coalesce(
        (SELECT true FROM @schema@.ltm_entries
        WHERE namespace = in_namespace AND changed_by >= ends AND changed_by >= '0'
        ORDER BY changed_by LIMIT 1),
        (SELECT true FROM @schema@.ltm_deletions
        WHERE namespace = in_namespace AND changed_by >= ends AND changed_by >= '0'
        ORDER BY changed_by LIMIT 1)
    ) THEN
        RAISE EXCEPTION 'rows of another cluster' USING ERRCODE = 'LT006';
    END IF;
    kind := NULL;
    key := upper::text;
    RETURN NEXT;
    RETURN QUERY
    SELECT c.kind, c.changed_by::text, c.key, c.version, c.content_hash, c.byte_size,
        c.inlined_value, c.blob_id, c.metadata, c.expires_at, c.created_at, c.updated_at
    FROM (
        (SELECT CASE WHEN e.expires_at <= (SELECT @schema@.ltm_now()) THEN 'expired'
                ELSE 'stored' END,
            e.changed_by, e.key, e.version, e.content_hash, e.byte_size, NULL::text, e.blob_id,
            e.metadata, e.expires_at, e.created_at, e.updated_at
        FROM @schema@.ltm_entries AS e
        WHERE e.namespace = in_namespace AND (e.changed_by, e.key) > (after, in_after_key)
            AND e.changed_by >= '0' AND e.changed_by < pg_snapshot_xmax(upper)
            AND pg_visible_in_snapshot(e.changed_by, upper)
            AND (seen IS NULL OR NOT pg_visible_in_snapshot(e.changed_by, seen))
        ORDER BY e.changed_by, e.key LIMIT in_limit)
        UNION ALL
        (SELECT CASE WHEN d.expired THEN 'expired' ELSE 'deleted' END,
            d.changed_by, d.key, d.version, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM @schema@.ltm_deletions AS d
        WHERE d.namespace = in_namespace AND (d.changed_by, d.key) > (after, in_after_key)
            AND d.changed_by >= '0' AND d.changed_by < pg_snapshot_xmax(upper)
            AND pg_visible_in_snapshot(d.changed_by, upper)
            AND (seen IS NULL OR NOT pg_visible_in_snapshot(d.changed_by, seen))
            AND (
                SELECT true FROM @schema@.ltm_entries AS e
                WHERE e.namespace = in_namespace AND e.key = d.key LIMIT 1) IS NULL
        ORDER BY d.changed_by, d.key LIMIT in_limit)
    ) AS c (kind, changed_by, key, version, content_hash, byte_size, inlined_value, blob_id,
        metadata, expires_at, created_at, updated_at)
    ORDER BY c.changed_by, c.key LIMIT in_limit;
END $$;

DELETE FROM @schema@.ltm_schema;
INSERT INTO @schema@.ltm_schema VALUES (@version@);
