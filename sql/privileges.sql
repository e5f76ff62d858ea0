--
-- Watching needs ownership of the table.  Reading needs SELECT on the table, or
-- on all columns that the watcher delivers, and is refused to those who are
-- subject to row level security there.  The registry is written by
-- ectowatch's own functions alone.
--
CREATE ROLE regress_ectowatch_owner;
CREATE ROLE regress_ectowatch_reader;
CREATE ROLE regress_ectowatch_group;
-- whatever the default privileges are; the end of this file shows what is granted
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_ectowatch_owner;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, regress_ectowatch_owner;
CREATE EXTENSION ectowatch;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC, regress_ectowatch_owner;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC, regress_ectowatch_owner;
CREATE SCHEMA app AUTHORIZATION regress_ectowatch_owner;
GRANT USAGE ON SCHEMA app TO PUBLIC;

-- :caught_up waits until all that was committed is in the ring
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'

--
-- Watching
--
SET ROLE regress_ectowatch_owner;
CREATE TABLE app.users (id integer PRIMARY KEY, name text, secret text);
SELECT ectowatch_watch('app.users', 'changed', 'users_full', extra_columns => '{name,secret}');
SELECT ectowatch_watch('app.users', 'changed', 'users_names', extra_columns => '{name}');
SELECT ectowatch_watch('app.users', 'changed', 'users_keys');
SELECT ectowatch_watch('app.users', 'truncated', 'users_emptied');
RESET ROLE;
-- rights on rows are not enough
GRANT ALL ON app.users TO regress_ectowatch_reader;
SET ROLE regress_ectowatch_reader;
SELECT ectowatch_watch('app.users', 'updated');
SELECT ectowatch_unwatch('users_full');
-- but what is watched anyone may see
SELECT watcher, relation, owner FROM ectowatch_watchers ORDER BY watcher;
RESET ROLE;
-- a member of the owning role is an owner
GRANT regress_ectowatch_owner TO regress_ectowatch_group;
SET ROLE regress_ectowatch_group;
SELECT ectowatch_watch('app.users', 'updated', 'users_group');
SELECT ectowatch_unwatch('users_group');
RESET ROLE;
REVOKE regress_ectowatch_owner FROM regress_ectowatch_group;
REVOKE ALL ON app.users FROM regress_ectowatch_reader;

--
-- Reading: SELECT on the table
--
:caught_up;
SELECT ectowatch_position() AS start \gset
INSERT INTO app.users VALUES (1, 'Ann', 'xyzzy');
SELECT watcher, values FROM ectowatch_changes(:start, timeout => '10 s');
SET ROLE regress_ectowatch_reader;
SELECT watcher FROM ectowatch_changes(:start, '{users_keys}');
CALL ectowatch_wait(:start, '{users_keys}', '10 ms');
-- who asks for all gets those that he may read: none
SELECT watcher, values FROM ectowatch_changes(:start);
-- and a wait goes on
CALL ectowatch_wait(:start, timeout => '10 ms') \gset
SELECT :next_after > :start AS "passed over";
RESET ROLE;
GRANT SELECT ON app.users TO regress_ectowatch_group;
GRANT regress_ectowatch_group TO regress_ectowatch_reader;
SET ROLE regress_ectowatch_reader;
SELECT watcher, values FROM ectowatch_changes(:start);
RESET ROLE;
REVOKE regress_ectowatch_group FROM regress_ectowatch_reader;

