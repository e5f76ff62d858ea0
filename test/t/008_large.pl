# Copyright (c) 2026, the ectowatch authors

# Transactions that are larger than memory and queue: their changes go through
# a file, and all of them arrive.  Savepoints cut off what was in the file; no
# file stays.  Where no file can be written or read, the write succeeds all the
# same (P3), and what is lost is told (P4).  A TAP test because it looks at
# files, and breaks them.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node(
	'main',
	"ectowatch.queue_size = '1MB'",
	"ectowatch.ring_size = '256MB'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
	CREATE TABLE roles (id int PRIMARY KEY);
	CREATE TABLE wide (id int PRIMARY KEY, t text);
	CREATE TABLE done (id serial PRIMARY KEY);
	SELECT ectowatch_watch('users', 'changed', extra_columns => '{v}');
	SELECT ectowatch_watch('roles', 'inserted');
	SELECT ectowatch_watch('wide', 'updated', extra_columns => '{t}');
	SELECT ectowatch_watch('done', 'inserted')});
my $tmp = $node->data_dir . '/base/pgsql_tmp';
my ($listen, $start);

sub begin
{
	$listen = start_listen($node, 'postgres', [],
		qw(users_changed roles_inserted wide_updated done_inserted));
	$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
	return;
}

# What came has to be these, beside the last one.
sub came
{
	my ($title, %expected) = @_;

	$expected{'done_inserted inserted'} = 1;
	$expected{violations} = 0;
	wait_delivered($node, 'postgres');
	$node->safe_psql('postgres', 'INSERT INTO done DEFAULT VALUES');
	is_deeply(message_counts($listen->wait_for_last('done_inserted')),
		\%expected, "$title: channel");
	is_deeply(ring_counts($node, 'postgres', $start), \%expected, "$title: ring");
	is_deeply([ spill_files($node) ], [], "$title: no file stays");
	$listen->stop;
	return;
}

sub spilled
{
	return $node->safe_psql('postgres', 'SELECT spilled FROM ectowatch_stat');
}

# ---------- beyond the queue's share, and beyond pending_memory

begin();
my $session = session($node, 'postgres');
$session->query_safe('BEGIN; INSERT INTO users SELECT generate_series(1, 100000)');
is(scalar(my @files = spill_files($node)),
	1, 'what the queue cannot carry goes to a file before the commit');
$session->query_safe('COMMIT');
wait_delivered($node, 'postgres');
is(spilled(), 1, 'the file goes to the worker');
came('100,000 inserts', 'users_changed inserted' => 100000);

begin();
$session->query_safe("SET ectowatch.pending_memory = '64kB'");
$session->query_safe('BEGIN; INSERT INTO roles SELECT generate_series(-2000, -1)');
is(scalar(@files = spill_files($node)), 1, 'less memory than the queue has room');
$session->query_safe('ROLLBACK; BEGIN; UPDATE users SET v = 1; COMMIT');
wait_delivered($node, 'postgres');
is(spilled(), 2, 'two files were handed over');
came('100,000 updates', 'users_changed updated' => 100000);
is( $node->safe_psql('postgres', qq{
		SELECT count(DISTINCT values ->> 'id'), min(values ->> 'v'), max(values ->> 'v'),
			count(DISTINCT xid)
		FROM ectowatch_changes($start, '{users_changed}', NULL)}),
	'100000|1|1|1', 'each row of it');

# Rows that are in the file are known, as far as pending_memory goes: who changes
# one of them without a difference is not heard again.
begin();
$session->query_safe(q{
	RESET ectowatch.pending_memory;
	BEGIN;
	UPDATE users SET v = 2 WHERE id <= 30000;
	UPDATE users SET v = v WHERE id IN (1, 15000, 30000);
	COMMIT});
came('repeated in a large transaction', 'users_changed updated' => 30000);

begin();
$session->query_safe(q{
	BEGIN;
	UPDATE users SET v = 3 WHERE id <= 30000;
	SAVEPOINT a;
	UPDATE users SET v = 4 WHERE id = 1;
	ROLLBACK TO a;
	UPDATE users SET v = v WHERE id IN (1, 30000);
	COMMIT});
came('repeated after a rollback', 'users_changed updated' => 30000);

# one that is longer than a piece of the file
$session->query_safe(q{
	INSERT INTO wide VALUES (1, 'a'), (2, repeat('b', 400000)), (3, 'c')});
begin();
$session->query_safe(q{
	BEGIN;
	UPDATE wide SET t = t;
	UPDATE wide SET t = t WHERE id <> 2;
	COMMIT});
came('repeated beside a long one', 'wide_updated updated' => 3);
$session->query_safe("SET ectowatch.pending_memory = '64kB'");

# ---------- savepoints

$node->safe_psql('postgres', 'DELETE FROM users WHERE id > 20000');
wait_delivered($node, 'postgres');
begin();
$session->query_safe(q{
	BEGIN;
	UPDATE users SET v = 2 WHERE id <= 3000;
	SAVEPOINT a;
	UPDATE users SET v = 3 WHERE id <= 5000;
	SAVEPOINT b;
	INSERT INTO roles SELECT generate_series(1, 3000);
	RELEASE b;
	ROLLBACK TO a;
	UPDATE users SET v = 4 WHERE id BETWEEN 3001 AND 6000;
	SAVEPOINT c;
	DELETE FROM users WHERE id > 19000;
	RELEASE c;
	SAVEPOINT d;
	INSERT INTO roles SELECT generate_series(1, 10);
	ROLLBACK TO d;
	INSERT INTO roles SELECT generate_series(1, 20);
	COMMIT});
