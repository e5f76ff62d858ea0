--
-- What makes a change, and what is in it.
--
-- inserted, updated, deleted and truncated are what the words say; changed is
-- all four.  values holds the key, then the extra columns: of the new row, or
-- of the deleted one.  old_values is there if the key itself changed.
--
-- ectowatch_pending() shows what COMMIT would send.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer);
INSERT INTO users VALUES (1, 'Ann', 1), (2, 'Bob', 1);

--
-- The five events
--
SELECT ectowatch_watch('users', 'inserted');
SELECT ectowatch_watch('users', 'updated');
SELECT ectowatch_watch('users', 'deleted');
SELECT ectowatch_watch('users', 'truncated');
SELECT ectowatch_watch('users', 'changed');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', 2);
SELECT watcher, type, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
BEGIN;
UPDATE users SET role_id = 2 WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
BEGIN;
DELETE FROM users WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
BEGIN;
TRUNCATE users;
SELECT watcher, type, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
-- what changes no row is no change
BEGIN;
UPDATE users SET name = 'x' WHERE false;
DELETE FROM users WHERE false;
SELECT count(*) FROM ectowatch_pending();
ROLLBACK;

-- without trigger_columns every UPDATE of a row is one, even to what it was
BEGIN;
UPDATE users SET name = name WHERE id = 1;
SELECT watcher, type, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
SELECT ectowatch_unwatch('users', event)
FROM unnest('{inserted,updated,deleted,truncated,changed}'::text[]) event;

--
-- extra_columns come behind the key, which is there once, listed or not
--
SELECT ectowatch_watch('users', 'changed', extra_columns => '{role_id,id,name}');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', NULL);
UPDATE users SET name = 'Bea' WHERE id = 2;
DELETE FROM users WHERE id = 1;
SELECT type, values FROM ectowatch_pending();
COMMIT;
SELECT ectowatch_unwatch('users_changed');

--
-- trigger_columns: a listed value must differ, whoever changed it
--
SELECT ectowatch_watch('users', 'updated', 'user_renamed', '{name}', '{name}');
BEGIN;
UPDATE users SET name = 'Dot' WHERE id = 2;			-- changed
UPDATE users SET name = name, role_id = 5;			-- assigned only
UPDATE users SET role_id = 6;						-- not even that
UPDATE users SET name = NULL WHERE id = 3;			-- to NULL
UPDATE users SET name = NULL WHERE id = 3;			-- NULL is NULL
UPDATE users SET name = 'Eve' WHERE id = 3;			-- and back
SELECT type, values FROM ectowatch_pending();
ROLLBACK;

-- a BEFORE trigger may change it without a word of it in the statement
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN NEW.name := upper(NEW.name); RETURN NEW; END$$;
CREATE TRIGGER shout BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION shout();
BEGIN;
UPDATE users SET role_id = 8 WHERE id = 2;
SELECT type, values FROM ectowatch_pending();
-- or change it back
UPDATE users SET name = 'bea' WHERE id = 2;
SELECT count(*) FROM ectowatch_pending();
ROLLBACK;
DROP TRIGGER shout ON users;
DROP FUNCTION shout();

-- 'changed' applies them to updates only
SELECT ectowatch_watch('users', 'changed', 'roles', '{role_id}', '{role_id}');
BEGIN;
INSERT INTO users VALUES (4, 'Fay', 1);
UPDATE users SET name = 'Fox' WHERE id = 4;
UPDATE users SET role_id = 2 WHERE id = 4;
DELETE FROM users WHERE id = 4;
TRUNCATE users;
SELECT type, values FROM ectowatch_pending() WHERE watcher = 'roles';
ROLLBACK;
SELECT ectowatch_unwatch('roles');
SELECT ectowatch_unwatch('user_renamed');

-- of any type, also one that has no equality: the bytes are compared
CREATE TABLE docs (id integer PRIMARY KEY, body json, spot point, amount numeric,
                   long text);
SELECT ectowatch_watch('docs', 'updated', 'doc_edited', '{body}', '{body}');
SELECT ectowatch_watch('docs', 'updated', 'doc_moved', '{spot}');
SELECT ectowatch_watch('docs', 'updated', 'doc_priced', '{amount}', '{amount}');
SELECT ectowatch_watch('docs', 'updated', 'doc_rewritten', '{long}');
INSERT INTO docs VALUES (1, '{"a": 1}', '(1,2)', 1.0,
    (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i));
BEGIN;
UPDATE docs SET body = '{"a": 1}';
UPDATE docs SET spot = '(1,2)';
UPDATE docs SET amount = 1.0;
UPDATE docs SET long = long || '';
SELECT count(*) FROM ectowatch_pending();
UPDATE docs SET body = '{"a":1}';
UPDATE docs SET spot = '(2,1)';
UPDATE docs SET amount = 1.00;
UPDATE docs SET long = long || '.';
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE docs;

--
-- A changed key brings its old value along
--
SELECT ectowatch_watch('users', 'updated', extra_columns => '{name}');
BEGIN;
UPDATE users SET id = 20 WHERE id = 2;
UPDATE users SET name = 'Gus' WHERE id = 20;
SELECT type, values, old_values FROM ectowatch_pending();
ROLLBACK;
-- two rows that change places, and back: none of it may be lost
ALTER TABLE users DROP CONSTRAINT users_pkey;
ALTER TABLE users ADD PRIMARY KEY (id) DEFERRABLE;
BEGIN;
UPDATE users SET id = 5 - id WHERE id IN (2, 3);
UPDATE users SET id = 5 - id WHERE id IN (2, 3);
SELECT type, values, old_values FROM ectowatch_pending();
ROLLBACK;

-- generated columns are there, as stored
CREATE TABLE boxes (id integer PRIMARY KEY, w integer, h integer,
                    area integer GENERATED ALWAYS AS (w * h) STORED);
SELECT ectowatch_watch('boxes', 'changed', extra_columns => '{area}');
SELECT ectowatch_watch('boxes', 'updated', 'resized', '{area}');
BEGIN;
INSERT INTO boxes VALUES (1, 2, 3);
UPDATE boxes SET w = 3;
UPDATE boxes SET w = 1, h = 9;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;

DROP TABLE users, boxes;
DROP EXTENSION ectowatch;
