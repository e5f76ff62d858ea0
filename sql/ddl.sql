--
-- Watched tables change: columns go, names change, triggers are made by hand.
-- Writes go on whatever happens, and a watcher that cannot go on as it was says
-- so.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer, at date);
SELECT ectowatch_watch('users', 'changed', extra_columns => '{name,role_id}');
SELECT ectowatch_watch('users', 'updated', 'moved', trigger_columns => '{role_id,at}');
INSERT INTO users VALUES (1, 'Ann', 7, '2026-01-01');

--
-- A column that is dropped is left out, with a warning once per event, not per row
--
ALTER TABLE users DROP COLUMN role_id;
BEGIN;
INSERT INTO users VALUES (2, 'Bob', '2026-01-01'), (3, 'Cem', '2026-01-01');
UPDATE users SET name = 'Eve' WHERE id = 2;
UPDATE users SET at = '2026-01-02' WHERE id = 3;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
-- without any trigger column left, every update is a change
ALTER TABLE users DROP COLUMN at;
BEGIN;
UPDATE users SET name = 'Fay' WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
-- other options can be altered all the same; lists stay as they were, with what has gone
SELECT ectowatch_alter('moved', throttle => '1 second', old_values => true);
SELECT ectowatch_alter('users_changed', column_map => '{"name": "called", "id": "number"}');
SELECT ectowatch_alter('users_changed', extra_columns => '{name,role_id}');
SELECT ectowatch_alter('users_changed', column_map => '{"role_id": "role"}');
BEGIN;
SELECT ectowatch_alter('users_changed', extra_columns => '{name}', column_map => '{"name": "called"}');
ALTER TABLE users DROP COLUMN name;
SELECT ectowatch_alter('users_changed', extra_columns => '{}');
ROLLBACK;
BEGIN;
SELECT ectowatch_alter('users_changed', extra_columns => '{*}', column_map => '{"name": "called"}');
ALTER TABLE users ADD COLUMN called text;
SELECT ectowatch_alter('users_changed', old_values => true);
ROLLBACK;
BEGIN;
ALTER TABLE users DROP CONSTRAINT users_pkey, DROP COLUMN id;
SELECT ectowatch_alter('users_changed', column_map => '{"name": "named"}');
SELECT ectowatch_alter('users_changed', old_values => true);
INSERT INTO users VALUES ('Gil');
SELECT watcher, type, values FROM ectowatch_pending();
SELECT watcher, key_columns, trigger_columns, extra_columns, column_map, throttle, old_values
FROM ectowatch_watchers ORDER BY watcher;
SELECT ectowatch_alter('users_changed', key_columns => '{}');
ROLLBACK;
-- watching anew makes it right
SELECT ectowatch_watch('users', 'changed', extra_columns => '{name}');
SELECT ectowatch_unwatch('moved');
BEGIN;
UPDATE users SET name = 'Fay' WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;

--
-- New columns, other types, and new names of table and schema do not matter.
-- A watcher keeps the name that it was given
--
ALTER TABLE users ADD COLUMN age integer DEFAULT 1;
ALTER TABLE users ALTER COLUMN id TYPE bigint, ALTER COLUMN name TYPE varchar(10);
CREATE SCHEMA app;
ALTER TABLE users SET SCHEMA app;
ALTER TABLE app.users RENAME TO people;
ALTER SCHEMA app RENAME TO "the App";
BEGIN;
UPDATE "the App".people SET name = 'Gil' WHERE id = 1;
SELECT watcher, type, relation, values FROM ectowatch_pending();
ROLLBACK;
SET quote_all_identifiers = on;
BEGIN;
UPDATE "the App".people SET name = 'Gil' WHERE id = 1;
SELECT relation FROM ectowatch_pending();
ROLLBACK;
RESET quote_all_identifiers;
DROP SCHEMA "the App" CASCADE;

--
-- The trigger function does nothing on a table without watchers, and a trigger
-- of another shape than ours is not taken for one of ours
--
CREATE TABLE roles (id integer PRIMARY KEY, name text);
CREATE TRIGGER by_hand AFTER UPDATE OF name ON roles
    FOR EACH ROW WHEN (NEW.id > 1) EXECUTE FUNCTION ectowatch_capture();
INSERT INTO roles VALUES (1, 'one'), (2, 'two');
BEGIN;
UPDATE roles SET name = 'deux' WHERE id = 2;
SELECT count(*) FROM ectowatch_pending();
ROLLBACK;
SELECT ectowatch_watch('roles', 'updated');
BEGIN;
UPDATE roles SET name = name;
-- both triggers have fired for row 2, which is one change
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;
-- one for several events serves each of them
DROP TRIGGER by_hand ON roles;
SELECT ectowatch_unwatch('roles_updated');
CREATE TRIGGER by_hand AFTER INSERT OR UPDATE OR DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
SELECT ectowatch_watch('roles', 'inserted');
SELECT ectowatch_watch('roles', 'deleted');
BEGIN;
INSERT INTO roles VALUES (3, 'three');
UPDATE roles SET name = 'x';
DELETE FROM roles WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
-- it is no function to be called, nor for other triggers
SELECT ectowatch_capture();
CREATE TRIGGER before BEFORE INSERT ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
INSERT INTO roles VALUES (4, 'four');
DROP TABLE roles;
DROP EXTENSION ectowatch;
