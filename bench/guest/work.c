// bench work MILLISECONDS WORD…   does each of the works for about that long, and prints how fast it went
//
//   cpu              steps of a loop of integer and floating-point arithmetic
//   syscalls         getppid, which no kernel answers without being entered
//   loopback         TCP within the machine: round trips, and a stream
//   data=DEVICE      mounts the ext4 image of a disk at /data, for those that come after it
//   files=FOLDER     a file there: written and synced as a whole, in small pieces each of which is synced, and read again
//   outside=ADDRESS  TCP to a server: round trips to its echo service, and a stream to its discard service
//
// "rvmm-bench: result NAME VALUE UNIT" is a figure, "rvmm-bench: failed WORD WHY" is a work that could not be done.

#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576.0
#define FILE_SIZE (16 << 20)
#define PIECE (64 << 10)
#define SYNCED 4096

long long monotonic(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void report(const char *name, double count, long long nanoseconds, const char *unit)
{
	dprintf(STDOUT_FILENO, "rvmm-bench: result %s %.6g %s\n", name, count * 1e9 / (double)(nanoseconds > 0 ? nanoseconds : 1), unit);
}

// Each step needs the one before it, and the result goes where a compiler must suppose that it is read.
static void arithmetic(long steps)
{
	static volatile uint64_t whole = 88172645463325252;
	static volatile double broken = 1.0;
	uint64_t x = whole;
	double y = broken;
	while (steps--) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		y = y * 0.999 + (double)(x >> 40);
	}
	whole = x;
	broken = y;
}

static void enter_kernel(long calls)
{
	while (calls--)
		syscall(SYS_getppid);
}

// Does `work` in batches until the time is over. The first batch only warms up.
static void repeat(const char *name, void (*work)(long), long batch, long long nanoseconds, const char *unit)
{
	long long spent, done = 0;
	work(batch);
	long long began = monotonic();
	do {
		work(batch);
		done += batch;
		spent = monotonic() - began;
	} while (spent < nanoseconds);
	report(name, (double)done, spent, unit);
}

// Writes pieces of a file until the time is over, from its beginning again when it is as long as it may be, with an fsync
// after each `between` bytes and at the end. Returns the bytes, or -1; the time that it took goes to *nanoseconds.
static long long write_pieces(int file, const char *piece, long size, long between, long long *nanoseconds)
{
	long long spent, done = 0, began = monotonic();
	do {
		if (pwrite(file, piece, (size_t)size, done % FILE_SIZE) != size)
			return -1;
		done += size;
		if (done % between == 0 && fsync(file))
			return -1;
		spent = monotonic() - began;
	} while (spent < *nanoseconds);
	if (done % between != 0 && fsync(file))
		return -1;
	*nanoseconds = monotonic() - began;
	return done;
}

static int use_file(int file, long long nanoseconds)
{
	static char piece[PIECE];
	memset(piece, 'w', sizeof piece);
	long long spent = nanoseconds, written = write_pieces(file, piece, PIECE, FILE_SIZE, &spent);
	if (written < 0)
		return -1;
	report("file-write", (double)written / MIB, spent, "MiB/s");

	spent = nanoseconds;
	long long synced = write_pieces(file, piece, SYNCED, SYNCED, &spent);
	if (synced < 0)
		return -1;
	report("file-sync", (double)synced / SYNCED, spent, "syncs/s");

	long long done = 0, size = written < FILE_SIZE ? written : FILE_SIZE, began = monotonic();
	do {
		if (pread(file, piece, PIECE, done % size) != PIECE)
			return -1;
		done += PIECE;
		spent = monotonic() - began;
	} while (spent < nanoseconds);
	report("file-read", (double)done / MIB, spent, "MiB/s");
	return 0;
}

static int work_files(long long nanoseconds, const char *folder)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/work", folder);
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0)
		return -1;
	int outcome = use_file(file, nanoseconds), error = errno;
	close(file);
	unlink(path);
	errno = error;
	return outcome;
}

static const char *value(const char *word, const char *key)
{
	size_t length = strlen(key);
	return strncmp(word, key, length) ? NULL : word + length;
}

static int one(const char *word, long long nanoseconds)
{
	const char *with;
	errno = EINVAL;
	if (!strcmp(word, "cpu"))
		return repeat("cpu", arithmetic, 1 << 14, nanoseconds, "steps/s"), 0;
	if (!strcmp(word, "syscalls"))
		return repeat("syscalls", enter_kernel, 64, nanoseconds, "calls/s"), 0;
	if (!strcmp(word, "loopback"))
		return work_loopback(nanoseconds);
	if ((with = value(word, "data=")))
		return mount(with, "/data", "ext4", MS_NOSUID | MS_NODEV, NULL);
	if ((with = value(word, "files=")))
		return work_files(nanoseconds, with);
	if ((with = value(word, "outside=")))
		return work_outside(nanoseconds, with);
	return -1;
}

int work(char *words[])
{
	long long nanoseconds = atoll(*words) * 1000000LL;
	int code = 0;
	while (*++words) {
		if (one(*words, nanoseconds)) {
			dprintf(STDOUT_FILENO, "rvmm-bench: failed %s %s\n", *words, strerror(errno));
			code = 1;
		}
	}
	return code;
}
