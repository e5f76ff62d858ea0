/*-------------------------------------------------------------------------
 *
 * positions.h
 *	  Numbers for changes that only grow.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_POSITIONS_H
#define ECTOWATCH_POSITIONS_H

#include "slot.h"

/*
 * Sees to it that there are n positions from *next on, which may be raised.
 * False if the extension is not there.  For the worker, in no transaction: it
 * runs one if it needs a block.  May throw; positions are reserved then, or
 * not.
 */
extern bool positions_reserve(Slot *slot, uint64 *next, uint64 n);

#endif							/* ECTOWATCH_POSITIONS_H */
