# Copyright (c) 2026, the ectowatch authors

# Backends that are ended in the middle of a transaction, and between taking
# their place in the queue and their commit.  P1: nothing of them is
# delivered; P3: what others write meanwhile and later is; and no file of
# theirs stays.  A TAP test because it ends processes where they are.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "ectowatch.pending_memory = '64kB'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v text);
	SELECT ectowatch_watch('users', 'inserted')});
my $listen = start_listen($node, 'postgres', [], 'users_inserted');
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my @committed;

sub ring_ids
{
	return $node->safe_psql('postgres', qq{
		SELECT string_agg(values ->> 'id', ' ' ORDER BY position)
		FROM ectowatch_changes($start)});
}

# Ends a backend that has inserted rows, by one of the two ways, at one of the
# two places.  Others write before and after.
my $next_id = 0;

sub end_backend
{
	my ($how, $where, $rows) = @_;
	my $session = session($node, 'postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $end = $next_id + $rows;
	my $insert =
	  "INSERT INTO users SELECT i, repeat('x', 100) FROM generate_series($next_id, $end) i";
	my $title = "$how $where, $rows rows";

	if ($where eq 'reserved')
	{
		wait_point($node, 'reserved');
		start_statement($session, $insert);
		wait_reached($node, 'reserved');
	}
	else
	{
		$session->query_safe("BEGIN; $insert");
		push @committed, ++$end;
		$node->safe_psql('postgres', "INSERT INTO users VALUES ($end)");
	}
	is(scalar(spill_files($node)), $rows > 1000 ? 1 : 0, "$title: its file");

	if ($how eq 'pg_terminate_backend')
	{
		is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"),
			't', "$title: called");
	}
	else
	{
		is(kill('TERM', $pid), 1, "$title: sent");
	}
	start_statement($session, 'SELECT 1') if $where eq 'open';
	like(wait_session_end($session),
		qr/terminating connection due to administrator command/,
		"$title: ended");
	if ($where eq 'reserved')
	{
		unlink $node->data_dir . '/ectowatch_wait.reserved';
		unlink $node->data_dir . '/ectowatch_wait.reserved.reached';
	}
	push @committed, ++$end;
	$node->safe_psql('postgres', "INSERT INTO users VALUES ($end)");
	$next_id = $end + 1;

	my @ids = map { /"id":(\d+)/ } $listen->wait_for_lines(scalar @committed);
	is("@ids", "@committed", "$title: channel has what was committed");
	is(ring_ids(), "@committed", "$title: ring has what was committed");
	ok(poll_until('the end of the file', sub { return !spill_files($node) }),
		"$title: no file stays");
	return;
}

foreach my $how ('SIGTERM', 'pg_terminate_backend')
{
	foreach my $where ('open', 'reserved')
	{
		end_backend($how, $where, $_) foreach 10, 2000;
	}
}

is( $node->safe_psql('postgres',
		'SELECT aborted, batches, queue_batches, blocked_by_pid FROM ectowatch_stat'),
	'4|' . scalar(@committed) . '|0|',
	'statistics');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users'),
	scalar(@committed), 'as many rows as changes');

# a client that goes away in the middle of a transaction
my $session = session($node, 'postgres');
$session->query_safe("BEGIN; INSERT INTO users SELECT i, repeat('x', 100) FROM generate_series(100000, 102000) i");
is(scalar(spill_files($node)), 1, 'a client with a file');
$session->quit;
poll_until('the end of its file', sub { return !spill_files($node) });
$node->safe_psql('postgres', 'INSERT INTO users VALUES (200000)');
push @committed, 200000;
$listen->wait_for_lines(scalar @committed);
is(ring_ids(), "@committed", 'a client that went away');

$listen->stop;
$node->stop;
done_testing();
