# Copyright (c) 2026, the ectowatch authors

# Who is noted as listening: P10, and what narrowed channels depend on.  A
# subscription ends with its session, however that ends; when there is no room
# for another one, that is an error and not silence; it does not matter who
# executes LISTEN, nor whether the worker is there.  A TAP test because it ends
# sessions, kills the worker, and takes a server with few subscriptions.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'ectowatch.max_subscriptions = 5',
	'max_prepared_transactions = 1');

$node->safe_psql('postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, role_id int);
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{role_id}')});

# The channels that are listened to, as "application channel", in order.
sub subscriptions
{
	return join ', ', split /\n/, $node->safe_psql('postgres', q{
		SELECT concat_ws(' ', application_name, channel)
		FROM ectowatch_stat_subscriptions
		ORDER BY application_name COLLATE "C", channel COLLATE "C"});
}

sub subscriptions_become
{
	my ($expected, $name) = @_;

	poll_until("\"$expected\"", sub { return subscriptions() eq $expected });
	pass($name);
	return;
}

# Executes what is to fail, and returns what psql said about it.
sub failure
{
	my ($session, $query) = @_;

	$session->{stderr} = '';
	$session->query($query);
	my $stderr = $session->{stderr};
	$session->{stderr} = '';
	return $stderr;
}

sub named_session
{
	my ($name) = @_;
	my $session = session($node, 'postgres');

	$session->query_safe("SET application_name = '$name'");
	return $session;
}

# ---------- the end of a session

my $a = named_session('a');
my $b = named_session('b');
my $pid = $b->query_safe('SELECT pg_backend_pid()');
$a->query_safe(q{SELECT ectowatch_subscribe('users_updated', 1)});
$b->query_safe(q{LISTEN "users_updated|id|1"; LISTEN users_updated});
is(subscriptions(),
	'a users_updated|id|1, b users_updated, b users_updated|id|1',
	'two sessions listen to the same channel');
$a->quit;
subscriptions_become('b users_updated, b users_updated|id|1',
	'a session that ends, ends its own');

$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
subscriptions_become('', 'so does one that is terminated');

$a = named_session('a');
$pid = $a->query_safe('SELECT pg_backend_pid()');
$a->query_safe(q{LISTEN "users_updated|id|1"; BEGIN; LISTEN "users_updated|id|2"});
kill 'TERM', $pid;
subscriptions_become('', 'and one that is killed in a transaction');

# ... in the middle of its commit, where the entry is there already
wait_point($node, 'reserved');
$a = named_session('a');
$pid = $a->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', 'INSERT INTO users SELECT i FROM generate_series(1, 3) i');
start_statement($a, q{BEGIN; LISTEN "users_updated|id|1"; UPDATE users SET role_id = 1; COMMIT});
wait_reached($node, 'reserved');
is(subscriptions(), 'a users_updated|id|1', 'from before the commit on');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
subscriptions_become('', 'and one that is terminated while it commits');
unlink glob($node->data_dir . '/ectowatch_wait.reserved*');
wait_session_end($a);

# ---------- no room

$a = named_session('a');
$b = named_session('b');
$a->query_safe(qq{LISTEN "users_updated|id|$_"}) foreach 1 .. 4;
$b->query_safe('LISTEN "tomorrow|id|1"');
my $full = join ', ', (map { "a users_updated|id|$_" } 1 .. 4), 'b tomorrow|id|1';
is(subscriptions(), $full, 'all there is room for');

like(failure($b, q{SELECT ectowatch_subscribe('users_updated', 5)}),
	qr/cannot listen to channel "users_updated\|id\|5": too many subscriptions.*Increase ectowatch\.max_subscriptions/s,
	'one more is an error');
is($b->query_safe('SELECT count(*) FROM pg_listening_channels()'), 1,
	'which leaves nothing behind in core either');
is(subscriptions(), $full, 'nor with us');

# the first of them finds room, the second does not
$a->query_safe('UNLISTEN "users_updated|id|4"');
like(failure($b, q{BEGIN; INSERT INTO users VALUES (17); LISTEN "users_updated|id|5"; LISTEN "users_updated|id|6"; COMMIT}),
	qr/too many subscriptions/, 'room for one of two is too little');
is(subscriptions(),
	'a users_updated|id|1, a users_updated|id|2, a users_updated|id|3, b tomorrow|id|1',
	'all of a transaction or nothing');
is($b->query_safe('SELECT count(*) FROM users WHERE id = 17'), 0, 'writes included');
$b->query_safe('LISTEN "users_updated|id|5"');

is(failure($b, 'LISTEN "next week|id|1"; LISTEN users_updated; LISTEN other'),
	'', 'channels to which all is sent are listened to without');
is($b->query_safe('SELECT count(*) FROM pg_listening_channels()'), 5,
	'by core');
$full = join ', ', (map { "a users_updated|id|$_" } 1 .. 3),
	'b tomorrow|id|1', 'b users_updated|id|5';
is(subscriptions(), $full, 'but not noted');

$b->query_safe('UNLISTEN *');
$b->query_safe(q{SELECT ectowatch_subscribe('users_updated', 5)});
is(subscriptions(),
	'a users_updated|id|1, a users_updated|id|2, a users_updated|id|3, b users_updated|id|5',
	'what was freed is used again');

# ---------- what drivers send: parameters without a type, by the extended protocol

$b->query_safe('UNLISTEN *');
foreach my $protocol (qw(extended prepared))
{
	my $script = $node->basedir . "/$protocol.sql";

	append_to_file($script, q{
\set id 42
SELECT ectowatch_subscribe('users_updated', :id);
SELECT ectowatch_subscribe('users_updated', 'role_id', :id);
DO $$BEGIN
	IF (SELECT array_agg(c ORDER BY c COLLATE "C") FROM pg_listening_channels() c)
			<> '{users_updated|id|42,users_updated|role_id|42}' THEN
		RAISE EXCEPTION 'other channels';
	END IF;
END$$;
});
	$node->command_ok([ 'pgbench', '-n', '-t', 1, '-M', $protocol, '-f', $script, $node->connstr('postgres') ],
		"untyped parameters, protocol $protocol");
}
subscriptions_become('a users_updated|id|1, a users_updated|id|2, a users_updated|id|3',
	'as if they were literals');
$b->query_safe(q{SELECT ectowatch_subscribe('users_updated', 5)});

# ---------- debug: the log has those that there have been

$b->query_safe('SET ectowatch.debug = on');
$b->query_safe('BEGIN; LISTEN "users_updated|id|71"; ROLLBACK');
$b->query_safe('BEGIN; SAVEPOINT s; LISTEN "users_updated|id|72"; ROLLBACK TO s; LISTEN "users_updated|id|73"; COMMIT');
$b->query_safe('RESET ectowatch.debug; UNLISTEN "users_updated|id|73"');
is( join(' ', slurp_file($node->logfile) =~ /ectowatch: process \d+ listens to channel "(users_updated\|id\|7\d)" of watcher "users_updated"/g),
	'users_updated|id|73', 'a LISTEN that is rolled back is not logged');

# ---------- PREPARE TRANSACTION: core refuses it with LISTEN

like(failure($b, q{BEGIN; LISTEN "users_updated|id|6"; PREPARE TRANSACTION 'p'}),
	qr/cannot PREPARE a transaction that has executed LISTEN/, 'core refuses it');
$b->query_safe(q{BEGIN; SELECT 1; PREPARE TRANSACTION 'p'});
$b->query_safe(q{COMMIT PREPARED 'p'});
is(subscriptions(),
	'a users_updated|id|1, a users_updated|id|2, a users_updated|id|3, b users_updated|id|5',
	'a prepared transaction changes nothing');

# ---------- the worker comes and goes

$pid = worker_pid($node, 'postgres');
kill 'TERM', $pid;
poll_until('another worker', sub { return worker_pid($node, 'postgres') ne $pid });
is(subscriptions(),
	'a users_updated|id|1, a users_updated|id|2, a users_updated|id|3, b users_updated|id|5',
	'subscriptions outlive the worker');
$_->quit foreach $a, $b;
subscriptions_become('', 'and end with their sessions');

# ---------- another database, and one that is dropped

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q{
	CREATE EXTENSION ectowatch;
	CREATE TABLE users (id int PRIMARY KEY);
	SELECT ectowatch_watch('users', 'updated')});
$a = session($node, 'other');
$a->query_safe(q{SELECT ectowatch_subscribe('users_updated', 1)});
is(subscriptions(), '', 'each database has its own');
is($node->safe_psql('other', 'SELECT watcher, channel FROM ectowatch_stat_subscriptions'),
	'users_updated|users_updated|id|1', 'and shows them');
$a->quit;
poll_query($node, 'other', 'SELECT count(*) = 0 FROM ectowatch_stat_subscriptions');
$node->safe_psql('postgres', 'DROP DATABASE other');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION ectowatch');
$a = session($node, 'other');
$a->query_safe(qq{LISTEN "users_updated|id|$_"}) foreach 1 .. 5;
is($node->safe_psql('other', 'SELECT count(*) FROM ectowatch_stat_subscriptions'),
	5, 'a slot with a new database starts with room for all');
$a->quit;

$node->stop;
done_testing();
