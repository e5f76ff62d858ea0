--
-- Coming from EctoWatch: the same watchers beside the triggers that EctoWatch
-- generates for them, and what either tells of the same writes.
--
-- An EctoWatch application has a list of watchers in its supervision tree.  Of
-- each, EctoWatch makes a function and a trigger that calls pg_notify().  Here
-- the whole list is declared to ectowatch, and the functions of EctoWatch 1.1
-- stand beside it, with a table in the place of pg_notify().
--
CREATE EXTENSION ectowatch;

-- names as Ecto has them: columns that are called otherwise, a schema that
-- needs quotes, a table without a primary key, partitions
CREATE TABLE things (
    id integer PRIMARY KEY,
    the_string text,
    the_integer integer,
    "theFloat" double precision,
    "parentThingId" integer REFERENCES things ON DELETE CASCADE,
    inserted_at timestamp
);
CREATE SCHEMA "0xabcd";
CREATE TABLE "0xabcd".other (weird_id integer, the_string text);
CREATE TABLE parted (id integer, part_key integer, the_string text, PRIMARY KEY (id, part_key))
    PARTITION BY LIST (part_key);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);

-- The list.  Labels are what EctoWatch calls its channels, empty lists are as
-- none, and column_map names columns of which none is delivered, too.
CREATE TABLE watcher_list (definition jsonb);
INSERT INTO watcher_list VALUES
    ('{"relation": "things", "event": "inserted", "label": "ew_inserted_for_thing",
       "key_columns": ["id"], "trigger_columns": [], "extra_columns": [],
       "column_map": {"theFloat": "the_float", "parentThingId": "parent_thing_id"}}'),
    ('{"relation": "things", "event": "updated", "label": "ew_updated_for_thing",
       "key_columns": ["id"], "extra_columns": ["inserted_at", "theFloat", "parentThingId"],
       "column_map": {"id": "id", "theFloat": "the_float", "parentThingId": "parent_thing_id"}}'),
    ('{"relation": "things", "event": "updated", "label": "ew_for_thing_custom_event",
       "key_columns": ["id"], "trigger_columns": ["the_integer", "theFloat"],
       "extra_columns": ["the_integer", "id"]}'),
    ('{"relation": "things", "event": "deleted", "label": "ew_deleted_for_thing",
       "key_columns": ["id"], "extra_columns": ["the_string"]}'),
    ('{"relation": "\"0xabcd\".\"other\"", "event": "inserted", "label": "ew_for_other_inserted",
       "key_columns": ["weird_id"]}'),
    ('{"relation": "\"0xabcd\".\"other\"", "event": "updated", "label": "ew_for_other_updated",
       "key_columns": ["weird_id"]}'),
    ('{"relation": "parted", "event": "inserted", "label": "ew_for_parted_inserted",
       "key_columns": ["id"], "extra_columns": ["part_key"]}'),
    ('{"relation": "parted", "event": "updated", "label": "ew_for_parted_updated",
       "key_columns": ["id"], "extra_columns": ["part_key"]}'),
    ('{"relation": "parted", "event": "deleted", "label": "ew_for_parted_deleted",
       "key_columns": ["id"], "extra_columns": ["part_key"]}');
SELECT d.* FROM (SELECT jsonb_agg(definition) AS all FROM watcher_list) l,
    ectowatch_declare('ecto_watch', l.all) d;
-- each watcher's server may do that for its own, and the next node does it again
SELECT d.watcher, d.status FROM watcher_list,
    ectowatch_declare('ecto_watch', jsonb_build_array(definition)) d
WHERE d.status <> 'extra';

-- what EctoWatch generates
CREATE TABLE notified (channel text, payload jsonb);
CREATE FUNCTION generate(d jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    columns_sql text;
    of_sql text;
BEGIN
    SELECT string_agg(format('%L,row.%I', coalesce(d->'column_map'->>c, c), c), ',' ORDER BY n)
    INTO columns_sql
    FROM jsonb_array_elements_text(d->'key_columns' || coalesce(d->'extra_columns', '[]'))
        WITH ORDINALITY AS x(c, n);
    SELECT ' OF ' || string_agg(quote_ident(c), ', ') INTO of_sql
    FROM jsonb_array_elements_text(d->'trigger_columns') c;
    EXECUTE format('
        CREATE FUNCTION %I() RETURNS trigger AS $trigger$
        DECLARE
          row record;
          payload TEXT;
        BEGIN
          row := COALESCE(NEW, OLD);
          payload := jsonb_build_object(''type'',%L,''values'',json_build_object(%s));
          INSERT INTO notified VALUES (%L, payload::jsonb);
          RETURN NEW;
        END;
        $trigger$ LANGUAGE plpgsql',
        d->>'label' || '_func', d->>'event', columns_sql, d->>'label');
    EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s FOR EACH ROW EXECUTE PROCEDURE %I()',
        d->>'label' || '_trigger',
        CASE d->>'event' WHEN 'inserted' THEN 'INSERT' WHEN 'deleted' THEN 'DELETE'
            ELSE 'UPDATE' || coalesce(of_sql, '') END,
        d->>'relation', d->>'label' || '_func');
END
$$;
SELECT count(generate(definition)) FROM watcher_list;

