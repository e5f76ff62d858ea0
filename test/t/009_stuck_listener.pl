# Copyright (c) 2026, the ectowatch authors

# A LISTEN client that stops reading its socket.  P3: writers and the ring go
# on.  P7: others who listen are not held up, nor is vacuum; core's NOTIFY queue
# stays empty.  What the client has not read goes to a file, up to
# ectowatch.backlog_size; then the worker says that it holds back.  P4: when the
# client has gone on or has ended, messages go on, after gaps for what the
# ring has dropped meanwhile: messages and gaps add up to what was committed.
# A TAP test because it stops a client.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node(
	'main',
	'fsync = off',
	'max_wal_size = 1GB',
	'log_statement = none',
	"ectowatch.backlog_size = '200MB'",
	"ectowatch.ring_size = '32MB'");

# 7.6 kB per message, of which the table keeps next to nothing
$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v text);
	CREATE TABLE roles (id int PRIMARY KEY);
	CREATE TABLE done (id serial PRIMARY KEY);
	SELECT ectowatch_watch('users', 'changed', extra_columns => '{v}');
	SELECT ectowatch_watch('roles', 'inserted');
	SELECT ectowatch_watch('done', 'inserted')});
my @channels = qw(users_changed roles_inserted done_inserted);
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $stuck = start_listen($node, 'postgres', ['--count'], @channels);

# this one reads, which moves its own place only
my $reading = start_listen($node, 'postgres', ['--count', '--until', 'done_inserted'], @channels);
my $session = session($node, 'postgres');

$node->safe_psql('postgres', 'INSERT INTO roles VALUES (1)');
$stuck->signal('STOP');

my $rows = 0;
my $blocked;
foreach my $turn (1 .. 40)
{
	my $last = $rows + 5000;

	# a writer is not held up, whatever the worker does
	$session->query_safe("INSERT INTO users SELECT i, repeat('x', 7600) FROM generate_series($rows + 1, $last) i");
	$rows = $last;
	poll_query($node, 'postgres', 'SELECT queue_batches = 0 AND (notify_bytes = 0 OR notify_blocked) FROM ectowatch_stat');
	$blocked = ask($session, 'SELECT notify_blocked FROM ectowatch_stat') eq 't';
	last if $blocked;
}
ok($blocked, "the worker holds back after $rows messages");
is($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()'), 0, "NOTIFY's queue is empty");
ok($node->log_contains('ectowatch does not send notifications: what listening sessions have not read cannot be kept: File too large'),
	'the log says so');
my $unread = ask($session, q{
	SELECT string_agg(DISTINCT concat(pid = (SELECT pid FROM pg_stat_activity WHERE wait_event = 'ClientWrite'),
		' ', unread_bytes > 180000000), ' ' ORDER BY concat(pid = (SELECT pid FROM pg_stat_activity WHERE wait_event = 'ClientWrite'),
		' ', unread_bytes > 180000000)) FROM ectowatch_stat_subscriptions});
is($unread, 'f f t t', 'statistics say who does not read');
is(ask($session, 'SELECT count(*) FROM ectowatch_stat WHERE unread_bytes > 180000000'), 1, 'and how much');
cmp_ok(scalar(spill_files($node)), '>', 10, 'it is in files');
is(ask($session, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND backend_xmin IS NULL"),
	1, 'vacuum does not wait for it');

# the ring goes on, and overtakes what was not sent; so do users' own messages
my $sent = ask($session, 'SELECT notified FROM ectowatch_stat');
$session->query_safe('INSERT INTO roles VALUES (2)');
foreach my $turn (1 .. 2)
{
	my $last = $rows + 5000;

	$session->query_safe("INSERT INTO users SELECT i, repeat('x', 7600) FROM generate_series($rows + 1, $last) i");
	$rows = $last;
}
$session->query_safe("NOTIFY something, 'else'");
poll_query($node, 'postgres', 'SELECT queue_batches = 0 FROM ectowatch_stat');
my $ring = ring_counts($node, 'postgres', $start);
is($ring->{'gap overtaken'} + $ring->{'users_changed inserted'}, $rows + 2,
	'the ring goes on');
is(ask($session, 'SELECT notified, notify_blocked FROM ectowatch_stat'),
	"$sent|t", 'nothing more is sent');
cmp_ok(ask($session, 'SELECT notify_skipped FROM ectowatch_stat'), '>', 0,
	'statistics say what was overtaken before it was sent');
is(ask($session, "SELECT notify_skipped FROM ectowatch_stat_watchers WHERE watcher = 'roles_inserted'"),
	1, 'for each watcher');

# ---------- the client goes on

my $late = start_listen($node, 'postgres', [], @channels);
$stuck->signal('CONT');
$session->query_safe('INSERT INTO roles VALUES (3)');
poll_query($node, 'postgres', 'SELECT NOT notify_blocked AND notify_bytes = 0 FROM ectowatch_stat');
ok($node->log_contains('ectowatch sends notifications again'), 'the log says that it goes on');
my $skipped = ask($session,
	"SELECT string_agg(concat(watcher, ' ', notify_skipped), ' ' ORDER BY watcher) FROM ectowatch_stat_watchers WHERE notify_skipped > 0");
$node->safe_psql('postgres', 'INSERT INTO done DEFAULT VALUES');
my $counts = $reading->finish;
my ($roles_skipped, $users_skipped) = $skipped =~ /^roles_inserted (\d+) users_changed (\d+)$/;
is($counts->{'users_changed inserted'} + $users_skipped, $rows, 'messages and gaps make up the committed');
is($counts->{'roles_inserted inserted'} + $roles_skipped, 3, 'for each watcher');
is($counts->{$_}, 1, "one $_") foreach 'users_changed gap', 'roles_inserted gap';
is($counts->{position_violations}, 0, 'in order');

# what the gaps themselves say, to one who listens since then
my $gaps = message_counts($late->wait_for_last('done_inserted'));
is($gaps->{'users_changed gap overtaken'}, $users_skipped, 'a gap counts');
is($gaps->{'roles_inserted gap overtaken'}, $roles_skipped, 'for each watcher');
$late->stop;
$stuck->stop;
poll_until('the file to go', sub { !spill_files($node) });
$session->quit;

$node->stop;
done_testing();
