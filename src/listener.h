/*-------------------------------------------------------------------------
 *
 * listener.h
 *	  The sessions that listen: what may be for them, and how far they have
 *	  read.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_LISTENER_H
#define ECTOWATCH_LISTENER_H

/* Of a channel's hash so many values are told apart. */
#define LISTENER_BITS	1024

typedef struct ListenerFilter
{
	uint64		words[LISTENER_BITS / 64];
} ListenerFilter;

extern uint32 listener_hash(const char *channel);

static inline void
listener_filter_add(ListenerFilter *filter, uint32 hash)
{
	filter->words[hash % LISTENER_BITS / 64] |= UINT64CONST(1) << hash % 64;
}

static inline bool
listener_filter_has(const ListenerFilter *filter, uint32 hash)
{
	return (filter->words[hash % LISTENER_BITS / 64] >> hash % 64) & 1;
}

/* --- start of the server --- */

extern Size listener_shmem_size(void);
extern void listener_shmem_init(void);

/* --- this session --- */

/*
 * Says to which channels it listens, and maybe to some others; NULL: to none,
 * and all that it has not read is forgotten.  Legal where nothing may fail.
 */
extern void listener_set(const ListenerFilter *filter);

/* Whether something may be for it that it has not read. */
extern bool listener_has_unread(void);

/* Where it begins and where it ends; false: there is nothing. */
extern bool listener_unread(uint64 *from, uint64 *until);

/* Says that it needs nothing before that. */
extern void listener_advance(uint64 to);

/* --- any session --- */

/* A session of this database that has not read all, and where that begins. */
typedef struct ListenerUnread
{
	int			pid;
	uint64		from;
} ListenerUnread;

/* All of them; memory of the current context. */
extern ListenerUnread *listener_unread_list(int *n);

/* The first of these places; PG_UINT64_MAX: there is none. */
extern uint64 listener_first_unread(void);

/* --- the worker of this database --- */

/* The channels to which somebody may listen. */
extern void listener_all(ListenerFilter *filter);

/*
 * Tells those whose filter has something of 'filter' that there is something
 * for them between two places on the board.  Returns how many were woken.
 */
extern int	listener_tell(const ListenerFilter *filter, uint64 from,
						  uint64 until);

#endif							/* ECTOWATCH_LISTENER_H */
