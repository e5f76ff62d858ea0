# Copyright (c) 2026, the ectowatch authors

# Many nodes of an application start at once, and all make the same calls of
# ectowatch_watch(): all of them succeed and there is one watcher with one
# trigger; also while others write, remove the watcher, or are replaced.  A
# TAP test because it takes forty sessions.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

$node->safe_psql(
	'postgres', q{
	CREATE ROLE app LOGIN;
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
	CREATE TABLE roles (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
	INSERT INTO users SELECT generate_series(1, 100);
	INSERT INTO roles SELECT generate_series(1, 100)});

my $scripts = 0;

# Runs a script in so many sessions at once, each so many times; fails if one
# of their statements does.
sub sessions
{
	my ($title, $sessions, $times, $statement, @options) = @_;
	my $file = $node->basedir . '/script' . $scripts++ . '.sql';

	append_to_file($file, "$statement\n");
	local %ENV = $node->_get_env;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $sessions, '-j', 2, '-t', $times, @options, '-f', $file, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
	return sub {
		my $ok = $run->finish;
		my $all = $sessions * $times;

		like($out, qr{number of transactions actually processed: $all/$all}, "$title: all succeed")
		  or diag $err;
		return;
	};
}

sub triggers
{
	my ($table) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*), count(DISTINCT tgname) FROM pg_trigger WHERE tgrelid = '$table'::regclass AND tgname LIKE '0_ectowatch%'");
}

my $watch = q{SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}');};

# ---------- all at once

sessions('forty sessions', 40, 1, $watch)->();
is(triggers('users'), '1|1', 'one trigger');
is($node->safe_psql('postgres', 'SELECT watcher, event, extra_columns FROM ectowatch_watchers'),
	'users_updated|updated|{v}', 'one watcher');

sessions('again, by others', 40, 5, $watch, '-U', 'app')->();
is(triggers('users'), '1|1', 'still one trigger');

# it takes no lock on the table: another session may hold the strongest
my $session = session($node, 'postgres');
$session->query_safe('BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE');
is( $node->safe_psql('postgres', "SET statement_timeout = '10s'; $watch"),
	'users_updated', 'a call that changes nothing waits for no lock');
$session->query_safe('COMMIT');

# ---------- with writers on the table

$node->safe_psql('postgres', 'SELECT ectowatch_unwatch(watcher) FROM ectowatch_watchers');
is(triggers('users'), '0|0', 'no trigger');
my $writers = sessions('writers', 4, 100, q{
\set id random(1, 100)
UPDATE users SET v = v + 1 WHERE id = :id;});
sessions('forty sessions beside writers', 40, 1, $watch)->();
$writers->();
is(triggers('users'), '1|1', 'beside writers: one trigger');
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', 'UPDATE users SET v = 0');
wait_delivered($node, 'postgres');
is_deeply(
	ring_counts($node, 'postgres', $start),
	{ 'users_updated updated' => 100, violations => 0 },
	'beside writers: each change once');

# ---------- all kinds of them, in any order: each its own watchers

my $all = join "\n", map {
	my $table = $_;
	map { "SELECT ectowatch_watch('$table', '$_');" } qw(inserted updated deleted truncated changed)
} qw(roles users);
sessions('all events of two tables', 20, 3, $all)->();
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT watcher) FROM ectowatch_watchers'),
	'10|10', 'ten watchers');
is(triggers($_), '4|4', "four triggers: $_") foreach qw(users roles);

# ---------- different calls for one watcher: the last one wins, whole

my @columns = ('{v}', '{id,v}', '{v,id}', '{}');
my @calls = map { sessions("extra_columns $_", 5, 10,
		"SELECT ectowatch_watch('users', 'updated', extra_columns => '$_');") } @columns;
$writers = sessions('writers', 4, 100, q{
\set id random(1, 100)
UPDATE users SET v = v + 1 WHERE id = :id;});
$_->() foreach @calls, $writers;
is(triggers('users'), '4|4', 'replaced: the triggers stay');
my ($found) = $node->safe_psql('postgres',
	"SELECT extra_columns FROM ectowatch_watchers WHERE watcher = 'users_updated'");
ok(scalar(grep { $_ eq $found } @columns), "replaced: by one of them, $found");

# ---------- mixed with unwatch; whose watcher is gone already gets an error

$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $unwatch = q{
DO $$BEGIN
	PERFORM ectowatch_unwatch('users', 'updated');
EXCEPTION WHEN undefined_object THEN NULL;
END$$;};
@calls = (
	sessions('watch', 10, 20, $watch),
	sessions('unwatch', 4, 20, $unwatch),
	sessions('writers', 4, 200, q{
\set id random(1, 100)
UPDATE users SET v = v + 1 WHERE id = :id;}));
$_->() foreach @calls;
$node->safe_psql('postgres', $watch);
is(triggers('users'), '4|4', 'unwatch: the triggers are there');
is($node->safe_psql('postgres', "SELECT count(*) FROM ectowatch_watchers WHERE watcher = 'users_updated'"),
	1, 'unwatch: and the watcher, once');
wait_delivered($node, 'postgres');
$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', 'UPDATE users SET v = 0');
wait_delivered($node, 'postgres');
is_deeply(
	ring_counts($node, 'postgres', $start, 'users_updated'),
	{ 'users_updated updated' => 100, violations => 0 },
	'unwatch: each change once');

# ---------- whole tables come and go

@calls = (
	sessions('create', 4, 15, q{
DO $$BEGIN
	CREATE TABLE IF NOT EXISTS brief (id int PRIMARY KEY);
	PERFORM ectowatch_watch('brief', 'inserted');
	INSERT INTO brief SELECT max(id) + 1 FROM brief;
EXCEPTION WHEN undefined_table OR duplicate_table OR unique_violation OR not_null_violation THEN NULL;
END$$;}),
	sessions('drop', 2, 15, q{
DO $$BEGIN
	DROP TABLE brief;
EXCEPTION WHEN undefined_table THEN NULL;
END$$;}));
$_->() foreach @calls;
$node->safe_psql('postgres', 'DROP TABLE IF EXISTS brief');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ectowatch_watchers WHERE owner IS NULL'),
	0, 'no watcher without its table');

$session->quit;
$node->stop;
done_testing();
