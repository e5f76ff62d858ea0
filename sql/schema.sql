--
-- The extension lives in the schema that CREATE EXTENSION chose, and works
-- whatever the search_path.  It can be dropped and created again.
--
CREATE SCHEMA "Watch Tower";
CREATE EXTENSION ectowatch SCHEMA "Watch Tower";
CREATE TABLE users (id integer PRIMARY KEY, name text);

-- all by qualified names
SELECT "Watch Tower".ectowatch_watch('users', 'updated', extra_columns => '{name}');
SELECT watcher, relation, cardinality(triggers) AS triggers FROM "Watch Tower".ectowatch_watchers;
-- :caught_up waits until all that was committed is in the ring
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM "Watch Tower".ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
SELECT "Watch Tower".ectowatch_position() AS start \gset
INSERT INTO users VALUES (1, 'Ann');
UPDATE users SET name = 'Bea';
SELECT watcher, type, relation, values
FROM "Watch Tower".ectowatch_changes(:start, timeout => '10 s');
CALL "Watch Tower".ectowatch_wait(:start, timeout => '10 ms') \gset
SELECT watcher, changes FROM "Watch Tower".ectowatch_stat_watchers;
SELECT bool_and(ok) FROM "Watch Tower".ectowatch_check('users_updated');
SELECT bool_and(ok) FROM "Watch Tower".ectowatch_check();
SELECT bool_and(ok) FROM "Watch Tower".ectowatch_self_test();
SELECT count(*) FROM "Watch Tower".ectowatch_repair();

-- it does not move
ALTER EXTENSION ectowatch SET SCHEMA public;

--
-- A hostile search_path: objects and operators that lie in wait for code that
-- does not say what it means
--
CREATE SCHEMA hostile;
SET search_path = hostile;
CREATE FUNCTION trap() RETURNS text LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE FUNCTION trap(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap() IS NULL';
CREATE FUNCTION trap(oid, regproc) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap() IS NULL';
CREATE FUNCTION trap(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap() IS NULL';
CREATE FUNCTION trap(text, text) RETURNS text LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION current_database() RETURNS text LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION to_json(anyelement) RETURNS json LANGUAGE sql AS 'SELECT hostile.trap()::json';
CREATE FUNCTION ectowatch_capture() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM hostile.trap(); END$$;
CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap);
CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = regproc, FUNCTION = trap);
CREATE OPERATOR = (LEFTARG = integer, RIGHTARG = integer, FUNCTION = trap);
CREATE OPERATOR || (LEFTARG = text, RIGHTARG = text, FUNCTION = trap);
CREATE TABLE ectowatch_registry (id integer);
CREATE TABLE pg_trigger ();
CREATE TABLE pg_class ();
CREATE SEQUENCE ectowatch_watcher_ids;
CREATE SEQUENCE ectowatch_positions;
SET search_path = hostile, pg_catalog;
SELECT "Watch Tower".ectowatch_watch('public.users', 'inserted', extra_columns => '{name}');
SELECT watcher, relation, cardinality(triggers) AS triggers, listen
FROM "Watch Tower".ectowatch_watchers ORDER BY watcher;
BEGIN;
INSERT INTO public.users VALUES (2, 'Bob');
UPDATE public.users SET name = 'Cid';
SELECT watcher, type, relation, values FROM "Watch Tower".ectowatch_pending();
COMMIT;
SELECT watcher FROM "Watch Tower".ectowatch_changes(:start, '{users_inserted}', timeout => '10 s');
SELECT watcher FROM "Watch Tower".ectowatch_stat_watchers ORDER BY watcher;
SELECT database FROM "Watch Tower".ectowatch_stat;
SELECT bool_and(ok) FROM "Watch Tower".ectowatch_check('users_inserted');
SELECT bool_and(ok) FROM "Watch Tower".ectowatch_check();
SELECT "Watch Tower".ectowatch_unwatch('users_inserted');
SELECT is_called FROM ectowatch_watcher_ids;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
RESET client_min_messages;

--
-- Another name for the schema
--
ALTER SCHEMA "Watch Tower" RENAME TO tower;
SELECT tower.ectowatch_watch('users', 'deleted');
SELECT bool_and(ok) FROM tower.ectowatch_check('users_updated');
SELECT bool_and(ok) FROM tower.ectowatch_check();
BEGIN;
UPDATE users SET name = 'Dot' WHERE id = 1;
DELETE FROM users WHERE id = 1;
SELECT watcher, type, values FROM tower.ectowatch_pending();
ROLLBACK;

--
-- Dropped: triggers go along, so CASCADE has to be said
--
DROP EXTENSION ectowatch;
SET client_min_messages = warning;
DROP EXTENSION ectowatch CASCADE;
RESET client_min_messages;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'users'::regclass;
UPDATE users SET name = 'Eve';
-- what is pending when it is dropped does no harm
CREATE EXTENSION ectowatch SCHEMA tower;
SELECT tower.ectowatch_watch('users', 'updated');
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM tower.ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
SELECT tower.ectowatch_position() > :start AS "positions go on";
SELECT tower.ectowatch_position() AS start \gset
SET client_min_messages = warning;
BEGIN;
UPDATE users SET name = 'Fay' WHERE id = 1;
DROP EXTENSION ectowatch CASCADE;
COMMIT;
RESET client_min_messages;

-- created again, elsewhere: it knows nothing of before
CREATE EXTENSION ectowatch;
SELECT count(*) FROM ectowatch_watchers;
SELECT ectowatch_watch('users', 'updated', 'again');
SELECT watcher, changes, last_position FROM ectowatch_stat_watchers;
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
SELECT ectowatch_position() > :start AS "positions go on";
SELECT ectowatch_position() AS start \gset
UPDATE users SET name = 'Gus' WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_changes(:start, timeout => '10 s');
SELECT watcher, changes FROM ectowatch_stat_watchers;

DROP TABLE users;
DROP EXTENSION ectowatch;
DROP SCHEMA tower;
