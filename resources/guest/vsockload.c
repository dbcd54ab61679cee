/*
 * vsockload: one vsock stream at full speed, or one byte to and fro.
 *
 *   vsockload send|receive|echo CID PORT SECONDS
 *
 * Connects to PORT of CID (2 is the host). `send` writes for SECONDS, ends with a byte 0xa5 and waits for one byte of the
 * peer's, so that all has arrived (not for the peer's end: Firecracker does not hand on half-closed streams); `receive` reads until the peer's end, or for SECONDS; `echo` writes one byte, waits for
 * it to come back, and so on. Prints one line of JSON, and marks as blockload does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

#include "load.h"

#define CHUNK (256 << 10)

static void report(uint64_t bytes, uint64_t passed)
{
	mark("stop");
	printf("{\"bytes\": %llu, \"seconds\": %.6f, \"mib_per_second\": %.2f}\n", (unsigned long long)bytes,
	       passed / 1e9, bytes * 1e9 / passed / (1 << 20));
}

static void echo(int stream, double seconds)
{
	uint64_t begin = now(), last = begin, count = 0;
	char byte = '!';
	do {
		if (write(stream, &byte, 1) != 1 || read(stream, &byte, 1) != 1)
			fail("echo");
		record(last);
		last = now();
		count++;
	} while (last - begin < seconds * 1e9);
	mark("stop");
	printf("{\"requests\": %llu, \"seconds\": %.6f, ", (unsigned long long)count, (last - begin) / 1e9);
	print_latencies();
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

	mark("begin");
	uint64_t begin = now(), bytes = 0;
	ssize_t done = 1;
	if (!strcmp(argv[1], "send")) {
		while (now() - begin < seconds * 1e9) {
			done = write(stream, chunk, CHUNK);
			if (done <= 0)
				fail("write");
			bytes += done;
		}
		if (write(stream, "\xa5", 1) != 1 || read(stream, chunk, 1) != 1)
			fail("the last byte");
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
