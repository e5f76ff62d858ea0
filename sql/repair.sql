--
-- ectowatch_repair() puts right what ectowatch_check() finds about triggers: those
-- that are missing, disabled, changed or left over, and watchers whose table is
-- gone.  It never touches what is not ectowatch's.  Numbers in names of triggers
-- are shown as N.
--
CREATE EXTENSION ectowatch;
CREATE FUNCTION found() RETURNS TABLE (found text, ok boolean, hint text) LANGUAGE sql AS $$
    SELECT regexp_replace(detail, '0_ectowatch_\d+', '0_ectowatch_N'), ok, hint
    FROM ectowatch_check() WHERE question LIKE 'Are all%' ORDER BY step
$$;
CREATE FUNCTION repaired() RETURNS TABLE (relation regclass, trigger text, action text) LANGUAGE sql AS $$
    SELECT relation, regexp_replace(trigger, '\d+$', 'N'), action FROM ectowatch_repair()
$$;
-- the triggers of a table that call the capture function
CREATE FUNCTION triggers(relation regclass)
RETURNS TABLE (trigger text, def text, enabled "char") LANGUAGE sql AS $$
    SELECT regexp_replace(tgname, '\d+$', 'N'),
        regexp_replace(pg_get_triggerdef(oid), 'CREATE.*(AFTER|BEFORE)(.*) ON.* FOR', '\1\2, FOR'), tgenabled
    FROM pg_trigger WHERE tgrelid = relation AND tgfoid = 'ectowatch_capture'::regproc
    ORDER BY tgtype, tgname
$$;
-- the name of a trigger of ectowatch
CREATE FUNCTION trigger_of(relation regclass, def text) RETURNS name LANGUAGE sql AS $$
    SELECT tgname FROM pg_trigger
    WHERE tgrelid = relation AND tgfoid = 'ectowatch_capture'::regproc
      AND pg_get_triggerdef(oid) LIKE '%' || def || '%' AND tgname LIKE '0\_ectowatch\_%'
$$;

CREATE TABLE users (id integer PRIMARY KEY, name text);
CREATE TABLE roles (id integer PRIMARY KEY, name text);
SELECT ectowatch_watch('users', 'changed');
SELECT ectowatch_watch('roles', 'updated');

--
-- Where all is well there is nothing to do
--
SELECT * FROM found();
SELECT * FROM repaired();

--
-- Missing: dropped by hand
--
SELECT trigger_of('users', 'AFTER DELETE') AS name \gset
DROP TRIGGER :"name" ON users;
SELECT trigger_of('users', 'AFTER TRUNCATE') AS name \gset
DROP TRIGGER :"name" ON users;
SELECT * FROM found();
SELECT * FROM repaired();
SELECT * FROM found();
SELECT * FROM triggers('users');

--
-- Disabled, or for replicas only.  ALWAYS is as good as enabled
--
SELECT trigger_of('users', 'AFTER UPDATE') AS name \gset
ALTER TABLE users DISABLE TRIGGER :"name";
SELECT trigger_of('users', 'AFTER INSERT') AS name \gset
ALTER TABLE users ENABLE REPLICA TRIGGER :"name";
SELECT trigger_of('users', 'AFTER DELETE') AS name \gset
ALTER TABLE users ENABLE ALWAYS TRIGGER :"name";
SELECT * FROM found();
SELECT * FROM repaired();
SELECT * FROM found();
SELECT * FROM triggers('users');

--
-- Changed: of our name, made otherwise
--
SELECT trigger_of('users', 'AFTER UPDATE') AS name \gset
DROP TRIGGER :"name" ON users;
CREATE TRIGGER :"name" AFTER UPDATE OF name ON users
    FOR EACH ROW WHEN (NEW.id > 1) EXECUTE FUNCTION ectowatch_capture();
SELECT trigger_of('users', 'AFTER INSERT') AS name \gset
DROP TRIGGER :"name" ON users;
CREATE TRIGGER :"name" AFTER INSERT ON users
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture('an argument');
SELECT trigger_of('users', 'AFTER DELETE') AS name \gset
DROP TRIGGER :"name" ON users;
CREATE CONSTRAINT TRIGGER :"name" AFTER DELETE ON users DEFERRABLE
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
-- this one makes every write fail
SELECT trigger_of('roles', 'AFTER UPDATE') AS name \gset
DROP TRIGGER :"name" ON roles;
CREATE TRIGGER :"name" BEFORE INSERT OR UPDATE ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
SELECT * FROM found();
SELECT * FROM repaired();
SELECT * FROM found();
SELECT * FROM triggers('users');
SELECT * FROM triggers('roles');

--
-- Left over: no watcher of that table has that event
--
CREATE TRIGGER "0_ectowatch_999999" AFTER DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
SELECT * FROM found();
SELECT * FROM repaired();
SELECT * FROM triggers('roles');

