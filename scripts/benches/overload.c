/* An open loop of DNS queries over UDP: so many a second, whether or not they are answered.
 * overload PORT SECONDS hit|miss A_SECOND SEED
 * hit:  h000.example.net to h999.example.net in turn
 * miss: mNNNNNNNNN.example.net, no name twice
 * Prints {"sent", "answered", "shed", "seconds", "p50_ms", "p99_ms", "worst_ms"}; shed counts SERVFAIL, times are of the
 * answered ones.  A query is known by its socket and its id, so that none is taken for one of 65,536 queries ago. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { SOCKETS = 16, BATCH = 64, OCTETS = 512, NAMES = 1000, IDS = 65536, STEP_US = 20, STEPS = 50000 };

static int fds[SOCKETS];
static double sent_at[SOCKETS][IDS];
static unsigned short next_id[SOCKETS];
static char queries[BATCH][OCTETS], answers[BATCH][OCTETS];
static struct iovec query_iov[BATCH], answer_iov[BATCH];
static struct mmsghdr query_msg[BATCH], answer_msg[BATCH];
static unsigned long next_name, sent, answered, shed, waits[STEPS + 1];
static int miss;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static size_t build(char *to, unsigned short id)
{
    char first[16];
    int n;
    if (miss)
        n = snprintf(first, sizeof first, "m%09lu", next_name % 1000000000ul);
    else
        n = snprintf(first, sizeof first, "h%03lu", next_name % NAMES);
    next_name++;
    memcpy(to, &id, 2);
    memcpy(to + 2, "\1\0\0\1\0\0\0\0\0\0", 10);
    to[12] = (char)n;
    memcpy(to + 13, first, (size_t)n);
    memcpy(to + 13 + n, "\7example\3net\0\0\1\0\1", 17);
    return (size_t)n + 30;
}

static void offer(int which, unsigned count)
{
    double at = now();
    int left;
    for (unsigned i = 0; i < count; i++) {
        unsigned short id = next_id[which]++;
        query_iov[i].iov_len = build(queries[i], id);
        sent_at[which][id] = at;
    }
    left = sendmmsg(fds[which], query_msg, count, 0);
    sent += left > 0 ? (unsigned)left : 0;
}

static void drain(int which)
{
    int got = recvmmsg(fds[which], answer_msg, BATCH, MSG_DONTWAIT, NULL);
    double at = got > 0 ? now() : 0;
    for (int i = 0; i < got; i++) {
        unsigned short id;
        double step;
        memcpy(&id, answers[i], 2);
        if (sent_at[which][id] == 0)
            continue;
        step = (at - sent_at[which][id]) * 1e6 / STEP_US;
        sent_at[which][id] = 0;
        if ((answers[i][3] & 15) == 2) {
            shed++;
            continue;
        }
        answered++;
        waits[step < STEPS ? (int)step : STEPS]++;
    }
}

static double quantile_ms(double of)
{
    unsigned long seen = 0;
    for (int i = 0; i <= STEPS; i++) {
        seen += waits[i];
        if (answered && (double)seen >= of * (double)answered)
            return (i + 1) * STEP_US / 1e3;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    double started, until, a_second;
    unsigned long offered = 0;
    int which = 0, room = 4 << 20;
    if (argc != 6)
        return 2;
    to.sin_port = htons((unsigned short)atoi(argv[1]));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    miss = strcmp(argv[3], "miss") == 0;
    a_second = atof(argv[4]);
    next_name = strtoul(argv[5], NULL, 10);
    for (int i = 0; i < SOCKETS; i++) {
        fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        if (connect(fds[i], (struct sockaddr *)&to, sizeof to) != 0)
            return 1;
    }
    for (int i = 0; i < BATCH; i++) {
        query_iov[i].iov_base = queries[i];
        answer_iov[i] = (struct iovec){answers[i], OCTETS};
        query_msg[i].msg_hdr = (struct msghdr){.msg_iov = &query_iov[i], .msg_iovlen = 1};
        answer_msg[i].msg_hdr = (struct msghdr){.msg_iov = &answer_iov[i], .msg_iovlen = 1};
    }
    started = now();
    until = started + atof(argv[2]);
    while (now() < until) {
        unsigned long due = (unsigned long)((now() - started) * a_second);
        if (offered < due) {
            unsigned count = due - offered < BATCH ? (unsigned)(due - offered) : BATCH;
            offer(which, count);
            offered += count;
            which = (which + 1) % SOCKETS;
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL); /* the upstream has this core too */
        }
        for (int i = 0; i < SOCKETS; i++)
            drain(i);
    }
    until = now() + 1; /* what is under way still counts */
    while (now() < until) {
        for (int i = 0; i < SOCKETS; i++)
            drain(i);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    printf("{\"sent\": %lu, \"answered\": %lu, \"shed\": %lu, \"seconds\": %.4f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, "
           "\"worst_ms\": %.2f}\n",
           sent, answered, shed, atof(argv[2]), quantile_ms(0.5), quantile_ms(0.99), quantile_ms(1.0));
    return 0;
}
