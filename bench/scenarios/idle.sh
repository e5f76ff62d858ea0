# idle: transactions of 16 clients, as in tps, while many sessions LISTEN to
# something else.  Target 2.
#
# Cases: 100 and 1,000 sessions on channels that nobody sends to; and 1,000
# subscriptions narrowed to one key each of a watched table that nobody writes
# to, or of the one that is written to, but to keys that are not.
#
# One more session hears what is sent about the table, and its messages are
# counted.

variants=(none plpgsql tcn ectowatch)
settings=("max_connections = 1100")

prepare()
{
	local variant

	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows"
	done
	query -c "CREATE TABLE bench_still (id int PRIMARY KEY)" \
		-o /dev/null -c "SELECT ectowatch_watch('bench_still', 'updated')"
}

# The sessions stay while all variants are measured, so each variant is measured
# under the same ones, and the order of variants changes within this.
before_round()
{
	local i variant n=${#variants[@]}

	idle_case "100 listeners" 100 "LISTEN idle_%d"
	idle_case "1,000 listeners" 1000 "LISTEN idle_%d"
	idle_case "1,000 narrowed subscriptions, another table" 1000 \
		"SELECT ectowatch_subscribe('bench_still_updated', '%d')"
	idle_case "1,000 narrowed subscriptions, this table" 1000 \
		"SELECT ectowatch_subscribe('bench_ectowatch_changed', '-%d')"
}

idle_case()					# CASE SESSIONS STATEMENT
{
	local i variant idlers n=${#variants[@]}

	start_client "$scratch/tmp/idle" "$clients_dir/hear" --sessions "$2" "" "$3"
	idlers=$started
	for ((i = 0; i < n; i++)); do
		variant=${variants[(i + round) % n]}
		settle "$variant"
		start_listening "$variant"
		update_rows "$variant" 16
		record "$1" "$variant" "$tps" tps
		end_listening "$variant" "$transactions"
	done
	stop_client "$idlers"
	[ "$(cut -f 2 <(tail -n 1 "$scratch/tmp/idle"))" = 0 ] || die "idle listeners heard something"
}

measure() { :; }
