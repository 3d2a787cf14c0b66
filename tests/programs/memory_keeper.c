/*
 * Keeps MIB of memory of its own, as much that it shares with a child, and goes
 * on checking all of it: each page has its number and the round in which it was
 * last written. A round writes every sixteenth page anew, so that dumps of
 * different moments differ, and both processes read all that the other wrote.
 * As much again is written once and never changes, however many rounds there are.
 *
 * After each round "ok N" is in /dev/shm/status, or else what is wrong.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / sizeof(long))

static int status_fd;
static long pages;

static void say(const char *what, long number)
{
	char line[64] = "";

	snprintf(line, sizeof(line), "%s %ld\n", what, number);
	if (pwrite(status_fd, line, sizeof(line), 0) != sizeof(line))
		_exit(3);
}

static void check(int good, const char *what, long number)
{
	if (good)
		return;
	say(what, number);
	_exit(2);
}

static long *map(int flags)
{
	void *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	check(at != MAP_FAILED, "map", flags);
	return at;
}

/* The round that a page was last written in: every page in the round 0. */
static long written(long page, long round)
{
	long last = round - (round - page % 16 + 16) % 16;

	return last < 0 ? 0 : last;
}

static void put(long *memory, long page, long round)
{
	long *at = memory + page * WORDS;

	/* Not compressible, and not the same page twice. */
	for (size_t i = 0; i < WORDS; i++)
		at[i] = (page * 512 + (long)i) * 0x9e3779b97f4a7c15 ^ round;
}

static int is(const long *memory, long page, long round)
{
	const long *at = memory + page * WORDS;

	for (size_t i = 0; i < WORDS; i += 73)
		if (at[i] != (long)((page * 512 + (long)i) * 0x9e3779b97f4a7c15 ^ round))
			return 0;
	return 1;
}

static void write_round(long *memory, long round)
{
	for (long page = round % 16; page < pages; page += 16)
		put(memory, page, round);
}

static void check_round(const long *memory, long round, const char *what)
{
	for (long page = 0; page < pages; page++)
		check(is(memory, page, written(page, round)), what, page);
}

int main(int argc, char **argv)
{
	int turn[2], answer[2];
	long round;

	status_fd = open("/dev/shm/status", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (argc != 2 || status_fd < 0 || pipe(turn) || pipe(answer))
		_exit(4);
	pages = atol(argv[1]) << 8;
	long *own = map(MAP_PRIVATE), *shared = map(MAP_SHARED), *still = map(MAP_PRIVATE);

	for (long page = 0; page < pages; page++) {
		put(own, page, 0);
		put(shared, page, 0);
		put(still, page, 0);
	}
	pid_t child = fork();

	check(child >= 0, "fork", 0);
	if (child == 0) {
		/* Its own memory is the parent's of the round 0 until it writes to it. */
		while (read(turn[0], &round, sizeof(round)) == sizeof(round)) {
			check_round(shared, round, "shared memory, page");
			write_round(own, round);
			check_round(own, round, "memory of the child, page");
			check_round(still, 0, "unchanged memory of the child, page");
			if (write(answer[1], &round, sizeof(round)) != sizeof(round))
				break;
		}
		_exit(5);
	}
	for (round = 1;; round++) {
		long answered = 0;

		write_round(own, round);
		write_round(shared, round);
		check_round(own, round, "memory, page");
		check_round(still, 0, "unchanged memory, page");
		check(write(turn[1], &round, sizeof(round)) == sizeof(round), "ask the child", round);
		check(read(answer[0], &answered, sizeof(answered)) == sizeof(answered), "the child", round);
		check(answered == round, "answer of the child", answered);
		say("ok", round);
		usleep(20000);
	}
}
