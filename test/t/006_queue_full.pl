# Copyright (c) 2026, the ectowatch authors

# The worker stands still and the queue fills up.  P3: writers go on, and wait
# for queue_timeout at most once.  P4: what is missing becomes gaps of each
# watcher, on its channel and in the ring, whose counts and what was delivered
# add up to what was committed.  A TAP test because it stops the worker, and
# wants a small queue.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node(
	'main',
	"ectowatch.queue_size = '64kB'",
	"ectowatch.queue_timeout = '1s'",
	"ectowatch.ring_size = '64MB'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v text);
	CREATE TABLE roles (id int PRIMARY KEY);
	CREATE TABLE quiet (id int PRIMARY KEY);
	CREATE TABLE done (id int PRIMARY KEY);
	CREATE TABLE skew (id int PRIMARY KEY);
	SELECT ectowatch_watch(t, 'changed') FROM unnest('{users,roles,quiet,done,skew}'::regclass[]) t});
my @channels = qw(users_changed roles_changed quiet_changed done_changed skew_changed);
my $listen = start_listen($node, 'postgres', [], @channels);
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $worker = worker_pid($node, 'postgres');

# What has to come: keys like "users_changed updated".
my %committed;

sub add
{
	my ($table, $type, $number) = @_;

	$committed{"${table}_changed $type"} += $number;
	return;
}

# Fills the queue while the worker is stopped; returns how long writers took.
sub fill_queue
{
	my ($first, $transactions) = @_;
	my $session = session($node, 'postgres');
	my $last = $first + $transactions * 10 - 1;

	# transactions of ten rows; every fifth one rolls back, every fifth one to a savepoint
	my $began = time();
	$session->query_safe("SET ectowatch.queue_timeout = '1s'");
	$session->query_safe(qq{
		DO \$\$BEGIN
			FOR i IN 0 .. $transactions - 1 LOOP
				INSERT INTO users SELECT $first + 10 * i + j, 'v' FROM generate_series(0, 9) j;
				INSERT INTO roles VALUES ($first + i);
				IF i % 5 = 0 THEN
					ROLLBACK;
				ELSE
					IF i % 5 = 1 THEN
						BEGIN
							DELETE FROM users WHERE id >= $first + 10 * i;
							RAISE division_by_zero;
						EXCEPTION WHEN division_by_zero THEN
							NULL;
						END;
					END IF;
					COMMIT;
				END IF;
			END LOOP;
		END\$\$});
	my $took = time() - $began;
	$session->quit;
	my ($users, $roles) = split /\|/, $node->safe_psql('postgres', qq{
		SELECT (SELECT count(*) FROM users WHERE id BETWEEN $first AND $last),
			(SELECT count(*) FROM roles WHERE id BETWEEN $first AND $last)});
	is("$users $roles", join(' ', $transactions * 8, $transactions * 4 / 5),
		'writers go on');
	add('users', 'inserted', $users);
	add('roles', 'inserted', $roles);
	return $took;
}

# Compares what came with what was committed; lost changes are in gaps.
sub adds_up
{
	my ($title, $counts) = @_;
	my (%sum, %expected);

	is($counts->{violations}, 0, "$title: positions grow");
	foreach my $key (grep { / / } keys %$counts)
	{
		my ($watcher, $type) = split / /, $key, 2;

		$sum{$watcher} += $counts->{$key};
		like($type, qr/^(inserted|gap queue_full)$/, "$title: $watcher $type");
	}
	foreach my $key (keys %committed)
	{
		my ($watcher) = split / /, $key;
		$expected{$watcher} += $committed{$key};
	}
	is_deeply(\%sum, \%expected, "$title: delivered and lost make up the committed");
	foreach my $watcher (qw(users_changed roles_changed))
	{
		cmp_ok($counts->{"$watcher gap queue_full"}, '>', 0, "$title: $watcher lost some");
		cmp_ok($counts->{"$watcher inserted"}, '>', 0, "$title: $watcher got some");
	}
	is($counts->{'skew_changed gap queue_full'}, 200, "$title: skew_changed lost what was committed");
	ok(!exists $counts->{"$_ gap queue_full"}, "$title: $_ lost nothing")
	  foreach qw(quiet_changed done_changed);
	return;
}

# ---------- a queue that is full once, and again

