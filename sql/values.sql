--
-- Values are JSON as to_json() renders it under fixed settings: time zone UTC,
-- ISO dates, intervals in style postgres, bytea in hex, floats exactly.  What
-- the writer has set makes no difference.  Here TimeZone and DateStyle are
-- those of pg_regress, and others below.
--
-- No value makes a write fail: one that is too long, or that cannot be
-- rendered, is left out, and the message is marked as partial.
--
CREATE EXTENSION ectowatch;

-- a table of many types
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN short AS varchar(10);
CREATE DOMAIN pairs AS pair[];
CREATE TYPE textrange AS RANGE (subtype = text);
CREATE TABLE zoo (
    id integer PRIMARY KEY,
    i2 smallint, i4 integer, i8 bigint, b boolean, t text, v varchar(20), c char(5),
    cc "char", n name, u uuid, f4 real, f8 double precision, num numeric,
    d date, ti time, tz timetz, ts timestamp, tstz timestamptz, iv interval,
    by bytea, bi bit(3), vb bit varying, j json, jb jsonb, x xml, ip inet, cidr cidr,
    mac macaddr, pt point, bx box, tsv tsvector, tsq tsquery, lsn pg_lsn, xi xid8,
    r4 int4range, rts tstzrange, mr int8multirange, rt textrange,
    ai integer[], ats timestamptz[], aj json[], a2 text[][], ae mood[],
    e mood, p pair, dm positive, sh short, dp pairs);
SELECT ectowatch_watch('zoo', 'inserted', extra_columns => (
    SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'zoo'::regclass AND attnum > 1));

CREATE FUNCTION fixed(zoo) RETURNS jsonb STABLE LANGUAGE sql
    SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres'
    SET bytea_output = 'hex' SET extra_float_digits = 1 SET xmlbinary = 'base64'
    AS 'SELECT to_json($1)::jsonb';
-- what is pending and differs from that, column by column
CREATE VIEW differing AS
    SELECT z.id, key, p.values->key AS got, fixed(z)->key AS wanted
    FROM ectowatch_pending() p
    JOIN zoo z ON z.id = (p.values->>'id')::integer,
    LATERAL (SELECT jsonb_object_keys(p.values) UNION
             SELECT jsonb_object_keys(fixed(z))) keys (key)
    WHERE (p.values->key) IS DISTINCT FROM (fixed(z)->key);

BEGIN;
INSERT INTO zoo (id) VALUES (1);
INSERT INTO zoo VALUES (2,
    -32768, -2147483648, -9223372036854775808, true, 'text', 'v', 'c',
    'x', 'name', '00000000-0000-0000-0000-00000000000a', 'NaN', 'Infinity', 'NaN',
    '-infinity', '24:00', '12:00+05:30', 'infinity', '2026-07-01 12:00 Europe/Berlin',
    '1 year -2 days 03:04:05.6', '\x00ff', B'101', B'', '{"a" : [1, 2.50]}', '{"b": 1, "a": 2}',
    '<a>&amp;</a>', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '(1,2.5)', '(0,0),(1,1)',
    'a:1 b:2', 'a & b', '16/B374D848', '42', '[1,5)', '[2026-07-01 00:00+00,)', '{[1,2],[5,6]}', '[a,b)',
    '{1,NULL,3}', '{2026-07-01 00:00+02,infinity}', '{"[1, 2]"}', '{{a,b},{c,NULL}}', '{sad,happy}',
    'so "so"', '(1,"x, y")', 7, 'short', '{"(1,a)","(2,b)"}');
INSERT INTO zoo (id, i2, i4, i8, b, f4, f8, num, d, ts, tstz, iv, ai) VALUES (3,
    32767, 2147483647, 9223372036854775807, false, 3.4028235e38, 0.1, -0.00, '0044-03-15 BC',
    '0001-01-01 BC', '1883-11-18 12:00', '-00:00:01', '{}');
SELECT * FROM differing;
SELECT jsonb_pretty(values) FROM ectowatch_pending() WHERE values @> '{"id": 2}';
ROLLBACK;

-- the writer's settings make no difference
BEGIN;
SET LOCAL TimeZone = 'Asia/Kathmandu';
SET LOCAL DateStyle = 'German, DMY';
SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL bytea_output = 'escape';
SET LOCAL extra_float_digits = -10;
SET LOCAL xmlbinary = 'hex';
INSERT INTO zoo (id, f4, f8, d, ts, tstz, tz, iv, by, ats, rts) VALUES (4,
    1::real / 3, 1::float8 / 3, '2026-07-01', '2026-07-01 12:00', '2026-07-01 12:00+00', '12:00+00',
    '1 mon 2 days 3 hours', '\x00ff', '{2026-07-01 12:00+00}', '[2026-07-01 12:00+00,)');
