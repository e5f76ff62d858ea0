# Copyright (c) 2026, the ectowatch authors

# What options delivery and throttle make of changes on their way to channels.
# P4: what throttle holds back is never forgotten, whether the ring goes on
# meanwhile, nothing can be sent for a while, or the worker ends; P7: where there
# is nothing to send, nothing is committed.  A TAP test because it takes
# clients that listen, ends the worker, and restarts the server.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node(
	'main',
	'autovacuum = off',
	"ectowatch.ring_size = '1MB'",
	"ectowatch.queue_size = '16MB'");
my $sql = session($node, 'postgres');

$sql->query_safe(q{
	CREATE TABLE notes (id int PRIMARY KEY, body text);
	SELECT ectowatch_watch('notes', 'inserted', label => 'as_' || mode, extra_columns => '{body}', delivery => mode)
	FROM unnest('{each,packed,doorbell,none}'::text[]) AS mode;
	CREATE TABLE silent (id int PRIMARY KEY, body text);
	SELECT ectowatch_watch('silent', 'inserted', label => 'silent', extra_columns => '{body}', delivery => 'none')});

sub position { return ask($sql, 'SELECT ectowatch_position()') }

# What delivery each would send, from the ring: of a watcher, after a position.
sub messages
{
	my ($after, $watcher, $type) = @_;

	return split /\n/, $sql->query_safe(qq{
		SELECT format('{"type":"%s","values":%s,"position":%s}', type,
			replace(replace(values::text, ': ', ':'), ', ', ','), position)
		FROM ectowatch_changes($after, '{$watcher}', NULL) WHERE type ~ '$type'});
}

# The payloads of one channel.
sub payloads
{
	my ($channel, @lines) = @_;

	return map { (split /\t/)[2] } grep { /^\Q$channel\E\t/ } @lines;
}

# Ends the worker, and returns when there is another one.
sub end_worker
{
	my $pid = worker_pid($node, 'postgres');

	kill 'TERM', $pid or BAIL_OUT("no worker $pid: $!");
	poll_until('another worker',
		sub { return ask($sql, "SELECT worker_pid <> $pid FROM ectowatch_stat") eq 't' });
	return;
}

# So many changes that the ring has nothing else any more.
sub fill_ring
{
	$sql->query_safe(q{INSERT INTO silent SELECT i, repeat('x', 1000) FROM generate_series(1, 2000) i; TRUNCATE silent});
	wait_delivered($node, 'postgres');
	return;
}

# ---------- one transaction, four deliveries

my $listen = start_listen($node, 'postgres', [], qw(as_each as_packed as_doorbell as_none silent));
my $start = position();
$sql->query_safe(q{INSERT INTO notes VALUES (1, 'a'), (2, 'b'), (3, 'c')});
my @lines = $listen->wait_for_lines(5);
my ($last) = $lines[4] =~ /"position":(\d+)\}$/;

is_deeply([ payloads('as_each', @lines) ], [ messages($start, 'as_each', '') ],
	'each: a message for each change');
my @packed = messages($start, 'as_packed', '');
my ($packed_end) = $packed[2] =~ /"position":(\d+)\}$/;
is_deeply([ payloads('as_packed', @lines) ],
	[ '{"type":"packed","changes":[' . join(',', @packed) . "],\"position\":$packed_end}" ],
	'packed: the same messages in one, with the position of the last');
my ($bell_end) = (messages($start, 'as_doorbell', ''))[2] =~ /"position":(\d+)\}$/;
is_deeply([ payloads('as_doorbell', @lines) ],
	["{\"type\":\"doorbell\",\"values\":{},\"position\":$bell_end}"],
	'doorbell: one that they are there');
is( $sql->query_safe("SELECT string_agg(values ->> 'body', '' ORDER BY position), max(position) FROM ectowatch_changes($start, '{as_doorbell}')"),
	"abc|$bell_end", 'and where to read them');
