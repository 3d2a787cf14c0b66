/*
 * Keeps every kind of thing in /dev/shm that a program can hold there, and goes
 * on checking that it has them all: a descriptor with a position, a shared
 * mapping, a file without a name, a log that is appended to, a file of 1 GiB
 * that is mostly hole, names, owners, modes and attributes. It checks memory of
 * its own, too, and a file of the root file system.
 *
 * After each round "ok N" is in /dev/shm/status, or else what is wrong. With
 * the argument "remap" it also holds a file that has lost one of two names.
 * With "look" it makes nothing but the status file. With "dense" it does without
 * the hole, which Podman's own archive of a /dev/shm would fill with zeros. With
 * "lock" so too, and it has a lock on its file of the root file system.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAPPED (1 << 20)
#define NAMELESS (3 << 20)
#define SPARSE (1L << 30)
#define OWN (2 << 20)

static int status_fd, open_fd, mapped_fd, nameless_fd, log_fd, root_fd, remap_fd = -1;
static unsigned char *mapped, *nameless, *own;
static long logged;
static int dense;

static void say(const char *what, long number)
{
	char line[128] = "";
	snprintf(line, sizeof(line), "%s %ld\n", what, number);
	if (pwrite(status_fd, line, sizeof(line), 0) != sizeof(line))
		_exit(3);
}

static void check(int good, const char *what)
{
	if (good)
		return;
	say(what, errno);
	_exit(2);
}

static int make(const char *path, int flags, mode_t mode)
{
	int fd = open(path, flags | O_CREAT | O_EXCL | O_CLOEXEC, mode);

	check(fd >= 0, path);
	return fd;
}

static void fill(unsigned char *bytes, size_t length, unsigned char seed)
{
	for (size_t i = 8; i < length; i++)
		bytes[i] = (unsigned char)(i * 31 + seed);
}

static int filled(const unsigned char *bytes, size_t length, unsigned char seed)
{
	for (size_t i = 8; i < length; i += 61)
		if (bytes[i] != (unsigned char)(i * 31 + seed))
			return 0;
	return 1;
}

static unsigned char *map(int fd, size_t length)
{
	check(ftruncate(fd, length) == 0, "truncate");
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	check(at != MAP_FAILED, "map");
	return at;
}

static void set_up(int remap)
{
	open_fd = make("/dev/shm/open", O_RDWR, 0640);
	check(write(open_fd, "0123456789", 10) == 10 && lseek(open_fd, 4, SEEK_SET) == 4, "write open");

	mapped_fd = make("/dev/shm/mapped", O_RDWR, 0600);
	mapped = map(mapped_fd, MAPPED);
	fill(mapped, MAPPED, 1);

	nameless_fd = make("/dev/shm/nameless", O_RDWR, 0600);
	nameless = map(nameless_fd, NAMELESS);
	fill(nameless, NAMELESS, 2);
	check(unlink("/dev/shm/nameless") == 0, "unlink");

	log_fd = make("/dev/shm/log", O_WRONLY | O_APPEND, 0644);

	if (!dense) {
		int sparse = make("/dev/shm/sparse", O_RDWR, 0600);
		check(ftruncate(sparse, SPARSE) == 0 && pwrite(sparse, "middle", 6, SPARSE / 2) == 6, "sparse");
		close(sparse);
	}

	int owned = make("/dev/shm/owned", O_RDWR, 0600);
	check(fchown(owned, 1000, 1001) == 0 && fchmod(owned, 04751) == 0, "chown");
	check(fsetxattr(owned, "user.note", "kept", 4, 0) == 0 || errno == EOPNOTSUPP, "setxattr");
	close(owned);

	check(mkfifo("/dev/shm/fifo", 0620) == 0, "mkfifo");
	check(symlink("/nowhere", "/dev/shm/symlink") == 0, "symlink");
	check(mkdir("/dev/shm/sticky", 0700) == 0 && chmod("/dev/shm/sticky", 01777) == 0, "mkdir");
	close(make("/dev/shm/sticky/inner", O_RDWR, 0444));

	own = malloc(OWN);
	check(own != NULL, "malloc");
	fill(own, OWN, 3);
	*(volatile long *)own = 0;
	root_fd = make("/keeper", O_RDWR, 0600);
	check(write(root_fd, "root", 4) == 4, "write root");

	if (remap) {
		remap_fd = make("/dev/shm/first", O_RDWR, 0600);
		check(write(remap_fd, "two names", 9) == 9, "write first");
		check(link("/dev/shm/first", "/dev/shm/second") == 0 && unlink("/dev/shm/first") == 0, "link");
	}
}

static void check_descriptors(long round)
{
	char bytes[16];
	struct stat st;

	check(lseek(open_fd, 0, SEEK_CUR) == 4, "position of open");
	check(pread(open_fd, bytes, sizeof(bytes), 0) == 10 && !memcmp(bytes, "0123456789", 10), "content of open");
	check(stat("/dev/shm/open", &st) == 0 && (st.st_mode & 07777) == 0640, "mode of open");

	/* The counter is in the first bytes, by mapping and by descriptor. */
	check(*(volatile long *)mapped == round, "counter in the mapping");
	check(pread(mapped_fd, bytes, 8, 0) == 8 && *(long *)bytes == round, "counter in the file");
	check(filled(mapped, MAPPED, 1), "content of the mapping");

	check(fstat(nameless_fd, &st) == 0 && st.st_nlink == 0, "names of nameless");
	check(filled(nameless, NAMELESS, 2), "content of nameless");
	nameless[0] = (unsigned char)round;
	check(pread(nameless_fd, bytes, 1, 0) == 1 && bytes[0] == (char)round, "nameless by descriptor");

	check(fcntl(log_fd, F_GETFL) & O_APPEND, "flags of log");
	check(write(log_fd, "line\n", 5) == 5 && stat("/dev/shm/log", &st) == 0 && st.st_size == ++logged * 5, "log");

	*(volatile long *)own += 1;
	check(*(volatile long *)own == round + 1 && filled(own, OWN, 3), "own memory");
	check(lseek(root_fd, 0, SEEK_CUR) == 4 && pread(root_fd, bytes, 5, 0) == 4 && !memcmp(bytes, "root", 4), "root");

	if (remap_fd >= 0) {
		check(fstat(remap_fd, &st) == 0 && st.st_nlink == 1, "names of second");
		check(pread(remap_fd, bytes, 9, 0) == 9 && !memcmp(bytes, "two names", 9), "content of second");
		struct stat named;
		check(stat("/dev/shm/second", &named) == 0 && named.st_ino == st.st_ino, "second is it");
	}
}

