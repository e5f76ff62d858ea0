-- A row trigger in C that does nothing: what any trigger costs.
CREATE TRIGGER empty AFTER INSERT OR UPDATE OR DELETE ON :table
	FOR EACH ROW EXECUTE FUNCTION empty_trigger();
