/*-------------------------------------------------------------------------
 *
 * points.h
 *	  Included before queue.c, ring.c and board.c by the compiler's command line: puts
 *	  a call of stress_point() before and after each atomic access and each
 *	  barrier in them, and into the middle of each copy.
 *
 * There the protocol of shared memory has its seams.  At a point a process
 * may be delayed, and the worker may die; see stress_point() in stress.c and board.c.
 * What is between the points remains as it is in the server.
 *
 * A point is also a barrier to the compiler, so it might hide that one is
 * missing.  That is why stress_plain is built without points.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef STRESS_POINTS_H
#define STRESS_POINTS_H

#include "postgres.h"

#include "port/atomics.h"

extern void stress_point(void);

static inline uint64
stress_read_u64(volatile pg_atomic_uint64 *ptr)
{
	uint64		value;

	stress_point();
	value = pg_atomic_read_u64(ptr);
	stress_point();
	return value;
}

static inline uint32
stress_read_u32(volatile pg_atomic_uint32 *ptr)
{
	uint32		value;

	stress_point();
	value = pg_atomic_read_u32(ptr);
	stress_point();
	return value;
}

static inline void
stress_write_u64(volatile pg_atomic_uint64 *ptr, uint64 value)
{
	stress_point();
	pg_atomic_write_u64(ptr, value);
	stress_point();
}

static inline void
stress_write_u32(volatile pg_atomic_uint32 *ptr, uint32 value)
{
	stress_point();
	pg_atomic_write_u32(ptr, value);
	stress_point();
}

static inline void *
stress_memcpy(void *to, const void *from, Size len)
{
	Size		half = len / 2;

	memcpy(to, from, half);
	stress_point();
	memcpy((char *) to + half, (const char *) from + half, len - half);
	return to;
}

#define STRESS_BARRIER(barrier) \
	do { \
		stress_point(); \
		barrier; \
		stress_point(); \
	} while (0)

#undef pg_memory_barrier
#undef pg_read_barrier
#undef pg_write_barrier
#undef memcpy

#define pg_memory_barrier()	STRESS_BARRIER(pg_memory_barrier_impl())
#define pg_read_barrier()	STRESS_BARRIER(pg_read_barrier_impl())
#define pg_write_barrier()	STRESS_BARRIER(pg_write_barrier_impl())
#define pg_atomic_read_u64	stress_read_u64
#define pg_atomic_read_u32	stress_read_u32
#define pg_atomic_write_u64	stress_write_u64
#define pg_atomic_write_u32	stress_write_u32
#define memcpy				stress_memcpy

#endif							/* STRESS_POINTS_H */
