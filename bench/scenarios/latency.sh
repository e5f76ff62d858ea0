# latency: from a transaction to the client that is told of it; fsync is on.
# Target 4.
#
# Cases: 200 and 2,000 transactions per second, which arrive evenly whatever
# becomes of the earlier ones, and as many as 16 sessions can.  What is measured,
# and how, is told at the top of clients/latency.c.  "sent" is from just before
# the UPDATE is sent until its message is there, "acknowledged" from when the
# writer has its answer.
#
# Variant ectowatch-ring is told by CALL ectowatch_wait() and
# ectowatch_changes() instead of LISTEN; writers and settings are the same.
#
# "xids" is what is taken beyond one per UPDATE: by the worker, which
# reserves positions.

variants=(plpgsql ectowatch ectowatch-ring)
cases=(200 2000 0)			# transactions per second; 0: as many as can be
writers=16

# How long a flush takes changes from second to second, and one in a hundred of
# 200 is to be seen.
rounds=$((latency_times * rounds))
duration=$((latency_times * duration))

prepare()
{
	create_table plpgsql "$rows"
	create_table ectowatch "$rows"
}

next_xid()
{
	query -c "SELECT pg_snapshot_xmax(pg_current_snapshot())"
}

measure()					# VARIANT RATE
{
	local case="full load" table=${1%-ring} before xids option=
	local tps counted sent50 sent99 acknowledged50 acknowledged99

	[ "$2" = 0 ] || case="$(commas "$2") TPS"
	[ "$1" = "$table" ] || option=--ring
	settle "$table"
	before=$(next_xid)
	"$clients_dir/latency" --rate "$2" --writers "$writers" --time "$duration" \
		--rows "$rows" $option "" "bench_$table" "$(channel "$table")" >"$scratch/tmp/latency" ||
		die "$scenario, $1: the client failed"
	xids=$(($(next_xid) - before))
	read -r tps counted sent50 sent99 acknowledged50 acknowledged99 <"$scratch/tmp/latency"
	record "$case, sent, p50" "$1" "$sent50" "µs"
	record "$case, sent, p99" "$1" "$sent99" "µs"
	record "$case, acknowledged, p50" "$1" "$acknowledged50" "µs from the answer"
	record "$case, acknowledged, p99" "$1" "$acknowledged99" "µs from the answer"
	record "$case, transactions" "$1" "$tps" tps
	record "$case, xids" "$1" "$(calculate "$xids / $duration - $tps")" "xids/s beyond those of writers"
}
