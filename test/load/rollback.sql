-- the same, in vain
\set aid random(1, 100000 * :scale)
\set tid random(1, 10 * :scale)
\set bid random(1, :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta, v = v + 1 WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta, v = v + 1 WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta, v = v + 1 WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, now());
ROLLBACK;
