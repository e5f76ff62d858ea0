-- A table of a variant, before it gets its trigger; variables: table, rows,
-- persistence (empty or UNLOGGED).

CREATE :persistence TABLE :table (
	id int PRIMARY KEY,
	n int NOT NULL DEFAULT 0,
	filler text NOT NULL
) WITH (fillfactor = 50, autovacuum_enabled = off);
INSERT INTO :table SELECT i, 0, repeat('x', 60) FROM generate_series(1, :rows) AS i;
VACUUM ANALYZE :table;
