--
-- What can be seen: the views, their columns, and what they say.
--
CREATE EXTENSION ectowatch;
\d ectowatch_watchers
\d ectowatch_stat
\d ectowatch_stat_watchers

--
-- ectowatch_watchers: a row per watcher
--
CREATE ROLE regress_ectowatch_owner;
CREATE TABLE users (id integer PRIMARY KEY, name text);
ALTER TABLE users OWNER TO regress_ectowatch_owner;
SELECT ectowatch_watch('users', 'updated', 'user renamed', '{name}', '{name}');
SELECT ectowatch_watch('users', 'changed');
SELECT watcher, relation, event, label, key_columns, trigger_columns, extra_columns,
    cardinality(triggers) AS triggers, owner, listen
FROM ectowatch_watchers ORDER BY watcher;
-- its triggers, by name
SELECT w.watcher, t.tgenabled, count(*)
FROM ectowatch_watchers w, unnest(w.triggers) name
JOIN pg_trigger t ON t.tgname = name
WHERE t.tgrelid = w.relation GROUP BY 1, 2 ORDER BY 1;

--
-- ectowatch_stat: one row, about this database
--
-- waits until the worker has done all that there was to do
CREATE PROCEDURE all_done() LANGUAGE plpgsql AS $$
BEGIN
    WHILE (SELECT queue_batches > 0 OR notify_bytes > 0 FROM ectowatch_stat) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    -- it counts what it has sent before it says that it is idle
    WHILE (SELECT state <> 'idle' FROM pg_stat_activity, ectowatch_stat
           WHERE pid = worker_pid) LOOP
        PERFORM pg_sleep(0.01);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END
$$;
CALL all_done();
SELECT batches, aborted, spilled, changes, lost, notified, notify_sends
FROM ectowatch_stat \gset before_
BEGIN;
INSERT INTO users VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cid');
UPDATE users SET name = 'Bea' WHERE id = 2;
COMMIT;
BEGIN;
UPDATE users SET name = 'Cob' WHERE id = 2;
ROLLBACK;
INSERT INTO users VALUES (4, 'Dot');
CALL all_done();
\x on
SELECT database = current_database() AS database,
    EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = worker_pid
            AND a.backend_type LIKE 'ectowatch%') AS worker,
    queue_batches, queue_bytes, blocked_by_xid, blocked_by_pid, blocked_since,
    batches - :before_batches AS batches, aborted - :before_aborted AS aborted,
    spilled - :before_spilled AS spilled, changes - :before_changes AS changes,
    lost - :before_lost AS lost, ring_bytes > 0 AS ring_bytes,
    oldest_position <= newest_position AS positions, oldest_at <= now() AS oldest_at,
    notified - :before_notified AS notified,
    notify_sends > :before_notify_sends AS notify_sends,
    notify_skipped, notify_position = newest_position AS notify_position,
    notify_bytes, notify_blocked,
    last_change_at <= last_notify_at AS last
FROM ectowatch_stat;

--
-- ectowatch_stat_watchers: a row per watcher, also of one without a change
--
SELECT ectowatch_watch('users', 'deleted');
SELECT watcher, relation, changes, notified, lost, notify_skipped,
    last_position IS NOT NULL AS last_position,
    last_change_at <= now() AS last_change_at, evicted, evicted_position
FROM ectowatch_stat_watchers ORDER BY watcher;
SELECT max(last_position) = (SELECT newest_position FROM ectowatch_stat) AS newest
FROM ectowatch_stat_watchers;
\x off
-- they are for everyone
SET ROLE regress_ectowatch_owner;
SELECT count(*) FROM ectowatch_stat;
SELECT count(*) FROM ectowatch_stat_watchers;
RESET ROLE;

--
-- Everything of the extension has a comment
--
CREATE VIEW ours AS
    SELECT d.classid, d.objid
    FROM pg_depend d
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ectowatch'
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e';
SELECT pg_describe_object(classid, objid, 0) AS "without a comment" FROM ours
WHERE obj_description(objid, classid::regclass::name) IS NULL
  AND classid <> 'pg_type'::regclass
ORDER BY 1;
-- what there is of it
SELECT pg_describe_object(classid, objid, 0) AS object FROM ours
WHERE classid <> 'pg_type'::regclass
ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";
-- functions are C, or have a search_path of their own, so that none can lead
-- them astray; none runs with its owner's rights, and none in parallel workers
SELECT p.oid::regprocedure AS "not as it should be" FROM ours
JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
WHERE prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')
  AND proconfig IS DISTINCT FROM '{"search_path=pg_catalog, pg_temp"}'
   OR prosecdef OR proparallel = 's' OR provolatile <> 'v';
-- settings
SELECT name, setting, unit, context, vartype, min_val, max_val
FROM pg_settings WHERE name LIKE 'ectowatch.%' ORDER BY name;
SET ectowatch.no_such_setting = 1;

DROP VIEW ours;
DROP TABLE users;
DROP PROCEDURE all_done();
DROP ROLE regress_ectowatch_owner;
DROP EXTENSION ectowatch;
