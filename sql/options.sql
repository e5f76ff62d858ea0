--
-- Options of a watcher, one by one: what its messages show, and how many there
-- are.  (condition, delivery and throttle have tests of their own.)
--
-- An option that is NULL is not given.  One that is empty ('' or '{}', 0,
-- false) is none; that is how ectowatch_alter() takes it away.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (
    id integer PRIMARY KEY,
    name text,
    role_id integer,
    note text
);
INSERT INTO users VALUES (1, 'ann', 7, 'x'), (2, 'bob', 7, 'y');

-- what this transaction would deliver; gaps and bulk have no old values
CREATE VIEW would_deliver AS
    SELECT watcher, type, values, old_values FROM ectowatch_pending();

--
-- column_map: from columns to their names in messages
--
SELECT ectowatch_watch('users', 'updated', extra_columns => '{name,role_id}',
                       column_map => '{"id": "userId", "role_id": "roleId", "note": "remark"}');
BEGIN;
UPDATE users SET role_id = 8 WHERE id = 1;
UPDATE users SET id = 11 WHERE id = 1;
SELECT * FROM would_deliver;
ROLLBACK;
-- the wrong way round, two columns of one name, and what is no map at all
SELECT ectowatch_watch('users', 'deleted', column_map => '{"userId": "id"}');
SELECT ectowatch_watch('users', 'deleted', column_map => '{"nobody": "nothing"}');
SELECT ectowatch_watch('users', 'deleted', extra_columns => '{name}',
                       column_map => '{"id": "x", "name": "x"}');
SELECT ectowatch_watch('users', 'deleted', extra_columns => '{name}',
                       column_map => '{"id": "name"}');
SELECT ectowatch_watch('users', 'deleted', column_map => '["id"]');
SELECT ectowatch_watch('users', 'deleted', column_map => '{"id": 1}');
-- where "name" is not delivered, there is no clash
SELECT ectowatch_watch('users', 'deleted', column_map => '{"id": "name"}');
-- in whatever order it is written, it is the same map
SELECT xmin AS before FROM ectowatch_registry WHERE name = 'users_updated' \gset
SELECT ectowatch_watch('users', 'updated', extra_columns => '{name,role_id}',
                       column_map => '{"role_id": "roleId", "note": "remark", "id": "userId"}');
SELECT xmin = :'before' AS unchanged FROM ectowatch_registry WHERE name = 'users_updated';

-- a column that comes by a name which the map gives to another is left out, and
-- one that is renamed loses its name; both is said
BEGIN;
SELECT ectowatch_alter('users_updated', extra_columns => '{*}');
ALTER TABLE users ADD COLUMN "roleId" integer;
UPDATE users SET name = 'ben' WHERE id = 2;
SELECT * FROM would_deliver;
ROLLBACK;
BEGIN;
ALTER TABLE users RENAME note TO note2;
UPDATE users SET name = 'ben' WHERE id = 2;
SELECT * FROM would_deliver;
ROLLBACK;

--
-- '{*}': all columns, whatever there are by then; the key comes first, and once
--
SELECT ectowatch_watch('users', 'inserted', extra_columns => '{*}');
SELECT ectowatch_watch('users', 'updated', 'users_really_updated', '{*}');
BEGIN;
INSERT INTO users VALUES (3, 'cid', 7, 'z');
UPDATE users SET name = name;       -- nothing for users_really_updated
UPDATE users SET note = 'new' WHERE id = 2;
SELECT * FROM would_deliver WHERE watcher <> 'users_updated';
ROLLBACK;
BEGIN;
ALTER TABLE users ADD COLUMN age integer, DROP COLUMN note;
INSERT INTO users VALUES (3, 'cid', 7, 40);
UPDATE users SET age = 41 WHERE id = 3;
SELECT * FROM would_deliver WHERE watcher <> 'users_updated';
ROLLBACK;
SELECT ectowatch_watch('users', 'deleted', key_columns => '{*}');
SELECT ectowatch_watch('users', 'deleted', extra_columns => '{*,name}');

