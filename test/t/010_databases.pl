# Copyright (c) 2026, the ectowatch authors

# Commands on a database for which core wants that nobody is connected to it:
# DROP, RENAME, SET TABLESPACE, use as template.  P9: none is blocked by the
# database's worker; afterwards there is one again, whether the command
# succeeded or not, and it delivers.  A database that is gone leaves its place
# to another one.  Who has no right to the command does not end the worker.  A
# TAP test because it wants a server with databases of its own.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'ectowatch.max_databases = 2', 'allow_in_place_tablespaces = on',
	'max_prepared_transactions = 1');

$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN CREATEDB;
	CREATE ROLE stranger LOGIN CREATEDB;
	SET allow_in_place_tablespaces = on;
	CREATE TABLESPACE other LOCATION '';
	GRANT CREATE ON TABLESPACE other, pg_default TO owner});
$node->append_conf('pg_hba.conf', 'local all all trust');

my $watch = q{
	CREATE EXTENSION ectowatch;
	CREATE TABLE users (id serial PRIMARY KEY);
	GRANT ALL ON users TO PUBLIC;
	SELECT ectowatch_watch('users', 'inserted')};

# A database that is watched, with its worker; the owner is no superuser.
sub create_database
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name OWNER owner");
	$node->safe_psql($name, $watch);
	return worker_pid($node, $name);
}

# A change of the database reaches its listener and its readers.
sub delivers
{
	my ($database, $title) = @_;
	my $listen = start_listen($node, $database, [], 'users_inserted');
	my $after = $node->safe_psql($database, 'SELECT ectowatch_position()');
	my $id = $node->safe_psql($database, 'INSERT INTO users DEFAULT VALUES RETURNING id');
	my @lines = $listen->wait_for_line(qr/"id":$id\}/);

	is(scalar(@lines), 1, "$title: listeners get changes");
	is( $node->safe_psql($database,
			"SELECT type, values ->> 'id' FROM ectowatch_changes($after)"),
		"inserted|$id", "$title: so do readers");
	$listen->stop;

	# its backend may take a little longer
	poll_query($node, 'postgres', qq{
		SELECT count(*) = 0 FROM pg_stat_activity
		WHERE datname = '$database' AND query LIKE 'LISTEN%'});
	return;
}

# Runs it as the owner, who is no superuser; the result is what went wrong.
sub as_role
{
	my ($role, $command) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $command, extra_params => [ '-U', $role ]);

	return $err;
}

# ---------- commands that succeed

my $worker = create_database('a');
my $position = $node->safe_psql('a', 'SELECT ectowatch_position()');
delivers('a', 'at first');

my %commands = (
	'RENAME' => 'ALTER DATABASE a RENAME TO b; ALTER DATABASE b RENAME TO a',
	'SET TABLESPACE' => 'ALTER DATABASE a SET TABLESPACE other',
	'SET TABLESPACE back' => 'ALTER DATABASE a SET TABLESPACE pg_default');
foreach my $title (sort keys %commands)
{
	my $error = join '', map { as_role('owner', $_) } split /; /, $commands{$title};

	is($error, '', "$title succeeds");
	isnt(worker_pid($node, 'a'), $worker, "$title: another worker");
	$worker = worker_pid($node, 'a');
	delivers('a', $title);
}
is(as_role('postgres', 'ALTER DATABASE a RENAME TO b'), '', 'RENAME by a superuser');
is(as_role('postgres', 'ALTER DATABASE b RENAME TO a'), '', 'and back');
is( $node->safe_psql('a', "SELECT count(*) FILTER (WHERE type = 'gap') FROM ectowatch_changes($position)"),
	0, 'nothing was lost');

# ---------- as template

$worker = worker_pid($node, 'a');
is(as_role('owner', 'CREATE DATABASE copy TEMPLATE a'), '', 'TEMPLATE succeeds');
isnt(worker_pid($node, 'a'), $worker, 'TEMPLATE: another worker');
delivers('a', 'TEMPLATE');
delivers('copy', 'the copy');
is($node->safe_psql('copy', "SELECT count(*) FROM ectowatch_changes($position)"),
	$node->safe_psql('copy', "SELECT count(*) FROM ectowatch_changes(0)") + 1,
	'the copy: a gap for positions of the template');

# ---------- both places are taken; who is dropped leaves his

$node->safe_psql('postgres', 'CREATE DATABASE third');
my ($status, $stdout, $stderr) = $node->psql('third', "BEGIN; $watch; COMMIT");
like($stderr, qr/no more databases can use ectowatch/, 'there is no place for a third database');
is(as_role('owner', 'DROP DATABASE copy'), '', 'DROP DATABASE by its owner');
$node->safe_psql('third', $watch);
worker_pid($node, 'third');
delivers('third', 'the place of a dropped database');
is( $node->safe_psql('third', 'SELECT changes, lost, batches FROM ectowatch_stat'),
	'1|0|1', 'nothing of the former one is there');
