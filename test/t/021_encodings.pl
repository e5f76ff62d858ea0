# Copyright (c) 2026, the ectowatch authors

# Databases in LATIN1 and SQL_ASCII: names and values with bytes above 127, in
# the ring and on channels.  What to_json() gives is what comes; what is not
# text in any encoding fails neither a write nor a reader.  And amounts of money
# in a locale that writes them in its own way.  A TAP test because it needs
# databases and locales of its own.

use strict;
use warnings;

use EctowatchNode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# a locale with an opinion on money, if it can be made here
my $locales = PostgreSQL::Test::Utils::tempdir;
my $has_locale = system("localedef -i de_DE -f UTF-8 $locales/de_DE.utf8 >$locales/log 2>&1") <= 256
  && -e "$locales/de_DE.utf8/LC_MONETARY";
$ENV{LOCPATH} = $locales if $has_locale;

my $node = new_node('main', 'ectowatch.max_databases = 6', 'max_worker_processes = 16');
my %databases = (latin1 => 'LATIN1', ascii => 'SQL_ASCII');

foreach my $database (sort keys %databases)
{
	my $encoding = $databases{$database};

	$node->safe_psql('postgres',
		"CREATE DATABASE $database TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");

	# bytes go to the server as they are
	local $ENV{PGCLIENTENCODING} = $encoding;
	$node->safe_psql(
		$database, qq{
		CREATE EXTENSION ectowatch;
		CREATE TABLE "stra\xdfen" (id int PRIMARY KEY, "gr\xf6\xdfe" text, c "char", n name, a text[]);
		SELECT ectowatch_watch('stra\xdfen', 'changed', label => 'stra\xdfe ge\xe4ndert', extra_columns => '{*}')});
	my $start = $node->safe_psql($database, 'SELECT ectowatch_position()');
	my $listen = start_listen($node, $database, [], "stra\xdfe ge\xe4ndert");

	$node->safe_psql($database, qq{
		INSERT INTO "stra\xdfen" VALUES (1, 'h\xf6he "\xff\xa0"', 'x', 'n\xe4me', '{\xfc,NULL}');
		UPDATE "stra\xdfen" SET id = 2});
	my @lines = $listen->wait_for_lines(2);
	$listen->stop;

	my $row = qq({"id":1,"gr\xf6\xdfe":"h\xf6he \\"\xff\xa0\\"","c":"x","n":"n\xe4me","a":["\xfc",null]});
	is($node->safe_psql($database, qq{SELECT to_json(s) FROM "stra\xdfen" s}),
		$row =~ s/"id":1/"id":2/r, "$database: what to_json() gives");
	like($lines[0], qr/^stra\xdfe ge\xe4ndert\t\d+\t\{"type":"inserted","values":\Q$row\E/, "$database: is what the channel gets");
	like($lines[1], qr/"old":\{"id":1\}/, "$database: and then its old key");
	is( $node->safe_psql($database, qq{
			SELECT watcher, type, relation, values = to_jsonb(ROW_TO_JSON(s)) || '{"id": 1}'
			FROM ectowatch_changes($start, '{"stra\xdfe ge\xe4ndert"}', 1), "stra\xdfen" s}),
		qq(stra\xdfe ge\xe4ndert|inserted|public."stra\xdfen"|t), "$database: and the ring");
	is( $node->safe_psql($database, q{SELECT listen FROM ectowatch_watchers}),
		qq(LISTEN "stra\xdfe ge\xe4ndert"), "$database: its channel");
}

# a database in LATIN1, read by a client in UTF-8
{
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	is( $node->safe_psql('latin1', q{
			SELECT values ->> ('gr' || chr(246) || chr(223) || 'e') FROM ectowatch_changes(0) LIMIT 1}),
		qq(h\xc3\xb6he "\xc3\xbf\xc2\xa0"), 'latin1: read in UTF-8');
}

# What is in SQL_ASCII may be anything: here no UTF-8, and half of a character.
# (Type "char" shows such a byte as \342.)
{
	local $ENV{PGCLIENTENCODING} = 'SQL_ASCII';
	my $start = $node->safe_psql('ascii', 'SELECT ectowatch_position()');
	my $listen = start_listen($node, 'ascii', [], "stra\xdfe ge\xe4ndert");

	is($node->safe_psql('ascii', qq{INSERT INTO "stra\xdfen" VALUES (3, '\xe2\x82', '\xe2', '\xc3', '{\xff\xfe}') RETURNING id}),
		3, 'invalid: the write goes on');
	my @lines = $listen->wait_for_lines(1);
	$listen->stop;
	like($lines[0], qr/"gr\xf6\xdfe":"\xe2\x82","c":"\\\\342","n":"\xc3","a":\["\xff\xfe"\]/, 'invalid: on the channel');
	is( $node->safe_psql('ascii', qq{
			SELECT values ->> 'gr\xf6\xdfe', values ->> 'c' FROM ectowatch_changes($start)}),
		"\xe2\x82|\\342", 'invalid: in the ring');
	is( $node->safe_psql('ascii', "SELECT type FROM ectowatch_changes($start)"),
		'inserted', 'invalid: others read on');
}

# ---------- money

SKIP:
{
	skip 'no locale de_DE can be made here', 4 unless $has_locale;

	$node->safe_psql('postgres', q{
		CREATE TABLE prices (id int PRIMARY KEY, price money, several money[]);
		SELECT ectowatch_watch('prices', 'inserted', extra_columns => '{price,several}')});
	my $session = session($node, 'postgres');
	$session->query_safe("BEGIN; SET LOCAL lc_monetary = 'de_DE.utf8'; INSERT INTO prices VALUES (1, 1234.5::numeric, ARRAY[1::money, NULL])");
	is(ask($session, 'SELECT price FROM prices'), "1.234,50 \xe2\x82\xac", 'money: in the locale of the writer');
	is( ask($session, 'SELECT values FROM ectowatch_pending()'),
		'{"id": 1, "price": "$1,234.50", "several": ["$1.00", null]}', 'money: in a change');
	is(ask($session, 'SELECT price FROM prices'), "1.234,50 \xe2\x82\xac", 'money: which leaves the locale as it was');
	$session->query_safe("ROLLBACK; INSERT INTO prices VALUES (2, 1234.5::numeric)");
	is(ask($session, 'SELECT price FROM prices'), '$1,234.50', 'money: as it was before');
	$session->quit;
}

$node->stop;
done_testing();
