/* System V IPC for the tests of joined namespaces: makes, shows and holds objects. Built statically, to run in a
 * container; each verb prints what it made or found, and fails with the kernel's words. */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

enum { TEXT = 64, MOST = 16 };

/* The layout of a segment: a text that anybody may change, and a count that the holder keeps going. */
struct segment {
	char text[TEXT];
	volatile unsigned long count;
};

struct message {
	long type;
	char text[TEXT];
};

static long number(const char *text)
{
	return strtol(text, NULL, 0);
}

static void *attach(int id, int flags)
{
	void *at = shmat(id, NULL, flags);
	if (at == (void *)-1)
		err(1, "shmat %d", id);
	return at;
}

/* shm KEY SIZE MODE TEXT: makes a segment. */
static int make_shm(char **args)
{
	int id = shmget(number(args[0]), number(args[1]), IPC_CREAT | IPC_EXCL | number(args[2]));
	if (id < 0)
		err(1, "shmget");
	struct segment *segment = attach(id, 0);
	strncpy(segment->text, args[3], TEXT - 1);
	return id;
}

/* hold KEY: finds the segment of a key and keeps it attached, shows its text in a file and counts in it. */
static int hold(char **args)
{
	int id = shmget(number(args[0]), 0, 0);
	if (id < 0)
		err(1, "shmget");
	struct segment *segment = attach(id, 0);
	for (;;) {
		FILE *file = fopen("/dev/shm/seen", "w");
		if (!file)
			err(1, "/dev/shm/seen");
		fprintf(file, "%s\n", segment->text);
		fclose(file);
		segment->count++;
		usleep(20000);
	}
}

/* read ID, write ID TEXT: a segment's text, without staying attached. */
static int read_shm(char **args)
{
	struct segment *segment = attach(number(args[0]), SHM_RDONLY);
	printf("%s %lu\n", segment->text, segment->count);
	exit(0);
}

static int write_shm(char **args)
{
	struct segment *segment = attach(number(args[0]), 0);
	strncpy(segment->text, args[1], TEXT - 1);
	return number(args[0]);
}

/* sem KEY MODE VALUE...: makes a set of semaphores. */
static int make_sem(char **args)
{
	unsigned short values[MOST];
	int count = 0;
	for (char **value = args + 2; *value; value++)
		values[count++] = number(*value);
	int id = semget(number(args[0]), count, IPC_CREAT | IPC_EXCL | number(args[1]));
	if (id < 0 || semctl(id, 0, SETALL, values))
		err(1, "semget");
	return id;
}

/* values ID: the semaphores of a set. */
static int show_sem(char **args)
{
	unsigned short values[MOST];
	struct semid_ds set;
	if (semctl(number(args[0]), 0, IPC_STAT, &set) || semctl(number(args[0]), 0, GETALL, values))
		err(1, "semctl");
	for (unsigned long i = 0; i < set.sem_nsems; i++)
		printf("%s%u", i ? " " : "", values[i]);
	puts("");
	exit(0);
}

/* add ID INDEX N: changes a semaphore. */
static int add_sem(char **args)
{
	struct sembuf operation = { number(args[1]), number(args[2]), IPC_NOWAIT };
	if (semop(number(args[0]), &operation, 1))
		err(1, "semop");
	return number(args[0]);
}

/* msg KEY MODE [TYPE TEXT]...: makes a queue with messages. */
static int make_msg(char **args)
{
	int id = msgget(number(args[0]), IPC_CREAT | IPC_EXCL | number(args[1]));
	if (id < 0)
		err(1, "msgget");
	for (char **arg = args + 2; arg[0]; arg += 2) {
		struct message message = { .type = number(arg[0]) };
		strncpy(message.text, arg[1], TEXT - 1);
		if (msgsnd(id, &message, strlen(message.text) + 1, 0))
			err(1, "msgsnd");
	}
	return id;
}

/* messages ID: the messages of a queue, which stay in it. */
static int show_msg(char **args)
{
	struct message message;
	for (int i = 0; msgrcv(number(args[0]), &message, TEXT, i, IPC_NOWAIT | MSG_COPY) > 0; i++)
		printf("%s%ld:%s", i ? " " : "", message.type, message.text);
	puts("");
	exit(0);
}

/* rmshm ID, rmsem ID, rmmsg ID. */
static int remove_shm(char **args)
{
	if (shmctl(number(args[0]), IPC_RMID, NULL))
		err(1, "shmctl");
	return number(args[0]);
}

static int remove_sem(char **args)
{
	if (semctl(number(args[0]), 0, IPC_RMID))
		err(1, "semctl");
	return number(args[0]);
}

static int remove_msg(char **args)
{
	if (msgctl(number(args[0]), IPC_RMID, NULL))
		err(1, "msgctl");
	return number(args[0]);
}

int main(int count, char **args)
{
	static const struct {
		const char *name;
		int (*carry_out)(char **args);
	} verbs[] = {
		{ "shm", make_shm },	   { "hold", hold },	      { "read", read_shm },	 { "write", write_shm },
		{ "sem", make_sem },	   { "values", show_sem },    { "add", add_sem },	 { "msg", make_msg },
		{ "messages", show_msg },  { "rmshm", remove_shm },   { "rmsem", remove_sem },	 { "rmmsg", remove_msg },
	};
	for (unsigned i = 0; count > 1 && i < sizeof verbs / sizeof *verbs; i++) {
		if (!strcmp(args[1], verbs[i].name)) {
			printf("%d\n", verbs[i].carry_out(args + 2));
			return 0;
		}
	}
	errx(2, "no such verb");
}
