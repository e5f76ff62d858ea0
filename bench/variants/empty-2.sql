-- Two row triggers in C that do nothing.
\ir empty.sql
CREATE TRIGGER empty_2 AFTER INSERT OR UPDATE OR DELETE ON :table
	FOR EACH ROW EXECUTE FUNCTION empty_trigger();
