# Copyright (c) 2026, the ectowatch authors

# The way from the ring to channels, where NOTIFY sets bounds.  P3, P4: a
# message that is too long for it arrives with its key, marked as partial, and
# is whole in the ring; while another transaction keeps NOTIFY's lock, as one
# does that waits for a standby at its commit, messages arrive all the same.  A TAP test because it takes clients that listen, and a server that
# waits for a standby.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "wal_level = 'replica'", 'max_wal_senders = 2');

$node->safe_psql('postgres', q{
	CREATE TABLE notes (id int PRIMARY KEY, body text);
	SELECT ectowatch_watch('notes', 'inserted', extra_columns => '{body}');
	SELECT ectowatch_watch('notes', 'updated', label => 'old_key', extra_columns => '{body}');
	CREATE TABLE long_keys (body text NOT NULL);
	SELECT ectowatch_watch('long_keys', 'inserted', key_columns => '{body}')});
my $listen = start_listen($node, 'postgres', [],
	'notes_inserted', 'old_key', 'long_keys_inserted');
my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');

# ---------- too long for NOTIFY

# a message has less than 8000 bytes, and what is around the text takes some
my @lengths = (7000, 7900, 7930, 7940, 7950, 8000, 20000);
$node->safe_psql('postgres', "INSERT INTO notes VALUES ($_, repeat('x', $_))")
  foreach @lengths;
my @lines = $listen->wait_for_lines(scalar @lengths);
foreach my $i (0 .. $#lengths)
{
	my $length = $lengths[$i];
	my ($channel, undef, $payload) = split /\t/, $lines[$i];
	my $whole = qr/^\{"type":"inserted","values":\{"id":$length,"body":"x{$length}"\},"position":\d+\}$/;
	my $partial = qr/^\{"type":"inserted","values":\{"id":$length\},"partial":true,"position":\d+\}$/;

	cmp_ok(length($payload), '<', 8000, "$length: short enough");
	if ($length <= 7900)
	{
		like($payload, $whole, "$length: whole");
	}
	elsif ($length >= 8000)
	{
		like($payload, $partial, "$length: the key, and that it is partial");
	}
	else
	{
		like($payload, qr/$whole|$partial/, "$length: one of both");
	}
}
is( $node->safe_psql('postgres', qq{
		SELECT string_agg(length(values ->> 'body')::text, ' ' ORDER BY position)
		FROM ectowatch_changes($start, '{notes_inserted}')}),
	"@lengths", 'all of them are whole in the ring');

$node->safe_psql('postgres', 'UPDATE notes SET id = -1 WHERE id = 20000');
@lines = $listen->wait_for_lines(@lengths + 1);
like($lines[-1], qr/"values":\{"id":-1\},"old":\{"id":20000\},"partial":true,/,
	'a changed key comes with the old one');

$node->safe_psql('postgres', "INSERT INTO long_keys VALUES (repeat('k', 10000))");
@lines = $listen->wait_for_lines(@lengths + 2);
like($lines[-1], qr/"type":"inserted","values":\{\},"partial":true,/,
	'a key that does not fit either is left out');

# ---------- another transaction keeps NOTIFY's lock

$node->safe_psql('postgres', 'CREATE TABLE held (id int PRIMARY KEY)');
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
poll_query($node, 'postgres', "SELECT current_setting('synchronous_standby_names') = 'nobody'");

my $holder = session($node, 'postgres');
start_statement($holder, 'BEGIN; INSERT INTO held VALUES (1); NOTIFY other; COMMIT');
poll_query($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");

my $writer = session($node, 'postgres');
$writer->query_safe('SET synchronous_commit = local');
$writer->query_safe("INSERT INTO notes SELECT i, 'held' FROM generate_series(100001, 100010) i");
$writer->query_safe('DO $$BEGIN FOR i IN 200001 .. 203000 LOOP INSERT INTO notes VALUES (i); COMMIT; END LOOP; END$$');
@lines = $listen->wait_for_lines(@lengths + 2 + 3010);
is(scalar(@lines), @lengths + 2 + 3010, 'channels get all of it');
is(scalar(grep { /"type":"gap"/ } @lines), 0, 'without a gap');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
	1, 'while the other one waits');
$writer->quit;
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;
finish_statement($holder);
$holder->quit;

$listen->stop;
$node->stop;
done_testing();
