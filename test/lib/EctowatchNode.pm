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
use File::Basename;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  new_node
  poll_until
  poll_query
  worker_pid
  launcher_pid
  wait_delivered
  spill_files
  ring_counts
  message_counts
  session
  ask
  start_statement
  finish_statement
  wait_session_end
  block_channels
  unblock_channels
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

=item worker_pid(node, database)

The pid of the database's worker; waits until there is one.

=item wait_delivered(node, database)

Returns when all that has been committed is in the ring and sent to channels.

=item spill_files(node)

The files in which changes of large transactions are, sorted.

=cut

sub worker_pid
{
	my ($node, $database) = @_;

	return poll_until(
		"the worker of $database",
		sub {
			return $node->safe_psql($database,
				'SELECT worker_pid FROM ectowatch_stat');
		});
}

sub wait_delivered
{
	my ($node, $database) = @_;

	poll_query($node, $database,
		'SELECT queue_batches = 0 AND notify_bytes = 0 FROM ectowatch_stat');
	return;
}

sub spill_files
{
	my ($node) = @_;

	my @files = sort glob($node->data_dir . '/base/pgsql_tmp/*ectowatch*');

	return @files;
}

=pod

=item launcher_pid(node)

The process id of the launcher, '' if there is none.  It is connected to no
database, so pg_stat_activity does not show it.

=cut

sub launcher_pid
{
	my ($node) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');

	foreach my $title (glob '/proc/[0-9]*/cmdline')
	{
		my $directory = dirname($title);

		# processes may end meanwhile
		my ($command, $stat) = map {
			my $text = '';
			if (open my $file, '<', $_) { local $/; $text = <$file> // ''; }
			$text
		} $title, "$directory/stat";
		return basename($directory)
		  if $command =~ /: ectowatch launcher/ && $stat =~ /^\d+ \(.*\) \S \Q$postmaster\E /;
	}
	return '';
}

=pod

=item ring_counts(node, database, after [, watchers])

Reads the ring and counts: a hash with keys like "users_updated updated".  For
gaps it is not their number but that of the changes that they stand for, 0 if
that is not known, with keys like "users_updated gap overtaken"; a gap of all watchers has none in its
key, "gap overtaken".  Key "violations" is how often positions did not grow.

=item message_counts(line...)

The same for lines that test/clients/listen has printed.

=cut

sub ring_counts
{
	my ($node, $database, $after, $watchers) = @_;
	my $array = defined $watchers ? "'{$watchers}'" : 'NULL';
	my %counts;

	foreach my $row (
		split /\n/,
		$node->safe_psql(
			$database, qq{
			WITH changes AS (
				SELECT *, position <= lag(position) OVER (ORDER BY n) AS violation
				FROM ectowatch_changes($after, $array, NULL) WITH ORDINALITY
					AS c(position, watcher, type, relation, "values", old_values,
						xid, committed_at, context, n))
			SELECT concat_ws(' ', watcher, type, values ->> 'reason'),
				sum(CASE type WHEN 'gap' THEN
					COALESCE((values ->> 'changes')::bigint, 0) ELSE 1 END)
			FROM changes GROUP BY 1
			UNION ALL
			SELECT 'violations', count(*) FROM changes WHERE violation}))
	{
		my ($key, $number) = split /\|/, $row;
		$counts{$key} = $number;
	}
	return \%counts;
}

sub message_counts
{
	my %counts;
	my $newest = 0;

	$counts{violations} = 0;
	foreach my $line (@_)
	{
		my ($channel, $pid, $payload) = split /\t/, $line, 3;
		my ($type) = $payload =~ /^\{"type":"(\w+)"/;
		my ($position) = $payload =~ /"position":(\d+)\}$/;
		my $key = "$channel $type";
		my $number = 1;

		if ($type eq 'gap')
		{
			my ($reason) = $payload =~ /"reason":"(\w+)"/;
			$key .= " $reason";
			($number) = $payload =~ /"changes":(\d+)/;
			$number //= 0;
		}
		$counts{$key} += $number;
		$counts{violations}++ if $position <= $newest && $type ne 'gap';
		$newest = $position if $position > $newest;
	}
	return \%counts;
}

=pod

=item session(node, database)

A psql in the background, as background_psql() makes it, that does not end at
an error.

=item ask(session, query)

The result of a query, as query() gives it, but nothing goes to the log: for
polling, at one row and column or few.

=item start_statement(session, statement)

Sends a statement and does not wait for its end.  After finish_statement(),
which does, the session can be used again.

=item wait_session_end(session)

Returns when the session, in which a statement runs, has ended because it lost
its connection, and gives what psql said about it.

=cut

sub session
{
	my ($node, $database) = @_;

	return $node->background_psql($database, on_error_stop => 0);
}

sub ask
{
	my ($session, $query) = @_;
	my $result = $session->query_until(qr/^asked\n/m, "$query;\n\\echo asked\n");

	$result =~ s/^asked\n//m;
	chomp $result;
	return $result;
}

sub start_statement
{
	my ($session, $statement) = @_;

	$session->query_until(qr/statement sent/,
		"\\echo statement sent\n$statement;\n");
	return;
}

sub finish_statement
{
	my ($session) = @_;

	return $session->query('\echo');
}

sub wait_session_end
{
	my ($session) = @_;

	poll_until('the end of a session',
		sub { $session->{run}->pump_nb; return !$session->{run}->pumpable });
	$session->{run}->finish;
	return $session->{stderr};
}

=item block_channels($node, $database)

Makes the worker send nothing more to channels: a session listens, is in a
transaction, and what it has not read is all that may be kept.  Returns the
session.

=item unblock_channels($node, $session)

Ends that.

=cut

sub block_channels
{
	my ($node, $database) = @_;
	my $session = session($node, $database);

	$node->append_conf('postgresql.conf', 'ectowatch.backlog_size = 0');
	$node->reload;
	$session->query_safe($_) foreach 'LISTEN filler', 'BEGIN', 'SELECT 1';
	$node->safe_psql($database,
		"SELECT count(ectowatch_notify('filler', i || repeat('x', 7000))) FROM generate_series(1, 700) i");
	poll_query($node, $database, 'SELECT notify_blocked FROM ectowatch_stat');
	return $session;
}

sub unblock_channels
{
	my ($node, $session) = @_;

	$node->append_conf('postgresql.conf', "ectowatch.backlog_size = '1GB'");
	$node->reload;
	$session->query_safe('COMMIT');
	$session->quit;
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

=item $client->wait_for_last(channel)

Waits until its newest message is from this channel, and returns all lines.
Cheaper than wait_for_line() where there are many.

=cut

sub wait_for_last
{
	my ($self, $channel) = @_;

	$self->wait_until(
		"a message on $channel",
		sub {
			my $length = length $self->{stdout};
			my $start = rindex($self->{stdout}, "\n", $length - 2) + 1;

			return substr($self->{stdout}, -1) eq "\n"
			  && substr($self->{stdout}, $start) =~ /^\Q$channel\E\t/;
		});
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
