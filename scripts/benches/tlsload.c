/* DNS over TLS, a connection for each query: connect, full handshake, one query, its answer, close.
 * tlsload PORT SECONDS THREADS
 * Asks for h000.example.net.  Prints {"done", "failed", "seconds"}; done counts answers of rcode 0. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 64, ANSWER_OCTETS = 2 + 65535 };

struct count {
    unsigned long done, failed;
};

static const unsigned char query[] =
    "\0\x22\0\7\1\0\0\1\0\0\0\0\0\0\4h000\7example\3net\0\0\1\0\1"; /* length, head, question */
static struct sockaddr_in server = {.sin_family = AF_INET};
static double until;
static SSL_CTX *context;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int exchange(SSL *tls)
{
    static __thread unsigned char answer[ANSWER_OCTETS];
    int got = 0, octets = sizeof query - 1;
    if (SSL_connect(tls) != 1 || SSL_write(tls, query, octets) != octets)
        return 0;
    while (got < 2 || got < 2 + (answer[0] << 8 | answer[1])) {
        int more = SSL_read(tls, answer + got, ANSWER_OCTETS - got);
        if (more <= 0)
            return 0;
        got += more;
    }
    return got >= 14 && (answer[5] & 15) == 0;
}

static int visit(void)
{
    int on = 1, good = 0, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct linger at_once = {1, 0}; /* no TIME_WAIT on this side: the ports would run out */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) == 0) {
        SSL *tls = SSL_new(context);
        SSL_set_fd(tls, fd);
        good = exchange(tls);
        SSL_set_shutdown(tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(tls);
    }
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
    return good;
}

static void *run(void *argument)
{
    struct count *count = argument;
    while (now() < until) {
        if (visit())
            count->done++;
        else
            count->failed++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[MOST_THREADS];
    struct count counts[MOST_THREADS] = {{0}}, all = {0};
    double started = now();
    int wanted;
    if (argc != 4)
        return 2;
    server.sin_port = htons((unsigned short)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    until = started + atof(argv[2]);
    wanted = atoi(argv[3]) < MOST_THREADS ? atoi(argv[3]) : MOST_THREADS;
    context = SSL_CTX_new(TLS_client_method());
    for (int i = 0; i < wanted; i++)
        if (pthread_create(&threads[i], NULL, run, &counts[i]) != 0)
            return 1;
    for (int i = 0; i < wanted; i++) {
        pthread_join(threads[i], NULL);
        all.done += counts[i].done;
        all.failed += counts[i].failed;
    }
    printf("{\"done\": %lu, \"failed\": %lu, \"seconds\": %.4f}\n", all.done, all.failed,
           now() - started);
    return 0;
}
