--
-- Whatever writes a row makes a change of it: not the statement counts, but
-- what became of the row.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text UNIQUE, visits integer DEFAULT 0);
INSERT INTO users VALUES (1, 'Ann', 1), (2, 'Bob', 2);
SELECT ectowatch_watch('users', 'changed', extra_columns => '{visits}');

--
-- INSERT ... ON CONFLICT
--
BEGIN;
INSERT INTO users VALUES (1, 'Ann', 1), (3, 'Cid', 1)
    ON CONFLICT (id) DO UPDATE SET visits = users.visits + 1;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
INSERT INTO users VALUES (1, 'Ann', 1), (3, 'Cid', 1) ON CONFLICT DO NOTHING;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- a condition that does not hold leaves the row as it is
BEGIN;
INSERT INTO users VALUES (1, 'Ann', 1)
    ON CONFLICT (id) DO UPDATE SET visits = 100 WHERE users.visits > 1;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;

--
-- MERGE
--
BEGIN;
MERGE INTO users USING (VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cid')) AS new (id, name)
    ON users.id = new.id
    WHEN MATCHED AND users.id = 2 THEN DELETE
    WHEN MATCHED THEN UPDATE SET visits = visits + 10
    WHEN NOT MATCHED THEN INSERT VALUES (new.id, new.name);
SELECT type, values FROM ectowatch_pending() ORDER BY values;
ROLLBACK;

--
-- COPY
--
BEGIN;
COPY users (id, name) FROM stdin;
5	Eve
6	Fay
\.
SELECT type, values FROM ectowatch_pending();
ROLLBACK;

--
-- Writable CTEs, UPDATE ... FROM, SELECT INTO functions: all the same
--
BEGIN;
WITH gone AS (DELETE FROM users WHERE id = 1 RETURNING *),
     came AS (INSERT INTO users SELECT id + 10, upper(name), visits FROM gone RETURNING id)
SELECT * FROM came;
SELECT type, values FROM ectowatch_pending() ORDER BY type;
ROLLBACK;
BEGIN;
UPDATE users SET visits = v.n FROM (VALUES (1, 11), (2, 12)) AS v (id, n)
WHERE users.id = v.id;
SELECT type, values FROM ectowatch_pending() ORDER BY values;
ROLLBACK;
-- through a view, and a rule
CREATE VIEW visitors AS SELECT id, name FROM users;
CREATE RULE visit AS ON DELETE TO visitors
    DO INSTEAD UPDATE users SET visits = visits + 1 WHERE id = OLD.id;
BEGIN;
UPDATE visitors SET name = 'Bea' WHERE id = 2;
DELETE FROM visitors WHERE id = 1;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
DROP VIEW visitors;
-- a cursor
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM users ORDER BY id FOR UPDATE;
MOVE c;
UPDATE users SET visits = 50 WHERE CURRENT OF c;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- locking a row is no change of it
BEGIN;
SELECT count(*) FROM (SELECT FROM users FOR UPDATE) locked;
SELECT count(*) FROM ectowatch_pending();
-- nor does a lock make one late
UPDATE users SET visits = 51 WHERE id = 1;
SELECT FROM users WHERE id = 1 FOR UPDATE;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;

--
-- Cascades
--
CREATE TABLE orders (id integer PRIMARY KEY,
                     user_id integer REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE notes (id integer PRIMARY KEY, user_id integer DEFAULT 2
                    REFERENCES users ON DELETE SET NULL ON UPDATE SET DEFAULT);
INSERT INTO orders VALUES (100, 1), (101, 1), (102, 2);
INSERT INTO notes VALUES (200, 1), (201, 2);
SELECT ectowatch_watch('orders', 'changed', extra_columns => '{user_id}');
SELECT ectowatch_watch('notes', 'changed', extra_columns => '{user_id}');
BEGIN;
DELETE FROM users WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
UPDATE users SET id = 10 WHERE id = 1;
SELECT watcher, type, values, old_values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
TRUNCATE users CASCADE;
SELECT watcher, type FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;

--
-- Not captured: what an ALTER TABLE rewrites, what a session with
-- session_replication_role = replica writes, what a disabled trigger misses
--
BEGIN;
ALTER TABLE users ALTER visits TYPE bigint, ADD COLUMN more text DEFAULT 'x';
SET LOCAL session_replication_role = replica;
UPDATE users SET visits = 0;
TRUNCATE users CASCADE;
SELECT count(*) FROM ectowatch_pending();
ROLLBACK;
BEGIN;
ALTER TABLE users DISABLE TRIGGER USER;
UPDATE users SET visits = 0;
SELECT count(*) FROM ectowatch_pending();
ROLLBACK;
-- classic inheritance: a child is a table of its own
CREATE TABLE admins (level integer) INHERITS (users);
BEGIN;
INSERT INTO admins VALUES (50, 'Zoe', 0, 1);
UPDATE users SET visits = 1 WHERE id = 50;
SELECT count(*) FROM ectowatch_pending();
ROLLBACK;

DROP TABLE admins, orders, notes, users;
DROP EXTENSION ectowatch;