SELECT jsonb_strip_nulls(values) FROM ectowatch_pending();
-- nor does the rendering make one to them
SHOW TimeZone;
SELECT to_json('2026-07-01 12:00+00'::timestamptz), '2026-07-01'::date, '\x00ff'::bytea, 1::float8 / 3;
SELECT * FROM differing;
ROLLBACK;
-- of the key as well: a row has the same name in every session
CREATE TABLE moments (at timestamptz PRIMARY KEY, for_table regclass);
SELECT ectowatch_watch('moments', 'changed', extra_columns => '{for_table}');
BEGIN;
SET LOCAL TimeZone = 'Asia/Kathmandu';
INSERT INTO moments VALUES ('2026-07-01 12:00+00', 'moments');
SET LOCAL TimeZone = 'America/New_York';
UPDATE moments SET at = at;
DELETE FROM moments;
SELECT type, values->'at' FROM ectowatch_pending();
ROLLBACK;
-- names of objects do not depend on search_path
BEGIN;
INSERT INTO moments VALUES ('2026-07-01 12:00+00', 'moments');
SET LOCAL search_path = pg_catalog;
INSERT INTO public.moments VALUES ('2026-07-02 12:00+00', 'public.moments');
RESET search_path;
SELECT count(DISTINCT values->'for_table') FROM ectowatch_pending();
ROLLBACK;
DROP TABLE moments;

--
-- Where a value lies in its row makes no difference: behind a column that was
-- dropped, behind one that is null in this row, in a row that is older than the
-- column, at any alignment
--
CREATE TABLE places (b boolean, id smallint PRIMARY KEY, gone integer, i8 bigint,
    u uuid, f4 real, c "char", m macaddr, t text, d date);
INSERT INTO places VALUES (true, 1, 0, 11, '00000000-0000-0000-0000-000000000001',
    1.5, 'x', '08:00:2b:01:02:03', 'text', '2026-07-01');
ALTER TABLE places DROP gone, ADD late integer DEFAULT 7, ADD later boolean;
INSERT INTO places VALUES (NULL, 2, NULL, NULL, 2.5, NULL, NULL, 'second', NULL, 8, true),
    (false, 3, 33, '00000000-0000-0000-0000-000000000003', 3.5, 'z',
     '08:00:2b:01:02:05', repeat('long ', 100), '2026-07-03', 9, false);
SELECT ectowatch_watch('places', 'changed', extra_columns => '{*}', old_values => true);
SELECT ectowatch_watch('places', 'updated', 'places_moved', trigger_columns => '{i8,late}');
CREATE VIEW misplaced AS
    SELECT key, p.values->key AS got, to_jsonb(places)->key AS wanted
    FROM ectowatch_pending() p JOIN places ON id = (p.values->>'id')::smallint,
    LATERAL jsonb_object_keys(to_jsonb(places)) key
    WHERE p.watcher = 'places_changed' AND (p.values->key) IS DISTINCT FROM (to_jsonb(places)->key);
BEGIN;
UPDATE places SET c = 'y';
SELECT * FROM misplaced;
SELECT old_values - 't' AS old_values FROM ectowatch_pending();
ROLLBACK;
BEGIN;
UPDATE places SET i8 = i8, late = late + (id = 1)::integer;
SELECT * FROM misplaced;
SELECT watcher, values->'id' AS id FROM ectowatch_pending() WHERE watcher = 'places_moved';
ROLLBACK;
DROP TABLE places CASCADE;
CREATE TABLE older (id integer PRIMARY KEY);
INSERT INTO older VALUES (1);
ALTER TABLE older ADD late integer DEFAULT 7;
SELECT ectowatch_watch('older', 'deleted', extra_columns => '{late}');
BEGIN;
DELETE FROM older;
SELECT values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE older;

--
-- Characters: quotes, backslashes, control characters, other planes
--
CREATE TABLE texts (id integer PRIMARY KEY, "the ""text""" text, v varchar, c char(4));
SELECT ectowatch_watch('texts', 'inserted', extra_columns => '{"the \"text\"",v,c}');
BEGIN;
INSERT INTO texts VALUES (1, E'"\\/\b\f\n\r\t\x01\x1f\x7f', E'\\u0000', 'a'),
    (2, 'ü€😀 ' || chr(8232), '', ''), (3, repeat(E'\x01', 3), '</script>', NULL);
SELECT values FROM ectowatch_pending();
SELECT count(*) FROM ectowatch_pending() p JOIN texts t ON t.id = (p.values->>'id')::integer
WHERE p.values = to_jsonb(t);
ROLLBACK;
DROP TABLE texts;

