# Copyright (c) 2026, the ectowatch authors

=pod

=head1 NAME

EctowatchNode - servers, clients and wait points for the TAP tests

=head1 SYNOPSIS

  use EctowatchNode;

  # a running server with the library, and the extension in "postgres"
  my $node = new_node('main', "ectowatch.ring_size = '1MB'");

  # a LISTEN client in the background, which listens when this returns
  my $client = start_listen($node, 'postgres', [], 'users_updated');
  $node->safe_psql('postgres', 'UPDATE users SET role_id = 7');
  my @lines = $client->wait_for_lines(1);
  my ($channel, $pid, $payload) = split /\t/, $lines[0];
  $client->stop;

  # counting clients; the result is a hash of "watcher type" => number
  my $reader = start_ringread($node, 'postgres', ['--count', '--until', 'done_inserted']);
  my $counts = $reader->finish;

  # a process is held where the code says WAIT_POINT(name)
  wait_point($node, 'reserved');
  ...
  wait_reached($node, 'reserved');
  release($node, 'reserved');

=cut

package EctowatchNode;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  new_node
  poll_until
  poll_query
  start_listen
  start_ringread
  wait_point
  wait_reached
  release
);

=pod

=head1 FUNCTIONS

=over

=item new_node(name, setting...)

Makes and starts a server with the library preloaded and these lines in its
postgresql.conf, and creates the extension in database "postgres".

=cut

sub new_node
{
	my ($name, @settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	# in whatever locale this runs, all characters must be possible
	$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
	$node->append_conf(
		'postgresql.conf', join "\n",
		"shared_preload_libraries = 'ectowatch'",

		# the module's default would write a line for each UPDATE of a load
		"log_statement = ddl",
		@settings,
		'');
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION ectowatch');
	return $node;
}

=pod

=item poll_until(what, sub)

Calls the function until it returns something true, and returns that.  Dies
when that takes too long, saying what was waited for.

=cut

sub poll_until
{
	my ($what, $condition) = @_;
	my $end = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;

	while (Time::HiRes::time() < $end)
	{
		my $result = $condition->();
		return $result if $result;
		usleep(20_000);
	}
	croak "timed out waiting for $what";
}

=pod

=item poll_query(node, database, query [, expected])

Runs the query until its result is the expected one, "t" by default; dies when
that takes too long.

=cut

sub poll_query
{
	my ($node, $database, $query, $expected) = @_;

	$node->poll_query_until($database, $query, $expected)
	  or croak "timed out waiting for: $query";
	return;
}

=pod

=item start_listen(node, database, options, channel...)

=item start_ringread(node, database, options)

Starts test/clients/listen or ringread with these options, and returns when it
listens or has its position.  For the result see CLIENTS below.

=cut

sub start_listen
{
	my ($node, $database, $options, @channels) = @_;

	return EctowatchNode::Client->start('listen', @$options,
		$node->connstr($database), @channels);
}

sub start_ringread
{
	my ($node, $database, $options) = @_;

	return EctowatchNode::Client->start('ringread', @$options,
		$node->connstr($database));
}

=pod

=item wait_point(node, name)

From now on every process of the server that comes to this wait point waits
there.  The server must be built with WAIT_POINTS=1, as test/run does.

=item wait_reached(node, name)

Returns when a process waits there.

=item release(node, name)

Lets it go on, and returns when it does.

=back

=cut

sub wait_file
{
	my ($node, $name) = @_;

	return $node->data_dir . "/ectowatch_wait.$name";
}

sub wait_point
{
	my ($node, $name) = @_;

	append_to_file(wait_file($node, $name), '');
	return;
}

sub wait_reached
{
	my ($node, $name) = @_;

	poll_until("wait point \"$name\"",
		sub { return -e wait_file($node, $name) . '.reached' });
	return;
}

sub release
{
	my ($node, $name) = @_;
	my $file = wait_file($node, $name);

	unlink $file or croak "nothing waits at wait point \"$name\": $!";
	poll_until("the end of wait point \"$name\"",
		sub { return !-e "$file.reached" });
	return;
}

=pod

=head1 CLIENTS

=over

=cut

package EctowatchNode::Client;

use strict;
use warnings;

use Carp;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

sub start
{
	my ($class, $program, @arguments) = @_;
	my $directory = $ENV{ECTOWATCH_CLIENTS}
	  // croak 'ECTOWATCH_CLIENTS is not set: run this by test/run';
	my $self = bless { program => $program, stdout => '', stderr => '' },
	  $class;

	$self->{run} = IPC::Run::start(
		[ "$directory/$program", @arguments ],
		'<', \undef,
		'>', \$self->{stdout},
		'2>', \$self->{stderr});
	$self->wait_until('it is ready', sub { $self->{stdout} =~ /^ready\n/ });
	return $self;
}

# Reads its output until the condition holds.
sub wait_until
{
	my ($self, $what, $condition) = @_;
	my $end = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;

	while (Time::HiRes::time() < $end)
	{
		my $running = $self->{run}->pumpable;

		$self->{run}->pump_nb if $running;
		return if $condition->();
		last unless $running;
		usleep(5_000);
	}
	croak "$self->{program} ended or hung before $what: "
	  . "$self->{stdout}$self->{stderr}";
}

=pod

=item $client->lines

The lines that it has printed until now, without the first, "ready".

=cut

sub lines
{
	my ($self) = @_;

	$self->{run}->pump_nb if $self->{run}->pumpable;

	# the last line may not be complete
	my @lines = $self->{stdout} =~ /^(.*)\n/mg;
	shift @lines;
	return @lines;
}

=pod

=item $client->wait_for_lines(number)

Waits until it has printed at least that many lines, and returns them all.

=cut

sub wait_for_lines
{
	my ($self, $number) = @_;

	$self->wait_until("$number lines", sub { scalar($self->lines) >= $number });
	return $self->lines;
}

=pod

=item $client->wait_for_line(pattern)

Waits for a line that matches, and returns all lines until now.

=cut

sub wait_for_line
{
	my ($self, $pattern) = @_;

	$self->wait_until("a line like $pattern",
		sub { scalar(grep { $_ =~ $pattern } $self->lines) });
	return $self->lines;
}

=pod

=item $client->signal(name)

Sends it a signal, such as STOP or CONT.

=item $client->stop

Ends it by SIGTERM, and returns all lines.

=item $client->finish

Waits until it ends by itself, and returns what it counted: a hash with keys
like "users_updated updated" and "order_violations".

=back

=cut

sub signal
{
	my ($self, $name) = @_;

	$self->{run}->signal($name);
	return;
}

sub stop
{
	my ($self) = @_;

	$self->{run}->signal('TERM');
	$self->{run}->finish;
	return $self->lines;
}

sub finish
{
	my ($self) = @_;
	my %counts;

	$self->wait_until('its end', sub { !$self->{run}->pumpable });
	$self->{run}->finish
	  or croak "$self->{program} failed: $self->{stdout}$self->{stderr}";
	foreach my $line ($self->lines)
	{
		my @fields = split /\t/, $line;
		my $number = pop @fields;

		$counts{"@fields"} = $number;
	}
	return \%counts;
}

1;