foreach my $round (1, 2)
{
	kill 'STOP', $worker;
	my $took = fill_queue($round * 100000, 500);
	cmp_ok($took, '>=', 1, 'one of them waits');
	note "500 transactions took $took s";
	my $lost = $node->safe_psql('postgres', 'SELECT queue_bytes FROM ectowatch_stat');
	cmp_ok($lost, '<=', 65536, 'the queue keeps to its size');

	# no one waits for a queue that has been waited for in vain
	my $began = time();
	$node->safe_psql('postgres', "INSERT INTO users VALUES ($round)");
	add('users', 'inserted', 1);
	cmp_ok(time() - $began, '<', 0.9, 'the next one does not');

	# what did not fit and is rolled back is not missed, not even if the commit
	# fails at the last moment
	$node->safe_psql('postgres', 'BEGIN; INSERT INTO quiet VALUES (-1); ROLLBACK');
	my @serializable = map { session($node, 'postgres') } 1, 2;
	$serializable[$_]->query_safe(
		"BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM skew; INSERT INTO skew SELECT $round * 1000 + $_ * 100 + i FROM generate_series(1, 100) i")
	  foreach 0, 1;
	$serializable[0]->query_safe('COMMIT');
	$serializable[1]->query('COMMIT');
	like($serializable[1]->{stderr}, qr/during commit attempt/, 'a commit fails');
	$_->quit foreach @serializable;
	add('skew', 'inserted', 100);

	kill 'CONT', $worker;
	wait_delivered($node, 'postgres');
	poll_query($node, 'postgres',
		"SELECT bool_and(lost > 0) FROM ectowatch_stat_watchers WHERE watcher IN ('users_changed', 'roles_changed')");
	$node->safe_psql('postgres', "INSERT INTO done VALUES ($round); INSERT INTO quiet VALUES ($round)");
	add('done', 'inserted', 1);
	add('quiet', 'inserted', 1);
	$listen->wait_for_last('quiet_changed');
}

my $ring = ring_counts($node, 'postgres', $start);
my $channel = message_counts($listen->wait_for_last('quiet_changed'));
adds_up('ring', $ring);
adds_up('channel', $channel);
is_deeply($channel, $ring, 'channel and ring agree');
is( $node->safe_psql('postgres', q{
		SELECT s.lost, (SELECT sum(lost) FROM ectowatch_stat_watchers)
		FROM ectowatch_stat s}),
	join('|', ($ring->{'users_changed gap queue_full'} + $ring->{'roles_changed gap queue_full'} + 200) x 2),
	'statistics say what was lost');

# a gap has its own positions, as many as changes
is( $node->safe_psql('postgres', qq{
		SELECT bool_and((values ->> 'to')::bigint = position
			AND (values ->> 'to')::bigint - (values ->> 'from')::bigint + 1 = (values ->> 'changes')::bigint)
		FROM ectowatch_changes($start, NULL, NULL) WHERE type = 'gap'}),
	't', 'a gap stands for positions');

# ---------- a snapshot from before what was lost

my $reader = session($node, 'postgres');
kill 'STOP', $worker;
fill_queue(300000, 200);
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $seen = $reader->query_safe('SELECT count(*) FROM users');
$node->safe_psql('postgres', 'INSERT INTO users VALUES (3), (4), (5)');
kill 'CONT', $worker;
poll_query($node, 'postgres', qq{
	SELECT lost > $ring->{'users_changed gap queue_full'}
	FROM ectowatch_stat_watchers WHERE watcher = 'users_changed'});
