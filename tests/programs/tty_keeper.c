/*
 * Has a terminal with everything that a program can change about one: a size,
 * special characters and modes, a session of several process groups of which one
 * is in the foreground, and input that nobody has read yet.
 *
 * Whenever /dev/shm/look is there it removes that and writes what it finds to
 * /dev/shm/found. When /dev/shm/read is there it reads a line of input and
 * writes it there too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static volatile sig_atomic_t resized;

static void on_resize(int signal)
{
	(void)signal;
	resized++;
}

static void fail(const char *what)
{
	FILE *found = fopen("/dev/shm/found", "w");

	if (found)
		fprintf(found, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void publish(const char *text)
{
	FILE *new = fopen("/dev/shm/new", "w");

	if (!new || fputs(text, new) < 0 || fclose(new) || rename("/dev/shm/new", "/dev/shm/found"))
		fail("found");
}

static void look(pid_t child)
{
	struct winsize size;
	struct termios modes;
	char text[512];
	int waiting, i, len;

	if (ioctl(0, TIOCGWINSZ, &size) || tcgetattr(0, &modes) || ioctl(0, FIONREAD, &waiting))
		fail("look");
	len = snprintf(text, sizeof(text),
		       "size %d %d %d %d resized %d\nforeground %d of %d session %d\nwaiting %d\n"
		       "modes %x %x %x %x speed %u %u\nname %s\n",
		       size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel, (int)resized,
		       tcgetpgrp(0), child, tcgetsid(0), waiting, modes.c_iflag, modes.c_oflag,
		       modes.c_cflag, modes.c_lflag, cfgetispeed(&modes), cfgetospeed(&modes), ttyname(0));
	for (i = 0; i < NCCS; i++)
		len += snprintf(text + len, sizeof(text) - len, "%x ", modes.c_cc[i]);
	publish(text);
}

int main(void)
{
	struct winsize size = { .ws_row = 33, .ws_col = 111, .ws_xpixel = 5, .ws_ypixel = 7 };
	struct termios modes;
	pid_t child;

	signal(SIGTTOU, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	if (ioctl(0, TIOCSWINSZ, &size) || tcgetattr(0, &modes))
		fail("size");
	modes.c_lflag &= ~(ECHO | ICANON);
	modes.c_lflag |= TOSTOP;
	modes.c_iflag |= IXANY;
	modes.c_iflag &= ~ICRNL;
	modes.c_oflag &= ~ONLCR;
	modes.c_cc[VINTR] = 'X';
	modes.c_cc[VMIN] = 3;
	modes.c_cc[VTIME] = 2;
	cfsetispeed(&modes, B19200);
	cfsetospeed(&modes, B19200);
	if (tcsetattr(0, TCSANOW, &modes))
		fail("modes");
	child = fork();
	if (child == 0) {
		setpgid(0, 0);
		signal(SIGWINCH, on_resize);
		/* Whoever is in the foreground is interrupted by a key. */
		for (;;) {
			pause();
		}
	}
	if (child < 0 || (setpgid(child, child) && errno != EACCES) || tcsetpgrp(0, child))
		fail("foreground");
	signal(SIGWINCH, on_resize);
	look(child);
	for (;;) {
		int status;

		if (unlink("/dev/shm/look") == 0)
			look(child);
		if (unlink("/dev/shm/read") == 0) {
			char line[64] = "";
			/* Out of the background it may not read. */
			if (tcsetpgrp(0, getpgrp()) || read(0, line, sizeof(line) - 1) < 0)
				fail("read");
			publish(line);
			if (tcsetpgrp(0, child))
				fail("foreground");
		}
		if (waitpid(child, &status, WNOHANG) == child) {
			publish(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT ? "interrupted" : "ended");
			return 0;
		}
		usleep(10000);
	}
}
