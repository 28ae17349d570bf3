-- What the catalog needs on Supabase besides its tables and functions: who may do what.
--
-- PostgREST calls the functions, one request each, as the role that the request's JWT names. None
-- of them is SECURITY DEFINER, so row-level security decides what each sees, whether it is called
-- by the library or by hand. Everything below covers whatever begins with ltm_ in this schema, so
-- that tables and functions of later releases are covered by running this again.

-- Whose namespaces a request may use: "owner" itself and those below it, "owner/…". This one is
-- yours to replace, for example by one that adds the claim of an organisation; it is made once and
-- never overwritten. It must not return an empty string to anyone: that is the namespace ''.
DO $$
BEGIN
    IF to_regprocedure('@schema@.ltm_owners()') IS NULL THEN
        CREATE FUNCTION @schema@.ltm_owners() RETURNS text[]
        LANGUAGE sql STABLE SET search_path = '' AS $rule$
            SELECT array_remove(ARRAY[nullif(
                nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub', '')], NULL)
        $rule$;
    END IF;
END $$;

-- One JSON value instead of rows, which a server cuts off at its max-rows without a word: an array
-- of arrays, each with a row's values in order.
DO $$
DECLARE
    called record;
    old record;
    body text;
BEGIN
    FOR old IN SELECT oid::regprocedure AS signature FROM pg_proc
        WHERE pronamespace = '@schema@'::regnamespace AND starts_with(proname, 'ltm_rpc_')
    LOOP
        EXECUTE 'DROP FUNCTION ' || old.signature;
    END LOOP;
    FOR called IN
        SELECT substr(p.proname, 5) AS name, pg_get_function_arguments(p.oid) AS arguments,
            p.prorettype = 'void'::regtype AS is_void,
            CASE p.provolatile WHEN 'v' THEN 'VOLATILE' ELSE 'STABLE' END AS volatility,
            (SELECT string_agg(quote_ident(argument.name), ', ' ORDER BY argument.n)
                FROM unnest(p.proargnames) WITH ORDINALITY AS argument (name, n)
                WHERE argument.n <= p.pronargs) AS given,
            coalesce((SELECT string_agg('r.' || quote_ident(result.name), ', ' ORDER BY result.n)
                FROM unnest(p.proargnames) WITH ORDINALITY AS result (name, n)
                WHERE result.n > p.pronargs), 'r') AS found
        FROM pg_proc AS p
        WHERE p.pronamespace = '@schema@'::regnamespace AND starts_with(p.proname, 'ltm_')
            AND p.proargnames[1] = 'in_namespace' AND 'tid[]'::regtype <> ALL (p.proargtypes)
            AND (p.proretset OR p.prorettype = 'void'::regtype)
    LOOP
        body := CASE WHEN called.is_void
            THEN format('PERFORM @schema@.ltm_%s(%s); RETURN ''[]'';', called.name, called.given)
            ELSE format('RETURN (SELECT coalesce(json_agg(json_build_array(%s)), ''[]'') '
                'FROM @schema@.ltm_%s(%s) AS r);', called.found, called.name, called.given) END;
        EXECUTE format('CREATE FUNCTION @schema@.ltm_rpc_%s(%s) RETURNS json LANGUAGE plpgsql %s '
            'AS %L', called.name, called.arguments, called.volatility, 'BEGIN ' || body || ' END');
    END LOOP;
END $$;

-- For the library, when it connects: which release made this, and tables of which the caller may
-- see rows that are not its own.
CREATE OR REPLACE FUNCTION @schema@.ltm_check() RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('version', @version@, 'role', current_user, 'open', coalesce((
        SELECT json_agg(c.relname ORDER BY c.relname) FROM pg_class AS c
        WHERE c.relnamespace = '@schema@'::regnamespace AND c.relkind IN ('r', 'p')
            AND starts_with(c.relname, 'ltm_')
            AND (NOT row_security_active(c.oid) OR EXISTS (
                SELECT FROM pg_policy AS p, unnest(p.polroles) AS applies (role)
                WHERE p.polrelid = c.oid AND p.polpermissive
                    AND NOT starts_with(p.polname, 'ltm_')
                    AND (applies.role = 0 OR pg_has_role(applies.role, 'USAGE'))))), '[]'))
$$;

-- ltm_user reads and writes the memory of those who own it. ltm_collector removes what has expired
-- and what is dead, in every namespace, and can read neither values nor metadata.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ltm_user') THEN
        CREATE ROLE ltm_user NOLOGIN NOINHERIT;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ltm_collector') THEN
        CREATE ROLE ltm_collector NOLOGIN NOINHERIT;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticator') THEN
        GRANT ltm_user, ltm_collector TO authenticator;
    END IF;
END $$;

DO $$
DECLARE
    swept text[] := ARRAY['ltm_now', 'ltm_durably', 'ltm_lock_blobs', 'ltm_retire', 'ltm_remove',
        'ltm_expire', 'ltm_drop_texts', 'ltm_drop_vectors', 'ltm_take_due', 'ltm_due', 'ltm_forget',
        'ltm_known', 'ltm_rpc_expire',
        'ltm_rpc_take_due', 'ltm_rpc_due', 'ltm_rpc_forget', 'ltm_rpc_known', 'ltm_check'];
    everyone text := 'PUBLIC, ltm_user, ltm_collector';
    users text := 'ltm_user';
    trusted text := '';
    made record;
BEGIN
    -- Roles of Supabase, which grants all of a new table or function to each of them.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
        everyone := everyone || ', anon';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated') THEN
        everyone := everyone || ', authenticated';
        users := users || ', authenticated';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'service_role') THEN
        everyone := everyone || ', service_role';
        trusted := ', service_role';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA @schema@ TO %s, ltm_collector', users || trusted);

    FOR made IN SELECT oid::regprocedure AS signature, proname AS name FROM pg_proc
        WHERE pronamespace = '@schema@'::regnamespace AND starts_with(proname, 'ltm_')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', made.signature, everyone);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', made.signature, users || trusted);
        IF made.name = ANY (swept) THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ltm_collector', made.signature);
        END IF;
    END LOOP;
    FOR made IN SELECT oid::regclass AS name FROM pg_class
        WHERE relnamespace = '@schema@'::regnamespace AND starts_with(relname, 'ltm_')
            AND relkind = 'S'
    LOOP
        EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM %s', made.name, everyone);
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %s, ltm_collector', made.name,
            users || trusted);
    END LOOP;
    FOR made IN SELECT c.oid::regclass AS name, EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'namespace') AS has_owner
        FROM pg_class AS c
        WHERE c.relnamespace = '@schema@'::regnamespace AND starts_with(c.relname, 'ltm_')
            AND c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.name);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', made.name);
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', made.name, everyone);
        IF made.has_owner THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO %s', made.name,
                users || trusted);
            EXECUTE format('DROP POLICY IF EXISTS ltm_tenant ON %s', made.name);
            -- As a subquery the rule is asked once for a statement, not once for a row.
            EXECUTE format('CREATE POLICY ltm_tenant ON %s TO %s USING (split_part(namespace, '
                '''/'', 1) = ANY ((SELECT @schema@.ltm_owners())::text[]))', made.name, users);
        END IF;
    END LOOP;
END $$;

GRANT SELECT, UPDATE, DELETE ON @schema@.ltm_blobs TO ltm_collector;
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.ltm_deletions TO ltm_collector;
GRANT SELECT, INSERT, UPDATE ON @schema@.ltm_pruned TO ltm_collector;
-- To lock a row takes the right to update one column of it, which no policy then allows.
GRANT SELECT (namespace, key, expires_at, ctid), UPDATE (updated_at), DELETE
    ON @schema@.ltm_entries TO ltm_collector;
GRANT SELECT (namespace, key, ctid), DELETE ON @schema@.ltm_texts TO ltm_collector;
GRANT SELECT (namespace, key, ctid), DELETE ON @schema@.ltm_vectors TO ltm_collector;
DROP POLICY IF EXISTS ltm_collector ON @schema@.ltm_blobs;
CREATE POLICY ltm_collector ON @schema@.ltm_blobs TO ltm_collector USING (true);
DROP POLICY IF EXISTS ltm_collector ON @schema@.ltm_deletions;
CREATE POLICY ltm_collector ON @schema@.ltm_deletions TO ltm_collector USING (true);
DROP POLICY IF EXISTS ltm_collector ON @schema@.ltm_pruned;
CREATE POLICY ltm_collector ON @schema@.ltm_pruned TO ltm_collector USING (true);
DROP POLICY IF EXISTS ltm_collector ON @schema@.ltm_entries;
CREATE POLICY ltm_collector ON @schema@.ltm_entries TO ltm_collector
    USING (expires_at <= (SELECT @schema@.ltm_now())) WITH CHECK (false);
DROP POLICY IF EXISTS ltm_collector ON @schema@.ltm_texts;
-- Of the entries it sees those that have expired.
CREATE POLICY ltm_collector ON @schema@.ltm_texts TO ltm_collector USING (EXISTS (
    SELECT FROM @schema@.ltm_entries AS e
    WHERE e.namespace = ltm_texts.namespace AND e.key = ltm_texts.key)) WITH CHECK (false);
DROP POLICY IF EXISTS ltm_collector ON @schema@.ltm_vectors;
CREATE POLICY ltm_collector ON @schema@.ltm_vectors TO ltm_collector USING (EXISTS (
    SELECT FROM @schema@.ltm_entries AS e
    WHERE e.namespace = ltm_vectors.namespace AND e.key = ltm_vectors.key)) WITH CHECK (false);

NOTIFY pgrst, 'reload schema';
