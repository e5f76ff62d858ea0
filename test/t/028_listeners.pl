# Copyright (c) 2026, the ectowatch authors

# How messages come to a session that listens.  They come as those of NOTIFY
# would: to whoever has executed LISTEN, whatever came first, the extension, the
# watcher or the LISTEN; between transactions and never within one; in order and
# once, also where they waited in files and the worker was ended meanwhile.
# P3: what goes wrong on the way to a client ends its session, and no
# transaction of it.  A TAP test because it takes clients in such states.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'fsync = off', 'log_statement = none');
my $sql = session($node, 'postgres');

# ---------- first the LISTEN

$node->safe_psql('postgres', 'CREATE DATABASE later ENCODING UTF8 TEMPLATE template0');
my $early = start_listen($node, 'later', [], 'notes_inserted', 'jobs');
$node->safe_psql('later', q{
	CREATE EXTENSION ectowatch;
	CREATE TABLE notes (id int PRIMARY KEY);
	SELECT ectowatch_watch('notes', 'inserted')});
$node->safe_psql('later', q{INSERT INTO notes VALUES (1); SELECT ectowatch_notify('jobs', 'one')});
is(join(' ', map { /^(\w+)/ } $early->wait_for_lines(2)), 'notes_inserted jobs',
	'a session that listened before there was the extension');
$early->stop;

# ---------- within a transaction

$sql->query_safe(q{
	CREATE TABLE notes (id int PRIMARY KEY, body text);
	SELECT ectowatch_watch('notes', 'inserted', extra_columns => '{body}')});
my $listener = session($node, 'postgres');
$listener->query_safe($_) foreach 'LISTEN notes_inserted', 'BEGIN';
my $other = session($node, 'postgres');
$other->query_safe($_) foreach 'LISTEN elsewhere', 'BEGIN';
$node->safe_psql('postgres', "INSERT INTO notes VALUES ($_, 'in')") foreach 1 .. 3;
wait_delivered($node, 'postgres');
unlike(ask($listener, 'SELECT 1'), qr/notification/, 'hears nothing in its transaction');
is(ask($sql, 'SELECT count(*) FROM ectowatch_stat_subscriptions WHERE unread_bytes > 0'),
	1, 'which statistics show');
is(ask($sql, q{SELECT count(*) FROM ectowatch_stat_subscriptions WHERE watcher IS NULL}),
	0, 'who listens to something else is not told');
$other->quit;
is(join(' ', ask($listener, 'COMMIT') =~ /"id":(\d)/g), '1 2 3', 'and all of it behind that, in order');
is(ask($sql, 'SELECT sum(unread_bytes) FROM ectowatch_stat_subscriptions'), 0, 'then it has read it');

$listener->query_safe('BEGIN');
$node->safe_psql('postgres', "INSERT INTO notes VALUES (4, 'unheard')");
wait_delivered($node, 'postgres');
unlike(ask($listener, 'UNLISTEN *; COMMIT'), qr/"id":4/, 'UNLISTEN: what was unread is not heard');
is(ask($sql, 'SELECT unread_bytes FROM ectowatch_stat'), 0, 'and not kept');
$listener->quit;

# ---------- a transaction that began in a procedure, of a client with prepared statements

# What the client cannot get, being of another encoding, must not fail that.
$sql->query_safe(q{
	CREATE TABLE written (id int);
	CREATE PROCEDURE write_twice() LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO written VALUES (1);
		INSERT INTO notes VALUES (5, U&'\4E16');
		COMMIT;
		WHILE (SELECT notify_bytes > 0 OR queue_batches > 0 OR unread_bytes = 0 FROM ectowatch_stat) LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		INSERT INTO written VALUES (2);
	END $$});
my $script = PostgreSQL::Test::Utils::tempdir . '/write_twice.sql';
append_to_file($script, "LISTEN notes_inserted;\nCALL write_twice();\nSELECT 'never reached';\n");
{
	local $ENV{PGCLIENTENCODING} = 'LATIN1';
	$node->command_fails_like([ 'pgbench', '-n', '-t', '1', '-M', 'extended', '-f', $script, 'postgres' ],
		qr/has no equivalent in encoding "LATIN1"/,
		'a message that the client cannot have ends its session');
}
is(ask($sql, 'SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM written'), '1 2',
	'and no transaction of it');

# ---------- files, and another worker

my $stuck = start_listen($node, 'postgres', [ '--count', '--until', 'done' ], 'bulk', 'done');
my $reading = start_listen($node, 'postgres', [ '--count', '--until', 'done' ], 'bulk', 'done');
$stuck->signal('STOP');
my $sent = 0;

sub send_much
{
	my ($n) = @_;

	$sql->query_safe("SELECT count(ectowatch_notify('bulk', format('{\"type\":\"inserted\",\"values\":{\"id\":%s,\"text\":\"%s\"},\"position\":%1\$s}', i, repeat('x', 7000))))
		FROM generate_series($sent + 1, $sent + $n) i");
	$sent += $n;
	wait_delivered($node, 'postgres');
	return;
}
send_much(3000);
is(scalar(spill_files($node)), 2, 'what does not fit into memory is in files');
foreach my $turn (1 .. 3)
{
	kill 'TERM', worker_pid($node, 'postgres');
	send_much(2000);
}
cmp_ok(scalar(spill_files($node)), '>', 3, 'of bounded size, also after the worker was ended');
$stuck->signal('CONT');
$sql->query_safe(q{SELECT ectowatch_notify('done', '{"type":"done"}')});
foreach my $client ($reading, $stuck)
{
	my $counts = $client->finish;

	is($counts->{'bulk inserted'}, $sent, 'all of it arrives');
	is($counts->{position_violations}, 0, 'in order');
}
poll_until('the files to go', sub { !spill_files($node) });

# ---------- DROP DATABASE

$stuck = start_listen($node, 'later', [], 'bulk');
$stuck->signal('STOP');
$node->safe_psql('later',
	"SELECT count(ectowatch_notify('bulk', i || repeat('x', 7000))) FROM generate_series(1, 3000) i");
wait_delivered($node, 'later');
cmp_ok(scalar(spill_files($node)), '>', 0, 'there are files');
$node->safe_psql('postgres', 'DROP DATABASE later WITH (FORCE)');
is(scalar(spill_files($node)), 0, 'which go with the database');
$stuck->signal('CONT');
$stuck->stop;

$sql->quit;
$node->stop;
done_testing();