--
-- old_values: all columns that are delivered, as they were
--
SELECT ectowatch_watch('users', 'updated', 'users_from_to', extra_columns => '{role_id}',
                       old_values => true);
BEGIN;
UPDATE users SET role_id = 8 WHERE id = 1;
UPDATE users SET note = 'unheard' WHERE id = 2;
UPDATE users SET id = 12, role_id = NULL WHERE id = 2;
SELECT * FROM would_deliver WHERE watcher = 'users_from_to';
-- without it, only the old key where that changed
SELECT ectowatch_alter('users_from_to', old_values => false);
UPDATE users SET id = 13, role_id = 9 WHERE id = 12;
SELECT * FROM would_deliver WHERE watcher = 'users_from_to' OFFSET 3;
ROLLBACK;
SELECT ectowatch_unwatch('users_from_to');

--
-- bulk_threshold: beyond so many changes in one transaction, a summary for each
-- event instead of them
--
SELECT ectowatch_watch('users', 'changed', bulk_threshold => 3);
BEGIN;
INSERT INTO users SELECT i FROM generate_series(11, 13) i;
SELECT * FROM would_deliver WHERE watcher = 'users_changed';
SAVEPOINT a;
INSERT INTO users SELECT i FROM generate_series(14, 30) i;
UPDATE users SET role_id = 9 WHERE id <= 12;
SELECT * FROM would_deliver WHERE watcher = 'users_changed';
-- back below the threshold the changes themselves are there again
ROLLBACK TO a;
DELETE FROM users WHERE id = 11 AND false;
SELECT * FROM would_deliver WHERE watcher = 'users_changed';
-- other watchers are not affected, and truncated is told as itself
DELETE FROM users WHERE id > 11;
TRUNCATE users;
SELECT watcher, type, count(*), min(values::text) FROM would_deliver
GROUP BY watcher, type ORDER BY watcher, type;
ROLLBACK;
-- which does not count, however
BEGIN;
TRUNCATE users;
INSERT INTO users SELECT i FROM generate_series(11, 13) i;
SELECT * FROM would_deliver WHERE watcher = 'users_changed';
ROLLBACK;
-- an end comes behind what stands for the changes before it
BEGIN;
INSERT INTO users SELECT i FROM generate_series(11, 15) i;
SELECT ectowatch_unwatch('users_changed');
SELECT * FROM would_deliver WHERE watcher = 'users_changed';
ROLLBACK;
-- the ring gets what was pending
SELECT ectowatch_position() AS start \gset
BEGIN;
INSERT INTO users SELECT i, 'n' FROM generate_series(101, 110) i;
DELETE FROM users WHERE id > 100;
COMMIT;
SELECT type, values, old_values, relation
FROM ectowatch_changes(:start, '{users_changed}', timeout => '10 s');
SELECT ectowatch_watch('users', 'changed', bulk_threshold => -1);
SELECT ectowatch_unwatch('users_changed');

--
-- ectowatch.mute: nothing is captured, and each watcher gets a gap that says
-- how many rows there were
--
SELECT ectowatch_position() AS start \gset
BEGIN;
SET LOCAL ectowatch.mute = on;
INSERT INTO users SELECT i, 'n' FROM generate_series(101, 110) i;
SAVEPOINT a;
DELETE FROM users WHERE id > 105;
ROLLBACK TO a;
SET LOCAL ectowatch.mute = off;
INSERT INTO users (id) VALUES (200);
SELECT * FROM would_deliver;
COMMIT;
SELECT watcher, type, values->'reason' AS reason, values->'changes' AS changes,
    (values->>'from')::bigint = position AND (values->>'to')::bigint = position AS here
