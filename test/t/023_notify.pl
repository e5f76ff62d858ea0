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
	"ectowatch.queue_timeout = '1ms'", "ectowatch.ring_size = '4MB'");
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

# ---------- a channel that becomes a watcher's between the call and the commit

my $log = -s $node->logfile;
$node->safe_psql('postgres', 'CREATE TABLE taken (id int PRIMARY KEY)');
$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$session->query_safe(q{BEGIN;
	SELECT ectowatch_notify('taken', '{"type":"deleted","values":{"id":7},"position":1}'),
		ectowatch_notify('taken|id|1', '{"type":"deleted","values":{"id":1},"position":1}'),
		ectowatch_notify('ew_48', 'not taken')});
$node->safe_psql('postgres', q{SELECT ectowatch_watch('taken', 'deleted', 'taken')});
my $taken = start_listen($node, 'postgres', [], 'taken', 'taken|id|1');
$session->query_safe('COMMIT');
is_deeply(heard(\$seen)->{ew}, ['48 not taken'], 'what goes elsewhere arrives');
$node->safe_psql('postgres', 'INSERT INTO taken VALUES (1); DELETE FROM taken');
wait_delivered($node, 'postgres');
is( join(' ', sort map { /^(\S+)\t.*"position":\d\d/ ? $1 : 'forged' } $taken->wait_for_lines(2)),
	'taken taken|id|1', 'listeners of the watcher hear of changes of its table only');
is( $node->safe_psql('postgres', qq{
		SELECT string_agg(watcher || ' ' || type, ', ' ORDER BY position)
		FROM ectowatch_changes($start, NULL) WHERE watcher ~ '^taken'}),
	'taken notify, taken|id|1 notify, taken deleted', 'the ring has what was given, as what it is');
is(() = slurp_file($node->logfile, $log) =~ /does not send to channel "taken/g,
	1, 'and the server log says that it is not sent');
$node->safe_psql('postgres', q{SELECT ectowatch_unwatch('taken'); SELECT ectowatch_notify('taken', 'free again')});
like(($taken->wait_for_lines(5))[-1], qr/^taken\t\d+\tfree again$/, 'without the watcher the channel is anyone\'s');
$taken->stop;

# ---------- far more channels than the slot has entries for

# While the worker is stopped.
sub fill_queue
{
	$session->query_safe(q{
		DO $$BEGIN
			FOR i IN 1 .. 400 LOOP
				PERFORM ectowatch_notify('fill', repeat('x', 500));
				COMMIT;
			END LOOP;
		END$$});
	return;
}

# A message to each of that many channels, in transactions too small for a file.
sub lose
{
	my ($prefix, $number) = @_;

	$session->query_safe(qq{
		DO \$\$BEGIN
			FOR i IN 0 .. $number / 20 - 1 LOOP
				PERFORM ectowatch_notify('$prefix' || i * 20 + j, repeat('lost', 20))
				FROM generate_series(1, 20) j;
				COMMIT;
			END LOOP;
		END\$\$});
	return;
}

# those of which nothing is lost need none
$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
$node->safe_psql('postgres', q{
	SELECT ectowatch_notify('user_' || i, 'hello ' || i) FROM generate_series(1, 3000) i;
	SELECT ectowatch_notify('ew_49', 'one of many')});
is_deeply(heard(\$seen)->{ew}, ['49 one of many'], 'the last of many channels');
is( $node->safe_psql('postgres', qq{
		SELECT string_agg(watcher || ': ' || (values->>'payload'), ', ' ORDER BY position)
		FROM ectowatch_changes($start, '{user_2999,user_7}')}),
	'user_7: hello 7, user_2999: hello 2999', 'each can be read by its name');

