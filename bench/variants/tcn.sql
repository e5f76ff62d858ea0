-- contrib's tcn: a row trigger in C that sends the key by NOTIFY.
CREATE TRIGGER tcn AFTER INSERT OR UPDATE OR DELETE ON :table
	FOR EACH ROW EXECUTE FUNCTION triggered_change_notification(:'channel');
