/*
 * Holds one of each thing that an image tells of: private and shared memory, a
 * thread, a child with a name that would colour a terminal, a child that has
 * ended, sockets of several kinds, a locked file, a file without a name, a file
 * without a file system, and System V objects.
 *
 * "ready" is in /dev/shm/ready when all of it is there.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PRIVATE (4 << 20)
#define SHARED (1 << 20)

static void check(int good)
{
	if (!good)
		exit(3);
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void hold_memory(void)
{
	int anonymous = MAP_ANONYMOUS;
	char *private = mmap(NULL, PRIVATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | anonymous, -1, 0);
	char *shared = mmap(NULL, SHARED, PROT_READ | PROT_WRITE, MAP_SHARED | anonymous, -1, 0);
	int segment = shmget(77, 65536, IPC_CREAT | 0600);
	check(private != MAP_FAILED && shared != MAP_FAILED && segment >= 0);
	memset(private, 1, PRIVATE);
	memset(shared, 2, SHARED);
	strcpy(shmat(segment, NULL, 0), "segment");
	check(msgget(78, IPC_CREAT | 0600) >= 0 && semget(79, 3, IPC_CREAT | 0600) >= 0);
}

static void hold_sockets(void)
{
	struct sockaddr_in inet = { .sin_family = AF_INET, .sin_port = htons(5000) };
	struct sockaddr_un unix_name = { .sun_family = AF_UNIX, .sun_path = "/dev/shm/socket" };
	int pair[2], listening = socket(AF_INET, SOCK_STREAM, 0), connected = socket(AF_INET, SOCK_STREAM, 0);
	int local = socket(AF_UNIX, SOCK_STREAM, 0);
	inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check(!socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	check(!bind(listening, (struct sockaddr *)&inet, sizeof(inet)) && !listen(listening, 1));
	check(!connect(connected, (struct sockaddr *)&inet, sizeof(inet)) && accept(listening, NULL, NULL) >= 0);
	check(!bind(local, (struct sockaddr *)&unix_name, sizeof(unix_name)) && !listen(local, 1));
}

static void hold_files(void)
{
	int locked = open("/dev/shm/locked", O_RDWR | O_CREAT, 0600);
	int nameless = open("/dev/shm/nameless", O_RDWR | O_CREAT, 0600);
	check(write(locked, "12345", 5) == 5 && !flock(locked, LOCK_EX));
	check(write(nameless, "123", 3) == 3 && !unlink("/dev/shm/nameless"));
	check(memfd_create("memory", 0) >= 0 && eventfd(7, 0) >= 0);
}

int main(void)
{
	pthread_t thread;
	hold_memory();
	hold_sockets();
	hold_files();
	if (!fork())
		_exit(1);
	if (!fork()) {
		prctl(PR_SET_NAME, "red\033[31m");
		wait_for_ever(NULL);
	}
	check(!pthread_create(&thread, NULL, wait_for_ever, NULL));
	/* The one that ends is waited for by nobody. */
	sleep(1);
	int ready = open("/dev/shm/ready", O_WRONLY | O_CREAT, 0600);
	check(write(ready, "ready", 5) == 5 && !close(ready));
	wait_for_ever(NULL);
}
