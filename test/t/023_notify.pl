# Copyright (c) 2026, the ectowatch authors

# ectowatch_notify() side by side with pg_notify(): the same statements given
# to both, a listener hears the same of both: order, transactions, savepoints,
# repetitions, any text, many channels, many sessions.  And what pg_notify() has
# not: any length, replay by position, a gap where something is lost.  A TAP
# test because it takes listeners, and stops the worker.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "ectowatch.queue_size = '64kB'",
	"ectowatch.queue_timeout = '1ms'");
my $listen = start_listen($node, 'postgres', [],
	map { ("pg_$_", "ew_$_") } ('jobs', 'mail', 0 .. 49));
my $round = 0;

# What a listener has heard of pg_* and of ew_* since the last call, when the
# last words of both have arrived.
sub heard
{
	my ($seen) = @_;
	my $last = 'over ' . ++$round;

	$node->safe_psql('postgres',
		"SELECT ectowatch_notify('ew_jobs', '$last'); SELECT pg_notify('pg_jobs', '$last')");
	$listen->wait_for_line(qr/^${_}_jobs\t.*$last$/) foreach qw(pg ew);
	my (%heard, @lines);
	@lines = $listen->lines;
	foreach my $line (@lines[ $$seen .. $#lines ])
	{
		my ($who, $rest) = $line =~ /^(pg|ew)_(.*)$/s or next;

		$rest =~ s/\t\d+\t/ /;
		push @{ $heard{$who} }, $rest unless $rest =~ /over \d+$/;
	}
	$$seen = @lines;
	return \%heard;
}

my $seen = 0;
my $session = session($node, 'postgres');

# Gives a script to both, with NOTIFY(channel, payload) for the call.
sub same
{
	my ($title, $script) = @_;

	foreach my $who (qw(pg ew))
	{
		my $function = $who eq 'pg' ? 'pg_notify' : 'ectowatch_notify';
		my $own = $script =~ s/NOTIFY\('/SELECT $function('${who}_/gr;

		$session->query_safe($own);
	}
	my $heard = heard(\$seen);
	is_deeply($heard->{ew}, $heard->{pg}, $title)
	  or diag explain $heard;
	return scalar @{ $heard->{pg} // [] };
}

is( same('in order', q{BEGIN; NOTIFY('jobs', '1'); NOTIFY('jobs', '2'); NOTIFY('mail', '1');
	NOTIFY('jobs', '0'); COMMIT;}),
	4, 'and all of them');
is( same('repetitions', q{BEGIN; NOTIFY('jobs', 'a'); NOTIFY('jobs', 'b'); NOTIFY('jobs', 'a');
	NOTIFY('mail', 'a'); NOTIFY('mail', 'a'); COMMIT;}),
	3, 'each once');
is( same('repetitions in other transactions', q{NOTIFY('jobs', 'a'); NOTIFY('jobs', 'a'); NOTIFY('jobs', 'a');}),
	3, 'are no repetitions');
is(same('rollback', q{BEGIN; NOTIFY('jobs', 'a'); ROLLBACK;}), 0, 'nothing');
is( same('savepoints', q{
	BEGIN;
	NOTIFY('jobs', 'before');
	SAVEPOINT a;
	NOTIFY('jobs', 'gone');
	NOTIFY('jobs', 'before');
	SAVEPOINT b;
	NOTIFY('jobs', 'gone, too');
	RELEASE b;
	ROLLBACK TO a;
	NOTIFY('jobs', 'kept');
	NOTIFY('jobs', 'gone');
	SAVEPOINT c;
	NOTIFY('jobs', 'inner');
	RELEASE c;
	NOTIFY('jobs', 'inner');
	COMMIT;}),
	4, 'before, kept, gone, inner');
same('any text', q{NOTIFY('jobs', ''); NOTIFY('jobs', NULL); NOTIFY('jobs', '"quoted" \\back\\ %s');
	NOTIFY('jobs', U&'\00e4\20ac\+01F600 tab' || chr(9) || chr(1) || 'end'); NOTIFY('jobs', '{"type":"updated"}');});
same('up to what NOTIFY carries', q{NOTIFY('jobs', repeat('x', 7999));});
is(same('many channels', join('', 'BEGIN;', (map { "NOTIFY('$_', 'for $_');" } reverse 0 .. 49), 'COMMIT;')),
	50, 'fifty');

# ---------- many sessions: each one's in order, and each once

my $scripts = $node->basedir . '/send.sql';
append_to_file($scripts, q{
BEGIN;
SELECT ectowatch_notify('ew_jobs', 'client ' || :client_id || ' ' || nextval('counter'));
SELECT ectowatch_notify('ew_jobs', 'same for all');
COMMIT;
});
$node->safe_psql('postgres', 'CREATE SEQUENCE counter');
$node->command_ok([ 'pgbench', '-n', '-c', 8, '-j', 2, '-t', 200, '-f', $scripts, $node->connstr('postgres') ],
	'eight sessions send');
my $heard = heard(\$seen)->{ew};
my (%last, $disorder);
my $same = grep { /same for all$/ } @$heard;
foreach (@$heard)
{
	my ($client, $number) = /client (\d+) (\d+)$/ or next;

	$disorder++ if $number <= ($last{$client} // 0);
	$last{$client} = $number;
}
is(scalar(@$heard), 3200, 'all of it arrives');
is($same, 1600, 'what all say, from all of them');
is($disorder, undef, 'in the order of each session');

# ---------- longer than NOTIFY carries

my $start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', q{SELECT ectowatch_notify('ew_jobs', repeat('long', 5000))});
my $line = (grep { /partial/ } @{ heard(\$seen)->{ew} })[0];
like($line, qr/^jobs \{"type":"notify","values":\{\},"partial":true,"position":\d+\}$/,
	'a long one: the position');
my ($position) = $line =~ /(\d+)\}$/;
is( $node->safe_psql('postgres',
		"SELECT values->>'payload' = repeat('long', 5000) FROM ectowatch_changes($position - 1, '{ew_jobs}', 1)"),
	't', 'and there it is, whole');

# ---------- away for a while: read on from the last position

$node->safe_psql('postgres', q{SELECT ectowatch_notify('unheard', i::text) FROM generate_series(1, 5) i});
wait_delivered($node, 'postgres');
is( $node->safe_psql('postgres',
		"SELECT string_agg(values->>'payload', ',' ORDER BY position) FROM ectowatch_changes($start, '{unheard}')"),
	'1,2,3,4,5', 'what nobody listened to is read by position');

# ---------- lost: the channel is told, and its readers

$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $worker = worker_pid($node, 'postgres');
kill 'STOP', $worker;
$node->safe_psql('postgres', q{
	DO $$BEGIN
		FOR i IN 1 .. 400 LOOP
			PERFORM ectowatch_notify('ew_mail', i || repeat('x', 500));
			COMMIT;
		END LOOP;
	END$$});
kill 'CONT', $worker;
wait_delivered($node, 'postgres');
my ($messages, $missing) = split /\|/, $node->safe_psql('postgres',
	"SELECT count(*) FILTER (WHERE type = 'notify'), sum((values->>'changes')::int) FILTER (WHERE type = 'gap')
	 FROM ectowatch_changes($start, '{ew_mail}')");
cmp_ok($messages, '<', 400, 'the queue was full');
is($messages + $missing, 400, 'a gap says how many are missing');
my @told = grep { /^mail/ } @{ heard(\$seen)->{ew} };
is(scalar(grep { !/"type":"gap"/ } @told), $messages, 'the listener has the same');
is(scalar(grep { /"type":"gap".*"changes":$missing,"reason":"queue_full"/ } @told), 1, 'and the same gap');

# ---------- a restart: no gap on a channel that nobody asked for

$node->restart;
$listen->stop;
$listen = start_listen($node, 'postgres', [], 'ew_jobs', 'pg_jobs');
$seen = 0;
$node->safe_psql('postgres', q{SELECT ectowatch_notify('ew_jobs', 'after')});
is_deeply(heard(\$seen)->{ew}, ['jobs after'], 'after a restart just the payload');

$session->quit;
$listen->stop;
$node->stop;
done_testing();
