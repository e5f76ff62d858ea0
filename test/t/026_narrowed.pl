# Copyright (c) 2026, the ectowatch authors

# Narrowed channels: what goes to which.  The channel that ectowatch_channel()
# names for a value is the one to which the worker sends the change of a row
# that has it, for every type; a row that moves is heard of at both ends; what
# concerns no row, or what cannot be told, is heard of everywhere; and nothing
# goes to a channel without a subscription.  A TAP test because it takes clients
# that listen.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# a change is at most a 32nd of the ring
my $node = new_node('main', "ectowatch.ring_size = '1MB'");

sub sql
{
	my ($query) = @_;

	return $node->safe_psql('postgres', $query);
}

# What a client gets until the change of table "done": "channel type", in order.
sql(q{
	CREATE TABLE done (id int PRIMARY KEY);
	SELECT ectowatch_watch('done', 'inserted')});
my $done = 0;

# The same of channels to which one type goes.
sub all
{
	my ($type, @channels) = @_;

	return join ', ', sort map { "$_ $type" } @channels;
}

sub heard
{
	my ($client, $seen) = @_;

	$done++;
	sql("INSERT INTO done VALUES ($done)");
	$client->wait_for_line(qr/^done_inserted\t.*"id":$done\}/);
	my @lines = $client->lines;
	splice @lines, 0, $$seen;
	$$seen += @lines;
	return join ', ', sort map { /^([^\t]*)\t[^\t]*\t\{"type":"(\w+)"/ && "$1 $2" }
	  grep { !/^done_inserted/ } @lines;
}

# ---------- every type

sql(q{
	CREATE TYPE mood AS ENUM ('sad', 'ok', 'very "happy"');
	CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
	CREATE TYPE pair AS (a integer, b text);
	CREATE TABLE vals (
		id int PRIMARY KEY,
		i2 smallint, i8 bigint, n numeric(6,2), n2 numeric, f4 real, f8 double precision,
		b boolean, t text, t2 text, t3 text, t4 text, vc varchar(3), c char(5), u uuid,
		d date, ts timestamp, tz timestamptz, iv interval, by bytea, m mood, m2 mood,
		p percent, a integer[], a2 text[], pr pair, j json, jb jsonb, js jsonb, r int4range,
		ip inet, x xml, rc regclass, "say ""hi""" text, "a|b" text, empty text, nothing text);
	SELECT ectowatch_watch('vals', 'inserted', 'v', extra_columns => '{*}')});
my %values = (
	i2 => '007', i8 => '9007199254740993', n => '7', n2 => '1.500', f4 => '0.1',
	f8 => '1e300', b => 'yes', t => 'Zoë', t2 => qq{say "hi" \\ and \t, \x01},
	t3 => 'x' x 60, t4 => 'a|b', vc => 'abc', c => 'ab',
	u => 'A0EEBC999C0B4EF8BB6D6BB9BD380A11', d => '2026-12-24', ts => '2026-12-24 18:00',
	tz => '2026-12-24 18:00', iv => '-90 minutes', by => '\x6101', m => 'ok',
	m2 => 'very "happy"', p => '42', a => '{1, 2}', a2 => '{a,NULL,"b c"}', pr => '(1,x)',
	j => ' {"k" :[1, "}"]} ', jb => '{"k" :1}', js => '"just text"', r => '[1,5]',
	ip => '10.0.0.1/32', x => '<a b="c"/>', rc => 'pg_class', 'say "hi"' => 'hi',
	'a|b' => 'ab', empty => '');
