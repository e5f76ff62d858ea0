SELECT watcher, type, changes
FROM (
	SELECT 'pgbench_accounts_updated', 'updated', sum(v) FROM pgbench_accounts
	UNION ALL
	SELECT 'pgbench_tellers_updated', 'updated', sum(v) FROM pgbench_tellers
	UNION ALL
	SELECT 'pgbench_branches_updated', 'updated', sum(v) FROM pgbench_branches
	UNION ALL
	SELECT 'pgbench_history_inserted', 'inserted',
		(SELECT count(*) FROM pgbench_history) + (SELECT count(*) FROM history_deletions)
	UNION ALL
	SELECT 'pgbench_history_deleted', 'deleted', count(*) FROM history_deletions
	UNION ALL
	SELECT 'done_inserted', 'inserted', count(*) FROM done
) AS committed (watcher, type, changes)
ORDER BY watcher, type;
