# bulk: one transaction that writes very many rows, by UPDATE, INSERT ... SELECT,
# DELETE and COPY.  Target 3.
#
# Measured: the time until the writer has its answer, COMMIT included; the time
# until all messages were heard; and the backend's memory, which is the greatest
# size of the process in the statement (VmHWM, reset before it) without what it
# has touched of shared memory by then (RssShmem).  A backend that has done
# nothing takes some megabytes.

variants=(none empty plpgsql tcn pgq ectowatch)

# rows, and what is done to them; each finds what the one before has left
cases=()
for size in $bulk_rows; do
	for what in update insert delete copy; do
		cases+=("$size $what")
	done
done

# ids of rows that were not there at first
inserted_from=100000000

prepare()
{
	local variant most size

	most=$(printf '%s\n' $bulk_rows | sort -n | tail -n 1)
	for variant in "${variants[@]}"; do
		create_table "$variant" "$most"
	done
	query -c "CREATE TABLE bench_source AS TABLE bench_none" \
		-c "VACUUM ANALYZE bench_source"
	for size in $bulk_rows; do
		query -c "COPY (SELECT id + $inserted_from, n, filler FROM bench_source WHERE id <= $size ORDER BY id)
			TO '$scratch/tmp/rows.$size'"
	done
}

# Runs a statement in a backend of its own; sets "milliseconds" and "kilobytes".
run_statement()				# STATEMENT
{
	local output

	output=$(query <<-END
		SELECT count(*) AS n FROM pg_class \gset
		SELECT pg_backend_pid() AS pid \gset
		\setenv BACKEND :pid
		\! echo 5 >/proc/\$BACKEND/clear_refs
		\timing on
		$1;
		\timing off
		\! awk '\$1 == "VmHWM:" { n += \$2 } \$1 == "RssShmem:" { n -= \$2 } END { print "kilobytes", n }' /proc/\$BACKEND/status
	END
	) || die "$scenario: failed: $1"
	milliseconds=$(sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' <<<"$output")
	kilobytes=$(sed -n 's/^kilobytes //p' <<<"$output")
}

measure_statement()			# VARIANT CASE ROWS STATEMENT
{
	local start end

	settle "$1"
	start_listening "$1"
	start=$EPOCHREALTIME
	run_statement "$4"
	end_listening "$1" "$3"
	end=$EPOCHREALTIME
	record "$2" "$1" "$(calculate "$milliseconds / 1000")" s
	record "$2, memory" "$1" "$(calculate "$kilobytes / 1024")" "MB of the backend"
	if [ -n "$heard_seconds" ]; then
		record "$2, all heard" "$1" "$(calculate "$end - $start")" "s until all is heard"
	fi
}

measure()					# VARIANT ROWS WHAT
{
	local table of

	table=$(table "$1")
	of="of $(commas "$2") rows"
	case $3 in
		update)
			measure_statement "$1" "UPDATE $of" "$2" \
				"UPDATE $table SET n = n + 1 WHERE id <= $2"
			;;
		insert)
			measure_statement "$1" "INSERT ... SELECT $of" "$2" \
				"INSERT INTO $table SELECT id + $inserted_from, n, filler FROM bench_source WHERE id <= $2"
			;;
		delete)
			measure_statement "$1" "DELETE $of" "$2" \
				"DELETE FROM $table WHERE id > $inserted_from"
			;;
		copy)
			measure_statement "$1" "COPY $of" "$2" \
				"COPY $table FROM '$scratch/tmp/rows.$2'"
			# as it was
			query -c "SET session_replication_role = replica" \
				-c "DELETE FROM $table WHERE id > $inserted_from"
			;;
	esac
}