--
-- SELECT on columns: of the key, and of all others
--
GRANT SELECT (id, name) ON app.users TO regress_ectowatch_reader;
SET ROLE regress_ectowatch_reader;
SELECT watcher, values FROM ectowatch_changes(:start, '{users_names}');
SELECT watcher, values FROM ectowatch_changes(:start, '{users_full}');
SELECT watcher, values FROM ectowatch_changes(:start);
RESET ROLE;
-- what a watcher delivered before it was replaced is what it delivered then
SET ROLE regress_ectowatch_owner;
SELECT ectowatch_watch('app.users', 'changed', 'users_full', extra_columns => '{name}');
SET ROLE regress_ectowatch_reader;
SELECT watcher, values FROM ectowatch_changes(:start) WHERE values ? 'secret';
RESET ROLE;
-- and a column keeps its secret under another name
SET ROLE regress_ectowatch_owner;
SELECT ectowatch_watch('app.users', 'changed', 'users_full', extra_columns => '{name,secret}');
ALTER TABLE app.users RENAME secret TO hidden;
SET ROLE regress_ectowatch_reader;
SELECT watcher, values FROM ectowatch_changes(:start) WHERE values ? 'secret';
RESET ROLE;
ALTER TABLE app.users RENAME hidden TO secret;
-- a watcher of TRUNCATE delivers no column; SELECT on the table is needed
:caught_up;
SELECT ectowatch_position() AS start \gset
TRUNCATE app.users;
SELECT DISTINCT type FROM ectowatch_changes(:start, timeout => '10 s');
SET ROLE regress_ectowatch_reader;
SELECT watcher, type FROM ectowatch_changes(:start, '{users_emptied}');
SELECT watcher, type FROM ectowatch_changes(:start);
RESET ROLE;

--
-- Row level security: refused, for the ring does not know policies
--
GRANT SELECT ON app.users TO regress_ectowatch_reader;
ALTER TABLE app.users ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON app.users USING (true);
SET ROLE regress_ectowatch_reader;
SELECT watcher FROM ectowatch_changes(:start, '{users_keys}');
SELECT count(*) FROM ectowatch_changes(:start);
RESET ROLE;
-- not for its owner, unless forced
SET ROLE regress_ectowatch_owner;
SELECT count(*) > 0 AS "read" FROM ectowatch_changes(:start, '{users_keys}');
ALTER TABLE app.users FORCE ROW LEVEL SECURITY;
SELECT watcher FROM ectowatch_changes(:start, '{users_keys}');
ALTER TABLE app.users DISABLE ROW LEVEL SECURITY;
RESET ROLE;

--
-- ectowatch_pending() shows a writer no more than he may read
--
REVOKE ALL ON app.users FROM regress_ectowatch_reader;
GRANT SELECT (id), INSERT, UPDATE ON app.users TO regress_ectowatch_reader;
INSERT INTO app.users VALUES (2, 'Bob', 'plugh');
SET ROLE regress_ectowatch_reader;
BEGIN;
UPDATE app.users SET name = 'Bea' WHERE id = 2;
SELECT watcher, type, values FROM ectowatch_pending();
RESET ROLE;
SELECT watcher, type, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
-- (SET ROLE and RESET ROLE are rolled back too)
RESET ROLE;

--
-- A dropped table: its changes can be read by those who may read everything
--
:caught_up;
SELECT ectowatch_position() AS start \gset
BEGIN;
UPDATE app.users SET name = 'Cid';
DROP TABLE app.users;
COMMIT;
SELECT count(*) > 0 AS "come" FROM ectowatch_changes(:start, timeout => '10 s');
SET ROLE regress_ectowatch_reader;
SELECT watcher, type, values FROM ectowatch_changes(:start) ORDER BY watcher;
RESET ROLE;
GRANT pg_read_all_data TO regress_ectowatch_reader;
SET ROLE regress_ectowatch_reader;
SELECT watcher, type, values FROM ectowatch_changes(:start) ORDER BY watcher, position;
RESET ROLE;
REVOKE pg_read_all_data FROM regress_ectowatch_reader;

