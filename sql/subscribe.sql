--
-- Narrowed channels: their names, and who is noted as listening to them.
--
CREATE EXTENSION ectowatch;
CREATE TABLE users (id integer PRIMARY KEY, name text, role_id integer);
SELECT ectowatch_watch('users', 'updated', extra_columns => '{name,role_id}');

--
-- Names: <watcher>|<column>|<value>
--
SELECT ectowatch_channel('users_updated');
-- of a key, and of any column that is delivered
SELECT ectowatch_channel('users_updated', '42');
SELECT ectowatch_channel('users_updated', 'role_id', '7');
SELECT ectowatch_channel(watcher => 'users_updated', column_name => 'name', value => 'Ann');
-- values of any type: literals, numbers, and parameters without a type
SELECT ectowatch_channel('users_updated', 42), ectowatch_channel('users_updated', 42::bigint),
    ectowatch_channel('users_updated', 42::numeric), ectowatch_channel('users_updated', '042');
PREPARE untyped AS SELECT ectowatch_channel('users_updated', $1), ectowatch_channel('users_updated', 'role_id', $2);
EXECUTE untyped('42', '7');
PREPARE typed(integer, varchar) AS SELECT ectowatch_channel('users_updated', $1), ectowatch_channel('users_updated', 'name', $2);
EXECUTE typed(42, 'Ann');
-- a text may have what separates the parts, and may be empty
SELECT ectowatch_channel('users_updated', 'name', 'a|b'), ectowatch_channel('users_updated', 'name', '');
-- it is taken as it is, with no escapes
SELECT ectowatch_channel('users_updated', 'name', E'back\\slash\ttab'), ectowatch_channel('users_updated', 'name', 'Zoë');

--
-- Hashed names: where it has more than 63 bytes, or a double quote
--
SELECT ectowatch_channel('users_updated', 'name', repeat('x', 44)) AS fits;
SELECT ectowatch_channel('users_updated', 'name', repeat('x', 45)) AS hashed;
SELECT ectowatch_channel('users_updated', 'name', 'say "hi"');
-- what a client computes: the watcher's name, clipped to 30 bytes, 8 hex digits
-- of its SHA-256, and 24 of that of the whole name
CREATE FUNCTION hashed(watcher text, whole text) RETURNS text LANGUAGE sql AS $$
    SELECT left(watcher, 30) || '|' || left(encode(sha256(convert_to(watcher, 'UTF8')), 'hex'), 8) ||
        left(encode(sha256(convert_to(whole, 'UTF8')), 'hex'), 24)
$$;
SELECT ectowatch_channel('users_updated', 'name', 'say "hi"') =
    hashed('users_updated', 'users_updated|name|say "hi"') AS same;
-- watchers whose names begin alike have hashed channels of their own
SELECT ectowatch_watch('users', 'updated', 'a name that is much longer than thirty bytes, one', extra_columns => '{name}');
SELECT ectowatch_watch('users', 'updated', 'a name that is much longer than thirty bytes, two', extra_columns => '{name}');
SELECT ectowatch_channel('a name that is much longer than thirty bytes, one', 1);
SELECT ectowatch_channel('a name that is much longer than thirty bytes, ' || w, 'name', repeat('x', 20))
FROM unnest('{one,two}'::text[]) w;
SELECT ectowatch_subscribe('a name that is much longer than thirty bytes, ' || w, 'name', repeat('x', 20))
FROM unnest('{one,two}'::text[]) w;
SELECT watcher, channel FROM ectowatch_stat_subscriptions ORDER BY watcher;
UNLISTEN *;
-- a name is clipped at the end of a character
SELECT ectowatch_watch('users', 'updated', 'aéééééééééééééééééééé', extra_columns => '{name}');
SELECT ectowatch_channel('aéééééééééééééééééééé', 'name', repeat('x', 20));

