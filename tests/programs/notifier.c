// notifier MESSAGE... - sends each message to the socket that NOTIFY_SOCKET names, and sleeps until it is killed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!name || strlen(name) >= sizeof address.sun_path) {
        fputs("no NOTIFY_SOCKET\n", stderr);
        return 1;
    }
    strcpy(address.sun_path, name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int i = 1; i < argc; i++) {
        if (sendto(fd, argv[i], strlen(argv[i]), 0, (struct sockaddr *)&address, sizeof address) < 0) {
            perror("sendto");
            return 1;
        }
    }
    puts("sent");
    fflush(stdout);
    pause();
}
