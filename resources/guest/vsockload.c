/*
 * vsockload: one vsock stream at full speed, or one byte to and fro.
 *
 *   vsockload send|receive|echo CID PORT SECONDS
 *
 * Connects to PORT of CID (2 is the host). `send` writes for SECONDS, then shuts its side down and waits for the peer's
 * end, so that all has arrived; `receive` reads until the peer's end, or for SECONDS; `echo` writes one byte, waits for
 * it to come back, and so on. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 << 10)
#define MAX_LATENCIES (1 << 20)

static void fail(const char *what)
{
	fprintf(stderr, "vsockload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void report(uint64_t bytes, uint64_t passed)
{
	printf("{\"bytes\": %llu, \"seconds\": %.6f, \"mib_per_second\": %.2f}\n", (unsigned long long)bytes,
	       passed / 1e9, bytes * 1e9 / passed / (1 << 20));
}

static void echo(int stream, double seconds)
{
	uint32_t *latencies = malloc(MAX_LATENCIES * sizeof *latencies), count = 0;
	uint64_t begin = now(), last = begin;
	char byte = '!';
	if (!latencies)
		fail("memory");
	do {
		if (write(stream, &byte, 1) != 1 || read(stream, &byte, 1) != 1)
			fail("echo");
		uint64_t time = now();
		latencies[count++] = (time - last) / 1000;
		last = time;
	} while (last - begin < seconds * 1e9 && count < MAX_LATENCIES);
	qsort(latencies, count, sizeof *latencies, ascending);
	printf("{\"requests\": %u, \"seconds\": %.6f, \"median_us\": %u, \"p99_us\": %u}\n", count, (last - begin) / 1e9,
	       latencies[count / 2], latencies[count / 100 * 99]);
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "vsockload send|receive|echo CID PORT SECONDS\n");
		return 2;
	}
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = strtoul(argv[2], NULL, 10),
		.svm_port = strtoul(argv[3], NULL, 10),
	};
	double seconds = atof(argv[4]);
	int stream = socket(AF_VSOCK, SOCK_STREAM, 0);
	char *chunk = malloc(CHUNK);
	if (stream < 0 || !chunk)
		fail("socket");
	if (connect(stream, (struct sockaddr *)&address, sizeof address))
		fail("connect");
	memset(chunk, 0x5a, CHUNK);

	uint64_t begin = now(), bytes = 0;
	ssize_t done = 1;
	if (!strcmp(argv[1], "send")) {
		while (now() - begin < seconds * 1e9) {
			done = write(stream, chunk, CHUNK);
			if (done <= 0)
				fail("write");
			bytes += done;
		}
		shutdown(stream, SHUT_WR);
		while ((done = read(stream, chunk, CHUNK)) > 0)
			;
		report(bytes, now() - begin);
	} else if (!strcmp(argv[1], "receive")) {
		while (now() - begin < seconds * 1e9 && (done = read(stream, chunk, CHUNK)) > 0)
			bytes += done;
		if (done < 0)
			fail("read");
		report(bytes, now() - begin);
	} else {
		echo(stream, seconds);
	}
	return 0;
}
