/* ectowatch--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION ectowatch" to load this file. \quit

--
-- What is kept: the watchers, and the numbers given to them, to triggers and
-- to changes.  Written by C functions only.
--
CREATE SEQUENCE ectowatch_watcher_ids AS integer;
-- not those of watchers that there were before DROP EXTENSION
SELECT pg_catalog.setval('@extschema@.ectowatch_watcher_ids',
    pg_catalog.mod((EXTRACT(epoch FROM pg_catalog.clock_timestamp())
                    OPERATOR(pg_catalog.*) 1000)::bigint, 1073741824)
    OPERATOR(pg_catalog.+) 1);
REVOKE ALL ON SEQUENCE ectowatch_watcher_ids FROM PUBLIC;
GRANT SELECT ON SEQUENCE ectowatch_watcher_ids TO PUBLIC;  -- for pg_dump
COMMENT ON SEQUENCE ectowatch_watcher_ids IS
'numbers of watchers';

CREATE SEQUENCE ectowatch_trigger_ids;
REVOKE ALL ON SEQUENCE ectowatch_trigger_ids FROM PUBLIC;
GRANT SELECT ON SEQUENCE ectowatch_trigger_ids TO PUBLIC;  -- likewise
COMMENT ON SEQUENCE ectowatch_trigger_ids IS
'numbers in the names of triggers';

CREATE SEQUENCE ectowatch_positions
    INCREMENT BY 65536 MINVALUE 65536 MAXVALUE 9007199254740992;
REVOKE ALL ON SEQUENCE ectowatch_positions FROM PUBLIC;
COMMENT ON SEQUENCE ectowatch_positions IS
'blocks of positions, taken by the worker';

CREATE TABLE ectowatch_registry (
    id integer NOT NULL,
    name text NOT NULL,
    relation regclass NOT NULL,
    event text NOT NULL,
    label text,
    application text,
    trigger_columns text[] NOT NULL,
    extra_columns text[] NOT NULL,
    condition text,
    key_columns text[] NOT NULL,
    key_given boolean NOT NULL,
    column_map text[] NOT NULL,
    old_values boolean NOT NULL,
    delivery text NOT NULL,
    bulk_threshold integer,
    throttle integer,
    envelope boolean NOT NULL,
    replicated boolean NOT NULL,
    debug boolean NOT NULL,
    run bigint NOT NULL,
    condition_given text,
    condition_basis text[] NOT NULL DEFAULT '{}',
    CONSTRAINT ectowatch_registry_pkey PRIMARY KEY (id),
    CONSTRAINT ectowatch_registry_name_key UNIQUE (name)
);
CREATE INDEX ectowatch_registry_relation_idx ON ectowatch_registry (relation);
REVOKE ALL ON TABLE ectowatch_registry FROM PUBLIC;
GRANT SELECT ON TABLE ectowatch_registry TO PUBLIC;
COMMENT ON TABLE ectowatch_registry IS
'watchers as ectowatch keeps them; read view ectowatch_watchers instead';

-- it is this database's, also where all tables are published
ALTER TABLE ectowatch_registry REPLICA IDENTITY NOTHING;
CREATE FUNCTION ectowatch_registry_filter() RETURNS trigger
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME';
REVOKE ALL ON FUNCTION ectowatch_registry_filter() FROM PUBLIC;
COMMENT ON FUNCTION ectowatch_registry_filter() IS
'trigger function of ectowatch_registry: keeps out what logical replication brings';
CREATE TRIGGER ectowatch_registry_filter
    BEFORE INSERT OR UPDATE OR DELETE ON ectowatch_registry
    FOR EACH ROW EXECUTE FUNCTION ectowatch_registry_filter();
ALTER TABLE ectowatch_registry ENABLE ALWAYS TRIGGER ectowatch_registry_filter;

SELECT pg_catalog.pg_extension_config_dump('ectowatch_registry', '');
SELECT pg_catalog.pg_extension_config_dump('ectowatch_watcher_ids', '');
SELECT pg_catalog.pg_extension_config_dump('ectowatch_trigger_ids', '');

--
-- Watching
--
CREATE FUNCTION ectowatch_capture() RETURNS trigger
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_capture() IS
'trigger function of watched tables; ectowatch_watch() creates its triggers';

CREATE FUNCTION ectowatch_watch(
    relation regclass,
    event text,
    label text DEFAULT NULL,
    trigger_columns text[] DEFAULT NULL,
    extra_columns text[] DEFAULT NULL,
    condition text DEFAULT NULL,
    key_columns text[] DEFAULT NULL,
    column_map jsonb DEFAULT NULL,
    old_values boolean DEFAULT NULL,
    delivery text DEFAULT NULL,
    bulk_threshold integer DEFAULT NULL,
    throttle interval DEFAULT NULL,
    envelope boolean DEFAULT NULL,
    replicated boolean DEFAULT NULL,
    debug boolean DEFAULT NULL
) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_watch(regclass, text, text, text[], text[], text,
    text[], jsonb, boolean, text, integer, interval, boolean, boolean, boolean) IS
'create or replace a watcher of a table; returns its name, which is the channel to LISTEN to';

CREATE FUNCTION ectowatch_alter(
    watcher text,
    trigger_columns text[] DEFAULT NULL,
    extra_columns text[] DEFAULT NULL,
    condition text DEFAULT NULL,
    key_columns text[] DEFAULT NULL,
    column_map jsonb DEFAULT NULL,
    old_values boolean DEFAULT NULL,
    delivery text DEFAULT NULL,
    bulk_threshold integer DEFAULT NULL,
    throttle interval DEFAULT NULL,
    envelope boolean DEFAULT NULL,
    replicated boolean DEFAULT NULL,
    debug boolean DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_alter(text, text[], text[], text,
    text[], jsonb, boolean, text, integer, interval, boolean, boolean, boolean) IS
'change options of a watcher, and leave those that are not named as they are';

CREATE FUNCTION ectowatch_unwatch(watcher text) RETURNS void
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_unwatch(text) IS
'remove a watcher';

CREATE FUNCTION ectowatch_unwatch(relation regclass, event text) RETURNS void
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'ectowatch_unwatch_event';
COMMENT ON FUNCTION ectowatch_unwatch(regclass, text) IS
'remove the watcher of a table and event that has no label';

CREATE FUNCTION ectowatch_declare(
    application text,
    definitions jsonb,
    cleanup boolean DEFAULT false,
    OUT watcher text,
    OUT relation regclass,
    OUT event text,
    OUT status text
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_declare(text, jsonb, boolean) IS
'create or replace all watchers of an application, tell which others it has, and with cleanup remove those';

--
-- Subscribing
--
CREATE FUNCTION ectowatch_channel(watcher text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text) IS
'the channel of a watcher';

-- not parallel: a value may be rendered in a subtransaction
CREATE FUNCTION ectowatch_channel(watcher text, key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, text) IS
'the narrowed channel of a key';

CREATE FUNCTION ectowatch_channel(watcher text, key anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, anynonarray) IS
'the narrowed channel of a key';

CREATE FUNCTION ectowatch_channel(watcher text, column_name text, value text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, text, text) IS
'the narrowed channel of a value of a column';

CREATE FUNCTION ectowatch_channel(watcher text, column_name text, value anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, text, anynonarray) IS
'the narrowed channel of a value of a column';

CREATE FUNCTION ectowatch_subscribe(watcher text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_subscribe(text) IS
'LISTEN to a watcher; returns the channel';

CREATE FUNCTION ectowatch_subscribe(watcher text, key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_subscribe(text, text) IS
'LISTEN to a key of a watcher; returns the channel';

CREATE FUNCTION ectowatch_subscribe(watcher text, key anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_subscribe(text, anynonarray) IS
'LISTEN to a key of a watcher; returns the channel';

CREATE FUNCTION ectowatch_subscribe(watcher text, column_name text, value text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_subscribe(text, text, text) IS
'LISTEN to a value of a column of a watcher; returns the channel';

CREATE FUNCTION ectowatch_subscribe(watcher text, column_name text, value anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_subscribe(text, text, anynonarray) IS
'LISTEN to a value of a column of a watcher; returns the channel';

CREATE FUNCTION ectowatch_unsubscribe(watcher text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_unsubscribe(text) IS
'UNLISTEN what ectowatch_subscribe() with the same argument listens to';

CREATE FUNCTION ectowatch_unsubscribe(watcher text, key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_unsubscribe(text, text) IS
'UNLISTEN what ectowatch_subscribe() with the same arguments listens to';

CREATE FUNCTION ectowatch_unsubscribe(watcher text, key anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_unsubscribe(text, anynonarray) IS
'UNLISTEN what ectowatch_subscribe() with the same arguments listens to';

CREATE FUNCTION ectowatch_unsubscribe(watcher text, column_name text, value text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_unsubscribe(text, text, text) IS
'UNLISTEN what ectowatch_subscribe() with the same arguments listens to';

CREATE FUNCTION ectowatch_unsubscribe(watcher text, column_name text, value anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_unsubscribe(text, text, anynonarray) IS
'UNLISTEN what ectowatch_subscribe() with the same arguments listens to';

CREATE FUNCTION ectowatch_notify(channel text, payload text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_notify(text, text) IS
'send a payload to a channel when this transaction commits, as pg_notify() does, on the way of changes';

--
-- Reading
--
CREATE FUNCTION ectowatch_position() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_position() IS
'position from which reading misses nothing that this statement does not see';

CREATE FUNCTION ectowatch_changes(
    after bigint,
    watchers text[] DEFAULT NULL,
    max_changes integer DEFAULT 1000,
    timeout interval DEFAULT '0',
    OUT "position" bigint,
    OUT watcher text,
    OUT type text,
    OUT relation text,
    OUT "values" jsonb,
    OUT old_values jsonb,
    OUT xid xid8,
    OUT committed_at timestamp with time zone,
    OUT context jsonb
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_changes(bigint, text[], integer, interval) IS
'changes after a position, in order; waits for the first one as long as timeout and ectowatch.max_wait allow';

CREATE PROCEDURE ectowatch_wait(
    after bigint,
    watchers text[] DEFAULT NULL,
    timeout interval DEFAULT NULL,
    INOUT next_after bigint DEFAULT NULL
)
    LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE ectowatch_wait(bigint, text[], interval, bigint) IS
'wait for a change after a position, outside a transaction block without holding a snapshot; next_after is the position to go on from';

CREATE FUNCTION ectowatch_wait_for(xid xid8, timeout interval DEFAULT NULL)
RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_wait_for(xid8, interval) IS
'wait until a transaction has ended and its changes can be read; false if the timeout is over first';

CREATE FUNCTION ectowatch_pending(
    OUT watcher text,
    OUT type text,
    OUT relation text,
    OUT "values" jsonb,
    OUT old_values jsonb,
    OUT context jsonb
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_pending() IS
'changes that COMMIT of this transaction would deliver';

--
-- Seeing
--
CREATE VIEW ectowatch_watchers AS
    SELECT r.name AS watcher,
           r.relation,
           r.event,
           r.label,
           r.application,
           r.key_columns,
           r.trigger_columns,
           r.extra_columns,
           r.condition,
           pg_catalog.jsonb_object(r.column_map) AS column_map,
           r.old_values,
           r.delivery,
           r.bulk_threshold,
           pg_catalog.make_interval(secs =>
               r.throttle OPERATOR(pg_catalog./) 1000::double precision) AS throttle,
           r.envelope,
           r.replicated,
           r.debug,
           ARRAY(SELECT t.tgname::text
                 FROM pg_catalog.pg_trigger t
                 WHERE t.tgrelid OPERATOR(pg_catalog.=) r.relation
                   AND t.tgparentid OPERATOR(pg_catalog.=) 0::oid
                   AND t.tgfoid OPERATOR(pg_catalog.=)
                       '@extschema@.ectowatch_capture'::pg_catalog.regproc
                   -- bits of its events, TRIGGER_TYPE_*; 60 is all four
                   AND (t.tgtype::integer OPERATOR(pg_catalog.&)
                        CASE WHEN r.event OPERATOR(pg_catalog.=) 'inserted' THEN 4
                             WHEN r.event OPERATOR(pg_catalog.=) 'deleted' THEN 8
                             WHEN r.event OPERATOR(pg_catalog.=) 'updated' THEN 16
                             WHEN r.event OPERATOR(pg_catalog.=) 'truncated' THEN 32
                             ELSE 60
                        END) OPERATOR(pg_catalog.<>) 0
                 ORDER BY t.oid) AS triggers,
           pg_catalog.pg_get_userbyid(c.relowner) AS owner,
           'LISTEN ' OPERATOR(pg_catalog.||)
               pg_catalog.quote_ident(r.name) AS listen
    FROM ectowatch_registry r
    LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.relation;
GRANT SELECT ON ectowatch_watchers TO PUBLIC;
COMMENT ON VIEW ectowatch_watchers IS
'what is watched in this database, a row per watcher';

CREATE FUNCTION ectowatch_stat_get(
    OUT worker_pid integer,
    OUT queue_batches bigint,
    OUT queue_bytes bigint,
    OUT blocked_by_xid xid8,
    OUT blocked_by_pid integer,
    OUT blocked_since timestamp with time zone,
    OUT batches bigint,
    OUT aborted bigint,
    OUT spilled bigint,
    OUT changes bigint,
    OUT lost bigint,
    OUT ring_bytes bigint,
    OUT oldest_position bigint,
    OUT newest_position bigint,
    OUT oldest_at timestamp with time zone,
    OUT notified bigint,
    OUT notify_sends bigint,
    OUT notify_skipped bigint,
    OUT notify_position bigint,
    OUT notify_bytes bigint,
    OUT notify_blocked boolean,
    OUT unread_bytes bigint,
    OUT last_change_at timestamp with time zone,
    OUT last_notify_at timestamp with time zone
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_stat_get() IS
'what view ectowatch_stat shows';

CREATE VIEW ectowatch_stat AS
    SELECT pg_catalog.current_database() AS database, s.*
    FROM ectowatch_stat_get() s;
GRANT SELECT ON ectowatch_stat TO PUBLIC;
COMMENT ON VIEW ectowatch_stat IS
'queue, ring and worker of this database since the server started, one row';

CREATE FUNCTION ectowatch_stat_watchers_get(
    OUT id integer,
    OUT changes bigint,
    OUT notified bigint,
    OUT lost bigint,
    OUT notify_skipped bigint,
    OUT notify_held bigint,
    OUT last_position bigint,
    OUT last_change_at timestamp with time zone,
    OUT evicted bigint,
    OUT evicted_position bigint
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_stat_watchers_get() IS
'what view ectowatch_stat_watchers shows';

CREATE FUNCTION ectowatch_stat_conditions_get(
    OUT id integer,
    OUT condition_checked_at timestamp with time zone,
    OUT condition_matched_at timestamp with time zone,
    OUT condition_failed_at timestamp with time zone
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_stat_conditions_get() IS
'what view ectowatch_stat_watchers shows of conditions';

CREATE VIEW ectowatch_stat_watchers AS
    SELECT r.name AS watcher,
           r.relation,
           COALESCE(s.changes, 0) AS changes,
           COALESCE(s.notified, 0) AS notified,
           COALESCE(s.lost, 0) AS lost,
           COALESCE(s.notify_skipped, 0) AS notify_skipped,
           COALESCE(s.notify_held, 0) AS notify_held,
           s.last_position,
           s.last_change_at,
           COALESCE(s.evicted, 0) AS evicted,
           s.evicted_position,
           c.condition_checked_at,
           c.condition_matched_at,
           c.condition_failed_at
    FROM ectowatch_registry r
    LEFT JOIN ectowatch_stat_watchers_get() s ON s.id OPERATOR(pg_catalog.=) r.id
    LEFT JOIN ectowatch_stat_conditions_get() c ON c.id OPERATOR(pg_catalog.=) r.id;
GRANT SELECT ON ectowatch_stat_watchers TO PUBLIC;
COMMENT ON VIEW ectowatch_stat_watchers IS
'what was delivered of each watcher since the server started';

CREATE FUNCTION ectowatch_stat_subscriptions_get(
    OUT pid integer,
    OUT watcher text,
    OUT channel text,
    OUT narrowed boolean,
    OUT since timestamp with time zone,
    OUT unread_bytes bigint
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_stat_subscriptions_get() IS
'what view ectowatch_stat_subscriptions shows of subscriptions';

CREATE VIEW ectowatch_stat_subscriptions AS
    SELECT s.pid,
           s.watcher,
           s.channel,
           s.narrowed,
           s.since,
           a.usename,
           a.application_name,
           a.client_addr,
           s.unread_bytes
    FROM ectowatch_stat_subscriptions_get() s
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) s.pid;
GRANT SELECT ON ectowatch_stat_subscriptions TO PUBLIC;
COMMENT ON VIEW ectowatch_stat_subscriptions IS
'who listens to which channel of a watcher, a row per session and channel, and who has not read all';

--
-- Checking and repairing
--
CREATE FUNCTION ectowatch_stat_library_get(
    OUT version text,
    OUT preloaded boolean,
    OUT has_slot boolean,
    OUT worker_wanted boolean,
    OUT workers_seen bigint,
    OUT start_failed boolean,
    OUT launcher_runs boolean
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_stat_library_get() IS
'what ectowatch_check() says of library and worker';

CREATE FUNCTION ectowatch_trigger_problems(
    OUT relation regclass,
    OUT origin regclass,
    OUT trigger text,
    OUT events text[],
    OUT problem text,
    OUT watcher text
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_trigger_problems() IS
'what ectowatch_check() says of triggers, and ectowatch_repair() puts right';

CREATE FUNCTION ectowatch_may_read(watcher text) RETURNS boolean
    LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_may_read(text) IS
'whether the current role may read what a watcher delivers now';

CREATE FUNCTION ectowatch_repair(
    OUT relation regclass,
    OUT trigger text,
    OUT action text
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_repair() IS
'create, enable, replace and drop triggers as watchers need them; says what was done';

CREATE FUNCTION ectowatch_self_test(
    timeout interval DEFAULT '10 seconds',
    OUT step integer,
    OUT what text,
    OUT ok boolean,
    OUT detail text
) RETURNS SETOF record
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 7 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_self_test(interval) IS
'send a probe through queue, worker and ring to a channel; how far it came, and how fast';

-- One block per question, in the order of the path that a change takes.  What
-- is ectowatch's is found when it runs, for its schema may be renamed.
CREATE FUNCTION ectowatch_check(watcher text DEFAULT NULL)
RETURNS TABLE (step integer, question text, ok boolean, detail text, hint text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 20
    SET search_path = pg_catalog, pg_temp
AS $check$
#variable_conflict use_column
DECLARE
    ours text;
    installed text;
    w record;
    library record;
    stat record;
    mine record;
    wanted text[];
    bad text;
    disabled text;
    busy text;
    n bigint;
    tables bigint;
    r record;
BEGIN
    step := 0;
    SELECT quote_ident(n.nspname) || '.', e.extversion INTO ours, installed
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'ectowatch';
    EXECUTE 'SELECT * FROM ' || ours || 'ectowatch_watchers WHERE watcher = $1'
        INTO w USING ectowatch_check.watcher;
    EXECUTE 'SELECT * FROM ' || ours || 'ectowatch_stat_library_get()' INTO library;

    -- without the library these throw, and so are planned to be left out
    EXECUTE 'SELECT * FROM ' || ours || 'ectowatch_stat WHERE $1'
        INTO stat USING library.preloaded;
    EXECUTE 'SELECT * FROM ' || ours || 'ectowatch_stat_watchers WHERE $1 AND watcher = $2'
        INTO mine USING library.preloaded, ectowatch_check.watcher;

    IF ectowatch_check.watcher IS NOT NULL THEN
        IF w.watcher IS NULL THEN
            RAISE undefined_object
                USING MESSAGE = format('watcher "%s" does not exist', ectowatch_check.watcher),
                      HINT = 'View ectowatch_watchers lists those that do.';
        END IF;
        wanted := CASE w.event WHEN 'changed'
            THEN '{inserted,updated,deleted,truncated}' ELSE ARRAY[w.event] END;
        EXECUTE $query$
            SELECT string_agg(CASE problem
                       WHEN 'missing' THEN format('for %s there is none', array_to_string(events, ', '))
                       WHEN 'changed' THEN format('"%s" was made otherwise than ectowatch does', trigger)
                       END, '; '),
                   string_agg(format('"%s" on %s', trigger, relation), ', ') FILTER (WHERE problem = 'disabled')
            FROM $query$ || ours || $query$ectowatch_trigger_problems()
            WHERE origin = $1 AND events && $2 $query$
            INTO bad, disabled USING w.relation, wanted;
    END IF;

    step := step + 1;
    question := 'Is the library loaded at server start?';
    ok := library.preloaded;
    detail := CASE WHEN ok THEN 'It is in shared_preload_libraries.'
        ELSE 'It is not in shared_preload_libraries: nothing is captured.' END;
    hint := CASE WHEN NOT ok THEN
        'Add this to postgresql.conf and restart the server: shared_preload_libraries = ''ectowatch''' END;
    RETURN NEXT;

    step := step + 1;
    question := 'Are library and extension of the same version?';
    ok := library.version = installed;
    detail := format('The library is version %s, the extension %s.', library.version, installed);
    hint := CASE WHEN NOT ok THEN
        'Restart the server if it still has a former library; then ALTER EXTENSION ectowatch UPDATE.' END;
    RETURN NEXT;

    IF library.preloaded THEN
        step := step + 1;
        question := 'Is the worker of this database running?';
        ok := stat.worker_pid IS NOT NULL;
        IF ok THEN
            detail := format('Its process id is %s.', stat.worker_pid);
            hint := NULL;
        ELSIF pg_is_in_recovery() THEN
            detail := 'The server is a standby, where no worker runs.';
            hint := 'Ask on the primary.';
        ELSIF NOT library.has_slot THEN
            detail := format('ectowatch.max_databases is %s, and so many other databases use ectowatch.',
                current_setting('ectowatch.max_databases'));
            hint := 'Increase ectowatch.max_databases and restart the server.';
        ELSIF NOT library.worker_wanted THEN
            ok := NULL;
            detail := 'Nothing has asked for it since the server started.';
            hint := 'The first change of a watched table, LISTEN, or call starts it.';
        ELSIF NOT library.launcher_runs THEN
            detail := format('There is no launcher to start it; max_worker_processes is %s.',
                current_setting('max_worker_processes'));
            hint := 'See the server log; if it says "too many background workers", increase max_worker_processes and restart the server.';
        ELSIF library.workers_seen = 0 AND NOT library.start_failed THEN
            ok := NULL;
            detail := 'It was asked for, and is being started.';
            hint := 'Ask again in a moment.';
        ELSIF library.workers_seen = 0 THEN
            detail := format('It was asked for, and did not start; max_worker_processes is %s.',
                current_setting('max_worker_processes'));
            hint := 'See the server log; if it says "out of background worker slots", increase max_worker_processes and restart the server.';
        ELSE
            detail := format('It has ended, after %s that ran since the server started.', library.workers_seen);
            hint := 'It is started again within seconds, unless a command on databases keeps it out; the server log says why it ended.';
        END IF;
        RETURN NEXT;
    END IF;

    IF w.watcher IS NOT NULL THEN
        step := step + 1;
        question := 'Does the table have its triggers?';
        ok := bad IS NULL AND w.owner IS NOT NULL;
        detail := CASE WHEN w.owner IS NULL THEN 'The table was dropped while the library was not loaded.'
            WHEN ok THEN format('Table %s has %s.', w.relation, array_to_string(w.triggers, ', '))
            ELSE format('On table %s: %s.', w.relation, bad) END;
        hint := CASE WHEN w.owner IS NULL THEN 'Remove the watcher with ectowatch_repair(), or ectowatch_unwatch().'
            WHEN NOT ok THEN 'Call ectowatch_repair() as owner of the table.' END;
        RETURN NEXT;
    END IF;

    IF w.owner IS NOT NULL THEN
        step := step + 1;
        question := 'Are they enabled?';
        ok := disabled IS NULL;
        detail := CASE WHEN ok THEN
                CASE WHEN w.replicated THEN 'They fire whatever session_replication_role is.'
                     ELSE 'They fire unless session_replication_role is replica.' END
            ELSE format('Disabled, or not as option replicated needs it: %s.', disabled) END;
        hint := CASE WHEN NOT ok THEN 'Call ectowatch_repair() as owner of the table.' END;
        RETURN NEXT;

        step := step + 1;
        question := 'Are writes of this session captured?';
        bad := NULL;
        hint := NULL;
        IF current_setting('session_replication_role') = 'replica' AND NOT w.replicated THEN
            bad := 'session_replication_role is replica, and the watcher is not replicated.';
            hint := 'Reset that setting; or watch with replicated => true, which captures what logical replication applies.';
        ELSIF current_setting('ectowatch.mute', true) = 'on' THEN
            bad := 'ectowatch.mute is on: changes become gaps with reason muted.';
            hint := 'Reset that setting.';
        END IF;
        ok := bad IS NULL;
        detail := COALESCE(bad, format('session_replication_role is %s.',
            current_setting('session_replication_role')));
        RETURN NEXT;

        step := step + 1;
        question := 'Are the columns there that it names?';
        SELECT string_agg(DISTINCT format('"%s"', c.name), ', ')
            INTO bad
            FROM unnest(w.key_columns || w.trigger_columns || w.extra_columns) c (name)
            WHERE c.name <> '*' AND NOT EXISTS (
                SELECT FROM pg_attribute a
                WHERE a.attrelid = w.relation AND a.attname = c.name
                  AND a.attnum > 0 AND NOT a.attisdropped);
        ok := bad IS NULL;
        detail := CASE WHEN ok THEN 'All are.'
            ELSE format('Table %s has no longer: %s.', w.relation, bad) END;
        hint := CASE WHEN NOT ok THEN
            'Call ectowatch_watch() or ectowatch_alter() with the columns that there are.' END;
        RETURN NEXT;
    END IF;

    IF w.watcher IS NOT NULL AND library.preloaded THEN
        IF w.condition IS NOT NULL THEN
            step := step + 1;
            question := 'Does the condition hold?';
            ok := CASE WHEN mine.condition_failed_at IS NOT NULL THEN false
                WHEN mine.condition_matched_at IS NOT NULL THEN true END;
            detail := format('The condition is %s. It was last evaluated %s, held last %s, and failed %s.',
                w.condition,
                COALESCE('at ' || mine.condition_checked_at, 'never'),
                COALESCE('at ' || mine.condition_matched_at, 'never'),
                COALESCE('at ' || mine.condition_failed_at, 'never'));
            hint := CASE WHEN mine.condition_failed_at IS NOT NULL THEN
                    'The writer got a WARNING that says why; set another one with ectowatch_alter().'
                WHEN mine.condition_checked_at IS NOT NULL AND mine.condition_matched_at IS NULL THEN
                    'Rows for which it does not hold are no changes.' END;
            RETURN NEXT;
        END IF;

        step := step + 1;
        question := 'Did changes arrive?';
        ok := CASE WHEN mine.lost > 0 OR mine.notify_skipped > 0 THEN false
            WHEN mine.changes > 0 THEN true END;
        detail := CASE WHEN mine.last_position IS NULL THEN
                'None, since the server started or the watcher was created.'
            ELSE format('%s since the server started, the last one at %s, position %s.',
                mine.changes, mine.last_change_at, mine.last_position) END;
        IF mine.lost > 0 OR mine.notify_skipped > 0 THEN
            detail := detail || format(' Gaps stand for %s that were lost for want of room in the queue, and %s that channels did not get in time.',
                mine.lost, mine.notify_skipped);
        END IF;
        hint := CASE WHEN mine.lost > 0 THEN 'Increase ectowatch.queue_size or ectowatch.queue_timeout.'
            WHEN mine.notify_skipped > 0 THEN 'Increase ectowatch.ring_size; read what is still there with ectowatch_changes().'
            WHEN mine.last_position IS NULL THEN 'Only what is committed arrives, and only changes of the watcher''s event.' END;
        RETURN NEXT;
    END IF;

    IF stat.database IS NOT NULL THEN
        step := step + 1;
        question := 'Does the queue go on?';
        -- others' commits take their time; one second is none of theirs
        ok := NOT (stat.blocked_since < clock_timestamp() - interval '1 s'
            OR (stat.worker_pid IS NULL AND stat.queue_batches > 0));
        ok := COALESCE(ok, true);
        detail := format('It holds %s batches, %s bytes.', stat.queue_batches, stat.queue_bytes);
        hint := NULL;
        IF stat.blocked_by_pid IS NOT NULL THEN
            SELECT format('%s, wait event %s', COALESCE(a.state, 'not shown to you'),
                    COALESCE(a.wait_event_type || '/' || a.wait_event, 'none'))
                INTO busy FROM pg_stat_activity a WHERE a.pid = stat.blocked_by_pid;
            detail := detail || format(' The worker waits for the end of transaction %s, which commits in process %s since %s (%s).',
                stat.blocked_by_xid, stat.blocked_by_pid, stat.blocked_since,
                COALESCE(busy, 'gone by now'));
        END IF;
        IF NOT ok THEN
            hint := CASE WHEN stat.worker_pid IS NULL THEN 'The worker has to run; see above.'
                ELSE 'Its commit has to end: with wait event SyncRep it waits for a synchronous standby.' END;
        END IF;
        RETURN NEXT;

        step := step + 1;
        question := 'How far back does the ring go?';
        ok := NULL;
        detail := CASE WHEN stat.oldest_position IS NULL THEN 'It is empty.'
            ELSE format('To position %s, committed at %s; it uses %s of %s.', stat.oldest_position,
                stat.oldest_at, pg_size_pretty(stat.ring_bytes), current_setting('ectowatch.ring_size')) END;
        IF mine.evicted > 0 THEN
            detail := detail || format(' It no longer has %s changes of this watcher.', mine.evicted);
        END IF;
        hint := NULL;
        RETURN NEXT;
    END IF;

    IF w.watcher IS NOT NULL THEN
        step := step + 1;
        question := 'How are its changes sent?';
        ok := NULL;
        detail := CASE w.delivery
            WHEN 'each' THEN 'A message for each change.'
            WHEN 'packed' THEN 'Several changes in a message.'
            WHEN 'doorbell' THEN 'A message that there are changes, without them.'
            ELSE 'Not at all: delivery is none.' END;
        hint := CASE WHEN w.delivery IN ('doorbell', 'none') THEN
            'Read them with ectowatch_changes().' END;
        IF w.throttle IS NOT NULL THEN
            detail := detail || format(' For a key there is at most one in %s.', w.throttle);
        END IF;
        IF w.bulk_threshold IS NOT NULL THEN
            detail := detail || format(' More than %s changes of a transaction come as a summary.', w.bulk_threshold);
        END IF;
        RETURN NEXT;
    END IF;

    step := step + 1;
    question := 'Can notifications be sent?';
    ok := NOT COALESCE(stat.notify_blocked, false);
    detail := format('Listening sessions have not read %s.', pg_size_pretty(COALESCE(stat.unread_bytes, 0)));
    hint := NULL;
    IF stat.notify_bytes > 0 THEN
        detail := detail || format(' %s of the ring are still to be sent.', pg_size_pretty(stat.notify_bytes));
    END IF;
    IF NOT ok THEN
        detail := detail || ' The worker holds back until some of that is read.';
        hint := 'Find the session that does not read its notifications: unread_bytes in ectowatch_stat_subscriptions. Or increase ectowatch.backlog_size.';
    END IF;
    detail := detail || format(' NOTIFY''s own queue, which is not used for it, is %s %% full.',
        round(pg_notification_queue_usage()::numeric * 100, 1));
    RETURN NEXT;

    IF w.watcher IS NOT NULL AND library.preloaded THEN
        step := step + 1;
        question := 'Who listens?';
        EXECUTE $query$
            SELECT count(*), string_agg(format('process %s, application "%s", address %s, role %s, channel "%s"',
                       pid, COALESCE(application_name, ''), COALESCE(host(client_addr), 'local'),
                       COALESCE(quote_ident(usename), 'unknown'), channel), '; ') FILTER (WHERE row_number <= 10)
            FROM (SELECT *, row_number() OVER (ORDER BY since, pid, channel)
                  FROM $query$ || ours || $query$ectowatch_stat_subscriptions
                  WHERE watcher = $1) s $query$
            INTO n, bad USING w.watcher;
        ok := CASE WHEN n > 0 AND w.delivery <> 'none' THEN true END;
        detail := CASE WHEN n = 0 THEN 'Nobody, as far as is known.'
            ELSE format('%s: %s%s.', n, bad, CASE WHEN n > 10 THEN '; and others' ELSE '' END) END;
        hint := CASE WHEN w.delivery = 'none' THEN 'With delivery none there is nothing to hear.'
            WHEN n = 0 THEN format('Outside of a transaction pooler: %s', w.listen) END;
        RETURN NEXT;
    END IF;

    IF w.watcher IS NOT NULL THEN
        step := step + 1;
        question := 'May you read its changes?';
        EXECUTE 'SELECT ' || ours || 'ectowatch_may_read($1)' INTO ok USING w.watcher;
        detail := CASE WHEN ok THEN format('Role "%s" may.', current_user)
            WHEN w.owner IS NULL THEN format('The table is gone, and role "%s" is no member of pg_read_all_data.', current_user)
            WHEN row_security_active(w.relation) THEN
                format('Role "%s" is subject to row level security on table %s.', current_user, w.relation)
            ELSE format('Role "%s" lacks SELECT on table %s, or on columns that the watcher delivers.',
                current_user, w.relation) END;
        hint := CASE WHEN NOT ok THEN 'Notifications can be received by everyone; reading needs GRANT SELECT, and a role that row level security does not apply to.' END;
        RETURN NEXT;
        RETURN;
    END IF;

    step := step + 1;
    question := 'How many watchers are there?';
    EXECUTE 'SELECT count(*), count(DISTINCT relation) FROM ' || ours || 'ectowatch_watchers'
        INTO n, tables;
    ok := NULL;
    detail := format('Watchers: %s; watched tables: %s.', n, tables);
    hint := CASE WHEN n = 0 THEN 'Create one with ectowatch_watch().' END;
    RETURN NEXT;

    -- from here on, a row for each problem
    FOR r IN EXECUTE 'SELECT * FROM ' || ours || 'ectowatch_trigger_problems()' LOOP
        step := step + 1;
        question := 'Are all triggers as they should be?';
        ok := false;
        detail := CASE r.problem
            WHEN 'missing' THEN format('Table %s has no trigger for %s, which is watched.',
                r.relation, array_to_string(r.events, ', '))
            WHEN 'disabled' THEN format('Trigger "%s" on table %s is disabled, or not as option replicated needs it.',
                r.trigger, r.relation)
            WHEN 'changed' THEN format('Trigger "%s" on table %s was made otherwise than ectowatch does.',
                r.trigger, r.relation)
            WHEN 'left over' THEN format('Trigger "%s" on table %s serves no watcher.', r.trigger, r.relation)
            ELSE format('The table of watcher "%s" is gone.', r.watcher) END;
        hint := CASE r.problem
            WHEN 'left over' THEN 'ectowatch_repair() drops it, called by the owner of the table.'
            WHEN 'gone' THEN 'Remove the watcher with ectowatch_repair(), or ectowatch_unwatch().'
            ELSE 'Call ectowatch_repair() as owner of the table.' END;
        RETURN NEXT;
    END LOOP;
    FOR r IN EXECUTE $query$
        SELECT v.watcher, v.relation, string_agg(DISTINCT format('"%s"', c.name), ', ') AS names
        FROM $query$ || ours || $query$ectowatch_watchers v,
            unnest(v.key_columns || v.trigger_columns || v.extra_columns) c (name)
        WHERE v.owner IS NOT NULL AND c.name <> '*' AND NOT EXISTS (
            SELECT FROM pg_attribute a
            WHERE a.attrelid = v.relation AND a.attname = c.name
              AND a.attnum > 0 AND NOT a.attisdropped)
        GROUP BY v.watcher, v.relation ORDER BY v.watcher $query$
    LOOP
        step := step + 1;
        question := 'Are all columns there that watchers name?';
        ok := false;
        detail := format('Watcher "%s" names columns that table %s no longer has: %s.',
            r.watcher, r.relation, r.names);
        hint := 'Call ectowatch_watch() or ectowatch_alter() with the columns that there are.';
        RETURN NEXT;
    END LOOP;
END
$check$;
COMMENT ON FUNCTION ectowatch_check(text) IS
'why nothing arrives: the path of a watcher''s changes, or the database as a whole, question by question';

--
-- Default privileges of the role whose objects these are may have given more than
-- what is granted above, which is SELECT to PUBLIC where anything is.  Who can
-- insert into the registry makes every writer run a condition, who can set
-- sequences stops delivery.
--
DO $rights$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT c.oid::pg_catalog.regclass AS relation, c.relkind, a.privilege_type,
            a.grantee, pg_catalog.pg_get_userbyid(a.grantee) AS role
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d
            ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND d.refobjid OPERATOR(pg_catalog.=) e.oid
            AND d.deptype OPERATOR(pg_catalog.=) 'e'
            AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        WHERE e.extname OPERATOR(pg_catalog.=) 'ectowatch'
            AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
            AND NOT (a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                AND a.privilege_type OPERATOR(pg_catalog.=) 'SELECT')
    LOOP
        EXECUTE pg_catalog.format('REVOKE %s ON %s %s FROM %s', r.privilege_type,
            CASE WHEN r.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
            r.relation,
            CASE WHEN r.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(r.role) END);
    END LOOP;
END
$rights$;
