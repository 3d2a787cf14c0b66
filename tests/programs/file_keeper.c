/*
 * Holds descriptors of every kind, with something in each, and tells on request
 * whether all are as they were: a request is the file /dev/shm/ask, which goes
 * away when "as it was", or else what is wrong, is in /dev/shm/status. Nothing
 * happens between requests, so that a checkpoint finds all of it at rest.
 *
 * What it holds is named by its arguments: files, remapped, queues,
 * objects, sysv, locks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)
#define PIPE_SIZE (1 << 17)

static void tell(const char *what)
{
	int fd = open("/dev/shm/status", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dprintf(fd, "%s\n", what);
	close(fd);
	unlink("/dev/shm/ask");
}

static void check(int good, const char *what)
{
	char line[128];
	if (good)
		return;
	snprintf(line, sizeof(line), "%s, errno %d", what, errno);
	tell(line);
	/* As the container's init it would take with it who asks. */
	for (;;)
		pause();
}

/* Checks that the next bytes of a descriptor are these. */
static void gives(int fd, const char *expected, const char *what)
{
	char found[64] = "";
	ssize_t length = read(fd, found, sizeof(found) - 1);
	check(length == (ssize_t)strlen(expected) && !strcmp(found, expected), what);
}

static void takes(int fd, const char *text)
{
	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text), text);
}

static int make(const char *path, int flags)
{
	int fd = open(path, flags | O_CREAT | O_EXCL, 0640);
	check(fd >= 0, path);
	return fd;
}

static int appended, positioned, copy, ghost, remapped, directory;
static long appends;

static void append(void)
{
	appends += dprintf(appended, "line at %6ld\n", appends);
}

static void hold_files(void)
{
	appended = make("/kept/log", O_WRONLY | O_APPEND);
	append();
	positioned = make("/kept/positioned", O_RDWR | O_CLOEXEC);
	takes(positioned, "0123456789");
	check(lseek(positioned, 4, SEEK_SET) == 4, "seek");
	copy = dup(positioned);
	ghost = make("/kept/ghost", O_RDWR);
	takes(ghost, "no name");
	check(lseek(ghost, 3, SEEK_SET) == 3 && !unlink("/kept/ghost"), "ghost");
	directory = open("/kept", O_RDONLY | O_DIRECTORY);
	check(directory >= 0, "directory");
}

static void check_files(void)
{
	struct stat by_descriptor, by_name;
	char found[16] = "";
	append();
	check(!fstat(appended, &by_descriptor) && by_descriptor.st_size == appends, "size of the log");
	check(!fstatat(directory, "log", &by_name, 0) && by_name.st_ino == by_descriptor.st_ino, "directory");
	check(lseek(positioned, 0, SEEK_CUR) == 4 && pread(positioned, found, 15, 0) == 10, "position");
	check(!strcmp(found, "0123456789"), "content");
	check(lseek(copy, 5, SEEK_SET) == 5 && lseek(positioned, 0, SEEK_CUR) == 5, "shared position");
	check(lseek(positioned, 4, SEEK_SET) == 4, "seek");
	check(fcntl(positioned, F_GETFD) == FD_CLOEXEC && fcntl(copy, F_GETFD) == 0, "close-on-exec");
	check((fcntl(appended, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_WRONLY | O_APPEND), "flags of the log");
	check(!fstat(ghost, &by_descriptor) && by_descriptor.st_nlink == 0, "names of the ghost");
	check((by_descriptor.st_mode & 07777) == 0640, "mode of the ghost");
	gives(ghost, "name", "ghost");
	check(lseek(ghost, 3, SEEK_SET) == 3, "seek");
}

/* A file that has lost one of two names. */
static void hold_remapped(void)
{
	remapped = make("/kept/lost", O_RDWR);
	takes(remapped, "two names");
	check(!link("/kept/lost", "/kept/stays") && !unlink("/kept/lost"), "link");
	check(lseek(remapped, 4, SEEK_SET) == 4, "seek");
}

static void check_remapped(void)
{
	struct stat by_descriptor, by_name;
	check(!fstat(remapped, &by_descriptor) && !stat("/kept/stays", &by_name), "stat");
	check(by_descriptor.st_ino == by_name.st_ino && by_descriptor.st_nlink == 1, "the name that is left");
	check(access("/kept/lost", F_OK) && errno == ENOENT, "the name that is lost");
	gives(remapped, "names", "remapped");
	check(lseek(remapped, 4, SEEK_SET) == 4, "seek");
}

static int fifo[2], stream[2], datagram[2];

static void fill_queues(void)
{
	takes(fifo[1], "in the pipe");
	takes(stream[0], "on its way");
	takes(stream[1], "and back");
	takes(datagram[0], "first");
	takes(datagram[0], "second");
}

static void hold_queues(void)
{
	check(!pipe2(fifo, O_NONBLOCK) && fcntl(fifo[1], F_SETPIPE_SZ, PIPE_SIZE) == PIPE_SIZE, "pipe");
	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, stream), "stream");
	check(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, datagram), "datagram");
	fill_queues();
}