--
-- json may hold what jsonb cannot: the reader then gets the key alone
--
CREATE TABLE docs (id integer PRIMARY KEY, body json);
SELECT ectowatch_watch('docs', 'inserted', extra_columns => '{body}');
BEGIN;
INSERT INTO docs VALUES (1, '{"a": "\u0000"}'), (2, '{"a": 1e999999}'), (3, '{"a": 1, "a": 2}');
SELECT values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE docs;

--
-- Too long: the key, then nothing, is left, and nothing fails
--
CREATE TABLE longs (id text PRIMARY KEY, body text);
SELECT ectowatch_watch('longs', 'changed', extra_columns => '{body}');
-- :caught_up waits until all that was committed is in the ring
\set caught_up 'DO $$BEGIN WHILE (SELECT queue_batches > 0 FROM ectowatch_stat) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$'
:caught_up;
SELECT ectowatch_position() AS start \gset
BEGIN;
INSERT INTO longs VALUES ('a', 'short'),
    ('b', repeat('x', 8000)),				-- too long for NOTIFY, not for the ring
    ('c', repeat('x', 10 * 1000 * 1000)),	-- for the ring as well
    ('d', repeat(E'\x01', 1000 * 1000)),	-- grows when rendered
    (repeat('e', 2500), 'a long key');
UPDATE longs SET id = 'f' WHERE id LIKE 'e%';
COMMIT;
SELECT left(values->>'id', 5) AS id, length(values->>'id') AS id_length,
    length(values->>'body') AS body_length, length(old_values->>'id') AS old_id_length
FROM ectowatch_changes(:start, timeout => '10 s');
-- also where it cannot be seen from outside how long a value is
BEGIN;
UPDATE longs SET body = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300000) i) WHERE id = 'a';
SELECT values FROM ectowatch_pending();
ROLLBACK;
DROP TABLE longs;

--
-- Types whose own code fails
--
CREATE FUNCTION fail_to_json(mood) RETURNS json LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'no JSON of a mood'; END$$;
CREATE CAST (mood AS json) WITH FUNCTION fail_to_json(mood);
CREATE FUNCTION fail_to_json(textrange) RETURNS json LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'no JSON of a textrange'; END$$;
CREATE CAST (textrange AS json) WITH FUNCTION fail_to_json(textrange);
CREATE TABLE odd (id integer PRIMARY KEY, r textrange, e mood, es mood[], after_it text);
SELECT ectowatch_watch('odd', 'inserted', 'odd_range', extra_columns => '{r,after_it}');
SELECT ectowatch_watch('odd', 'updated', 'odd_enum', extra_columns => '{e,after_it}');
SELECT ectowatch_watch('odd', 'deleted', 'odd_enums', extra_columns => '{es,after_it}');
-- one warning per session
SET client_min_messages = error;
BEGIN;
INSERT INTO odd VALUES (1, '[a,b]', 'sad', '{sad}', 'x'), (2, NULL, 'sad', '{sad}', 'y');
SAVEPOINT a;
UPDATE odd SET id = id;
ROLLBACK TO a;
DELETE FROM odd WHERE id = 1;
SELECT watcher, values FROM ectowatch_pending();
COMMIT;
SELECT count(*) FROM odd;
-- the same as a key: then no message says which row, but each row has its own
SELECT ectowatch_watch('odd', 'inserted', 'odd_key', key_columns => '{r}', extra_columns => '{id}');
BEGIN;
INSERT INTO odd VALUES (3, '[a,b]', 'sad', '{sad}', 'x'), (4, '[a,c]', 'sad', '{sad}', 'x');
SELECT watcher, values FROM ectowatch_pending() WHERE watcher = 'odd_key';
ROLLBACK;
RESET client_min_messages;
-- what such code does to the session's settings has no effect on other columns
CREATE OR REPLACE FUNCTION fail_to_json(textrange) RETURNS json LANGUAGE plpgsql
    SET TimeZone = 'Asia/Kathmandu' AS $$BEGIN RETURN '1'; END$$;
ALTER TABLE odd ADD at timestamptz DEFAULT '2026-07-01 12:00+00';
SELECT ectowatch_watch('odd', 'inserted', 'odd_range', extra_columns => '{r,at}');
BEGIN;
SET LOCAL TimeZone = 'America/New_York';
INSERT INTO odd VALUES (5, '[a,b]');
SELECT values FROM ectowatch_pending() WHERE watcher = 'odd_range';
SELECT '2026-07-01 12:00+00'::timestamptz;
ROLLBACK;

DROP TABLE odd;
DROP TABLE zoo CASCADE;
DROP TYPE pair, mood, textrange CASCADE;
DROP DOMAIN positive, short;
DROP EXTENSION ectowatch;
