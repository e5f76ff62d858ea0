--
-- ectowatch_declare(): an application's whole list of watchers at once.
--
-- An application calls it when it starts, on each of its nodes.  The result is a
-- row per watcher: created, replaced or unchanged; then those that the
-- application has besides: extra, or with cleanup removed.  Watchers of other
-- applications are never touched.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer);
CREATE TABLE packages (id integer PRIMARY KEY, note text);

SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "users", "event": "inserted"},
    {"relation": "users", "event": "updated", "extra_columns": ["name", "role_id"]},
    {"relation": "packages", "event": "updated", "label": "packages: noted",
     "trigger_columns": ["note"], "condition": "note IS NOT NULL",
     "key_columns": ["id"], "column_map": {"id": "packageId"}, "old_values": true,
     "delivery": "packed", "bulk_threshold": 100, "throttle": "2 seconds",
     "envelope": true, "debug": false}
]');
SELECT * FROM ectowatch_watchers WHERE application = 'shop' AND label IS NOT NULL \gx
SELECT watcher, application FROM ectowatch_watchers ORDER BY watcher;

-- the same again: nothing is to be done, and nothing needed for it
CREATE ROLE regress_node;
SET ROLE regress_node;
BEGIN READ ONLY;
SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "users", "event": "inserted"},
    {"relation": "users", "event": "updated", "extra_columns": ["name", "role_id"]}
]');
SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode <> 'AccessShareLock'
    AND relation IN ('users'::regclass, 'packages'::regclass, 'ectowatch_registry'::regclass);
COMMIT;
RESET ROLE;

-- a new release: one replaced, one new, and what is no longer in the list is
-- told, and with cleanup removed
SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "users", "event": "inserted"},
    {"relation": "users", "event": "updated"},
    {"relation": "users", "event": "deleted"}
]');
SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "users", "event": "inserted"},
    {"relation": "users", "event": "updated"},
    {"relation": "users", "event": "deleted"}
]', cleanup => true);

-- applications keep off each other's
SELECT * FROM ectowatch_declare('mail', '[
    {"relation": "users", "event": "inserted", "label": "mail_users"}
]', cleanup => true);
SELECT * FROM ectowatch_declare('mail', '[
    {"relation": "users", "event": "inserted"}
]');
-- one that belongs to nobody is taken on
SELECT ectowatch_watch('packages', 'inserted');
SELECT * FROM ectowatch_declare('mail', '[
    {"relation": "users", "event": "inserted", "label": "mail_users"},
    {"relation": "packages", "event": "inserted"}
]');
-- and stays with who has it when replaced by hand
SELECT ectowatch_watch('packages', 'inserted', extra_columns => '{note}');
SELECT watcher, application FROM ectowatch_watchers ORDER BY watcher;

-- with cleanup a label can go from one watcher to another
SELECT * FROM ectowatch_declare('mail', '[
    {"relation": "users", "event": "updated", "label": "mail_users"}
]');
SELECT * FROM ectowatch_declare('mail', '[
    {"relation": "users", "event": "updated", "label": "mail_users"}
]', cleanup => true);

-- and without it, if the table of that one is gone (as by DROP TABLE while the
-- library was not loaded)
BEGIN;
UPDATE ectowatch_registry SET relation = 999999::oid::regclass WHERE name = 'mail_users';
SELECT * FROM ectowatch_declare('mail', '[
    {"relation": "packages", "event": "updated", "label": "mail_users"}
]');
SELECT watcher, relation FROM ectowatch_watchers WHERE application = 'mail';
ROLLBACK;

-- an application without watchers; nothing else goes with it
SELECT * FROM ectowatch_declare('mail', '[]');
SELECT * FROM ectowatch_declare('mail', '[]', cleanup => true);
SELECT watcher, application FROM ectowatch_watchers ORDER BY watcher;
-- what the caller does not own stays
SET ROLE regress_node;
SELECT * FROM ectowatch_declare('shop', '[]', cleanup => true);
RESET ROLE;

--
-- Errors come before anything is changed, and say which definition it is
--
SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "packages", "event": "updated"},
    {"relation": "packages", "event": "updated", "extra_columns": ["note"]}
]');
SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "packages", "event": "updated"},
    {"relation": "packages", "event": "updated", "colour": "red"}
]');
SELECT * FROM ectowatch_declare('shop', '[
    {"relation": "packages", "event": "updated", "label": "users_updated"}
]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages", "event": "noted"}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "no_such_table", "event": "updated"}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": 5, "event": "updated"}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages"}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages", "event": "updated", "extra_columns": "note"}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages", "event": "updated", "extra_columns": [1]}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages", "event": "updated", "old_values": "yes"}]');
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages", "event": "updated", "throttle": "a while"}]');
SELECT * FROM ectowatch_declare('shop', '["packages_updated"]');
SELECT * FROM ectowatch_declare('shop', '{"relation": "packages", "event": "updated"}');
SELECT * FROM ectowatch_declare('', '[]');
SELECT * FROM ectowatch_declare(NULL, '[]');
SELECT * FROM ectowatch_declare('shop', NULL);
-- NULL is an option that is not given
SELECT * FROM ectowatch_declare('shop', '[{"relation": "packages", "event": "updated", "label": null}]');
SELECT watcher, application FROM ectowatch_watchers ORDER BY watcher;

DROP TABLE users, packages;
DROP ROLE regress_node;
DROP EXTENSION ectowatch;
