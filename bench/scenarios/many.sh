# many: many watchers.  Target 7.
#
# Cases: 1, 4 and 16 watchers of one table, beside one and two empty triggers,
# for transactions of one row and for an UPDATE of many; without a listener, so
# that it is the writer who is measured.  One transaction that updates a row in
# each of 500 tables, the first one of a session and the second one, with 1,000
# tables watched.  And what it takes to connect, and to connect and write, in a
# database with one watcher and in one with 1,000.

variants=(none empty empty-2 ectowatch ectowatch-4 ectowatch-16)
groups=("${variants[*]}" "${variants[@]}")
settings=("max_connections = 300" "max_locks_per_transaction = 512" "$wait_for_room")

watched=1000				# tables
touched=500

prepare()
{
	local variant tables

	for variant in "${variants[@]}"; do
		create_table "$variant" "$many_rows"
	done
	for variant in none empty ectowatch; do
		tables=$touched
		[ $variant != ectowatch ] || tables=$watched
		query -o /dev/null <<-SQL
			SELECT format('CREATE TABLE %I (id int PRIMARY KEY, n int NOT NULL)', name),
				format('INSERT INTO %I VALUES (1, 0)', name),
				CASE '$variant'
					WHEN 'empty' THEN format('CREATE TRIGGER empty AFTER UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION empty_trigger()', name)
					WHEN 'ectowatch' THEN format('SELECT ectowatch_watch(%L, ''updated'')', name)
				END
			FROM (SELECT 'many_${variant}_' || i AS name FROM generate_series(1, $tables) AS i) t \gexec
		SQL
	done
	query -c "CREATE DATABASE few"
	PGDATABASE=few query -o /dev/null -c "CREATE EXTENSION ectowatch" \
		-c "CREATE TABLE many_ectowatch_1 AS SELECT 1 AS id, 0 AS n" \
		-c "ALTER TABLE many_ectowatch_1 ADD PRIMARY KEY (id)" \
		-c "SELECT ectowatch_watch('many_ectowatch_1', 'updated')"
	query -c VACUUM
	echo "SELECT 1;" >"$scratch/tmp/select.sql"
	echo "UPDATE many_ectowatch_1 SET n = n + 1 WHERE id = 1;" >"$scratch/tmp/write.sql"
}

# how many changes one change of a row is
watchers()					# VARIANT
{
	case $1 in
		ectowatch) echo 1 ;;
		ectowatch-*) echo "${1#ectowatch-}" ;;
		*) echo 0 ;;
	esac
}

# Transactions of one row, of all variants in turns.
measure_one_row()			# VARIANT...
{
	local case="one table, 16 clients, synchronous_commit off" variant rows=$many_rows changes=0

	for variant in "$@"; do
		settle "$variant"
	done
	start_counting
	PGOPTIONS="-c synchronous_commit=off" update_rows_in_turns "$*" 16
	for variant in "$@"; do
		changes=$((changes + ${transactions_of[$variant]} * $(watchers "$variant")))
		record "$case" "$variant" "${tps_of[$variant]}" tps
	done
	end_counting $changes
}

measure_many_rows()			# VARIANT
{
	local start

	settle "$1"
	start_counting
	start=$EPOCHREALTIME
	query -c "UPDATE $(table "$1") SET n = n + 1"
	record "one table, UPDATE of $(commas "$many_rows") rows" "$1" "$(calculate "$EPOCHREALTIME - $start")" s
	end_counting $((many_rows * $(watchers "$1")))
}

measure_many_tables()		# VARIANT
{
	local times update changes=0

	update="DO 'BEGIN FOR i IN 1..$touched LOOP EXECUTE format(''UPDATE many_$1_%s SET n = n + 1 WHERE id = 1'', i); END LOOP; END'"
	[ "$1" != ectowatch ] || changes=$((2 * touched))
	query -c CHECKPOINT
	start_counting
	mapfile -t times < <(query -c "\timing on" -c "$update" -c "$update" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
	end_counting $changes
	record "$touched of $(commas $watched) tables, first" "$1" "${times[0]}" ms
	record "$touched of $(commas $watched) tables, again" "$1" "${times[1]}" ms
}

measure_connections()		# CASE DATABASE
{
	local script

	for script in select write; do
		PGDATABASE=$2 run_pgbench 1 "$scratch/tmp/$script.sql" -C
		record "connect and $script, $1" ectowatch "$(calculate "1000 / $tps")" ms
	done
}

measure()					# VARIANT, or all
{
	if [[ $1 == *" "* ]]; then
		# shellcheck disable=SC2086
		measure_one_row $1
		return 0
	fi
	measure_many_rows "$1"
	case $1 in
		none | empty | ectowatch) measure_many_tables "$1" ;;
	esac
	if [ "$1" = ectowatch ]; then
		measure_connections "1 watcher" few
		measure_connections "1,000 watchers" postgres
	fi
}
