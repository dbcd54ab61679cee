/*
 * blockload: direct reads or writes of one size on a block device or a file, a fixed number of them under way.
 *
 *   blockload FILE read|write random|sequential SIZE DEPTH SECONDS [REQUESTS]
 *
 *   SIZE      bytes of a request, a multiple of 512; may end in k or m
 *   DEPTH     requests under way, 1 to 256. One is a plain pread or pwrite; more are Linux AIO
 *   SECONDS   how long to go on; fractions are allowed
 *   REQUESTS  end after so many, if SECONDS have not passed before
 *
 * Prints one line of JSON. The clock starts when some requests have been made, so that nothing is measured cold. With
 * MARK=NAME in the environment, "io-begin NAME" and "io-stop NAME" are printed when it starts and stops, for those who
 * count meanwhile. Needs neither shared memory nor libraries, so that the smallest guest runs it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "load.h"

#define MAX_DEPTH 256

static int file, writes, random_offsets;
static size_t size;
static uint64_t blocks, next_block, seed = 88172645463325252ull;

static void usage(void)
{
	fprintf(stderr, "blockload FILE read|write random|sequential SIZE DEPTH SECONDS [REQUESTS]\n");
	exit(2);
}

static off_t next_offset(void)
{
	uint64_t block = next_block;
	if (random_offsets) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		block = seed % blocks;
	} else {
		next_block = (next_block + 1) % blocks;
	}
	return block * size;
}

static void one(void *buffer)
{
	uint64_t begin = now();
	ssize_t done = writes ? pwrite(file, buffer, size, next_offset()) : pread(file, buffer, size, next_offset());
	if (done != (ssize_t)size)
		fail(writes ? "pwrite" : "pread");
	record(begin);
}

static struct iocb requests[MAX_DEPTH];
static uint64_t begun[MAX_DEPTH];
static aio_context_t context;

/* Submits the `count` requests whose numbers are given. */
static void submit(const unsigned *numbers, long count)
{
	struct iocb *list[MAX_DEPTH];
	for (long i = 0; i < count; i++) {
		struct iocb *request = list[i] = &requests[numbers[i]];
		request->aio_offset = next_offset();
		begun[numbers[i]] = now();
	}
	for (long done = 0; done < count;) {
		long taken = syscall(SYS_io_submit, context, count - done, list + done);
		if (taken <= 0)
			fail("io_submit");
		done += taken;
	}
}

/* Waits for completions and makes as many new requests; how many it were. */
static long turn(void)
{
	struct io_event events[MAX_DEPTH];
	unsigned numbers[MAX_DEPTH];
	long count = syscall(SYS_io_getevents, context, 1, MAX_DEPTH, events, NULL);
	if (count <= 0)
		fail("io_getevents");
	for (long i = 0; i < count; i++) {
		numbers[i] = events[i].data;
		if (events[i].res != (int64_t)size) {
			errno = events[i].res < 0 ? -events[i].res : EIO;
			fail("a request");
		}
		record(begun[numbers[i]]);
	}
	submit(numbers, count);
	return count;
}

int main(int argc, char **argv)
{
	if (argc < 7 || argc > 8)
		usage();
	writes = !strcmp(argv[2], "write");
	random_offsets = !strcmp(argv[3], "random");
	char *unit;
	size = strtoul(argv[4], &unit, 10);
	size <<= *unit == 'k' ? 10 : *unit == 'm' ? 20 : 0;
	long depth = atol(argv[5]);
	double seconds = atof(argv[6]);
	uint64_t limit = argc > 7 ? strtoull(argv[7], NULL, 10) : UINT64_MAX;
	if (!size || size % 512 || depth < 1 || depth > MAX_DEPTH || seconds <= 0)
		usage();

	file = open(argv[1], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
	if (file < 0)
		fail(argv[1]);
	off_t end = lseek(file, 0, SEEK_END);
	if (end < (off_t)size)
		fail("too small");
	blocks = end / size;

	/* Huge pages, where there are: else a large request has as many segments as the guest's memory happens to be
	   scattered, and no two runs are alike. */
	size_t huge = 2 << 20, room = (size * depth + huge - 1) / huge * huge;
	char *buffers = aligned_alloc(huge, room);
	if (!buffers)
		fail("memory");
	madvise(buffers, room, MADV_HUGEPAGE);
	memset(buffers, 0x5a, size * depth);
	if (depth > 1) {
		unsigned all[MAX_DEPTH];
		if (syscall(SYS_io_setup, depth, &context))
			fail("io_setup");
		for (long i = 0; i < depth; i++) {
			requests[i].aio_data = all[i] = i;
			requests[i].aio_fildes = file;
			requests[i].aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
			requests[i].aio_buf = (uintptr_t)(buffers + i * size);
			requests[i].aio_nbytes = size;
		}
		submit(all, depth);
	}
	for (long warm = 0; warm < 2 * depth + 14;) {
		if (depth > 1)
			warm += turn();
		else
			one(buffers), warm++;
	}

	mark("begin");
	/* What was under way has ended in that pause. */
	if (depth > 1)
		turn();
	latency_count = 0;
	uint64_t begin = now(), passed, done = 0;
	do {
		if (depth > 1)
			done += turn();
		else
			one(buffers), done++;
		passed = now() - begin;
	} while (passed < seconds * 1e9 && done < limit);

	mark("stop");
	printf("{\"requests\": %llu, \"seconds\": %.6f, \"iops\": %.1f, \"mib_per_second\": %.2f, ", (unsigned long long)done,
	       passed / 1e9, done * 1e9 / passed, done * 1e9 / passed * size / (1 << 20));
	print_latencies();
	return 0;
}
