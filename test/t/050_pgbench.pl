# Copyright (c) 2026, the ectowatch authors

# The main job on a real load: what is committed arrives, all of it, in order
# and nothing else, over LISTEN and from the ring.  A TAP test because it takes
# pgbench, and clients in processes of their own.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = 30;
my @channels = qw(
  pgbench_accounts_updated
  pgbench_tellers_updated
  pgbench_branches_updated
  pgbench_history_inserted
  pgbench_history_deleted
  done_inserted
);

my $node = new_node(
	'main',
	"shared_buffers = '256MB'",
	"max_wal_size = '2GB'",
	"ectowatch.queue_size = '64MB'",
	"ectowatch.ring_size = '64MB'");

sub load
{
	my @arguments = @_;

	local %ENV = ($node->_get_env, PGDATABASE => 'postgres');
	my ($stdout, $stderr) = run_command([ './load/load', @arguments ]);
	BAIL_OUT("load @arguments failed: $stdout\n$stderr") if $?;
	note $stdout;
	return $stdout;
}

# The counts, without what was found wrong, as text that diffs well.
sub changes
{
	my ($counts) = @_;

	return join "\n", map { "$_: $counts->{$_}" } grep { / / } sort keys %$counts;
}

load('init');

my @options = ('--count', '--counter', 'v', '--until', 'done_inserted',
	'--timeout', $seconds + $PostgreSQL::Test::Utils::timeout_default);
my %clients = (
	'LISTEN' => start_listen($node, 'postgres', \@options, @channels),
	'ring' => start_ringread($node, 'postgres', \@options));

my $report = load('run', $seconds);
like($report, qr/number of failed transactions: 0 /, 'no transaction failed');
load('finish');

my %committed;
foreach my $line (split /\n/, load('committed'))
{
	my ($watcher, $type, $changes) = split /\t/, $line;
	$committed{"$watcher $type"} = $changes;
}
cmp_ok($committed{'pgbench_accounts_updated updated'},
	'>', 1000, 'there was a load');
cmp_ok($committed{'pgbench_history_deleted deleted'},
	'>', 0, 'there were deletions');

foreach my $name (sort keys %clients)
{
	my $counts = $clients{$name}->finish;

	is(changes($counts), changes(\%committed),
		"$name: all that was committed, and nothing else");
	is($counts->{$_}, 0, "$name: $_")
	  foreach qw(order_violations position_violations skipped unknown);
}

$node->stop;
done_testing();
