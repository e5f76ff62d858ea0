--
-- What is committed is delivered, once, in order; nothing else ever is.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, role_id integer);
INSERT INTO users VALUES (1, 0), (2, 0), (3, 0);
SELECT ectowatch_watch('users', 'changed', extra_columns => '{role_id}');
-- :caught_up waits until all that was committed is in the ring
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
SELECT ectowatch_position() AS start \gset

-- rolled back
BEGIN;
UPDATE users SET role_id = 1;
ROLLBACK;

--
-- Savepoints: released, their changes are the transaction's
--
BEGIN;
UPDATE users SET role_id = 1 WHERE id = 1;
SAVEPOINT a;
UPDATE users SET role_id = 2 WHERE id = 2;
RELEASE a;
UPDATE users SET role_id = 3 WHERE id = 3;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- rolled back to, they have not been
BEGIN;
UPDATE users SET role_id = 1 WHERE id = 1;
SAVEPOINT a;
UPDATE users SET role_id = 2 WHERE id = 2;
ROLLBACK TO a;
UPDATE users SET role_id = 3 WHERE id = 2;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- nested: what the outer one takes back includes what the inner one gave
BEGIN;
SAVEPOINT a;
UPDATE users SET role_id = 1 WHERE id = 1;
SAVEPOINT b;
UPDATE users SET role_id = 2 WHERE id = 2;
SAVEPOINT c;
UPDATE users SET role_id = 3 WHERE id = 3;
ROLLBACK TO c;
RELEASE b;
SELECT type, values FROM ectowatch_pending();
ROLLBACK TO a;
SELECT type, values FROM ectowatch_pending();
UPDATE users SET role_id = 4 WHERE id = 3;
RELEASE a;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- the first change may be deep down, and levels may be skipped
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SAVEPOINT c;
UPDATE users SET role_id = 1 WHERE id = 1;
RELEASE c;
SAVEPOINT d;
SAVEPOINT e;
UPDATE users SET role_id = 2 WHERE id = 2;
RELEASE d;
UPDATE users SET role_id = 3 WHERE id = 3;
ROLLBACK TO b;
SELECT count(*) FROM ectowatch_pending();
UPDATE users SET role_id = 5 WHERE id = 3;
COMMIT;

--
-- Exception blocks are savepoints
--
DO $$
BEGIN
    UPDATE users SET role_id = 6 WHERE id = 1;
    BEGIN
        UPDATE users SET role_id = 7 WHERE id = 2;
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN OTHERS THEN
        UPDATE users SET role_id = 8 WHERE id = 3;
    END;
    BEGIN
        UPDATE users SET role_id = 9 WHERE id = 2;
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
END
$$;
-- and a procedure's COMMIT ends a transaction
DO $$
BEGIN
    UPDATE users SET role_id = 10 WHERE id = 1;
    COMMIT;
    UPDATE users SET role_id = 11 WHERE id = 1;
    ROLLBACK;
    UPDATE users SET role_id = 12 WHERE id = 1;
END
$$;

--
-- Equal changes in a row are told once; what is between them counts
--
BEGIN;
UPDATE users SET role_id = 7 WHERE id = 1;
UPDATE users SET role_id = 7 WHERE id = 1;
UPDATE users SET role_id = 8 WHERE id = 1;
UPDATE users SET role_id = 7 WHERE id = 1;
SELECT type, values FROM ectowatch_pending();
COMMIT;
-- changes of other rows are not between them
BEGIN;
UPDATE users SET role_id = 17 WHERE id = 1;
UPDATE users SET role_id = 17 WHERE id = 2;
UPDATE users SET role_id = 17 WHERE id = 1;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- what was rolled back was not between them, nor was it the first of them
BEGIN;
UPDATE users SET role_id = 7 WHERE id = 1;
SAVEPOINT a;
UPDATE users SET role_id = 8 WHERE id = 1;
ROLLBACK TO a;
UPDATE users SET role_id = 7 WHERE id = 1;
SAVEPOINT b;
UPDATE users SET role_id = 9 WHERE id = 1;
ROLLBACK TO b;
UPDATE users SET role_id = 9 WHERE id = 1;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- a row that comes, goes and comes again
BEGIN;
INSERT INTO users VALUES (4, 1);
DELETE FROM users WHERE id = 4;
INSERT INTO users VALUES (4, 1);
SELECT type, values FROM ectowatch_pending();
COMMIT;
BEGIN;
DELETE FROM users WHERE id = 4;
INSERT INTO users VALUES (4, 1);
DELETE FROM users WHERE id = 4;
INSERT INTO users VALUES (4, 1);
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- TRUNCATE is between everything
BEGIN;
INSERT INTO users VALUES (5, 1);
TRUNCATE users;
INSERT INTO users VALUES (5, 1);
TRUNCATE users;
TRUNCATE users;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- a key that was given up is free for another row
BEGIN;
UPDATE users SET role_id = 30 WHERE id = 1;
UPDATE users SET id = 10 WHERE id = 1;
UPDATE users SET id = 1, role_id = 30 WHERE id = 2;
SELECT type, values, old_values FROM ectowatch_pending();
ROLLBACK;

