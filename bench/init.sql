-- A table per variant, all of one shape, which differ by their trigger.

CREATE EXTENSION ectowatch;

CREATE TABLE bench_none (
	id int PRIMARY KEY,
	n int NOT NULL DEFAULT 0,
	filler text NOT NULL
) WITH (fillfactor = 50, autovacuum_enabled = off);
CREATE TABLE bench_empty (LIKE bench_none INCLUDING ALL) WITH (fillfactor = 50, autovacuum_enabled = off);
CREATE TABLE bench_plpgsql (LIKE bench_none INCLUDING ALL) WITH (fillfactor = 50, autovacuum_enabled = off);
CREATE TABLE bench_ectowatch (LIKE bench_none INCLUDING ALL) WITH (fillfactor = 50, autovacuum_enabled = off);

INSERT INTO bench_none SELECT i, 0, repeat('x', 60) FROM generate_series(1, 200000) AS i;
INSERT INTO bench_empty TABLE bench_none;
INSERT INTO bench_plpgsql TABLE bench_none;
INSERT INTO bench_ectowatch TABLE bench_none;

CREATE FUNCTION empty_trigger() RETURNS trigger LANGUAGE C AS 'empty_trigger';
CREATE TRIGGER empty AFTER UPDATE ON bench_empty
	FOR EACH ROW EXECUTE FUNCTION empty_trigger();

-- the usual way, with the message that ectowatch sends
CREATE SEQUENCE positions CACHE 100;
CREATE FUNCTION notify_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('bench_plpgsql_updated',
		json_build_object(
			'type', 'updated',
			'values', json_build_object('id', NEW.id, 'n', NEW.n),
			'position', nextval('positions'))::text);
	RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER UPDATE ON bench_plpgsql
	FOR EACH ROW EXECUTE FUNCTION notify_trigger();

SELECT ectowatch_watch('bench_ectowatch', 'updated', extra_columns => '{n}');

-- the last message of a measurement
CREATE TABLE bench_end (id int PRIMARY KEY);
SELECT ectowatch_watch('bench_end', 'inserted');

VACUUM ANALYZE;
