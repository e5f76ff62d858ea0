--
-- User triggers.  What they write is captured as well, and the last message of
-- a row shows its final state, whatever the order in which triggers fire.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, n integer DEFAULT 0);
INSERT INTO users VALUES (1, 'Ann', 0), (2, 'Bob', 0);
SELECT ectowatch_watch('users', 'changed', extra_columns => '{name,n}');

--
-- BEFORE triggers: the message has the row as they left it
--
CREATE FUNCTION before_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'skip' THEN
        RETURN NULL;
    END IF;
    NEW.n := NEW.n + 100;
    RETURN NEW;
END
$$;
CREATE TRIGGER before_user BEFORE INSERT OR UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION before_user();
BEGIN;
INSERT INTO users VALUES (3, 'Cid'), (4, 'skip');
UPDATE users SET name = 'skip' WHERE id = 1;
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
DROP TRIGGER before_user ON users;

--
-- AFTER triggers that write the same row: named to sort behind ours, as most
-- names do, and before it
--
CREATE FUNCTION same_row() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE users SET n = n + 1 WHERE id = NEW.id; RETURN NULL; END$$;
CREATE TRIGGER same_row AFTER INSERT OR UPDATE OF name ON users
    FOR EACH ROW EXECUTE FUNCTION same_row();