# transactions that are lost, with channels that get an entry and some that do not
$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
kill 'STOP', $worker;
fill_queue();
$session->query_safe(q{BEGIN; SELECT ectowatch_notify('ew_0', 'not committed'); ROLLBACK});
$session->query_safe(q{SELECT ectowatch_notify('ew_1', 'lost' || repeat('x', 600)), ectowatch_notify('ew_1', 'too')});
lose('user_', 3000);
kill 'CONT', $worker;
wait_delivered($node, 'postgres');
poll_query($node, 'postgres',
	qq{SELECT count(*) > 0 FROM ectowatch_changes($start, NULL, NULL) WHERE type = 'gap' AND watcher IS NULL});
my ($named, $changes) = split /\|/, $node->safe_psql('postgres', qq{
	SELECT count(watcher), sum((values->>'changes')::int)
	FROM ectowatch_changes($start, NULL, NULL) WHERE type = 'gap' AND watcher IS DISTINCT FROM 'fill'});
is($changes, 3002, 'gaps for all that were lost, and for nothing else');
cmp_ok($named, '>', 500, 'as many as there are entries by name');
is( $node->safe_psql('postgres', qq{
		SELECT count(*) FROM generate_series(1, 3000) i, LATERAL (
			SELECT FROM ectowatch_changes($start, ARRAY['user_' || i], NULL) LIMIT 1) gap}),
	'3000', 'each channel has one for its readers');
$node->safe_psql('postgres', q{SELECT ectowatch_notify('ew_2', 'after'), ectowatch_notify('ew_2', 'that')});
my @after = grep { /^[12] / } @{ heard(\$seen)->{ew} };
s/"(from|to|position)":\d+/"$1":N/g foreach @after;
is_deeply(
	[ grep { /^2/ } @after ],
	[ '2 {"type":"gap","values":{"from":N,"to":N,"changes":null,"reason":"overtaken"},"position":N}',
		'2 after', '2 that' ],
	'one that may have lost something is told with its next message, once');
