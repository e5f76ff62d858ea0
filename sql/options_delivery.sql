--
-- Options that say how changes go to channels: delivery, throttle, envelope.
-- The ring has all changes, one by one, whatever these options are.  What comes
-- on channels is shown by test/t/022_delivery.pl.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, role_id integer);
-- :caught_up waits until all that was committed is in the ring, and done with
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 OR notify_bytes > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'

--
-- delivery: each is what there is without it
--
SELECT ectowatch_watch('users', 'inserted', 'users_each');
SELECT ectowatch_watch('users', 'inserted', 'users_packed', delivery => 'packed');
SELECT ectowatch_watch('users', 'inserted', 'users_doorbell', delivery => 'doorbell');
SELECT ectowatch_watch('users', 'inserted', 'users_none', delivery => 'none');
SELECT watcher, delivery FROM ectowatch_watchers ORDER BY watcher;
:caught_up;
SELECT ectowatch_position() AS start \gset
INSERT INTO users VALUES (1, 7), (2, 7);
:caught_up;
SELECT watcher, type, values FROM ectowatch_changes(:start);
-- messages: one for each, all in one, a bell, none
SELECT watcher, changes, notified FROM ectowatch_stat_watchers ORDER BY watcher;
SELECT ectowatch_unwatch(watcher) FROM ectowatch_watchers WHERE delivery <> 'each' ORDER BY watcher;

--
-- throttle: in this interval one message for each row, and the newest at its end
--
SELECT ectowatch_watch('users', 'updated', 'users_slowly', extra_columns => '{role_id}',
                       throttle => '1 hour');
SELECT watcher, throttle FROM ectowatch_watchers WHERE throttle IS NOT NULL;
:caught_up;
SELECT ectowatch_position() AS start \gset
UPDATE users SET role_id = 8;
UPDATE users SET role_id = 9;
UPDATE users SET role_id = 10 WHERE id = 1;
:caught_up;
SELECT type, values FROM ectowatch_changes(:start) ORDER BY values;
SELECT changes, notified FROM ectowatch_stat_watchers WHERE watcher = 'users_slowly';
-- what was held back is sent before the end
SELECT ectowatch_unwatch('users_slowly');
:caught_up;
SELECT changes, notified FROM ectowatch_stat_watchers_get() WHERE changes = 6;

--
-- envelope: who made a change, in a transaction of how many
--
SELECT ectowatch_watch('users', 'updated', 'users_by', envelope => true);
SET application_name = 'shop';
SET ectowatch.context = '{"request": 42}';
CREATE ROLE regress_clerk;
GRANT SELECT, UPDATE ON users TO regress_clerk;
:caught_up;
SELECT ectowatch_position() AS start \gset
SET ROLE regress_clerk;
BEGIN;
UPDATE users SET role_id = 11;
-- how many there will be, nobody knows yet
SELECT values, context FROM ectowatch_pending() ORDER BY values;
COMMIT;
RESET ROLE;
:caught_up;
SELECT values, context FROM ectowatch_changes(:start) ORDER BY values;

-- what is nested too deep to be read safely is a string
BEGIN;
SET LOCAL max_stack_depth = '100kB';
SELECT set_config('ectowatch.context', repeat('[', 1000), true) <> '' AS set;
UPDATE users SET role_id = 12 WHERE id = 1;
SELECT set_config('ectowatch.context', '["' || repeat('[\"', 100) || '"]', true) <> '' AS set;
UPDATE users SET role_id = 13 WHERE id = 2;
SELECT jsonb_typeof(context->'context'), length(context->>'context')
FROM ectowatch_pending() WHERE watcher = 'users_by';
ROLLBACK;

DROP TABLE users;
DROP ROLE regress_clerk;
DROP EXTENSION ectowatch;
