-- Every update of a row increments its v, so that v tells how many updates
-- were committed, and that messages of one row come in order.

ALTER TABLE pgbench_accounts ADD COLUMN v int NOT NULL DEFAULT 0;
ALTER TABLE pgbench_tellers ADD COLUMN v int NOT NULL DEFAULT 0;
ALTER TABLE pgbench_branches ADD COLUMN v int NOT NULL DEFAULT 0;
ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY;

-- what was deleted is in no table; the transactions that do it tell here
CREATE TABLE history_deletions (rows int NOT NULL);

CREATE TABLE done (id int PRIMARY KEY);

SELECT ectowatch_watch('pgbench_accounts', 'updated', extra_columns => '{v}');
SELECT ectowatch_watch('pgbench_tellers', 'updated', extra_columns => '{v}');
SELECT ectowatch_watch('pgbench_branches', 'updated', extra_columns => '{v}');
SELECT ectowatch_watch('pgbench_history', 'inserted', extra_columns => '{tid,bid,aid}');
SELECT ectowatch_watch('pgbench_history', 'deleted');
SELECT ectowatch_watch('done', 'inserted');
