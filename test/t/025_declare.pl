# Copyright (c) 2026, the ectowatch authors

# Twenty nodes of an application start at once, each with the application's
# whole list of watchers; also while other applications and writers are at
# work, and while the list changes.  None of them fails or waits for ever, and
# none touches what is not its own.  And: option debug tells in the server log
# what happens.  A TAP test because it takes many sessions, and the log.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
	CREATE TABLE roles (id int PRIMARY KEY, v int NOT NULL DEFAULT 0);
	INSERT INTO users SELECT generate_series(1, 100);
	INSERT INTO roles SELECT generate_series(1, 100)});

my $scripts = 0;

# Starts a statement in so many sessions at once, each so many times; the
# result waits for them, and fails if one of the statements did.
sub sessions
{
	my ($title, $sessions, $times, $statement) = @_;
	my $file = $node->basedir . '/script' . $scripts++ . '.sql';

	append_to_file($file, "$statement\n");
	local %ENV = $node->_get_env;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $sessions, '-j', 2, '-t', $times, '-f', $file, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
	return sub {
		my $ok = $run->finish;
		my $all = $sessions * $times;

		like($out, qr{number of transactions actually processed: $all/$all}, "$title: all succeed")
		  or diag $err;
		return;
	};
}

# A statement that declares watchers of events of users and roles.
sub declaration
{
	my ($application, $cleanup, @events) = @_;
	my $label = $application eq 'shop' ? '' : ", \"label\": \"$application\"";
	my @definitions = map {
		my $event = $_;
		map {
			my $name = $label eq '' ? '' : ", \"label\": \"$application $_ $event\"";
			"{\"relation\": \"$_\", \"event\": \"$event\"$name}"
		} qw(users roles)
	} @events;
	return "SELECT * FROM ectowatch_declare('$application', '["
	  . join(', ', @definitions) . "]', $cleanup);";
}

sub watchers
{
	return $node->safe_psql('postgres',
		q{SELECT application, count(*), string_agg(DISTINCT event, ',' ORDER BY event)
		  FROM ectowatch_watchers GROUP BY 1 ORDER BY 1});
}

# ---------- twenty nodes, beside writers

my $writers = sessions('writers', 4, 100, q{
\set id random(1, 100)
BEGIN;
UPDATE users SET v = v + 1 WHERE id = :id;
INSERT INTO roles VALUES (:id) ON CONFLICT (id) DO UPDATE SET v = roles.v + 1;
COMMIT;});
sessions('twenty nodes', 20, 2, declaration('shop', 'true', qw(inserted updated deleted)))->();
$writers->();
is(watchers(), 'shop|6|deleted,inserted,updated', 'one set of watchers');
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE '0\_ectowatch\_%'}),
	'6', 'one trigger for each table and event');

# ---------- two releases at once, which take each other's triggers away

my @runs = (
	sessions('old release alone', 5, 100, declaration('shop', 'true', qw(inserted updated deleted))),
	sessions('new release alone', 5, 100, declaration('shop', 'true', qw(updated truncated))));
$_->() foreach @runs;

# ---------- and another application, which needs them

@runs = (
	sessions('old release', 5, 10, declaration('shop', 'true', qw(inserted updated deleted))),
	sessions('new release', 5, 10, declaration('shop', 'true', qw(updated truncated))),
	sessions('other application', 5, 10, declaration('mail', 'true', qw(inserted changed))));
$_->() foreach @runs;
$node->safe_psql('postgres', declaration('shop', 'true', qw(updated truncated)));
is(watchers(), "mail|4|changed,inserted\nshop|4|truncated,updated", 'each application has its own');
$node->safe_psql('postgres', declaration('shop', 'true'));
is(watchers(), 'mail|4|changed,inserted', 'and nobody else\'s goes with them');

# ---------- a writer comes to one table after the other

# A trigger of users can go, and one of roles is to come, for which the table has
# to be waited for: meanwhile users is not locked.
$node->safe_psql('postgres',
	q{SELECT ectowatch_declare('mail', '[]', true);
	  SELECT ectowatch_declare('shop', '[{"relation": "users", "event": "deleted"}]', true)});
my $writer = session($node, 'postgres');
my $declarer = session($node, 'postgres');
$writer->query_safe('BEGIN; UPDATE roles SET v = 0 WHERE id = 1');
start_statement($declarer,
	q{SELECT watcher, status FROM
	  ectowatch_declare('shop', '[{"relation": "roles", "event": "updated"}]', true)});
poll_query($node, 'postgres', q{
	SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity USING (pid)
	WHERE NOT granted AND l.relation = 'roles'::regclass AND query LIKE '%ectowatch_declare%'});
$writer->query_safe(q{SET LOCAL lock_timeout = '1s'; UPDATE users SET v = 0 WHERE id = 1; COMMIT});
is(finish_statement($declarer), "roles_updated|created\nusers_deleted|removed\n",
	'a writer is not waited for with another table locked');
$_->quit foreach $writer, $declarer;
$node->safe_psql('postgres', declaration('mail', 'true', qw(inserted changed)));

# ---------- debug

my $log = -s $node->logfile;
$node->safe_psql('postgres',
	q{SELECT ectowatch_watch('users', 'updated', 'told', debug => true)});
my $session = session($node, 'postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
chomp $pid;
$session->query_safe('LISTEN told; UPDATE users SET v = 0 WHERE id = 7');
wait_delivered($node, 'postgres');
poll_until('the worker to tell', sub { slurp_file($node->logfile, $log) =~ /ectowatch: worker/ });
my $said = slurp_file($node->logfile, $log);
like($said, qr/ectowatch: created watcher "told" for event updated/, 'debug: creation');
like($said, qr/ectowatch: process $pid captured for watcher "told": updated \{"id":7\}/,
	'debug: capture');
like($said, qr/ectowatch: worker \d+ .*"told"/, 'debug: delivery');
like($said, qr/ectowatch: process $pid listens to channel "told" of watcher "told"/, 'debug: subscription');
unlike($said, qr/captured for watcher "mail/, 'debug: of that watcher only');

$log = -s $node->logfile;
$node->safe_psql('postgres', q{SET ectowatch.debug = on; UPDATE roles SET v = 0 WHERE id = 8});
like(slurp_file($node->logfile, $log), qr/captured for watcher "mail roles changed": updated \{"id":8\}/,
	'ectowatch.debug: of all');
$log = -s $node->logfile;
$node->append_conf('postgresql.conf', 'ectowatch.debug = on');
$node->reload;
my $worker_said = qr/ectowatch: worker \d+ sent for watcher "mail roles changed" to channel "mail roles changed": updated, position \d+/;
poll_until('the worker to tell of all', sub {
	$node->safe_psql('postgres', 'UPDATE roles SET v = v + 1 WHERE id = 8');
	wait_delivered($node, 'postgres');
	return slurp_file($node->logfile, $log) =~ $worker_said;
});
pass('in postgresql.conf: the worker, too');

$session->quit;
$node->stop;
done_testing();
