// What the parts of the program that every contender runs offer each other.

#pragma once

// Nanoseconds on a clock that only goes forward.
long long monotonic(void);

// Does the work that the words name, and prints its figures: see work.c. Returns an exit code.
int work(char *words[]);

// Brings the loopback interface up, where it is down and there is a right to do so.
void raise_loopback(void);

// Gives eth0 the address of ADDRESS/PREFIX and brings it up. 0, or -1 with errno.
int configure_link(const char *address);

// TCP within the machine, and to the echo and discard services of an address: see tcp.c. 0, or -1 with errno.
int work_loopback(long long nanoseconds);
int work_outside(long long nanoseconds, const char *address);

// Prints what was measured: `count` things in so many nanoseconds.
void report(const char *name, double count, long long nanoseconds, const char *unit);