FROM ectowatch_changes(:start, '{users_inserted}', timeout => '10 s');
-- it is for superusers, and for who was granted it
CREATE ROLE regress_mute;
SET ROLE regress_mute;
SET ectowatch.mute = on;
RESET ROLE;
GRANT SET ON PARAMETER ectowatch.mute TO regress_mute;
SET ROLE regress_mute;
SET ectowatch.mute = on;
RESET ectowatch.mute;
RESET ROLE;
REVOKE SET ON PARAMETER ectowatch.mute FROM regress_mute;
DROP ROLE regress_mute;

--
-- replicated: also what is written under session_replication_role = replica, as
-- logical replication does (between two servers: test/t/019_replicated.pl)
--
SELECT ectowatch_watch('users', 'updated', 'users_replicated', replicated => true);
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE users SET name = 'ann' WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
UPDATE users SET note = 'seen' WHERE id = 1;
SELECT watcher, type FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
SELECT ectowatch_unwatch('users_replicated');

--
-- debug: what becomes of the watcher and its changes goes to the server log (capture,
-- delivery and subscriptions: test/t/025_declare.pl)
--
SET client_min_messages = log;
SELECT ectowatch_watch('users', 'deleted', 'users_debug', debug => true);
RESET client_min_messages;
SELECT watcher, debug FROM ectowatch_watchers WHERE debug;
SELECT ectowatch_unwatch('users_debug');

--
-- ectowatch.context goes along with envelope: sql/options_delivery.sql.  It is short.
--
SELECT set_config('ectowatch.context', repeat('x', 1024), true) IS NOT NULL AS fits;
DO $$
DECLARE
    said text;
BEGIN
    PERFORM set_config('ectowatch.context', repeat('x', 1025), true);
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
    RAISE NOTICE '%', said;
END
$$;

--
-- ectowatch_alter: what is not named stays as it is
--
SELECT ectowatch_watch('users', 'updated', 'altered', '{role_id}', '{name}',
                       bulk_threshold => 10, throttle => '1.5 s', delivery => 'packed');
CREATE VIEW altered AS
    SELECT trigger_columns, extra_columns, key_columns, column_map, old_values,
        delivery, bulk_threshold, throttle, envelope, debug
    FROM ectowatch_watchers WHERE watcher = 'altered';
SELECT * FROM altered;
SELECT ectowatch_alter('altered', extra_columns => '{note,name}', envelope => true);
SELECT * FROM altered;
SELECT ectowatch_alter('altered', '{}', '{}', key_columns => '{name}', bulk_threshold => 0,
                       throttle => '0', delivery => 'each', column_map => '{"id": "ID"}');
SELECT * FROM altered;
SELECT ectowatch_alter('altered', key_columns => '{}', column_map => '{}');
SELECT * FROM altered;
-- it takes effect at once
BEGIN;
UPDATE users SET role_id = role_id WHERE id = 1;
SELECT ectowatch_alter('altered', extra_columns => '{role_id}');
UPDATE users SET role_id = role_id WHERE id = 1;
SELECT values FROM would_deliver WHERE watcher = 'altered';
ROLLBACK;
-- errors leave it as it was
SELECT ectowatch_alter('nobody');
SELECT ectowatch_alter(NULL);
SELECT ectowatch_alter('altered', extra_columns => '{nothing}');
SELECT ectowatch_alter('altered', delivery => 'pigeon');
SELECT ectowatch_alter('altered', throttle => '2 days');
SELECT ectowatch_alter('altered', throttle => '-1 s');
SELECT ectowatch_alter('altered', throttle => '1 day 2562047788:00:54.775807');
SELECT * FROM altered;
-- only the owner may
CREATE ROLE regress_other;
SET ROLE regress_other;
SELECT ectowatch_alter('altered', debug => true);
RESET ROLE;
DROP ROLE regress_other;

DROP VIEW would_deliver, altered;
DROP TABLE users;
DROP EXTENSION ectowatch;