is( $node->safe_psql('third', 'SELECT workers_seen FROM ectowatch_stat_library_get()'),
	1, 'nor are its workers counted, or ectowatch_check() would say that this one has ended');
is(as_role('postgres', 'DROP DATABASE third WITH (FORCE)'), '', 'DROP DATABASE WITH (FORCE)');

# many times: no place is lost
foreach my $i (1 .. 4)
{
	create_database("d$i");
	delivers("d$i", "database $i");
	is( as_role('owner', "DROP DATABASE d$i" . ($i % 2 ? '' : ' WITH (FORCE)')),
		'', "database $i is dropped");
}

# FORCE ends sessions, too, and the owner need not be superuser to end ours
create_database('forced');
my $session = session($node, 'forced');
is(as_role('postgres', 'DROP DATABASE forced WITH (FORCE)'), '', 'WITH (FORCE) with a session');
start_statement($session, 'SELECT 1');
like(wait_session_end($session), qr/terminating connection/, 'which is ended');

# ---------- commands that fail

$worker = worker_pid($node, 'a');
foreach my $command (
	'DROP DATABASE a',
	'ALTER DATABASE a RENAME TO b',
	'ALTER DATABASE a SET TABLESPACE other')
{
	like(as_role('stranger', $command), qr/must be owner of database/, "$command by a stranger");
}
like(as_role('stranger', 'CREATE DATABASE copy TEMPLATE a'),
	qr/permission denied to copy database/, 'TEMPLATE by a stranger');
is(worker_pid($node, 'a'), $worker, 'does not end the worker');

like(as_role('owner', 'ALTER DATABASE a RENAME TO postgres'), qr/already exists/, 'RENAME to a name that is taken');
like(as_role('owner', 'BEGIN; DROP DATABASE a'), qr/cannot run inside a transaction block/, 'DROP in a transaction block');
delivers('a', 'after these');
my ($s, $o, $e) = $node->psql('a', 'DROP DATABASE a');
like($e, qr/cannot drop the currently open database/, 'DROP of the own database');
delivers('a', 'after that');

# core waits five seconds for a session to go
$session = session($node, 'a');
like(as_role('owner', 'DROP DATABASE a'), qr/is being accessed by other users/, 'DROP with a session');
unlike(as_role('owner', 'ALTER DATABASE a SET TABLESPACE pg_default'), qr/PANIC|FATAL/, 'SET TABLESPACE with a session');
$worker = worker_pid($node, 'a');
delivers('a', 'with a session');

# a command that waits is cancelled
my $second = session($node, 'postgres');
my $pid = $second->query_safe('SELECT pg_backend_pid()');
start_statement($second, 'DROP DATABASE a');
poll_query($node, 'postgres', "SELECT query LIKE 'DROP%' AND state = 'active' FROM pg_stat_activity WHERE pid = $pid");
poll_query($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'ectowatch worker' AND datname = 'a'");
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
finish_statement($second);
like($second->{stderr}, qr/canceling statement/, 'DROP is cancelled');
delivers('a', 'cancelled');
$session->quit;

# a session that is ended meanwhile lets the worker in again
$session = session($node, 'a');
start_statement($second, 'DROP DATABASE a');
poll_query($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'ectowatch worker' AND datname = 'a'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
like(wait_session_end($second), qr/terminating connection/, 'DROP is ended');
delivers('a', 'ended');
$session->quit;

# a renaming that is prepared, and then goes on without us
$session = session($node, 'postgres');
$session->query_safe("BEGIN; ALTER DATABASE a RENAME TO prepared; PREPARE TRANSACTION 'rename'");
$session->query_safe('BEGIN; SAVEPOINT a; SAVEPOINT b; SAVEPOINT c; COMMIT');
$session->query_safe("ROLLBACK PREPARED 'rename'");
$session->quit;
delivers('a', 'prepared');

$worker = worker_pid($node, 'a');
like(as_role('owner', 'DROP DATABASE IF EXISTS nothing'), qr|does not exist, skipping|, 'DROP IF EXISTS');
is(worker_pid($node, 'a'), $worker, 'of another one does not concern us');
is(as_role('owner', 'DROP DATABASE a'), '', 'in the end it is dropped');
is( $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ectowatch worker'"),
	$node->safe_psql('postgres', 'SELECT count(worker_pid) FROM ectowatch_stat'),
	'with its worker');

$node->stop;
done_testing();