static void check_queues(void)
{
	char more;
	check(fcntl(fifo[0], F_GETPIPE_SZ) == PIPE_SIZE, "size of the pipe");
	gives(fifo[0], "in the pipe", "pipe");
	gives(stream[1], "on its way", "stream");
	gives(stream[0], "and back", "stream back");
	gives(datagram[1], "first", "datagram");
	gives(datagram[1], "second", "datagram");
	check(read(fifo[0], &more, 1) < 0 && errno == EAGAIN, "nothing more");
	fill_queues();
}

static int event, polled, signals, timer, watch, watched, memory;

static void queue_signals(void)
{
	for (int i = 1; i <= 2; i++)
		check(!sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }), "sigqueue");
}

static void hold_objects(void)
{
	struct epoll_event interest = { .events = EPOLLIN, .data.u64 = 0x1234567890 };
	struct itimerspec far = { .it_value.tv_sec = 50000, .it_interval.tv_sec = 777 };
	sigset_t mask;
	event = eventfd(7, EFD_NONBLOCK);
	polled = epoll_create1(EPOLL_CLOEXEC);
	check(!epoll_ctl(polled, EPOLL_CTL_ADD, event, &interest), "epoll");
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN);
	check(!sigprocmask(SIG_BLOCK, &mask, NULL), "mask");
	signals = signalfd(-1, &mask, SFD_NONBLOCK);
	queue_signals();
	timer = timerfd_create(CLOCK_MONOTONIC, 0);
	check(!timerfd_settime(timer, 0, &far, NULL), "timerfd");
	watch = inotify_init1(IN_NONBLOCK);
	watched = inotify_add_watch(watch, "/kept", IN_CREATE);
	check(watched >= 0, "inotify");
	memory = memfd_create("named", MFD_ALLOW_SEALING);
	takes(memory, "sealed");
	check(lseek(memory, 2, SEEK_SET) == 2 && !fcntl(memory, F_ADD_SEALS, SEALS), "seal");
}

static void check_counters(void)
{
	struct epoll_event found = { 0 };
	uint64_t count = 0;
	check(epoll_wait(polled, &found, 1, 0) == 1 && found.data.u64 == 0x1234567890, "epoll");
	check(read(event, &count, 8) == 8 && count == 7, "count of the eventfd");
	check(epoll_wait(polled, &found, 1, 0) == 0, "epoll with nothing to read");
	check(write(event, &count, 8) == 8, "eventfd");
}

static void check_objects(void)
{
	struct itimerspec left;
	struct signalfd_siginfo signal;
	struct {
		struct inotify_event event;
		char name[32];
	} change;
	char link[64], target[64] = "";
	check_counters();
	for (int i = 1; i <= 2; i++)
		check(read(signals, &signal, sizeof(signal)) == sizeof(signal) && signal.ssi_int == i, "signal");
	check(read(signals, &signal, sizeof(signal)) < 0 && errno == EAGAIN, "no more signals");
	queue_signals();
	check(!timerfd_gettime(timer, &left) && left.it_interval.tv_sec == 777, "interval");
	check(left.it_value.tv_sec > 40000 && left.it_value.tv_sec <= 50000, "time that is left");
	close(make("/kept/new", O_WRONLY));
	check(read(watch, &change, sizeof(change)) > 0 && change.event.wd == watched, "inotify");
	check(change.event.mask == IN_CREATE && !strcmp(change.event.name, "new"), "what inotify tells");
	check(!unlink("/kept/new"), "unlink");
	check(fcntl(memory, F_GET_SEALS) == SEALS && lseek(memory, 0, SEEK_CUR) == 2, "seals");
	gives(memory, "aled", "memfd");
	check(lseek(memory, 2, SEEK_SET) == 2 && write(memory, "x", 1) < 0 && errno == EPERM, "write to a sealed memfd");
	sprintf(link, "/proc/self/fd/%d", memory);
	check(readlink(link, target, sizeof(target)) > 0 && !strncmp(target, "/memfd:named", 12), "name of the memfd");
}