$node->safe_psql('postgres', 'INSERT INTO done VALUES (3)');
wait_delivered($node, 'postgres');
my $position = $reader->query_safe('SELECT ectowatch_position()');
$reader->query_safe('COMMIT');
$reader->quit;
my $counts = ring_counts($node, 'postgres', $position, 'users_changed');
cmp_ok(
	($counts->{'users_changed inserted'} // 0) + ($counts->{'users_changed gap queue_full'} // 0),
	'>=',
	$node->safe_psql('postgres', 'SELECT count(*) FROM users') - $seen,
	'ectowatch_position() lies before a gap of what its snapshot does not see');

# ---------- while gaps are told, more is lost: the queue is emptied before that is told

sub fill_and_lose
{
	my ($first, @tables) = @_;
	my $writer = session($node, 'postgres');

	$writer->query_safe("SET ectowatch.queue_timeout = '0'");
	$writer->query_safe(
		"DO \$\$BEGIN FOR i IN $first .. $first + 1999 LOOP INSERT INTO quiet VALUES (i); COMMIT; END LOOP; END\$\$");
	$writer->query_safe("INSERT INTO $_ VALUES ($first)") foreach @tables;
	$writer->quit;
	return;
}

wait_delivered($node, 'postgres');
$start = $node->safe_psql('postgres', 'SELECT newest_position FROM ectowatch_stat');
kill 'STOP', $worker;
fill_and_lose(10000, 'users', 'skew');
wait_point($node, 'lost');
kill 'CONT', $worker;
wait_reached($node, 'lost');
fill_and_lose(20000, 'users');
release($node, 'lost');
$node->safe_psql('postgres', 'INSERT INTO done VALUES (4)');
wait_delivered($node, 'postgres');
poll_query($node, 'postgres', qq{
	SELECT count(*) = 2 FROM ectowatch_changes($start, '{users_changed}', NULL) WHERE type = 'gap'});
is( $node->safe_psql('postgres', qq{
		SELECT string_agg(watcher || ' ' || type, ', ' ORDER BY position)
		FROM (SELECT *, lag(watcher || ' ' || type) OVER (ORDER BY position) AS before
			FROM ectowatch_changes($start, '{users_changed,quiet_changed,skew_changed}', NULL)) c
		WHERE watcher || ' ' || type IS DISTINCT FROM before}),
	'quiet_changed inserted, users_changed gap, quiet_changed gap, skew_changed gap, '
	  . 'quiet_changed inserted, users_changed gap',
	'what is lost meanwhile is told behind what is in the queue');

# ---------- after a restart, what is lost first does not hide what the restart cost

$listen->stop;
$node->append_conf('postgresql.conf', "ectowatch.ring_size = '1MB'");
$node->restart;
$listen = start_listen($node, 'postgres', [], @channels);
$worker = worker_pid($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO quiet VALUES (10)');
$listen->wait_for_last('quiet_changed');
kill 'STOP', $worker;
$node->safe_psql('postgres', "INSERT INTO done SELECT i FROM generate_series(100, 2000) i");
my $stopped = session($node, 'postgres');
$stopped->query_safe("SET ectowatch.queue_timeout = '0'");
$stopped->query_safe('DO $$BEGIN FOR i IN 2001 .. 3000 LOOP INSERT INTO quiet VALUES (i); COMMIT; END LOOP; END$$');
$stopped->query_safe('INSERT INTO users VALUES (20)');
$stopped->quit;
is( $node->safe_psql('postgres', "SELECT queue_bytes > 50000 FROM ectowatch_stat"),
	't', 'the queue is full again');
kill 'CONT', $worker;
my @lines = grep { /^users_changed\t/ } $listen->wait_for_line(qr/^users_changed\t/);
like($lines[0], qr/"reason":"crash"/, 'the first message is the gap of the restart');

# ---------- a watcher that is removed before its loss is told

wait_delivered($node, 'postgres');
kill 'STOP', $worker;
my $last = session($node, 'postgres');
$last->query_safe("SET ectowatch.queue_timeout = '0'");
$last->query_safe('DO $$BEGIN FOR i IN 3001 .. 6000 LOOP INSERT INTO quiet VALUES (i); COMMIT; END LOOP; END$$');
$last->query_safe(q{
	BEGIN;
	INSERT INTO users SELECT i FROM generate_series(21, 120) i;
	SELECT ectowatch_unwatch('users_changed');
	COMMIT});
$last->quit;
kill 'CONT', $worker;
@lines = grep { /^users_changed\t/ } $listen->wait_for_line(qr/^users_changed\t.*queue_full.*/);
like($lines[-1], qr/"changes":101,"reason":"queue_full"/, 'its listeners are told, its end included');

# ---------- the same, from before the restart, and the ring has dropped what its
# listeners should have been told before

my $sleeper = block_channels($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO skew VALUES (1)');
$node->safe_psql('postgres',
	"SELECT count(ectowatch_notify('filler', i || repeat('y', 7000))) FROM generate_series(1, 300) i");
poll_query($node, 'postgres', 'SELECT queue_batches = 0 FROM ectowatch_stat');
kill 'STOP', $worker;
$last = session($node, 'postgres');
$last->query_safe("SET ectowatch.queue_timeout = '0'");
$last->query_safe('DO $$BEGIN FOR i IN 6001 .. 9000 LOOP INSERT INTO quiet VALUES (i); COMMIT; END LOOP; END$$');
$last->query_safe(q{
	BEGIN;
	INSERT INTO skew VALUES (2), (3);
	SELECT ectowatch_unwatch('skew_changed');
	COMMIT});
$last->quit;
kill 'CONT', $worker;
unblock_channels($node, $sleeper);
@lines = grep { /^skew_changed\t/ } $listen->wait_for_line(qr/^skew_changed\t.*queue_full.*/);
is_deeply(
	[ map { /"reason":"(\w+)"/ } @lines ],
	[qw(overtaken crash queue_full)],
	'a restart is told before its last gap');

$listen->stop;
$node->stop;
done_testing();
