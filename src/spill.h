/*-------------------------------------------------------------------------
 *
 * spill.h
 *	  Temporary files for what is too long for memory.
 *
 * Nothing here throws for a file that cannot be written or read: a write
 * must not fail for want of disk (P3).  See spill.c for who owns a file when.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_SPILL_H
#define ECTOWATCH_SPILL_H

#include "storage/fd.h"

/*
 * Creates a file of this backend and returns its id, which is never 0;
 * 0 if that failed.  *file has to be closed with FileClose().
 */
extern uint64 spill_create(File *file);

/* Opens another process's file for reading; below 0 if that failed. */
extern File spill_open(uint64 id);

/*
 * The id of a file that belongs to no process but to a board; and the same for
 * writing, created if it is not there.
 */
extern uint64 spill_board_id(int board, uint32 segment);
extern File spill_open_board(uint64 id);

/* Write and read all of it, or return false.  errno tells why. */
extern bool spill_write(File file, uint64 offset, const void *from, Size len);
extern bool spill_read(File file, uint64 offset, void *to, Size len);

/* Removes a file; a failure is logged.  Legal where nothing may fail. */
extern void spill_remove(uint64 id);

/* Removes what a former run of the server left; at start only. */
extern void spill_remove_all(void);

#endif							/* ECTOWATCH_SPILL_H */
