/*-------------------------------------------------------------------------
 *
 * board.h
 *	  Messages from the worker to the sessions that listen: one writer, many
 *	  readers.
 *
 * The board knows nothing of who listens: see listener.h for that.  The rules
 * are told at the top of board.c.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_BOARD_H
#define ECTOWATCH_BOARD_H

#include "storage/fd.h"

typedef struct Board Board;

/* A message as it lies there; its text is the channel, then the payload. */
typedef struct BoardMessage
{
	uint32		size;			/* of all of it, a multiple of eight */
	int32		pid;			/* of the worker that has sent it */
	uint32		payload;		/* where that begins in 'text' */
	char		text[FLEXIBLE_ARRAY_MEMBER];	/* both end with '\0' */
} BoardMessage;

/* No message is longer than that. */
#define BOARD_MAX_MESSAGE	(16 * 1024)

extern Size board_shmem_size(void);

/* Memory is zeroed, or another database's; the number is its own for ever. */
extern void board_init(Board *board, int number);

/* --- the writer: the worker alone --- */

/* Its private state; what lies behind the published head. */
typedef struct BoardWriter
{
	Board	   *board;
	uint64		tail;			/* end of what was put */
	uint64		unread;			/* nobody needs what is before that */
	File		file;			/* below 0: none is open */
	uint64		segment;		/* which one that is */
} BoardWriter;

/* Begins anew behind what is published, forgetting the rest. */
extern void board_begin(BoardWriter *writer, Board *board);

/*
 * Says that nobody needs what lies before 'unread', which may be more than there
 * is, and removes files that have been read.
 */
extern void board_release(BoardWriter *writer, uint64 unread);

/* Whether so many bytes can be put without one. */
extern bool board_has_room(BoardWriter *writer, Size bytes);

/*
 * Puts a message behind the last one.  No reader sees it yet.  False if it
 * cannot be kept for those who have not read yet: the files are as long as they
 * may become, or cannot be written, of which errno tells.
 */
extern bool board_put(BoardWriter *writer, const char *channel,
					  const char *payload, Size len);

/* Shows readers all that was put. */
extern void board_publish(BoardWriter *writer);

/* --- any process --- */

/* The end of what is published. */
extern uint64 board_head(const Board *board);

/* Removes all files; nobody reads or writes any more. */
extern void board_discard(Board *board);

/* Whether there are files. */
extern bool board_has_file(const Board *board);

/*
 * Copies what lies there from an offset, so many bytes, all of them published.
 * What is at the end may be a part of a message.  False if they are no longer
 * there or a file cannot be read.  Throws nothing.
 */
extern bool board_read(const Board *board, uint64 from, char *to, Size len);

#endif							/* ECTOWATCH_BOARD_H */