--
-- A key of several columns is a JSON object
--
CREATE TABLE seats (hall text, "row" integer, taken boolean, PRIMARY KEY (hall, "row"));
SELECT ectowatch_watch('seats', 'updated', extra_columns => '{taken}');
SELECT ectowatch_channel('seats_updated', '{"hall":"main","row":7}');
SELECT ectowatch_channel('seats_updated', '{"hall":"main","row":7}') =
    hashed('seats_updated', 'seats_updated|hall,row|{"hall":"main","row":7}') AS same;
-- in any order, and of any type that is JSON
SELECT ectowatch_channel('seats_updated', '{"row": "007", "hall": "main"}'::jsonb);
-- a part of it is a column as others are
SELECT ectowatch_channel('seats_updated', 'hall', 'main');

--
-- column_map: names are those of messages
--
SELECT ectowatch_watch('users', 'deleted', extra_columns => '{role_id}',
    column_map => '{"id": "key", "role_id": "role|id"}');
SELECT ectowatch_channel('users_deleted', 42), ectowatch_channel('users_deleted', 'key', 42);
-- one with a separator in it is hashed, or it could not be told where it ends
SELECT ectowatch_channel('users_deleted', 'role|id', 7);
SELECT ectowatch_channel('users_deleted', 'role_id', 7);

--
-- Values: as messages render them, whatever the session's settings are
--
CREATE TYPE mood AS ENUM ('sad', 'ok', 'very "happy"');
CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE vals (
    i2 smallint, i8 bigint, n numeric(6,2), f4 real, f8 double precision, b boolean,
    t text, vc varchar(3), c char(5), u uuid, d date, ts timestamp, tz timestamptz(0),
    iv interval, by bytea, m mood, p percent, a integer[], pr pair, j json, jb jsonb,
    r int4range, ip inet, id integer PRIMARY KEY
);
SELECT ectowatch_watch('vals', 'updated', 'v', extra_columns => '{*}');
SET TimeZone = 'Europe/Berlin';
SET DateStyle = 'German';
SET IntervalStyle = 'sql_standard';
SET bytea_output = 'escape';
SET extra_float_digits = -15;
-- a message that arrives is on the channels whose names these functions say:
-- what a subscriber writes, and the part behind the last separator
CREATE FUNCTION shown(column_name text, value text) RETURNS text LANGUAGE sql AS $$
    SELECT format('%-4s %-34s %s', column_name, value, ectowatch_channel('v', column_name, value))
