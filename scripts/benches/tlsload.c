/* Clients of a server that speaks TLS on 127.0.0.1, each with a connection of its own.
 * tlsload PORT SECONDS THREADS [dns|any|HOST [CERTIFICATE KEY]]
 * dns:  connect, full handshake, a DNS query (h000.example.net), its answer of rcode 0, close
 * any:  connect, full handshake, whatever octet comes, close
 * HOST: GET http://HOST/ again and again, through the proxy that the server is; prints "warm" once
 *       every connection had its first answer: what is before is not counted
 * Prints {"done", "failed", "seconds"}. */
#define _GNU_SOURCE
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
enum mode { DNS, ANY, GET };

struct count {
    unsigned long done, failed;
};

static const unsigned char query[] =
    "\0\x22\0\7\1\0\0\1\0\0\0\0\0\0\4h000\7example\3net\0\0\1\0\1"; /* length, head, question */
static struct sockaddr_in server = {.sin_family = AF_INET};
static double until;
static SSL_CTX *context;
static enum mode mode;
static char request[1024];
static int request_octets;
static pthread_barrier_t warm, go;

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
    if (SSL_connect(tls) != 1)
        return 0;
    if (mode == ANY)
        return SSL_read(tls, answer, ANSWER_OCTETS) > 0;
    if (SSL_write(tls, query, octets) != octets)
        return 0;
    while (got < 2 || got < 2 + (answer[0] << 8 | answer[1])) {
        int more = SSL_read(tls, answer + got, ANSWER_OCTETS - got);
        if (more <= 0)
            return 0;
        got += more;
    }
    return got >= 14 && (answer[5] & 15) == 0;
}

/* Returns whether a whole response of status 200 with a Content-Length came. */
static int get(SSL *tls)
{
    static __thread char answer[ANSWER_OCTETS + 1];
    int got = 0, head = 0, body = 0;
    if (SSL_write(tls, request, request_octets) != request_octets)
        return 0;
    while (head == 0 || got < head + body) {
        int more = SSL_read(tls, answer + got, ANSWER_OCTETS - got);
        char *end, *length;
        if (more <= 0)
            return 0;
        got += more;
        answer[got] = 0;
        if (head != 0 || (end = strstr(answer, "\r\n\r\n")) == NULL)
            continue;
        head = (int)(end - answer) + 4;
        length = strcasestr(answer, "\r\nContent-Length:");
        if (length == NULL || length > end || (body = atoi(length + 17)) > ANSWER_OCTETS - head)
            return 0;
    }
    return strncmp(answer + 8, " 200", 4) == 0;
}

static int stay(struct count *count)
{
    int on = 1, good = 0, fd = socket(AF_INET, SOCK_STREAM, 0);
    SSL *tls = SSL_new(context);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    SSL_set_fd(tls, fd);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) == 0)
        good = SSL_connect(tls) == 1 && get(tls);
    pthread_barrier_wait(&warm);
    pthread_barrier_wait(&go);
    while (good && now() < until)
        if ((good = get(tls)))
            count->done++;
    SSL_free(tls);
    close(fd);
    return good;
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
    if (mode == GET) {
        count->failed += !stay(count);
        return NULL;
    }
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
    if (argc != 4 && argc != 5 && argc != 7)
        return 2;
    if (argc > 4)
        mode = strcmp(argv[4], "dns") == 0 ? DNS : strcmp(argv[4], "any") == 0 ? ANY : GET;
    if (mode == GET)
        request_octets = snprintf(request, sizeof request,
            "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n\r\n", argv[4], argv[4]);
    server.sin_port = htons((unsigned short)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    until = started + atof(argv[2]);
    wanted = atoi(argv[3]) < MOST_THREADS ? atoi(argv[3]) : MOST_THREADS;
    context = SSL_CTX_new(TLS_client_method());
    if (argc == 7 && (SSL_CTX_use_certificate_chain_file(context, argv[5]) != 1 ||
                      SSL_CTX_use_PrivateKey_file(context, argv[6], SSL_FILETYPE_PEM) != 1))
        return 1;
    pthread_barrier_init(&warm, NULL, (unsigned)wanted + 1);
    pthread_barrier_init(&go, NULL, (unsigned)wanted + 1);
    for (int i = 0; i < wanted; i++)
        if (pthread_create(&threads[i], NULL, run, &counts[i]) != 0)
            return 1;
    if (mode == GET) {
        pthread_barrier_wait(&warm);
        puts("warm");
        fflush(stdout);
        started = now();
        until = started + atof(argv[2]);
        pthread_barrier_wait(&go);
    }
    for (int i = 0; i < wanted; i++) {
        pthread_join(threads[i], NULL);
        all.done += counts[i].done;
        all.failed += counts[i].failed;
    }
    printf("{\"done\": %lu, \"failed\": %lu, \"seconds\": %.4f}\n", all.done, all.failed,
           now() - started);
    return 0;
}
