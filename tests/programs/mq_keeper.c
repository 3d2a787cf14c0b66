/*
 * Holds POSIX message queues in every way that a program can, and checks on demand that it has all of it as it was.
 *
 * On a file /dev/shm/check it takes every message out, compares, puts everything back, and writes the outcome to
 * /dev/shm/status: "ok N" with the number of the check, or what is wrong. The argument is the name of a queue that it
 * wants to be notified of, or "large" for one more that is larger than queues usually can be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX 6
#define SIZE 100
#define OWNER 1000
#define KEY 0x5741

struct message {
	unsigned int priority;
	size_t length;
	const char *bytes;
};

/* As they are sent, and as they come out: by priority, and by age within one. */
static const struct message in[MAX] = {
	{ 0, 5, "first" }, { 7, 6, "second" }, { 0, 0, "" }, { 32767, 4, "top!" }, { 7, 3, "\0\n\377" }, { 0, 4, "last" },
};
static const int out[MAX] = { 3, 1, 4, 0, 2, 5 };

static int checks;
static mqd_t all, reader, writer, nameless, empty, full;
static mqd_t large = -1;
static int by_path, shm;
static pid_t waits_to_read, waits_to_write;

static void tell(const char *format, ...)
{
	va_list list;
	FILE *file = fopen("/dev/shm/.status", "w");

	va_start(list, format);
	vfprintf(file, format, list);
	va_end(list);
	fclose(file);
	rename("/dev/shm/.status", "/dev/shm/status");
}

