-- many rows at once, locked in the order of their key so that two of these
-- transactions wait for each other in one direction only
\set first random(1, 100000 * :scale - 999)
BEGIN;
SELECT count(*) FROM (SELECT FROM pgbench_accounts WHERE aid BETWEEN :first AND :first + 999 ORDER BY aid FOR UPDATE) AS locked;
UPDATE pgbench_accounts SET v = v + 1 WHERE aid BETWEEN :first AND :first + 999;
COMMIT;
