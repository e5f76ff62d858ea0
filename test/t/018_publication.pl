# Copyright (c) 2026, the ectowatch authors

# Logical replication of whole databases.  A publication FOR ALL TABLES contains
# the registry of watchers; but watchers belong to their database: none arrives
# at a subscriber, by the initial copy or later, and none is changed or removed
# there.  A TAP test because it needs two servers.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_node('publisher', 'wal_level = logical', 'max_wal_senders = 10', 'max_replication_slots = 10');
my $subscriber = new_node('subscriber', 'max_replication_slots = 10');
my $connstr = $publisher->connstr . ' dbname=postgres';

foreach my $node ($publisher, $subscriber)
{
	$node->safe_psql('postgres', q{
		CREATE TABLE filler (id int PRIMARY KEY);
		CREATE TABLE users (id int PRIMARY KEY, name text)});
}

# Ids and OIDs are not the same on both sides, but some are.
my $watchers = 'SELECT watcher, relation, event, extra_columns FROM ectowatch_watchers ORDER BY 1';
$publisher->safe_psql('postgres', q{
	SELECT ectowatch_watch('users', 'inserted', label => 'shared');
	SELECT ectowatch_watch('users', 'changed', label => 'theirs');
	INSERT INTO users VALUES (1, 'copied');
	CREATE PUBLICATION everything FOR ALL TABLES});
$subscriber->safe_psql('postgres', q{
	SELECT ectowatch_watch('users', 'deleted', label => 'shared', extra_columns => '{name}');
	SELECT ectowatch_watch('filler', 'inserted')});
my $on_subscriber = $subscriber->safe_psql('postgres', $watchers);
is( $publisher->safe_psql('postgres',
		"SELECT tablename FROM pg_publication_tables WHERE tablename LIKE 'ectowatch%'"),
	'ectowatch_registry', 'core publishes the registry');

# ---------- the initial copy

$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION everything CONNECTION '$connstr' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'everything');
is($subscriber->safe_psql('postgres', 'SELECT name FROM users'), 'copied', 'initial copy: users');
is($subscriber->safe_psql('postgres', $watchers), $on_subscriber, 'initial copy: no watcher came');

# ---------- what is streamed

# A statement on the publisher, and everything after it on the subscriber.
sub replicate
{
	my ($statement) = @_;

	$publisher->safe_psql('postgres', $statement);
	$publisher->wait_for_catchup('everything');
	return;
}

replicate("SELECT ectowatch_watch('users', 'updated')");
is($subscriber->safe_psql('postgres', $watchers), $on_subscriber, 'a new one');
replicate("SELECT ectowatch_watch('users', 'changed', label => 'theirs', extra_columns => '{name}')");
is($subscriber->safe_psql('postgres', $watchers), $on_subscriber, 'one that is replaced');
replicate("SELECT ectowatch_unwatch('shared')");
is($subscriber->safe_psql('postgres', $watchers), $on_subscriber, 'one that is removed, and its name exists here');
replicate(q{
	CREATE TABLE short (id int PRIMARY KEY);
	SELECT ectowatch_watch('short', 'inserted');
	DROP TABLE short});
is($subscriber->safe_psql('postgres', $watchers), $on_subscriber, 'one that ends with its table');

# nothing is decoded of it at all, but for deletions without their row
$publisher->safe_psql('postgres', "SELECT pg_create_logical_replication_slot('looking', 'test_decoding')");
$publisher->safe_psql('postgres', q{
	SELECT ectowatch_watch('users', 'deleted', label => 'looked at');
	SELECT ectowatch_watch('users', 'deleted', label => 'looked at', extra_columns => '{name}');
	SELECT ectowatch_unwatch('looked at')});
is( $publisher->safe_psql('postgres',
		"SELECT data FROM pg_logical_slot_get_changes('looking', NULL, NULL) WHERE data NOT LIKE 'BEGIN%' AND data NOT LIKE 'COMMIT%'"),
	join("\n", ('table public.ectowatch_registry: DELETE: (no-tuple-data)') x 2), 'decoded: nothing of it');
$publisher->safe_psql('postgres', "SELECT pg_drop_replication_slot('looking')");