--
-- Not ectowatch's: another name, or another function
--
CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER by_hand AFTER DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
CREATE TRIGGER "0_ectowatch_x" AFTER DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
CREATE TRIGGER "0_ectowatch_" AFTER DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION ectowatch_capture();
CREATE TRIGGER "0_ectowatch_1234567" AFTER DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION other();
SELECT * FROM found();
SELECT * FROM repaired();
-- one that is as ours are serves its event, as for ectowatch_watch(),
-- unless it is disabled: then there has to be another one
SELECT ectowatch_watch('roles', 'deleted');
DROP TRIGGER "0_ectowatch_x" ON roles;
DROP TRIGGER "0_ectowatch_" ON roles;
SELECT * FROM found();
ALTER TABLE roles DISABLE TRIGGER by_hand;
SELECT * FROM found();
SELECT * FROM repaired();
SELECT * FROM found();
SELECT tgenabled FROM pg_trigger WHERE tgname = 'by_hand';
DROP TABLE roles;

--
-- Partitions: clones are their table's, and repaired with it; but one that is
-- disabled by itself is found by itself
--
CREATE TABLE events (id integer, at integer, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (10);
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (at);
CREATE TABLE events_3 PARTITION OF events_2 FOR VALUES FROM (10) TO (15);
SELECT ectowatch_watch('events', 'inserted');
SELECT * FROM found();
SELECT trigger_of('events', 'AFTER INSERT') AS name \gset
ALTER TABLE events_3 DISABLE TRIGGER :"name";
SELECT * FROM found();
-- of the watcher, too
SELECT regexp_replace(detail, '\d+"', 'N"') FROM ectowatch_check('events_inserted')
WHERE question = 'Are they enabled?';
SELECT * FROM repaired();
SELECT * FROM found();
ALTER TABLE events DISABLE TRIGGER :"name";
SELECT * FROM repaired();
SELECT * FROM found();
-- a trigger that was dropped takes its clones along, and brings them back
DROP TRIGGER :"name" ON events;
SELECT * FROM repaired();
SELECT tgrelid::regclass, count(*) FROM pg_trigger
WHERE tgfoid = 'ectowatch_capture'::regproc AND tgrelid::regclass::text LIKE 'events%'
GROUP BY 1 ORDER BY tgrelid::regclass::text;
DROP TABLE events;

--
-- Option replicated needs triggers that fire for what replication applies
--
SELECT ectowatch_watch('users', 'changed', replicated => true);
SELECT ectowatch_unwatch('users_changed');
SELECT ectowatch_watch('users', 'updated', replicated => true);
SELECT trigger_of('users', 'AFTER UPDATE') AS name \gset
ALTER TABLE users ENABLE TRIGGER :"name";
SELECT * FROM found();
SELECT * FROM repaired();
DROP TRIGGER :"name" ON users;
SELECT * FROM repaired();
SELECT * FROM triggers('users');
SELECT * FROM found();

--
-- Gone: the table of a watcher is not there any longer
--
BEGIN;
INSERT INTO ectowatch_registry
SELECT id + 1, 'gone_updated', 999999::oid::regclass, event, label, application, trigger_columns,
    extra_columns, condition, key_columns, key_given, column_map, old_values, delivery,
    bulk_threshold, throttle, envelope, replicated, debug, run
FROM ectowatch_registry WHERE name = 'users_updated';
SELECT * FROM found();
SELECT ok, detail, hint FROM ectowatch_check('gone_updated') WHERE question = 'Does the table have its triggers?';
SELECT * FROM repaired();
SELECT * FROM found();
COMMIT;

--
-- Only tables that the caller owns are repaired; nobody else's are looked at
-- with another's rights
--
CREATE ROLE regress_ectowatch_owner;
CREATE ROLE regress_ectowatch_other;
ALTER TABLE users OWNER TO regress_ectowatch_owner;
SELECT trigger_of('users', 'AFTER UPDATE') AS name \gset
DROP TRIGGER :"name" ON users;
SET ROLE regress_ectowatch_other;
SELECT * FROM repaired();
-- which locks nothing
BEGIN READ ONLY;
SELECT * FROM repaired();
SELECT mode FROM pg_locks
WHERE relation = 'ectowatch_registry'::regclass AND pid = pg_backend_pid() AND mode <> 'AccessShareLock';
COMMIT;
SELECT * FROM found();
SET ROLE regress_ectowatch_owner;
BEGIN READ ONLY;
SELECT * FROM repaired();
ROLLBACK;
-- undone by a rollback
BEGIN;
SELECT * FROM repaired();
ROLLBACK;
SELECT * FROM repaired();
-- what there is nothing to do for may be asked in a read-only transaction
BEGIN READ ONLY;
SELECT * FROM repaired();
COMMIT;
RESET ROLE;

--
-- What is repaired captures
--
BEGIN;
INSERT INTO users VALUES (1, 'Ann');
UPDATE users SET name = 'Eve';
SELECT watcher, type, values FROM ectowatch_pending();
ROLLBACK;

DROP TABLE users;
DROP FUNCTION found, repaired, triggers, trigger_of, other;
DROP ROLE regress_ectowatch_owner, regress_ectowatch_other;
DROP EXTENSION ectowatch;
