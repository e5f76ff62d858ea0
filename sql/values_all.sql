--
-- Values of every type: what a watcher delivers is what to_json() gives under
-- the fixed settings, whatever the writer has set.
--
-- Each base type, range and multirange of pg_catalog has samples here: by
-- themselves, in an array, in a domain, in an array of that, and in a composite
-- type.  A type without a sample fails the test.
--
CREATE EXTENSION ectowatch;
SET client_min_messages = warning;
-- sets of statistics, for types that take no input
CREATE TABLE numbers AS SELECT i % 10 AS a, i % 20 AS b FROM generate_series(1, 1000) i;
CREATE STATISTICS of_numbers (ndistinct, dependencies, mcv) ON a, b FROM numbers;
ANALYZE numbers;

-- samples are what may stand behind SELECT
CREATE TABLE samples (type regtype, expression text);
INSERT INTO samples SELECT t::regtype, quote_literal(v) FROM (VALUES
    ('bool', '{t,f}'::text[]),
    ('bytea', '{"",\\x00,\\x5c27ff,abc}'),
    ('"char"', '{"",a,"\"","\\\\"}'),
    ('name', '{"","a b","\"quoted\""}'),
    ('int8', '{-9223372036854775808,9223372036854775807,0}'),
    ('int2', '{-32768,32767,0}'),
    ('int2vector', '{"","1 2 -3"}'),
    ('int4', '{-2147483648,2147483647,0}'),
    ('regproc', '{-,now,public.mine}'),
    ('oid', '{0,4294967295}'),
    ('tid', '{"(0,0)","(4294967295,65535)"}'),
    ('xid', '{0,4294967295}'),
    ('cid', '{0,4294967295}'),
    ('oidvector', '{"","1 4294967295"}'),
    ('json', '{"null","\" \\u00e4 \"","{\"a\" : [1, 2.50, {}]}","[]","1e5","-0.0"}'),
    ('xml', '{"","<a b=\"c\">&amp;</a>","text"}'),
    ('point', '{"(0,-0)","(Infinity,NaN)","(1e300,0.1)"}'),
    ('lseg', '{"[(0,0),(1,0.1)]"}'),
    ('path', '{"[(0,0),(1,1)]","((0,0),(1,1),(2,0.1))"}'),
    ('box', '{"(1,1),(0,0.1)"}'),
    ('polygon', '{"((0,0),(1,1),(2,0.1))"}'),
    ('line', '{"{1,-1,0.1}"}'),
    ('circle', '{"<(0,0.1),5>"}'),
    ('cidr', '{10.0.0.0/8,0.0.0.0/0,::/0,2001:db8::/32}'),
    ('inet', '{10.0.0.1/8,10.0.0.1,::ffff:1.2.3.4}'),
    ('macaddr', '{08:00:2b:01:02:03}'),
    ('macaddr8', '{08:00:2b:01:02:03:04:05}'),
    ('float4', '{NaN,Infinity,-Infinity,-0,0.1,3.4028235e38,1.17549e-38,1e-45}'),
    ('float8', '{NaN,Infinity,-Infinity,-0,0.1,1.7976931348623157e308,5e-324,1e15,123456789012345680}'),
    ('money', '{-92233720368547758.08,92233720368547758.07,0,1234567.89}'),
    ('aclitem', '{pg_monitor=arwdDxt/pg_monitor,=r*/pg_monitor}'),
    ('text', '{"","null"," a ","\u2028"}'),
    ('bpchar', '{"","a  "}'),
    ('varchar', '{"","\\\\"}'),
    ('date', '{-infinity,infinity,"4714-11-24 BC",5874897-12-31,2026-07-01}'),
    ('time', '{00:00,24:00,12:34:56.789012}'),
    ('timetz', '{00:00+15:59,24:00-15:59,12:34:56.789012+05:30}'),
    ('timestamp', '{-infinity,infinity,"4714-11-24 00:00:00 BC","294276-12-31 23:59:59.999999","2026-07-01 12:00"}'),
    ('timestamptz', '{-infinity,infinity,"4714-11-24 00:00:00+00 BC","294276-12-31 23:59:59.999999+00","1883-11-18 12:00+00","2026-07-01 12:00+00"}'),
    ('interval', '{0,"-178000000 years","178000000 years -1 mons +2147483647 days -03:04:05.6","1 year -2 days 03:04:05.6"}'),
    ('bit', '{1,0}'),
    ('varbit', '{"",101}'),
    ('numeric', '{NaN,Infinity,-Infinity,0,-0.00,1e100,1e-100,12345678901234567890.12345678901234567890}'),
    ('refcursor', '{"","my cursor"}'),
    ('regprocedure', '{-,now(),public.mine(integer)}'),
    ('regoper', '{0,|/,public.#####}'),
    ('regoperator', '{0,"+(integer,integer)","public.#####(integer,integer)"}'),
    ('regclass', '{-,pg_class,public.numbers}'),
    ('regtype', '{-,integer,public.samples}'),
    ('regconfig', '{english,public.mine,-}'),
    ('regdictionary', '{simple,-}'),
    ('regnamespace', '{public,pg_catalog,-}'),
    ('regrole', '{pg_monitor,-}'),
    ('regcollation', '{"\"C\"",public.mine,-}'),
    ('uuid', '{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff}'),
    ('txid_snapshot', '{10:20:10\,14\,15}'),
    ('pg_snapshot', '{10:20:10\,14\,15}'),
    ('pg_lsn', '{0/0,FFFFFFFF/FFFFFFFF}'),
    ('xid8', '{0,18446744073709551615}'),
    ('tsvector', '{"","a:1A b:2 ''c d''"}'),
    ('tsquery', '{"","a & !b <-> ''c d'':*"}'),
    ('jsonb', '{"null","\" a \"","{\"b\" : [1, 2.50, {}], \"a\": null}","[]","1e5"}'),
    ('jsonpath', '{"$.a[*] ? (@ > 1)","strict $"}'),
    ('int4range', '{empty,"[-2147483648,5)","(,)","[1,2147483647)"}'),
    ('int8range', '{empty,"[-9223372036854775808,5)","(,)"}'),
    ('numrange', '{empty,"[-Infinity,NaN]","(1.10,2.20)"}'),
    ('tsrange', '{empty,"[-infinity,infinity]","[2026-07-01 12:00,)"}'),
    ('tstzrange', '{empty,"[-infinity,infinity]","[2026-07-01 12:00+00,)"}'),
    ('daterange', '{empty,"[-infinity,infinity]","[2026-07-01,)"}'),
    ('int4multirange', '{"{}","{[1,2),[5,)}"}'),
    ('int8multirange', '{"{}","{[1,2),[5,)}"}'),
    ('nummultirange', '{"{}","{[1.10,2),[5,)}"}'),
    ('tsmultirange', '{"{}","{[2026-07-01 12:00,)}"}'),
    ('tstzmultirange', '{"{}","{[2026-07-01 12:00+00,)}"}'),
    ('datemultirange', '{"{}","{[2026-07-01,)}"}')) s(t, vs), unnest(vs) v;
