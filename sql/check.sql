--
-- ectowatch_check(): why nothing arrives, question by question.  ok is null for
-- what is said and not judged.  Process ids, positions, times, sizes and numbers of
-- triggers are replaced.
--
SET DateStyle = ISO;
\set SHOW_CONTEXT never
CREATE EXTENSION ectowatch;
CREATE FUNCTION clean(text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace($1,
        '\d{4}-\d\d-\d\d [0-9:.+-]+\d', 'TIME', 'g'),
        '(position|process id is|process|transaction) \d+', '\1 N', 'g'),
        '0_ectowatch_\d+', '0_ectowatch_N', 'g'),
        'uses .* of', 'uses SIZE of'),
        '\d+(\.\d)? (%|batches|bytes|kB)', 'N \2', 'g')
$$;
CREATE FUNCTION checked(watcher text DEFAULT NULL)
RETURNS TABLE (step integer, question text, ok boolean, detail text, hint text) LANGUAGE sql AS $$
    SELECT step, question, ok,
        -- what it says depends on what was there before
        CASE question WHEN 'How far back does the ring go?' THEN 'RING' ELSE clean(detail) END,
        clean(hint)
    FROM ectowatch_check(watcher) ORDER BY step
$$;
-- waits until all that was committed is in the ring and sent
CREATE PROCEDURE all_done() LANGUAGE plpgsql AS $$
BEGIN
    WHILE (SELECT worker_pid IS NULL OR queue_batches > 0 OR notify_bytes > 0 FROM ectowatch_stat) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer);

--
-- The database as a whole
--
SELECT hint FROM ectowatch_check() WHERE question = 'How many watchers are there?';
SELECT ectowatch_watch('users', 'updated', extra_columns => '{name}');
SELECT ectowatch_watch('users', 'inserted', delivery => 'doorbell');
CALL all_done();
\x on
SELECT * FROM checked();

--
-- One watcher: before its first change, and after it
--
SELECT step, question, ok, replace(detail, current_user, 'ROLE') AS detail, hint
FROM checked('users_updated');
INSERT INTO users VALUES (1, 'Ann', 7);
UPDATE users SET name = 'Eve';
CALL all_done();
SELECT * FROM checked('users_updated') WHERE question = 'Did changes arrive?';
SELECT ok, clean(detail) AS detail FROM ectowatch_check('users_updated')
WHERE question = 'How far back does the ring go?';
\x off

--
-- How it is sent may be why nothing is heard
--
CREATE FUNCTION answer(watcher text, question text)
RETURNS TABLE (ok boolean, detail text, hint text) LANGUAGE sql AS $$
    SELECT ok, clean(detail), clean(hint) FROM ectowatch_check(watcher) c WHERE c.question = answer.question
$$;
SELECT * FROM answer('users_inserted', 'How are its changes sent?');
SELECT ectowatch_alter('users_inserted', delivery => 'none');
SELECT * FROM answer('users_inserted', 'How are its changes sent?');
SELECT ectowatch_alter('users_inserted', delivery => 'packed', throttle => '5 s', bulk_threshold => 100);
SELECT * FROM answer('users_inserted', 'How are its changes sent?');

--
-- Its condition: never evaluated, false, true, and one that fails
--
SELECT ectowatch_watch('users', 'updated', 'admins', condition => '100 / role_id = 50');
SELECT * FROM answer('admins', 'Does the condition hold?');
UPDATE users SET role_id = 1;
SELECT * FROM answer('admins', 'Does the condition hold?');
UPDATE users SET role_id = 2;
SELECT * FROM answer('admins', 'Does the condition hold?');
UPDATE users SET role_id = 0;
SELECT * FROM answer('admins', 'Does the condition hold?');
SELECT condition_checked_at <= now() AS checked, condition_matched_at <= now() AS matched,
    condition_failed_at <= now() AS failed
FROM ectowatch_stat_watchers WHERE watcher = 'admins';
SELECT ectowatch_unwatch('admins');

--
-- Who listens: a session that does, also to a narrowed channel
--
SELECT * FROM answer('users_updated', 'Who listens?');
SET application_name = 'a client';
LISTEN users_updated;
SELECT ectowatch_subscribe('users_updated', 1);
SELECT ok, replace(detail, current_user, 'ROLE') AS detail, hint
FROM answer('users_updated', 'Who listens?');
UNLISTEN *;
SELECT * FROM answer('users_updated', 'Who listens?');
RESET application_name;
SELECT ectowatch_alter('users_inserted', delivery => 'none');
SELECT * FROM answer('users_inserted', 'Who listens?');