came(
	'savepoints',
	'users_changed updated' => 6000,
	'users_changed deleted' => 1000,
	'roles_inserted inserted' => 20);
is( $node->safe_psql('postgres', qq{
		SELECT values ->> 'v', count(*), min((values ->> 'id')::int), max((values ->> 'id')::int)
		FROM ectowatch_changes($start, '{users_changed}', NULL)
		WHERE type = 'updated' GROUP BY 1 ORDER BY 1}),
	"2|3000|1|3000\n4|3000|3001|6000",
	'savepoints: the right ones');

# all of a file is cut off, and it is not needed any longer
begin();
$session->query_safe(q{
	BEGIN;
	SAVEPOINT a;
	UPDATE users SET v = 5;
	ROLLBACK TO a;
	INSERT INTO roles VALUES (21);
	COMMIT});
came('only in memory', 'roles_inserted inserted' => 1);

begin();
$session->query_safe('BEGIN; UPDATE users SET v = 6; ROLLBACK');
$session->query_safe('BEGIN; SAVEPOINT a; UPDATE users SET v = 6; ROLLBACK TO a; COMMIT');
came('rolled back');

# ectowatch_pending() reads the file
begin();
is( $session->query_safe(q{
		BEGIN;
		UPDATE users SET v = 7;
		SELECT count(DISTINCT values), min(type), max(type) FROM ectowatch_pending()}),
	'19000|updated|updated', 'ectowatch_pending() of a large transaction');
$session->query_safe('ROLLBACK');
came('pending');

# ---------- a transaction that an error or the disk's limits would end

begin();
$session->query_safe("SET temp_file_limit = '64kB'");
$session->query_safe('UPDATE users SET v = 8');
came('temp_file_limit does not count', 'users_changed updated' => 19000);

# no file can be made
rmdir $tmp or BAIL_OUT("could not remove $tmp: $!");
append_to_file($tmp, '');
begin();
$session->query_safe(q{
	BEGIN;
	INSERT INTO roles SELECT generate_series(100, 149);
	UPDATE users SET v = 9;
	SAVEPOINT a;
	INSERT INTO roles SELECT generate_series(200, 2000);
	INSERT INTO done DEFAULT VALUES;
	ROLLBACK TO a;
	COMMIT});
$session->query_safe('BEGIN; UPDATE users SET v = 10; ROLLBACK');
is($node->safe_psql('postgres', 'SELECT min(v) FROM users'),
	9, 'without a file: the write succeeds');
poll_query($node, 'postgres', 'SELECT lost = 19050 FROM ectowatch_stat');
came(
	'without a file',
	'users_changed gap queue_full' => 19000,
	'roles_inserted gap queue_full' => 50);

# nor are there summaries of what could not be kept
$node->safe_psql('postgres',
	q{SELECT ectowatch_alter('users_changed', bulk_threshold => 18999)});
begin();
$session->query_safe('UPDATE users SET v = 10');
poll_query($node, 'postgres', 'SELECT lost = 38050 FROM ectowatch_stat');
came('without a file, and more than the threshold',
	'users_changed gap queue_full' => 19000);
$node->safe_psql('postgres',
	q{SELECT ectowatch_alter('users_changed', bulk_threshold => 0)});
unlink $tmp or BAIL_OUT("could not remove $tmp: $!");

# a file vanishes before the worker gets to it
begin();
my $worker = worker_pid($node, 'postgres');
kill 'STOP', $worker;
$session->query_safe('UPDATE users SET v = 11');
@files = spill_files($node);
is(scalar(@files), 1, 'a file that is in the queue');
unlink @files;
$node->safe_psql(
	'postgres', q{
	SELECT ectowatch_unwatch('roles_inserted');
	SELECT ectowatch_unwatch('wide_updated');
	SELECT ectowatch_watch('wide', 'updated', extra_columns => '{t}')});
kill 'CONT', $worker;
wait_delivered($node, 'postgres');
$node->safe_psql('postgres', 'INSERT INTO done DEFAULT VALUES');
my @lines = $listen->wait_for_line(qr/^done_inserted\t.*"type":"inserted"/);
is_deeply(
	message_counts(@lines),
	{
		violations => 0,
		'users_changed gap queue_full' => 0,
		'roles_inserted gap queue_full' => 0,
		'roles_inserted ended' => 1,
		'wide_updated gap queue_full' => 0,
		'wide_updated ended' => 1,
		'done_inserted gap queue_full' => 0,
		'done_inserted inserted' => 1
	},
	'a file that vanished: all watchers are told, without a count, and one that was removed meanwhile');
is(scalar(grep { /^wide_updated\t.*"type":"gap"/ } @lines),
	1, 'one that was removed and made anew is told once');
$listen->stop;

# it works again, the directory is made anew
begin();
$session->query_safe('UPDATE users SET v = 12');
came('afterwards', 'users_changed updated' => 19000);

$session->quit;
$node->stop;
is_deeply([ spill_files($node) ], [], 'nothing is left');
done_testing();