is(scalar(@lines), 5, 'none: nothing');
is(scalar(messages($start, 'as_none', '')), 3, 'but in the ring');
is( $sql->query_safe("SELECT watcher, changes, notified FROM ectowatch_stat_watchers WHERE changes > 0 ORDER BY 1"),
	"as_doorbell|3|1\nas_each|3|3\nas_none|3|0\nas_packed|3|1", 'statistics count messages');

$start = position();
$sql->query_safe(q{INSERT INTO notes VALUES (4, 'd')});
@lines = $listen->wait_for_lines(8);
is_deeply([ (payloads('as_packed', @lines))[1] ],
	[ map { my ($end) = /"position":(\d+)\}$/; "{\"type\":\"packed\",\"changes\":[$_],\"position\":$end}" } messages($start, 'as_packed', '') ],
	'packed: so is a single one');

# ---------- nothing to send

wait_delivered($node, 'postgres');
my $sent = ask($sql, 'SELECT notified, notify_sends, notify_position FROM ectowatch_stat');
my $sends = ask($sql, 'SELECT notify_sends FROM ectowatch_stat');
my $xid = ask($sql, 'SELECT pg_current_xact_id()');
$sql->query_safe('INSERT INTO silent VALUES (1)');
wait_delivered($node, 'postgres');
is(ask($sql, 'SELECT pg_current_xact_id()'), $xid + 2, 'none: the worker takes no xid');
is(ask($sql, 'SELECT notify_sends FROM ectowatch_stat'), $sends, 'and sends nothing');
isnt(ask($sql, 'SELECT notified, notify_sends, notify_position FROM ectowatch_stat'), $sent,
	'but goes on');
$sql->query_safe('TRUNCATE silent');

# ---------- what fits into a pack

