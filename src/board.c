/*-------------------------------------------------------------------------
 *
 * board.c
 *	  Messages from the worker to the sessions that listen: one writer, many
 *	  readers.
 *
 * The board is an endless stream of messages.  Places in it are offsets:
 * 64-bit, only growing; byte 'offset' lies at data[offset % BOARD_SIZE] as long
 * as it is among the newest BOARD_SIZE.  What a session has not read when the
 * memory is needed goes to files, so that nobody loses a message or has to wait
 * for another session.  Only if they would become longer than
 * ectowatch.backlog_size, or cannot be written, nothing more can be put.
 *
 * Fields, and who touches them:
 *
 *		number		constant
 *		head		end of what is published		stored by the writer, read by
 *		oldest		data[] has what lies behind it	all; of 64 bits, so nobody
 *		kept		files have what lies between	sees half of one
 *					it and oldest
 *		data[]										written by the writer
 *
 *		0 .... kept ............... oldest ......... head ......... tail
 *		  gone       in the files           in data[]    not published
 *
 * The files are segments: the one of an offset is number offset / SEGMENT_SIZE,
 * and its place there is the rest.  So who knows an offset finds the file.
 *
 * The writer puts messages behind 'tail', which is its own.  Where they do not
 * fit behind 'oldest':
 *
 *	 1. It writes a piece of data[] behind 'oldest' to the files, unless nobody
 *		needs it, nor then what is in them; then it stores kept, too.
 *	 2. Write barrier; it stores oldest; write barrier.  Who sees the new oldest
 *		finds the bytes in the file, and who sees new bytes in data[] sees that
 *		oldest has passed the former ones.
 *
 * board_publish(): write barrier; it stores head.
 *
 * A reader knows from listener.c that there is something for it, and where it
 * begins; the writer has learned from there what is needed.  It loads head;
 * read barrier; if its offset is not below oldest, it copies from data[]; read
 * barrier; it loads oldest again.  If that has passed its offset, it finds the
 * bytes in a file.
 *
 * What it needs stays in the files until it has said that it has read it, and
 * then it reads behind that: no segment is removed under a reader who needs it.
 *
 * The writer may give up or end before it publishes.  Its successor starts at
 * head.  If unpublished messages had already made it write published ones to
 * the files, and some of their own, these are written again in their place.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"

#include "board.h"
#include "ectowatch.h"
#include "spill.h"

/* A power of two, so that offsets wrap where they should; test/stress has less. */
#ifndef BOARD_SIZE
#define BOARD_SIZE		((uint64) 4 * 1024 * 1024)
#endif

/* What goes to the files at once, and how much each has; multiples of it. */
#define BOARD_PIECE		(BOARD_SIZE / 8)
#define SEGMENT_SIZE	(4 * BOARD_SIZE)

struct Board
{
	int			number;
	pg_atomic_uint64 oldest;
	pg_atomic_uint64 kept;
	char		pad[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 head;
	char		pad2[PG_CACHE_LINE_SIZE];
	char		data[BOARD_SIZE];
};

Size
board_shmem_size(void)
{
	return sizeof(Board);
}

void
board_init(Board *board, int number)
{
	board->number = number;
	pg_atomic_init_u64(&board->oldest, 0);
	pg_atomic_init_u64(&board->kept, 0);
	pg_atomic_init_u64(&board->head, 0);
}

static uint64
load(const pg_atomic_uint64 *field)
{
	return pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, field));
}

uint64
board_head(const Board *board)
{
	return load(&board->head);
}

bool
board_has_file(const Board *board)
{
	return load(&board->kept) < load(&board->oldest);
}

static uint64
segment_id(const Board *board, uint64 segment)
{
	return spill_board_id(board->number, (uint32) segment);
}

/* --- the writer --- */

static void
copy_to(Board *board, uint64 offset, const void *from, Size len)
{
	Size		first = Min(len, BOARD_SIZE - offset % BOARD_SIZE);

	memcpy(board->data + offset % BOARD_SIZE, from, first);
	memcpy(board->data, (const char *) from + first, len - first);
}

/* Stores oldest; what lies before it is in the file, or nobody needs it. */
static void
set_oldest(Board *board, uint64 oldest)
{
	pg_write_barrier();
	pg_atomic_write_u64(&board->oldest, oldest);
	pg_write_barrier();
}

/* Removes the segments that lie between two offsets, in part or as a whole. */
static void
remove_segments(const Board *board, uint64 from, uint64 to)
{
	for (uint64 segment = from / SEGMENT_SIZE; segment * SEGMENT_SIZE < to; segment++)
		spill_remove(segment_id(board, segment));
}

static void
close_file(BoardWriter *writer)
{
	if (writer->file >= 0)
		FileClose(writer->file);
	writer->file = -1;
}

/* Writes what lies between oldest and 'end' to the files. */
static bool
write_files(BoardWriter *writer, uint64 end)
{
	Board	   *board = writer->board;
	uint64		from = load(&board->oldest);

	/* of what nobody has seen there may be as much as must be */
	if (writer->unread < board_head(board) &&
		end - load(&board->kept) > (uint64) ectowatch_backlog_size * 1024)
	{
		errno = EFBIG;
		return false;
	}
	while (from < end)
	{
		uint64		segment = from / SEGMENT_SIZE;
		uint64		stop = Min(end, (segment + 1) * SEGMENT_SIZE);

		/* data[] ends somewhere, too */
		stop = Min(stop, (from / BOARD_SIZE + 1) * BOARD_SIZE);
		if (writer->file < 0 || writer->segment != segment)
		{
			close_file(writer);
			writer->file = spill_open_board(segment_id(board, segment));
			writer->segment = segment;
		}
		if (writer->file < 0 ||
			!spill_write(writer->file, from % SEGMENT_SIZE,
						 board->data + from % BOARD_SIZE, stop - from))
			return false;
		from = stop;
	}
	return true;
}

