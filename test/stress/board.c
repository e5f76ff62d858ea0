/*-------------------------------------------------------------------------
 *
 * board.c
 *	  Stress test of src/board.c alone, without a server.
 *
 * One writer and several readers are processes that share a board, so small
 * that it wraps and goes to files all the time.  The writer is ended at any
 * instruction while it puts messages, and its successor begins where that one
 * had begun: as the worker, which keeps its place in the ring.  Readers have a
 * place each, as in src/listener.c, which is told anew with each publication
 * that has something for them: one reads at once, one slowly, one stops for a
 * while now and then, the others by chance.
 *
 * All of a message follows from the seed, its number and a letter: length and
 * content; and for which readers it is, from the first two.  The letter is
 * another one each time that it is put, so that what was put and not published
 * is told from it.  So each reader can tell that it gets all that is for it, in
 * order, once, and each byte of it right; what is not for it may come or not.
 * At the end no file is left.  With a small limit for files, putting fails for
 * a while, and nothing is lost either.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "port/atomics.h"

#include "board.h"
#include "spill.h"

/* The server's own, which need its library. */
#undef fprintf
#undef printf
#undef snprintf

#define NREADERS		6
#define PIECE			(32 * 1024)
#define MAX_LENGTH		8000
#define HANG_SECONDS	20

/* One configuration. */
typedef struct Config
{
	const char *name;
	int			backlog;		/* kB */
	uint32		point_mask;		/* a point acts once in so many + 1 */
	int			deaths;			/* of 1000 points that act */
	int			batch;			/* messages at most */
} Config;

static const Config configs[] = {
	{"files", 1024 * 1024, 1023, 20, 40},
	{"limit", 256, 1023, 20, 40},
	{"long batches", 64, 4095, 5, 400},
};

/* A session, as listener.c knows it. */
typedef struct Place
{
	char		lock;
	uint64		from;
	uint64		until;
} Place;

typedef struct Shared
{
	pg_atomic_uint64 sent;		/* messages; the writer's place */
	pg_atomic_uint32 calm;		/* nobody ends any more */
	pg_atomic_uint32 done;		/* no more will be sent */
	pg_atomic_uint32 failed;
	pg_atomic_uint64 refused;	/* attempts for which there was no room */
	pg_atomic_uint64 deaths;
	char		message[256];
	Place		places[NREADERS];
} Shared;

int			MyProcPid = 1;
int			ectowatch_backlog_size;

static Shared *shared;
static Board *board;
static char directory[64];
static uint64 seed;
static const Config *config;
static bool may_end;			/* this is the writer, and it puts */
static uint64 chance;

static uint64
mix(uint64 x)
{
	x ^= x >> 33;
	x *= UINT64CONST(0xff51afd7ed558ccd);
	x ^= x >> 33;
	x *= UINT64CONST(0xc4ceb9fe1a85ec53);
	return x ^ x >> 33;
}

static uint64
random_number(void)
{
	return mix(chance++);
}

static void
fail(const char *what, uint64 number)
{
	uint32		none = 0;

	if (pg_atomic_compare_exchange_u32(&shared->failed, &none, 1))
		snprintf(shared->message, sizeof(shared->message), "%s at message %llu",
				 what, (unsigned long long) number);
	_exit(1);
}

/* --- what the server has --- */

void
ExceptionalCondition(const char *condition, const char *type,
					 const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s %s\n", file, line, type, condition);
	abort();
}

static void
file_path(char *path, uint64 id)
{
	snprintf(path, MAXPGPATH, "%s/%llu", directory, (unsigned long long) id);
}

uint64
spill_board_id(int number, uint32 segment)
{
	return (uint64) number << 32 | segment;
}

File
spill_open(uint64 id)
{
	char		path[MAXPGPATH];

	file_path(path, id);
	return open(path, O_RDONLY);
}

File
spill_open_board(uint64 id)
{
	char		path[MAXPGPATH];

	file_path(path, id);
	return open(path, O_RDWR | O_CREAT, 0600);
}

bool
spill_write(File file, uint64 offset, const void *from, Size len)
{
	return pwrite(file, from, len, offset) == (ssize_t) len;
}

bool
spill_read(File file, uint64 offset, void *to, Size len)
{
	return pread(file, to, len, offset) == (ssize_t) len;
}

void
spill_remove(uint64 id)
{
	char		path[MAXPGPATH];

	file_path(path, id);
	if (unlink(path) != 0)
		fail("a file is to be removed that is not there", id);
}

void
FileClose(File file)
{
	close(file);
}

extern void stress_point(void);