$start = position();
$sql->query_safe(q{INSERT INTO notes SELECT i, repeat('x', 100 + i * 37 % 900) FROM generate_series(101, 140) i});
wait_delivered($node, 'postgres');
my @before = ((payloads('as_packed', @lines)));
$sql->query_safe(q{INSERT INTO notes VALUES (301, 'end')});
@lines = $listen->wait_for_line(qr/^as_packed\t.*"end"/);
my @packs = (payloads('as_packed', @lines))[ @before .. $#{ [ payloads('as_packed', @lines) ] } ];
my @elements;
my $wrong = 0;
foreach my $pack (@packs)
{
	my ($changes, $position) = $pack =~ /^\{"type":"packed","changes":\[(.*)\],"position":(\d+)\}$/;
	my @inner = split /(?<=\}),(?=\{"type")/, $changes;

	$wrong++ if length($pack) >= 8000;
	$wrong++ if $inner[-1] !~ /"position":$position\}$/;
	push @elements, @inner;
}
is($wrong, 0, 'packs are short enough, and have the position of their last change');
is_deeply(\@elements, [ messages($start, 'as_packed', '') ], 'all changes are in packs, in order');
my $needless = grep {
	my ($next) = $packs[ $_ + 1 ] =~ /\[(\{.*?"position":\d+\})/;
	length($packs[$_]) + 1 + length($next) < 7900
} 0 .. $#packs - 2;
is($needless, 0, 'none was sent while there was room for the next change');

foreach my $length (7800, 7900, 20000)
{
	wait_delivered($node, 'postgres');
	$sql->query_safe("INSERT INTO notes VALUES ($length, repeat('x', $length))");
}
@lines = $listen->wait_for_line(qr/^as_packed\t.*"id":20000\}/);
@packs = (payloads('as_packed', @lines))[ -3 .. -1 ];
like($packs[0], qr/"changes":\[\{"type":"inserted","values":\{"id":7800,"body":"x{7800}"\},"position"/,
	'a long one fits');
like($packs[1], qr/"changes":\[\{"type":"inserted","values":\{"id":7900\},"partial":true,"position"/,
	'a longer one comes with its key, though it fits where it is alone');
like((payloads('as_each', @lines))[-2], qr/"values":\{"id":7900,"body":"x{7900}"\},"position"/, 'as here');
like($packs[2], qr/"changes":\[\{"type":"inserted","values":\{"id":20000\},"partial":true,"position"/,
	'as one does that fits nowhere');

# ---------- gaps and ends

$listen->stop;
$sql->quit;
$node->restart;
$sql = session($node, 'postgres');
$listen = start_listen($node, 'postgres', [], qw(as_each as_packed as_doorbell as_none));
$sql->query_safe(q{INSERT INTO notes VALUES (5, 'e')});
@lines = $listen->wait_for_lines(5);
my $gap = qr/\{"type":"gap","values":\{"from":null,"to":\d+,"changes":null,"reason":"crash"\},"position":\d+\}/;
like(join("\n", payloads('as_each', @lines)), qr/^$gap\n\{"type":"inserted",.*\}$/, 'each: a gap after a restart');
like(join("\n", payloads('as_packed', @lines)), qr/^\{"type":"packed","changes":\[$gap,\{"type":"inserted",[^\n]*\}\],"position":\d+\}$/,
	'packed: the same, packed');
like(join("\n", payloads('as_doorbell', @lines)), qr/^$gap\n\{"type":"doorbell",.*\}$/, 'doorbell: the same as itself');

$sql->query_safe('SELECT ectowatch_unwatch(w) FROM unnest(\'{as_none,as_each,as_packed,as_doorbell}\'::text[]) w');
@lines = $listen->wait_for_lines(8);
my $ended = qr/\{"type":"ended","values":\{\},"position":\d+\}/;
like((payloads('as_each', @lines))[-1], qr/^$ended$/, 'each: an end');
like((payloads('as_packed', @lines))[-1], qr/^\{"type":"packed","changes":\[$ended\],"position":\d+\}$/, 'packed: the same, packed');
like((payloads('as_doorbell', @lines))[-1], qr/^$ended$/, 'doorbell: the same as itself');
wait_delivered($node, 'postgres');
is(scalar(payloads('as_none', $listen->stop)), 0, 'none: nothing of all that');

# ---------- throttle

my $interval = 2;
$sql->query_safe(qq{
	CREATE TABLE hot (id int PRIMARY KEY, v int NOT NULL);
	INSERT INTO hot SELECT i, 0 FROM generate_series(1, 100) i;
	SELECT ectowatch_watch('hot', 'updated', extra_columns => '{v}', throttle => '$interval s')});
$listen = start_listen($node, 'postgres', [], 'hot_updated');
$start = position();
my $began = time();
$sql->query_safe('UPDATE hot SET v = 1 WHERE id = 1');
@lines = $listen->wait_for_lines(1);
like($lines[0], qr/"id":1,"v":1\}/, 'throttle: the first message is sent');
foreach my $v (2 .. 50)
{
	$sql->query_safe("UPDATE hot SET v = $v WHERE id = 1");
}
$sql->query_safe('UPDATE hot SET v = 1 WHERE id IN (2, 3)');
@lines = $listen->wait_for_line(qr/"id":3,"v":1\}/);
is(scalar(grep { /"id":2,/ } @lines), 1, 'other keys do not wait for it');
@lines = $listen->wait_for_line(qr/"id":1,"v":50\}/);
my $most = 2 + int((time() - $began) / $interval);
my @of_one = grep { /"id":1,/ } @lines;
cmp_ok(scalar(@of_one), '<=', $most, "one in an interval: @{[scalar @of_one]} messages of 50 changes");
my @sorted = sort { $a <=> $b } map { /"v":(\d+)\}/ } @of_one;
is_deeply([ map { /"v":(\d+)\}/ } @of_one ], \@sorted, 'in order');
is($sql->query_safe("SELECT count(*) FROM ectowatch_changes($start, '{hot_updated}') WHERE values ->> 'id' = '1'"),
	50, 'the ring has all');
$listen->stop;

# with old values as without: what is held back has the same key
$sql->query_safe(q{
	SELECT ectowatch_unwatch('hot_updated');
	SELECT ectowatch_watch('hot', 'updated', label => 'from_to', extra_columns => '{v}',
	                       old_values => true, throttle => '1 day')});
$listen = start_listen($node, 'postgres', [], 'from_to');
$sql->query_safe("UPDATE hot SET v = $_ WHERE id = 1") foreach 1 .. 5;
$sql->query_safe('UPDATE hot SET v = 1 WHERE id = 12');
$listen->wait_for_line(qr/"id":12,"v":1\}/);
wait_delivered($node, 'postgres');
@of_one = grep { /"values":\{"id":1,/ } $listen->lines;
is(scalar(@of_one), 1, 'old values: held back all the same');
like($of_one[0], qr/"values":\{"id":1,"v":1\},"old":\{"id":1,"v":50\}/, 'and they go along');
$listen->stop;

# From here on nothing is sent because its time has come.
$sql->query_safe(q{
	SELECT ectowatch_unwatch('from_to');
	SELECT ectowatch_watch('hot', 'changed', extra_columns => '{v}', throttle => '1 day')});
wait_delivered($node, 'postgres');
$listen = start_listen($node, 'postgres', [], 'hot_changed');

# What came since the last time, in short, up to a line like this one.
my $seen = 0;

sub news
{
	my ($pattern) = @_;
	my @new;

	poll_until(
		"a message like $pattern",
		sub {
			my @all = $listen->lines;
			@new = @all[ $seen .. $#all ];
			return scalar grep { /$pattern/ } @new;
		});
	wait_delivered($node, 'postgres');
	@new = $listen->lines;
	@new = @new[ $seen .. $#new ];
	$seen += @new;
	return join ' ', map {
		my ($type) = /"type":"(\w+)"/;
		my ($id) = /"id":(\d+)/;
		my ($v) = /"v":(\d+)/;
		join ':', grep { defined } $type, $id, $v
	} @new;
}

sub update
{
	my ($id, @values) = @_;

	$sql->query_safe("UPDATE hot SET v = $_ WHERE id = $id") foreach @values;
	return;
}

update(1, 101, 102, 103);
is(news(qr/101/), 'updated:1:101', 'held back');
$sql->query_safe('SELECT ectowatch_alter(\'hot_changed\', debug => true)');
$sql->query_safe('TRUNCATE hot; INSERT INTO hot SELECT i, 0 FROM generate_series(1, 100) i WHERE i <> 1');
my $news = news(qr/"id":100,/);
like($news, qr/^updated:1:103 truncated inserted:2:0 /, 'until something comes that must not overtake it');
ok($node->log_contains('ectowatch: worker \d+ sent for watcher "hot_changed" to channel "hot_changed": truncated, position \d+'),
	'debug: the log has what was sent');
$sql->query_safe('SELECT ectowatch_alter(\'hot_changed\', debug => false)');

update(2, 201, 202);
update(3, 301, 302);
wait_delivered($node, 'postgres');
$sql->query_safe('UPDATE hot SET id = 1002 WHERE id = 2');
is(news(qr/"id":1002/), 'updated:2:202 updated:3:302 updated:1002:202',
	'a change of a key is such');

# ---------- the worker ends

update(4, 401, 402);
update(5, 501);
update(4, 403);
wait_delivered($node, 'postgres');
is(scalar($listen->lines), $seen, 'more is held back');
end_worker();
$news = news(qr/403/);
is(join(' ', sort split / /, $news), 'updated:4:403 updated:5:501', 'the next worker sends the newest');
update(4, 404);
wait_delivered($node, 'postgres');
is(scalar($listen->lines), $seen, 'and holds back as the last one did');

fill_ring();
is(scalar($listen->lines), $seen, 'it is held back when the ring has lost it, too');
$sql->query_safe('UPDATE hot SET id = 1004 WHERE id = 4');
is(news(qr/"id":1004/), 'updated:4:404 updated:1004:404', 'and sent');

# payloads of ectowatch_notify() that repeat stand between what is held back
update(31, 3101, 3102);
$sql->query_safe(q{SELECT ectowatch_notify('jobs', 'same')}) foreach 1 .. 2;
update(32, 3201, 3202);
wait_delivered($node, 'postgres');
end_worker();
$news = news(qr/3202/);
like($news, qr/:3102.*:3202/, 'the next worker finds all of it');

$start = position();
update(6, 601, 602);
update(7, 701);
wait_delivered($node, 'postgres');
my $lost = $sql->query_safe("SELECT position FROM ectowatch_changes($start, '{hot_changed}') WHERE values ->> 'v' = '602'");
fill_ring();
update(7, 702);
end_worker();
$news = news(qr/702/);
is($news, 'updated:6:601 updated:7:701 gap updated:7:702', 'what the ring has lost becomes a gap then');
like((grep { /"type":"gap"/ } $listen->lines)[-1],
	qr/"values":\{"from":$lost,"to":$lost,"changes":1,"reason":"overtaken"\}/, 'which says what');
is(ask($sql, "SELECT notify_skipped FROM ectowatch_stat_watchers WHERE watcher = 'hot_changed'"), 1,
	'as statistics do');

# ---------- nothing can be sent for a while

my $sleeper = block_channels($node, 'postgres');
update(8, 801);
update(7, 703);
poll_until('the ring to have them', sub { ask($sql, 'SELECT queue_batches FROM ectowatch_stat') == 0 });
update(8, 802, 803);
is(scalar($listen->lines), $seen, 'nothing can be sent');
unblock_channels($node, $sleeper);
is(news(qr/801/), 'updated:8:801', 'when it can, throttle decides anew');
$sql->query_safe('UPDATE hot SET id = 1008 WHERE id = 8');
is(news(qr/"id":1008/), 'updated:7:703 updated:8:803 updated:1008:803', 'and has forgotten nothing');

# ---------- throttle, then delivery

$sql->query_safe('SELECT ectowatch_alter(\'hot_changed\', delivery => \'packed\')');
update(9, 901, 902);
is(news(qr/901/), 'packed:9:901', 'what throttle lets pass is packed');
$sql->query_safe('SELECT ectowatch_alter(\'hot_changed\', delivery => \'doorbell\')');
update(10, 1001, 1002);
is(news(qr/doorbell/), 'doorbell', 'or rings');
$sql->query_safe('SELECT ectowatch_alter(\'hot_changed\', throttle => \'0\')');
update(11, 1101);
$news = news(qr/doorbell/);
is($news, 'packed:9:902 doorbell', 'without throttle: all that was held back goes first');
my $newest = $sql->query_safe("SELECT max(position) FROM ectowatch_changes(0, '{hot_changed}')");
like(($listen->lines)[-1], qr/"position":$newest\}$/, 'the bell rings for the newest');
$sql->query_safe('SELECT ectowatch_unwatch(\'hot_changed\')');
is(news(qr/ended/), 'ended', 'nothing was left');

$listen->stop;

# ---------- narrowed channels

$sql->query_safe(q{SELECT ectowatch_watch('hot', 'changed', extra_columns => '{v}', throttle => '1 day', delivery => 'packed')});
$listen = start_listen($node, 'postgres', [], 'hot_changed', 'hot_changed|id|20', 'hot_changed|v|2002');
$seen = 0;
update(20, 2000, 2001);
update(21, 2100);
update(20, 2002);
update(21, 2101);
$listen->wait_for_line(qr/^hot_changed\t.*"v":2100\b/);
$listen->wait_for_line(qr/^hot_changed\|v\|2002\t/);
wait_delivered($node, 'postgres');
$sql->query_safe('TRUNCATE hot');
poll_until('the last of them', sub { 3 <= grep { /truncated/ } $listen->lines });
wait_delivered($node, 'postgres');
my %got;
foreach my $line ($listen->lines)
{
	my ($channel, undef, $payload) = split /\t/, $line;

	push @{ $got{$channel} }, map { s/[^:]*://r } $payload =~ /("v":\d+|"type":"truncated")/g;
}
is_deeply(
	\%got,
	{
		'hot_changed' => [ 2000, 2100, 2002, 2101, '"truncated"' ],
		'hot_changed|id|20' => [ 2000, 2002, '"truncated"' ],
		'hot_changed|v|2002' => [ 2002, '"truncated"' ]
	},
	'each narrowed channel has an interval of its own, and gets what goes to all');
$listen->stop;

# ---------- more than there is room for

# An entry takes some 150 bytes, a message that is held back some 250.  What a
# client is owed of each row is its newest change, as a message or in a gap.
$sql->query_safe(q{SELECT ectowatch_unwatch('hot_changed')});
$sql->quit;
$node->stop;
$ENV{ECTOWATCH_THROTTLE_BYTES} = 3000;
$node->start;
delete $ENV{ECTOWATCH_THROTTLE_BYTES};
$sql = session($node, 'postgres');
$sql->query_safe(q{INSERT INTO hot SELECT i, 0 FROM generate_series(1, 100) i;
	SELECT ectowatch_watch('hot', 'updated', 'few', extra_columns => '{v}', throttle => '1 day')});
$listen = start_listen($node, 'postgres', [], 'few');

sub held { return ask($sql, q{SELECT notify_held FROM ectowatch_stat_watchers WHERE watcher = 'few'}) }
sub updates { return scalar(grep { /"updated"/ } $listen->lines) }

is(held(), 0, 'nothing is held back');
update($_, $_ * 10, $_ * 10 + 1) foreach 1 .. 2;
wait_delivered($node, 'postgres');
is(held(), 2, 'statistics count what is');
update($_, $_ * 10, $_ * 10 + 1) foreach 3 .. 100;
wait_delivered($node, 'postgres');
my $held = held();
cmp_ok($held, '<', 20, 'no more than there is room for');
poll_until('all others', sub { updates() == 200 - $held });
is(held(), $held, 'which are sent');

# the next one finds changes of a hundred rows, each of which may have been held back
my $before = $listen->lines;
end_worker();
poll_until('a gap', sub { grep { /"gap"/ } $listen->lines });
wait_delivered($node, 'postgres');
is(held(), 0, 'nothing is held back any more');
my @again = $listen->lines;
splice @again, 0, $before;
my ($from, $to, $changes) = (join '', @again) =~ /"gap","values":\{"from":(\d+),"to":(\d+),"changes":(\d+),"reason":"overtaken"\}/;
cmp_ok($changes, '>', 50, 'the next worker has no room for them');
my @told = map { /"id":(\d+)/ } grep { /"updated"/ } @again;
is($sql->query_safe(
		"SELECT count(*) FROM ectowatch_changes(0, '{few}', NULL) WHERE type = 'updated' AND position NOT BETWEEN $from AND $to "
		. 'AND (values ->> \'v\')::int % 10 = 1 AND (values ->> \'id\')::int <> ALL (ARRAY[' . join(',', @told) . '])'),
	0, 'what it could not hold is in the gap');
$listen->stop;
$sql->query_safe(q{SELECT ectowatch_unwatch('few')});

# ---------- context

$sql->query_safe(q{
	SET application_name = 'shop';
	SET ectowatch.context = '{"request": 7}';
	SELECT ectowatch_watch('notes', 'inserted', label => 'who', extra_columns => '{body}', envelope => true)});
$listen = start_listen($node, 'postgres', [], 'who');
my $user = ask($sql, 'SELECT to_json(current_user)');
my $context = qq{"context":{"changes":2,"user":$user,"application_name":"shop","context":{"request": 7}}};
$start = position();
$sql->query_safe(q{INSERT INTO notes VALUES (1001, 'short'), (1002, repeat('x', 7900))});
@lines = $listen->wait_for_lines(2);
like($lines[0], qr/"values":\{"id":1001,"body":"short"\},\Q$context\E,"position":\d+\}$/,
	'a context, with how many changes there are');
like($lines[1], qr/"values":\{"id":1002,"body":"x{7900}"\},"partial":true,"position":\d+\}$/,
	'which is the first thing to go where there is no room');
is( $sql->query_safe(qq{
		SELECT string_agg((context - 'user')::text, ' ' ORDER BY position) FROM ectowatch_changes($start, '{who}')}),
	join(' ', ('{"changes": 2, "context": {"request": 7}, "application_name": "shop"}') x 2),
	'readers of the ring have it');

$listen->stop;
$sql->quit;
$node->stop;
done_testing();
