# memory: what changes take in queue and ring, and what processes have taken
# after many transactions.  Target 9.
#
# Bytes of the ring are all that is in it, divided by its positions; bytes of the
# queue what it holds of one transaction while the worker is stopped, divided by
# its changes.  Processes: memory of their own (RssAnon) after very many
# transactions of one session, and how much it grew in the second half of them.
# TRANSACTIONS= says of how many.

variants=(none empty plpgsql ectowatch)

transactions_of_session=$((${TRANSACTIONS:-$([ "${BENCH:-quick}" = full ] && echo 1000000 || echo 20000)}))

prepare()
{
	local variant

	for variant in "${variants[@]}"; do
		create_table "$variant" "$rows"
	done
}

measure_sessions()			# VARIANT
{
	local half=$((transactions_of_session / 2)) output loop worker middle
	local -a kilobytes

	loop="DO 'BEGIN FOR i IN 1..$half LOOP UPDATE $(table "$1") SET n = n + 1 WHERE id = 1 + i % $rows; COMMIT; END LOOP; END'"
	worker=$(worker_pid)
	settle "$1"
	start_listening "$1"
	output=$(query <<-END
		SET synchronous_commit = off;
		SELECT pg_backend_pid() AS pid \gset
		\setenv BACKEND :pid
		$loop;
		\! awk '\$1 == "RssAnon:" { print \$2 }' /proc/\$BACKEND/status ${worker:+/proc/$worker/status}
		$loop;
		\! awk '\$1 == "RssAnon:" { print \$2 }' /proc/\$BACKEND/status ${worker:+/proc/$worker/status}
	END
	)
	end_listening "$1" $((2 * half))
	mapfile -t kilobytes <<<"$output"
	middle=$((${#kilobytes[@]} / 2))
	record "backend" "$1" "${kilobytes[middle]}" "kB"
	record "backend, growth" "$1" "$((kilobytes[middle] - kilobytes[0]))" "kB"
	if [ "$1" = ectowatch ]; then
		record "worker" "$1" "${kilobytes[middle + 1]}" "kB"
		record "worker, growth" "$1" "$((kilobytes[middle + 1] - kilobytes[1]))" "kB"
	fi
}

measure_queue()				# ROWS
{
	local pid bytes

	pid=$(worker_pid)
	kill -STOP "$pid"
	query -c "UPDATE bench_ectowatch SET n = n + 1 WHERE id <= $1"
	bytes=$(query -c "SELECT queue_bytes FROM ectowatch_stat")
	kill -CONT "$pid"
	record "queue, transactions of $(commas "$1")" ectowatch "$(calculate "$bytes / $1")" "bytes per change"
}

measure()
{
	# once is enough: this is no matter of time
	[ "$round" = 1 ] || return 0
	measure_sessions "$1"
	[ "$1" = ectowatch ] || return 0
	measure_queue 1
	measure_queue 1000
	record ring ectowatch "$(query -c "SELECT ring_bytes / (newest_position - oldest_position + 1)::float8
		FROM ectowatch_stat")" "bytes per change"
}