void
stress_point(void)
{
	uint64		number;

	if (config == NULL || (random_number() & config->point_mask) != 0)
		return;
	number = random_number() % 1000;
	if (may_end && (int) number < config->deaths &&
		pg_atomic_read_u32(&shared->calm) == 0)
	{
		pg_atomic_fetch_add_u64(&shared->deaths, 1);
		_exit(2);
	}
	if (number < 500)
		sched_yield();
	else if (number < 520)
		usleep(500);
}

/* --- messages --- */

static Size
length_of(uint64 number, char letter)
{
	uint64		x = mix(seed + number * 128 + letter);

	return x % 8 == 0 ? x / 8 % MAX_LENGTH : 8 + x / 8 % 200;
}

static bool
is_for(uint64 number, int reader)
{
	/* now and then nothing for a while */
	return (mix(seed + number / 64) >> (8 + reader)) % 4 != 0 &&
		(mix(seed ^ number) >> reader) % 2 == 0;
}

static void
make_text(char *text, uint64 number, char letter)
{
	Size		len = length_of(number, letter);

	snprintf(text, 24, "%020llu%c", (unsigned long long) number, letter);
	for (Size i = 21; i < 21 + len; i++)
		text[i] = 'a' + (letter + number + i) % 26;
	text[21 + len] = '\0';
}

/* --- the writer --- */

