# Copyright (c) 2026, the ectowatch authors

# The server is restarted: cleanly, by a crash, without the library, and with
# it again.  P6: positions grow and never come again.  P4: what was not
# delivered is gone, and everybody who was there is told so, once.  P3:
# without the library, writes go on.  A TAP test because it restarts servers.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL);
	CREATE TABLE roles (id int PRIMARY KEY);
	INSERT INTO users VALUES (1, 0);
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}');
	SELECT ectowatch_watch('roles', 'inserted')});

my $v = 0;
my $role = 0;
my $last = 0;

# Makes a change of users; returns its position, which has to be a new one.
sub change
{
	my ($title) = @_;

	$v++;
	$node->safe_psql('postgres', "UPDATE users SET v = $v");
	wait_delivered($node, 'postgres');
	my ($position) = split /\|/, $node->safe_psql('postgres', qq{
		SELECT position FROM ectowatch_changes(0, '{users_updated}', NULL)
		WHERE values ->> 'v' = '$v'});
	cmp_ok($position, '>', $last, "$title: positions grow");
	cmp_ok($position, '<', 2**53, "$title: and are exact in JSON");
	$last = $position;
	return $position;
}

# Reads on from a position: type, reason of a gap, from, to.
sub changes_after
{
	my ($after, $watchers) = @_;
	my $array = defined $watchers ? "'{$watchers}'" : 'NULL';

	return $node->safe_psql('postgres', qq{
		SELECT watcher, type, values ->> 'reason', values ->> 'v',
			(values ->> 'from')::bigint - $after, (values ->> 'to')::bigint = position
		FROM ectowatch_changes($after, $array)});
}

change('at first');

foreach my $mode ('fast', 'immediate')
{
	my $old = $last;
	my $other = change($mode);

	$node->stop($mode);
	$node->start;
	my $listen = start_listen($node, 'postgres', [], qw(users_updated roles_inserted));

	# nothing has happened yet: who reads on learns it all the same
	is(changes_after($old), '|gap|crash||1|t',
		"$mode: a reader gets a gap, before the first change") if $mode eq 'fast';
	change($mode);
	is(changes_after($old), "|gap|crash||1|t\nusers_updated|updated||$v||",
		"$mode: a reader gets a gap, and then the rest");
	is(changes_after($old, 'users_updated'),
		"users_updated|gap|crash||1|t\nusers_updated|updated||$v||",
		"$mode: so does a reader of one watcher");
	is(changes_after(0), "users_updated|updated||$v||",
		"$mode: who asks for what there is gets no gap");
	is(changes_after($last), '', "$mode: nor one who was here already");

	my @lines = $listen->wait_for_lines(2);
	like($lines[0],
		qr/^users_updated\t\d+\t\{"type":"gap","values":\{"from":null,"to":\d+,"changes":null,"reason":"crash"\},"position":\d+\}$/,
		"$mode: a listener gets a gap first");
	like($lines[1], qr/"type":"updated","values":\{"id":1,"v":$v\}/, "$mode: then the change");
	change($mode);
	$role++;
	$node->safe_psql('postgres', "INSERT INTO roles VALUES ($role)");
	@lines = $listen->wait_for_lines(5);
	like($lines[2], qr/"type":"updated"/, "$mode: once");
	like($lines[3], qr/^roles_inserted.*"reason":"crash"/, "$mode: each watcher by itself");
	like($lines[4], qr/^roles_inserted.*"type":"inserted"/, "$mode: of which this is one");
	$listen->stop;
}

# a position from the future, as from another server
my $future = 1 << 52;
is( $node->safe_psql('postgres', qq{
		SELECT type, values ->> 'reason', position < $future FROM ectowatch_changes($future, NULL, 1)}),
	'gap|position_unknown|t',
	'a position that was never given');

# every gap has to reach one who takes few at a time, or goes on from a row
$node->restart;
change('few at a time');
my $after = 1;
my %told;
for my $turn (1 .. 10)
{
	my ($position, $watcher, $type) = split /\|/, $node->safe_psql('postgres', qq{
		SELECT position, watcher, type
		FROM ectowatch_changes($after, '{users_updated,roles_inserted}', 1)});
	last if !defined $position;
	$told{"$watcher $type"}++;
	$after = $position;
}
is($told{'users_updated updated'}, 1, 'one at a time: a change');
ok($told{"$_ gap"}, "one at a time: $_ hears of its gap") foreach qw(users_updated roles_inserted);

# ---------- without the library

