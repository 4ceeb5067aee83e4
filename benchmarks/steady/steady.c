// The client and the server of the latency measurements: HTTP/1.1, as little CPU as can be, so that what lies between is seen.
//
//   steady serve HOST PORT BYTES                           answers every GET with so many bytes
//   steady load HOST PORT AUTHORITY RATE CONNECTIONS WARM_S SECONDS
//
// load is an open loop: request number i is due at i/RATE and belongs to connection i mod CONNECTIONS; one that finds its
// connection busy waits there, and that wait is part of its latency. Printed: one JSON object, times in microseconds,
// from when a request was due and from when it was sent; requests due in the first WARM_S seconds are not counted. SIGTERM
// ends it before SECONDS are over.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1024, BUFFER = 16384, MOST_BODY = 65536, PATIENCE_S = 10 };
typedef int64_t i64;

static void die(const char *what) { perror(what); exit(1); }
static i64 now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }
static struct sockaddr_in address(const char *host, const char *port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  if (inet_pton(AF_INET, host, &at.sin_addr) != 1) { fprintf(stderr, "steady: %s: not an IPv4 address\n", host); exit(2); }
  return at;
}
static void no_delay(int fd) { int on = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); }

// ---- server ----------------------------------------------------------------------------------------------------------

static char answer[MOST_BODY + 256];
static size_t answer_size;

// How many requests end in what was just read; `matched` is how much of the mark the reads before ended with.
static int ends(const char *data, ssize_t size, int *matched) {
  static const char mark[] = "\r\n\r\n";
  int count = 0;
  for (ssize_t i = 0; i < size; i++) {
    *matched = data[i] == mark[*matched] ? *matched + 1 : data[i] == '\r';
    if (*matched == 4) { count++; *matched = 0; }
  }
  return count;
}
static void serve(const char *host, const char *port, size_t bytes) {
  static int matched[65536];
  char data[BUFFER];
  answer_size = (size_t)sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n", bytes);
  memset(answer + answer_size, 'x', bytes);
  answer_size += bytes;
  struct sockaddr_in at = address(host, port);
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, poll_fd = epoll_create1(0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 512)) die("steady: listen");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int count = epoll_wait(poll_fd, events, 64, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int made = accept(listener, NULL, NULL);
        if (made < 0) continue;
        if (made >= 65536) { close(made); continue; }
        no_delay(made);
        matched[made] = 0;
        event.data.fd = made;
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, made, &event);
        continue;
      }
      ssize_t got = read(fd, data, sizeof data);
      if (got <= 0) { close(fd); continue; }
      for (int n = ends(data, got, &matched[fd]); n > 0; n--)
        // An answer is far smaller than a socket's buffer: a peer that reads takes it whole.
        if (send(fd, answer, answer_size, MSG_NOSIGNAL) != (ssize_t)answer_size) { close(fd); break; }
    }
  }
}

// ---- client ----------------------------------------------------------------------------------------------------------

typedef struct { int fd; bool busy; i64 due, sent, next; size_t got, head, whole; bool good; char data[BUFFER]; } Connection;
static Connection connections[MOST_CONNECTIONS];
static double *from_due, *from_sent;
static long counted, failed, sent_count;

