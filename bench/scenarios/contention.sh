# contention: 64 clients that commit tiny transactions, with neither WAL of the
# table nor fsync to hide behind.  Target 8.
#
# What a transaction costs beyond one with the empty trigger is found by
# difference: processors * (1 / TPS - 1 / TPS of empty), as all processors are
# busy.  That is all that happens on the machine: hand-over and worker.  "worker"
# is its part, from the processor time that it took for both variants.  "Queue
# alone" is hand-over without a server: see clients/queue_alone.c.  A profile of some
# of the backends (an ordinary user's perf may lock only so much memory), if perf may
# make one, is kept beside the results, in contention.profile.

variants=(none empty ectowatch ectowatch-none)
groups=("${variants[*]}")
settings=("max_connections = 300" "$wait_for_room")

prepare()
{
	local variant

	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows" UNLOGGED
	done
}

measure()					# VARIANTS
{
	local case="64 clients, unlogged" variant pid before changes

	for variant in $1; do
		settle "$variant"
	done
	pid=$(worker_pid)
	start_counting
	before=$(processor_seconds "$pid")
	PGOPTIONS="-c synchronous_commit=off" update_rows_in_turns "$1" 64
	for variant in $1; do
		record "$case" "$variant" "${tps_of[$variant]}" tps
	done
	changes=$((${transactions_of[ectowatch]} + ${transactions_of[ectowatch-none]}))
	end_counting "$changes"
	record "worker, $case" ectowatch \
		"$(calculate "($(processor_seconds "$pid") - $before) / $changes * 1e6")" "µs of a processor per transaction"
}

after_round()
{
	local variant writers rate nanoseconds

	for variant in ectowatch ectowatch-none; do
		record "beyond empty, 64 clients, unlogged" "$variant" \
			"$(calculate "$processors * 1e6 * (1 / ${tps_of[$variant]} - 1 / ${tps_of[empty]})")" "µs of a processor per transaction"
	done
	for writers in 1 2 16 64; do
		"$clients_dir/queue_alone" "$writers" "$(calculate "$duration / 4")" >"$scratch/tmp/queue" || die "queue_alone failed"
		read -r rate nanoseconds <"$scratch/tmp/queue"
		record "queue alone, writers: $writers" ectowatch "$nanoseconds" "ns of a processor per batch"
		record "queue alone, rate, writers: $writers" ectowatch "$rate" "batches/s"
	done
}

finish()
{
	local writer pids profile=$scratch/output/contention.profile

	if ! command -v perf >/dev/null; then
		echo "there is no perf" >"$profile"
		return 0
	fi
	# long enough for samples of more than the start
	duration=$((3 * duration))
	PGAPPNAME=writer PGOPTIONS="-c synchronous_commit=off" update_rows ectowatch 64 &
	writer=$!
	until pids=$(query -c "SELECT string_agg(pid::text, ',' ORDER BY pid) FILTER (WHERE n <= 16)
				FROM (SELECT pid, row_number() OVER (ORDER BY pid) AS n FROM pg_stat_activity
					WHERE application_name = 'writer') s HAVING count(*) = 64") && [ -n "$pids" ]; do
		kill -0 $writer 2>/dev/null || break
	done
	if perf record -m 1 -e cpu-clock -F 4999 -p "$pids" -o "$scratch/tmp/perf.data" >"$scratch/tmp/perf.log" 2>&1; then
		perf report -i "$scratch/tmp/perf.data" --stdio --sort dso,symbol 2>/dev/null |
			awk 'NF && n++ < 60' >"$profile"
	else
		{ echo "perf may not:"; cat "$scratch/tmp/perf.log"; } >"$profile"
	fi
	wait $writer
}
