# lib.sh
#	What the scenarios are made of.  Sourced by bench/run.
#
# A scenario is a file in bench/scenarios.  It sets "variants", the names of what
# is compared, maybe "groups" of them, each some that are measured at once, maybe
# "cases", each some words that say what is measured of all variants before the
# next one, and maybe "settings", lines of postgresql.conf; and it defines
#
#	prepare				once, in a new cluster: creates tables
#	measure VARIANT [WORD...]
#						one case of one variant, or of a group; calls record
#
# and maybe "before_round" and "after_round", called around the measurements of
# each round, and "finish", at the end.
#
# Of a variant there is a table, which create_table makes, with what
# variants/VARIANT.sql adds to it.
#
# Copyright (c) 2026, the ectowatch authors

clients_dir=bench/clients

# psql, without anything but what was asked for
query()
{
	psql -XqAt -v ON_ERROR_STOP=1 "$@"
}

# For scenarios where writers do little else than fill the queue: they wait for
# room there, rather than make a gap after 5 ms.
wait_for_room="ectowatch.queue_timeout = '1s'"

# ----- results -----

# record CASE VARIANT VALUE UNIT: a measured value of this round
record()
{
	[[ $3 =~ ^-?[0-9]+(\.[0-9]+)?$ ]] || die "$scenario, $1, $2: \"$3\" is no number"
	printf '%s: %s\t%s\t%s\t%s\t%s\n' "$scenario" "$1" "$2" "$round" "$3" "$4" >>"$values"
}

calculate()				# EXPRESSION of awk
{
	awk "BEGIN { printf \"%.6f\", $1 }"
}

commas()					# NUMBER
{
	sed -E ':again; s/^([0-9]+)([0-9]{3})/\1,\2/; t again' <<<"$1"
}

# ----- tables -----

table()						# VARIANT
{
	echo "bench_${1//-/_}"
}

# The database of variants that have one of their own, if some have.
declare -A database_of

in_database()				# VARIANT COMMAND...
{
	PGDATABASE=${database_of[$1]:-$PGDATABASE} "${@:2}"
}

# create_table VARIANT ROWS [PERSISTENCE]: its table, with ids from 1 on
create_table()
{
	in_database "$1" query -o /dev/null -v table="$(table "$1")" -v rows="$2" -v persistence="${3:-}" \
		-v channel="$(channel "$1")" -f bench/table.sql -f "bench/variants/$1.sql"
}

# Every measurement finds a table without dead rows, and no checkpoint due.
settle()					# VARIANT
{
	in_database "$1" query -c "VACUUM $(table "$1")" -c CHECKPOINT
}

# ----- who is told -----

# The channel of a variant's messages; empty if it sends none.
channel()
{
	case $1 in
		raw | plpgsql | tcn | ectowatch-notify) echo "bench_$1" ;;
		ectowatch | ectowatch-doorbell) echo "$(table "$1")_changed" ;;
	esac
}

# Starts a client and waits until it is ready; sets "started", its pid.
start_client()				# OUTPUT COMMAND...
{
	local output=$1
	shift

	# not what an earlier client said
	: >"$output"
	"$@" >"$output" &
	started=$!
	until grep -qx ready "$output"; do
		kill -0 "$started" 2>/dev/null || die "a client ended: $*"
		sleep 0.02
	done
}

# Starts what hears the messages of a variant, if it sends any: one session, or
# as many as given.
declare -A listener_of
start_listening()			# VARIANT [SESSIONS]
{
	local heard=$scratch/tmp/heard.$1

	case $1 in
		raw | plpgsql | tcn | ectowatch*)
			in_database "$1" start_client "$heard" "$clients_dir/hear" --sessions "${2:-1}" \
				--until bench_end --timeout "$patience" "" \
				"LISTEN \"$(channel "$1")\"" "LISTEN bench_end"
			listener_of[$1]=$started
			;;
		pgq)
			start_client "$heard" "$clients_dir/pgq_consumer" "" "$patience"
			listener_of[$1]=$started
			;;
	esac
}