-- those that take no input, or are easier to make
INSERT INTO samples VALUES
    ('gtsvector', 'NULL'), -- has neither input nor a function that gives one
    ('pg_node_tree', '(SELECT proargdefaults FROM pg_proc WHERE proargdefaults IS NOT NULL ORDER BY oid LIMIT 1)'),
    ('pg_ndistinct', '(SELECT stxdndistinct FROM pg_statistic_ext_data)'),
    ('pg_dependencies', '(SELECT stxddependencies FROM pg_statistic_ext_data)'),
    ('pg_mcv_list', '(SELECT stxdmcv FROM pg_statistic_ext_data)'),
    ('pg_brin_bloom_summary', 'NULL'), -- only inside indexes
    ('pg_brin_minmax_multi_summary', 'NULL'),
    ('bytea', $$decode(repeat('00ff275c', 1000), 'hex')$$),
    ('name', $$repeat('n', 63)$$),
    ('text', $$repeat(U&'\+01F600', 10000)$$),
    ('int4', 'NULL'), ('text', 'NULL');
-- every character up to 255, and some that JSON or JavaScript trip over
INSERT INTO samples SELECT t::regtype, format('%L', chr(i) || 'x' || chr(i))
FROM unnest('{text,varchar,bpchar}'::text[]) t, generate_series(1, 255) i
UNION ALL SELECT 'text', format('%L', c) FROM unnest(ARRAY['\u0000', '</script>', '\\"', chr(8232), chr(65534), chr(1114111)]) c;

