/*-------------------------------------------------------------------------
 *
 * empty_trigger.c
 *	  A row trigger that does nothing: what any trigger in C costs.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(empty_trigger);

Datum
empty_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "empty_trigger: not called as a trigger");
	return PointerGetDatum(NULL);
}
