/*-------------------------------------------------------------------------
 *
 * taken.c
 *	  Whether a channel belongs to a watcher.
 *
 * Messages of watchers are told by the worker's process id, so nothing else
 * may come from there on their channels.  What ectowatch_notify() sends comes
 * from there too.  So its channel is looked at twice:
 *
 *	- in the call, where it is an error: the caller learns of it;
 *	- when the worker sends it (outbox.c).  Between the two there is the rest
 *	  of the caller's transaction, which may be as long as he likes, and the way
 *	  through queue and ring.  Whoever knows the name of a watcher that is to
 *	  come, or is removed and created again by each release, could else wait
 *	  for it with a payload.
 *
 * A look at PRE_COMMIT would come too early, for the same reason.  The worker's
 * comes before they are sent by the time that it takes to gather them, some
 * milliseconds; a watcher that is committed within them may get what was looked
 * at before.  To close that, too, sending and creating watchers would have to
 * wait for each other.
 *
 * The worker waits for no user's lock: while the registry is locked, as by
 * DROP EXTENSION in a transaction that stays open, it does not look.  Only the
 * extension's owner can lock it so.
 *
 * Names that are nobody's are remembered as long as no watcher may have
 * changed.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "plan.h"
#include "taken.h"
#include "watcher.h"

/* A channel that no watcher has. */
typedef struct FreeChannel
{
	char		name[NAMEDATALEN];
	uint64		generation;		/* of the watchers, of which none has it */
} FreeChannel;

/* How many are kept before all are forgotten. */
#define MAX_FREE		4096

static HTAB *free_channels;

static void
prepare_cache(void)
{
	HASHCTL		info;

	if (free_channels != NULL && hash_get_num_entries(free_channels) >= MAX_FREE)
	{
		hash_destroy(free_channels);
		free_channels = NULL;
	}
	if (free_channels != NULL)
		return;
	info.keysize = NAMEDATALEN;
	info.entrysize = sizeof(FreeChannel);
	free_channels = hash_create("ectowatch channels", 16, &info,
								HASH_ELEM | HASH_STRINGS);
}

static bool
look(const char *channel)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "ectowatch channel",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	bool		taken = watcher_of_channel(channel) != NULL;

	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return taken;
}

bool
channel_is_taken(const char *channel, bool wait)
{
	uint64		generation = plan_generation();
	FreeChannel *entry;
	Oid			registry;
	bool		taken;

	prepare_cache();
	entry = hash_search(free_channels, channel, HASH_FIND, NULL);
	if (entry != NULL && entry->generation == generation)
		return false;

	registry = watcher_registry_oid();
	if (!OidIsValid(registry))
		return false;
	if (wait)
		LockRelationOid(registry, AccessShareLock);
	else if (!ConditionalLockRelationOid(registry, AccessShareLock))
		return false;
	taken = look(channel);
	UnlockRelationOid(registry, AccessShareLock);
	if (!taken)
	{
		entry = hash_search(free_channels, channel, HASH_ENTER, NULL);
		entry->generation = generation;
	}
	return taken;
}
