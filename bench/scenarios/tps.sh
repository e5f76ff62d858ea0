# tps: transactions that update one row of a big table, found by key, while one
# session hears all that is sent.  Target 1.
#
# Cases: number of clients; synchronous_commit; and one client that shares one
# processor with its backend, where nothing is hidden by fsync or idle time
# (worker and listener then run on the others).  "worker" is the processor time
# that ectowatch's worker takes meanwhile: pgbench has so much less.

variants=(none empty plpgsql tcn pgq ectowatch)

# PgQ's consumer and ticker would run on while others have their turn.
groups=("none empty ectowatch plpgsql tcn" pgq)

# a NOTIFY wakes all listeners of its database
database_of=([plpgsql]=plpgsql [tcn]=tcn)
settings=("max_connections = 500")
turns_seconds=$((tps_times * duration))

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

	for variant in plpgsql tcn; do
		query -c "CREATE DATABASE ${database_of[$variant]}"
		in_database "$variant" query -f bench/init.sql
	done
	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows"
	done
}

measure()					# VARIANTS CLIENTS SYNCHRONOUS_COMMIT [PROCESSOR]
{
	local case="$2 clients, synchronous_commit $3" pinned=${4:-} variant pid before

	[ "$2" != 1 ] || case="1 client, synchronous_commit $3"
	[ -z "$pinned" ] || case="1 client on one processor, synchronous_commit $3"
	for variant in $1; do
		settle "$variant"
	done
	for variant in $1; do
		start_listening "$variant"
	done
	pid=$(worker_pid)
	before=$(processor_seconds "$pid")
	PGOPTIONS="-c synchronous_commit=$3" update_rows_in_turns "$1" "$2"
	for variant in $1; do
		record "$case" "$variant" "${tps_of[$variant]}" tps
		if [ "$variant" = ectowatch ]; then
			record "worker, $case" "$variant" \
				"$(calculate "100 * ($(processor_seconds "$pid") - $before) * ${tps_of[$variant]} / ${transactions_of[$variant]}")" "% of a processor"
		fi
	done
	for variant in $1; do
		end_listening "$variant" "${transactions_of[$variant]}"
	done
}
