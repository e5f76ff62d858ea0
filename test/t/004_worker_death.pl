# Copyright (c) 2026, the ectowatch authors

# The worker is ended: at rest, under load, in the middle of a long batch, and
# when a batch is in the ring and not yet off the queue.  Another one goes on
# where it stopped: nothing is lost, nothing comes twice.  SIGKILL restarts the
# whole server: what was not delivered is gone, everybody is told so, and
# positions do not go back.  The launcher may be ended, too.  A TAP test
# because it ends processes, and the server.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node(
	'main',
	'restart_after_crash = on',
	"ectowatch.pending_memory = '256kB'",
	"ectowatch.queue_size = '4MB'",
	"ectowatch.queue_timeout = '1s'",
	"ectowatch.ring_size = '128MB'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL);
	CREATE TABLE many (id int PRIMARY KEY, v int NOT NULL);
	CREATE TABLE done (id int PRIMARY KEY);
	INSERT INTO users SELECT i, 0 FROM generate_series(1, 50) i;
	INSERT INTO many SELECT i, 0 FROM generate_series(1, 5000) i;
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}');
	SELECT ectowatch_watch('many', 'updated', extra_columns => '{v}');
	SELECT ectowatch_watch('done', 'inserted')});

my @channels = qw(users_updated many_updated done_inserted);
my $stat = session($node, 'postgres');
my $done_id = 0;

# Ends the worker by SIGTERM and returns the pid of the next one.
sub end_worker
{
	my ($pid) = @_;

	kill 'TERM', $pid or BAIL_OUT("no worker $pid: $!");
	return next_worker($pid);
}

sub next_worker
{
	my ($pid) = @_;

	return poll_until(
		"a worker after $pid",
		sub {
			my $new = ask($stat, 'SELECT worker_pid FROM ectowatch_stat');
			return $new ne '' && $new ne $pid && $new;
		});
}

sub position
{
	return $node->safe_psql('postgres', 'SELECT ectowatch_position()');
}

# The end of what a client has to get.
sub done
{
	$done_id++;
	$node->safe_psql('postgres', "INSERT INTO done VALUES ($done_id)");
	return;
}

# What ring readers have to have got: each of the updates of each row, once.
sub each_update_once
{
	my ($after, $table) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT count(*), count(*) FILTER (WHERE v <> before + 1), min(v) = 1, max(v)
		FROM (SELECT v, lag(v) OVER (PARTITION BY id ORDER BY position) AS before
			FROM (SELECT position, (values ->> 'id')::int AS id, (values ->> 'v')::int AS v
				FROM ectowatch_changes($after, '{${table}_updated}', NULL)) AS changes) AS pairs});
}

# ---------- at rest

my $start = position();
my $listen = start_listen($node, 'postgres', [], @channels);
my $worker = worker_pid($node, 'postgres');

$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
my @lines = $listen->wait_for_lines(50);
is_deeply([ grep { (split /\t/)[1] ne $worker } @lines ],
	[], 'messages come from the worker');

my $second = end_worker($worker);
isnt($second, $worker, "another worker after SIGTERM");
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
@lines = $listen->wait_for_lines(100);
is(scalar(@lines), 100, 'it sends what comes next and nothing again');
is((split /\t/, $lines[99])[1], $second, 'these are its messages');
is(each_update_once($start, 'users'), '100|0|t|2', 'the ring goes on');

# ---------- between appending to the ring and freeing the queue

wait_point($node, 'appended');
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
wait_reached($node, 'appended');
is(each_update_once($start, 'users'), '150|0|t|3', 'the batch is in the ring');
is( $node->safe_psql('postgres', 'SELECT queue_batches FROM ectowatch_stat'),
	1, 'and in the queue');
kill 'TERM', $second;
release($node, 'appended');
$worker = next_worker($second);
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
$listen->wait_for_lines(200);
is(each_update_once($start, 'users'), '200|0|t|4', 'ring: nothing twice');

# ---------- in the middle of a long batch

