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
COMMENT ON SEQUENCE ectowatch_watcher_ids IS
'numbers of watchers';

CREATE SEQUENCE ectowatch_trigger_ids;
REVOKE ALL ON SEQUENCE ectowatch_trigger_ids FROM PUBLIC;
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

CREATE FUNCTION ectowatch_channel(watcher text, key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, text) IS
'the narrowed channel of a key';

CREATE FUNCTION ectowatch_channel(watcher text, key anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, anynonarray) IS
'the narrowed channel of a key';

CREATE FUNCTION ectowatch_channel(watcher text, column_name text, value text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION ectowatch_channel(text, text, text) IS
'the narrowed channel of a value of a column';

CREATE FUNCTION ectowatch_channel(watcher text, column_name text, value anynonarray) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
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
    OUT notify_commits bigint,
    OUT notify_skipped bigint,
    OUT notify_position bigint,
    OUT notify_bytes bigint,
    OUT notify_blocked boolean,
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
    OUT since timestamp with time zone
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
           a.client_addr
    FROM ectowatch_stat_subscriptions_get() s
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) s.pid;
GRANT SELECT ON ectowatch_stat_subscriptions TO PUBLIC;
COMMENT ON VIEW ectowatch_stat_subscriptions IS
'who listens to which channel of a watcher, a row per session and channel';
