--
-- ectowatch_notify(): what pg_notify() does, on the way of changes.
--
-- The payload reaches the channel as it is, when the transaction commits, and
-- stays in the ring, from where it can be read again by position.  Sessions
-- that LISTEN, and order beside pg_notify(), are tested by test/t/023_notify.pl.
--
CREATE EXTENSION ectowatch;
SELECT ectowatch_position() AS start \gset

-- in order; what is given twice in a transaction is sent once
BEGIN;
SELECT ectowatch_notify('jobs', 'first');
SELECT ectowatch_notify('jobs', 'second');
SELECT ectowatch_notify('jobs', 'first');
SELECT ectowatch_notify('mail', 'first');
SELECT ectowatch_notify('jobs', NULL);
SELECT * FROM ectowatch_pending();
COMMIT;

-- savepoints: what is rolled back was never said, and can be said again
BEGIN;
SELECT ectowatch_notify('jobs', 'a');
SAVEPOINT s;
SELECT ectowatch_notify('jobs', 'b');
SELECT ectowatch_notify('jobs', 'a');
ROLLBACK TO s;
SELECT ectowatch_notify('jobs', 'c');
SELECT ectowatch_notify('jobs', 'b');
COMMIT;
BEGIN;
SELECT ectowatch_notify('jobs', 'never');
ROLLBACK;

-- any text: quotes, backslashes, line ends, and any length
SELECT ectowatch_notify('jobs', E'"\\\t\n\u00e4\u20ac''');
SELECT ectowatch_notify('jobs', repeat('x', 100000));
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
SELECT ectowatch_notify(repeat('c', 63), 'long name');
COMMIT;

-- by position, as often as one likes; with the channel's name for the watcher's
SELECT ectowatch_wait_for(:'xid') AS there;
SELECT watcher, type, relation, left(values->>'payload', 20) AS payload,
    length(values->>'payload') AS length
FROM ectowatch_changes(:start);
SELECT count(*) FROM ectowatch_changes(:start, '{jobs}');
SELECT values FROM ectowatch_changes(:start, '{mail}');

-- a channel can be read before anything was sent to it; a name may be mistyped,
-- so that is said, once
SELECT * FROM ectowatch_changes(:start, '{mial}');
SELECT * FROM ectowatch_changes(:start, '{mial}');
SELECT values FROM ectowatch_changes(:start, '{mial,mail}');

-- beyond the longest change, a partial one, and a warning
SELECT ectowatch_notify('jobs', repeat('y', 2000000));

-- it is read by all, for channels are public
CREATE ROLE regress_anyone;
SET ROLE regress_anyone;
SELECT values FROM ectowatch_changes(:start, '{mail}');
SELECT ectowatch_notify('mail', 'by anyone');
RESET ROLE;
DROP ROLE regress_anyone;

-- an existing trigger gains by changing one word
CREATE TABLE tasks (id integer PRIMARY KEY);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ectowatch_notify('tasks', NEW.id::text);
    RETURN NEW;
END
$$;
CREATE TRIGGER tell AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION tell();
BEGIN;
INSERT INTO tasks SELECT generate_series(1, 3);
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;

-- what comes from the worker on a watcher's channels are changes of its table
SELECT ectowatch_watch('tasks', 'inserted', label => 'watched');
SELECT ectowatch_notify('watched', '{"type":"ended"}');
SELECT ectowatch_notify('watched|id|1', 'x');
SELECT ectowatch_unwatch('watched');
BEGIN;
SELECT ectowatch_notify('watched', 'is free again');
ROLLBACK;

-- a repetition is one whatever happens to tables in between
SELECT ectowatch_watch('tasks', 'truncated');
BEGIN;
SELECT ectowatch_notify('jobs', 'again');
TRUNCATE tasks;
SELECT ectowatch_notify('jobs', 'again');
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
SELECT ectowatch_unwatch('tasks_truncated');

-- errors are those of pg_notify()
SELECT ectowatch_notify('', 'x');
SELECT pg_notify('', 'x');
SELECT ectowatch_notify(NULL, 'x');
SELECT ectowatch_notify(repeat('c', 64), 'x');
SELECT pg_notify(repeat('c', 64), 'x');
BEGIN;
SELECT ectowatch_notify('jobs', 'prepared');
PREPARE TRANSACTION 'p';

DROP TABLE tasks;
DROP FUNCTION tell;
DROP EXTENSION ectowatch;
