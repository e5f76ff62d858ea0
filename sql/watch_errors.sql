--
-- Every argument that makes no sense is an error, with a code, and a hint at
-- what to do.  It changes nothing: no watcher, no trigger.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer);
CREATE TABLE notes (body text);

-- calls a function and shows how it fails
CREATE FUNCTION refused(call text, OUT code text, OUT message text,
                        OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT ' || call;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS
        code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END
$$;
\pset expanded on
\pset null '(null)'

--
-- relation
--
SELECT * FROM refused($$ ectowatch_watch(NULL, 'updated') $$);
SELECT * FROM refused($$ ectowatch_watch('nobody', 'updated') $$);
SELECT * FROM refused($$ ectowatch_watch(4000000000::oid, 'updated') $$);
-- a view
CREATE VIEW v AS SELECT 1 AS id;
SELECT * FROM refused($$ ectowatch_watch('v', 'updated') $$);
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id;
SELECT * FROM refused($$ ectowatch_watch('mv', 'updated') $$);
-- a sequence, an index, a composite type
CREATE SEQUENCE s;
SELECT * FROM refused($$ ectowatch_watch('s', 'updated') $$);
SELECT * FROM refused($$ ectowatch_watch('users_pkey', 'updated') $$);
CREATE TYPE pair AS (a integer, b integer);
SELECT * FROM refused($$ ectowatch_watch('pair', 'updated') $$);
-- a foreign table
CREATE FOREIGN DATA WRAPPER regress_ectowatch_fdw;
CREATE SERVER regress_ectowatch_server FOREIGN DATA WRAPPER regress_ectowatch_fdw;
CREATE FOREIGN TABLE ft (id integer) SERVER regress_ectowatch_server;
SELECT * FROM refused($$ ectowatch_watch('ft', 'updated', key_columns => '{id}') $$);
-- a temporary table
CREATE TEMPORARY TABLE temp_users (id integer PRIMARY KEY);
SELECT * FROM refused($$ ectowatch_watch('temp_users', 'updated') $$);
-- system tables, and our own
SELECT * FROM refused($$ ectowatch_watch('pg_class', 'updated') $$);
SELECT * FROM refused($$ ectowatch_watch('information_schema.sql_features', 'updated') $$);
SELECT * FROM refused($$ ectowatch_watch('ectowatch_registry', 'updated') $$);

--
-- event
--
SELECT * FROM refused($$ ectowatch_watch('users', NULL) $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'update') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'UPDATED') $$);
SELECT * FROM refused($$ ectowatch_watch('users', '') $$);

--
-- label, and names
--
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', '') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', repeat('x', 64)) $$);
-- by how many characters it is too long, for that is what one has to cut
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', repeat('ü', 33)) $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', 'a|b') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', 'a"b') $$);
-- a name made of table and event
CREATE TABLE a_table_whose_name_is_as_long_as_names_in_postgres_can_ever_be (id integer PRIMARY KEY);
SELECT * FROM refused($$ ectowatch_watch('a_table_whose_name_is_as_long_as_names_in_postgres_can_ever_be', 'updated') $$);
CREATE TABLE "a|b" (id integer PRIMARY KEY);
SELECT * FROM refused($$ ectowatch_watch('"a|b"', 'updated') $$);
-- taken
SELECT ectowatch_watch('users', 'updated', 'taken');
SELECT * FROM refused($$ ectowatch_watch('users', 'inserted', 'taken') $$);
SELECT * FROM refused($$ ectowatch_watch('notes', 'updated', 'taken', key_columns => '{body}') $$);
SELECT ectowatch_watch('users', 'updated', 'notes_truncated');
SELECT * FROM refused($$ ectowatch_watch('notes', 'truncated') $$);

--
-- columns
--
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{nmae}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', 'l', trigger_columns => '{name,nmae}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', key_columns => '{nmae}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{NAME}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{""}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{ctid}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{name,name}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{NULL}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => '{{id,name}}') $$);
ALTER TABLE notes ADD COLUMN gone integer;
ALTER TABLE notes DROP COLUMN gone;
SELECT * FROM refused($$ ectowatch_watch('notes', 'updated', key_columns => '{gone}') $$);
SELECT * FROM refused($$ ectowatch_watch('notes', 'updated', key_columns => '{........pg.dropped.2........}') $$);

-- more columns than a table can have are not looked at
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => array_fill('name'::text, '{1601}')) $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', extra_columns => array_fill('name'::text, '{1600}')) $$);
-- trigger_columns: with a label, for updates
SELECT * FROM refused($$ ectowatch_watch('users', 'updated', trigger_columns => '{name}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'inserted', 'l', '{name}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'deleted', 'l', '{name}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'truncated', 'l', '{name}') $$);

-- a key there must be
SELECT * FROM refused($$ ectowatch_watch('notes', 'updated') $$);
-- but a TRUNCATE has no rows
SELECT * FROM refused($$ ectowatch_watch('users', 'truncated', extra_columns => '{name}') $$);
SELECT * FROM refused($$ ectowatch_watch('users', 'truncated', key_columns => '{id}') $$);

--
-- rights
--
CREATE ROLE regress_ectowatch_app;
SET ROLE regress_ectowatch_app;
SELECT * FROM refused($$ ectowatch_watch('users', 'updated') $$);
RESET ROLE;

--
-- the trigger function is for triggers that ectowatch_watch() makes
--
SELECT * FROM refused($$ ectowatch_capture() $$);
CREATE TRIGGER wrong BEFORE INSERT ON notes
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
\pset expanded off
INSERT INTO notes VALUES ('x');
DROP TRIGGER wrong ON notes;
-- one that nobody watches through does nothing
CREATE TRIGGER idle AFTER INSERT ON notes
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
INSERT INTO notes VALUES ('x');
DROP TRIGGER idle ON notes;

--
-- Nothing came of all that but the two that were right
--
SELECT watcher, relation, event FROM ectowatch_watchers ORDER BY watcher;
SELECT tgrelid::regclass, count(*) FROM pg_trigger
WHERE tgfoid = 'ectowatch_capture'::regproc GROUP BY 1;

DROP TABLE users, notes, a_table_whose_name_is_as_long_as_names_in_postgres_can_ever_be, "a|b";
DROP VIEW v;
DROP MATERIALIZED VIEW mv;
DROP SEQUENCE s;
DROP TYPE pair;
DROP FOREIGN TABLE ft;
DROP SERVER regress_ectowatch_server;
DROP FOREIGN DATA WRAPPER regress_ectowatch_fdw;
DROP TABLE temp_users;
DROP FUNCTION refused(text);
DROP ROLE regress_ectowatch_app;
DROP EXTENSION ectowatch;
