# Copyright (c) 2026, the ectowatch authors

# The ring is small and overtakes its readers.  P4: a reader is told first how
# many changes it missed, and then gets the rest; numbers add up.  One who
# asked for some watchers hears of the loss of theirs only.  And what is read
# while it is being overwritten is never garbage.  A TAP test because it wants
# a small ring and a load.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "ectowatch.ring_size = '1MB'", "ectowatch.queue_size = '16MB'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL, sum text);
	CREATE TABLE roles (id int PRIMARY KEY);
	CREATE TABLE quiet (id int PRIMARY KEY);
	CREATE TABLE done (id serial PRIMARY KEY);
	SELECT ectowatch_watch('users', 'changed', extra_columns => '{v,sum}');
	SELECT ectowatch_watch('roles', 'inserted');
	SELECT ectowatch_watch('quiet', 'inserted');
	SELECT ectowatch_watch('done', 'inserted')});
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');

is_deeply(ring_counts($node, 'postgres', $start), { violations => 0 }, 'nothing yet');
$node->safe_psql('postgres', 'INSERT INTO roles SELECT generate_series(1, 100)');
$node->safe_psql('postgres', 'INSERT INTO users SELECT i, 0, md5(i::text) FROM generate_series(1, 20000) i');
$node->safe_psql('postgres', 'INSERT INTO quiet VALUES (1)');
wait_delivered($node, 'postgres');

# ---------- who was overtaken

my $all = ring_counts($node, 'postgres', $start);
cmp_ok($all->{'gap overtaken'}, '>', 100, 'a reader of all is told of a gap');
cmp_ok($all->{'users_changed inserted'}, '>', 1000, 'and gets the rest');
is($all->{'gap overtaken'} + $all->{'users_changed inserted'} + $all->{'quiet_inserted inserted'},
	20101, 'which add up');
is($all->{violations}, 0, 'positions grow');
is( $node->safe_psql('postgres', qq{
		SELECT type, watcher IS NULL, (values ->> 'from')::bigint - $start,
			values ->> 'to' = position::text,
			(values ->> 'to')::bigint - $start = (values ->> 'changes')::bigint
		FROM ectowatch_changes($start, NULL, 1)}),
	'gap|t|1|t|t', 'the gap comes first, and says from where to where');

is_deeply(
	ring_counts($node, 'postgres', $start, 'roles_inserted'),
	{ 'roles_inserted gap overtaken' => 100, violations => 0 },
	'a reader of one watcher: all of it');
my $some = ring_counts($node, 'postgres', $start, 'users_changed');
is($some->{'users_changed inserted'}, $all->{'users_changed inserted'},
	'a reader of another one: the rest');
ok(exists $some->{'users_changed gap overtaken'}, 'and a gap');
is_deeply(
	ring_counts($node, 'postgres', $start, 'quiet_inserted'),
	{ 'quiet_inserted inserted' => 1, violations => 0 },
	'no gap for changes that one never asked for');
is_deeply(
	ring_counts($node, 'postgres', 0, 'roles_inserted'),
	{ violations => 0 },
	'nor for who asks for what there is');
is( $node->safe_psql('postgres',
		"SELECT watcher, evicted, evicted_position > $start FROM ectowatch_stat_watchers ORDER BY 1"),
	join("\n", 'done_inserted|0|', 'quiet_inserted|0|', 'roles_inserted|100|t',
		'users_changed|' . (20000 - $all->{'users_changed inserted'}) . '|t'),
	'statistics');

# each gap reaches one who takes one row at a time
my $after = $start;
my %told;
foreach my $turn (1 .. 6)
{
	my ($position, $watcher, $type) = split /\|/, $node->safe_psql('postgres', qq{
		SELECT position, watcher, type FROM ectowatch_changes($after, '{users_changed,roles_inserted}', 1)});
	last if $type ne 'gap';
	$told{$watcher}++;
	$after = $position;
}
ok($told{$_}, "one row at a time: $_ hears of its gap") foreach qw(users_changed roles_inserted);

