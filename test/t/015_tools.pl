# Copyright (c) 2026, the ectowatch authors

# pg_dump and pg_restore, of a whole database and of parts of it, into a fresh
# database.  P9: both work, by the owner of the tables as well, and the
# watchers deliver where they were restored.  A TAP test because it runs
# programs.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'ectowatch.max_databases = 8', 'max_worker_processes = 16');

$node->safe_psql(
	'postgres', q{
	CREATE SCHEMA "odd schema";
	CREATE TABLE users (id int PRIMARY KEY, v int);
	CREATE TABLE "odd schema"."Odd" ("The Id" int PRIMARY KEY, "or""der" text);
	CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
	CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
	CREATE TABLE part2 (v int, id int PRIMARY KEY);
	ALTER TABLE parts ATTACH PARTITION part2 FOR VALUES FROM (10) TO (20);
	SELECT ectowatch_watch('users', 'changed', extra_columns => '{v}');
	SELECT ectowatch_watch('users', 'updated', label => 'v changed', trigger_columns => '{v}');
	SELECT ectowatch_watch('"odd schema"."Odd"', 'inserted', label => 'odd', extra_columns => '{"or\"der"}');
	SELECT ectowatch_watch('parts', 'inserted');
	INSERT INTO users VALUES (1, 1)});

my $watchers = q{
	SELECT watcher, relation, event, label, key_columns, trigger_columns, extra_columns, array_length(triggers, 1)
	FROM ectowatch_watchers ORDER BY 1};
my $before = $node->safe_psql('postgres', $watchers);
my $position = $node->safe_psql('postgres', 'SELECT ectowatch_position()');

# the first position of another database comes from the clock
my $second = $node->safe_psql('postgres', "SELECT date_trunc('second', clock_timestamp())");
poll_query($node, 'postgres', "SELECT date_trunc('second', clock_timestamp()) > '$second'");

# What is written in a restored database reaches its listeners.
sub delivers
{
	my ($database, $title, %expected) = @_;
	my $listen = start_listen($node, $database, [], 'users_changed', 'v changed', 'odd', 'parts_inserted', 'end');

	foreach my $statement (
		'UPDATE users SET v = 2',
		'UPDATE users SET v = 2',
		q{INSERT INTO "odd schema"."Odd" VALUES (1, 'x')},
		'INSERT INTO parts VALUES (1, 1), (11, 2)')
	{
		my ($table) = $statement =~ /(users|Odd|parts)/;
		next unless $node->safe_psql($database, "SELECT count(*) FROM pg_class WHERE relname = '$table'");
		$node->safe_psql($database, $statement);
	}
	wait_delivered($node, $database);
	$node->safe_psql($database, "NOTIFY \"end\", '{\"type\":\"end\",\"position\":9007199254740991}'");
	my $counts = message_counts($listen->wait_for_last('end'));
	delete $counts->{'end end'};
	is_deeply($counts, { violations => 0, %expected }, "$title: watchers deliver");
	$listen->stop;
	return;
}

my %all = (
	'users_changed updated' => 2,
	'v changed updated' => 1,
	'odd inserted' => 1,
	'parts_inserted inserted' => 2);
my $dump = $node->basedir . '/dump';

