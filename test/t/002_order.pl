# Copyright (c) 2026, the ectowatch authors

# The order race: a backend is visibly committed before it can say so.  Another
# one can then update the same row and commit, too, and even be first to say
# so.  P2: its change comes second all the same, and not before the first one.
# A TAP test because it stops processes where they are.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'max_connections = 30');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL);
	INSERT INTO users VALUES (1, 0), (2, 0);
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}')});
my $listen = start_listen($node, 'postgres', [], 'users_updated');
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $first = session($node, 'postgres');
my $second = session($node, 'postgres');
my $first_pid = $first->query_safe('SELECT pg_backend_pid()');

sub ring_values
{
	return $node->safe_psql('postgres', qq{
		SELECT string_agg(values ->> 'v', ' ' ORDER BY position)
		FROM ectowatch_changes($start)});
}

# Has the first session update the row, and stops it when it has committed
# and not said so yet.  Another process that comes there goes on.
sub commit_and_stop
{
	my ($value) = @_;

	wait_point($node, 'commit');
	start_statement($first, "UPDATE users SET v = $value WHERE id = 1");
	wait_reached($node, 'commit');
	kill 'STOP', $first_pid;
	unlink $node->data_dir . '/ectowatch_wait.commit'
	  or BAIL_OUT("no wait point: $!");
	return;
}

commit_and_stop(1);
my $xid = $node->safe_psql('postgres', 'SELECT xmin FROM users WHERE id = 1');

is($second->query('UPDATE users SET v = v + 1 WHERE id = 1 RETURNING v'),
	2, 'another session sees the first commit, and commits');
is( $node->safe_psql(
		'postgres', q{
		SELECT blocked_by_pid, blocked_by_xid, queue_batches,
			blocked_since BETWEEN now() - interval '1 hour' AND now()
		FROM ectowatch_stat}),
	"$first_pid|$xid|2|t",
	'statistics show what the worker waits for');

# a third one ends at once, as would any number
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1 WHERE id = 1');
is(ring_values(), '', 'nothing overtakes the undecided batch: ring');
is_deeply([ $listen->lines ], [], 'nor: channel');

kill 'CONT', $first_pid;
finish_statement($first);
my @values = map { /"v":(\d+)/ } $listen->wait_for_lines(3);
is("@values", '1 2 3', 'order on the channel');
is(ring_values(), '1 2 3', 'order in the ring');
is( $node->safe_psql('postgres', 'SELECT blocked_by_pid, queue_batches FROM ectowatch_stat'),
	'|0', 'nothing blocks any longer');

# the same where the second one waits for the first one's row lock
$first->query_safe('BEGIN; UPDATE users SET v = 4 WHERE id = 1');
start_statement($second, 'UPDATE users SET v = v + 1 WHERE id = 1');
poll_query($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE users%'});
wait_point($node, 'commit');
start_statement($first, 'COMMIT');
wait_reached($node, 'commit');
release($node, 'commit');
finish_statement($first);
finish_statement($second);
@values = map { /"v":(\d+)/ } $listen->wait_for_lines(5);
is("@values", '1 2 3 4 5', 'order with a row lock');

# an undecided batch that is rolled back in the end holds nothing up
wait_point($node, 'reserved');
start_statement($first, 'UPDATE users SET v = -1 WHERE id = 2');
wait_reached($node, 'reserved');
kill 'STOP', $first_pid;
unlink $node->data_dir . '/ectowatch_wait.reserved';
$second->query_safe('UPDATE users SET v = 6 WHERE id = 1');
is(ring_values(), '1 2 3 4 5', 'a batch behind one that may yet be rolled back');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($first_pid)");
kill 'CONT', $first_pid;
finish_statement($first);
like($first->{stderr}, qr/canceling statement/, 'it is rolled back');
@values = map { /"v":(-?\d+)/ } $listen->wait_for_lines(6);
is("@values", '1 2 3 4 5 6', 'nothing of it');
is(ring_values(), '1 2 3 4 5 6', 'nor in the ring');

# Many sessions update few rows, each time by one, with nothing held.  No
# point is used, but with 2 cores it now and then goes wrong if it can.
my $load = $node->basedir . '/race.sql';
append_to_file($load, 'UPDATE users SET v = v + 1 WHERE id = 1;');
$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->command_ok(
	[ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '250', '-f', $load, 'postgres' ],
	'sessions that race');
wait_delivered($node, 'postgres');
is( $node->safe_psql(
		'postgres', qq{
		SELECT count(*), count(*) FILTER (WHERE v <> before + 1) FROM (
			SELECT v, lag(v) OVER (ORDER BY position) AS before
			FROM (SELECT position, (values ->> 'v')::int AS v
				FROM ectowatch_changes($start, NULL, NULL)) AS changes) AS pairs}),
	'2000|0', 'every row in its order');

$first->quit;
$second->quit;
$listen->stop;
$node->stop;
done_testing();
