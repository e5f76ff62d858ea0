# Copyright (c) 2026, the ectowatch authors

# A snapshot joined to the stream, without a hole, while everything is being
# written: whole rows of a partitioned table with a key of two columns, of which
# some move to another partition, some change their key, and all go in a TRUNCATE.
# 014_snapshot has position and copy in one snapshot; here they are two statements
# of their own, the position first, as the README says.  In the end
# ectowatch_wait_for() tells when all of it can be read.  A TAP test because it
# takes a load and sessions beside it.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "ectowatch.ring_size = '128MB'", "ectowatch.queue_size = '16MB'", "ectowatch.queue_timeout = '1s'", "deadlock_timeout = '10ms'");

$node->safe_psql(
	'postgres', q{
	CREATE TABLE stock (shop text, item int, amount numeric, seen timestamptz DEFAULT now(), tags text[],
		PRIMARY KEY (item, shop)) PARTITION BY RANGE (item);
	CREATE TABLE stock1 PARTITION OF stock FOR VALUES FROM (0) TO (50);
	-- its columns have other numbers
	CREATE TABLE stock2 (tags text[], gone int, seen timestamptz DEFAULT now(), amount numeric,
		item int NOT NULL, shop text NOT NULL, PRIMARY KEY (item, shop));
	ALTER TABLE stock2 DROP gone;
	ALTER TABLE stock ATTACH PARTITION stock2 FOR VALUES FROM (50) TO (100);
	INSERT INTO stock SELECT 'shop ' || i % 3, i, i / 3.0 FROM generate_series(0, 99) i;
	SELECT ectowatch_watch('stock', 'changed', label => 'stock', extra_columns => '{*}');

	-- a reader's rows, and how far it has read
	CREATE TABLE copies (reader int, shop text, item int, amount numeric, seen timestamptz, tags text[],
		PRIMARY KEY (reader, item, shop));
	CREATE TABLE readers (reader int PRIMARY KEY, after bigint);

	CREATE PROCEDURE apply_changes(r int) LANGUAGE plpgsql AS $$
	DECLARE
		c record;
		lost jsonb;
	BEGIN
		FOR c IN SELECT * FROM ectowatch_changes((SELECT after FROM readers WHERE reader = r), '{stock}', NULL) LOOP
			IF c.type = 'truncated' THEN
				DELETE FROM copies WHERE reader = r;
			ELSIF c.type IN ('inserted', 'updated', 'deleted') THEN
				lost := COALESCE(c.old_values, CASE c.type WHEN 'deleted' THEN c.values END);
				DELETE FROM copies WHERE reader = r
					AND shop = lost ->> 'shop' AND item = (lost ->> 'item')::int;
				IF c.type <> 'deleted' THEN
					INSERT INTO copies
					SELECT r, n.shop, n.item, n.amount, n.seen, n.tags FROM jsonb_populate_record(NULL::stock, c.values) n
					ON CONFLICT (reader, item, shop)
					DO UPDATE SET amount = excluded.amount, seen = excluded.seen, tags = excluded.tags;
				END IF;
			ELSE
				RAISE 'unexpected %', c;
			END IF;
			UPDATE readers SET after = c.position WHERE reader = r;
		END LOOP;
	END$$});

my $any = "\\set item random(0, 99)\n\\set to random(0, 99)\n\\set shop random(0, 2)\n";
my %scripts = (
	update => [ 30, 'UPDATE stock SET amount = amount + 0.1, seen = clock_timestamp() WHERE item = :item' ],
	insert => [ 10, q{INSERT INTO stock VALUES ('shop ' || :shop, :item, 1000, '2026-01-01', ARRAY['new', NULL]) ON CONFLICT (item, shop) DO UPDATE SET tags = stock.tags || ARRAY['"again"']} ],
	delete => [ 2, q{DELETE FROM stock WHERE item = :item} ],
	move => [ 8, q{UPDATE stock s SET item = :to WHERE item = :item AND NOT EXISTS (SELECT FROM stock WHERE item = :to)} ],
	rename => [ 2, q{UPDATE stock s SET shop = 'shop ' || :shop WHERE item = :item AND NOT EXISTS (SELECT FROM stock o WHERE o.item = :item AND o.shop = 'shop ' || :shop)} ],
	rollback => [ 2, q{BEGIN; UPDATE stock SET amount = -1 WHERE item = :item; ROLLBACK} ],
	savepoint => [ 2, q{BEGIN; UPDATE stock SET amount = amount + 7 WHERE item = :item; SAVEPOINT a; DELETE FROM stock WHERE item < 50; ROLLBACK TO a; SAVEPOINT b; UPDATE stock SET tags = '{b}' WHERE item = :item; RELEASE b; COMMIT} ],
	replace => [ 1, q{BEGIN; TRUNCATE stock; INSERT INTO stock SELECT 'shop ' || i % 3, i, i / 3.0 FROM generate_series(0, 99, 2) i; COMMIT} ]);
my @load;
foreach my $name (sort keys %scripts)
{
	my ($weight, $statements) = @{ $scripts{$name} };
	my $file = $node->basedir . "/$name.sql";

	append_to_file($file, "$any$statements;\n");
	push @load, '-f', "$file\@$weight";
}

my ($out, $err) = ('', '');
my $pgbench;
{
	local %ENV = $node->_get_env;

	$pgbench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 5, '-T', 4, '-R', 500, '--max-tries=100', @load, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
}

# Readers come one after the other; those that are there read on meanwhile.
my $reader = 0;
while ($pgbench->pumpable)
{
	$pgbench->pump_nb;
	$reader++;
	$node->safe_psql('postgres', "INSERT INTO readers SELECT $reader, ectowatch_position()");
	$node->safe_psql('postgres', "INSERT INTO copies SELECT $reader, shop, item, amount, seen, tags FROM stock");
	$node->safe_psql('postgres', 'CALL apply_changes(' . (1 + int($reader / 2)) . ')');
}
$pgbench->finish;
note $out, $err;

my $xid = $node->safe_psql('postgres', q{
	UPDATE stock SET tags = '{last}' WHERE item = (SELECT min(item) FROM stock) RETURNING pg_current_xact_id()});
($xid) = split /\n/, $xid;
is($node->safe_psql('postgres', "SELECT ectowatch_wait_for('$xid')"), 't', 'all can be read');
cmp_ok($reader, '>', 3, "there were readers: $reader");
my %kinds = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{
	SELECT type, count(*) FROM ectowatch_changes((SELECT min(after) FROM readers), NULL, NULL) GROUP BY 1});
note join ', ', map { "$_ $kinds{$_}" } sort keys %kinds;
is_deeply([ sort keys %kinds ], [qw(deleted inserted truncated updated)], 'all kinds of changes came, and no gap');

foreach my $i (1 .. $reader)
{
	$node->safe_psql('postgres', "CALL apply_changes($i)");
}
is( $node->safe_psql('postgres', q{
		SELECT DISTINCT reader FROM (
			(SELECT r.reader, s.shop, s.item, s.amount::text, s.seen, s.tags FROM stock s, readers r
			 EXCEPT SELECT reader, shop, item, amount::text, seen, tags FROM copies)
			UNION ALL
			(SELECT reader, shop, item, amount::text, seen, tags FROM copies
			 EXCEPT SELECT r.reader, s.shop, s.item, s.amount::text, s.seen, s.tags FROM stock s, readers r)) d}),
	'', 'no copy differs from the table');

$node->stop;
done_testing();
