--
-- The key says which row a message is about: the primary key, of any number
-- of columns, or what key_columns says.
--
CREATE EXTENSION ectowatch;

--
-- Several columns, in the order of the primary key
--
CREATE TABLE lines (item text, qty integer, no integer, order_id integer,
                    PRIMARY KEY (order_id, no));
SELECT ectowatch_watch('lines', 'changed', extra_columns => '{qty}');
SELECT key_columns FROM ectowatch_watchers;
BEGIN;
INSERT INTO lines VALUES ('nut', 10, 1, 7), ('bolt', 20, 2, 7);
UPDATE lines SET qty = 30 WHERE no = 2;
UPDATE lines SET no = 3 WHERE no = 2;
DELETE FROM lines WHERE no = 1;
SELECT type, values, old_values FROM ectowatch_pending();
ROLLBACK;

-- key_columns beside a primary key; they may have anything in them
SELECT ectowatch_watch('lines', 'updated', 'by_item', key_columns => '{item}');
BEGIN;
INSERT INTO lines VALUES ('nut', 1, 1, 7), ('nut', 2, 2, 7), (NULL, 3, 3, 7);
UPDATE lines SET qty = qty + 1;
UPDATE lines SET item = 'washer' WHERE item IS NULL;
SELECT type, values, old_values FROM ectowatch_pending() WHERE watcher = 'by_item';
ROLLBACK;
DROP TABLE lines;

--
-- None: then key_columns must say it
--
CREATE TABLE events (at date, what text, n integer);
SELECT ectowatch_watch('events', 'inserted');
SELECT ectowatch_watch('events', 'changed', key_columns => '{what,at}', extra_columns => '{n}');
BEGIN;
INSERT INTO events VALUES ('2026-01-02', 'start', 1), ('2026-01-03', 'stop', 2);
UPDATE events SET n = 3 WHERE what = 'stop';
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- a unique constraint is not taken for a key
ALTER TABLE events ADD UNIQUE (what);
SELECT ectowatch_watch('events', 'updated');
-- rows that say the same of themselves are not told apart
BEGIN;
ALTER TABLE events DROP CONSTRAINT events_what_key;
INSERT INTO events VALUES ('2026-01-02', 'a', 1), ('2026-01-02', 'a', 1), ('2026-01-02', 'a', 2);
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE events;

-- a primary key that goes later leaves the watcher as it was
CREATE TABLE users (id integer PRIMARY KEY, name text);
SELECT ectowatch_watch('users', 'inserted');
ALTER TABLE users DROP CONSTRAINT users_pkey;
BEGIN;
INSERT INTO users VALUES (1, 'Ann');
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
-- a key column that goes is missed, but no write fails
ALTER TABLE users DROP COLUMN id;
INSERT INTO users VALUES ('Bob');
SET client_min_messages = error;
BEGIN;
INSERT INTO users VALUES ('Cid');
SELECT type, values FROM ectowatch_pending();
ROLLBACK;
RESET client_min_messages;
DROP TABLE users;

--
-- Partitioned tables: messages name the table that is watched.  Partitions
-- may have their columns in another order.
--
CREATE TABLE logs (id integer, region text, note text, PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE logs_eu PARTITION OF logs FOR VALUES IN ('eu');
CREATE TABLE logs_us (gone integer, note text, dropped text, region text NOT NULL,
                      id integer NOT NULL, PRIMARY KEY (id, region));
ALTER TABLE logs_us DROP COLUMN gone, DROP COLUMN dropped;
ALTER TABLE logs ATTACH PARTITION logs_us FOR VALUES IN ('us');
SELECT ectowatch_watch('logs', 'changed', extra_columns => '{note}');
SELECT ectowatch_watch('logs', 'updated', 'note_changed', '{note}', key_columns => '{id}');
BEGIN;
INSERT INTO logs VALUES (1, 'eu', 'a'), (2, 'us', 'b');
UPDATE logs SET note = note || note;
UPDATE logs SET note = note;
UPDATE logs_us SET note = 'directly';
SELECT watcher, type, relation, values FROM ectowatch_pending();
COMMIT;

-- a row moved between partitions is deleted and inserted
BEGIN;
UPDATE logs SET region = 'us' WHERE id = 1;
SELECT watcher, type, values, old_values FROM ectowatch_pending();
ROLLBACK;
-- there and back
BEGIN;
UPDATE logs SET region = 'us', note = 'there' WHERE id = 1;
UPDATE logs SET region = 'eu', note = 'back' WHERE id = 1;
SELECT watcher, type, values, old_values FROM ectowatch_pending();
ROLLBACK;

-- TRUNCATE of the whole, and of a part
BEGIN;
TRUNCATE logs;
SELECT watcher, type, relation, values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
TRUNCATE logs_eu, logs_us;
SELECT watcher, type, relation, values FROM ectowatch_pending();
ROLLBACK;

-- a watcher of one partition, beside those of the whole
SELECT ectowatch_watch('logs_us', 'updated');
BEGIN;
UPDATE logs SET note = 'x' WHERE region = 'us';
SELECT watcher, type, relation, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;

-- attached and detached: that in itself is no change of rows
CREATE TABLE logs_jp (note text, id integer NOT NULL, region text NOT NULL);
INSERT INTO logs_jp VALUES ('old', 9, 'jp');
SELECT ectowatch_watch('logs_jp', 'inserted', key_columns => '{id}');
BEGIN;
ALTER TABLE logs ATTACH PARTITION logs_jp FOR VALUES IN ('jp');
SELECT count(*) FROM ectowatch_pending();
INSERT INTO logs VALUES (10, 'jp', 'new');
SELECT watcher, type, relation, values FROM ectowatch_pending() ORDER BY watcher;
COMMIT;
BEGIN;
ALTER TABLE logs DETACH PARTITION logs_jp;
UPDATE logs_jp SET note = 'later';
INSERT INTO logs_jp VALUES ('newer', 11, 'jp');
SELECT watcher, type, relation, values FROM ectowatch_pending();
COMMIT;
-- and attached again, at another level
CREATE TABLE logs_asia PARTITION OF logs FOR VALUES IN ('jp', 'kr') PARTITION BY LIST (region);
ALTER TABLE logs_asia ATTACH PARTITION logs_jp FOR VALUES IN ('jp');
BEGIN;
INSERT INTO logs VALUES (12, 'jp', 'newest');
SELECT watcher, type, relation, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;
-- a partition that is dropped takes its own watcher along, no other
DROP TABLE logs_us;
SELECT watcher FROM ectowatch_watchers ORDER BY watcher;

DROP TABLE logs;
DROP EXTENSION ectowatch;
