/*-------------------------------------------------------------------------
 *
 * spill.c
 *	  Temporary files for batches that are too long for memory or queue.
 *
 * A file belongs to the backend that writes it until its transaction has
 * committed, then to the worker.  The owner removes it.  Core's temporary
 * files will not do: they end with their transaction or session, and throw
 * when temp_file_limit is reached.
 *
 * They live in pgsql_tmp under a name that core's own clean-up knows: what a
 * crash leaves is removed at the next start, by core or, where core was told
 * to keep such files (remove_temp_files_after_crash), by spill_remove_all().
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/wait_event.h"

#include "spill.h"

#define SPILL_DIR		"base/" PG_TEMP_FILES_DIR
#define SPILL_PREFIX	PG_TEMP_FILE_PREFIX "_ectowatch."

static void
spill_path(char *path, uint64 id)
{
	snprintf(path, MAXPGPATH, "%s/%s%u.%u", SPILL_DIR, SPILL_PREFIX,
			 (uint32) (id >> 32), (uint32) id);
}

/* The directory is made by whoever needs it first. */
static File
open_creating(const char *path, int flags)
{
	File		file = PathNameOpenFile(path, flags);

	if (file < 0 && errno == ENOENT)
	{
		(void) MakePGDirectory(SPILL_DIR);
		file = PathNameOpenFile(path, flags);
	}
	return file;
}

uint64
spill_create(File *file)
{
	static uint32 counter = 0;
	uint64		id;
	char		path[MAXPGPATH];
	const int	flags = O_RDWR | O_CREAT | O_EXCL | PG_BINARY;

	/* a former process of this number may have left one to the worker */
	do
	{
		id = (uint64) MyProcPid << 32 | ++counter;
		spill_path(path, id);
		*file = open_creating(path, flags);
	} while (*file < 0 && errno == EEXIST);
	return *file < 0 ? 0 : id;
}

File
spill_open(uint64 id)
{
	char		path[MAXPGPATH];

	spill_path(path, id);
	return PathNameOpenFile(path, O_RDONLY | PG_BINARY);
}

uint64
spill_board_id(int board, uint32 segment)
{
	/* no process has such a number */
	return ((uint64) 0x80000000 + board) << 32 | segment;
}

File
spill_open_board(uint64 id)
{
	char		path[MAXPGPATH];

	spill_path(path, id);
	return open_creating(path, O_RDWR | O_CREAT | PG_BINARY);
}

bool
spill_write(File file, uint64 offset, const void *from, Size len)
{
	while (len > 0)
	{
		/* as much as FileWrite's int takes */
		int			part = (int) Min(len, (Size) 1024 * 1024 * 1024);
		int			done = FileWrite(file, (char *) from, part, (off_t) offset,
									 PG_WAIT_EXTENSION);

		if (done <= 0)
			return false;
		from = (const char *) from + done;
		offset += done;
		len -= done;
	}
	return true;
}

bool
spill_read(File file, uint64 offset, void *to, Size len)
{
	while (len > 0)
	{
		int			part = (int) Min(len, (Size) 1024 * 1024 * 1024);
		int			done = FileRead(file, to, part, (off_t) offset,
									PG_WAIT_EXTENSION);

		if (done <= 0)
		{
			if (done == 0)
				errno = EIO;	/* the file is shorter than it was */
			return false;
		}
		to = (char *) to + done;
		offset += done;
		len -= done;
	}
	return true;
}

void
spill_remove(uint64 id)
{
	char		path[MAXPGPATH];

	spill_path(path, id);
	if (unlink(path) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
}

void
spill_remove_all(void)
{
	DIR		   *dir = AllocateDir(SPILL_DIR);
	struct dirent *entry;

	if (dir == NULL)
		return;					/* nothing has ever spilled */
	while ((entry = ReadDirExtended(dir, SPILL_DIR, LOG)) != NULL)
	{
		char		path[MAXPGPATH * 2];

		if (strncmp(entry->d_name, SPILL_PREFIX, strlen(SPILL_PREFIX)) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", SPILL_DIR, entry->d_name);
		if (unlink(path) != 0)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
	FreeDir(dir);
}
