/* What load generators share: a clock, latencies, marks, the end. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Latencies beyond so many requests are not kept; the first ones are as good as any. */
#define MAX_LATENCIES (1 << 20)

static uint32_t latencies[MAX_LATENCIES], latency_count;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

/* Nanoseconds. */
static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* A request that has begun at `begin` has ended. */
static void record(uint64_t begin)
{
	if (latency_count < MAX_LATENCIES)
		latencies[latency_count++] = (now() - begin) / 1000;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

/* The end of the line of JSON. */
static void print_latencies(void)
{
	qsort(latencies, latency_count, sizeof *latencies, ascending);
	printf("\"median_us\": %u, \"p99_us\": %u}\n", latencies[latency_count / 2], latencies[latency_count / 100 * 99]);
}

/* Tells whoever reads the console, to which it goes past what else waits for this program's end, and lets it settle. */
static void mark(const char *what)
{
	const char *name = getenv("MARK");
	if (!name)
		return;
	dprintf(2, "io-%s %s\n", what, name);
	tcdrain(2);
	usleep(50000);
}