--
-- What a transaction tells, and who does
--
CREATE VIEW told AS
    SELECT watcher, type, values,
        CASE WHEN e IS NULL THEN 'ectowatch' WHEN p IS NULL THEN 'EctoWatch' ELSE 'both' END AS told_by
    FROM (SELECT DISTINCT channel AS watcher, payload->>'type' AS type, payload->'values' AS values, true AS e
          FROM notified) e
    FULL JOIN (SELECT DISTINCT watcher, type, values, true AS p FROM ectowatch_pending()) p
        USING (watcher, type, values)
    ORDER BY watcher COLLATE "C", type, values;
-- whatever the writer has set
SET DateStyle = 'German';
BEGIN;
INSERT INTO things VALUES (1, 'one', 4455, 84.52, NULL, '2026-01-02 03:04:05'),
    (2, 'two', 8899, 1e-7, 1, '2026-01-02 03:04:05.678');
INSERT INTO "0xabcd".other VALUES (1234, 'the value'), (NULL, 'no key');
INSERT INTO parted VALUES (1, 1, 'a');
SELECT * FROM told;
COMMIT;
RESET DateStyle;
DELETE FROM notified;

-- an UPDATE is one whatever it changes, but not for trigger_columns
BEGIN;
UPDATE things SET the_string = 'new';
SELECT * FROM told;
ROLLBACK;
BEGIN;
UPDATE things SET "theFloat" = 99.999 WHERE id = 1;
SELECT * FROM told;
ROLLBACK;
-- a move between partitions
BEGIN;
UPDATE parted SET part_key = 2;
UPDATE parted SET the_string = 'b';
SELECT * FROM told;
ROLLBACK;
-- what others write: a cascade, an upsert, a MERGE
BEGIN;
DELETE FROM things WHERE id = 1;
SELECT * FROM told;
ROLLBACK;
BEGIN;
INSERT INTO things VALUES (2, 'taken'), (3, 'free') ON CONFLICT (id) DO UPDATE SET the_integer = 0;
MERGE INTO "0xabcd".other USING (VALUES (1234), (5)) AS new(id) ON weird_id = new.id
    WHEN MATCHED THEN UPDATE SET the_string = 'merged'
    WHEN NOT MATCHED THEN INSERT VALUES (new.id, 'merged');
SELECT * FROM told;
ROLLBACK;
-- another key: both have the new one in values, ectowatch the old one besides
BEGIN;
UPDATE "0xabcd".other SET weird_id = 4321 WHERE weird_id = 1234;
SELECT * FROM told;
SELECT values, old_values FROM ectowatch_pending();
ROLLBACK;

--
-- What is told otherwise: trigger_columns are compared.  EctoWatch goes by the
-- columns that the statement names.
--
-- named, and not changed
BEGIN;
UPDATE things SET the_integer = the_integer WHERE id = 1;
SELECT * FROM told WHERE watcher = 'ew_for_thing_custom_event';
ROLLBACK;
-- changed, and not named
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.the_integer := OLD.the_integer + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER count_up BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION count_up();
BEGIN;
UPDATE things SET the_string = 'new' WHERE id = 1;
SELECT * FROM told WHERE watcher = 'ew_for_thing_custom_event';
ROLLBACK;

--
-- Channels: EctoWatch's topics in Phoenix.PubSub have the same names
--
SELECT ectowatch_channel('ew_updated_for_thing'),
    ectowatch_channel('ew_updated_for_thing', 1),
    ectowatch_channel('ew_updated_for_thing', 'parent_thing_id', 1);
-- and the same is refused; but any column that is delivered will do
SELECT ectowatch_channel('ew_inserted_for_thing', 123);
SELECT ectowatch_channel('ew_updated_for_thing', 'the_integer', 4455);
SELECT ectowatch_channel('ew_deleted_for_thing', 'the_string', 'one');

--
-- Details: the trigger of a watcher is that of its event
--
SELECT w.watcher, cardinality(w.triggers) AS triggers, t.tgtype & 28 AS event_bits,
    t.tgfoid::regproc AS function
FROM ectowatch_watchers w JOIN pg_trigger t ON t.tgrelid = w.relation AND t.tgname = ANY (w.triggers)
WHERE w.relation = 'things'::regclass ORDER BY w.watcher COLLATE "C";

--
-- Leftovers: what EctoWatch has generated is not ectowatch's, and goes by its
-- own names.  Until then its notifications arrive beside those of ectowatch.
--
SELECT detail FROM ectowatch_check() WHERE question = 'Are all triggers as they should be?';
SELECT * FROM ectowatch_repair();
SELECT tgname, tgrelid::regclass FROM pg_trigger
WHERE tgname LIKE 'ew\_%' AND tgparentid = 0 ORDER BY tgname COLLATE "C";
DO $$
DECLARE
    generated regprocedure;
BEGIN
    FOR generated IN SELECT oid FROM pg_proc WHERE proname LIKE 'ew\_%\_func'
            AND prorettype = 'trigger'::regtype ORDER BY proname COLLATE "C" LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', generated);
    END LOOP;
END
$$;
BEGIN;
UPDATE things SET the_string = 'new' WHERE id = 1;
SELECT * FROM told;
ROLLBACK;

DROP VIEW told;
DROP FUNCTION generate, count_up CASCADE;
SET client_min_messages = warning;
DROP SCHEMA "0xabcd" CASCADE;
DROP TABLE things, parted, watcher_list, notified;
DROP EXTENSION ectowatch;