static void check_hole(void)
{
	char bytes[16];
	struct stat st;
	int sparse = open("/dev/shm/sparse", O_RDONLY | O_CLOEXEC);

	check(sparse >= 0 && fstat(sparse, &st) == 0 && st.st_size == SPARSE, "size of sparse");
	check(st.st_blocks < 1024, "holes of sparse");
	check(pread(sparse, bytes, 7, SPARSE / 2) == 7 && !memcmp(bytes, "middle", 7), "content of sparse");
	close(sparse);
}

static void check_names(void)
{
	char bytes[16];
	struct stat st;

	check(stat("/dev/shm/owned", &st) == 0 && st.st_uid == 1000 && st.st_gid == 1001, "owner");
	check((st.st_mode & 07777) == 04751, "mode of owned");
	ssize_t length = getxattr("/dev/shm/owned", "user.note", bytes, sizeof(bytes));
	check(length < 0 ? errno == EOPNOTSUPP : length == 4 && !memcmp(bytes, "kept", 4), "attribute");

	check(lstat("/dev/shm/fifo", &st) == 0 && st.st_mode == (S_IFIFO | 0620), "fifo");
	check(readlink("/dev/shm/symlink", bytes, sizeof(bytes)) == 8 && !memcmp(bytes, "/nowhere", 8), "symlink");
	check(stat("/dev/shm/sticky", &st) == 0 && (st.st_mode & 07777) == 01777, "sticky");
	check(stat("/dev/shm/sticky/inner", &st) == 0 && (st.st_mode & 07777) == 0444, "inner");
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";

	umask(0);
	status_fd = open("/dev/shm/status", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (status_fd < 0)
		_exit(4);
	dense = !strcmp(how, "dense") || !strcmp(how, "lock");
	if (strcmp(how, "look"))
		set_up(!strcmp(how, "remap"));
	if (!strcmp(how, "lock"))
		check(flock(root_fd, LOCK_EX | LOCK_NB) == 0, "lock");
	for (long round = 0;; round++) {
		if (mapped) {
			*(volatile long *)mapped = round;
			check_descriptors(round);
			check_names();
			if (!dense)
				check_hole();
		}
		say("ok", round);
		usleep(20000);
	}
}
