--
-- Conditions: a watcher hears only of rows for which its condition holds.  It is
-- SQL over the columns of the row, checked when the watcher is made.  Whatever
-- happens to it later, it makes no write fail: where it cannot be told whether
-- it holds, the change is delivered, and a warning says so once.
--
CREATE EXTENSION ectowatch;
CREATE ROLE regress_ectowatch_owner;
CREATE ROLE regress_ectowatch_writer;
CREATE SCHEMA app AUTHORIZATION regress_ectowatch_owner;
CREATE TABLE users (id integer PRIMARY KEY, name varchar(20), role_id integer, at date);
INSERT INTO users VALUES (1, 'Ann', 1, '2026-01-01'), (2, 'Bob', 2, '2026-01-02');

--
-- The row of the message: the new one of an insert, the old one of a delete.  An
-- update matches if the old row or the new one does
--
SELECT ectowatch_watch('users', 'inserted', condition => 'role_id = 7');
SELECT ectowatch_watch('users', 'updated', condition => 'users.role_id = 7', extra_columns => '{role_id}');
SELECT ectowatch_watch('users', 'deleted', condition => 'public.users.role_id = 7');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', 6), (4, 'Dot', 7), (5, 'Eve', NULL);
UPDATE users SET role_id = 8 WHERE id = 3;
-- comes in, stays, goes out
UPDATE users SET role_id = 7 WHERE id = 3;
UPDATE users SET name = 'Cem' WHERE id = 3;
UPDATE users SET role_id = 6 WHERE id = 3;
DELETE FROM users;
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;

--
-- OLD and NEW, where they exist
--
SELECT ectowatch_watch('users', 'updated', 'promoted', condition => 'NEW.role_id > OLD.role_id');
SELECT ectowatch_watch('users', 'updated', 'moved', condition => 'OLD.* IS DISTINCT FROM NEW.* AND role_id = 2');
SELECT ectowatch_watch('users', 'inserted', 'recent', condition => 'new.at > ''2026-01-01''');
SELECT ectowatch_watch('users', 'deleted', 'old', condition => 'old.at = ''2026-01-01''');
BEGIN;
UPDATE users SET role_id = 3 - role_id;
UPDATE users SET name = name;
INSERT INTO users VALUES (3, 'Cid', 7, '2026-01-01'), (4, 'Dot', 7, '2026-01-02');
DELETE FROM users;
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;
SELECT ectowatch_watch('users', 'inserted', condition => 'OLD.role_id = 7');
SELECT ectowatch_watch('users', 'deleted', condition => 'role_id = 7 OR NEW.role_id = 7');
SELECT ectowatch_watch('users', 'changed', condition => 'OLD.role_id = 7');
SELECT ectowatch_watch('users', 'changed', condition => 'NEW.* IS NULL');

--
-- A TRUNCATE has no row.  A watcher of all events delivers it always
--
SELECT ectowatch_watch('users', 'truncated', condition => 'role_id = 7');
SELECT ectowatch_watch('users', 'changed', condition => 'role_id = 7');
BEGIN;
UPDATE users SET role_id = 7 WHERE id = 1;
DELETE FROM users WHERE id = 2;
TRUNCATE users;
SELECT type, values FROM ectowatch_pending() WHERE watcher = 'users_changed';
ROLLBACK;