--
-- Deferred: what runs at COMMIT is in it
--
CREATE TABLE orders (id integer PRIMARY KEY,
                     user_id integer REFERENCES users ON DELETE CASCADE
                         DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION count_order() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE users SET role_id = role_id + 100 WHERE id = NEW.user_id; RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER count_order AFTER INSERT ON orders
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_order();
BEGIN;
INSERT INTO orders VALUES (1, 3);
SELECT count(*) FROM ectowatch_pending();
COMMIT;
-- a constraint that fails at COMMIT takes all back
BEGIN;
UPDATE users SET role_id = 50 WHERE id = 2;
INSERT INTO orders VALUES (2, 99);
COMMIT;

--
-- PREPARE TRANSACTION is refused while changes are pending
--
BEGIN;
UPDATE users SET role_id = 60 WHERE id = 2;
PREPARE TRANSACTION 'regress_ectowatch';
-- else it is not our business
BEGIN;
SAVEPOINT a;
UPDATE users SET role_id = 60 WHERE id = 2;
ROLLBACK TO a;
CREATE TABLE prepared ();
PREPARE TRANSACTION 'regress_ectowatch';
ROLLBACK PREPARED 'regress_ectowatch';

-- DDL of a transaction that is rolled back
BEGIN;
SELECT ectowatch_watch('users', 'updated', 'for a moment');
UPDATE users SET role_id = 70 WHERE id = 2;
ROLLBACK;
UPDATE users SET role_id = 71 WHERE id = 2;

--
-- All of it, as a reader sees it
--
:caught_up;
SELECT type, values, dense_rank() OVER (ORDER BY xid::text::bigint) AS transaction
FROM ectowatch_changes(:start) ORDER BY position;

--
-- 100,000 rows in one transaction arrive, and so does what comes behind them
--
SELECT ectowatch_position() AS start \gset
INSERT INTO users SELECT i, i FROM generate_series(1001, 101000) i;
UPDATE users SET role_id = 72 WHERE id = 2;
:caught_up;
SELECT type, count(*), count(DISTINCT values), min((values->>'id')::int), max((values->>'id')::int)
FROM ectowatch_changes(:start, max_changes => NULL) GROUP BY type ORDER BY type;

--
-- Changes that refer to others of their batch, some of which were taken back:
-- what is delivered is what a trigger writes to a plain table, be it in memory
-- or in a file
--
CREATE TABLE audit (no bigserial, type text, relation text, "values" jsonb);
CREATE TABLE good (id integer PRIMARY KEY, n integer);
CREATE TABLE bad (note text, id integer PRIMARY KEY);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
    INSERT INTO audit (type, relation, "values")
    VALUES (CASE TG_OP WHEN 'INSERT' THEN 'inserted' ELSE 'updated' END,
            'public.' || TG_TABLE_NAME, to_jsonb(NEW));
    RETURN NULL;
END$$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON good
    FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON bad
    FOR EACH ROW EXECUTE FUNCTION audit();
SELECT ectowatch_watch('good', 'changed', extra_columns => '{n}');
SELECT ectowatch_watch('bad', 'changed', extra_columns => '{note}');
-- savepoints in savepoints; the bits of i say which ones write before those
-- within, and which are taken back
CREATE FUNCTION nest(i integer, depth integer) RETURNS void LANGUAGE plpgsql AS
$$BEGIN
    IF i & (1 << depth) <> 0 THEN
        INSERT INTO good VALUES (i * 10 + depth, depth);
    END IF;
    IF depth < 3 THEN
        PERFORM nest(i, depth + 1);
    END IF;
    UPDATE good SET n = n + 100 WHERE id BETWEEN i * 10 AND i * 10 + 9;
    INSERT INTO bad VALUES (repeat('b', depth), i * 10 + depth);
    IF i & (16 << depth) <> 0 THEN
        RAISE 'back';
    END IF;
EXCEPTION WHEN raise_exception THEN
    NULL;
END$$;
CREATE FUNCTION differ(delivered refcursor, OUT changes integer, OUT different integer)
LANGUAGE plpgsql AS
$$DECLARE
    a record;
    d record;
BEGIN
    changes := 0;
    different := 0;
    FOR a IN SELECT type, relation, "values" FROM audit ORDER BY no LOOP
        FETCH delivered INTO d;
        changes := changes + 1;
        different := different + (d IS DISTINCT FROM a)::integer;
    END LOOP;
    FETCH delivered INTO d;
    different := different + FOUND::integer;
END$$;
SELECT ectowatch_position() AS start \gset
BEGIN;
SELECT count(nest(i, 0)) FROM generate_series(0, 255) i;
DECLARE delivered CURSOR FOR SELECT type, relation, "values" FROM ectowatch_pending();
SELECT * FROM differ('delivered');
COMMIT;
:caught_up;
BEGIN;
DECLARE delivered CURSOR FOR SELECT type, relation, "values"
    FROM ectowatch_changes(:start, max_changes => NULL) ORDER BY position;
SELECT * FROM differ('delivered');
TRUNCATE audit, good, bad;
COMMIT;
SELECT ectowatch_position() AS start \gset
SET ectowatch.pending_memory = '64kB';
BEGIN;
SELECT count(nest(i, 0)) FROM generate_series(0, 1023) i;
DECLARE delivered CURSOR FOR SELECT type, relation, "values" FROM ectowatch_pending();
SELECT * FROM differ('delivered');
-- those that were taken back leave nothing in memory
SELECT sum(used_bytes) < 200000 AS bounded FROM pg_backend_memory_contexts
WHERE name = 'ectowatch pending';
COMMIT;
RESET ectowatch.pending_memory;
:caught_up;
BEGIN;
DECLARE delivered CURSOR FOR SELECT type, relation, "values"
    FROM ectowatch_changes(:start, max_changes => NULL) ORDER BY position;
SELECT * FROM differ('delivered');
COMMIT;

-- nor do changes that others follow which are always taken back
SET ectowatch.pending_memory = '64kB';
BEGIN;
DO $$BEGIN
    TRUNCATE good, bad;
    FOR i IN 1 .. 5000 LOOP
        INSERT INTO good VALUES (i, i);
        BEGIN
            INSERT INTO bad VALUES ('b', i);
            RAISE 'back';
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END$$;
SELECT sum(used_bytes) < 200000 AS bounded FROM pg_backend_memory_contexts
WHERE name = 'ectowatch pending';
ROLLBACK;
RESET ectowatch.pending_memory;

-- reading what is pending takes memory for one change at a time
CREATE TABLE notes (id integer PRIMARY KEY, note text);
SELECT ectowatch_watch('notes', 'inserted', extra_columns => '{note}');
BEGIN;
INSERT INTO notes SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i;
SELECT (SELECT sum(used_bytes) < 1000000 FROM pg_backend_memory_contexts
        WHERE name = 'ExprContext') AS bounded
FROM ectowatch_pending() LIMIT 1;
ROLLBACK;
DROP TABLE notes;

DROP TABLE orders, users, good, bad, audit;
DROP FUNCTION count_order(), audit, nest, differ;
DROP EXTENSION ectowatch;
