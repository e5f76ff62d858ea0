--
-- ectowatch_watch() creates or replaces a watcher and returns its name.
--
-- The name is the label, or <table>_<event> for tables in schema public, or
-- <schema>.<table>_<event> for others, whatever the search_path.  A watcher is
-- known by relation, event and label: a call that repeats all the rest as
-- well changes nothing, another one replaces it.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer,
                    updated_at timestamp);

--
-- Events: a trigger for each, which watchers of the same event share
--
SELECT ectowatch_watch('users', 'inserted');
SELECT ectowatch_watch('users', 'updated');
SELECT ectowatch_watch('users', 'deleted');
SELECT ectowatch_watch('users', 'truncated');
SELECT ectowatch_watch('users', 'changed');
SELECT watcher, event, label, trigger_columns, extra_columns, key_columns
FROM ectowatch_watchers ORDER BY watcher;
SELECT tgtype & 1 = 1 AS each_row, count(*)
FROM pg_trigger
WHERE tgrelid = 'users'::regclass AND tgname LIKE '0\_ectowatch\_%'
GROUP BY 1 ORDER BY 1;

--
-- Arguments by name
--
SELECT ectowatch_watch(
    relation => 'users',
    event => 'updated',
    label => 'user_renamed',
    trigger_columns => '{name}',
    extra_columns => '{name,role_id}',
    key_columns => '{id}');
SELECT event, label, trigger_columns, extra_columns, key_columns
FROM ectowatch_watchers WHERE watcher = 'user_renamed';

-- a label without trigger_columns is just a name; {} is as NULL
SELECT ectowatch_watch('users', 'updated', 'user_touched', '{}', '{}',
                       key_columns => '{}');
-- and empty lists need no label
SELECT ectowatch_watch('users', 'updated', trigger_columns => '{}', extra_columns => '{}');
-- trigger_columns are for updates, which 'changed' has
SELECT ectowatch_watch('users', 'changed', 'role_changed', '{role_id}');
-- the same label for another event would be the same name: see watch_errors
SELECT watcher, event, trigger_columns FROM ectowatch_watchers
WHERE label IS NOT NULL ORDER BY watcher;

--
-- Repeating a call changes nothing
--
SELECT xmin AS before FROM ectowatch_registry WHERE name = 'user_renamed' \gset
SELECT ectowatch_watch('users', 'updated', 'user_renamed', '{name}',
                       '{name,role_id}', key_columns => '{id}');
SELECT xmin = :'before' AS unchanged FROM ectowatch_registry
WHERE name = 'user_renamed';

-- it needs no ownership, no lock, and may be read only
CREATE ROLE regress_ectowatch_app;
SET ROLE regress_ectowatch_app;
BEGIN READ ONLY;
SELECT ectowatch_watch('users', 'updated');
SELECT count(*) FROM pg_locks
WHERE relation = 'users'::regclass AND pid = pg_backend_pid();
COMMIT;
-- anything else does need ownership
SELECT ectowatch_watch('users', 'updated', extra_columns => '{name}');
SELECT ectowatch_watch('users', 'updated', 'mine');
RESET ROLE;
BEGIN READ ONLY;
SELECT ectowatch_watch('users', 'updated', 'mine');
ROLLBACK;

--
-- Another call replaces; triggers stay what they are
--
SELECT array_agg(oid ORDER BY oid) AS triggers FROM pg_trigger
WHERE tgrelid = 'users'::regclass \gset
SELECT ectowatch_watch('users', 'updated', 'user_renamed', '{name,role_id}');
SELECT trigger_columns, extra_columns FROM ectowatch_watchers
WHERE watcher = 'user_renamed';
SELECT array_agg(oid ORDER BY oid) = :'triggers' AS "same triggers"
FROM pg_trigger WHERE tgrelid = 'users'::regclass;
-- the new one counts from the next statement on
BEGIN;
INSERT INTO users VALUES (1, 'Ann', 1);
SELECT ectowatch_watch('users', 'inserted', extra_columns => '{name}');
INSERT INTO users VALUES (2, 'Bob', 1);
SELECT values FROM ectowatch_pending() WHERE watcher = 'users_inserted';
ROLLBACK;
-- and went with its transaction
SELECT extra_columns FROM ectowatch_watchers WHERE watcher = 'users_inserted';

-- it is replaced as well if a trigger was dropped by hand
SELECT triggers[1] AS trigger FROM ectowatch_watchers
WHERE watcher = 'users_inserted' \gset
DROP TRIGGER :"trigger" ON users;
SELECT ectowatch_watch('users', 'inserted');
BEGIN;
INSERT INTO users VALUES (3, 'Cid', 1);
SELECT watcher, type FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;

--
-- Schemas
--
CREATE SCHEMA sales;
CREATE TABLE sales.users (id integer PRIMARY KEY);
SET search_path = sales, public;
SELECT ectowatch_watch('users', 'updated');
SELECT ectowatch_watch('public.users', 'updated');
SELECT ectowatch_watch('users', 'updated', 'sold');
RESET search_path;
BEGIN;
INSERT INTO sales.users VALUES (1);
UPDATE sales.users SET id = 2;
SELECT watcher, type, relation, values FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;

--
-- Names that need quotes: the name is as it is, LISTEN wants it quoted
--
CREATE TABLE "Order Items" ("Item No" integer PRIMARY KEY, "select" text,
                            "d'Or\" text);
SELECT ectowatch_watch('"Order Items"', 'updated',
                       extra_columns => '{select,"d''Or\\"}');
SELECT ectowatch_watch('"Order Items"', 'inserted', 'items');
SELECT ectowatch_watch('"Order Items"', 'deleted', 'Größe');
SELECT watcher, listen FROM ectowatch_watchers
WHERE relation = '"Order Items"'::regclass ORDER BY watcher COLLATE "C";
BEGIN;
INSERT INTO "Order Items" VALUES (1, 'a', 'b');
UPDATE "Order Items" SET "select" = 'c';
SELECT watcher, type, relation, values FROM ectowatch_pending();
ROLLBACK;
-- 63 bytes are possible
SELECT length(ectowatch_watch('users', 'updated', repeat('x', 63)));
-- column listen is the statement as it is to be executed
SELECT listen FROM ectowatch_watchers ORDER BY listen COLLATE "C" \gexec
SELECT count(*) FILTER (WHERE w IS NULL OR c IS NULL) AS "other names" FROM ectowatch_watchers w
FULL JOIN pg_listening_channels() c ON c = w.watcher;
UNLISTEN *;

--
-- A name whose table is gone (dropped while the library was not loaded) is free
--
BEGIN;
UPDATE ectowatch_registry SET relation = 999999::oid::regclass WHERE name = 'items';
SELECT ectowatch_watch('users', 'inserted', 'items');
SELECT watcher, relation, event FROM ectowatch_watchers WHERE watcher = 'items';
ROLLBACK;

--
-- A watcher keeps its name when its table gets another one
--
ALTER TABLE sales.users RENAME TO customers;
SELECT ectowatch_watch('sales.customers', 'updated');
SELECT watcher, relation, event FROM ectowatch_watchers
WHERE relation = 'sales.customers'::regclass ORDER BY watcher;
BEGIN;
INSERT INTO sales.customers VALUES (1);
UPDATE sales.customers SET id = 2;
SELECT watcher, relation FROM ectowatch_pending() ORDER BY watcher;
ROLLBACK;

DROP TABLE sales.customers;
DROP SCHEMA sales;
DROP TABLE users;
DROP TABLE "Order Items";
DROP ROLE regress_ectowatch_app;
DROP EXTENSION ectowatch;
