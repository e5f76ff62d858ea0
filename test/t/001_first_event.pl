# Copyright (c) 2026, the ectowatch authors

# A fresh server on which shared_preload_libraries is the only setting.  The
# first change after the first ectowatch_watch() of a database reaches its
# listener; several databases have a worker each, which know nothing of each
# other; beyond ectowatch.max_databases writes go on (P3), and say once per
# session that nothing is delivered (P4).  A TAP test because it wants a fresh
# server, and several databases.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ectowatch'");
$node->start;

# what it costs while it is not used
is($node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'ectowatch worker'"),
	0, 'no worker before it is asked for');

my @databases = ('postgres', 'one', 'two', 'three');
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach @databases[1 .. 3], 'four';

# ---------- the first event, in four statements

foreach my $database (@databases)
{
	my $session = session($node, $database);

	$session->query_safe('CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users VALUES (1)');
	$session->query_safe('CREATE EXTENSION ectowatch');
	is($session->query_safe("SELECT ectowatch_watch('users', 'updated')"),
		'users_updated', "$database: watch");
	my $listen = start_listen($node, $database, [], 'users_updated');
	my $began = time();
	$session->query_safe("UPDATE users SET v = 'x'");
	my @lines = $listen->wait_for_lines(1);
	note sprintf '%s: the first message came after %.1f ms', $database, 1000 * (time() - $began);
	my $worker = worker_pid($node, $database);
	like($lines[0], qr/^users_updated\t$worker\t\{"type":"updated","values":\{"id":1\},"position":\d+\}$/,
		"$database: the first message");
	$listen->stop;
	$session->quit;
}
is( $node->safe_psql('postgres',
		"SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'ectowatch worker'"),
	'one postgres three two', 'a worker for each database');

# LISTEN first, and the watcher, table and all in one transaction
$node->safe_psql('postgres', 'SELECT ectowatch_unwatch(watcher) FROM ectowatch_watchers');
my $listen = start_listen($node, 'postgres', [], 'roles_inserted');
$node->safe_psql('postgres', q{
	BEGIN;
	CREATE TABLE roles (id int PRIMARY KEY);
	SELECT ectowatch_watch('roles', 'inserted');
	INSERT INTO roles VALUES (1);
	COMMIT});
like(($listen->wait_for_lines(1))[0], qr/"id":1\}/, 'all in one transaction');
$listen->stop;

# ---------- databases know nothing of each other

my %listen = map { $_ => start_listen($node, $_, [], 'users_updated', 'done') } @databases[1 .. 3];
my %after = map { $_ => $node->safe_psql($_, 'SELECT ectowatch_position()') } @databases[1 .. 3];
my $script = $node->basedir . '/load.sql';
append_to_file($script, "UPDATE users SET v = random();\n");
my @loads;
foreach my $database (@databases[1 .. 3])
{
	local %ENV = $node->_get_env;
	my %load = (out => '', err => '');
	$load{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 2, '-t', 100, '-f', $script, $database ],
		'<', \undef, '>', \$load{out}, '2>', \$load{err});
	push @loads, \%load;
}
foreach my $load (@loads)
{
	ok($load->{run}->finish, 'a load') or diag $load->{err};
}
foreach my $database (@databases[1 .. 3])
{
	my $worker = worker_pid($node, $database);
	my @lines = $listen{$database}->wait_for_lines(200);

	is(scalar(@lines), 200, "$database: its messages");
	is(scalar(grep { (split /\t/)[1] == $worker } @lines), 200, "$database: from its worker");
	is_deeply(
		ring_counts($node, $database, $after{$database}),
		{ 'users_updated updated' => 200, violations => 0 },
		"$database: its ring");
	is($node->safe_psql($database, 'SELECT database, changes FROM ectowatch_stat'),
		"$database|201", "$database: its statistics");
	$listen{$database}->stop;
}

# ---------- one database too many

my ($status, $out, $err) = $node->psql('four', q{
	CREATE TABLE users (id int PRIMARY KEY, v text);
	INSERT INTO users VALUES (1);
	CREATE EXTENSION ectowatch;
	SELECT ectowatch_watch('users', 'updated')}, on_error_stop => 0);
like($err,
	qr/ERROR:  no more databases can use ectowatch\nDETAIL:  4 others do already\.\nHINT:  Increase ectowatch\.max_databases and restart the server\./,
	'no watcher in a fifth database');
is($node->safe_psql('four', 'SELECT count(*) FROM ectowatch_watchers'), 0, 'and nothing half done');
foreach my $call (
	'SELECT ectowatch_position()',
	'SELECT * FROM ectowatch_changes(0)',
	'CALL ectowatch_wait(0)')
{
	($status, $out, $err) = $node->psql('four', $call);
	like($err, qr/ERROR:  no more databases can use ectowatch/, $call);
}

# one that has watchers, from its template
$node->safe_psql('postgres', 'CREATE DATABASE five TEMPLATE one');
my $session = session($node, 'five');
$session->query("UPDATE users SET v = 'a'");
like($session->{stderr},
	qr/WARNING:  changes of watched tables are not delivered in this database\nDETAIL:  4 other databases use ectowatch already\.\nHINT:  Increase ectowatch\.max_databases/,
	'a write says that nothing is delivered');
$session->{stderr} = '';
$session->query_safe("UPDATE users SET v = 'b'; SET ectowatch.pending_memory = '64kB'");
pass('once per session');
$session->query_safe('INSERT INTO users SELECT generate_series(2, 5000)');
is($session->query_safe('SELECT count(*) FROM users'), 5000, 'writes go on');
$session->quit;
$session = session($node, 'five');
$session->query('SELECT ectowatch_unwatch(watcher) FROM ectowatch_watchers');
unlike($session->{stderr}, qr/ERROR/, 'the watcher can be removed there');
$session->quit;
is_deeply([ spill_files($node) ], [], 'no file stays');

# the others are not concerned
cmp_ok(worker_pid($node, 'one'), '>', 0, 'others go on');

# what the hint says helps
$node->append_conf('postgresql.conf', "ectowatch.max_databases = 5\nmax_worker_processes = 12");
$node->restart;
$node->safe_psql('one', 'UPDATE users SET v = NULL');
$listen = start_listen($node, 'four', [], 'users_updated');
$node->safe_psql('four', "SELECT ectowatch_watch('users', 'updated')");
$node->safe_psql('four', "UPDATE users SET v = 'y'");
like(($listen->wait_for_lines(1))[0], qr/"type":"updated","values":\{"id":1\}/, 'more databases');
$listen->stop;

$node->stop;
done_testing();
