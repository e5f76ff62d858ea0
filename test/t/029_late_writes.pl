# Copyright (c) 2026, the ectowatch authors

# Another library writes when a transaction is about to be committed, after
# ectowatch has handed over the batch.  P4: that is not delivered, but a gap says
# so, to each watcher and with the count.  P3: nothing fails.  A TAP test because
# it needs that library, test/late, loaded before ectowatch.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node(
	'main',
	"shared_preload_libraries = '$ENV{ECTOWATCH_LATE}, ectowatch'",
	'max_prepared_transactions = 5',
	"ectowatch.queue_size = '64kB'");
$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int);
	CREATE TABLE roles (id int PRIMARY KEY);
	SELECT ectowatch_watch(t, 'inserted') FROM unnest('{users, roles}'::regclass[]) t;
	SELECT ectowatch_watch('users', 'updated', extra_columns => '{v}', bulk_threshold => 10)});
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');

# Executes statements in a transaction, and one late in its end, "COMMIT" unless
# said otherwise; the changes and gaps that come of it, sorted.
sub heard
{
	my ($statements, $late, $end) = @_;
	$end //= 'COMMIT';

	my ($status, $out, $error) = $node->psql('postgres', qq{
		BEGIN; $statements; SET LOCAL late.statement = \$late\$$late\$late\$; $end});

	# gaps are in the ring as well when it has come as far as this one
	my $xid = $node->safe_psql('postgres', 'SELECT pg_current_xact_id()');
	$node->safe_psql('postgres', "SELECT ectowatch_wait_for('$xid', '60 s')");
	my $changes = $node->safe_psql('postgres', qq{
		SELECT concat_ws(' ', watcher, type, values ->> 'id', values ->> 'reason', values ->> 'changes')
		FROM ectowatch_changes($start, NULL, NULL) ORDER BY 1});
	$start = $node->safe_psql('postgres', 'SELECT newest_position FROM ectowatch_stat');
	return $changes . ($status == 0 ? '' : $error);
}

is(heard('INSERT INTO users VALUES (1, 0)', 'INSERT INTO users VALUES (2, 0), (3, 0)'),
	"users_inserted gap queue_full 2\nusers_inserted inserted 1", 'behind others: they arrive, and a gap');
is(heard('INSERT INTO users VALUES (4, 0)', 'INSERT INTO roles VALUES (1)'),
	"roles_inserted gap queue_full 1\nusers_inserted inserted 4", 'of another watcher');
is(heard('SELECT 1', 'INSERT INTO roles VALUES (2)'), 'roles_inserted gap queue_full 1', 'nothing before');
is(heard('SAVEPOINT s; INSERT INTO users VALUES (5, 0); ROLLBACK TO s', 'INSERT INTO roles VALUES (3)'),
	'roles_inserted gap queue_full 1', 'all before was rolled back');
is( heard('INSERT INTO roles VALUES (4)', q{
		DO $$BEGIN
			INSERT INTO roles VALUES (5);
			BEGIN
				INSERT INTO roles VALUES (6), (7);
				INSERT INTO users VALUES (6, 0);
				RAISE division_by_zero;
			EXCEPTION WHEN division_by_zero THEN
				NULL;
			END;
			INSERT INTO users VALUES (7, 0);
		END$$}),
	"roles_inserted gap queue_full 1\nroles_inserted inserted 4\nusers_inserted gap queue_full 1",
	'what is rolled back late does not count');
like(heard('INSERT INTO roles VALUES (8)', 'INSERT INTO users VALUES (8, 1 / 0)'),
	qr/^[^\n]*division by zero/, 'what fails late is no change');

# without a trace in files
is( heard('INSERT INTO roles VALUES (9)', 'INSERT INTO users SELECT i, 0 FROM generate_series(101, 3100) i'),
	"roles_inserted inserted 9\nusers_inserted gap queue_full 3000", 'many');
is( heard('INSERT INTO roles SELECT generate_series(101, 3100)', 'INSERT INTO roles VALUES (10)') =~ s/(roles_inserted inserted \d+\n?)+/all /r,
	"roles_inserted gap queue_full 1\nall ", 'behind many');
is_deeply([ spill_files($node) ], [], 'no file is left');

# counted only
is( heard('UPDATE users SET v = 1 WHERE id = 1', 'UPDATE users SET v = 2 WHERE id <= 115'),
	"users_updated gap queue_full 20\nusers_updated updated 1", 'more than bulk_threshold');
is(heard('SET LOCAL ectowatch.mute = on', 'INSERT INTO roles VALUES (11)'), 'roles_inserted gap queue_full 1', 'muted');

# payloads, whose channels nobody knows by then
is(heard(q{SELECT ectowatch_notify('early', 'a')}, q{SELECT ectowatch_notify('late', 'b')}),
	"early notify\ngap queue_full 1", 'ectowatch_notify()');

# PREPARE TRANSACTION
is(heard('SELECT 1', 'INSERT INTO roles VALUES (12)', "PREPARE TRANSACTION 'p'"),
	'roles_inserted gap queue_full 1', 'prepared: a gap at once');
is(heard(q{COMMIT; COMMIT PREPARED 'p'; BEGIN}, ''), '', 'and no other');

# nothing of all that stays
is(heard('INSERT INTO roles VALUES (13)', ''), 'roles_inserted inserted 13', 'the next transaction');

$node->stop;
done_testing();