# a row that is written by hand, or by restoring a dump, is sent; it is taken away there
replicate(q{
	CREATE TEMP TABLE copy AS SELECT * FROM ectowatch_registry LIMIT 1;
	UPDATE copy SET id = 2000000000, name = 'by hand';
	INSERT INTO ectowatch_registry SELECT * FROM copy});
is($subscriber->safe_psql('postgres', $watchers), $on_subscriber, 'one that is written by hand');
$publisher->safe_psql('postgres', "SELECT ectowatch_unwatch('by hand')");

# ---------- users' tables are replicated as ever, and each side hears its own

my $start = $publisher->safe_psql('postgres', 'SELECT ectowatch_position()');
replicate("INSERT INTO users VALUES (2, 'streamed'); UPDATE users SET name = 'again' WHERE id = 1; DELETE FROM users WHERE id = 2");
is($subscriber->safe_psql('postgres', 'SELECT id, name FROM users'), '1|again', 'users are replicated');
wait_delivered($publisher, 'postgres');
is( $publisher->safe_psql('postgres', qq{
		SELECT type, values FROM ectowatch_changes($start, '{theirs}')}),
	qq(inserted|{"id": 2, "name": "streamed"}\nupdated|{"id": 1, "name": "again"}\ndeleted|{"id": 2, "name": "streamed"}),
	'the publisher hears its watchers');
$start = $subscriber->safe_psql('postgres', 'SELECT ectowatch_position()');
$subscriber->safe_psql('postgres', 'DELETE FROM users');
wait_delivered($subscriber, 'postgres');
is( $subscriber->safe_psql('postgres', "SELECT watcher, type, values FROM ectowatch_changes($start)"),
	'shared|deleted|{"id": 1, "name": "again"}', 'the subscriber hears its own');
$subscriber->safe_psql('postgres', q{
	SELECT ectowatch_watch('users', 'deleted', label => 'shared');
	SELECT ectowatch_unwatch('shared');
	DROP SUBSCRIPTION everything});

# ---------- not the library: the filter needs no preload

$subscriber->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$subscriber->restart;
$subscriber->safe_psql('postgres', 'TRUNCATE users');
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION everything CONNECTION '$connstr' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'everything');
is($subscriber->safe_psql('postgres', 'SELECT watcher FROM ectowatch_watchers'),
	'filler_inserted', 'without the library: no watcher came');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION everything');

# ---------- a subscriber without the extension

$subscriber->safe_psql('postgres', 'DROP EXTENSION ectowatch CASCADE; TRUNCATE users');
my ($status, $out, $err) = $subscriber->psql('postgres',
	"CREATE SUBSCRIPTION everything CONNECTION '$connstr' PUBLICATION everything");
like($err, qr/relation "public.ectowatch_registry" does not exist/, 'without the extension: core says what is missing');
$publisher->safe_psql('postgres', q{
	DROP PUBLICATION everything;
	CREATE PUBLICATION named FOR TABLE users, filler});
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION named CONNECTION '$connstr' PUBLICATION named");
$subscriber->wait_for_subscription_sync($publisher, 'named');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM users'), 1, 'a publication that names the tables');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION named');

# The extension came to the publisher when the subscription was there already:
# nothing of it is streamed, so that nothing breaks.
$publisher->safe_psql('postgres', q{
	DROP PUBLICATION named;
	DROP EXTENSION ectowatch CASCADE;
	CREATE PUBLICATION everything FOR ALL TABLES});
$subscriber->safe_psql('postgres', 'TRUNCATE users');
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION everything CONNECTION '$connstr' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'everything');
replicate(q{
	CREATE EXTENSION ectowatch;
	SELECT ectowatch_watch('users', 'inserted');
	SELECT ectowatch_watch('users', 'inserted', extra_columns => '{name}');
	SELECT ectowatch_unwatch('users', 'inserted');
	INSERT INTO users VALUES (3, 'later')});
is($subscriber->safe_psql('postgres', 'SELECT name FROM users WHERE id = 3'), 'later', 'the extension comes later: replication goes on');

$subscriber->stop;
$publisher->stop;
done_testing();
