# Copyright (c) 2026, the ectowatch authors

# Watchers of a subscriber.  Logical replication writes as
# session_replication_role = replica does: a plain watcher does not hear that, a
# watcher with the option "replicated" does: initial copy and stream, rows of
# ordinary tables and of partitions, TRUNCATE.  A TAP test because it needs two
# servers.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_node('publisher', 'wal_level = logical', 'max_wal_senders = 10',
	'max_replication_slots = 10', 'max_prepared_transactions = 5');
my $subscriber = new_node('subscriber', 'max_replication_slots = 10', 'max_prepared_transactions = 5');
my $connstr = $publisher->connstr . ' dbname=postgres';

# parts is an ordinary table there and a partitioned one here; tree both here and there
foreach my $node ($publisher, $subscriber)
{
	$node->safe_psql('postgres', q{
		CREATE TABLE users (id int PRIMARY KEY, name text);
		CREATE TABLE tree (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
		CREATE TABLE tree1 PARTITION OF tree FOR VALUES FROM (0) TO (10);
		CREATE TABLE tree2 PARTITION OF tree FOR VALUES FROM (10) TO (20)});
}
$publisher->safe_psql('postgres', q{
	CREATE TABLE parts (id int PRIMARY KEY, v int);
	INSERT INTO users VALUES (1, 'copied');
	INSERT INTO parts VALUES (1, 1), (11, 2);
	CREATE PUBLICATION p FOR TABLE users, parts, tree WITH (publish_via_partition_root = true)});
$subscriber->safe_psql('postgres', q{
	CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
	CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
	CREATE TABLE parts2 (v int, id int PRIMARY KEY);
	SELECT ectowatch_watch('users', 'changed', label => 'plain', extra_columns => '{name}');
	SELECT ectowatch_watch('parts', 'changed', label => 'plain parts')});

# The triggers of a table and its partitions: how many, and when they fire.
sub triggers
{
	my ($table) = @_;

	return $subscriber->safe_psql('postgres', qq{
		SELECT tgenabled, count(*) FROM pg_trigger
		WHERE tgname LIKE '0_ectowatch%' AND tgrelid IN
			(SELECT relid FROM pg_partition_tree('$table') UNION SELECT '$table'::regclass)
		GROUP BY 1 ORDER BY 1});
}

# ---------- what is made of the triggers

is(triggers('users'), 'O|4', 'plain: fires for the origin only');
$subscriber->safe_psql('postgres', "SELECT ectowatch_watch('users', 'updated', label => 'replicated updates', replicated => true)");
is(triggers('users'), "A|1\nO|3", 'replicated: the one that is needed fires always');
my $replicated = "SELECT ectowatch_watch('users', 'changed', label => 'replicated', extra_columns => '{name}', replicated => true)";
$subscriber->safe_psql('postgres', $replicated);
is(triggers('users'), 'A|4', 'replicated: all that are needed do');
is(triggers('parts'), 'O|7', 'plain: partitioned');
$subscriber->safe_psql('postgres', q{
	SELECT ectowatch_watch('parts', 'changed', label => 'replicated parts', replicated => true);
	ALTER TABLE parts ATTACH PARTITION parts2 FOR VALUES FROM (10) TO (20);
	SELECT ectowatch_watch('tree', 'changed', label => 'replicated tree', replicated => true)});
is(triggers('parts'), 'A|10', 'replicated: on partitions too, also on those that come later');
is(triggers('tree'), 'A|10', 'replicated: new ones');

# an identical call has nothing to do, takes no lock, and repairs what somebody changed
my $holder = session($subscriber, 'postgres');
$holder->query_safe('BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE');
is($subscriber->safe_psql('postgres', "SET lock_timeout = '1s'; $replicated"), 'replicated', 'an identical call takes no lock');
$holder->query_safe('ROLLBACK');
$holder->quit;
my ($trigger) = $subscriber->safe_psql('postgres',
	"SELECT tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass ORDER BY tgname LIMIT 1");
$subscriber->safe_psql('postgres', qq{ALTER TABLE users ENABLE TRIGGER "$trigger"; $replicated});
is(triggers('users'), 'A|4', 'replicated: made to fire always again');

# ectowatch_alter() does the same
$subscriber->safe_psql('postgres', q{
	CREATE TABLE later (id int PRIMARY KEY);
	SELECT ectowatch_watch('later', 'inserted');
	SELECT ectowatch_alter('later_inserted', replicated => true)});
is(triggers('later'), 'A|1', 'replicated by ectowatch_alter()');

# ---------- the initial copy

my $start = $subscriber->safe_psql('postgres', 'SELECT ectowatch_position()');

# What the subscriber's watchers have heard since the last call.
sub heard
{
	wait_delivered($subscriber, 'postgres');
	my $changes = $subscriber->safe_psql('postgres', qq{
		SELECT watcher, type, values, old_values FROM ectowatch_changes($start)});
	$start = $subscriber->safe_psql('postgres', 'SELECT ectowatch_position()');
	return $changes;
}

$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION s CONNECTION '$connstr' PUBLICATION p WITH (two_phase = true)");
$subscriber->wait_for_subscription_sync($publisher, 's');
is_deeply(
	[ sort split /\n/, heard() ],
	[   'replicated parts|inserted|{"id": 11}|',
		'replicated parts|inserted|{"id": 1}|',
		'replicated|inserted|{"id": 1, "name": "copied"}|' ],
	'initial copy');

# ---------- the stream

sub replicate
{
	my ($statement) = @_;

	$publisher->safe_psql('postgres', $statement);
	$publisher->wait_for_catchup('s');
	return heard();
}

is(replicate("INSERT INTO users VALUES (2, 'streamed')"),
	'replicated|inserted|{"id": 2, "name": "streamed"}|', 'insert');
is(replicate("UPDATE users SET name = 'again' WHERE id = 2"),
	qq(replicated updates|updated|{"id": 2}|\nreplicated|updated|{"id": 2, "name": "again"}|), 'update');
is(replicate('UPDATE users SET id = 3 WHERE id = 2'),
	qq(replicated updates|updated|{"id": 3}|{"id": 2}\nreplicated|updated|{"id": 3, "name": "again"}|{"id": 2}), 'update of the key');
is(replicate('DELETE FROM users WHERE id = 3'), 'replicated|deleted|{"id": 3, "name": "again"}|', 'delete');
is(replicate('BEGIN; DELETE FROM users; ROLLBACK'), '', 'rolled back: nothing');
is(replicate('TRUNCATE users'), 'replicated|truncated|{}|', 'truncate');

# rows of partitions; one that moves is deleted and inserted
is(replicate('INSERT INTO parts VALUES (2, 1)'), 'replicated parts|inserted|{"id": 2}|', 'partitioned: insert');
is(replicate('UPDATE parts SET v = 5 WHERE id = 11'), 'replicated parts|updated|{"id": 11}|', 'partitioned: update');
is(replicate('UPDATE parts SET id = 12 WHERE id = 2'),
	qq(replicated parts|deleted|{"id": 2}|\nreplicated parts|inserted|{"id": 12}|), 'partitioned: a row moves');
is(replicate('DELETE FROM parts WHERE id = 12'), 'replicated parts|deleted|{"id": 12}|', 'partitioned: delete');
is(replicate('TRUNCATE parts'), 'replicated parts|truncated|{}|', 'partitioned: truncate');
is(replicate('INSERT INTO tree VALUES (1, 1), (11, 1)'),
	qq(replicated tree|inserted|{"id": 1}|\nreplicated tree|inserted|{"id": 11}|), 'both partitioned: insert');
is(replicate('TRUNCATE tree'), 'replicated tree|truncated|{}|', 'both partitioned: truncate');

# ---------- a publisher's prepared transactions

# They cannot be delivered, but replication goes on, and a gap tells of them.
is( replicate(q{
		BEGIN;
		INSERT INTO users VALUES (5, 'prepared');
		PREPARE TRANSACTION 'p';
		COMMIT PREPARED 'p'}) =~ s/"(from|to)": \d+/"$1": P/gr,
	'replicated|gap|{"to": P, "from": P, "reason": "queue_full", "changes": 1}|', 'a two-phase transaction is a gap');
is($subscriber->safe_psql('postgres', 'SELECT name FROM users'), 'prepared', 'and is there');
is(replicate('TRUNCATE users'), 'replicated|truncated|{}|', 'replication goes on');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION s');

# ---------- the same by hand

# What others write the plain watcher hears as ever.
$subscriber->safe_psql('postgres', "INSERT INTO users VALUES (1, 'here')");
is_deeply([ sort split /\n/, heard() ],
	[ 'plain|inserted|{"id": 1, "name": "here"}|', 'replicated|inserted|{"id": 1, "name": "here"}|' ],
	'what is written here all hear');
$subscriber->safe_psql('postgres', q{
	SET session_replication_role = replica;
	DELETE FROM users;
	INSERT INTO parts VALUES (1, 1);
	TRUNCATE parts1});
is(heard(), join("\n",
		'replicated|deleted|{"id": 1, "name": "here"}|',
		'replicated parts|inserted|{"id": 1}|',
		'replicated parts|truncated|{}|'),
	'session_replication_role = replica; a partition is truncated');

# One that is plain again: the trigger stays, and is of no use to replication.
$subscriber->safe_psql('postgres', q{
	SELECT ectowatch_watch('users', 'changed', label => 'replicated', extra_columns => '{name}');
	SET session_replication_role = replica;
	INSERT INTO users VALUES (6, 'unheard')});
is(heard(), '', 'one that is plain again');
is(triggers('users'), 'A|4', 'its triggers stay as they are');

$subscriber->stop;
$publisher->stop;
done_testing();