BEGIN;
INSERT INTO users VALUES (3, 'Cid');
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT type, values FROM ectowatch_pending();
SELECT * FROM users WHERE id IN (2, 3) ORDER BY id;
ROLLBACK;
ALTER TRIGGER same_row ON users RENAME TO "!same_row";
BEGIN;
INSERT INTO users VALUES (3, 'Cid');
UPDATE users SET name = 'Bea' WHERE id = 2;
-- of each row the last one counts: it must show the final state
SELECT DISTINCT ON (values->'id') values
FROM (SELECT values, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
ROLLBACK;
DROP TRIGGER "!same_row" ON users;

--
-- AFTER triggers that write another row of the same statement
--
CREATE FUNCTION other_row() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE users SET n = n + 1 WHERE id <> NEW.id; RETURN NULL; END$$;
CREATE TRIGGER other_row AFTER INSERT OR UPDATE OF name ON users
    FOR EACH ROW EXECUTE FUNCTION other_row();
BEGIN;
UPDATE users SET name = lower(name);
SELECT DISTINCT ON (values->'id') type, values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
SELECT * FROM users ORDER BY id;
ROLLBACK;
BEGIN;
INSERT INTO users VALUES (3, 'Cid'), (4, 'Dot'), (5, 'Eve');
SELECT DISTINCT ON (values->'id') values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
SELECT * FROM users ORDER BY id;
ROLLBACK;
ALTER TRIGGER other_row ON users RENAME TO "!other_row";
BEGIN;
UPDATE users SET name = lower(name);
SELECT DISTINCT ON (values->'id') values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
SELECT * FROM users ORDER BY id;
ROLLBACK;
DROP TRIGGER "!other_row" ON users;

--
-- AFTER triggers that delete the row, or delete it and insert it again
--
CREATE FUNCTION delete_row() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN DELETE FROM users WHERE id = NEW.id; RETURN NULL; END$$;
CREATE TRIGGER delete_row AFTER INSERT OR UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION delete_row();
BEGIN;
INSERT INTO users VALUES (3, 'Cid');
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
ALTER TRIGGER delete_row ON users RENAME TO "!delete_row";
BEGIN;
INSERT INTO users VALUES (3, 'Cid');
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT DISTINCT ON (values->'id') type, values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
ROLLBACK;
DROP TRIGGER "!delete_row" ON users;

CREATE FUNCTION replace_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM users WHERE id = OLD.id;
    INSERT INTO users VALUES (OLD.id, 'new ' || OLD.name, 7);
    RETURN NULL;
END
$$;
CREATE TRIGGER replace_row AFTER UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION replace_row();
BEGIN;
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
ALTER TRIGGER replace_row ON users RENAME TO "!replace_row";
BEGIN;
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT DISTINCT ON (values->'id') type, values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
ROLLBACK;
DROP TRIGGER "!replace_row" ON users;
-- a deleted row that a trigger puts back is there in the end
CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO users VALUES (OLD.id, 'back', 8); RETURN NULL; END$$;
CREATE TRIGGER "!put_back" AFTER DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION put_back();
BEGIN;
DELETE FROM users;
SELECT DISTINCT ON (values->'id') type, values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'id', no DESC;
ROLLBACK;
DROP TRIGGER "!put_back" ON users;
-- the key changed by a trigger
CREATE FUNCTION move_row() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE users SET id = id + 10 WHERE id = NEW.id AND id < 10; RETURN NULL; END$$;
CREATE TRIGGER "!move_row" AFTER UPDATE OF name ON users
    FOR EACH ROW EXECUTE FUNCTION move_row();
BEGIN;
UPDATE users SET name = 'Bea' WHERE id = 2;
SELECT type, values, old_values FROM ectowatch_pending();
ROLLBACK;
DROP TRIGGER "!move_row" ON users;

--
-- The same without a unique key
--
CREATE TABLE points (k integer, v integer);
INSERT INTO points VALUES (1, 0), (2, 0);
SELECT ectowatch_watch('points', 'changed', key_columns => '{k}', extra_columns => '{v}');
CREATE FUNCTION same_point() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE points SET v = v + 1 WHERE v < 3; RETURN NULL; END$$;
CREATE TRIGGER same_point AFTER INSERT OR UPDATE ON points
    FOR EACH ROW EXECUTE FUNCTION same_point();
BEGIN;
UPDATE points SET v = v + 1;
SELECT DISTINCT ON (values->'k') type, values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'k', no DESC;
SELECT * FROM points ORDER BY k;
ROLLBACK;
ALTER TRIGGER same_point ON points RENAME TO "!same_point";
BEGIN;
UPDATE points SET v = v + 1;
INSERT INTO points VALUES (3, 0);
SELECT DISTINCT ON (values->'k') values
FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
ORDER BY values->'k', no DESC;
SELECT * FROM points ORDER BY k;
ROLLBACK;

-- a version that is superseded is not passed over where its successor may not
-- be heard of: of another event, without a difference in trigger columns, or
-- failing a condition on the change; a condition on the row holds for the old one
CREATE TABLE items (id integer PRIMARY KEY DEFERRABLE, grp integer, n integer);
INSERT INTO items VALUES (1, 1, 2), (2, 1, 2);
SELECT ectowatch_watch('items', 'inserted', extra_columns => '{n}');
SELECT ectowatch_watch('items', 'updated', 'items_moved', trigger_columns => '{grp}');
SELECT ectowatch_watch('items', 'changed', 'items_small', extra_columns => '{n}', condition => 'n < 1');
SELECT ectowatch_watch('items', 'changed', 'items_all', extra_columns => '{n}');
SELECT ectowatch_watch('items', 'updated', 'items_zero', extra_columns => '{n}', condition => 'NEW.n = 0');
CREATE FUNCTION same_group() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE items SET n = n + 1 WHERE grp = NEW.grp; RETURN NULL; END$$;
CREATE TRIGGER same_group AFTER INSERT OR UPDATE OF grp ON items
    FOR EACH ROW EXECUTE FUNCTION same_group();
BEGIN;
INSERT INTO items VALUES (3, 2, 0), (4, 2, 0);
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
-- what is passed over does not count for bulk_threshold
SELECT ectowatch_watch('items', 'updated', 'items_few', extra_columns => '{n}', bulk_threshold => 5);
SELECT ectowatch_watch('items', 'updated', 'items_bulk', extra_columns => '{n}', bulk_threshold => 4);
BEGIN;
UPDATE items SET grp = 2, n = 0;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
SELECT ectowatch_unwatch('items_few'), ectowatch_unwatch('items_bulk');
DROP TRIGGER same_group ON items;
CREATE FUNCTION other_item() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN DELETE FROM items WHERE id <> NEW.id; RETURN NULL; END$$;
CREATE TRIGGER other_item AFTER INSERT OR UPDATE ON items
    FOR EACH ROW EXECUTE FUNCTION other_item();
BEGIN;
UPDATE items SET grp = 3;
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE items;
DROP FUNCTION same_group, other_item;

-- and so for rows that COPY has frozen: they do not say which command made them
BEGIN;
CREATE TABLE frozen (id integer PRIMARY KEY, n integer);
SELECT ectowatch_watch('frozen', 'changed', extra_columns => '{n}');
CREATE FUNCTION other_frozen() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE frozen SET n = n + 1 WHERE id <> NEW.id; RETURN NULL; END$$;
CREATE TRIGGER other_frozen AFTER INSERT ON frozen
    FOR EACH ROW EXECUTE FUNCTION other_frozen();
COPY frozen FROM stdin (FREEZE);
1	0
2	0
\.
SELECT type, values FROM ectowatch_pending();
ROLLBACK;

--
-- AFTER STATEMENT triggers, with what is pending before memory is used up and
-- after: a transaction that has forgotten its rows must not get them wrong
--
SET ectowatch.pending_memory = '64kB';
CREATE FUNCTION all_rows() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN UPDATE users SET n = n + 1 WHERE n = 0; RETURN NULL; END$$;
CREATE TRIGGER "!all_rows" AFTER INSERT ON users
    FOR EACH ROW EXECUTE FUNCTION all_rows();
BEGIN;
INSERT INTO users SELECT i, 'many', 0 FROM generate_series(1001, 4000) i;
SELECT n, count(*) FROM (
    SELECT DISTINCT ON (values->'id') values->'n' AS n
    FROM (SELECT *, row_number() OVER () AS no FROM ectowatch_pending()) p
    ORDER BY values->'id', no DESC) last
GROUP BY n;
ROLLBACK;
RESET ectowatch.pending_memory;

-- and so where another table was truncated meanwhile, after which rows of the
-- same keys are others
CREATE TABLE counted (id integer PRIMARY KEY, n integer);
CREATE TABLE emptied (id integer PRIMARY KEY);
INSERT INTO counted SELECT i, 0 FROM generate_series(1, 2) i;
SELECT ectowatch_watch('counted', 'updated', extra_columns => '{n}');
SELECT ectowatch_watch('emptied', 'truncated');
CREATE FUNCTION second_row() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
    IF NEW.id = 1 THEN
        UPDATE counted SET n = 99 WHERE id = 2;
        TRUNCATE emptied;
    END IF;
    RETURN NULL;
END$$;
CREATE TRIGGER "!second_row" AFTER UPDATE ON counted
    FOR EACH ROW EXECUTE FUNCTION second_row();
BEGIN;
UPDATE counted SET n = 1;
SELECT values FROM ectowatch_pending() WHERE watcher = 'counted_updated';
SELECT * FROM counted ORDER BY id;
ROLLBACK;

-- and so where it is the late one that makes us remember rows: one command has
-- made all that is pending, of which there are more than can be remembered
CREATE TABLE flooded (id integer PRIMARY KEY, n integer);
INSERT INTO flooded SELECT i, 0 FROM generate_series(1, 500) i;
SELECT ectowatch_watch('flooded', 'updated', extra_columns => '{n}');
CREATE FUNCTION flood() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
    IF NEW.n = 1 THEN
        WITH same AS (UPDATE flooded SET n = 99 WHERE id = NEW.id RETURNING n)
        UPDATE flooded SET n = same.n FROM same WHERE id <> NEW.id;
    END IF;
    RETURN NULL;
END$$;
CREATE TRIGGER "!flood" AFTER UPDATE ON flooded
    FOR EACH ROW EXECUTE FUNCTION flood();
SET ectowatch.pending_memory = '64kB';
BEGIN;
UPDATE flooded SET n = 1 WHERE id = 7;
SELECT values->'n' AS n, count(*) FROM ectowatch_pending() GROUP BY 1;
ROLLBACK;
RESET ectowatch.pending_memory;
DROP TABLE flooded;
DROP FUNCTION flood;

--
-- A cast to json that changes the context, and writes: each change carries what
-- was set when it was captured, whole
--
CREATE TYPE colour AS ENUM ('red');
CREATE TABLE painted (id integer PRIMARY KEY, c colour);
CREATE FUNCTION to_paint(colour) RETURNS json LANGUAGE plpgsql AS
$$BEGIN
    PERFORM set_config('ectowatch.context', repeat(E'\x01', 1000), true);
    INSERT INTO emptied VALUES (1);
    RETURN to_json($1::text);
END$$;
CREATE CAST (colour AS json) WITH FUNCTION to_paint(colour) AS ASSIGNMENT;
SELECT ectowatch_watch('emptied', 'inserted', envelope => true);
SELECT ectowatch_watch('painted', 'inserted', extra_columns => '{c}', envelope => true);
BEGIN;
SET LOCAL ectowatch.context = 'short';
INSERT INTO painted VALUES (1, 'red');
SELECT watcher, values, length(context->>'context') FROM ectowatch_pending();
ROLLBACK;

DROP CAST (colour AS json);
DROP TABLE users, points, counted, emptied, painted;
DROP TYPE colour CASCADE;
DROP FUNCTION second_row;
DROP FUNCTION before_user, same_row, other_row, delete_row, replace_row,
    put_back, move_row, same_point, all_rows;
DROP EXTENSION ectowatch;