$$;
SELECT shown(c, v) FROM (VALUES
    ('i2', '007'), ('i8', ' 9007199254740993 '), ('n', '7'), ('n', '1e3'), ('n', 'NaN'),
    ('f4', '0.1'), ('f8', '1e300'), ('f8', '-Infinity'), ('b', 'yes'), ('t', ' 007 '),
    ('vc', 'abc'), ('c', 'ab'), ('u', 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'),
    ('d', '24.12.2026'), ('ts', '24.12.2026 18:00'), ('tz', '24.12.2026 18:00'),
    ('iv', '90 minutes'), ('by', 'a\001'), ('m', 'ok'), ('m', 'very "happy"'), ('p', '42'),
    ('a', '{1, 2}'), ('r', '[1,5]'), ('ip', '10.0.0.1/32')) AS x(c, v);
-- those with quotes in their JSON
SELECT ectowatch_channel('v', 'pr', '(1,x)') = hashed('v', 'v|pr|{"a":1,"b":"x"}') AS pair,
    ectowatch_channel('v', 'j', '{"k" :1}') = hashed('v', 'v|j|{"k" :1}') AS json,
    ectowatch_channel('v', 'jb', '{"k" :1}') = hashed('v', 'v|jb|{"k": 1}') AS jsonb;
-- values with types lose nothing on their way
SELECT ectowatch_channel('v', 'f8', 0.1::float8 + 0.2::float8),
    ectowatch_channel('v', 'd', DATE '24.12.2026'),
    ectowatch_channel('v', 'tz', TIMESTAMPTZ '24.12.2026 18:00:00.4'),
    ectowatch_channel('v', 'tz', DATE '24.12.2026'),
    ectowatch_channel('v', 'iv', INTERVAL '-1-2 -3 -4:05:06');
SELECT ectowatch_channel('v', 'm', 'ok'::mood), ectowatch_channel('v', 'u', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid),
    ectowatch_channel('v', 'by', '\x6101'::bytea), ectowatch_channel('v', 'p', 42::percent),
    ectowatch_channel('v', 'c', 'ab'::char(2)), ectowatch_channel('v', 'n', 1.005);
RESET TimeZone;
RESET DateStyle;
RESET IntervalStyle;
RESET bytea_output;
RESET extra_float_digits;
-- what could not be in the column is an error
SELECT ectowatch_channel('v', 'p', 101);
SELECT ectowatch_channel('v', 'vc', 'abcd');
SELECT ectowatch_channel('v', 'm', 'happy');
SELECT ectowatch_channel('v', 'i2', 100000);
SELECT ectowatch_channel('users_updated', '4x2');

--
-- Errors, the same for all three functions
--
SELECT ectowatch_channel(NULL);
SELECT ectowatch_channel('nobody');
SELECT ectowatch_subscribe('nobody', 1);
SELECT ectowatch_unsubscribe('nobody', 'id', 1);
SELECT ectowatch_subscribe('users_updated', NULL);
SELECT ectowatch_subscribe('users_updated', NULL::integer);
SELECT ectowatch_channel('users_updated', 'role_id', NULL);
SELECT ectowatch_channel('users_updated', NULL, '7');
SELECT ectowatch_channel('v', 'j', 'null');
SELECT ectowatch_channel('users_updated', 'email', 'x');
-- no one can know the key of inserted; of a part of it one can
SELECT ectowatch_watch('users', 'inserted', extra_columns => '{role_id}');
SELECT ectowatch_subscribe('users_inserted', 42);
SELECT ectowatch_subscribe('users_inserted', 'id', 42);
SELECT ectowatch_channel('users_inserted', 'role_id', 7);
SELECT ectowatch_watch('seats', 'inserted');
SELECT ectowatch_channel('seats_inserted', '{"hall":"main","row":7}');
SELECT ectowatch_channel('seats_inserted', 'hall', 'main');
SELECT ectowatch_watch('users', 'truncated');
SELECT ectowatch_channel('users_truncated', 42);
SELECT ectowatch_channel('users_truncated', 'id', 42);
-- a key of several columns, and what is none
SELECT ectowatch_channel('seats_updated', 'main');
SELECT ectowatch_channel('seats_updated', '{"hall":"main"}');
SELECT ectowatch_channel('seats_updated', '{"hall":"main","row":7,"taken":true}');
SELECT ectowatch_channel('seats_updated', '{"hall":"main","seat":7}');
SELECT ectowatch_channel('seats_updated', '["main",7]');
SELECT ectowatch_channel('seats_updated', '{"hall":"main","row":null}');
SELECT ectowatch_channel('seats_updated', 'hall', NULL);
-- columns, then the table, are gone
CREATE TABLE gone (id integer PRIMARY KEY, a integer);
SELECT ectowatch_watch('gone', 'updated', 'gone', key_columns => '{id,a}');
ALTER TABLE gone DROP COLUMN a;
SELECT ectowatch_channel('gone', '{"id":1,"a":2}');
SELECT ectowatch_channel('gone', 'a', 2);
SELECT ectowatch_channel('gone', 'id', 1);
DROP TABLE gone;
SELECT ectowatch_channel('gone', 'id', 1);

--
-- Subscriptions: LISTEN and ectowatch_subscribe() are the same
--
\d ectowatch_stat_subscriptions
CREATE VIEW mine AS
    SELECT watcher, channel, narrowed FROM ectowatch_stat_subscriptions
    WHERE pid = pg_backend_pid() ORDER BY channel COLLATE "C";
SELECT ectowatch_subscribe('users_updated'), ectowatch_subscribe('users_updated', 42),
    ectowatch_subscribe('users_updated', 'name', 'say "hi"');
LISTEN "users_updated|role_id|7";
-- of a watcher that may still come
LISTEN "tomorrow|id|1";
-- a second time makes no second one
LISTEN "users_updated|role_id|7";
-- core's business
LISTEN other;
SELECT * FROM mine;
SELECT pg_listening_channels() COLLATE "C" ORDER BY 1;
SELECT usename = session_user AS usename, application_name, since <= now() AS since
FROM ectowatch_stat_subscriptions WHERE pid = pg_backend_pid() AND NOT narrowed;
SELECT ectowatch_unsubscribe('users_updated', '042');
UNLISTEN "users_updated|role_id|7";
-- a whole watcher's can be left when it is gone
SELECT ectowatch_unsubscribe('tomorrow');
SELECT * FROM mine;
UNLISTEN *;
SELECT * FROM mine;
-- a LISTEN that hears of no row is most likely a mistake
LISTEN "users_updated|email|x";
SELECT ectowatch_subscribe('users_updated', 42);
DISCARD ALL;
SELECT * FROM mine;

--
-- Transactions: from the commit on
--
BEGIN;
SELECT ectowatch_subscribe('users_updated', 1);
SELECT * FROM mine;
ROLLBACK;
SELECT * FROM mine;
BEGIN;
SELECT ectowatch_subscribe('users_updated', 1);
SAVEPOINT a;
SELECT ectowatch_subscribe('users_updated', 2);
SAVEPOINT b;
SELECT ectowatch_subscribe('users_updated', 3);
RELEASE SAVEPOINT b;
ROLLBACK TO SAVEPOINT a;
SAVEPOINT c;
SELECT ectowatch_subscribe('users_updated', 4);
RELEASE SAVEPOINT c;
RELEASE SAVEPOINT a;
COMMIT;
SELECT * FROM mine;
-- UNLISTEN, too
BEGIN;
UNLISTEN "users_updated|id|1";
SELECT * FROM mine;
ROLLBACK;
SELECT * FROM mine;
BEGIN;
UNLISTEN *;
LISTEN "users_updated|id|4";
LISTEN "users_updated|id|5";
LISTEN "users_updated|id|6";
UNLISTEN "users_updated|id|6";
SAVEPOINT a;
UNLISTEN *;
ROLLBACK TO SAVEPOINT a;
COMMIT;
SELECT * FROM mine;
-- in functions, with errors caught there
DO $$
BEGIN
    LISTEN "users_updated|id|7";
    BEGIN
        LISTEN "users_updated|id|8";
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    EXECUTE 'UNLISTEN "users_updated|id|5"';
END
$$;
SELECT * FROM mine;
-- each commit counts, also where a procedure makes several
DO $$
BEGIN
    LISTEN "users_updated|id|9";
    COMMIT;
    UNLISTEN "users_updated|id|7";
    ROLLBACK;
END
$$;
SELECT * FROM mine;
SELECT channel FROM mine EXCEPT SELECT pg_listening_channels();

--
-- A value that others' code may render is, even where a parallel plan would do
--
CREATE TABLE many AS SELECT i FROM generate_series(1, 100) i;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(DISTINCT ectowatch_channel('v', 'pr', ROW(i, 'x')::pair)),
    count(DISTINCT ectowatch_channel('v', 'pr', format('(%s,x)', i))) FROM many;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
DROP TABLE many;

--
-- Others see who listens, but not to which values
--
CREATE ROLE regress_ectowatch_other;
SET ROLE regress_ectowatch_other;
SELECT watcher, channel, narrowed FROM ectowatch_stat_subscriptions ORDER BY channel;
RESET ROLE;

--
-- A watcher may come later than its subscriptions
--
UNLISTEN *;
LISTEN "tomorrow|id|1";
SELECT * FROM mine;
SELECT ectowatch_watch('users', 'updated', 'tomorrow');
SELECT * FROM mine;
UNLISTEN *;
SELECT count(*) FROM ectowatch_stat_subscriptions;

DROP ROLE regress_ectowatch_other;
DROP TABLE users, seats, vals;
DROP VIEW mine;
DROP FUNCTION hashed, shown;
DROP TYPE mood, percent, pair;
DROP EXTENSION ectowatch;
-- without the extension it is all core's business
LISTEN "users_updated|id|1";
UNLISTEN *;
