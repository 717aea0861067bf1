/* Closed-loop clients of a proxy on 127.0.0.1, each with one errand at a time.
 * httpload PORT SECONDS forward|connect|bulk CLIENTS HOST HELLO_FILE BULK_OCTETS
 * forward: GET http://HOST/ again and again, on a kept connection where the proxy keeps it
 * connect: a new connection, CONNECT HOST:443, the ClientHello, 1 KiB back, close
 * bulk:    CONNECT HOST:8443, the ClientHello, BULK_OCTETS back, close
 * Prints {"done", "failed", "octets", "seconds"}. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 1024, CLIENTS = 1024, HEAD = 4096, INPUT = 1 << 20, EVENTS = 256 };
enum mode { FORWARD, CONNECT, BULK };

static struct client {
    int fd;
    int kept; /* a second request or later */
    int in_body;
    int head_octets;
    int closes;          /* the proxy said so, or it is the end of an errand */
    long long body_left; /* octets of the body, or of the tunnel's answer */
    char head[HEAD];
} clients[CLIENTS];

static char input[INPUT], request[1024], hello[4096];
static size_t request_octets, hello_octets;
static struct sockaddr_in proxy = {.sin_family = AF_INET};
static enum mode mode;
static long long wanted, octets;
static unsigned long done, failed;
static int poller;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void ask(struct client *c)
{
    c->in_body = 0;
    c->head_octets = 0;
    c->closes = 0;
    if (write(c->fd, request, request_octets) != (ssize_t)request_octets)
        failed++;
}

static void start(struct client *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int yes = 1;
    c->kept = 0;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&proxy, sizeof proxy) != 0) {
        perror("httpload");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    ask(c);
}

static void again(struct client *c, int ok)
{
    if (ok)
        done++;
    else
        failed++;
    if (ok && mode == FORWARD && !c->closes) {
        c->kept = 1;
        ask(c);
        return;
    }
    close(c->fd);
    start(c);
}

static long long read_head(struct client *c)
{
    char *length = strcasestr(c->head, "\r\nContent-Length:");
    if (strncmp(c->head, "HTTP/1.", 7) != 0 || strncmp(c->head + 8, " 200", 4) != 0)
        return -1;
    c->closes = strcasestr(c->head, "\r\nConnection: close") != NULL || c->head[7] == '0';
    if (mode == FORWARD)
        return length ? atoll(length + 17) : -1;
    if (write(c->fd, hello, hello_octets) != (ssize_t)hello_octets)
        return -1;
    return wanted;
}

/* Returns how many of `got` octets belong to the head; sets in_body at its end. */
static ssize_t take_head(struct client *c, ssize_t got)
{
    int room = HEAD - 1 - c->head_octets, known = c->head_octets;
    int taken = got < room ? (int)got : room;
    char *end;
    memcpy(c->head + known, input, (size_t)taken);
    c->head_octets += taken;
    c->head[c->head_octets] = 0;
    end = strstr(c->head, "\r\n\r\n");
    if (end == NULL)
        return c->head_octets < HEAD - 1 ? got : -1;
    c->in_body = 1;
    end[2] = 0;
    c->body_left = read_head(c);
    return c->body_left < 0 ? -1 : end + 4 - c->head - known;
}

static void receive(struct client *c)
{
    ssize_t got = read(c->fd, input, sizeof input), used = 0;
    if (got <= 0 && c->kept && !c->in_body && c->head_octets == 0) {
        close(c->fd); /* closed between two requests, without a word: any client asks anew */
        start(c);
        return;
    }
    if (got <= 0) {
        again(c, 0);
        return;
    }
    if (!c->in_body && (used = take_head(c, got)) < 0) {
        again(c, 0);
        return;
    }
    if (!c->in_body)
        return;
    c->body_left -= got - used;
    octets += got - used;
    if (c->body_left <= 0)
        again(c, c->body_left == 0);
}

static void prepare(char **argv)
{
    FILE *file = fopen(argv[6], "rb");
    mode = strcmp(argv[3], "forward") == 0 ? FORWARD : strcmp(argv[3], "connect") == 0 ? CONNECT : BULK;
    if (file == NULL)
        exit(1);
    hello_octets = fread(hello, 1, sizeof hello, file);
    fclose(file);
    wanted = mode == BULK ? atoll(argv[7]) : SMALL;
    if (mode == FORWARD)
        request_octets = (size_t)snprintf(request, sizeof request,
            "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            argv[5], argv[5]);
    else
        request_octets = (size_t)snprintf(request, sizeof request,
            "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: bench\r\n\r\n",
            argv[5], mode == BULK ? 8443 : 443, argv[5], mode == BULK ? 8443 : 443);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    double started, until;
    int count;
    if (argc != 8 || (count = atoi(argv[4])) < 1 || count > CLIENTS)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    proxy.sin_port = htons((unsigned short)atoi(argv[1]));
    proxy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    prepare(argv);
    poller = epoll_create1(0);
    started = now();
    until = started + atof(argv[2]);
    for (int i = 0; i < count; i++)
        start(&clients[i]);
    while (now() < until) {
        int ready = epoll_wait(poller, events, EVENTS, 200);
        for (int i = 0; i < ready; i++)
            receive(events[i].data.ptr);
    }
    printf("{\"done\": %lu, \"failed\": %lu, \"octets\": %lld, \"seconds\": %.4f}\n", done, failed,
           octets, now() - started);
    return 0;
}