my $before = ask($stat, 'SELECT changes FROM ectowatch_stat');
my $kills = 0;
$node->safe_psql('postgres',
	'UPDATE many SET v = 1; INSERT INTO many SELECT i, 0 FROM generate_series(5001, 60000) i');
$node->safe_psql('postgres', 'UPDATE many SET v = 1 WHERE id > 5000');
poll_until(
	'the end of the long batch',
	sub {
		my ($changes, $pid, $batches) = split /\|/,
		  ask($stat,
			'SELECT changes, worker_pid, queue_batches FROM ectowatch_stat');
		if ($pid ne '' && $changes > $before + 5000 && $changes < $before + 60000)
		{
			note "worker $pid is ended after @{[$changes - $before]} changes";
			$kills += kill 'TERM', $pid;
		}
		return $batches == 0;
	});
cmp_ok($kills, '>', 0, 'a worker was ended in the middle of a batch');
is(each_update_once($start, 'many'), '60000|0|t|1', 'the long batch is there once');
is(ask($stat, "SELECT changes - $before FROM ectowatch_stat"), 60000, 'says the counter');
$worker = next_worker('');
done();
is_deeply(
	message_counts($listen->wait_for_last('done_inserted')),
	{
		violations => 0,
		'users_updated updated' => 200,
		'many_updated updated' => 60000,
		'done_inserted inserted' => 1
	},
	'channel: nothing lost, nothing twice');
is_deeply([ spill_files($node) ], [], 'no file stays');

# ---------- under load

my $small = $node->basedir . '/small.sql';
my $large = $node->basedir . '/large.sql';
append_to_file($small,
	"\\set id random(1, 50)\nUPDATE users SET v = v + 1 WHERE id = :id;\n");
append_to_file($large,
	"BEGIN; SELECT FROM users WHERE id = 1 FOR UPDATE; UPDATE many SET v = v + 1 WHERE id <= 5000; END;\n");
$listen->stop;
$node->safe_psql('postgres',
	'DELETE FROM many WHERE id > 5000; UPDATE many SET v = 0; UPDATE users SET v = 0');
wait_delivered($node, 'postgres');
$start = position();
$listen = start_listen($node, 'postgres', ['--count', '--counter', 'v', '--until', 'done_inserted'], @channels);
my ($out, $err) = ('', '');
my $load;
{
	local %ENV = $node->_get_env;
	$load = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 6, '-T', 5, '-R', 300,
			'-f', "$small\@80", '-f', "$large\@1", 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
}
$kills = 0;
while ($load->pumpable)
{
	my $old = $worker;

	$kills += kill 'TERM', $worker;
	$worker = poll_until(
		'the next worker',
		sub {
			$load->pump_nb if $load->pumpable;
			my $new = ask($stat, 'SELECT worker_pid FROM ectowatch_stat');
			return $new ne '' && $new ne $old && $new;
		});
}
ok($load->finish, 'no transaction failed') or diag $err;
my ($transactions) = $out =~ /number of transactions actually processed: (\d+)/;
cmp_ok($kills, '>=', 3, "the worker was ended under load, $kills times in $transactions transactions");
done();
my $counts = $listen->finish;
my $users = $node->safe_psql('postgres', 'SELECT sum(v) FROM users');
my $many = $node->safe_psql('postgres', 'SELECT sum(v) FROM many');
is_deeply(
	$counts,
	{
		'users_updated updated' => $users,
		'many_updated updated' => $many,
		'done_inserted inserted' => 1,
		order_violations => 0,
		position_violations => 0,
		skipped => 0,
		unknown => 0
	},
	'channel: all of it, once, in order');
is_deeply(
	ring_counts($node, 'postgres', $start),
	{
		'users_updated updated' => $users,
		'many_updated updated' => $many,
		'done_inserted inserted' => 1,
		violations => 0
	},
	'ring: all of it, once');
is( $node->safe_psql('postgres', qq{
		SELECT count(*) FROM (
			SELECT v, lag(v) OVER (PARTITION BY watcher, id ORDER BY position) AS before
			FROM (SELECT position, watcher, values ->> 'id' AS id, (values ->> 'v')::int AS v
				FROM ectowatch_changes($start, '{users_updated,many_updated}', NULL)) AS c) AS p
		WHERE v <> before + 1}),
	0, 'in order');