-- what is there to be a sample of
CREATE FUNCTION mine(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE OPERATOR ##### (FUNCTION = int4pl, LEFTARG = integer, RIGHTARG = integer);
CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple);
CREATE COLLATION mine (locale = 'C');

-- none is missing
SELECT oid::regtype AS "types without a sample" FROM pg_type
WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm', 'd', 'e')
    AND (typcategory <> 'A' OR typname IN ('int2vector', 'oidvector'))
    AND oid NOT IN (SELECT type FROM samples);

--
-- A table with all types, plain and inside others
--
CREATE TABLE everything (id serial PRIMARY KEY);
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT DISTINCT type, typname, typarray <> 0 AS has_array
        FROM samples s JOIN pg_type ON pg_type.oid = s.type ORDER BY typname
    LOOP
        EXECUTE format('CREATE DOMAIN %I AS %s', 'd_' || t.typname, t.type);
        EXECUTE format('CREATE TYPE %I AS (a %s, b text, c %s)', 'c_' || t.typname, t.type,
            CASE WHEN t.has_array THEN t.type || '[]' ELSE 'int' END);
        EXECUTE format('ALTER TABLE everything ADD %I %s, ADD %I %s, ADD %I %I, ADD %I %I[], ADD %I %I',
            t.typname, t.type,
            t.typname || '[]', CASE WHEN t.has_array THEN t.type || '[]' ELSE 'int' END,
            'd_' || t.typname, 'd_' || t.typname,
            'd_' || t.typname || '[]', 'd_' || t.typname,
            'c_' || t.typname, 'c_' || t.typname);
    END LOOP;
END $$;
SELECT ectowatch_watch('everything', 'inserted', extra_columns => '{*}');

CREATE PROCEDURE insert_all(every integer DEFAULT 1) LANGUAGE plpgsql AS $$
DECLARE
    s record;
BEGIN
    FOR s IN
        SELECT type, typname, typarray <> 0 AS has_array, expression
        FROM (SELECT *, row_number() OVER (PARTITION BY type) AS n FROM public.samples) s
        JOIN pg_catalog.pg_type ON pg_type.oid = type WHERE n % every = 0
    LOOP
        EXECUTE format('INSERT INTO public.everything (%I, %I, %I, %I, %I) VALUES (
                %8$s::%7$s, %6$s, %8$s::%7$s,
                ARRAY[%8$s::%7$s::public.%9$I, NULL]::public.%9$I[], ROW(%8$s::%7$s, ''b'', %6$s))',
            s.typname, s.typname || '[]', 'd_' || s.typname, 'd_' || s.typname || '[]', 'c_' || s.typname,
            CASE WHEN s.has_array THEN format('ARRAY[%1$s::%2$s, NULL, %1$s::%2$s]', s.expression, s.type) ELSE '1' END,
            CASE s.type WHEN '"char"'::regtype THEN '"char"' ELSE s.type::text END,
            s.expression, 'd_' || s.typname);
    END LOOP;
END $$;

-- what to_json() gives
CREATE FUNCTION fixed(integer) RETURNS json STABLE LANGUAGE sql
    SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres'
    SET bytea_output = 'hex' SET extra_float_digits = 1 SET xmlbinary = 'base64'
    SET quote_all_identifiers = off SET search_path = pg_catalog SET lc_monetary = 'C'
    AS 'SELECT to_json(e) FROM public.everything e WHERE id = $1';
-- columns that differ, by type; as text, so that 1.0 is not 1.00
CREATE VIEW differing AS
    SELECT w.key, g.value::text AS got, w.value::text AS wanted
    FROM public.ectowatch_pending() p,
    LATERAL (SELECT key, value FROM jsonb_each(public.fixed((p.values->>'id')::integer)::jsonb)) w
    LEFT JOIN LATERAL (SELECT key, value FROM jsonb_each(p.values)) g ON g.key = w.key
    WHERE g.value::text IS DISTINCT FROM w.value::text;

