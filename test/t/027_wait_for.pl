# Copyright (c) 2026, the ectowatch authors

# ectowatch_wait_for() where something is late: the end of the transaction, the
# worker, room in the queue.  It is true only when the changes, or the gap that
# stands for them, can be read.  A TAP test because it holds processes.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "ectowatch.queue_size = '64kB'", "ectowatch.max_wait = '1min'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v text);
	SELECT ectowatch_watch('users', 'inserted')});
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $writer = session($node, 'postgres');
my $waiter = session($node, 'postgres');
my $waiter_pid = ask($waiter, 'SELECT pg_backend_pid()');

# Begins a transaction in $writer; its id.
sub begin
{
	my ($statement) = @_;

	return $writer->query_safe("BEGIN; $statement; SELECT pg_current_xact_id()");
}

sub start_waiting
{
	my ($xid) = @_;

	start_statement($waiter, "SELECT ectowatch_wait_for('$xid')");
	poll_query($node, 'postgres',
		"SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $waiter_pid");
	return;
}

# The result of what was started, and then what can be read of the transaction.
sub read_after
{
	my ($xid) = @_;
	my $result = finish_statement($waiter);

	$result =~ s/\s//g;
	return "$result "
	  . ask($waiter, "SELECT count(*) FROM ectowatch_changes($start, max_changes => NULL) c WHERE c.xid = '$xid'");
}

sub wait_for
{
	my ($xid, $timeout) = @_;

	return $node->safe_psql('postgres', "SELECT ectowatch_wait_for('$xid', '$timeout')");
}

# ---------- committed, but its batch is not decided yet

# What others see is there; its backend has still to tell the worker.
my $xid = begin('INSERT INTO users VALUES (1)');
wait_point($node, 'commit');
start_statement($writer, 'COMMIT');
wait_reached($node, 'commit');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users'), 1, 'the row can be seen');
is(wait_for($xid, '50 ms'), 'f', 'its change cannot be read yet');
start_waiting($xid);
release($node, 'commit');
is(read_after($xid), 't 1', 'it waits until it can');
finish_statement($writer);

# ---------- the worker

# in the ring, but not off the queue: true or not, nothing is missing after it
wait_point($node, 'appended');
$xid = $node->safe_psql('postgres', 'INSERT INTO users VALUES (2) RETURNING pg_current_xact_id()');
wait_reached($node, 'appended');
is(wait_for($xid, '50 ms'), 'f', 'the worker is not done with the batch');
start_waiting($xid);
release($node, 'appended');
is(read_after($xid), 't 1', 'it waits until it is');

# a ticket of one that fails after that: nothing to read, but waited for
my $worker = worker_pid($node, 'postgres');
kill 'STOP', $worker;
my $writer_pid = ask($writer, 'SELECT pg_backend_pid()');
$xid = begin('INSERT INTO users VALUES (3)');
wait_point($node, 'reserved');
start_statement($writer, 'COMMIT');
wait_reached($node, 'reserved');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($writer_pid)");
finish_statement($writer);
$writer->{stderr} = '';
unlink map { $node->data_dir . "/ectowatch_wait.reserved$_" } '', '.reached';
is(wait_for($xid, '50 ms'), 'f', 'the worker stands still');
start_waiting($xid);
kill 'CONT', $worker;
is(read_after($xid), 't 0', 'a cancelled COMMIT');

# a worker that dies
kill 'STOP', $worker;
$xid = $node->safe_psql('postgres', 'INSERT INTO users VALUES (4) RETURNING pg_current_xact_id()');
start_waiting($xid);
kill 'TERM', $worker;
kill 'CONT', $worker;
is(read_after($xid), 't 1', 'a worker that dies is waited for');

# ---------- no room in the queue

$worker = worker_pid($node, 'postgres');
kill 'STOP', $worker;
$node->safe_psql('postgres', q{
	DO $$BEGIN
		FOR i IN 1 .. 2000 LOOP
			INSERT INTO users VALUES (10 + i);
			COMMIT;
		END LOOP;
	END$$});

# has lost its change, but is held where it has not counted that
$xid = begin('INSERT INTO users VALUES (10000); SAVEPOINT s; INSERT INTO users VALUES (10001)');
my $inner = $writer->query_safe(
	"SELECT max(transactionid::text::bigint) FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid()");
isnt($inner, $xid, 'a savepoint has an id of its own');
$writer->query_safe('RELEASE s');
wait_point($node, 'commit');
start_statement($waiter, "SELECT ectowatch_wait_for('$inner', '2 s')");
poll_query($node, 'postgres',
	"SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $waiter_pid");
start_statement($writer, 'COMMIT');
wait_reached($node, 'commit');
kill 'CONT', $worker;
wait_delivered($node, 'postgres');
my $lost = $node->safe_psql('postgres', 'SELECT lost FROM ectowatch_stat');
cmp_ok($lost, '>', 0, 'the queue was full');
like(finish_statement($waiter), qr/^\s*f\s*$/, 'a loss that is not counted yet, by the id of a savepoint');
is(wait_for($xid, '50 ms'), 'f', 'and by that of the transaction');
start_waiting($xid);
release($node, 'commit');
is(read_after($xid), 't 0', 'is waited for');
is( ask($waiter, q{
		SELECT sum((values ->> 'changes')::int) FROM ectowatch_changes(} . $start . q{, max_changes => NULL)
		WHERE type = 'gap' AND values ->> 'reason' = 'queue_full'}),
	$lost + 2, 'and then the gap is there');
finish_statement($writer);

$writer->quit;
$waiter->quit;
$node->stop;
done_testing();
