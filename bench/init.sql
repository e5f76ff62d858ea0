-- What the variants need, before there are tables: see lib.sh.

CREATE EXTENSION ectowatch;
CREATE EXTENSION tcn;

CREATE FUNCTION empty_trigger() RETURNS trigger LANGUAGE C AS 'empty_trigger';

-- the usual way, with the message that ectowatch sends
CREATE SEQUENCE positions CACHE 100;
CREATE FUNCTION notify_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	IF TG_OP = 'DELETE' THEN
		r := OLD;
	ELSE
		r := NEW;
	END IF;
	PERFORM pg_notify(TG_ARGV[0],
		json_build_object(
			'type', CASE TG_OP WHEN 'INSERT' THEN 'inserted'
				WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END,
			'values', json_build_object('id', r.id, 'n', r.n),
			'position', nextval('positions'))::text);
	RETURN NULL;
END $$;
