# quiet: what watchers cost whom nobody hears.  Target 6.
#
# As tps, by 16 clients, without a listener or reader: a watcher with a message
# per change, one with delivery none, and one whose writers are muted.  And, of
# each alone, WAL per transaction, and the xids that are taken beyond those of the
# writers.
#
# And an idle server, on which all these watchers are: how often launcher and
# worker wake up (context switches of any kind), WAL and xids meanwhile.

variants=(none empty ectowatch ectowatch-none ectowatch-mute)
groups=("${variants[*]}")
options_of[ectowatch-mute]="-c ectowatch.mute=on"
cases=(on off)				# synchronous_commit

alone=500					# transactions of each client

prepare()
{
	local variant

	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows"
	done
}

# WAL in bytes and the next xid
counters()
{
	query -F ' ' -c "SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot())"
}

measure()					# VARIANTS SYNCHRONOUS_COMMIT
{
	local case="16 clients, synchronous_commit $2" variant

	for variant in $1; do
		settle "$variant"
	done
	start_counting
	PGOPTIONS="-c synchronous_commit=$2" update_rows_in_turns "$1" 16
	end_counting $((${transactions_of[ectowatch]} + ${transactions_of[ectowatch-none]}))
	for variant in $1; do
		record "$case" "$variant" "${tps_of[$variant]}" tps
		measure_alone "$variant" "$2"
	done
}

measure_alone()				# VARIANT SYNCHRONOUS_COMMIT
{
	local case="16 clients, synchronous_commit $2"
	local wal xid wal_before xid_before

	settle "$1"
	read -r wal_before xid_before < <(counters)
	start_counting
	PGOPTIONS="-c synchronous_commit=$2 ${options_of[$1]:-}" update_rows "$1" 16 -t $alone
	case $1 in
		ectowatch | ectowatch-none) end_counting "$transactions" ;;
	esac
	read -r wal xid < <(counters)
	record "WAL, $case" "$1" "$(calculate "($wal - $wal_before) / $transactions")" "bytes/transaction"
	record "xids, $case" "$1" "$((xid - xid_before - transactions))" "xids beyond those of writers"
}

switches()					# PID
{
	awk '/ctxt_switches/ { n += $2 } END { print n }' "/proc/$1/status"
}

after_round()
{
	# once is enough: nothing else goes on in this server
	[ "$round" = "$rounds" ] || return 0

	local launcher worker launcher_before worker_before wal xid wal_before xid_before

	launcher=$(launcher_pid)
	worker=$(worker_pid)
	query -c CHECKPOINT
	sleep 1
	read -r wal_before xid_before < <(counters)
	launcher_before=$(switches "$launcher")
	worker_before=$(switches "$worker")
	sleep "$idle_seconds"
	record "idle, launcher" ectowatch "$(calculate "($(switches "$launcher") - $launcher_before) / $idle_seconds")" "wake-ups/s"
	record "idle, worker" ectowatch "$(calculate "($(switches "$worker") - $worker_before) / $idle_seconds")" "wake-ups/s"
	read -r wal xid < <(counters)
	record "idle, WAL" ectowatch "$((wal - wal_before))" "bytes of WAL"
	record "idle, xids" ectowatch "$((xid - xid_before))" xids
}
