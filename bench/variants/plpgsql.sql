-- A row trigger in PL/pgSQL that calls pg_notify(): what most people have.
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON :table
	FOR EACH ROW EXECUTE FUNCTION notify_trigger(:'channel');
