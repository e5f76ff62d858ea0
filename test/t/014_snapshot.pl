# Copyright (c) 2026, the ectowatch authors

# A copy of a table that follows it: the rows of a snapshot, and the changes
# behind ectowatch_position() of the same snapshot.  P1, P2 and P4 together:
# whatever writes meanwhile, the copy ends as the table is.  A TAP test because
# it takes a load and sessions beside it.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "ectowatch.ring_size = '128MB'", "ectowatch.queue_size = '16MB'", "ectowatch.queue_timeout = '1s'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE users (id int PRIMARY KEY, v int NOT NULL);
	INSERT INTO users SELECT i, 0 FROM generate_series(1, 200) i;
	SELECT ectowatch_watch('users', 'changed', extra_columns => '{v}');
	CREATE TABLE copies (reader int, id int, v int, PRIMARY KEY (reader, id));
	CREATE TABLE starts (reader int, after bigint);

	-- Applies changes to a copy, as often as it likes.
	CREATE PROCEDURE apply_changes(r int) LANGUAGE plpgsql AS $$
	DECLARE
		c record;
	BEGIN
		FOR c IN SELECT * FROM ectowatch_changes((SELECT after FROM starts WHERE reader = r), NULL, NULL) LOOP
			IF c.type IN ('inserted', 'updated') THEN
				IF c.old_values IS NOT NULL THEN
					DELETE FROM copies WHERE reader = r AND id = (c.old_values ->> 'id')::int;
				END IF;
				INSERT INTO copies VALUES (r, (c.values ->> 'id')::int, (c.values ->> 'v')::int)
				ON CONFLICT (reader, id) DO UPDATE SET v = excluded.v;
			ELSIF c.type = 'deleted' THEN
				DELETE FROM copies WHERE reader = r AND id = (c.values ->> 'id')::int;
			ELSIF c.type = 'truncated' THEN
				DELETE FROM copies WHERE reader = r;
			ELSE
				RAISE 'unexpected %', c;
			END IF;
		END LOOP;
	END$$});

# updates, insertions, deletions, changed keys, rolled back ones, all mixed
my %scripts = (
	update => "\\set id random(1, 300)\nUPDATE users SET v = v + 1 WHERE id = :id;",
	insert => "\\set id random(1, 300)\nINSERT INTO users VALUES (:id, 1000) ON CONFLICT (id) DO UPDATE SET v = users.v + 1000;",
	delete => "\\set id random(1, 300)\nDELETE FROM users WHERE id = :id;",
	rename => "\\set id random(1, 300)\n\\set to random(1, 300)\nUPDATE users SET id = :to WHERE id = :id AND NOT EXISTS (SELECT FROM users WHERE id = :to);",
	rollback => "\\set id random(1, 300)\nBEGIN; UPDATE users SET v = -1 WHERE id = :id; ROLLBACK;",
	savepoint => "\\set id random(1, 300)\nBEGIN; UPDATE users SET v = v + 7 WHERE id = :id; SAVEPOINT a; DELETE FROM users WHERE id = :id; ROLLBACK TO a; COMMIT;",
	several => "\\set id random(1, 290)\nBEGIN; DELETE FROM users WHERE id = :id; INSERT INTO users VALUES (:id, 5); UPDATE users SET v = 6 WHERE id = :id; COMMIT;");
my @load;
foreach my $name (sort keys %scripts)
{
	my $file = $node->basedir . "/$name.sql";

	append_to_file($file, "$scripts{$name}\n");
	push @load, '-f', $file;
}
my ($out, $err) = ('', '');
my $pgbench;
{
	local %ENV = $node->_get_env;

	# what two of them insert at once may collide
	$pgbench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 6, '-T', 4, '-R', 1500, '--max-tries=100', @load, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
}

my $reader = 0;
while ($pgbench->pumpable)
{
	$pgbench->pump_nb;
	$reader++;

	# the position is asked for before, in, or after the copy: what counts is
	# the snapshot
	my $copy = "INSERT INTO copies SELECT $reader, id, v FROM users";
	my $start = "INSERT INTO starts SELECT $reader, ectowatch_position()";
	my @statements = $reader % 2 ? ($copy, $start) : ($start, $copy);
	$node->safe_psql('postgres',
		join '; ', 'BEGIN ISOLATION LEVEL REPEATABLE READ', @statements, 'COMMIT');
}
$pgbench->finish;
unlike($err, qr/PANIC|FATAL|server closed/, 'the load ran');
wait_delivered($node, 'postgres');
cmp_ok($reader, '>', 5, "$reader copies were made meanwhile");
note $out;

my @wrong;
foreach my $r (1 .. $reader)
{
	$node->safe_psql('postgres', "CALL apply_changes($r)");
	push @wrong, $r
	  if $node->safe_psql('postgres', qq{
		SELECT count(*) FROM (SELECT id, v FROM copies WHERE reader = $r) AS c
		FULL JOIN users AS u ON u.id = c.id AND u.v = c.v
		WHERE u.id IS NULL OR c.id IS NULL}) ne '0';
}
is_deeply(\@wrong, [], 'all copies are what the table is');
cmp_ok($node->safe_psql('postgres', 'SELECT count(DISTINCT after) FROM starts'), '>', 5, 'at different positions');
is($node->safe_psql('postgres', 'SELECT count(*) FROM users') > 50, 1, 'and there are rows');

# a snapshot that is old: its position goes back with it
my $session = session($node, 'postgres');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
my $position = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', 'UPDATE users SET v = v + 1');
wait_delivered($node, 'postgres');
is($session->query_safe('SELECT ectowatch_position()'), $position, 'the position is that of the snapshot');
$session->query_safe('COMMIT');
cmp_ok($session->query_safe('SELECT ectowatch_position()'), '>', $position, 'a new snapshot, a new position');

# a transaction that is visible in the ring before the snapshot was taken, but
# not committed then: held at its commit
my $writer = session($node, 'postgres');
$writer->query_safe('BEGIN; UPDATE users SET v = v + 1');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$position = $node->safe_psql('postgres', 'SELECT newest_position FROM ectowatch_stat');
$node->safe_psql('postgres', 'INSERT INTO users VALUES (1000, 1)');
$writer->query_safe('COMMIT');
wait_delivered($node, 'postgres');
is($session->query_safe('SELECT ectowatch_position()'), $position, 'before all that the snapshot does not see');
$session->query_safe('COMMIT');

$session->quit;
$writer->quit;
$node->stop;
done_testing();
