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

DROP TABLE orders, users;
DROP FUNCTION count_order();
DROP EXTENSION ectowatch;