--
-- A value to subscribe to is checked by the column's type, whose code is the
-- owner's.  It does not get the rights of a superuser who subscribes, nor of a
-- member of the owning role; it has the owner's, and nothing is left of it
--
SET ROLE regress_ectowatch_owner;
CREATE TABLE app.calls (by name, value text);
CREATE FUNCTION app.called(value text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_user = 'regress_ectowatch_owner' THEN
        INSERT INTO app.calls VALUES (current_user, value);
    ELSE
        RAISE NOTICE 'called by %', current_user;
    END IF;
    PERFORM set_config('work_mem', '1MB', false);
    IF value = 'reset' THEN
        RESET SESSION AUTHORIZATION;
    END IF;
    RETURN value <> 'wrong';
END
$$;
CREATE DOMAIN app.mood AS text CHECK (app.called(VALUE));
CREATE TABLE app.moods (mood app.mood, note text, PRIMARY KEY (mood));
SELECT ectowatch_watch('app.moods', 'updated', 'moods', extra_columns => '{note}');
RESET ROLE;
SELECT ectowatch_channel('moods', 'fine'), current_user = session_user AS "still", current_setting('work_mem') = '1MB' AS "set";
SELECT ectowatch_subscribe('moods', 'mood', 'better');
SELECT ectowatch_unsubscribe('moods', 'mood', 'better');
SELECT ectowatch_channel('moods', 'wrong');
SELECT ectowatch_channel('moods', 'reset');
GRANT regress_ectowatch_owner TO regress_ectowatch_group;
SET ROLE regress_ectowatch_group;
SELECT ectowatch_channel('moods', 'good');
RESET ROLE;
REVOKE regress_ectowatch_owner FROM regress_ectowatch_group;
SELECT * FROM app.calls;
-- who has not the owner's rights does not get them by subscribing
SET ROLE regress_ectowatch_reader;
SELECT ectowatch_channel('moods', 'fine');
RESET ROLE;
-- LISTEN runs nothing
LISTEN "moods|mood|fine";
UNLISTEN *;
SELECT count(*) FROM app.calls;
DROP TABLE app.moods, app.calls;
DROP DOMAIN app.mood;
DROP FUNCTION app.called(text);

--
-- Nobody writes the registry but its functions
--
SET ROLE regress_ectowatch_owner;
CREATE TABLE app.items (id integer PRIMARY KEY);
SELECT ectowatch_watch('app.items', 'inserted', 'items');
SELECT name, event FROM ectowatch_registry;
INSERT INTO ectowatch_registry SELECT * FROM ectowatch_registry;
UPDATE ectowatch_registry SET name = 'mine';
DELETE FROM ectowatch_registry;
TRUNCATE ectowatch_registry;
SELECT nextval('ectowatch_positions');
SELECT setval('ectowatch_watcher_ids', 1);
SELECT setval('ectowatch_trigger_ids', 1);
SELECT last_value FROM ectowatch_positions;
-- pg_dump reads the sequences that are in dumps
SELECT count(last_value) FROM ectowatch_watcher_ids;
SELECT count(last_value) FROM ectowatch_trigger_ids;
DELETE FROM ectowatch_watchers;
DELETE FROM ectowatch_stat_watchers;
CREATE TRIGGER mine AFTER INSERT ON ectowatch_registry
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
RESET ROLE;
-- not even by those to whom a right on it was granted
BEGIN;
GRANT ALL ON ectowatch_registry TO regress_ectowatch_owner;
SET LOCAL ROLE regress_ectowatch_owner;
SAVEPOINT s;
INSERT INTO ectowatch_registry SELECT * FROM ectowatch_registry;
ROLLBACK TO s;
UPDATE ectowatch_registry SET condition = 'app.called(name)';
ROLLBACK TO s;
DELETE FROM ectowatch_registry;
ROLLBACK;
-- its owner may, as restoring a dump does
BEGIN;
UPDATE ectowatch_registry SET debug = true RETURNING name;
ROLLBACK;
-- rights on its objects, by kind
SELECT c.relname, c.relkind, a.grantee::regrole, a.privilege_type
FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ectowatch',
aclexplode(c.relacl) a
WHERE a.grantee <> c.relowner ORDER BY 1, 4;

DROP SCHEMA app CASCADE;
DROP ROLE regress_ectowatch_owner, regress_ectowatch_reader, regress_ectowatch_group;
DROP EXTENSION ectowatch;
