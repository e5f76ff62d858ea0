# delivery: how many messages a second reach listeners, and readers of the ring.
# Target 5.
#
# Variant raw is the ceiling: one session that calls pg_notify() for 1,000
# messages per transaction, of the length that ectowatch's have, and does nothing
# else.  The others write, in transactions of 1,000 rows: plpgsql and ectowatch
# by UPDATE, ectowatch-notify with the statement of raw, where ectowatch_notify()
# stands for pg_notify().  The rate is that of each listener, from its first
# message to its last.  Also one transaction of very many rows, whose messages
# arrive when its writer has finished, so that it takes nothing from them.  A rate
# is sustained if nothing is lost meanwhile: so a writer that is faster than the
# worker has to wait for it here.
#
# Readers of the ring call ectowatch_changes() in one session, which uses one
# processor, and check that each batch begins where the last one ended and has
# as many changes as positions.  Most of their time goes into jsonb and SQL; how
# fast the ring itself is read is seen without a server: clients/ring_alone.c.

variants=(raw plpgsql ectowatch-notify ectowatch)
settings=("max_connections = 150" "$wait_for_room")

ring_changes=100000			# they fit into the ring

prepare()
{
	create_table plpgsql "$rows"
	create_table ectowatch "$rows"
	query <<-'SQL'
		CREATE FUNCTION read_ring(start bigint, total bigint, batch int, times int)
		RETURNS float8 LANGUAGE plpgsql AS $$
		DECLARE
			began timestamptz := clock_timestamp();
			n bigint;
			got bigint;
			first bigint;
			last bigint;
			after bigint;
		BEGIN
			FOR i IN 1..times LOOP
				after := start;
				n := 0;
				LOOP
					SELECT count(*), min(c.position), max(c.position) INTO got, first, last
						FROM ectowatch_changes(after, NULL, batch) c WHERE c.type = 'updated';
					EXIT WHEN got = 0;
					IF last - first + 1 <> got OR (first <> after + 1 AND n > 0) THEN
						RAISE 'a hole after %: % to %, % changes', after, first, last, got;
					END IF;
					n := n + got;
					after := last;
				END LOOP;
				IF n <> total THEN
					RAISE '% changes, not %', n, total;
				END IF;
			END LOOP;
			RETURN times * total / extract(epoch FROM clock_timestamp() - began);
		END $$;
	SQL
}

write_script()				# VARIANT
{
	local message="'{\"type\":\"updated\",\"values\":{\"id\":' || i || ',\"n\":1},\"position\":1234567890}'"

	case $1 in
		raw) echo "SELECT count(pg_notify('$(channel "$1")', $message)) FROM generate_series(100001, 101000) i;" ;;
		ectowatch-notify) echo "SELECT count(ectowatch_notify('$(channel "$1")', $message)) FROM generate_series(100001, 101000) i;" ;;
		*) printf '%s\n' "\\set first 1 + 1000 * random(0, $rows / 1000 - 1)" \
			"UPDATE bench_$1 SET n = n + 1 WHERE id BETWEEN :first AND :first + 999;" ;;
	esac >"$scratch/tmp/write.sql"
}

measure_listeners()			# VARIANT LISTENERS TRANSACTIONS
{
	local case="$2 listeners"

	[ "$2" != 1 ] || case="1 listener"
	case $1 in
		plpgsql | ectowatch) settle "$1" ;;
	esac
	write_script "$1"
	start_listening "$1" "$2"
	run_pgbench 1 "$scratch/tmp/write.sql" -t $(($3 * duration))
	end_listening "$1" $((transactions * 1000))
	record "$case" "$1" "$(calculate "$transactions * 1000 / $heard_seconds")" "messages/s"
}

measure_one_transaction()	# VARIANT
{
	case $1 in
		plpgsql | ectowatch) ;;
		*) return 0 ;;
	esac
	settle "$1"
	start_listening "$1"
	query -c "UPDATE bench_$1 SET n = n + 1"
	end_listening "$1" "$rows"
	record "1 listener, one transaction" "$1" "$(calculate "$rows / $heard_seconds")" "messages/s"
}

measure_ring()
{
	local batch position changes=$((rows < ring_changes ? rows : ring_changes)) rate

	position=$(query -c "SELECT ectowatch_position()")
	query -c "UPDATE bench_ectowatch SET n = n + 1 WHERE id <= $changes" \
		-o /dev/null -c "SELECT ectowatch_wait_for(xmin::text::xid8, '1 min') FROM bench_ectowatch WHERE id = 1"
	for batch in 1000 10000; do
		rate=$(query -c "SELECT read_ring($position, $changes, $batch, $((5 * duration)))")
		record "reader of the ring, batches of $(commas $batch)" ectowatch "$rate" "changes/s"
		"$clients_dir/ring_alone" "$batch" "$(calculate "$duration / 4")" >"$scratch/tmp/ring" || die "ring_alone failed"
		record "ring alone, batches of $(commas $batch)" ectowatch "$(cut -f 1 "$scratch/tmp/ring")" "changes/s of a processor"
	done
}

measure()
{
	measure_listeners "$1" 1 300
	measure_one_transaction "$1"
	measure_listeners "$1" 10 60
	measure_listeners "$1" 100 10
	[ "$1" != ectowatch ] || measure_ring
}