like($after[0], qr/^1 \{"type":"gap",/, 'one that has lost something is told');

# entries are free again
$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
kill 'STOP', $worker;
fill_queue();
lose('other_', 300);
kill 'CONT', $worker;
wait_delivered($node, 'postgres');
poll_query($node, 'postgres', qq{
	SELECT count(*) = 300 FROM ectowatch_changes($start, NULL, NULL)
	WHERE type = 'gap' AND watcher LIKE 'other%' AND values->>'changes' = '1'});
pass('others lose something, and each has a gap of its own');

# ---------- the ring overtakes what was not sent

$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
my $sleeper = block_channels($node, 'postgres');
$session->query_safe(q{SELECT ectowatch_notify('ew_3', 'early'), ectowatch_notify('ew_4', '0x')});
$session->query_safe(q{
	SELECT ectowatch_notify('many_' || i, 'early') FROM generate_series(1, 3000) i;
	SELECT ectowatch_notify('ew_8', 'early')});
$session->query_safe(q{SELECT ectowatch_notify('ew_4', i || repeat('x', 7000)) FROM generate_series(1, 500) i}) foreach 1 .. 5;
poll_query($node, 'postgres', 'SELECT queue_batches = 0 AND notify_skipped > 1 FROM ectowatch_stat');
is( $node->safe_psql('postgres', qq{
		SELECT type, values->>'reason' FROM ectowatch_changes($start, '{ew_3}')}),
	'gap|overtaken', 'a reader who comes too late is told');
is( $node->safe_psql('postgres', qq{
		SELECT count(*) FROM ectowatch_changes($start, '{ew_5}')}),
	'0', 'but not of what he did not ask for');
unblock_channels($node, $sleeper);
my @overtaken = grep { /^[3458] / } @{ heard(\$seen)->{ew} };
is(scalar(grep { /^8/ } @overtaken), 0, 'there were too many channels to tell all at once');
$node->safe_psql('postgres', q{SELECT ectowatch_notify('ew_8', 'next')}) foreach 1, 2;
is( join(' ', map { /^8 (?:\{"type":"(gap)",.*"reason":"overtaken"|(next))/ } @{ heard(\$seen)->{ew} }) =~ s/ +/ /gr,
	'gap next next', 'the others are told with their next message');
like($overtaken[0], qr/^3 \{"type":"gap",.*"changes":1,"reason":"overtaken"/, 'so is a listener');
is(scalar(grep { /^3/ } @overtaken), 1, 'once');
my ($skipped) = $overtaken[1] =~ /^4 \{"type":"gap",.*"changes":(\d+),"reason":"overtaken"/;
is(scalar(grep { /^4 \d+x/ } @overtaken) + $skipped, 2501, 'what came and what is missing is all');

# ---------- a batch whose temporary file cannot be read

$start = $node->safe_psql('postgres', 'SELECT ectowatch_position()');
kill 'STOP', $worker;
$session->query_safe(q{SELECT ectowatch_notify('ew_10', 'before')});
$session->query_safe(q{SELECT ectowatch_notify('ew_9', i || repeat('x', 1000)) FROM generate_series(1, 100) i});
truncate((spill_files($node))[0], 100);
kill 'CONT', $worker;
poll_query($node, 'postgres', qq{
	SELECT count(*) = 1 FROM ectowatch_changes($start, '{ew_9}') WHERE type = 'gap' AND watcher IS NULL});
$node->safe_psql('postgres', q{SELECT ectowatch_notify('ew_9', 'next'), ectowatch_notify('ew_10', 'next')});
my @heard = @{ heard(\$seen)->{ew} };
my @unread = grep { /^9/ } @heard;
like($unread[0], qr/"type":"gap"/, 'its channels are told with their next message');
is_deeply([ @unread[ 1 .. $#unread ] ], ['9 next'], 'once');

# ew_10 was still to be told of what had been lost above, and was in the same
# transaction of the worker in which the file turned out to be unreadable
is( join(' ', map { /^10 (?:\{"type":"(gap)"|(\w+))/ } @heard) =~ s/ +/ /gr,
	'gap before gap next', 'what is lost behind a gap is told, too');

# two channels of one class, which account.c finds by the same hash
my @pair = split /\|/, $node->safe_psql('postgres', q{
	SELECT a.name, b.name
	FROM (SELECT 'p' || i, hashtext('p' || i) FROM generate_series(1, 500) i) a (name, hash),
		(SELECT 'p' || i, hashtext('p' || i) FROM generate_series(1, 500) i) b (name, hash)
	WHERE a.hash & 4095 = b.hash & 4095 AND (a.hash >> 12) & 63 < (b.hash >> 12) & 63
	ORDER BY 1, 2 LIMIT 1});
my $both = start_listen($node, 'postgres', [], @pair);
$node->safe_psql('postgres', "SELECT ectowatch_notify('$_', 'next')") foreach (@pair) x 2;
is( join(' ', map { /(gap|next)/ } $both->wait_for_lines(6)),
	'gap next gap next next next', 'each of a class is told, once');
$both->stop;

# ---------- repetitions between what throttle holds back, which a new worker takes up

$node->safe_psql('postgres', q{
	CREATE TABLE hot (id int PRIMARY KEY, v int);
	INSERT INTO hot VALUES (1, 0), (2, 0);
	SELECT ectowatch_watch('hot', 'updated', extra_columns => '{v}', throttle => '1 day')});
my $hot = start_listen($node, 'postgres', [], 'hot_updated');
$session->query_safe($_)
  foreach 'UPDATE hot SET v = 1 WHERE id = 1', 'UPDATE hot SET v = 2 WHERE id = 1',
  (q{SELECT ectowatch_notify('ew_6', 'same')}) x 3,
  'UPDATE hot SET v = 1 WHERE id = 2', 'UPDATE hot SET v = 2 WHERE id = 2';
$hot->wait_for_lines(2);
wait_delivered($node, 'postgres');
kill 'TERM', $worker;
is( join(' ', map { /"values":(\S+\}),"position/ } $hot->wait_for_lines(4)),
	'{"id":1,"v":1} {"id":2,"v":1} {"id":1,"v":2} {"id":2,"v":2}',
	'the next worker sends all that was held back');
$hot->stop;
is(scalar(grep { $_ eq '6 same' } @{ heard(\$seen)->{ew} }), 3, 'and nothing twice');

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