# a wait returns at once, at a position that leads to the gap
my $next = $node->safe_psql('postgres', "CALL ectowatch_wait($start, NULL, '1 min')");
is($next, $start, 'ectowatch_wait() leads to the gap');

# ---------- reading while it is being overwritten

my $load = $node->basedir . '/load.sql';
append_to_file($load, q{
	UPDATE users SET v = v + 1, sum = repeat(md5(concat(id, ' ', v + 1)), 1 + (id + v) % 30)
	WHERE id BETWEEN :client_id * 500 AND :client_id * 500 + 499;
});
my $first = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my ($out, $err) = ('', '');
my $pgbench;
{
	local %ENV = $node->_get_env;
	$pgbench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 4, '-T', 4, '-f', $load, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
}

# Goes on reading behind what it has read, as a client does; what it has read
# is checked here, for the values are long.
$node->safe_psql('postgres', q{
	CREATE TABLE readings (reader int, last bigint, turns int, rows bigint,
		missed bigint, gaps bigint, garbage bigint, disorder bigint);
	CREATE PROCEDURE read_on(reader int, after bigint, lines int) LANGUAGE plpgsql AS $$
	DECLARE
		r record;
		sums readings := (reader, after, 0, 0, 0, 0, 0, 0);
		n int;
	BEGIN
		LOOP
			n := 0;
			FOR r IN SELECT * FROM ectowatch_changes(sums.last, NULL, lines) LOOP
				n := n + 1;
				IF r.position <= sums.last THEN
					sums.disorder := sums.disorder + 1;
				END IF;
				sums.last := r.position;
				IF r.type = 'gap' THEN
					sums.missed := sums.missed + (r.values ->> 'changes')::bigint;
					sums.gaps := sums.gaps + 1;
				ELSE
					sums.rows := sums.rows + 1;
					IF r.watcher = 'users_changed' AND (r.type <> 'updated' OR
						r.values ->> 'sum' IS DISTINCT FROM
						repeat(md5(concat(r.values ->> 'id', ' ', r.values ->> 'v')),
							1 + ((r.values ->> 'id')::int + (r.values ->> 'v')::int - 1) % 30)) THEN
						sums.garbage := sums.garbage + 1;
					END IF;
				END IF;
				EXIT WHEN r.watcher = 'done_inserted';
			END LOOP;
			sums.turns := sums.turns + 1;
			EXIT WHEN r.watcher = 'done_inserted';
			COMMIT;
			IF n = 0 THEN
				CALL ectowatch_wait(sums.last, NULL, '1 s', sums.last);
			END IF;
		END LOOP;
		INSERT INTO readings SELECT sums.*;
	END$$});
my @readers;
foreach my $reader (1, 2)
{
	my $session = session($node, 'postgres');

	start_statement($session, "CALL read_on($reader, $first, " . ($reader == 1 ? 'NULL' : 700) . ")");
	push @readers, $session;
}
my $client = start_ringread($node, 'postgres',
	[ '--after', $first, '--count', '--counter', 'v', '--until', 'done_inserted' ]);
ok($pgbench->finish, 'no transaction failed') or diag $err;
$node->safe_psql('postgres', 'INSERT INTO done DEFAULT VALUES');
foreach my $session (@readers)
{
	finish_statement($session);
	is($session->{stderr}, '', 'a reader had no error');
	$session->quit;
}
my ($transactions) = $out =~ /number of transactions actually processed: (\d+)/;
my $rows_written = $node->safe_psql('postgres', 'SELECT sum(v) FROM users') + 1;
note "$transactions transactions; reader, turns, rows, missed, gaps:\n"
  . $node->safe_psql('postgres', 'SELECT reader, turns, rows, missed, gaps FROM readings');
is( $node->safe_psql('postgres',
		"SELECT reader, gaps > 0, rows + missed, garbage, disorder FROM readings ORDER BY 1"),
	"1|t|$rows_written|0|0\n2|t|$rows_written|0|0",
	'what was read is no garbage, and all that was missed was told');
my $counts = $client->finish;
is($counts->{$_}, 0, "a client in C: $_") foreach qw(position_violations unknown);

$node->stop;
done_testing();
