/*-------------------------------------------------------------------------
 *
 * common.h
 *	  What the measuring clients have in common.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef COMMON_H
#define COMMON_H

#include <stdint.h>

#include <libpq-fe.h>

/* CLOCK_MONOTONIC in nanoseconds: one clock for all processes here. */
extern int64_t now_ns(void);

/* Connects; ends the program where that fails. */
extern PGconn *connect_or_end(const char *conninfo);

/* Runs a statement that must succeed; the caller clears the result. */
extern PGresult *run_or_end(PGconn *conn, const char *statement);

/* The same for a statement's result, which it returns. */
extern PGresult *check_or_end(PGconn *conn, PGresult *result);

/* Prints the connection's error and ends the program. */
extern void end_with_error(PGconn *conn) __attribute__((noreturn));

/* Tells whoever started this program that nothing is missed from now on. */
extern void print_ready(void);

#endif							/* COMMON_H */
