# tps: transactions that update one row of a big table, found by key, while one
# session hears all that is sent.  Target 1.
#
# Cases: number of clients; synchronous_commit; and one client that shares one
# processor with its backend, where nothing is hidden by fsync or idle time
# (worker and listener then run on the others).  "worker" is the processor time
# that ectowatch's worker takes meanwhile: pgbench has so much less.

variants=(none empty plpgsql tcn pgq ectowatch)

# clients, synchronous_commit, and maybe a processor
cases=()
for clients in $tps_clients; do
	cases+=("$clients on")
done
for clients in $tps_clients_off; do
	cases+=("$clients off")
done
cases+=("1 off 0")

prepare()
{
	local variant

	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows"
	done
}

measure()					# VARIANT CLIENTS SYNCHRONOUS_COMMIT [PROCESSOR]
{
	local case="$2 clients, synchronous_commit $3" pinned=${4:-} before=0 pid pinning

	[ "$2" != 1 ] || case="1 client, synchronous_commit $3"
	[ -z "$pinned" ] || case="1 client on one processor, synchronous_commit $3"
	settle "$1"
	start_listening "$1"
	if [ "$1" = ectowatch ]; then
		pid=$(worker_pid)
		before=$(processor_seconds "$pid")
	fi
	# a backend runs where the server may: pin it by the program it serves
	if [ -n "$pinned" ]; then
		pin_backends "$pinned" &
		pinning=$!
	fi
	PGAPPNAME=writer PGOPTIONS="-c synchronous_commit=$3" update_rows "$1" "$2"
	if [ -n "$pinned" ]; then
		wait "$pinning" || die "could not pin the backend"
	fi
	record "$case" "$1" "$tps" tps
	if [ "$1" = ectowatch ]; then
		record "worker, $case" "$1" \
			"$(calculate "100 * ($(processor_seconds "$pid") - $before) / $duration")" "% of a processor"
	fi
	end_listening "$1" "$transactions"
}

# pgbench's first connection only looks around: wait for one that stays.
pin_backends()				# PROCESSOR
{
	local pid=- last=

	until [ -n "$pid" ] && [ "$pid" = "$last" ]; do
		last=$pid
		sleep 0.05
		pid=$(query -c "SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'writer'")
	done
	taskset -cp "$1" "$pid" >/dev/null
}