my $before = change('before');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
my $session = session($node, 'postgres');
$session->query('UPDATE users SET v = v + 1; UPDATE users SET v = v + 1');
my $warnings = () = $session->{stderr} =~
  /WARNING:  changes of watched tables are not captured: ectowatch is not loaded at server start/g;
is($warnings, 1, 'without: one warning in a session');
like($session->{stderr}, qr/HINT:.*shared_preload_libraries = 'ectowatch'/, 'without: with a hint');
unlike($session->{stderr}, qr/ERROR/, 'without: no error');
$session->{stderr} = '';
$session->query_safe('UPDATE users SET v = v + 1; INSERT INTO roles VALUES (100)');
is($session->query_safe('SELECT v FROM users'), $v + 3, 'without: writes go on');
$v += 3;
$session->quit;

foreach my $call (
	q{SELECT ectowatch_watch('users', 'updated')},
	q{SELECT ectowatch_unwatch('users_updated')},
	q{SELECT ectowatch_unwatch('users', 'updated')},
	q{SELECT ectowatch_position()},
	q{SELECT * FROM ectowatch_changes(0)},
	q{CALL ectowatch_wait(0)},
	q{SELECT * FROM ectowatch_pending()},
	q{SELECT * FROM ectowatch_stat},
	q{SELECT * FROM ectowatch_stat_watchers})
{
	my ($status, $out, $err) = $node->psql('postgres', $call);

	like($err,
		qr/ERROR:  ectowatch is not loaded at server start\nHINT:.*shared_preload_libraries = 'ectowatch'/,
		"without: $call");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM ectowatch_watchers'),
	2, 'without: ectowatch_watchers says what there is');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $dump = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'without: pg_dump');
command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ],
	'without: restore');
is($node->safe_psql('copy', 'SELECT count(*) FROM ectowatch_watchers'),
	2, 'without: watchers are restored');
$node->safe_psql('copy', 'DROP EXTENSION ectowatch CASCADE');
$node->safe_psql('copy', 'UPDATE users SET v = 0');
pass('without: DROP EXTENSION');
$node->safe_psql('postgres', q{
	CREATE TABLE gone (id int PRIMARY KEY);
	DROP TABLE roles;
	CREATE TABLE roles (id int PRIMARY KEY)});

# ---------- with it again

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ectowatch'");
$node->restart;
my $listen = start_listen($node, 'postgres', [], qw(users_updated roles_inserted));
change('again');
my @lines = $listen->wait_for_lines(2);
like($lines[0], qr/"reason":"crash"/, 'again: a gap, also for what was not captured');
like($lines[1], qr/"v":$v\b/, 'again: works');
like(changes_after($before), qr/^\|gap\|crash\|\|1\|t\nusers_updated\|updated/, 'again: readers');
$node->safe_psql('postgres', q{
	SELECT ectowatch_watch('roles', 'inserted');
	INSERT INTO roles VALUES (1)});
@lines = $listen->wait_for_lines(3);
like($lines[2], qr/^roles_inserted.*"type":"inserted"/,
	'again: a table that was dropped and created meanwhile can be watched');
$listen->stop;

# ---------- the extension is dropped and created, and the server restarted

foreach my $restart (0, 1)
{
	$node->safe_psql('postgres', 'DROP EXTENSION ectowatch CASCADE');
	$node->restart if $restart;
	$node->safe_psql('postgres', q{
		CREATE EXTENSION ectowatch;
		SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}')});
	change('created again' . ($restart ? ' after a restart' : ''));
}

# a run in which more positions are given than one block of the sequence has:
# a gap has as many as changes were lost, for want of a directory for the file
my $tmp = $node->data_dir . '/base/pgsql_tmp';
rmdir $tmp;
append_to_file($tmp, '');
$node->safe_psql('postgres', q{
	DROP EXTENSION ectowatch CASCADE;
	CREATE EXTENSION ectowatch;
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}');
	CREATE UNLOGGED TABLE many (id int);
	SELECT ectowatch_watch('many', 'inserted', key_columns => '{id}');
	INSERT INTO many SELECT generate_series(1, 1100000)});
poll_query($node, 'postgres', 'SELECT lost = 1100000 FROM ectowatch_stat');
unlink $tmp or BAIL_OUT("could not remove $tmp: $!");
change('a block later');
$node->safe_psql('postgres', 'DROP TABLE many');

# many restarts one after the other use no more positions than the clock gives
foreach my $i (1 .. 3)
{
	$node->restart;
	change("restart $i");
}

$node->stop;
done_testing();