# Waits until all was heard, and checks that it is what was committed.  Sets
# "heard_seconds", the time from the first to the last message.
end_listening()				# VARIANT CHANGES
{
	local least greatest

	heard_seconds=
	[ -n "${listener_of[$1]:-}" ] || return 0
	case $1 in
		raw | plpgsql | tcn) in_database "$1" query -o /dev/null -c "SELECT pg_notify('bench_end', 'end')" ;;
		ectowatch*) query -o /dev/null -c "SELECT ectowatch_notify('bench_end', 'end')" ;;
		pgq) query -o /dev/null -c "SELECT pgq.insert_event('bench', 'end', '')" ;;
	esac
	wait "${listener_of[$1]}" || die "$scenario, $1: the listening client failed"
	unset "listener_of[$1]"
	read -r least greatest heard_seconds < <(tail -n 1 "$scratch/tmp/heard.$1")
	[ "$least" = "$2" ] && [ "$greatest" = "$2" ] ||
		die "$scenario, $1: $2 changes were committed, $least to $greatest were heard"
}

# Where nobody listens, the statistics have the count: start_counting,
# end_counting CHANGES, which waits until the worker has seen all.
start_counting()
{
	counted_before=$(query -c "SELECT changes FROM ectowatch_stat")
}

end_counting()
{
	local i changes lost

	for ((i = 0; i < patience * 20; i++)); do
		IFS='|' read -r changes lost < <(query -c "SELECT changes - $counted_before, lost FROM ectowatch_stat")
		[ "$lost" = 0 ] || die "$scenario: $lost changes were lost"
		[ "$changes" -lt "$1" ] || break
		sleep 0.05
	done
	[ "$changes" = "$1" ] || die "$scenario: $1 changes were committed, $changes were counted"
}

# Ends a client that would not end by itself; what it printed last is in its output.
stop_client()				# PID
{
	kill -TERM "$1"
	wait "$1" || die "$scenario: a client failed"
}

# ----- who writes -----

# Runs pgbench for the time of this run, unless an option -t says how often;
# sets "tps" and "transactions".
run_pgbench()				# CLIENTS SCRIPT [OPTION...]
{
	local clients=$1 script=$2 output=$scratch/tmp/pgbench threads length="-T $duration"
	shift 2
	[[ " $* " != *" -t "* ]] || length=

	threads=$((clients < processors ? clients : processors))
	${pinned:+taskset -c "$pinned"} pgbench -n -M prepared -c "$clients" -j "$threads" \
		$length -f "$script" "$@" >"$output" 2>&1 ||
		{ cat "$output"; die "pgbench failed"; }
	tps=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$output")
	transactions=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$output")
}

update_script()				# VARIANT
{
	printf '%s\n' "\\set id random(1, $rows)" "UPDATE $(table "$1") SET n = n + 1 WHERE id = :id;"
}

# Updates of single rows of a variant's table by CLIENTS sessions.
update_rows()				# VARIANT CLIENTS [OPTION...]
{
	update_script "$1" >"$scratch/tmp/update.sql"
	run_pgbench "$2" "$scratch/tmp/update.sql" "${@:3}"
}

# Waits until a pgbench writes; so all of its sessions are there, and the one that
# only looked around is gone.
await_writing()				# APPLICATION_NAME PID
{
	until [ "$(query -c "SELECT count(*) FROM pg_stat_activity
			WHERE application_name = '$1' AND query LIKE 'UPDATE%'")" -gt 0 ]; do
		kill -0 "$2" 2>/dev/null || die "$scenario: $1 ended"
		sleep 0.02
	done
}

rows_updated()				# VARIANT
{
	in_database "$1" query -c "SELECT sum(n) FROM $(table "$1")"
}