--
-- What is kept means the same in all sessions.  It is shown, and may be used
--
SELECT watcher, condition FROM ectowatch_watchers ORDER BY watcher;
SELECT ectowatch_unwatch(watcher) FROM ectowatch_watchers;
SET datestyle = 'SQL, DMY';
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET quote_all_identifiers = on;
SELECT ectowatch_watch('users', 'updated', condition => 'at <> ''02/01/2026'' AND name IN (''a\\\\b'', ''o''''c'')');
\c -
SELECT condition FROM ectowatch_watchers \gset
\echo :condition
SELECT ectowatch_watch('users', 'updated', condition => :'condition');
SELECT condition = :'condition' AS "same" FROM ectowatch_watchers;
BEGIN;
SET LOCAL datestyle = 'SQL, MDY';
SET LOCAL standard_conforming_strings = off;
UPDATE users SET name = E'a\\b';
SELECT values FROM ectowatch_pending();
ROLLBACK;
-- a table may be called as anything, and columns too
CREATE TABLE old (id integer PRIMARY KEY, new integer, this integer);
SELECT ectowatch_watch('old', 'updated', condition => 'old.new = 1 AND new.this = 2 AND this.this = 2 AND new > 0');
SELECT condition FROM ectowatch_watchers WHERE watcher = 'old_updated';
INSERT INTO old VALUES (1, 1, 1), (2, 1, 1);
BEGIN;
UPDATE old SET this = id;
SELECT values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE old;
CREATE TABLE this (id integer PRIMARY KEY, n integer);
SELECT ectowatch_watch('this', 'updated', condition => 'this.n = 1');
SELECT ectowatch_watch('this', 'updated', condition => 'n = 1');
DROP TABLE this;

--
-- The same condition again is nothing to do, however it is written; so is
-- none for none.  Another one replaces it
--
SELECT ectowatch_watch('users', 'updated', condition => 'role_id = 7');
GRANT SELECT ON users TO regress_ectowatch_writer;
SET ROLE regress_ectowatch_writer;
SELECT ectowatch_watch('users', 'updated', condition => 'role_id = 7');
SELECT ectowatch_watch('users', 'updated', condition => '( users.role_id=7 ) -- seven');
-- the table is locked while the condition is looked at, and no longer; not even
-- then if it is written as before
BEGIN;
SELECT ectowatch_watch('users', 'updated', condition => '(role_id = 7)');
SELECT ectowatch_watch('users', 'updated', condition => 'role_id = 7');
SELECT count(*) AS locks FROM pg_locks
WHERE relation = 'users'::regclass AND pid = pg_backend_pid();
COMMIT;
SELECT ectowatch_watch('users', 'updated', condition => 'role_id = 8');
SELECT ectowatch_watch('users', 'updated');
RESET ROLE;
SELECT ectowatch_watch('users', 'updated', condition => 'role_id = 8');
SELECT condition FROM ectowatch_watchers;
SELECT ectowatch_watch('users', 'updated', condition => '');
SELECT condition IS NULL AS "none" FROM ectowatch_watchers;
SELECT ectowatch_watch('users', 'updated');
-- the same text need not mean the same: settings, or columns, may differ
SELECT ectowatch_watch('users', 'updated', condition => 'at > ''02/01/2026''');
SELECT condition FROM ectowatch_watchers;
BEGIN;
SET LOCAL datestyle = 'ISO, DMY';
SELECT ectowatch_watch('users', 'updated', condition => 'at > ''02/01/2026''');
SELECT condition FROM ectowatch_watchers;
ALTER TABLE users ALTER COLUMN at TYPE timestamp;
SELECT ectowatch_watch('users', 'updated', condition => 'at > ''02/01/2026''');
SELECT condition FROM ectowatch_watchers;
CREATE SCHEMA mine;
CREATE FUNCTION mine.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
SELECT ectowatch_watch('users', 'updated', condition => 'lower(name) = ''ann''');
SET LOCAL search_path = mine, pg_catalog, public;
SELECT ectowatch_watch('users', 'updated', condition => 'lower(name) = ''ann''');
SELECT condition FROM ectowatch_watchers;
ALTER TABLE users DROP COLUMN name;
SELECT ectowatch_watch('users', 'updated', condition => 'lower(name) = ''ann''');
ROLLBACK;
SELECT ectowatch_alter('users_updated', condition => 'new.role_id = 9');
SELECT ectowatch_alter('users_updated', extra_columns => '{name}');
SELECT extra_columns, condition FROM ectowatch_watchers;
SELECT ectowatch_alter('users_updated', condition => 'rolle_id = 9');
SELECT ectowatch_alter('users_updated', condition => '');
SELECT extra_columns, condition FROM ectowatch_watchers;
SELECT ectowatch_unwatch('users_updated');

--
-- What is no condition
--
SELECT ectowatch_watch('users', 'updated', condition => 'role_id =');
SELECT ectowatch_watch('users', 'updated', condition => ' ');
SELECT ectowatch_watch('users', 'updated', condition => 'true, false');
SELECT ectowatch_watch('users', 'updated', condition => '*');
SELECT ectowatch_watch('users', 'updated', condition => 'users.*');
SELECT ectowatch_watch('users', 'updated', condition => 'true AS yes');
SELECT ectowatch_watch('users', 'updated', condition => 'true FROM users');
SELECT ectowatch_watch('users', 'updated', condition => 'true ORDER BY 1');
SELECT ectowatch_watch('users', 'updated', condition => 'true; DROP TABLE users');
SELECT ectowatch_watch('users', 'updated', condition => 'true) OR (true');
SELECT ectowatch_watch('users', 'updated', condition => 'role_id');
SELECT ectowatch_watch('users', 'updated', condition => 'rolle_id = 7');
SELECT ectowatch_watch('users', 'updated', condition => 'NEW.rolle_id = 7');
SELECT ectowatch_watch('users', 'updated', condition => 'people.role_id = 7');
SELECT ectowatch_watch('users', 'updated', condition => 'no_function(role_id)');
SELECT ectowatch_watch('users', 'updated', condition => 'no_function(users)');
SELECT ectowatch_watch('users', 'updated', condition => 'role_id = $1');
SELECT ectowatch_watch('users', 'updated', condition => 'ctid IS NOT NULL');
SELECT ectowatch_watch('users', 'updated', condition => 'NEW.xmin <> OLD.xmin');
SELECT ectowatch_watch('users', 'updated', condition => 'role_id IN (SELECT 7)');
SELECT ectowatch_watch('users', 'updated', condition => 'EXISTS (SELECT FROM users)');
SELECT ectowatch_watch('users', 'updated', condition => 'count(*) > 1');
SELECT ectowatch_watch('users', 'updated', condition => 'row_number() OVER () > 1');
SELECT ectowatch_watch('users', 'updated', condition => 'generate_series(1, 2) > 1');
SELECT count(*) AS watchers FROM ectowatch_watchers;

