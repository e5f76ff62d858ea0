# Copyright (c) 2026, the ectowatch authors

# Waiting for changes: CALL ectowatch_wait() and ectowatch_changes() with a
# timeout.  P7: who waits by CALL holds no snapshot, so vacuum goes on; any
# number may wait, and all wake; a wait can be cancelled, timed out and ended.
# A TAP test because it watches waiting sessions from outside.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', 'max_connections = 60');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id serial PRIMARY KEY);
	CREATE TABLE roles (id serial PRIMARY KEY);
	CREATE TABLE log (t timestamptz, p bigint, n int);
	SELECT ectowatch_watch('users', 'inserted');
	SELECT ectowatch_watch('roles', 'inserted')});
my $session = session($node, 'postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');

sub position
{
	return $node->safe_psql('postgres', 'SELECT ectowatch_position()');
}

# Returns when that many sessions wait.
sub waiting
{
	my ($query, $number) = @_;

	poll_query($node, 'postgres', qq{
		SELECT count(*) = $number FROM pg_stat_activity
		WHERE wait_event = 'Extension' AND state = 'active' AND query LIKE '$query%'});
	return;
}

sub add_user
{
	$node->safe_psql('postgres', 'INSERT INTO users DEFAULT VALUES');
	return;
}

# The result of a statement that was started.
sub result
{
	my $output = finish_statement($session);

	chomp $output;
	$output =~ s/\n+$//;
	return $output;
}

# ---------- CALL

my $after = position();
start_statement($session, "CALL ectowatch_wait($after, NULL, '1 min')");
waiting('CALL', 1);
is( $node->safe_psql('postgres', "SELECT backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = $pid"),
	'|', 'CALL: holds no snapshot while it waits');
add_user();
is(result(), $after, 'CALL: wakes at a change, with the position before it');
is($node->safe_psql('postgres', "SELECT type FROM ectowatch_changes($after)"), 'inserted', 'where the change is');
$session->query_safe('SELECT 1');
pass('CALL: the session can go on');

# a change of others moves next_after on, and does not wake
$after = position();
start_statement($session, "CALL ectowatch_wait($after, '{roles_inserted}', '1 min')");
waiting('CALL', 1);
add_user() foreach 1 .. 3;
wait_delivered($node, 'postgres');
waiting('CALL', 1);
my $before_role = position();
$node->safe_psql('postgres', 'INSERT INTO roles DEFAULT VALUES');
is(result(), $before_role, 'CALL: passes over what was not asked for');

# timeout: the result is where nothing was missed
$after = position();
add_user();
wait_delivered($node, 'postgres');
is($session->query_safe("CALL ectowatch_wait($after, '{roles_inserted}', '50 ms')"),
	position(), 'CALL: timeout');
my $began = time();
$session->query_safe('CALL ectowatch_wait(' . position() . ", NULL, '100 ms')");
cmp_ok(time() - $began, '>=', 0.1, 'CALL: the timeout is waited for');

# no vacuum is held up: rows that are deleted meanwhile can be removed
$node->safe_psql('postgres', 'CREATE TABLE garbage AS SELECT generate_series(1, 1000) i');
start_statement($session, 'CALL ectowatch_wait(' . position() . ", NULL, '1 min')");
waiting('CALL', 1);
my ($status, $out, $err) = $node->psql('postgres', 'DELETE FROM garbage; VACUUM (VERBOSE) garbage;');
($status, $out, $err) = $node->psql('postgres', "VACUUM (VERBOSE) garbage") unless $err =~ /removed/;
like($err, qr/tuples: \d+ removed, 0 remain, 0 are dead but not yet removable/, 'CALL: VACUUM is not held up');
add_user();
result();

# next_after is safe: reading on behind it, again and again, misses nothing
my $start = position();
$node->safe_psql('postgres', q{
	CREATE PROCEDURE read_on(after bigint, number int) LANGUAGE plpgsql AS $$
	DECLARE
		n int := 0;
		r record;
	BEGIN
		WHILE n < number LOOP
			CALL ectowatch_wait(after, '{users_inserted}', '10 s', after);
			FOR r IN SELECT * FROM ectowatch_changes(after, '{users_inserted}') LOOP
				n := n + 1;
				after := r.position;
			END LOOP;
			INSERT INTO log VALUES (clock_timestamp(), after, n);
			COMMIT;
		END LOOP;
	END$$});
start_statement($session, "CALL read_on($start, 300)");
my $script = $node->basedir . '/load.sql';
append_to_file($script, "INSERT INTO users DEFAULT VALUES; INSERT INTO roles DEFAULT VALUES;\n");
$node->command_ok([ 'pgbench', '-n', '-c', 3, '-t', 100, '-f', $script, 'postgres' ], 'a load');
result();
is($session->{stderr}, '', 'CALL in a procedure');
is($node->safe_psql('postgres', 'SELECT max(n), count(*) > 1 FROM log'), '300|t', 'next_after misses nothing, and repeats nothing');