# Lets processes run in turns, each for "turns_seconds" or else the time of this
# run, in an order that changes; sets "ran", how many seconds each had.
take_turns()				# TURNS_PER_SECOND PID...
{
	local turn i start turns=$(($1 * ${turns_seconds:-$duration})) length order pids=("${@:2}")

	length=$(calculate "1 / $1")
	ran=()
	for ((turn = 0; turn < turns; turn++)); do
		mapfile -t order < <(shuf -i 0-$((${#pids[@]} - 1)))
		for i in "${order[@]}"; do
			start=$EPOCHREALTIME
			kill -CONT "${pids[i]}"
			sleep "$length"
			kill -STOP "${pids[i]}"
			ran[i]=$(calculate "${ran[i]:-0} + $EPOCHREALTIME - $start")
		done
	done
}

# The same as update_rows for some variants, which differ by a few percent: their
# sessions are all there, and one variant's at a time have work.  So what else goes
# on in the machine, which changes by the second, hits all alike.  Sets "tps_of" and
# "transactions_of" each variant, of which the latter has some more.
#
# At the end of a turn each client has a transaction under way, which is done in
# the next one's time.  That is as long as the other's own, if they are alike;
# what they differ by would be shown too small by its part of a turn.  So the more
# clients, the longer are turns.
# A variant's sessions have the settings of "options_of", if that has some.
declare -A tps_of transactions_of options_of
update_rows_in_turns()		# VARIANTS CLIENTS
{
	local variant pids=() before=() i=0 output=$scratch/tmp/pgbench
	local threads=$(($2 < processors ? $2 : processors))

	for variant in $1; do
		update_script "$variant" >"$scratch/tmp/update.$variant.sql"
		PGAPPNAME=writer-$variant PGDATABASE=${database_of[$variant]:-$PGDATABASE} PGOPTIONS="${PGOPTIONS:-} ${options_of[$variant]:-}" \
			${pinned:+taskset -c "$pinned"} pgbench -n -M prepared \
			-c "$2" -j "$threads" -T $((patience + 10 * duration)) -f "$scratch/tmp/update.$variant.sql" >"$output.$variant" 2>&1 &
		pids+=($!)
		await_writing "writer-$variant" $!
		kill -STOP $!
	done
	[ -z "${pinned:-}" ] || pin_sessions "$pinned"
	# what has begun ends
	sleep 0.2
	for variant in $1; do
		before+=("$(rows_updated "$variant")")
	done
	take_turns $(($2 > 16 ? 2 : 10)) "${pids[@]}"
	sleep 0.2
	for variant in $1; do
		tps_of[$variant]=$(calculate "($(rows_updated "$variant") - ${before[i]}) / ${ran[i]}")
		i=$((i + 1))
	done
	# SIGALRM tells pgbench that its time is over
	kill -ALRM "${pids[@]}"
	kill -CONT "${pids[@]}"
	i=0
	for variant in $1; do
		wait "${pids[i]}" || { cat "$output.$variant"; die "pgbench failed"; }
		transactions_of[$variant]=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$output.$variant")
		i=$((i + 1))
	done
}

# A backend runs where the server may: pin it by the program it serves.
pin_sessions()				# PROCESSOR
{
	local pid pids

	pids=$(query -c "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'writer-%'")
	for pid in $pids; do
		taskset -cp "$1" "$pid" >/dev/null
	done
}

# ----- what it costs otherwise -----

worker_pid()
{
	query -c "SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'ectowatch worker' AND datname = current_database()"
}

# It is connected to no database, and so in no view.
launcher_pid()
{
	local pid postmaster

	postmaster=$(head -n 1 "$scratch/$scenario.data/postmaster.pid")
	for pid in $(cat "/proc/$postmaster/task/$postmaster/children"); do
		if grep -q "ectowatch launcher" "/proc/$pid/cmdline"; then
			echo "$pid"
			return 0
		fi
	done
	die "there is no launcher"
}

# Seconds of processor time of a process so far.
processor_seconds()			# PID
{
	awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / hz }' "/proc/$1/stat"
}