foreach my $format ('plain', 'custom')
{
	my $database = "copy_$format";

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->command_ok([ 'pg_dump', "-F$format", '-f', "$dump.$format", 'postgres' ], "$format: pg_dump");
	$node->command_ok(
		$format eq 'plain'
		? [ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dump.$format", $database ]
		: [ 'pg_restore', '-e', '-j2', '-d', $database, "$dump.$format" ],
		"$format: restore");
	is($node->safe_psql($database, $watchers), $before, "$format: watchers are restored");
	delivers($database, $format, %all);
	is( $node->safe_psql($database, "SELECT type, values ->> 'reason' FROM ectowatch_changes($position, NULL, 1)"),
		'gap|crash', "$format: a position of the original gets a gap");

	# new ones do not collide with those that were restored
	is($node->safe_psql($database, "SELECT ectowatch_watch('users', 'deleted')"), 'users_deleted', "$format: a new watcher");
	is($node->safe_psql($database, "SELECT ectowatch_watch('users', 'changed', extra_columns => '{v}')"), 'users_changed', "$format: an old one");
	is( $node->safe_psql($database, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'users'::regclass AND tgname LIKE '0_ectowatch%'"),
		4, "$format: no trigger twice");
	$node->safe_psql($database, 'DELETE FROM users');
	wait_delivered($node, $database);
}
is($node->safe_psql('copy_plain', "SELECT ectowatch_unwatch('users_deleted')"), '', 'and can be removed');

# ---------- parts of a database

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dump.part", '-T', 'users', 'postgres' ], 'pg_dump -T');
$node->safe_psql('postgres', 'CREATE DATABASE without');
my ($out, $err);
IPC::Run::run([ 'pg_restore', '-d', $node->connstr('without'), "$dump.part" ], '>', \$out, '2>', \$err);
TODO:
{
	local $TODO = 'a table that is missing makes COPY of the registry fail, and all watchers are lost';

	is($err, '', 'without a table: restore');
	delivers('without', 'without a table', 'odd inserted' => 1, 'parts_inserted inserted' => 2);
}
is($node->safe_psql('without', 'INSERT INTO parts VALUES (3, 3) RETURNING id'), 3, 'without a table: writes go on');

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dump.table", '-t', 'users', 'postgres' ], 'pg_dump -t');
$node->safe_psql('postgres', 'CREATE DATABASE alone');
$node->safe_psql('alone', 'CREATE EXTENSION ectowatch');
IPC::Run::run([ 'pg_restore', '-d', $node->connstr('alone'), "$dump.table" ], '>', \$out, '2>', \$err);
is($err, '', 'one table: restore');
is($node->safe_psql('alone', 'INSERT INTO users VALUES (2, 2) RETURNING id'), 2, 'one table: writes go on');

# ---------- by one who is no superuser but owns the table

$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN;
	ALTER TABLE users OWNER TO owner});
$node->append_conf('pg_hba.conf', 'local all all trust');
$node->command_ok([ 'pg_dump', '-U', 'owner', '-f', "$dump.owner", '-t', 'users', 'postgres' ], 'pg_dump -t by the owner');

# and by the owner of the database, all of it
$node->safe_psql('postgres', 'CREATE DATABASE owned OWNER owner');
$node->safe_psql('owned', 'CREATE EXTENSION ectowatch');
$node->safe_psql(
	'owned', q{
	SET ROLE owner;
	CREATE SCHEMA app;
	CREATE TABLE app.users (id int PRIMARY KEY);
	SELECT ectowatch_watch('app.users', 'changed', label => 'users_changed')});
$node->command_ok([ 'pg_dump', '-U', 'owner', '-f', "$dump.whole", 'owned' ], 'pg_dump by the owner of the database');
$node->safe_psql('postgres', 'CREATE DATABASE owned_copy');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dump.whole", 'owned_copy' ], 'its restore');
is($node->safe_psql('owned_copy', 'SELECT watcher, owner FROM ectowatch_watchers'), 'users_changed|owner', 'its watcher is restored');
is($node->safe_psql('owned_copy', "SELECT last_value FROM ectowatch_watcher_ids"),
	$node->safe_psql('owned', "SELECT last_value FROM ectowatch_watcher_ids"), 'and so are the sequences');

# ---------- a table that was dropped, and one that was created anew

$node->safe_psql('postgres', 'DROP TABLE parts');
is($node->safe_psql('postgres', "SELECT count(*) FROM ectowatch_watchers WHERE watcher = 'parts_inserted'"), 0, 'no watcher stays');
$node->command_ok([ 'pg_dump', '-f', "$dump.dropped", 'postgres' ], 'pg_dump afterwards');
$node->safe_psql('postgres', 'CREATE DATABASE dropped');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dump.dropped", 'dropped' ], 'restore afterwards');

$node->stop;
done_testing();
