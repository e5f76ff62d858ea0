--
-- ectowatch_unwatch() removes a watcher: by its name, or, if it has no label,
-- by relation and event.  Its listeners and readers get a last message of
-- type "ended" when the transaction commits.  Triggers go when no watcher
-- needs them any longer.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text);
CREATE VIEW our_triggers AS
    SELECT tgrelid::regclass AS relation, count(*)
    FROM pg_trigger WHERE tgfoid = 'ectowatch_capture'::regproc GROUP BY 1;
SELECT ectowatch_watch('users', 'updated');
SELECT ectowatch_watch('users', 'updated', 'user_renamed', '{name}');
SELECT ectowatch_watch('users', 'changed');
SELECT * FROM our_triggers;

-- by name
SELECT ectowatch_unwatch('user_renamed');
-- by relation and event; one with a label does not answer to that
SELECT ectowatch_watch('users', 'deleted', 'user_gone');
SELECT ectowatch_unwatch('users', 'changed');
SELECT ectowatch_unwatch('users', 'deleted');
SELECT watcher FROM ectowatch_watchers ORDER BY watcher;
-- two events are left, so two triggers
SELECT * FROM our_triggers;

-- what is not there
SELECT ectowatch_unwatch('user_renamed');
SELECT ectowatch_unwatch('users', 'inserted');
SELECT ectowatch_unwatch('users', 'upserted');
-- NULL is no name: nothing happens
SELECT ectowatch_unwatch(NULL);
SELECT count(*) FROM ectowatch_watchers;

-- only owners of the table may
CREATE ROLE regress_ectowatch_app;
SET ROLE regress_ectowatch_app;
SELECT ectowatch_unwatch('users_updated');
SELECT ectowatch_unwatch('users', 'updated');
RESET ROLE;

-- rolled back, it has not been
BEGIN;
SELECT ectowatch_unwatch('users_updated');
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
SELECT watcher FROM ectowatch_watchers ORDER BY watcher;
SELECT * FROM our_triggers;

-- :caught_up waits until all that was committed is in the ring
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'

-- the last message, behind what came before
INSERT INTO users VALUES (1, 'Ann');
:caught_up;
SELECT ectowatch_position() AS start \gset
BEGIN;
UPDATE users SET name = 'Bea';
SELECT ectowatch_unwatch('users_updated');
UPDATE users SET name = 'Cid';
COMMIT;
SELECT watcher, type, relation, values
FROM ectowatch_changes(:start, timeout => '10 s');
-- may still be read by its name
SELECT type FROM ectowatch_changes(:start, '{users_updated}');

-- the name is free for another one, which starts anew
:caught_up;
SELECT ectowatch_position() AS start \gset
BEGIN;
SELECT ectowatch_watch('users', 'inserted', 'users_updated');
INSERT INTO users VALUES (2, 'Dot');
COMMIT;
SELECT watcher, type, values FROM ectowatch_changes(:start, timeout => '10 s');

-- removed and made again in one transaction
BEGIN;
SELECT ectowatch_unwatch('users_updated');
SELECT ectowatch_watch('users', 'inserted', 'users_updated');
INSERT INTO users VALUES (3, 'Eve');
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;

--
-- A table that this transaction uses itself keeps its trigger: changes whose
-- triggers are deferred, a cursor, the query that calls; on a partition, too
--
CREATE TABLE parts (id integer PRIMARY KEY, up integer REFERENCES parts DEFERRABLE INITIALLY DEFERRED)
    PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1);
SELECT ectowatch_watch('parts', 'updated');
BEGIN;
INSERT INTO parts VALUES (2, 1);
SELECT ectowatch_unwatch('parts_updated');
SELECT * FROM our_triggers WHERE relation::text LIKE 'parts%' ORDER BY 1;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM parts_1;
FETCH c;
SELECT ectowatch_unwatch('parts_updated');
ROLLBACK;
SELECT ectowatch_unwatch('parts_updated') FROM parts;
SELECT watcher FROM ectowatch_watchers WHERE relation = 'parts'::regclass;
-- it goes when it can
SELECT relation, action FROM ectowatch_repair();
SELECT * FROM our_triggers WHERE relation::text LIKE 'parts%' ORDER BY 1;
DROP TABLE parts;

--
-- A dropped table takes its watchers with it
--
:caught_up;
SELECT ectowatch_position() AS start \gset
DROP TABLE users;
SELECT watcher, type, relation
FROM ectowatch_changes(:start, timeout => '10 s');
SELECT count(*) FROM ectowatch_watchers;
-- also with its schema, and rolled back with it
CREATE SCHEMA shop;
CREATE TABLE shop.items (id integer PRIMARY KEY);
SELECT ectowatch_watch('shop.items', 'changed', 'items');
BEGIN;
DROP SCHEMA shop CASCADE;
SELECT count(*) FROM ectowatch_watchers;
ROLLBACK;
SELECT watcher, relation FROM ectowatch_watchers;
-- a table of the same name is another one
BEGIN;
DROP TABLE shop.items;
CREATE TABLE shop.items (id integer PRIMARY KEY);
INSERT INTO shop.items VALUES (1);
SELECT watcher, type FROM ectowatch_pending();
SELECT ectowatch_watch('shop.items', 'changed', 'items');
ROLLBACK;

DROP SCHEMA shop CASCADE;
DROP VIEW our_triggers;
DROP ROLE regress_ectowatch_app;
DROP EXTENSION ectowatch;
