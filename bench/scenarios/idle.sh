# idle: transactions of 16 clients, as in tps, while many sessions LISTEN to
# something else.  Target 2.
#
# Cases: 100 and 1,000 sessions on channels that nobody sends to; and 1,000
# subscriptions to ectowatch's watcher, narrowed to keys that are not written.
#
# One more session hears what is sent about the table, and its messages are
# counted.  Bells of ectowatch-doorbell are fewer than changes; these are counted
# by the server.

variants=(none plpgsql tcn ectowatch ectowatch-doorbell)
groups=("none ectowatch" plpgsql tcn ectowatch-doorbell)
settings=("max_connections = 1100")

prepare()
{
	local variant

	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows"
	done
}

# The sessions stay while all variants are measured, so each is measured under the
# same ones, and the order changes within this.
before_round()
{
	idle_case "100 listeners" 100 "LISTEN idle_%d"
	idle_case "1,000 listeners" 1000 "LISTEN idle_%d"
	idle_case "1,000 narrowed subscriptions" 1000 \
		"SELECT ectowatch_subscribe('bench_ectowatch_changed', '-%d')"
}

idle_case()					# CASE SESSIONS STATEMENT
{
	local i group variant idlers n=${#groups[@]}

	start_client "$scratch/tmp/idle" "$clients_dir/hear" --sessions "$2" "" "$3"
	idlers=$started
	for ((i = 0; i < n; i++)); do
		group=${groups[(i + round) % n]}
		for variant in $group; do
			settle "$variant"
		done
		start_counting
		start_listening "$variant"
		update_rows_in_turns "$group" 16
		for variant in $group; do
			record "$1" "$variant" "${tps_of[$variant]}" tps
		done
		if [ "$variant" = ectowatch-doorbell ]; then
			end_counting "${transactions_of[$variant]}"
			stop_client "${listener_of[$variant]}"
			unset "listener_of[$variant]"
		else
			end_listening "$variant" "${transactions_of[$variant]}"
		fi
	done
	stop_client "$idlers"
	[ "$(cut -f 2 <(tail -n 1 "$scratch/tmp/idle"))" = 0 ] || die "idle listeners heard something"
}
