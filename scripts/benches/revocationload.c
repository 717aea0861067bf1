/* Tunnels through proxies on 127.0.0.1 that carry as much as they can, both ways, until they end.
 * revocationload ORIGIN_ADDRESS ORIGIN_PORT HOST SECONDS PORT COUNT [PORT COUNT]...
 * It is the clients and the origin.  Prints one line, "saturated", once every tunnel has carried
 * FILL octets each way.  When all those of the first PORT have ended, or after SECONDS, it prints
 * {"up", "down"}: when the last octet of those came in, each way, in seconds of CLOCK_MONOTONIC,
 * {"last_end"}: when the last of their connections was seen to end, and how each did. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ENDS = 8192, PIECE = 65536, EVENTS = 512, FILL = 262144, BUFFER = 65536 };

static struct end {
    int fd;
    int group;     /* of the first PORT: 0; of the origin's side: found out by the first octet */
    int is_origin;
    long long received;
} ends[ENDS];

static char piece[PIECE], input[PIECE];
static int poller, count, filled, wanted, open_ends, resets, closes;
static double last[2], last_end;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct end *add(int fd, int group, int is_origin)
{
    struct end *e = &ends[count++];
    int size = BUFFER;
    if (count > ENDS)
        die("too many");
    /* What the kernel keeps for us counts as received: little, so that reading is no part of it. */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    *e = (struct end){.fd = fd, .group = group, .is_origin = is_origin};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = e};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
    return e;
}

static void ended(struct end *e, int was_reset)
{
    if (e->group == 0) {
        open_ends--;
        resets += was_reset;
        closes += !was_reset;
        last_end = now();
    }
    close(e->fd);
    e->fd = -1;
}

static void take(struct end *e)
{
    ssize_t n = read(e->fd, input, sizeof input);
    if (n > 0) {
        if (e->is_origin && e->received == 0)
            e->group = input[0] - '0'; /* the client's first octet says whose it is */
        if (e->received < FILL && e->received + n >= FILL)
            filled++;
        e->received += n;
        if (e->group == 0)
            last[e->is_origin] = now();
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        ended(e, n < 0);
    }
}

static void give(struct end *e)
{
    if (write(e->fd, piece, sizeof piece) < 0 && errno != EAGAIN && errno != EINTR)
        ended(e, 1);
}

static void step(int listening, int timeout_ms)
{
    static struct epoll_event events[EVENTS];
    int found = epoll_wait(poller, events, EVENTS, timeout_ms);
    for (int i = 0; i < found; i++) {
        struct end *e = events[i].data.ptr;
        if (e == NULL) {
            int fd = accept(listening, NULL, NULL);
            if (fd >= 0)
                add(fd, -1, 1);
            continue;
        }
        if (e->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            take(e);
        if (e->fd >= 0 && events[i].events & EPOLLOUT)
            give(e);
    }
}

static void open_tunnel(const char *host, int origin_port, int port, int group)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    char text[1024], whose = '0' + group;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("connect");
    int n = snprintf(text, sizeof text, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host,
                     origin_port, host, origin_port);
    if (write(fd, text, n) != n)
        die("write");
    n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    if (strstr(text, " 200 ") == NULL || !strstr(text, "\r\n\r\n")) {
        fprintf(stderr, "no tunnel: %s\n", text);
        exit(1);
    }
    if (write(fd, &whose, 1) != 1)
        die("write");
    add(fd, group, 0);
}

int main(int argc, char **argv)
{
    if (argc < 7)
        return 2;
    struct rlimit files = {ENDS + 64, ENDS + 64};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    int listening = socket(AF_INET, SOCK_STREAM, 0), yes = 1, size = BUFFER;
    double until;
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &files);
    memset(piece, 'x', sizeof piece);
    poller = epoll_create1(0);
    inet_pton(AF_INET, argv[1], &at.sin_addr);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(listening, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) != 0 || listen(listening, 4096) != 0)
        die("bind");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listening, &event);
    for (int i = 5; i + 1 < argc; i += 2)
        for (int n = atoi(argv[i + 1]); n > 0; n--) {
            open_tunnel(argv[3], atoi(argv[2]), atoi(argv[i]), (i - 5) / 2);
            wanted += 2;
        }
    open_ends = 2 * atoi(argv[6]);
    until = now() + atof(argv[4]);
    while (filled < wanted && now() < until)
        step(listening, 100);
    if (filled < wanted) {
        fprintf(stderr, "%d of %d are filled\n", filled, wanted);
        return 1;
    }
    printf("saturated\n");
    fflush(stdout);
    until = now() + atof(argv[4]);
    while (open_ends > 0 && now() < until)
        step(listening, 100);
    printf("{\"up\": %.6f, \"down\": %.6f, \"last_end\": %.6f, \"left\": %d, \"resets\": %d, "
           "\"closes\": %d}\n", last[1], last[0], last_end, open_ends, resets, closes);
    return 0;
}
