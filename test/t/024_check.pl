# Copyright (c) 2026, the ectowatch authors

# What ectowatch_check() and ectowatch_self_test() say when something is wrong
# with the server: the library not preloaded, no worker, no place for the
# database, a commit that blocks the queue, a worker that hangs, a
# listener that does not read.  They answer in each of these states, name the cause, and are content
# again when it is gone.  And what ectowatch_repair() does about tables that are
# in use, or were dropped while the library was not there.  A TAP test because
# it takes servers in these states.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'ectowatch.max_databases = 1', "listen_addresses = '127.0.0.1'");

# One row of ectowatch_check(), as "ok|detail|hint".
sub answer
{
	my ($question, $watcher, $database) = @_;
	my $argument = defined $watcher ? "'$watcher'" : '';

	return $node->safe_psql($database // 'postgres',
		"SELECT ok, detail, hint FROM ectowatch_check($argument) WHERE question = '$question'");
}

# The steps of ectowatch_self_test(), as "tttttf  ", and what the failed one says.
sub self_test
{
	my ($timeout) = @_;
	my @rows = split /\n/, $node->safe_psql('postgres',
		"SELECT coalesce(ok::text, '-'), detail FROM ectowatch_self_test('$timeout')");
	my @details = map { /^false\|(.*)/ ? $1 : () } @rows;

	return (join('', map { substr($_, 0, 1) } @rows), $details[0] // '');
}

sub self_test_passes
{
	my ($what) = @_;
	my ($steps, $detail) = self_test('10 s');

	is($steps, 'ttttttt', "self-test passes $what") or diag $detail;
	return;
}

$node->safe_psql('postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int);
	CREATE TABLE dropped (id int PRIMARY KEY);
	INSERT INTO users VALUES (1, 0);
	SELECT ectowatch_watch('users', 'updated');
	SELECT ectowatch_watch('dropped', 'inserted')});
self_test_passes('at first');
like(answer('Is the worker of this database running?'), qr/^t\|Its process id is \d+\.\|$/,
	'the worker is there');

# ---------- who listens, from where

like( $node->safe_psql('postgres', q{
		LISTEN users_updated;
		SELECT detail FROM ectowatch_check('users_updated') WHERE question = 'Who listens?'},
		connstr => 'host=127.0.0.1 port=' . $node->port . " dbname=postgres application_name='far away'"),
	qr/^1: process \d+, application "far away", address 127\.0\.0\.1, role \w+, channel "users_updated"\.$/,
	'a listener has a process, an application and an address');

# ---------- a commit blocks the queue

my $writer = session($node, 'postgres');
wait_point($node, 'reserved');
start_statement($writer, 'UPDATE users SET v = v + 1');
wait_reached($node, 'reserved');
my $pid = $node->safe_psql('postgres', 'SELECT blocked_by_pid FROM ectowatch_stat');
poll_until('a blocked queue',
	sub { return answer('Does the queue go on?', 'users_updated') =~ /^f\|/ });
like( answer('Does the queue go on?'),
	qr/^f\|It holds 1 batches, \d+ bytes\. The worker waits for the end of transaction \d+, which commits in process $pid since [^(]+ \(active, wait event [^)]+\)\.\|Its commit has to end/,
	'which transaction blocks the queue, and what that does');
my ($steps, $detail) = self_test('100 ms');
is($steps, 'ttttf--', 'self-test: the probe is not taken');
like($detail, qr/^The worker waits for the end of transaction \d+ of process $pid, which commits\.$/,
	'and why');
release($node, 'reserved');
finish_statement($writer);
self_test_passes('after that');
like(answer('Does the queue go on?'), qr/^t\|/, 'the queue goes on');

# ---------- the worker hangs

my $worker = worker_pid($node, 'postgres');
kill 'STOP', $worker;
($steps, $detail) = self_test('100 ms');
kill 'CONT', $worker;
is($steps, 'ttttf--', 'self-test: the worker hangs');
is($detail, 'The worker did not take it until the time was over.', 'and that is said');
self_test_passes('when it goes on');

# it can be interrupted
kill 'STOP', $worker;
my $tester = session($node, 'postgres');
start_statement($tester, q{SET statement_timeout = '100 ms'; SELECT * FROM ectowatch_self_test()});
finish_statement($tester);
kill 'CONT', $worker;
like($tester->{stderr}, qr/canceling statement due to statement timeout/, 'self-test can be interrupted');
$tester->quit;

# ---------- a listening session does not read, and no more can be kept for it

my $sleeper = block_channels($node, 'postgres');
($steps, $detail) = self_test('1 s');
is($steps, 'ttttttf', 'self-test: the channel does not get it');
is($detail, 'What listening sessions have not read leaves no room.', 'and why');
like(answer('Can notifications be sent?'),
	qr/^f\|Listening sessions have not read \d+ kB\. \d+ kB of the ring are still to be sent\. The worker holds back.*\|Find the session/,
	'notifications cannot be sent');
unblock_channels($node, $sleeper);
self_test_passes('when they are again');
like(answer('Can notifications be sent?'), qr/^t\|/, 'they can');

# ---------- a table in use is not waited for, but where a trigger is missing