static void
lock(Place *place)
{
	while (__atomic_test_and_set(&place->lock, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void
unlock(Place *place)
{
	__atomic_clear(&place->lock, __ATOMIC_RELEASE);
}

static uint64
first_unread(void)
{
	uint64		first = PG_UINT64_MAX;

	for (int i = 0; i < NREADERS; i++)
	{
		Place	   *place = &shared->places[i];

		lock(place);
		if (place->from < place->until)
			first = Min(first, place->from);
		unlock(place);
	}
	return first;
}

static void
tell(uint64 first, uint64 end, uint64 from, uint64 until)
{
	for (int i = 0; i < NREADERS; i++)
	{
		Place	   *place = &shared->places[i];
		bool		wanted = false;

		for (uint64 number = first; number < end && !wanted; number++)
			wanted = is_for(number, i);
		if (!wanted)
			continue;
		lock(place);
		if (place->from >= place->until)
			place->from = from;
		place->until = until;
		unlock(place);
	}
}

static void
run_writer(void)
{
	static char text[MAX_LENGTH + 32];
	BoardWriter writer = {0};

	while (pg_atomic_read_u32(&shared->done) == 0)
	{
		uint64		first = pg_atomic_read_u64(&shared->sent);
		uint64		end = first + 1 + random_number() % config->batch;
		uint64		from = board_head(board);
		bool		fits = true;
		char		letter = 'A' + random_number() % 26;

		board_begin(&writer, board);
		board_release(&writer, first_unread());
		may_end = true;
		for (uint64 number = first; number < end && fits; number++)
		{
			make_text(text, number, letter);
			fits = board_put(&writer, "channel", text, strlen(text));
		}
		may_end = false;
		if (!fits || random_number() % 20 == 0)
		{
			/* gives up */
			if (!fits)
			{
				pg_atomic_fetch_add_u64(&shared->refused, 1);
				usleep(1000);
			}
			continue;
		}
		board_publish(&writer);
		tell(first, end, from, board_head(board));
		pg_atomic_write_u64(&shared->sent, end);
	}
}

/* --- a reader --- */

static uint64
check_piece(const char *piece, Size len, int reader, uint64 next, Size *done)
{
	static char text[MAX_LENGTH + 32];

	for (*done = 0; *done + offsetof(BoardMessage, text) <= len;)
	{
		const BoardMessage *message = (const BoardMessage *) (piece + *done);
		uint64		number;

		if (*done + message->size > len)
			break;
		number = strtoull(message->text + message->payload, NULL, 10);
		if (strcmp(message->text, "channel") != 0 || number < next)
			fail("a message is wrong or comes twice", number);
		make_text(text, number, message->text[message->payload + 20]);
		if (strcmp(text, message->text + message->payload) != 0)
			fail("a message is not what was put", number);
		for (; next < number; next++)
		{
			if (is_for(next, reader))
				fail("a message is missing", next);
		}
		next = number + 1;
		*done += message->size;
	}
	return next;
}

static void
run_reader(int reader)
{
	static char piece[PIECE];
	Place	   *place = &shared->places[reader];
	uint64		next = 0;

	for (;;)
	{
		bool		done = pg_atomic_read_u32(&shared->done) == 2;
		uint64		from;
		uint64		until;

		lock(place);
		from = place->from;
		until = place->until;
		unlock(place);
		if (from >= until && done)
			break;
		if (from >= until)
			usleep(100);
		while (from < until)
		{
			Size		len = Min(PIECE, until - from);
			Size		read;

			if (!board_read(board, from, piece, len))
				fail("cannot be read: what comes", next);
			next = check_piece(piece, len, reader, next, &read);
			if (read == 0)
				fail("too long: what comes", next);
			from += read;
			lock(place);
			place->from = from;
			unlock(place);
			if (reader == 1)
				usleep(200);
			else if (reader == 2 && random_number() % 100 == 0 &&
					 pg_atomic_read_u32(&shared->done) == 0)
				usleep(50000);
			else if (reader > 2 && random_number() % 50 == 0)
				usleep(1000);
		}
	}
	for (; next < pg_atomic_read_u64(&shared->sent); next++)
	{
		if (is_for(next, reader))
			fail("a message is missing at the end", next);
	}
}

/* --- all of it --- */

static pid_t
start(int reader)
{
	pid_t		pid = fork();

	if (pid != 0)
		return pid;
	signal(SIGTERM, SIG_DFL);
	chance = seed * 1000003 + (uint64) getpid() * 7919;
	if (reader < 0)
		run_writer();
	else
		run_reader(reader);
	_exit(0);
}

static int
count_files(void)
{
	DIR		   *dir = opendir(directory);
	struct dirent *entry;
	int			n = 0;

	while ((entry = readdir(dir)) != NULL)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

/*
 * Waits for one to end, or for who takes the place of a writer that was killed;
 * false if something failed, or nothing happens any more.
 */
static bool
wait_end(pid_t pid, pid_t *writer)
{
	time_t		last = time(NULL);
	int			status;

	for (;;)
	{
		pid_t		ended = waitpid(-1, &status, WNOHANG);

		if (ended > 0 && ended == *writer && WIFEXITED(status) &&
			WEXITSTATUS(status) == 2)
		{
			*writer = start(-1);
			if (ended == pid)
				pid = *writer;
		}
		else if (ended > 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		{
			if (shared->message[0] == '\0')
				snprintf(shared->message, sizeof(shared->message),
						 "a process ended with status %d", status);
			return false;
		}
		else if (ended > 0 && ended == pid)
			return true;
		else if (ended == 0)
			usleep(1000);
		if (pg_atomic_read_u32(&shared->failed) != 0 ||
			time(NULL) > last + HANG_SECONDS)
			return false;
	}
}

static bool
run(double seconds)
{
	pid_t		readers[NREADERS];
	pid_t		writer;
	pid_t		clock;
	BoardWriter last = {0};
	bool		right = true;

	memset(shared, 0, sizeof(*shared));
	board_init(board, 1);
	ectowatch_backlog_size = config->backlog;
	writer = start(-1);
	for (int i = 0; i < NREADERS; i++)
		readers[i] = start(i);

	clock = fork();
	if (clock == 0)
	{
		usleep((useconds_t) (seconds * 1000000));
		_exit(0);
	}
	right = wait_end(clock, &writer);
	pg_atomic_write_u32(&shared->calm, 1);
	pg_atomic_write_u32(&shared->done, 1);
	right = right && wait_end(writer, &writer);
	pg_atomic_write_u32(&shared->done, 2);
	for (int i = 0; i < NREADERS && right; i++)
	{
		int			status;

		if (waitpid(readers[i], &status, 0) == readers[i])
			right = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	}
	if (right)
	{
		const Config *former = config;

		config = NULL;			/* this process is no part of it */
		board_begin(&last, board);
		board_release(&last, PG_UINT64_MAX);
		config = former;
		if (count_files() != 0)
		{
			right = false;
			snprintf(shared->message, sizeof(shared->message),
					 "%d files are left", count_files());
		}
	}
	printf("board, %s: %s, %llu messages, %llu times no room, %llu writers ended%s%s\n",
		   config->name, right ? "ok" : "not ok",
		   (unsigned long long) pg_atomic_read_u64(&shared->sent),
		   (unsigned long long) pg_atomic_read_u64(&shared->refused),
		   (unsigned long long) pg_atomic_read_u64(&shared->deaths),
		   right ? "" : ": ", right ? "" : shared->message);
	if (!right)
		kill(0, SIGTERM);		/* but for this process */
	return right;
}

int
main(int argc, char **argv)
{
	double		seconds = argc > 1 ? atof(argv[1]) : 6;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64) time(NULL);
	printf("board: seed %llu\n", (unsigned long long) seed);
	fflush(stdout);
	setpgid(0, 0);
	signal(SIGTERM, SIG_IGN);
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	board = mmap(NULL, board_shmem_size(), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(directory, "/tmp/ectowatch_board.XXXXXX");
	if (shared == MAP_FAILED || board == MAP_FAILED || mkdtemp(directory) == NULL)
	{
		perror("board");
		return 1;
	}
	for (size_t i = 0; i < lengthof(configs); i++)
	{
		config = &configs[i];
		if (!run(seconds / lengthof(configs)))
			return 1;
		fflush(stdout);
	}
	rmdir(directory);
	return 0;
}