static int segment, set, queue;
static char *attached;

struct message {
	long kind;
	char text[8];
};

static void send_messages(void)
{
	struct message first = { 5, "first" }, second = { 3, "second" };
	check(!msgsnd(queue, &first, 8, 0) && !msgsnd(queue, &second, 8, 0), "msgsnd");
}

static void hold_sysv(void)
{
	segment = shmget(77, 1 << 20, IPC_CREAT | 0600);
	set = semget(78, 2, IPC_CREAT | 0600);
	queue = msgget(79, IPC_CREAT | 0600);
	attached = shmat(segment, NULL, 0);
	check(attached != (void *)-1, "shmat");
	strcpy(attached + 500000, "segment");
	check(!semctl(set, 1, SETVAL, 11), "semctl");
	send_messages();
}

static void check_sysv(void)
{
	struct message found;
	char *again = shmat(shmget(77, 0, 0), NULL, SHM_RDONLY);
	check(!strcmp(attached + 500000, "segment"), "attached segment");
	check(again != (void *)-1 && !strcmp(again + 500000, "segment") && !shmdt(again), "segment by its key");
	check(shmget(77, 0, 0) == segment && semget(78, 0, 0) == set && msgget(79, 0) == queue, "ids");
	check(semctl(set, 0, GETVAL) == 0 && semctl(set, 1, GETVAL) == 11, "semaphores");
	check(msgrcv(queue, &found, 8, 0, IPC_NOWAIT) == 8 && found.kind == 5 && !strcmp(found.text, "first"), "message");
	check(msgrcv(queue, &found, 8, 3, IPC_NOWAIT) == 8 && !strcmp(found.text, "second"), "message of a kind");
	send_messages();
}

/* Locks bytes of a file, up to its end with a length of 0. */
static void lock(int fd, int command, short kind, off_t start, off_t length)
{
	struct flock range = { .l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
	check(!fcntl(fd, command, &range), "fcntl lock");
}

/* The locks are looked at from outside. */
static void hold_locks_in(const char *place)
{
	check(!chdir(place), place);
	check(!flock(make("exclusive", O_RDWR), LOCK_EX) && !flock(make("shared", O_RDWR), LOCK_SH), "flock");
	int ranges = make("ranges", O_RDWR), open_file = make("open-file", O_RDWR), passed_on = make("passed-on", O_RDWR);
	lock(ranges, F_SETLK, F_WRLCK, 10, 20);
	lock(ranges, F_SETLK, F_RDLCK, 40, 0);
	lock(open_file, F_OFD_SETLK, F_RDLCK, 0, 5);
	lock(open_file, F_OFD_SETLK, F_WRLCK, 100, 0);
	check(!flock(passed_on, LOCK_EX), "flock");
	if (!fork())
		for (;;)
			pause();
	close(passed_on);
}

static void hold_locks(void)
{
	hold_locks_in("/kept");
	hold_locks_in("/dev/shm");
}

static void check_locks(void)
{
}

static const struct {
	const char *name;
	void (*hold)(void);
	void (*check)(void);
} parts[] = {
	{ "files", hold_files, check_files },	    { "remapped", hold_remapped, check_remapped },
	{ "queues", hold_queues, check_queues },    { "objects", hold_objects, check_objects },
	{ "sysv", hold_sysv, check_sysv },	    { "locks", hold_locks, check_locks },
};

static void each(char **names, int holds)
{
	for (; *names; names++)
		for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
			if (!strcmp(parts[i].name, *names))
				holds ? parts[i].hold() : parts[i].check();
}

int main(int count, char **names)
{
	check(count > 1 && !mkdir("/kept", 0755), "/kept");
	each(names + 1, 1);
	for (;;) {
		if (!access("/dev/shm/ask", F_OK)) {
			each(names + 1, 0);
			tell("as it was");
		}
		usleep(10000);
	}
}
