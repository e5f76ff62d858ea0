--
-- ectowatch_wait_for(): who has written reads what it has written.
--
-- It is true when the transaction has ended and its changes, if it had any,
-- can be read; false when the timeout is over first.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text);
CREATE TABLE plain (id integer);
SELECT ectowatch_watch('users', 'inserted');
SELECT ectowatch_position() AS start \gset

--
-- Each of a hundred transactions finds its change in the ring, without a wait
-- of the reader's own
--
CREATE PROCEDURE write_and_read(n integer) LANGUAGE plpgsql AS $$
DECLARE
    after bigint := ectowatch_position();
    mine xid8;
    missing integer := 0;
BEGIN
    FOR i IN 1 .. n LOOP
        INSERT INTO users VALUES (i);
        mine := pg_current_xact_id();
        COMMIT;
        ASSERT ectowatch_wait_for(mine);
        IF NOT EXISTS (SELECT FROM ectowatch_changes(after, max_changes => NULL) c WHERE c.xid = mine) THEN
            missing := missing + 1;
        END IF;
    END LOOP;
    RAISE NOTICE '% missing', missing;
END $$;
CALL write_and_read(100);

--
-- Without changes there is nothing to wait for but the end
--
BEGIN;
INSERT INTO plain VALUES (1);
SELECT pg_current_xact_id() AS unwatched \gset
COMMIT;
SELECT ectowatch_wait_for(:'unwatched');
BEGIN;
INSERT INTO users VALUES (101);
SELECT pg_current_xact_id() AS rolled_back \gset
ROLLBACK;
SELECT ectowatch_wait_for(:'rolled_back'),
    (SELECT count(*) FROM ectowatch_changes(:start, max_changes => NULL) c WHERE c.xid = :'rolled_back');
-- a savepoint's own id; what is rolled back to has ended
BEGIN;
SAVEPOINT s;
INSERT INTO users VALUES (102);
SELECT max(x::text) AS inner_xid FROM (SELECT xmin AS x FROM users WHERE id = 102) x \gset
ROLLBACK TO s;
SELECT ectowatch_wait_for(:'inner_xid');
COMMIT;
-- ids of long ago
SELECT ectowatch_wait_for('3');
-- timeouts; NULL, and all that is longer, is ectowatch.max_wait
SELECT ectowatch_wait_for(:'unwatched', '0');
SELECT ectowatch_wait_for(:'unwatched', NULL);
SELECT ectowatch_wait_for(xid => :'unwatched', timeout => '1000 years');

--
-- What cannot be waited for
--
SELECT ectowatch_wait_for(NULL);
SELECT ectowatch_wait_for(:'unwatched', '-1 s');
\set VERBOSITY terse
SELECT ectowatch_wait_for('0');
SELECT ectowatch_wait_for('1000000000000000000');
\set VERBOSITY default
BEGIN;
SELECT ectowatch_wait_for(pg_current_xact_id());
ROLLBACK;
BEGIN;
SELECT pg_current_xact_id() AS mine \gset
SAVEPOINT s;
INSERT INTO users VALUES (103);
SELECT ectowatch_wait_for((SELECT xmin::text::xid8 FROM users WHERE id = 103));
ROLLBACK TO s;
SELECT ectowatch_wait_for(:'mine');
ROLLBACK;

--
-- No rights are needed: it tells nothing but that a transaction has ended
--
CREATE ROLE regress_nobody;
SET ROLE regress_nobody;
SELECT ectowatch_wait_for(:'unwatched');
RESET ROLE;
DROP ROLE regress_nobody;

DROP PROCEDURE write_and_read;
DROP TABLE users, plain;
DROP EXTENSION ectowatch;
