-- a row of the history that may or may not be there
\set id random(1, 50000)
BEGIN;
WITH deleted AS (DELETE FROM pgbench_history WHERE id = :id RETURNING 1) INSERT INTO history_deletions SELECT 1 FROM deleted;
COMMIT;
