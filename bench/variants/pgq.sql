-- PgQ: a row trigger in C that inserts the row into a queue, which is a table.
CREATE EXTENSION IF NOT EXISTS pgq;
SELECT pgq.create_queue('bench'), pgq.register_consumer('bench', 'bench');
-- ticks as often as the consumer asks for them, and no rotation of tables
UPDATE pgq.queue SET
	queue_ticker_max_lag = '0.05 s',
	queue_ticker_idle_period = '0.05 s',
	queue_rotation_period = '1 year';
CREATE TRIGGER pgq AFTER INSERT OR UPDATE OR DELETE ON :table
	FOR EACH ROW EXECUTE FUNCTION pgq.logutriga('bench');