--
-- Types, operators and functions of other schemas: what the search_path found
-- when the watcher was made.  The writer needs no USAGE on the schemas
--
SET ROLE regress_ectowatch_owner;
CREATE TYPE app.mood AS ENUM ('sad', 'happy');
CREATE TABLE app.people (id integer PRIMARY KEY, mood app.mood);
CREATE FUNCTION app.fine(app.mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'happy'$$;
CREATE FUNCTION app.whole(app.people) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN $1.id > 1; END$$;
CREATE FUNCTION app.at_least(app.mood, app.mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 >= $2';
CREATE OPERATOR app.@@ (LEFTARG = app.mood, RIGHTARG = app.mood, FUNCTION = app.at_least);
SET search_path = app;
SELECT public.ectowatch_watch('people', 'inserted', 'people_fine', condition => 'fine(mood) AND mood = ''happy''');
SELECT public.ectowatch_watch('people', 'inserted', 'people_whole', condition => 'whole(people) AND whole(NEW.*) AND mood @@ ''sad''');
RESET search_path;
RESET ROLE;
SELECT watcher, condition FROM ectowatch_watchers ORDER BY watcher;
CREATE FUNCTION fine(app.mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT false$$;
GRANT INSERT ON app.people TO regress_ectowatch_writer;
CREATE VIEW writable AS SELECT * FROM app.people;
GRANT INSERT ON writable TO regress_ectowatch_writer;
BEGIN;
SET LOCAL ROLE regress_ectowatch_writer;
INSERT INTO writable VALUES (1, 'sad'), (2, 'happy');
RESET ROLE;
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;
DROP VIEW writable;
DROP FUNCTION fine;

--
-- Some expressions compare by an operator whose schema SQL cannot name.  They are
-- refused where that would not be found again, as where text has an "=" as well
--
CREATE SCHEMA ci;
SET client_min_messages = warning;
CREATE EXTENSION citext SCHEMA ci;
RESET client_min_messages;
SET search_path = ci, public;
CREATE TABLE orders (id integer PRIMARY KEY, status citext, n integer, note text);
INSERT INTO orders VALUES (1, 'open', 1), (2, 'OPEN', 1), (3, 'shut', 1);
SELECT ectowatch_watch('orders', 'updated', condition => 'CASE status WHEN ''open'' THEN true END');
SELECT ectowatch_watch('orders', 'updated', condition => 'OLD.status IS DISTINCT FROM NEW.status');
SELECT ectowatch_watch('orders', 'updated', condition => 'OLD.status IS NOT DISTINCT FROM NEW.status');
SELECT ectowatch_watch('orders', 'updated', condition => '(OLD.n, OLD.status) IS DISTINCT FROM (NEW.n, NEW.status)');
SELECT ectowatch_watch('orders', 'updated', condition => 'NULLIF(status, ''open'') IS NULL');
SELECT ectowatch_watch('orders', 'updated', condition => '(n, status) < (2, ''b'')');
SELECT ectowatch_watch('orders', 'updated', condition => '(status, note) < (''b'', ''b'')');
-- the operator written out, or where it can be
SELECT ectowatch_watch('orders', 'updated', 'written', condition => 'CASE WHEN status OPERATOR(ci.=) ''open'' THEN true END');
SELECT ectowatch_watch('orders', 'updated', 'plain', condition => 'status = ''open''');
SELECT ectowatch_watch('orders', 'updated', 'listed', condition => 'status IN (''open'', ''new'')');
SELECT ectowatch_watch('orders', 'updated', 'between', condition => 'status BETWEEN ''N'' AND ''P'' AND status LIKE ''o%''');
SELECT ectowatch_watch('orders', 'updated', 'rows', condition => '(status, status) < (''P'', ''b'') AND (n, status) = (1, ''Open'')');
-- or is none of another schema
SELECT ectowatch_watch('orders', 'updated', 'catalog', condition => 'CASE n WHEN 1 THEN NULLIF(note, ''x'') IS NOT DISTINCT FROM note END AND (n, id) < (2, 0)');
RESET search_path;
SELECT watcher, condition FROM ectowatch_watchers WHERE relation = 'ci.orders'::regclass ORDER BY watcher;
BEGIN;
UPDATE ci.orders SET n = 1;
SELECT watcher, values FROM ectowatch_pending() ORDER BY watcher, values;
ROLLBACK;
SET client_min_messages = warning;
DROP SCHEMA ci CASCADE;
RESET client_min_messages;

--
-- It runs with the rights of the writer
--
REVOKE EXECUTE ON FUNCTION app.whole FROM PUBLIC;
GRANT USAGE ON SCHEMA app TO regress_ectowatch_writer;
BEGIN;
SET LOCAL ROLE regress_ectowatch_writer;
INSERT INTO app.people VALUES (1, 'happy'), (2, 'sad');
RESET ROLE;
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;
-- whoever else writes in the same session is asked for his own
BEGIN;
INSERT INTO app.people VALUES (1, 'happy');
SET LOCAL ROLE regress_ectowatch_writer;
INSERT INTO app.people VALUES (-1, 'sad');
RESET ROLE;
INSERT INTO app.people VALUES (-2, 'sad'), (2, 'sad');
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;

--
-- A function is replaced, dropped, and made again
--
INSERT INTO app.people VALUES (9, 'happy');
BEGIN;
INSERT INTO app.people VALUES (1, 'happy');
CREATE OR REPLACE FUNCTION app.fine(app.mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT false$$;
INSERT INTO app.people VALUES (2, 'happy');
DROP FUNCTION app.fine;
INSERT INTO app.people VALUES (3, 'sad'), (4, 'happy');
CREATE FUNCTION app.fine(app.mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'happy'$$;
INSERT INTO app.people VALUES (5, 'sad'), (6, 'happy');
SELECT values FROM ectowatch_pending() WHERE watcher = 'people_fine';
ROLLBACK;
SET client_min_messages = warning;
DROP SCHEMA app CASCADE;
RESET client_min_messages;

--
-- A condition that fails: the rows for which it does are delivered
--
SELECT ectowatch_watch('users', 'inserted', condition => '1 / role_id > 0');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', 0), (4, 'Dot', -1), (5, 'Eve', 1), (6, 'Fay', 0);
INSERT INTO users VALUES (7, 'Gil', 0), (8, 'Hal', -1);
SELECT values FROM ectowatch_pending();
ROLLBACK;
-- for all of them
SELECT ectowatch_watch('users', 'inserted', condition => '1 / 0 > 0');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', 0), (4, 'Dot', -1);
SELECT values FROM ectowatch_pending();
ROLLBACK;
-- without a collation to compare by
CREATE TABLE words (id integer PRIMARY KEY, a text COLLATE "C", b text COLLATE "POSIX");
SELECT ectowatch_watch('words', 'inserted', condition => 'id < 3 OR a < b');
BEGIN;
INSERT INTO words VALUES (2, 'b', 'a'), (3, 'b', 'a');
SELECT values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE words;

--
-- Columns that change their type, their name, or are dropped.  Nothing is held up
--
SELECT ectowatch_watch('users', 'inserted', condition => 'role_id > 6');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', 6), (4, 'Dot', 7);
ALTER TABLE users ALTER COLUMN role_id TYPE numeric(10,2);
INSERT INTO users VALUES (5, 'Eve', 6), (6, 'Fay', 6.5);
ALTER TABLE users RENAME TO people;
INSERT INTO people VALUES (7, 'Gil', 6), (8, 'Hal', 7);
SELECT values FROM ectowatch_pending();
ALTER TABLE people RENAME COLUMN role_id TO role;
INSERT INTO people VALUES (9, 'Ian', 6), (10, 'Joe', 7);
SELECT values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
ALTER TABLE users DROP COLUMN role_id;
INSERT INTO users VALUES (3, 'Cid'), (4, 'Dot');
SELECT values FROM ectowatch_pending();
-- another option can be changed all the same
SELECT ectowatch_alter('users_inserted', extra_columns => '{name}');
SELECT condition FROM ectowatch_watchers WHERE watcher = 'users_inserted';
-- with the columns that there are it is right again
SELECT ectowatch_watch('users', 'inserted', condition => 'id > 4');
INSERT INTO users VALUES (5, 'Eve');
SELECT values FROM ectowatch_pending();
ROLLBACK;

--
-- Partitions: by name, whatever the order of their columns
--
CREATE TABLE parts (id integer, at date, n integer, PRIMARY KEY (id, n)) PARTITION BY LIST (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (junk text, n integer NOT NULL, id integer NOT NULL, at date, PRIMARY KEY (id, n));
ALTER TABLE parts_2 DROP COLUMN junk;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
CREATE FUNCTION odd(parts) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RETURN $1.id % 2 = 1; END$$;
SELECT ectowatch_watch('parts', 'inserted', 'parts_ten', condition => 'id = n * 10');
SELECT ectowatch_watch('parts', 'inserted', 'parts_odd', condition => 'odd(parts) AND parts.at IS NULL');
BEGIN;
INSERT INTO parts (id, n) VALUES (9, 1), (10, 1), (20, 1), (10, 2), (20, 2), (21, 2);
SELECT watcher, values FROM ectowatch_pending();
ROLLBACK;
DROP FUNCTION odd;
DROP TABLE parts;

--
-- Functions may write.  What they write is captured, if the write stays
--
CREATE TABLE log (id serial PRIMARY KEY, user_id integer);
SELECT ectowatch_watch('log', 'inserted', extra_columns => '{user_id}');
CREATE FUNCTION logged(integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (user_id) VALUES ($1);
    RETURN 1 / ($1 - 4) > -1;
END
$$;
SELECT ectowatch_watch('users', 'inserted', condition => 'logged(id)');
BEGIN;
INSERT INTO users VALUES (3, 'Cid'), (4, 'Dot'), (5, 'Eve');
SAVEPOINT s;
INSERT INTO users VALUES (6, 'Fay');
ROLLBACK TO s;
INSERT INTO users VALUES (7, 'Gil');
SELECT watcher, values - 'id' - 'user_id' = '{}' AS ok, coalesce(values->'user_id', values->'id') AS user_id FROM ectowatch_pending();
SELECT user_id FROM log ORDER BY id;
ROLLBACK;
-- to the same table, and so ask the same condition
CREATE FUNCTION copied(integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    IF $1 BETWEEN 3 AND 13 THEN
        INSERT INTO users VALUES ($1 + 10);
    END IF;
    RETURN CASE WHEN $1 % 2 = 1 THEN $1 END;
END
$$;
SELECT ectowatch_watch('users', 'inserted', condition => 'id % 3 = 0 OR id + 0 = copied(id)');
BEGIN;
INSERT INTO users VALUES (3), (4), (5), (7);
SELECT values FROM ectowatch_pending();
SELECT count(*) FROM users;
ROLLBACK;
-- without an end
CREATE OR REPLACE FUNCTION copied(integer) RETURNS integer LANGUAGE plpgsql AS
$$BEGIN INSERT INTO users VALUES ($1 + 1); RETURN NULL; END$$;
SELECT ectowatch_watch('users', 'inserted', condition => 'copied(id) IS NOT NULL');
BEGIN;
INSERT INTO users VALUES (100), (200);
SELECT values FROM ectowatch_pending();
SELECT count(*) FROM users WHERE id >= 100;
ROLLBACK;

-- and keeps no memory from row to row
CREATE TABLE copies (id int);
SELECT ectowatch_watch('copies', 'inserted', key_columns => '{id}');
CREATE OR REPLACE FUNCTION copied(integer) RETURNS integer LANGUAGE plpgsql AS
$$BEGIN INSERT INTO copies VALUES ($1); RETURN $1; END$$;
BEGIN;
INSERT INTO users SELECT generate_series(1000, 2999);
SELECT count(*) FROM ectowatch_pending();
SELECT sum(used_bytes) < 100000 AS little FROM pg_backend_memory_contexts
WHERE name = 'TopTransactionContext';
ROLLBACK;
DROP TABLE copies;

--
-- A cancelled statement ends
--
SELECT ectowatch_watch('users', 'inserted', condition => 'pg_sleep(id) IS NULL');
BEGIN;
SAVEPOINT s;
SET LOCAL statement_timeout = '10ms';
INSERT INTO users VALUES (100);
ROLLBACK TO s;
SELECT values FROM ectowatch_pending();
ROLLBACK;

DROP TABLE users, log;
DROP FUNCTION logged, copied;
DROP EXTENSION ectowatch;
DROP ROLE regress_ectowatch_owner, regress_ectowatch_writer;