# ---------- in a procedure, a DO block, a transaction block

$after = position();
start_statement($session, qq{DO \$\$
	DECLARE next bigint; n int;
	BEGIN
		CALL ectowatch_wait($after, NULL, '1 min', next);
		SELECT count(*) INTO n FROM ectowatch_changes(next);
		RAISE NOTICE 'got %', n;
	END\$\$});
waiting('DO', 1);
is( $node->safe_psql('postgres', "SELECT backend_xmin FROM pg_stat_activity WHERE pid = $pid"),
	'', 'DO: holds no snapshot');
add_user();
result();
like($session->{stderr}, qr/NOTICE:  got 1/, 'DO: reads what it was woken for');
$session->{stderr} = '';

$after = position();
start_statement($session, "BEGIN; CALL ectowatch_wait($after, NULL, '1 min'); SELECT type FROM ectowatch_changes($after); COMMIT");
waiting('%CALL', 1);
add_user();
is(result(), "$after\ninserted", 'in a transaction block');

$after = position();
$session->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users");
start_statement($session, "CALL ectowatch_wait($after, NULL, '1 min')");
waiting('CALL', 1);
isnt( $node->safe_psql('postgres', "SELECT backend_xmin FROM pg_stat_activity WHERE pid = $pid"),
	'', 'REPEATABLE READ keeps its snapshot');
add_user();
is(result(), $after, 'in REPEATABLE READ');
$session->query_safe('COMMIT');

# a cursor that is open, and one that is held, live on
$after = position();
$session->query_safe('BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT i FROM generate_series(1, 3) i; COMMIT');
start_statement($session, "CALL ectowatch_wait($after, NULL, '1 min')");
waiting('CALL', 1);
add_user();
result();
is($session->query_safe('FETCH ALL FROM c'), "1\n2\n3", 'a held cursor lives on');
$session->query_safe('CLOSE c');

# ---------- ectowatch_changes with a timeout

$after = position();
start_statement($session, "SELECT type FROM ectowatch_changes($after, NULL, 10, '1 min')");
waiting('SELECT type', 1);
add_user();
is(result(), 'inserted', 'ectowatch_changes wakes');

$began = time();
is($session->query_safe('SELECT count(*) FROM ectowatch_changes(' . position() . ", NULL, 10, '100 ms')"), 0,
	'ectowatch_changes: timeout');
cmp_ok(time() - $began, '>=', 0.1, 'which is waited for');
$session->query_safe("SET ectowatch.max_wait = '50 ms'");
$began = time();
$session->query_safe('SELECT count(*) FROM ectowatch_changes(' . position() . ", NULL, 10, '1 min')");
cmp_ok(time() - $began, '<', 30, 'ectowatch.max_wait limits it');
$session->query_safe('RESET ectowatch.max_wait');

# ---------- ends of a wait

foreach my $statement (
	"CALL ectowatch_wait(%s, NULL, '1 min')",
	"SELECT count(*) FROM ectowatch_changes(%s, NULL, 10, '9 s')")
{
	my ($name) = $statement =~ /(ectowatch_\w+)/;
	my $call = sprintf $statement, position();

	$session->{stderr} = '';
	$session->query("SET statement_timeout = '50 ms'; $call");
	like($session->{stderr}, qr/canceling statement due to statement timeout/, "$name: statement_timeout");
	$session->query('RESET statement_timeout');
	$session->{stderr} = '';

	start_statement($session, $call);
	waiting(substr($call, 0, 20), 1);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	result();
	like($session->{stderr}, qr/canceling statement due to user request/, "$name: cancelled");
	$session->{stderr} = '';

	# it still works in the same session
	is($session->query_safe('SELECT ectowatch_position() > 0'), 't', "$name: the session goes on");

	my $other = session($node, 'postgres');
	start_statement($other, $call);
	waiting(substr($call, 0, 20), 1);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '"
		. substr($call, 0, 20) . "%' AND state = 'active'");
	like(wait_session_end($other), qr/terminating connection/, "$name: terminated");
}

# ---------- many, while the worker comes and goes

$after = position();
my @many = map { session($node, 'postgres') } 1 .. 30;
start_statement($_, "CALL ectowatch_wait($after, NULL, '1 min')") foreach @many;
waiting('CALL', 30);
my $worker = worker_pid($node, 'postgres');
kill 'TERM', $worker;
poll_query($node, 'postgres', "SELECT worker_pid <> $worker FROM ectowatch_stat");
waiting('CALL', 30);
add_user();
is_deeply([ map { my $r = finish_statement($_); $r =~ s/\s+//g; $r } @many ], [ ($after) x 30 ], 'thirty sessions wake');
$_->quit foreach @many;

# a shutdown does not wait for them
start_statement($session, 'CALL ectowatch_wait(' . position() . ')');
waiting('CALL', 1);
$node->stop('fast');
like(wait_session_end($session), qr/terminating connection/, 'a shutdown ends a wait');
done_testing();
