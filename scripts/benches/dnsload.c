/* A closed loop of DNS queries over UDP: as many as WINDOW are outstanding on each of SOCKETS sockets.
 * dnsload PORT SECONDS hit|refused|refused-deep SEED
 * hit:     h000.example.net to h999.example.net in turn
 * refused: uNNNNNNNNN.refused.example, no name twice; deep: x. before it, so no parent twice
 * Prints {"done", "failed", "lost", "seconds"}; done counts answers of the expected rcode (0, and not 0). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SOCKETS = 8, WINDOW = 50, BATCH = 50, OCTETS = 512, NAMES = 1000, TICK_MS = 200 };

struct asker {
    int fd;
    int outstanding, left_from_tick; /* of the latter, what is unanswered a tick later is lost */
};

static struct asker askers[SOCKETS];
static char queries[BATCH][OCTETS], answers[BATCH][OCTETS];
static struct iovec query_iov[BATCH], answer_iov[BATCH];
static struct mmsghdr query_msg[BATCH], answer_msg[BATCH];
static unsigned long next_name, done, failed, lost;
static int refused, deep;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static size_t label(char *to, const char *text)
{
    size_t n = strlen(text);
    to[0] = (char)n;
    memcpy(to + 1, text, n);
    return n + 1;
}

static size_t build(char *to)
{
    char first[16];
    size_t n = 12;
    unsigned short id = (unsigned short)(next_name * 40503u);
    memcpy(to, "\0\0\1\0\0\1\0\0\0\0\0\0", 12);
    memcpy(to, &id, 2);
    if (refused)
        snprintf(first, sizeof first, "u%09lu", next_name % 1000000000ul);
    else
        snprintf(first, sizeof first, "h%03lu", next_name % NAMES);
    next_name++;
    if (deep)
        n += label(to + n, "x");
    n += label(to + n, first);
    n += label(to + n, refused ? "refused" : "example");
    n += label(to + n, refused ? "example" : "net");
    memcpy(to + n, "\0\0\1\0\1", 5);
    return n + 5;
}

static void top_up(struct asker *a)
{
    while (a->outstanding < WINDOW) {
        int wanted = WINDOW - a->outstanding, sent;
        for (int i = 0; i < wanted; i++)
            query_iov[i].iov_len = build(queries[i]);
        sent = sendmmsg(a->fd, query_msg, (unsigned)wanted, 0);
        if (sent <= 0)
            return;
        a->outstanding += sent;
    }
}

static void drain(struct asker *a)
{
    int got = recvmmsg(a->fd, answer_msg, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        int rcode = answers[i][3] & 15;
        if (answer_msg[i].msg_len >= 12 && (rcode != 0) == refused)
            done++;
        else
            failed++;
    }
    if (got > 0) {
        a->outstanding -= a->outstanding < got ? a->outstanding : got;
        a->left_from_tick -= got;
    }
}

static void tick(struct asker *a)
{
    if (a->left_from_tick > 0) {
        int gone = a->left_from_tick < a->outstanding ? a->left_from_tick : a->outstanding;
        lost += (unsigned)gone;
        a->outstanding -= gone;
    }
    a->left_from_tick = a->outstanding;
}

static void open_sockets(int port, struct pollfd *polled)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < SOCKETS; i++) {
        askers[i].fd = socket(AF_INET, SOCK_DGRAM, 0);
        if (connect(askers[i].fd, (struct sockaddr *)&to, sizeof to) != 0)
            exit(1);
        polled[i] = (struct pollfd){.fd = askers[i].fd, .events = POLLIN};
    }
    for (int i = 0; i < BATCH; i++) {
        query_iov[i].iov_base = queries[i];
        answer_iov[i] = (struct iovec){answers[i], OCTETS};
        query_msg[i].msg_hdr = (struct msghdr){.msg_iov = &query_iov[i], .msg_iovlen = 1};
        answer_msg[i].msg_hdr = (struct msghdr){.msg_iov = &answer_iov[i], .msg_iovlen = 1};
    }
}

int main(int argc, char **argv)
{
    struct pollfd polled[SOCKETS];
    double started, until, next_tick;
    if (argc != 5)
        return 2;
    deep = strcmp(argv[3], "refused-deep") == 0;
    refused = deep || strcmp(argv[3], "refused") == 0;
    next_name = strtoul(argv[4], NULL, 10);
    open_sockets(atoi(argv[1]), polled);
    started = now();
    until = started + atof(argv[2]);
    next_tick = started + TICK_MS / 1e3;
    while (now() < until) {
        for (int i = 0; i < SOCKETS; i++)
            top_up(&askers[i]);
        poll(polled, SOCKETS, TICK_MS);
        for (int i = 0; i < SOCKETS; i++)
            if (polled[i].revents)
                drain(&askers[i]);
        if (now() < next_tick)
            continue;
        next_tick += TICK_MS / 1e3;
        for (int i = 0; i < SOCKETS; i++)
            tick(&askers[i]);
    }
    printf("{\"done\": %lu, \"failed\": %lu, \"lost\": %lu, \"seconds\": %.4f}\n", done, failed, lost,
           now() - started);
    return 0;
}
