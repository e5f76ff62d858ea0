# Copyright (c) 2026, the ectowatch authors

# The extension is dropped and created again: under load, with changes on
# their way, and in the transaction that also wrote.  P9: no write fails of
# it; P1: what is committed while there is a watcher arrives; P6: positions
# grow.  A TAP test because it takes a load and holds processes.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $create = q{
	CREATE EXTENSION ectowatch;
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}')};

$node->safe_psql('postgres', q{
	DROP EXTENSION ectowatch;
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL);
	INSERT INTO users SELECT i, 0 FROM generate_series(1, 20) i});

# ---------- all in one transaction

my $listen = start_listen($node, 'postgres', [], qw(users_updated roles_inserted));
$node->safe_psql('postgres', "BEGIN; $create; UPDATE users SET v = 1 WHERE id = 1; COMMIT");
my @lines = $listen->wait_for_lines(1);
like($lines[0], qr/^users_updated\t\d+\t\{"type":"updated","values":\{"id":1,"v":1\}/,
	'CREATE EXTENSION, watch and write in one transaction');
my $last = $node->safe_psql('postgres', 'SELECT newest_position FROM ectowatch_stat');

$node->safe_psql('postgres', "BEGIN; UPDATE users SET v = 2 WHERE id = 1; DROP EXTENSION ectowatch CASCADE; COMMIT");
$node->safe_psql('postgres', 'UPDATE users SET v = 3 WHERE id = 1');
$node->safe_psql('postgres', "BEGIN; $create; ROLLBACK");
$node->safe_psql('postgres', 'UPDATE users SET v = 4 WHERE id = 1');
$node->safe_psql('postgres', $create);
$node->safe_psql('postgres', 'UPDATE users SET v = 5 WHERE id = 1');
@lines = $listen->wait_for_line(qr/"v":5\}/);
is(join(' ', map { /"v":(\d)/ } @lines), '1 2 5',
	'DROP EXTENSION in a transaction that has written: what was written arrives');
is( $node->safe_psql('postgres', "SELECT string_agg(values ->> 'v', ' ' ORDER BY position) FROM ectowatch_changes($last)"),
	'2 5', 'in the ring as well');
is( $node->safe_psql('postgres', 'SELECT newest_position > ' . $last . ' FROM ectowatch_stat'), 't', 'positions grow');
$last = $node->safe_psql('postgres', 'SELECT newest_position FROM ectowatch_stat');

$node->safe_psql('postgres', "BEGIN; UPDATE users SET v = 6 WHERE id = 1; DROP EXTENSION ectowatch CASCADE; $create; UPDATE users SET v = 7 WHERE id = 1; COMMIT");
@lines = $listen->wait_for_line(qr/"v":7\}/);
is(join(' ', map { /"v":(\d)/ } @lines), '1 2 5 6 7', 'dropped and created between two writes');

$node->safe_psql('postgres', "BEGIN; UPDATE users SET v = 8 WHERE id = 1; DROP EXTENSION ectowatch CASCADE; ROLLBACK");
$node->safe_psql('postgres', 'UPDATE users SET v = 9 WHERE id = 1');
@lines = $listen->wait_for_line(qr/"v":9\}/);
is(join(' ', map { /"v":(\d)/ } @lines), '1 2 5 6 7 9', 'DROP EXTENSION is rolled back');

# a session that has the plans of the former extension in its cache
my $session = session($node, 'postgres');
$session->query_safe('UPDATE users SET v = 10 WHERE id = 1');
$node->safe_psql('postgres', 'DROP EXTENSION ectowatch CASCADE');
$session->query_safe('UPDATE users SET v = 11 WHERE id = 1');
$node->safe_psql('postgres', 'CREATE SCHEMA other; CREATE EXTENSION ectowatch SCHEMA other');
$session->query_safe('UPDATE users SET v = 12 WHERE id = 1');
$session->query_safe("SELECT other.ectowatch_watch('users', 'updated', extra_columns => '{v}')");
$session->query_safe('UPDATE users SET v = 13 WHERE id = 1');
@lines = $listen->wait_for_line(qr/"v":13\}/);
is(join(' ', map { /"v":(\d+)/ } @lines), '1 2 5 6 7 9 10 13', 'created again in another schema');
$node->safe_psql('postgres', 'DROP EXTENSION ectowatch CASCADE');
$node->safe_psql('postgres', $create);

