// The program that every contender runs. It is static and needs no file beside itself.
//
//   bench start            prints the marker and ends
//   bench idle             prints the marker and sleeps until it is killed
//   bench wait             prints that it waits, reads a line of words from its standard input, and does what they say
//   bench run FILE WORD…   runs another program and ends when that has
//   bench work MS WORD…    measures how fast some work is done: see work.c
//
// In a VM it is the first process. There the kernel's command line names the words, with commas between them, in BENCH_TASK,
// BENCH_END says how the machine ends: poweroff or reboot, and BENCH_LINK is the address of eth0, if there is one, as
// ADDRESS/PREFIX. It says when it was started, mounts what a program expects, does what the words say, and ends the machine.

#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MARKER "rvmm-bench: started\n"
#define WAITING "rvmm-bench: waiting\n"
#define MOST_WORDS 16

static void say(const char *text)
{
	// In one piece, and past any buffer: the reader takes the time when its first byte arrives.
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		exit(1);
}

static int fail(const char *what)
{
	fprintf(stderr, "rvmm-bench: %s: %s\n", what, strerror(errno));
	return 1;
}

static int split(char *text, const char *between, char *words[MOST_WORDS + 1])
{
	int count = 0;
	for (char *word = strtok(text, between); word && count < MOST_WORDS; word = strtok(NULL, between))
		words[count++] = word;
	words[count] = NULL;
	return count;
}

static int run(char *words[])
{
	pid_t child = fork();
	if (child == 0) {
		execv(words[0], words);
		_exit(fail(words[0]));
	}
	int status = 0;
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int perform(int count, char *words[]);

static int await(void)
{
	static char line[1024];
	char *words[MOST_WORDS + 1];
	say(WAITING);
	if (!fgets(line, sizeof line, stdin))
		return fail("no line to read");
	return perform(split(line, " \r\n", words), words);
}

static int perform(int count, char *words[])
{
	if (count == 1 && !strcmp(words[0], "start")) {
		say(MARKER);
		return 0;
	}
	if (count == 1 && !strcmp(words[0], "idle")) {
		say(MARKER);
		for (;;)
			pause();
	}
	if (count == 1 && !strcmp(words[0], "wait"))
		return await();
	if (count >= 2 && !strcmp(words[0], "run"))
		return run(words + 1);
	if (count >= 3 && !strcmp(words[0], "work"))
		return work(words + 1);
	fprintf(stderr, "rvmm-bench: what is '%s'? start, idle, wait, run FILE WORD..., work MS WORD...\n", count ? words[0] : "");
	return 2;
}

// Nanoseconds on the clock of the kernel's log, which runs before all others: a line that is written there comes back with its time.
static long long since_kernel_began(void)
{
	char record[1024];
	long long micros = -1;
	int log = open("/dev/kmsg", O_RDWR | O_NONBLOCK);
	lseek(log, 0, SEEK_END);
	if (log < 0 || write(log, "<7>rvmm-bench\n", 14) < 0)
		return 0;
	ssize_t count = read(log, record, sizeof record - 1);
	close(log);
	record[count > 0 ? count : 0] = 0;
	return sscanf(record, "%*u,%*u,%lld", &micros) == 1 ? micros * 1000 : 0;
}

// The first process of a VM.
static void first(const char *task)
{
	char line[64], text[1024], *words[MOST_WORDS + 1];
	long long began = monotonic();
	say("rvmm-bench: init\n");
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
	mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, NULL);
	const char *link = getenv("BENCH_LINK");
	if (link && configure_link(link))
		fail(link);
	snprintf(text, sizeof text, "%s", task);
	perform(split(text, ",", words), words);
	// Only now, for what is printed takes time.
	snprintf(line, sizeof line, "rvmm-bench: kernel %lld\n", since_kernel_began() - (monotonic() - began));
	say(line);
	tcdrain(STDOUT_FILENO);
	const char *end = getenv("BENCH_END");
	sync();
	reboot(end && !strcmp(end, "reboot") ? RB_AUTOBOOT : RB_POWER_OFF);
	for (;;)
		pause();
}

int main(int argc, char *argv[])
{
	const char *task = getenv("BENCH_TASK");
	if (getpid() == 1 && task)
		first(task);
	return perform(argc - 1, argv + 1);
}