/* Makes room behind the tail. */
static bool
make_room(BoardWriter *writer, Size bytes)
{
	Board	   *board = writer->board;

	while (writer->tail + bytes - load(&board->oldest) > BOARD_SIZE)
	{
		uint64		oldest = load(&board->oldest);
		uint64		end = Min(oldest + BOARD_PIECE, writer->tail);

		if (end > writer->unread)
		{
			if (!write_files(writer, end))
				return false;
		}
		else
			pg_atomic_write_u64(&board->kept, end);
		set_oldest(board, end);
	}
	return true;
}

void
board_begin(BoardWriter *writer, Board *board)
{
	uint64		oldest = load(&board->oldest);
	uint64		kept = load(&board->kept);

	if (writer->board == NULL)
		writer->file = -1;
	writer->board = board;
	writer->tail = board_head(board);
	writer->unread = kept;

	/* after one that has put much and failed */
	if (oldest > writer->tail)
	{
		uint64		rest = kept < writer->tail ?
			TYPEALIGN64(SEGMENT_SIZE, writer->tail) : kept;

		close_file(writer);
		set_oldest(board, writer->tail);
		remove_segments(board, rest, oldest);
	}
}

void
board_release(BoardWriter *writer, uint64 unread)
{
	Board	   *board = writer->board;
	uint64		head = board_head(board);
	uint64		oldest = load(&board->oldest);
	uint64		kept = load(&board->kept);

	writer->unread = Min(unread, head);
	if (kept >= oldest || writer->unread <= kept)
		return;
	pg_atomic_write_u64(&board->kept, Min(writer->unread, oldest));
	if (writer->unread >= oldest)
	{
		close_file(writer);
		remove_segments(board, kept, oldest);
	}
	else
		remove_segments(board, kept,
						writer->unread - writer->unread % SEGMENT_SIZE);
}

void
board_discard(Board *board)
{
	if (board_has_file(board))
		remove_segments(board, load(&board->kept), load(&board->oldest));
	pg_atomic_write_u64(&board->kept, load(&board->oldest));
}

bool
board_has_room(BoardWriter *writer, Size bytes)
{
	uint64		oldest = load(&writer->board->oldest);

	return !board_has_file(writer->board) &&
		writer->tail + bytes - Max(writer->unread, oldest) + BOARD_PIECE <= BOARD_SIZE;
}

bool
board_put(BoardWriter *writer, const char *channel, const char *payload,
		  Size len)
{
	BoardMessage message;
	Size		channel_len = strlen(channel) + 1;
	uint64		at = writer->tail;

	message.payload = channel_len;
	message.size = MAXALIGN(offsetof(BoardMessage, text) + channel_len + len + 1);
	message.pid = MyProcPid;
	Assert(message.size <= BOARD_MAX_MESSAGE);
	if (!make_room(writer, message.size))
		return false;

	copy_to(writer->board, at, &message, offsetof(BoardMessage, text));
	at += offsetof(BoardMessage, text);
	copy_to(writer->board, at, channel, channel_len);
	at += channel_len;
	copy_to(writer->board, at, payload, len);
	copy_to(writer->board, at + len, "", 1);
	writer->tail += message.size;
	return true;
}

void
board_publish(BoardWriter *writer)
{
	pg_write_barrier();
	pg_atomic_write_u64(&writer->board->head, writer->tail);
}

/* --- readers --- */

/* Copies from memory; 0 if it is not there any more. */
static Size
read_memory(const Board *board, uint64 from, char *to, Size len)
{
	Size		first = Min(len, BOARD_SIZE - from % BOARD_SIZE);

	if (from < load(&board->oldest))
		return 0;
	pg_read_barrier();
	memcpy(to, board->data + from % BOARD_SIZE, first);
	memcpy(to + first, board->data, len - first);
	pg_read_barrier();
	return from >= load(&board->oldest) ? len : 0;
}

/*
 * The file is opened for each read: once all have read it, another one may come
 * by its name.
 */
static Size
read_file(const Board *board, uint64 from, char *to, Size room)
{
	uint64		oldest = load(&board->oldest);
	uint64		segment = from / SEGMENT_SIZE;
	Size		len;
	File		file;
	bool		done;

	pg_read_barrier();
	if (from < load(&board->kept) || from >= oldest)
		return 0;
	file = spill_open(segment_id(board, segment));
	if (file < 0)
		return 0;
	len = Min(room, Min(oldest, (segment + 1) * SEGMENT_SIZE) - from);
	done = spill_read(file, from % SEGMENT_SIZE, to, len);
	FileClose(file);
	return done ? len : 0;
}

bool
board_read(const Board *board, uint64 from, char *to, Size len)
{
	Size		done = 0;

	/* a file may end within a message */
	while (done < len)
	{
		Size		part = read_memory(board, from + done, to + done, len - done);

		if (part == 0)
			part = read_file(board, from + done, to + done, len - done);
		if (part == 0)
			return false;
		done += part;
	}
	return true;
}
