/*-------------------------------------------------------------------------
 *
 * feed.h
 *	  From the queue to the ring.
 *
 * All of it is for the worker, in no transaction.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_FEED_H
#define ECTOWATCH_FEED_H

#include "datatype/timestamp.h"

#include "brief.h"
#include "slot.h"

/* Written by feed.c alone, but for 'taken'. */
typedef struct Feed
{
	Slot	   *slot;
	Queue	   *queue;
	Ring	   *ring;
	SlotProgress *progress;
	RingWriter	writer;
	BriefReader reader;			/* of the batch in hand */
	TimestampTz now;			/* when the batch in hand was taken */
	uint64		next_position;
	bool		resuming;		/* the oldest batch may be in the ring */
	int			taken;			/* committed batches; counted up */
	void		(*between) (void *arg);
	void	   *between_arg;
} Feed;

/*
 * Finds its place.  'between' is called after each batch, and each piece of a
 * long one, and may publish; it may throw.  Memory of the current context.
 */
extern void feed_start(Feed *feed, Slot *slot, void (*between) (void *),
					   void *arg);

/* Finds its place again, after an error. */
extern void feed_resume(Feed *feed);

/*
 * Takes batches off the queue until it is empty, the oldest is undecided, or
 * notifications are due.  Returns whether there is more to take.  May throw.
 */
extern bool feed_take(Feed *feed);

/* Lets readers see what was appended, and everybody else have a turn. */
extern void feed_publish(Feed *feed);

/* Whether something has been handed over that could be taken. */
extern bool feed_has_input(Feed *feed);

#endif							/* ECTOWATCH_FEED_H */
