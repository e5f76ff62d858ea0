--
-- From nothing to the first change, in four statements.
--
-- A watcher is a standing request: tell me when rows of this table are
-- updated.  ectowatch_watch() makes one and returns its name, which is also
-- the channel to LISTEN to.  Who cannot LISTEN reads the same changes with
-- SQL.  No write to the table has to know of it.
--
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer);
INSERT INTO users VALUES (1, 'Ann', 1), (2, 'Bob', 1);

CREATE EXTENSION ectowatch;
SELECT ectowatch_watch('users', 'updated');

-- LISTEN users_updated;		(not here: psql would print the worker's pid)

-- until the worker has seen to what was committed before, in other tests
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
-- a position marks a place among all changes; read from there on, later
SELECT ectowatch_position() AS start \gset
UPDATE users SET role_id = 7 WHERE id = 2;
SELECT watcher, type, relation, values
FROM ectowatch_changes(:start, timeout => '10 s');

-- the last position that was read is the next one to read from
SELECT position AS next FROM ectowatch_changes(:start) \gset
SELECT count(*) FROM ectowatch_changes(:next);
SELECT :next > :start AS "positions grow";

-- what a transaction will tell, before it does
BEGIN;
UPDATE users SET role_id = role_id + 1;
SELECT watcher, type, relation, values, old_values FROM ectowatch_pending();
ROLLBACK;

-- nothing is heard of what was rolled back
BEGIN;
UPDATE users SET role_id = 9 WHERE id = 1;
COMMIT;
SELECT watcher, type, values FROM ectowatch_changes(:next, timeout => '10 s');

-- what is watched
SELECT watcher, relation, event, key_columns, listen FROM ectowatch_watchers;

-- and no longer
SELECT ectowatch_unwatch('users_updated');
UPDATE users SET role_id = 10;
SELECT count(*) FROM ectowatch_watchers;

DROP EXTENSION ectowatch;
DROP TABLE users;