BEGIN;
CALL insert_all();
SELECT count(*) = (SELECT count(*) FROM samples) AS "all were inserted" FROM everything;
SELECT count(*) = (SELECT count(*) FROM samples) AS "all are there" FROM ectowatch_pending();
SELECT key, min(left(got, 60)), min(left(wanted, 60)), count(*) FROM differing GROUP BY key ORDER BY key;
ROLLBACK;

--
-- The writer's settings make no difference
--
BEGIN;
SET LOCAL TimeZone = 'Asia/Kathmandu';
SET LOCAL DateStyle = 'German, DMY';
SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL bytea_output = 'escape';
SET LOCAL extra_float_digits = -10;
SET LOCAL xmlbinary = 'hex';
SET LOCAL quote_all_identifiers = on;
SET LOCAL search_path = pg_catalog;
CALL public.insert_all(2);
SET LOCAL TimeZone = 'America/St_Johns';
SET LOCAL DateStyle = 'SQL, MDY';
SET LOCAL IntervalStyle = 'sql_standard';
SET LOCAL extra_float_digits = 3;
SET LOCAL quote_all_identifiers = off;
SET LOCAL search_path = public;
CALL public.insert_all(3);
SET LOCAL IntervalStyle = 'postgres_verbose';
SET LOCAL extra_float_digits = 0;
SET LOCAL DateStyle = 'Postgres, DMY';
CALL public.insert_all(5);
SELECT count(*) FROM ectowatch_pending();
SELECT key, min(left(got, 60)), min(left(wanted, 60)), count(*) FROM differing GROUP BY key ORDER BY key;
ROLLBACK;

--
-- How long a change may be: half of a megabyte for its values, less 6 kB for
-- the rest.  One byte more, and it has the key only.
--
CREATE TABLE longs (id integer PRIMARY KEY, body text);
SELECT ectowatch_watch('longs', 'inserted', extra_columns => '{body}');
BEGIN;
-- {"id":1,"body":"..."} are 18 bytes beside the text; the last is not counted
INSERT INTO longs SELECT 1, repeat('x', 506 * 1024 - 17) UNION ALL
    SELECT 2, repeat('x', 506 * 1024 - 16) UNION ALL
    -- of bytes, not of characters
    SELECT 3, repeat('ü', (506 * 1024 - 17) / 2) UNION ALL
    SELECT 4, repeat('ü', (506 * 1024 - 17) / 2 + 1) UNION ALL
    -- as they are written, not as they are
    SELECT 5, repeat('"', (506 * 1024 - 17) / 2) UNION ALL
    SELECT 6, repeat('"', (506 * 1024 - 17) / 2 + 1) UNION ALL
    SELECT 7, repeat(E'\x01', (506 * 1024 - 17) / 6) UNION ALL
    SELECT 8, repeat(E'\x01', (506 * 1024 - 17) / 6 + 1);
SELECT values->'id' AS id, length(values->>'body'), values->>'body' = body AS whole
FROM ectowatch_pending() JOIN longs ON id = (values->>'id')::integer ORDER BY 1;
COMMIT;
-- all of them can be read in the ring
SELECT count(*) FILTER (WHERE values ? 'body') AS whole, count(*) FILTER (WHERE NOT values ? 'body') AS partial
FROM ectowatch_changes(0, '{longs_inserted}', timeout => '10 s');

DO $$
DECLARE
    t text;
BEGIN
    DROP VIEW differing;
    DROP FUNCTION fixed(integer);
    DROP TABLE everything, longs;
    FOR t IN SELECT DISTINCT typname FROM samples s JOIN pg_type ON pg_type.oid = s.type LOOP
        EXECUTE format('DROP DOMAIN %I', 'd_' || t);
        EXECUTE format('DROP TYPE %I', 'c_' || t);
    END LOOP;
END $$;
DROP PROCEDURE insert_all;
DROP TABLE samples, numbers;
DROP FUNCTION mine(integer);
DROP OPERATOR ##### (integer, integer);
DROP TEXT SEARCH CONFIGURATION mine;
DROP COLLATION mine;
DROP EXTENSION ectowatch;