static bool open_connection(Connection *c, const struct sockaddr_in *at) {
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  no_delay(c->fd);
  if (!connect(c->fd, (const struct sockaddr *)at, sizeof *at)) return true;
  close(c->fd);
  c->fd = -1;
  return false;
}
static void finish(Connection *c, bool good, i64 from) {
  if (c->due >= from) {
    i64 now = now_ns();
    if (!good) failed++;
    from_due[counted] = (double)(now - c->due) / 1e3;
    from_sent[counted++] = (double)(now - c->sent) / 1e3;
  }
  c->busy = false;
}
// Reads once; ends the request when all of its answer is there.
static void hear(Connection *c, i64 from) {
  ssize_t got = c->got + 1 < sizeof c->data ? read(c->fd, c->data + c->got, sizeof c->data - 1 - c->got) : 0;
  if (got <= 0) { close(c->fd); c->fd = -1; if (c->busy) finish(c, false, from); return; }
  c->got += (size_t)got;
  c->data[c->got] = 0;
  if (!c->whole) {
    char *end = strstr(c->data, "\r\n\r\n"), *length = strcasestr(c->data, "\r\ncontent-length:");
    if (!end) return;
    c->good = !strncmp(c->data, "HTTP/1.1 200", 12);
    c->whole = (size_t)(end + 4 - c->data) + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
  }
  if (c->got >= c->whole && c->busy) finish(c, c->good, from);
}
static int compare(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
static void print_percentiles(const char *name, double *list) {
  qsort(list, (size_t)counted, sizeof *list, compare);
  const double cuts[] = {50, 90, 99};
  for (int i = 0; i < 3; i++) printf(", \"%s_p%.0f_us\": %.1f", name, cuts[i], counted ? list[(long)((double)(counted - 1) * cuts[i] / 100)] : 0);
}
static volatile sig_atomic_t told_to_end;
static void on_term(int number) { (void)number; told_to_end = 1; }
static void load(char **word) {
  struct sockaddr_in at = address(word[0], word[1]);
  double rate = atof(word[3]), warm = atof(word[5]), seconds = atof(word[6]);
  int count = atoi(word[4]);
  if (count < 1 || count > MOST_CONNECTIONS || rate <= 0) { fprintf(stderr, "steady: bad rate or connections\n"); exit(2); }
  char request[512];
  int request_size = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nhost: %s\r\n\r\n", word[2]);
  size_t most = (size_t)(rate * (seconds + warm)) + 16;
  from_due = calloc(most, sizeof(double)), from_sent = calloc(most, sizeof(double));
  for (int i = 0; i < count; i++) if (!open_connection(&connections[i], &at)) die("steady: connect");
  signal(SIGTERM, on_term);
  double gap = 1e9 / rate;
  i64 began = now_ns() + 10000000, from = began + (i64)(warm * 1e9), end = from + (i64)(seconds * 1e9), number[MOST_CONNECTIONS];
  for (int i = 0; i < count; i++) { number[i] = i; connections[i].next = began + (i64)(gap * i); }
  struct pollfd polled[MOST_CONNECTIONS];
  for (;;) {
    i64 now = now_ns();
    if (told_to_end && now < end) { end = now; seconds = (double)(end - from) / 1e9; }
    i64 soonest = now < end ? end : end + PATIENCE_S * 1000000000ll;
    int busy = 0;
    for (int i = 0; i < count; i++) {
      Connection *c = &connections[i];
      if (!c->busy && c->next < end && c->next <= now) {
        c->due = c->next, c->sent = now, c->busy = true, c->got = c->whole = 0;
        number[i] += count;
        c->next = began + (i64)(gap * (double)number[i]);
        sent_count++;
        bool there = c->fd >= 0 || open_connection(c, &at);
        if (!there || send(c->fd, request, (size_t)request_size, MSG_NOSIGNAL) != request_size) finish(c, false, from);
      }
      busy += c->busy;
      if (!c->busy && c->next < end && c->next < soonest) soonest = c->next;
      polled[i] = (struct pollfd){.fd = c->fd, .events = POLLIN};
    }
    if ((now >= end && !busy) || now >= end + PATIENCE_S * 1000000000ll) break;
    i64 left = soonest > now ? soonest - now : 0;
    struct timespec wait = {left / 1000000000, left % 1000000000};
    if (ppoll(polled, (nfds_t)count, &wait, NULL) < 0 && errno != EINTR) die("steady: poll");
    for (int i = 0; i < count; i++) if (polled[i].fd >= 0 && polled[i].revents) hear(&connections[i], from);
  }
  for (int i = 0; i < count; i++) if (connections[i].busy) finish(&connections[i], false, from);
  printf("{\"sent\": %ld, \"requests\": %ld, \"failed\": %ld, \"rate\": %.1f", sent_count, counted, failed, (double)counted / seconds);
  print_percentiles("due", from_due);
  print_percentiles("sent", from_sent);
  printf("}\n");
}

int main(int argc, char **argv) {
  if (argc == 5 && !strcmp(argv[1], "serve") && atoi(argv[4]) >= 0 && atoi(argv[4]) <= MOST_BODY) serve(argv[2], argv[3], (size_t)atoi(argv[4]));
  else if (argc == 9 && !strcmp(argv[1], "load")) load(argv + 2);
  else { fprintf(stderr, "usage: steady serve HOST PORT BYTES | steady load HOST PORT AUTHORITY RATE CONNECTIONS WARM_S SECONDS\n"); return 2; }
  return 0;
}
