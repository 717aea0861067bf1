/* The far side of the proxy benches, so cheap that the proxy is what is measured.
 * origin SMALL_PORT TUNNEL_PORT BULK_PORT BULK_OCTETS
 * SMALL_PORT:  each HTTP request gets 200 and SMALL octets, and the connection stays
 * TUNNEL_PORT: the first octets (a ClientHello) get SMALL octets
 * BULK_PORT:   the first octets get BULK_OCTETS octets */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SMALL = 1024, CHUNK = 262144, CONNECTIONS = 65536, EVENTS = 256, KINDS = 3 };
enum kind { PLAIN, TUNNEL, BULK };

static struct connection {
    enum kind kind;
    int matched; /* octets of CR LF CR LF seen so far */
    int answered;
    long long due; /* octets that are still to be sent */
} connections[CONNECTIONS];

static char chunk[CHUNK], reply[SMALL + 256], input[65536];
static size_t reply_octets;
static long long bulk_octets;
static int poller, listeners[KINDS];

static void watch(int fd, unsigned events, int change)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poller, change ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

static int listen_on(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 4096) != 0) {
        perror("origin");
        exit(1);
    }
    watch(fd, EPOLLIN, 0);
    return fd;
}

static void accept_all(enum kind kind)
{
    int fd, yes = 1;
    while ((fd = accept4(listeners[kind], NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connections[fd] = (struct connection){.kind = kind};
        watch(fd, EPOLLIN, 0);
    }
}

static void send_due(int fd)
{
    struct connection *c = &connections[fd];
    while (c->due > 0) {
        ssize_t sent = write(fd, chunk, c->due < CHUNK ? (size_t)c->due : CHUNK);
        if (sent < 0) {
            watch(fd, EPOLLIN | EPOLLOUT, 1);
            return;
        }
        c->due -= sent;
    }
    watch(fd, EPOLLIN, 1);
}

static void answer_heads(int fd, ssize_t got)
{
    static const char end[] = "\r\n\r\n";
    struct connection *c = &connections[fd];
    for (ssize_t i = 0; i < got; i++) {
        c->matched = input[i] == end[c->matched] ? c->matched + 1 : input[i] == '\r';
        if (c->matched < 4)
            continue;
        c->matched = 0;
        if (write(fd, reply, reply_octets) < 0)
            return;
    }
}

static void serve(int fd, unsigned events)
{
    struct connection *c = &connections[fd];
    ssize_t got;
    if (events & EPOLLOUT)
        send_due(fd);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    got = read(fd, input, sizeof input);
    if (got <= 0) {
        close(fd);
        return;
    }
    if (c->kind == PLAIN) {
        answer_heads(fd, got);
    } else if (!c->answered) {
        c->answered = 1;
        c->due = c->kind == BULK ? bulk_octets : SMALL;
        send_due(fd);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    if (argc != 2 + KINDS)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    memset(chunk, 'x', sizeof chunk);
    memset(reply, 'x', sizeof reply);
    reply_octets = (size_t)sprintf(reply, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                          "Content-Length: %d\r\n\r\n", SMALL);
    reply[reply_octets] = 'x';
    reply_octets += SMALL;
    bulk_octets = atoll(argv[1 + KINDS]);
    for (int kind = 0; kind < KINDS; kind++)
        listeners[kind] = listen_on(atoi(argv[1 + kind]));
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd, kind = 0;
            while (kind < KINDS && listeners[kind] != fd)
                kind++;
            if (kind < KINDS)
                accept_all((enum kind)kind);
            else
                serve(fd, events[i].events);
        }
    }
}
