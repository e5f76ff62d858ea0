/*-------------------------------------------------------------------------
 *
 * counts.c
 *	  How many changes of each watcher a transaction has, and summaries.
 *
 * Changes of a watcher that has more than its bulk_threshold are counted only,
 * and so are those that ectowatch.mute keeps out.  Which ones are stored is
 * decided when they are made, for what is beyond the threshold need not be
 * rendered.  Truncates and the like do not count, nor do versions of rows that
 * are told to narrowed channels alone (CHANGE_LEFT).  That is right under
 * rollback too: a change is counted only if as many as the threshold are stored
 * before it, and what is cut off is the end.  When the transaction ends with
 * some that were only counted, the watcher's stored ones are counted too and
 * left out, and summaries follow, or a gap, made of the template that was kept
 * when the first one was counted.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "counts.h"

pg_attribute_hot void
counts_init(Counts *counts)
{
	counts->context = CurrentMemoryContext;
	counts->n = 0;
	counts->max = 4;
	counts->counts = palloc(counts->max * sizeof(Count));
}

pg_attribute_hot Count *
counts_of(Counts *counts, uint32 watcher)
{
	Count	   *count;

	/* from the end: the watcher of the last change is a good guess */
	for (int i = counts->n - 1; i >= 0; i--)
	{
		if (counts->counts[i].watcher == watcher)
			return &counts->counts[i];
	}
	if (counts->n == counts->max)
	{
		counts->counts = repalloc(counts->counts,
								  2 * counts->max * sizeof(Count));
		counts->max *= 2;
	}
	count = &counts->counts[counts->n++];
	memset(count, 0, sizeof(*count));
	count->watcher = watcher;
	return count;
}

Count *
counts_with_template(Counts *counts, const ChangeParts *parts)
{
	Count	   *count = counts_of(counts, parts->watcher);

	if (count->template == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(counts->context);

		count->template = change_make(parts);
		MemoryContextSwitchTo(old);
	}
	return count;
}

static bool
count_is_over(const Count *count)
{
	return count->over[CHANGE_INSERTED] > 0 ||
		count->over[CHANGE_UPDATED] > 0 || count->over[CHANGE_DELETED] > 0;
}

uint64
count_total(const Count *count)
{
	return count->stored + count->muted +
		count->over[CHANGE_INSERTED] + count->over[CHANGE_UPDATED] +
		count->over[CHANGE_DELETED];
}

unsigned long
counts_total(const Counts *counts)
{
	unsigned long total = 0;

	for (int i = 0; i < counts->n; i++)
		total += count_total(&counts->counts[i]);
	return total;
}

void
counts_clear(Counts *counts)
{
	counts->n = 0;
}

pg_attribute_hot bool
counts_need_summary(const Counts *counts)
{
	for (int i = 0; i < counts->n; i++)
	{
		if (count_is_over(&counts->counts[i]) || counts->counts[i].muted > 0)
			return true;
	}
	return false;
}

typedef struct Walk
{
	Counts	   *counts;
	ChangeCallback callback;
	void	   *arg;
	uint64	   *left_out;		/* by number of the count, and type */
	bool	   *told;			/* by number of the count */
} Walk;

/* What stands for changes that were counted. */
static void
walk_template(Walk *walk, const Change *template, ChangeType type,
			  uint64 changes, const char *values)
{
	ChangeParts parts = {0};

	parts.watcher = template->watcher;
	parts.relation = template->relation;
	parts.type = type;
	parts.delivery = template->delivery;
	parts.flags = template->flags;
	parts.name = pnstrdup(change_name(template), template->name_len);
	parts.relation_name = pnstrdup(change_relation(template),
								   template->relation_len);
	parts.ncolumns = template->ncolumns;
	parts.columns = template->columns;
	parts.values = values;
	parts.values_len = strlen(values);
	parts.keys_len = 1;
	parts.count = (uint32) Min(changes, PG_UINT32_MAX);
	if (template->context_len > 0)
	{
		parts.context = change_context(template);
		parts.context_len = template->context_len;
	}
	walk->callback(change_make(&parts), walk->arg);
}

/* What stands for what was counted of one watcher; once. */
static void
walk_summary(Walk *walk, int i)
{
	Count	   *count = &walk->counts->counts[i];

	if (walk->told[i])
		return;
	walk->told[i] = true;
	for (int type = 0; type <= CHANGE_DELETED; type++)
	{
		uint64		changes = count->over[type] +
		walk->left_out[i * (CHANGE_DELETED + 1) + type];

		if (count_is_over(count) && changes > 0)
			walk_template(walk, count->template, CHANGE_BULK, changes,
						  psprintf("{\"event\":\"%s\",\"changes\":" UINT64_FORMAT "}",
								   change_type_name(type), changes));
	}
	if (count->muted > 0)
		walk_template(walk, count->template, CHANGE_GAP, count->muted,
					  psprintf("{\"from\":null,\"to\":null,\"changes\":" UINT64_FORMAT ",\"reason\":\"muted\"}",
							   count->muted));
}

static void
walk_change(const Change *change, void *arg)
{
	Walk	   *walk = arg;

	if (walk->left_out != NULL && change->type <= CHANGE_DELETED)
	{
		Count	   *count = counts_of(walk->counts, change->watcher);

		if (count_is_over(count))
		{
			int			i = count - walk->counts->counts;

			if (!(change->flags & CHANGE_LEFT))
				walk->left_out[i * (CHANGE_DELETED + 1) + change->type]++;
			return;
		}
	}

	/* an end comes last */
	if (walk->left_out != NULL && change->type == CHANGE_ENDED)
		walk_summary(walk, counts_of(walk->counts, change->watcher) -
					 walk->counts->counts);
	walk->callback(change, walk->arg);
}

bool
counts_walk(Counts *counts, Store *store, ChangeCallback callback, void *arg)
{
	Walk		walk = {counts, callback, arg, NULL, NULL};

	if (counts_need_summary(counts))
	{
		walk.left_out = palloc0(counts->n * (CHANGE_DELETED + 1) *
								sizeof(uint64));
		walk.told = palloc0(counts->n * sizeof(bool));
	}
	if (!store_walk(store, walk_change, &walk))
		return false;
	for (int i = 0; walk.told != NULL && i < counts->n; i++)
		walk_summary(&walk, i);
	return true;
}

CountsMark
counts_mark(const Counts *counts)
{
	CountsMark	mark;

	mark.n = counts->n;
	mark.counts = MemoryContextAlloc(counts->context,
									 (counts->n + 1) * sizeof(Count));
	memcpy(mark.counts, counts->counts, counts->n * sizeof(Count));
	return mark;
}

void
counts_cut(Counts *counts, const CountsMark *mark)
{
	counts->n = mark->n;
	memcpy(counts->counts, mark->counts, mark->n * sizeof(Count));
}
