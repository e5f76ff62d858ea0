/*-------------------------------------------------------------------------
 *
 * ectowatch.h
 *	  Settings, and whether the library is there as it has to be.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_H
#define ECTOWATCH_H

#include "compat.h"

/* Name of the extension and of the shared library. */
#define ECTOWATCH_NAME	"ectowatch"

/* The SQL version that this library belongs to: default_version. */
#define ECTOWATCH_VERSION	"1.0"

/* Settings; what they mean is told where ectowatch.c defines them. */
extern int	ectowatch_max_databases;
extern int	ectowatch_queue_size;	/* kB */
extern int	ectowatch_queue_timeout;	/* ms */
extern int	ectowatch_ring_size;	/* kB */
extern int	ectowatch_max_subscriptions;
extern int	ectowatch_pending_memory;	/* kB */
extern int	ectowatch_backlog_size; /* kB */
extern int	ectowatch_max_wait; /* ms */
extern bool ectowatch_mute;
extern bool ectowatch_debug;

/* Whether shared memory, worker and hooks are there. */
extern bool ectowatch_is_preloaded(void);

/* ERROR, with the line for postgresql.conf, unless they are. */
extern void ectowatch_require_preload(void);

/*
 * Debug-only wait points, where tests hold a process: it waits while the file
 * ectowatch_wait.<name> exists in the data directory, and says that it does by
 * ectowatch_wait.<name>.reached.  Never throws, is not interrupted.
 */
#ifdef ECTOWATCH_WAIT_POINTS
extern void ectowatch_wait_point(const char *name, bool interruptible);
#define WAIT_POINT(name)				ectowatch_wait_point(name, false)
#define WAIT_POINT_INTERRUPTIBLE(name)	ectowatch_wait_point(name, true)
#else
#define WAIT_POINT(name)				((void) 0)
#define WAIT_POINT_INTERRUPTIBLE(name)	((void) 0)
#endif

#endif							/* ECTOWATCH_H */