sub quoted { my ($text) = @_; $text =~ s/'/''/g; return "'$text'" }
sub identifier { my ($text) = @_; $text =~ s/"/""/g; return "\"$text\"" }

my @columns = sort keys %values;
my $settings = q{SET TimeZone = 'Asia/Tokyo'};
my @channels = map {
	sql("$settings; SELECT ectowatch_channel('v', " . quoted($_) . ', ' . quoted($values{$_}) . ')')
} @columns;
my %channels = map { $_ => 1 } @channels;
is(scalar(keys %channels), scalar(@columns), 'each value has a channel of its own');
my $seen = 0;
my $client = start_listen($node, 'postgres', [], 'v', 'v|nothing|', 'v|nothing|null', 'v|t|no',
	'done_inserted', @channels);
# the writer's settings are others, but for the zone in which it was written
sql("$settings; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = iso_8601; SET bytea_output = escape; "
	. 'SET extra_float_digits = -15; SET standard_conforming_strings = on; '
	. q{SET search_path = ''; INSERT INTO public.vals (id, }
	. join(', ', map { identifier($_) } @columns) . ') VALUES (1, '
	. join(', ', map { quoted($values{$_}) } @columns) . ')');
is(heard($client, \$seen), all('inserted', 'v', @channels),
	'a row goes to the channels of all of its values, and to no other');
$client->stop;

# ---------- a row that moves

sql(q{
	CREATE TABLE seats (hall text, "row" int, guest text, price numeric, PRIMARY KEY (hall, "row"));
	SELECT ectowatch_watch('seats', 'changed', 'seats', extra_columns => '{guest}');
	SELECT ectowatch_watch('seats', 'changed', 'old', extra_columns => '{guest}', old_values => true)});
my $key7 = sql(q{SELECT ectowatch_channel('seats', '{"hall":"main","row":7}')});
my $key8 = sql(q{SELECT ectowatch_channel('seats', '{"hall":"main","row":8}')});
$client = start_listen($node, 'postgres', [], $key7, $key8, 'seats|hall|main',
	'seats|row|7', 'seats|row|8', 'seats|guest|Ann', 'seats|guest|Bob',
	'old|guest|Ann', 'old|guest|Bob', 'done_inserted');
$seen = 0;
sql(q{INSERT INTO seats VALUES ('main', 7, 'Ann')});
is(heard($client, \$seen),
	all('inserted', 'old|guest|Ann', 'seats|guest|Ann', 'seats|hall|main', 'seats|row|7', $key7),
	'a new row');
sql(q{UPDATE seats SET guest = 'Bob'});
is(heard($client, \$seen),
	all('updated', 'old|guest|Ann', 'old|guest|Bob', 'seats|guest|Ann', 'seats|guest|Bob',
		'seats|hall|main', 'seats|row|7', $key7),
	'old and new value hear of a move');
sql(q{UPDATE seats SET price = 5});
is(heard($client, \$seen),
	all('updated', 'old|guest|Bob', 'seats|guest|Bob', 'seats|hall|main', 'seats|row|7', $key7),
	'once, where nothing moved');
sql(q{UPDATE seats SET "row" = 8, guest = NULL});
is(heard($client, \$seen),
	all('updated', 'old|guest|Bob', 'seats|guest|Bob', 'seats|hall|main', 'seats|row|7',
		'seats|row|8', $key7, $key8),
	'a key of several columns moves as a whole');
sql('DELETE FROM seats');
is(heard($client, \$seen), all('deleted', 'seats|hall|main', 'seats|row|8', $key8),
	'a deleted row');

# ---------- a version that comes late

# The trigger for one row gives another one of the same statement a second
# version, which is captured before the first.
sql(q{
	CREATE TABLE late (id int PRIMARY KEY, v int);
	INSERT INTO late VALUES (1, 1), (2, 1);
	SELECT ectowatch_watch('late', 'updated', extra_columns => '{v}');
	CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN UPDATE late SET v = 3 WHERE id = 2; RETURN NULL; END$$;
	CREATE TRIGGER "!again" AFTER UPDATE ON late FOR EACH ROW WHEN (OLD.id = 1)
		EXECUTE FUNCTION again()});
my $late = start_listen($node, 'postgres', [], 'late_updated', 'late_updated|id|2',
	'late_updated|v|1', 'late_updated|v|2', 'late_updated|v|3', 'done_inserted');
my $start = sql('SELECT ectowatch_position()');
sql('UPDATE late SET v = 2');
my $none = 0;
heard($late, \$none);
is(join("\n", sort map { s/\t\d+\t/ /r =~ s/,"position":\d+//r } grep { /^late/ } $late->lines),
	join("\n", sort(
		'late_updated {"type":"updated","values":{"id":1,"v":2}}',
		'late_updated {"type":"updated","values":{"id":2,"v":3}}',
		'late_updated|id|2 {"type":"updated","values":{"id":2,"v":3}}',
		'late_updated|v|1 {"type":"updated","values":{"id":1,"v":2}}',
		'late_updated|v|1 {"type":"updated","values":{"id":2},"partial":true}',
		'late_updated|v|2 {"type":"updated","values":{"id":1,"v":2}}',
		'late_updated|v|2 {"type":"updated","values":{"id":2,"v":3}}',
		'late_updated|v|3 {"type":"updated","values":{"id":2,"v":3}}')),
	'is told to who listens to the value that it replaced, and to nobody else');
is(sql("SELECT string_agg(values::text, ' ' ORDER BY values->'id') FROM ectowatch_changes($start, '{late_updated}')"),
	'{"v": 2, "id": 1} {"v": 3, "id": 2}', 'nor to readers of the ring');

# ---------- what concerns all

sql('TRUNCATE seats');
my @all = ($key7, $key8, 'seats|hall|main', 'seats|row|7', 'seats|row|8',
	'seats|guest|Ann', 'seats|guest|Bob');
is(heard($client, \$seen), all('truncated', @all, 'old|guest|Ann', 'old|guest|Bob'),
	'truncated goes to all');
# what is too long for messages is left out, and so it may concern anyone
sql(q{INSERT INTO seats VALUES ('main', 9, repeat('x', 100000))});
is(heard($client, \$seen), all('inserted', @all, 'old|guest|Ann', 'old|guest|Bob'),
	'so does a change that lacks values');
sql(q{UPDATE seats SET guest = 'Cid'});
is(heard($client, \$seen), all('updated', @all, 'old|guest|Ann', 'old|guest|Bob'),
	'or old ones');
sql(q{SELECT ectowatch_unwatch('seats')});
is(heard($client, \$seen), all('ended', @all),
	'ended goes to those of its own watcher');
$client->stop;

# ---------- watchers whose names begin alike

sql(q{
	CREATE TABLE things (id int PRIMARY KEY, note text);
	SELECT ectowatch_watch('things', 'changed', 'the things of which we hear a lot: ' || l,
		extra_columns => '{note}') FROM unnest('{one,two}'::text[]) l});
my @alike = map {
	sql("SELECT ectowatch_channel('the things of which we hear a lot: $_', 'note', repeat('n', 40))")
} qw(one two);
$client = start_listen($node, 'postgres', [], @alike, 'done_inserted');
$seen = 0;
sql(q{INSERT INTO things VALUES (1, repeat('n', 40))});
is(heard($client, \$seen), all('inserted', @alike), 'both hear of the row');
sql(q{SELECT ectowatch_unwatch('the things of which we hear a lot: one')});
is(heard($client, \$seen), "$alike[0] ended", 'one of the end of the first');
$client->stop;

# ---------- what is committed after a LISTEN is heard

my $listener = session($node, 'postgres');
my $writer = session($node, 'postgres');
my $stdout = '';
sql(q{
	CREATE TABLE counters (id int PRIMARY KEY, n int);
	INSERT INTO counters SELECT i, 0 FROM generate_series(1, 200) i;
	SELECT ectowatch_watch('counters', 'updated')});
foreach my $i (1 .. 200)
{
	$stdout .= $listener->query_safe("SELECT ectowatch_subscribe('counters_updated', $i)");
	$writer->query_safe("UPDATE counters SET n = 1 WHERE id = $i");
}
wait_delivered($node, 'postgres');
poll_until(
	'notifications',
	sub {
		$stdout .= $listener->query('SELECT 1');
		return $stdout =~ /"counters_updated\|id\|200"/;
	});
$stdout .= $listener->query('SELECT 1');
$_->quit foreach $listener, $writer;
is(scalar(() = $stdout =~ /"counters_updated\|id\|\d+" with payload/g), 200,
	'by a session that has just subscribed');

# ---------- what is no JSON at all

sql(q{
	CREATE TYPE raw;
	CREATE FUNCTION raw_in(cstring) RETURNS raw IMMUTABLE STRICT LANGUAGE internal AS 'textin';
	CREATE FUNCTION raw_out(raw) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout';
	CREATE TYPE raw (INPUT = raw_in, OUTPUT = raw_out, LIKE = text);
	CREATE FUNCTION raw_json(raw) RETURNS json IMMUTABLE STRICT LANGUAGE internal AS 'btrim1';
	CREATE CAST (raw AS json) WITH FUNCTION raw_json(raw);
	CREATE TABLE broken (id int PRIMARY KEY, r raw, note text);
	SELECT ectowatch_watch('broken', 'inserted', extra_columns => '{r,note}')});
my $raw = sql(q{SELECT ectowatch_channel('broken_inserted', 'r', '[1,{"a":"]"},[')});
$client = start_listen($node, 'postgres', [], 'broken_inserted|note|x', 'broken_inserted|note|y',
	'broken_inserted|r|good', 'done_inserted');
$seen = 0;
my $number = 0;
foreach my $broken ('{"a":1', '[1,{"a":"]"},[', '"a', '"a\\', ']', '}', '{"a":1}}', '', ',', '"a" "b')
{
	$number++;
	sql("INSERT INTO broken VALUES ($number, " . quoted($broken) . q{, 'x')});
	my $heard = heard($client, \$seen);
	like($heard, qr/^broken_inserted\|note\|x inserted(, broken_inserted\|note\|y inserted, broken_inserted\|r\|good inserted)?$/,
		"what is no JSON loses nothing: $broken");
}
sql(q{INSERT INTO broken VALUES (0, '"go\u006fd"', 'x')});
is(heard($client, \$seen), 'broken_inserted|note|x inserted, broken_inserted|r|good inserted',
	'and JSON is read');
$client->stop;

# ---------- nobody listens

sub notified
{
	wait_delivered($node, 'postgres');
	return sql('SELECT notified FROM ectowatch_stat');
}

my $before = notified();
sql('INSERT INTO things VALUES (2)');
is(notified() - $before, 1, 'nothing is sent to a narrowed channel without a subscription');

$node->stop;
done_testing();
