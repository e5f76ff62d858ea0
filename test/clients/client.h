/*-------------------------------------------------------------------------
 *
 * client.h
 *	  What the clients have in common: options, connection, when to end.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>

#include <libpq-fe.h>

typedef struct Options
{
	bool		count;			/* a summary at the end, not a line per change */
	const char *counter;		/* see tally.h */
	const char *until;			/* end with a change of that watcher */
	int			sample_ms;		/* with count: still a line, this often */
	int			idle_ms;		/* end when nothing came for that long */
	int			timeout_s;		/* give up after that */
	long long	after;			/* position to start from, -1: now */
} Options;

extern Options options;

/* Reads the options, connects.  Returns the index of the next argument. */
extern int	client_start(int argc, char **argv, const char *usage,
						 PGconn **conn);

/* Runs a statement that must succeed, and ends the program if it does not. */
extern PGresult *client_check(PGconn *conn, PGresult *result);

/* Tells whoever started this program that nothing is missed from now on. */
extern void client_ready(void);

/*
 * Reports that a change came: whether a line is to be printed for it.  Notes
 * if it is the last one.
 */
extern bool client_received(const char *watcher);

/* Whether to end: asked for by signal, last change, silence or time. */
extern bool client_done(void);

/* Prints the summary if wanted.  Returns the exit status, 2 for a timeout. */
extern int	client_end(PGconn *conn);

#endif							/* CLIENT_H */
