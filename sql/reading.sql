--
-- Reading: ectowatch_position(), ectowatch_changes(), CALL ectowatch_wait().
--
-- A reader brings the position behind which it wants to read on.  Nothing of
-- it is kept.  If something behind that position is missing, the first row is
-- a gap that says so.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text);
CREATE TABLE orders (id integer PRIMARY KEY);
SELECT ectowatch_watch('users', 'inserted');
SELECT ectowatch_watch('orders', 'inserted');

-- :caught_up waits until all that was committed is in the ring
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
SELECT ectowatch_position() AS start \gset
BEGIN;
INSERT INTO users VALUES (1, 'Ann'), (2, 'Bob');
INSERT INTO orders VALUES (100);
SELECT pg_current_xact_id() AS xid, now() AS began \gset
COMMIT;
INSERT INTO users VALUES (3, 'Cid');
:caught_up;

--
-- All columns: a transaction's changes are adjacent, and share xid and time
--
SELECT position > :start AS position, watcher, type, relation, values, old_values,
    xid = :'xid' AS first_transaction,
    committed_at BETWEEN :'began' AND clock_timestamp() AS committed_at
FROM ectowatch_changes(:start);

--
-- max_changes: page by page, from the last position that was read
--
SELECT watcher, values FROM ectowatch_changes(:start, max_changes => 2);
SELECT max(position) AS last FROM ectowatch_changes(:start, max_changes => 2) \gset
SELECT watcher, values FROM ectowatch_changes(:last, max_changes => 2);
SELECT count(*) AS all FROM ectowatch_changes(:start, max_changes => NULL);

--
-- watchers: only those, in the order of positions
--
SELECT watcher, values FROM ectowatch_changes(:start, '{users_inserted}');
SELECT watcher, values FROM ectowatch_changes(:start, '{orders_inserted,users_inserted}', max_changes => 3);
SELECT watcher FROM ectowatch_changes(:start, '{orders_inserted,orders_inserted}');

--
-- after => 0: the oldest that is kept, and no gap
--
SELECT watcher, values FROM ectowatch_changes(0, '{orders_inserted}');
SELECT count(*) FROM ectowatch_changes(0) WHERE type = 'gap' AND watcher IS NULL;

--
-- timeout: returns when something comes, else after that time, empty
--
SELECT ectowatch_position() AS now \gset
SELECT count(*) FROM ectowatch_changes(:now, timeout => '10 ms');
SELECT count(*) FROM ectowatch_changes(:now, timeout => '0');
SELECT count(*) > 0 AS "at once" FROM ectowatch_changes(:start, timeout => '1000000 years');
-- capped, since a SELECT holds a snapshot; NULL is as long as it may
SET ectowatch.max_wait = '10ms';
SELECT count(*) FROM ectowatch_changes(:now, timeout => NULL);
SELECT count(*) FROM ectowatch_changes(:now, timeout => '1 day');
SELECT count(*) FROM ectowatch_changes(:now, timeout => '1000000 years');
RESET ectowatch.max_wait;

--
-- CALL ectowatch_wait(): next_after is always a safe position to read from
--
CALL ectowatch_wait(:now, timeout => '10 ms') \gset
SELECT :next_after >= :now AS safe, count(*) FROM ectowatch_changes(:next_after);
-- it ends before the change that ended it
CALL ectowatch_wait(:start, timeout => '10 s') \gset
SELECT :next_after = :start AS "nothing passed over";
CALL ectowatch_wait(:start, '{orders_inserted}', '10 s') \gset
SELECT :next_after > :start AS "passed over those of others";
SELECT watcher, values FROM ectowatch_changes(:next_after, max_changes => 1);
CALL ectowatch_wait(0, '{orders_inserted}', '10 s') \gset
SELECT watcher, values FROM ectowatch_changes(:next_after, max_changes => 1);
-- also in a transaction, then with its snapshot
BEGIN;
CALL ectowatch_wait(:now, timeout => '10 ms', next_after => 0) \gset
SELECT :next_after >= :now AS safe;
COMMIT;
-- and in PL/pgSQL
DO $$
DECLARE
    at bigint := ectowatch_position();
BEGIN
    CALL ectowatch_wait(at, '{users_inserted}', '10 ms', at);
    RAISE NOTICE '%', at <= ectowatch_position();
END
$$;

