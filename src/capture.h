/*-------------------------------------------------------------------------
 *
 * capture.h
 *	  The trigger: a row becomes changes.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_CAPTURE_H
#define ECTOWATCH_CAPTURE_H

#include "fmgr.h"

/* Name of the trigger function, in the extension's schema. */
#define CAPTURE_FUNCTION	"ectowatch_capture"

/*
 * Captures for the watchers of a partitioned table that a partition of it was
 * truncated, which fires no trigger of theirs.
 */
extern void capture_partition_truncated(Oid origin);

extern PGDLLEXPORT Datum ectowatch_capture(PG_FUNCTION_ARGS);

#endif							/* ECTOWATCH_CAPTURE_H */