# ---------- with changes on their way

my $worker = worker_pid($node, 'postgres');
kill 'STOP', $worker;
$session->query_safe('UPDATE users SET v = 20 + id');
$node->safe_psql('postgres', 'DROP EXTENSION ectowatch CASCADE');
kill 'CONT', $worker;
@lines = $listen->wait_for_lines(28);
is(scalar(grep { /"v":(2[1-9]|3\d|40)\}/ } @lines), 20, 'changes on their way arrive though the extension has gone');

# the worker is restarted where there is no extension, and batches wait
kill 'TERM', $worker;
$node->safe_psql('postgres', 'SELECT 1');
$node->safe_psql('postgres', $create);
$session->query_safe('UPDATE users SET v = 50 WHERE id = 1');
@lines = $listen->wait_for_line(qr/"v":50\}/);
is(scalar(@lines), 29, 'the next worker goes on');

# a write that is held at its commit while the extension is dropped
wait_point($node, 'commit');
start_statement($session, 'UPDATE users SET v = 51 WHERE id = 1');
wait_reached($node, 'commit');
my $drop = session($node, 'postgres');
start_statement($drop, 'DROP EXTENSION ectowatch CASCADE');
poll_query($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity
	WHERE wait_event_type = 'Lock' AND query LIKE 'DROP EXTENSION%'});
release($node, 'commit');
finish_statement($session);
finish_statement($drop);
is($drop->{stderr} =~ /ERROR/ ? $drop->{stderr} : '', '', 'DROP EXTENSION waits for a writer');
@lines = $listen->wait_for_line(qr/"v":51\}/);
is(scalar(@lines), 30, 'and its changes arrive');
$drop->quit;
$session->quit;
$listen->stop;

# ---------- under load

my $script = $node->basedir . '/load.sql';
append_to_file($script, "\\set id random(1, 20)\nUPDATE users SET v = v + 1 WHERE id = :id;\n");
my ($out, $err) = ('', '');
my $load;
{
	local %ENV = $node->_get_env;
	$load = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 4, '-T', 3, '-f', $script, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
}
my $turns = 0;
my $disorder = 0;
while ($load->pumpable)
{
	$load->pump_nb;
	$node->safe_psql('postgres', $create);
	my $after = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
	$node->safe_psql('postgres', 'UPDATE users SET v = v + 1 WHERE id = 1');
	my ($position) = split /\n/, $node->safe_psql('postgres',
		"SELECT min(position) FROM ectowatch_changes($after, NULL, NULL, '10 s')");
	$disorder++ unless $position ne '' && $position > $last;
	$last = $position if $position ne '';
	$node->safe_psql('postgres', 'DROP EXTENSION ectowatch CASCADE');
	$turns++;
}
ok($load->finish, 'no transaction failed') or diag $err;
like($out, qr/number of failed transactions: 0 /, 'none at all');
cmp_ok($turns, '>', 2, "the extension was dropped under load, $turns times");
is($disorder, 0, 'and delivered each time, at positions that grow');

# what is there after all that
$node->safe_psql('postgres', $create);
wait_delivered($node, 'postgres');
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', 'UPDATE users SET v = 0');
wait_delivered($node, 'postgres');
is_deeply(
	ring_counts($node, 'postgres', $start),
	{ 'users_updated updated' => 20, violations => 0 },
	'in the end each change comes once');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '0_ectowatch%'"),
	1, 'by one trigger');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ectowatch worker'"),
	1, 'and one worker');

$node->stop;
done_testing();