#define CHECK(so)                                                                  \
	do {                                                                       \
		if (!(so)) {                                                       \
			tell("line %d: %s, errno %d\n", __LINE__, #so, errno);     \
			for (;;)                                                   \
				pause();                                           \
		}                                                                  \
	} while (0)

static mqd_t make(const char *name, int flags, mode_t mode, long max)
{
	struct mq_attr attr = { .mq_maxmsg = max, .mq_msgsize = SIZE };
	mqd_t made = mq_open(name, flags | O_CREAT | O_EXCL, mode, &attr);

	CHECK(made >= 0);
	return made;
}

static void fill(void)
{
	for (int i = 0; i < MAX; i++)
		CHECK(mq_send(writer, in[i].bytes, in[i].length, in[i].priority) == 0);
	CHECK(mq_send(nameless, "hidden", 6, 3) == 0);
}

static void attributes(mqd_t queue, long flags, long max, long messages)
{
	struct mq_attr attr;

	CHECK(mq_getattr(queue, &attr) == 0);
	CHECK(attr.mq_flags == flags);
	CHECK(attr.mq_maxmsg == max && attr.mq_msgsize == SIZE);
	CHECK(attr.mq_curmsgs == messages);
}

static void drain(void)
{
	char bytes[SIZE];
	unsigned int priority;
	struct stat status;

	attributes(all, 0, MAX, MAX);
	attributes(reader, O_NONBLOCK, MAX, MAX);
	attributes(writer, 0, MAX, MAX);
	attributes(by_path, O_NONBLOCK, MAX, MAX);
	for (int i = 0; i < MAX; i++) {
		const struct message *expected = &in[out[i]];
		/* By one descriptor and by the other, which are of one queue. */
		mqd_t from = i % 2 ? reader : all;

		CHECK(mq_receive(from, bytes, SIZE, &priority) == (ssize_t)expected->length);
		CHECK(priority == expected->priority);
		CHECK(memcmp(bytes, expected->bytes, expected->length) == 0);
	}
	/* Access and O_NONBLOCK are those of each descriptor. */
	CHECK(mq_receive(reader, bytes, SIZE, NULL) == -1 && errno == EAGAIN);
	CHECK(mq_receive(by_path, bytes, SIZE, NULL) == -1 && errno == EAGAIN);
	CHECK(mq_send(reader, "x", 1, 0) == -1 && errno == EBADF);
	CHECK(mq_receive(writer, bytes, SIZE, NULL) == -1 && errno == EBADF);
	CHECK(fstat(all, &status) == 0);
	CHECK(status.st_mode == (S_IFREG | 0642) && status.st_uid == OWNER && status.st_gid == OWNER + 1);
	CHECK(stat("/dev/mqueue/all", &status) == 0 && status.st_uid == OWNER);

	if (large >= 0) {
		struct mq_attr attr;

		CHECK(mq_getattr(large, &attr) == 0 && attr.mq_maxmsg == 30 && attr.mq_msgsize == 9000);
	}

	attributes(nameless, 0, 2, 1);
	CHECK(mq_receive(nameless, bytes, SIZE, &priority) == 6 && priority == 3 && memcmp(bytes, "hidden", 6) == 0);
	CHECK(access("/dev/mqueue/nameless", F_OK) == -1 && errno == ENOENT);
}

/* Waits until a process is where it waits itself. */
static void blocked(pid_t pid, long call)
{
	char path[64];
	long found;

	sprintf(path, "/proc/%d/syscall", pid);
	do {
		FILE *file = fopen(path, "r");

		CHECK(file);
		if (fscanf(file, "%ld", &found) != 1)
			found = -1;
		fclose(file);
	} while (found != call);
}

/* A reader that waits for a message, and a writer that waits for room. */
static void wake(void)
{
	char bytes[SIZE];
	unsigned int priority;

	attributes(empty, 0, 1, 0);
	CHECK(mq_send(empty, "wake", 4, 9) == 0);
	while (unlink("/dev/shm/woken"))
		usleep(1000);
	CHECK(mq_receive(full, bytes, SIZE, &priority) == 3 && priority == 1 && memcmp(bytes, "one", 3) == 0);
	CHECK(mq_receive(full, bytes, SIZE, &priority) == 3 && priority == 2 && memcmp(bytes, "two", 3) == 0);
	CHECK(mq_send(full, "one", 3, 1) == 0);
	CHECK(close(open("/dev/shm/again", O_CREAT | O_WRONLY, 0600)) == 0);
	blocked(waits_to_read, SYS_mq_timedreceive);
	blocked(waits_to_write, SYS_mq_timedsend);
}

static void read_and_tell(void)
{
	char bytes[SIZE];
	unsigned int priority;

	for (;;) {
		CHECK(mq_receive(empty, bytes, SIZE, &priority) == 4 && priority == 9);
		CHECK(close(open("/dev/shm/woken", O_CREAT | O_WRONLY, 0600)) == 0);
	}
}

static void write_and_wait(void)
{
	for (;;) {
		CHECK(mq_send(full, "two", 3, 2) == 0);
		while (unlink("/dev/shm/again"))
			usleep(1000);
	}
}

int main(int argc, char **argv)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct mq_attr attr = { .mq_maxmsg = 30, .mq_msgsize = 9000 };
	const char *option = argc > 1 ? argv[1] : "";

	umask(0);
	all = make("/all", O_RDWR, 0642, MAX);
	reader = mq_open("/all", O_RDONLY | O_NONBLOCK);
	writer = mq_open("/all", O_WRONLY);
	by_path = open("/dev/mqueue/all", O_RDWR | O_NONBLOCK);
	CHECK(reader >= 0 && writer >= 0 && by_path >= 0);
	CHECK(fchown(all, OWNER, OWNER + 1) == 0);
	nameless = make("/nameless", O_RDWR, 0600, 2);
	CHECK(mq_unlink("/nameless") == 0);
	empty = make("/empty", O_RDWR, 0600, 1);
	full = make("/full", O_RDWR, 0600, 1);
	CHECK(mq_send(full, "one", 3, 1) == 0);
	if (strcmp(option, "large") == 0) {
		large = mq_open("/large", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
		CHECK(large >= 0);
	}
	/* What CRIU keeps of the namespace by itself. */
	shm = shmget(KEY, 4096, IPC_CREAT | 0600);
	strcpy(shmat(shm, NULL, 0), "System V");
	fill();
	waits_to_read = fork();
	if (waits_to_read == 0)
		read_and_tell();
	waits_to_write = fork();
	if (waits_to_write == 0)
		write_and_wait();
	for (;; usleep(1000)) {
		if (checks > 0 && unlink("/dev/shm/check"))
			continue;
		drain();
		fill();
		wake();
		CHECK(shmget(KEY, 0, 0) == shm);
		if (strcmp(option, "all") == 0)
			CHECK(mq_notify(all, &event) == 0);
		if (strcmp(option, "nameless") == 0)
			CHECK(mq_notify(nameless, &event) == 0);
		tell("ok %d\n", ++checks);
	}
}
