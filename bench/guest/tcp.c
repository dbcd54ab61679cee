// TCP round trips and streams, and the interfaces that they need in a VM.

#define _GNU_SOURCE
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576.0
// The services' ports: RFC 862 and RFC 863.
#define ECHO 7
#define DISCARD 9
#define MESSAGE 64
#define PIECE (64 << 10)
// Seconds after which an end that says nothing is given up.
#define PATIENCE 10

static char piece[PIECE];

static int set_up(int socket, const char *name, const char *address, int prefix)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	if (address) {
		in->sin_family = AF_INET;
		if (inet_pton(AF_INET, address, &in->sin_addr) != 1 || prefix < 1 || prefix > 32)
			return errno = EINVAL, -1;
		if (ioctl(socket, SIOCSIFADDR, &request))
			return -1;
		in->sin_addr.s_addr = htonl(0xffffffffU << (32 - prefix));
		if (ioctl(socket, SIOCSIFNETMASK, &request))
			return -1;
	}
	if (ioctl(socket, SIOCGIFFLAGS, &request))
		return -1;
	if (request.ifr_flags & IFF_UP)
		return 0;
	request.ifr_flags |= IFF_UP;
	return ioctl(socket, SIOCSIFFLAGS, &request);
}

static int set_interface_up(const char *name, const char *address, int prefix)
{
	int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (socket_ < 0)
		return -1;
	int outcome = set_up(socket_, name, address, prefix), error = errno;
	close(socket_);
	errno = error;
	return outcome;
}

void raise_loopback(void)
{
	set_interface_up("lo", NULL, 0);
}

int configure_link(const char *address)
{
	char text[32];
	snprintf(text, sizeof text, "%s", address);
	char *slash = strchr(text, '/');
	if (!slash)
		return errno = EINVAL, -1;
	*slash = 0;
	return set_interface_up("eth0", text, atoi(slash + 1));
}

static int connected(struct sockaddr_in to)
{
	struct timeval patience = { .tv_sec = PATIENCE };
	int one = 1, end = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (end < 0)
		return -1;
	setsockopt(end, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(end, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (!connect(end, (struct sockaddr *)&to, sizeof to))
		return end;
	// What connect(2) says when SO_SNDTIMEO is over.
	int error = errno == EINPROGRESS ? ETIMEDOUT : errno;
	close(end);
	errno = error;
	return -1;
}

static bool round_trip(int end)
{
	if (send(end, piece, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
		return false;
	for (ssize_t count, had = 0; had < MESSAGE; had += count) {
		count = recv(end, piece, (size_t)(MESSAGE - had), 0);
		if (count <= 0)
			return errno = count ? errno : ECONNRESET, false;
	}
	return true;
}

static int round_trips(int end, const char *name, long long nanoseconds)
{
	long long spent, done = 0;
	if (!round_trip(end))
		return -1;
	long long began = monotonic();
	do {
		if (!round_trip(end))
			return -1;
		done++;
		spent = monotonic() - began;
	} while (spent < nanoseconds);
	report(name, (double)done, spent, "round trips/s");
	return 0;
}

// Until the other end has it all: it closes when it has come to the end of it.
static int stream(int end, const char *name, long long nanoseconds)
{
	long long done = 0, began = monotonic();
	do {
		ssize_t count = send(end, piece, PIECE, MSG_NOSIGNAL);
		if (count < 0)
			return -1;
		done += count;
	} while (monotonic() - began < nanoseconds);
	if (shutdown(end, SHUT_WR) || recv(end, piece, 1, 0) < 0)
		return -1;
	report(name, (double)done / MIB, monotonic() - began, "MiB/s");
	return 0;
}

static int talk(struct sockaddr_in to, int (*how)(int, const char *, long long), const char *name, long long nanoseconds)
{
	int end = connected(to);
	if (end < 0)
		return -1;
	int outcome = how(end, name, nanoseconds), error = errno;
	close(end);
	errno = error;
	return outcome;
}

int work_outside(long long nanoseconds, const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(ECHO) };
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return errno = EINVAL, -1;
	if (talk(to, round_trips, "outside-trips", nanoseconds))
		return -1;
	to.sin_port = htons(DISCARD);
	return talk(to, stream, "outside-stream", nanoseconds);
}

// The other end of the loopback: one connection to echo, and one to discard.
static void serve(int listener)
{
	int one = 1;
	for (int turn = 0; turn < 2; turn++) {
		int end = accept(listener, NULL, NULL);
		ssize_t count;
		setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		while ((count = recv(end, piece, PIECE, 0)) > 0)
			if (turn == 0 && send(end, piece, (size_t)count, MSG_NOSIGNAL) != count)
				break;
		close(end);
	}
	_exit(0);
}

// Both ends on one processor: a guest may have no more, and what is compared is the way, not their number.
static int within(int listener, long long nanoseconds)
{
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof own;
	if (bind(listener, (struct sockaddr *)&own, size) || listen(listener, 2) || getsockname(listener, (struct sockaddr *)&own, &size))
		return -1;
	pid_t server = fork();
	if (server < 0)
		return -1;
	if (server == 0)
		serve(listener);
	int outcome = talk(own, round_trips, "loopback-trips", nanoseconds) ? -1 : talk(own, stream, "loopback-stream", nanoseconds);
	int error = errno;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	errno = error;
	return outcome;
}

int work_loopback(long long nanoseconds)
{
	cpu_set_t before, single;
	bool known = !sched_getaffinity(0, sizeof before, &before);
	int processor = sched_getcpu();
	CPU_ZERO(&single);
	CPU_SET(processor < 0 ? 0 : processor, &single);
	if (known)
		sched_setaffinity(0, sizeof single, &single);
	raise_loopback();
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int outcome = listener < 0 ? -1 : within(listener, nanoseconds), error = errno;
	close(listener);
	if (known)
		sched_setaffinity(0, sizeof before, &before);
	errno = error;
	return outcome;
}