--
-- Triggers: there, of the right shape, enabled, and for sessions like this one
--
SET session_replication_role = replica;
SELECT * FROM answer('users_updated', 'Are writes of this session captured?');
SELECT ectowatch_watch('users', 'deleted', replicated => true);
SELECT * FROM answer('users_deleted', 'Are writes of this session captured?');
SELECT * FROM answer('users_deleted', 'Are they enabled?');
SELECT ectowatch_unwatch('users_deleted');
RESET session_replication_role;
SET ectowatch.mute = on;
SELECT * FROM answer('users_updated', 'Are writes of this session captured?');
RESET ectowatch.mute;
SELECT tgname AS name FROM pg_trigger
WHERE tgrelid = 'users'::regclass AND pg_get_triggerdef(oid) LIKE '%AFTER UPDATE%' \gset
ALTER TABLE users DISABLE TRIGGER :"name";
SELECT * FROM answer('users_updated', 'Are they enabled?');
-- the other watcher's are
SELECT * FROM answer('users_inserted', 'Are they enabled?');
DROP TRIGGER :"name" ON users;
SELECT * FROM answer('users_updated', 'Does the table have its triggers?');
CREATE TRIGGER :"name" AFTER UPDATE ON users
    FOR EACH ROW WHEN (NEW.id > 1) EXECUTE FUNCTION ectowatch_capture();
SELECT * FROM answer('users_updated', 'Does the table have its triggers?');
SELECT action FROM ectowatch_repair();
SELECT * FROM answer('users_updated', 'Does the table have its triggers?');
SELECT * FROM answer('users_updated', 'Are they enabled?');

--
-- Columns that are gone
--
SELECT ectowatch_watch('users', 'updated', 'moved', trigger_columns => '{role_id,name}', extra_columns => '{*}');
ALTER TABLE users DROP COLUMN role_id;
SELECT * FROM answer('moved', 'Are the columns there that it names?');
SELECT * FROM answer(NULL, 'Are all columns there that watchers name?');
SELECT * FROM answer('users_updated', 'Are the columns there that it names?');
SELECT ectowatch_unwatch('moved');

--
-- Who asks, and what he may read
--
CREATE ROLE regress_ectowatch_reader;
SET ROLE regress_ectowatch_reader;
SELECT * FROM answer('users_updated', 'May you read its changes?');
RESET ROLE;
GRANT SELECT (id, name) ON users TO regress_ectowatch_reader;
SET ROLE regress_ectowatch_reader;
SELECT * FROM answer('users_updated', 'May you read its changes?');
RESET ROLE;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
SET ROLE regress_ectowatch_reader;
SELECT * FROM answer('users_updated', 'May you read its changes?');
-- all is answered to him
SELECT count(*) FROM ectowatch_check('users_updated') WHERE ok IS NOT FALSE;
SELECT count(*) > 5 FROM ectowatch_check();
RESET ROLE;

--
-- ectowatch_self_test() sends a probe through all of it
--
CREATE FUNCTION self_tested() RETURNS TABLE (step integer, what text, ok boolean, detail text) LANGUAGE sql AS $$
    SELECT step, what, ok, regexp_replace(detail, '\d+(\.\d)?', 'N', 'g') FROM ectowatch_self_test()
$$;
SELECT * FROM self_tested();
-- it is no part of the transaction in which it is called
SELECT ectowatch_position() AS position \gset
BEGIN;
INSERT INTO users VALUES (2, 'Bob');
SELECT bool_and(ok) FROM self_tested();
ROLLBACK;
BEGIN;
INSERT INTO users VALUES (3, 'Cem');
SELECT bool_and(ok) FROM self_tested();
COMMIT;
CALL all_done();
SELECT watcher, type, values - 'payload' AS values, xid IS NULL AS "no xid"
FROM ectowatch_changes(:position, timeout => '10 s');
-- a position behind it misses nothing
SELECT count(*) FROM ectowatch_changes(ectowatch_position());
-- everyone may
SET ROLE regress_ectowatch_reader;
SELECT bool_and(ok) FROM self_tested();
RESET ROLE;
SELECT ectowatch_self_test('-1 s');

--
-- A watcher that there is not, and hostile names and settings
--
SELECT * FROM ectowatch_check('no_such_watcher');
SET search_path = '';
SET DateStyle = 'German';
SET quote_all_identifiers = on;
SELECT count(*) FROM public.ectowatch_check('users_updated');
RESET search_path;
SET DateStyle = ISO;
RESET quote_all_identifiers;
CREATE SCHEMA "the App";
CREATE TABLE "the App"."100 %s ""quoted""" (id integer PRIMARY KEY);
SELECT ectowatch_watch('"the App"."100 %s ""quoted"""', 'inserted', 'a %s label');
SELECT * FROM answer('a %s label', 'Does the table have its triggers?');
DROP SCHEMA "the App" CASCADE;

DROP TABLE users;
DROP FUNCTION answer, checked, clean, self_tested;
DROP PROCEDURE all_done;
DROP ROLE regress_ectowatch_reader;
DROP EXTENSION ectowatch;
RESET DateStyle;