--
-- ectowatch_position(): reading from there misses nothing that this snapshot
-- does not see
--
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ectowatch_position() AS mine, ectowatch_position() = ectowatch_position() AS stable \gset
SELECT :'stable' AS stable;
COMMIT;
INSERT INTO users VALUES (4, 'Dot');
SELECT values FROM ectowatch_changes(:mine, timeout => '10 s');
:caught_up;
SELECT count(*) FROM ectowatch_changes(ectowatch_position());
-- positions fit JSON parsers of all languages
SELECT ectowatch_position() < 2::numeric ^ 53 AS exact;

--
-- What makes no sense is an error
--
SELECT * FROM ectowatch_changes(NULL);
SELECT * FROM ectowatch_changes(-1);
SELECT * FROM ectowatch_changes(0, '{}');
SELECT * FROM ectowatch_changes(0, '{NULL}');
SELECT * FROM ectowatch_changes(0, '{""}');
SELECT * FROM ectowatch_changes(0, ARRAY['users_inserted', repeat('n', 64)]);
SELECT * FROM ectowatch_changes(0, max_changes => 0);
SELECT * FROM ectowatch_changes(0, max_changes => -1);
SELECT * FROM ectowatch_changes(0, timeout => '-1 s');
SELECT * FROM ectowatch_changes(0, timeout => '1 day -25 hours');
CALL ectowatch_wait(NULL);
CALL ectowatch_wait(-1);
CALL ectowatch_wait(0, '{}');
CALL ectowatch_wait(0, '{""}');
CALL ectowatch_wait(0, timeout => '-1 s');

--
-- Gaps.  From before the server started, or from another server:
--
SELECT watcher, type, relation, values->'reason' AS reason,
    values->'changes' AS changes, (values->>'from')::bigint AS from_position,
    (values->>'to')::bigint = position AS ends_here, xid, committed_at
FROM ectowatch_changes(1, max_changes => 1);
SELECT watcher, type, values->'reason' AS reason, values->'from' AS from_position
FROM ectowatch_changes(9007199254740991, max_changes => 1);
-- a filtered reader gets one per watcher
SELECT watcher, type, values->'reason' AS reason
FROM ectowatch_changes(1, '{orders_inserted,users_inserted}', max_changes => 2);
-- and one only, however often it is named
SELECT watcher, type FROM ectowatch_changes(1, '{orders_inserted,orders_inserted,orders_inserted}') WHERE type = 'gap';
-- behind the gap all that there is
SELECT watcher, type, values->'reason' AS reason FROM ectowatch_changes(1, '{orders_inserted}');
-- a wait ends at once, and leaves the gap to be read
CALL ectowatch_wait(1, timeout => '10 s') \gset
SELECT :next_after;
CALL ectowatch_wait(9007199254740991, timeout => '10 s') \gset
SELECT :next_after;

-- overtaken: more has come than the ring holds
SELECT ectowatch_position() AS start \gset
INSERT INTO orders VALUES (101);
:caught_up;
SELECT position AS first_order FROM ectowatch_changes(:start) \gset
SELECT ectowatch_watch('users', 'inserted', extra_columns => '{name}');
INSERT INTO users SELECT i, repeat('x', 8000) FROM generate_series(10001, 16000) i;
:caught_up;
SELECT watcher, type, values->'reason' AS reason,
    (values->>'from')::bigint = :start + 1 AS from_start,
    (values->>'to')::bigint = position AS to_position,
    (values->>'changes')::bigint = position - :start AS counted
FROM ectowatch_changes(:start, max_changes => 1);
-- nothing is told twice or left out: gap and rest make the whole
SELECT sum(CASE type WHEN 'gap' THEN (values->>'changes')::bigint ELSE 1 END) AS "6001"
FROM ectowatch_changes(:start, max_changes => NULL);
-- each reader is told of what it asked for
SELECT watcher, type, values->'reason' AS reason
FROM ectowatch_changes(:start, '{orders_inserted}');
SELECT count(*) FROM ectowatch_changes(:first_order, '{orders_inserted}');
SELECT watcher, type, values->'reason' AS reason
FROM ectowatch_changes(:first_order, '{users_inserted}', max_changes => 1);
-- 0 asks for what there is
SELECT DISTINCT type FROM ectowatch_changes(0, max_changes => 10);

DROP TABLE users, orders;
DROP EXTENSION ectowatch;