my ($trigger) = $node->safe_psql('postgres', q{
	SELECT tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass});
$node->safe_psql('postgres', qq{
	DROP TRIGGER "$trigger" ON users;
	CREATE TRIGGER "$trigger" AFTER UPDATE ON users
		FOR EACH ROW WHEN (NEW.id > 1) EXECUTE FUNCTION ectowatch_capture();
	CREATE TRIGGER "0_ectowatch_999999" AFTER DELETE ON users
		FOR EACH ROW EXECUTE FUNCTION ectowatch_capture()});
$writer->query_safe('BEGIN; SELECT count(*) FROM users');
is( $node->safe_psql('postgres', 'SELECT action, count(*) FROM ectowatch_repair() GROUP BY 1'),
	'in use|2', 'triggers that would have to be dropped stay while the table is in use');
like(answer('Does the table have its triggers?', 'users_updated'), qr/^f\|.*made otherwise/, 'which is said');
my $position = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
is( $node->safe_psql('postgres', "SELECT count(*) FROM ectowatch_changes($position, '{users_updated}', timeout => '10 s')"),
	1, 'but the right one is there beside');
$writer->query_safe('COMMIT');
is( $node->safe_psql('postgres', 'SELECT string_agg(action, \' \' ORDER BY action) FROM ectowatch_repair()'),
	'dropped replaced', 'later they go');
is(answer('Are all triggers as they should be?'), '', 'and all is well');
$writer->quit;

# ---------- no place for another database

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION ectowatch');
like(answer('Is the worker of this database running?', undef, 'other'),
	qr/^f\|ectowatch\.max_databases is 1, and so many other databases use ectowatch\.\|Increase/,
	'no place for another database');
is( $node->safe_psql('other', "SELECT string_agg(coalesce(ok::text, '-'), ' ' ORDER BY step) FROM ectowatch_self_test('1 s')"),
	'true false - - - - -', 'self-test says so, too');

# ---------- no process for a worker

$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->restart;
is( (split /\|/, answer('Is the worker of this database running?'))[0],
	'', 'no verdict while nobody has asked for a worker');
my $launcher = poll_until('the launcher', sub { return launcher_pid($node) });
kill 'STOP', $launcher;
$node->safe_psql('postgres', 'LISTEN users_updated');
is(answer('Is the worker of this database running?'),
	'|It was asked for, and is being started.|Ask again in a moment.',
	'none while it is on its way');
kill 'CONT', $launcher;
poll_until('a worker that cannot start',
	sub { return answer('Is the worker of this database running?') =~ /^f\|/ });
like( answer('Is the worker of this database running?'),
	qr/^f\|It was asked for, and did not start; max_worker_processes is 2\.\|.*increase max_worker_processes/,
	'no process for a worker');
($steps, $detail) = self_test('100 ms');
is($steps, 'ttf----', 'self-test: there is no worker');
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
like(answer('Does the queue go on?'), qr/^f\|It holds 1 batches.*\|The worker has to run/, 'so the queue waits');

# ---------- no process for the launcher either

$node->append_conf('postgresql.conf', 'max_worker_processes = 1');
$node->restart;
$node->safe_psql('postgres', 'LISTEN users_updated');
like( answer('Is the worker of this database running?'),
	qr/^f\|There is no launcher to start it; max_worker_processes is 1\.\|.*increase max_worker_processes/,
	'no process for the launcher');

# ---------- the library is not preloaded

$node->append_conf('postgresql.conf', "max_worker_processes = 8\nshared_preload_libraries = ''");
$node->restart;
like( answer('Is the library loaded at server start?'),
	qr/^f\|It is not in shared_preload_libraries: nothing is captured\.\|Add this .*: shared_preload_libraries = 'ectowatch'$/,
	'the library is not preloaded');
my @rows = split /\n/, $node->safe_psql('postgres', q{
	SELECT ok, question FROM ectowatch_check('users_updated') ORDER BY step});
is($rows[0], 'f|Is the library loaded at server start?', 'a watcher: that comes first');
is(scalar(grep { /^f\|/ } @rows), 1, 'the rest is in order, as far as it can be told');
cmp_ok(scalar(@rows), '>', 5, 'and it is told');
is((self_test('1 s'))[0], 'f------', 'self-test says so, too');
my ($result, $stdout, $stderr) = $node->psql('postgres', 'SELECT * FROM ectowatch_repair()');
like($stderr, qr/ERROR:  ectowatch is not loaded at server start/, 'nothing can be repaired');
$node->safe_psql('postgres', 'DROP TABLE dropped');
like(answer('Are all triggers as they should be?'), qr/^f\|The table of watcher "dropped_inserted" is gone\.\|Remove/,
	'a table that was dropped meanwhile');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ectowatch'");
$node->restart;
like($node->safe_psql('postgres', 'SELECT relation, trigger, action FROM ectowatch_repair()'),
	qr/^\d+\|\|removed watcher "dropped_inserted"$/, 'its watcher is removed');
self_test_passes('with the library');
is( $node->safe_psql('postgres', 'SELECT count(*) FROM ectowatch_check() WHERE ok IS NOT TRUE AND hint IS NOT NULL'),
	0, 'and there is nothing left to be done');

$node->stop;
done_testing();