is_deeply([ spill_files($node) ], [], 'no file stays');

# ---------- the launcher

my $launcher = poll_until('the launcher', sub { return launcher_pid($node) });
kill 'TERM', $launcher or BAIL_OUT("no launcher: $!");
my $new_launcher = poll_until(
	'another launcher',
	sub {
		my $pid = launcher_pid($node);
		return $pid ne '' && $pid ne $launcher && $pid;
	});
isnt($new_launcher, $launcher, 'another launcher after SIGTERM');
is(ask($stat, 'SELECT worker_pid FROM ectowatch_stat'), $worker, 'the worker goes on');
is( $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ectowatch worker'"),
	1, 'and is the only one');
$start = position();
$listen = start_listen($node, 'postgres', [], @channels);
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1 WHERE id = 1');
is(scalar($listen->wait_for_lines(1)), 1, 'and works');
$worker = end_worker($worker);
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1 WHERE id = 1');
is(scalar($listen->wait_for_lines(2)), 2, 'the new launcher starts workers');
$listen->stop;

# ---------- SIGKILL: the server restarts

wait_point($node, 'appended');
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1 WHERE id = 1');
wait_reached($node, 'appended');
my $last = $node->safe_psql('postgres', 'SELECT newest_position FROM ectowatch_stat');
$node->safe_psql('postgres', 'UPDATE many SET v = v + 1 WHERE id <= 5000');
is(scalar(my @files = spill_files($node)), 1, 'a file in the queue');
kill 'KILL', $worker;
unlink $node->data_dir . '/ectowatch_wait.appended';
unlink $node->data_dir . '/ectowatch_wait.appended.reached';
poll_until('the end of a session',
	sub { return !$node->log_contains('terminating any other active') ? 0 : 1 });
$node->poll_query_until('postgres', 'SELECT true');
is_deeply([ spill_files($node) ], [], 'crash: no file stays');

$listen = start_listen($node, 'postgres', [], @channels, 'users_inserted');
$node->safe_psql(
	'postgres', q{
	SELECT ectowatch_watch('users', 'inserted');
	INSERT INTO users VALUES (51, 0);
	UPDATE users SET v = v + 1 WHERE id IN (1, 2)});
my @messages = map { (split /\t/)[2] } $listen->wait_for_lines(4);
my ($first) = $messages[0] =~ /"position":(\d+)/;
my $to = $first - 1;
cmp_ok($first, '>', $last, 'crash: positions do not go back');
is_deeply(
	\@messages,
	[
		qq({"type":"inserted","values":{"id":51},"position":$first}),
		qq({"type":"gap","values":{"from":null,"to":$to,"changes":null,"reason":"crash"},"position":$to}),
		map {
			my $position = $first + $_;
			my $v = $node->safe_psql('postgres', "SELECT v FROM users WHERE id = $_");
			qq({"type":"updated","values":{"id":$_,"v":$v},"position":$position})
		} 1, 2
	],
	'crash: a gap comes first on the channels of watchers that were there');
is( $node->safe_psql('postgres', qq{
		SELECT type, values ->> 'from', values ->> 'to', values ->> 'reason',
			values ->> 'id', position
		FROM ectowatch_changes($last)}),
	join("\n",
		"gap|@{[$last + 1]}|$to|crash||$to",
		"inserted||||51|$first",
		map { "updated||||$_|@{[$first + $_]}" } 1, 2),
	'crash: a reader with a position from before gets a gap first');
is( $node->safe_psql('postgres',
		"SELECT type, values ->> 'reason' FROM ectowatch_changes($to)"),
	"inserted|\nupdated|\nupdated|",
	'crash: behind it there is none');

# a gap is told once
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1 WHERE id = 3');
@messages = map { (split /\t/)[2] } $listen->wait_for_lines(5);
like($messages[4], qr/^\{"type":"updated","values":\{"id":3,/, 'crash: told once');

$listen->stop;
$node->stop;
done_testing();
