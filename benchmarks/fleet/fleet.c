// A fleet of ADS clients: thousands of streams, each on a connection and with an identity of its own, in one thread.
//
//   fleet --port N --streams M --nodes FILE [--roots FILE] [--sotw] ...        commands on stdin, one JSON object a line out
//
// FILE holds, for each stream, two length-prefixed (32 bits, this machine's order) values: its Node message, and the path
// of its certificate and key in PEM (empty without TLS). Commands:
//   connect            open all streams; each one that ends is opened again after a jittered back-off
//   sync               event "synced" once every stream has all that it asked for
//   expect TYPE NAME MARKER   before a change: event "expecting"; once all have ACKed and `wrote` is known, event "acked"
//   wrote ID BEGAN RETURNED   when the write of that change began and returned (ns)
//   nack STREAMS TYPE PATTERN   the first STREAMS streams refuse resources whose name matches; 0: none
//   stall STREAMS      the first STREAMS streams stop reading; the rest go on
//   restart STREAMS    the first STREAMS streams close their connection and come back
//   reset, report      counters to zero; event "report"
#include "fleet.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

Options options = {.host = "127.0.0.1", .server_name = "localhost", .delta = true, .streams = 1, .stream_window = 16 << 20,
                   .backoff_first_ms = 100, .backoff_longest_ms = 5000};
Stream *streams;
static bool wanted, finished;

static void read_nodes(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) die(path);
  for (int i = 0; i < options.streams; i++) {
    u8 *part[2];
    u32 size[2];
    for (int k = 0; k < 2; k++) {
      if (fread(&size[k], 4, 1, f) != 1 || size[k] > 1 << 20) { fprintf(stderr, "fleet: %s ends before stream %d\n", path, i); exit(2); }
      part[k] = more(NULL, size[k] + 1);
      if (size[k] && fread(part[k], size[k], 1, f) != 1) { fprintf(stderr, "fleet: %s ends within stream %d\n", path, i); exit(2); }
      part[k][size[k]] = 0;
    }
    streams[i] = (Stream){.index = i, .fd = -1, .node = {part[0], size[0]}, .certificate = (char *)part[1]};
  }
  fclose(f);
}
static void stall(int count) { for (int i = 0; i < options.streams; i++) if (streams[i].stalled != (i < count)) transport_stall(&streams[i], i < count); }
static void command(char *line) {
  char word[16] = "", name[512] = "", marker[128] = "", pattern[512] = "";
  u32 id = 0;
  int count = 0;
  long long began = 0, ns = 0;
  if (sscanf(line, "expect %15s %511s %127s", word, name, marker) == 3 && type_of_word(word) >= 0)
    measure_expect(type_of_word(word), name_id(type_of_word(word), text_view(name)), marker);
  else if (sscanf(line, "wrote %u %lld %lld", &id, &began, &ns) == 3) measure_wrote(id, began, ns);
  else if (sscanf(line, "nack %d %15s %511s", &count, word, pattern) == 3 && type_of_word(word) >= 0) {
    nack_streams = count;
    nack_type = type_of_word(word);
    memcpy(nack_pattern, pattern, sizeof nack_pattern);
  } else if (sscanf(line, "stall %d", &count) == 1) stall(count);
  else if (sscanf(line, "restart %d", &count) == 1) {
    for (int i = 0; i < count && i < options.streams; i++) transport_close(&streams[i], NULL);
  } else if (!strcmp(line, "connect")) wanted = true;
  else if (!strcmp(line, "sync")) measure_await_sync();
  else if (!strcmp(line, "reset")) measure_reset();
  else if (!strcmp(line, "report")) measure_report();
  else { printf("{\"event\":\"refused\",\"command\":\"%.20s\"}\n", strpbrk(line, "\"\\") ? "?" : line); }
}
static void on_input(void) {
  static Buf input;
  u8 chunk[4096];
  ssize_t n = read(0, chunk, sizeof chunk);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) { finished = true; return; }
  put(&input, chunk, n);
  for (u8 *end; (end = memchr(input.p, '\n', input.n));) {
    *end = 0;
    size_t size = end - input.p + 1;
    command((char *)input.p);
    drop(&input, size);
    if (!input.n) break;
  }
  fflush(stdout);
}
static void open_due(void) {
  i64 now = now_ns();
  for (int i = 0; wanted && i < options.streams; i++)
    if (streams[i].fd < 0 && streams[i].due_ns <= now) transport_connect(&streams[i]);
}
static void loop(void) {
  struct epoll_event events[256], input = {EPOLLIN, {.ptr = NULL}};
  fcntl(0, F_SETFL, O_NONBLOCK);
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input)) die("stdin");
  for (i64 next = 0; !finished;) {
    if (now_ns() >= next) { open_due(); next = now_ns() + 20000000; }
    int n = epoll_wait(epoll_fd, events, 256, 20);
    for (int i = 0; i < n; i++) {
      Stream *s = events[i].data.ptr;
      if (!s) on_input();
      else if (s->fd >= 0) transport_event(s, events[i].events);
    }
    fflush(stdout);
  }
}
static const struct option flags[] = {
    {"port", 1, 0, 'p'}, {"host", 1, 0, 'h'}, {"streams", 1, 0, 'm'}, {"nodes", 1, 0, 'n'}, {"roots", 1, 0, 'r'},
    {"server-name", 1, 0, 's'}, {"sotw", 0, 0, 'w'}, {"bodies", 1, 0, 'b'}, {"window", 1, 0, 'o'},
    {"backoff-first-ms", 1, 0, 'f'}, {"backoff-longest-ms", 1, 0, 'l'}, {0}};
int main(int argc, char **argv) {
  const char *nodes = NULL;
  for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) switch (flag) {
    case 'p': options.port = atoi(optarg); break;
    case 'h': options.host = optarg; break;
    case 'm': options.streams = atoi(optarg); break;
    case 'n': nodes = optarg; break;
    case 'r': options.roots = optarg; options.tls = true; break;
    case 's': options.server_name = optarg; break;
    case 'w': options.delta = false; break;
    case 'b': if (!(bodies = fopen(optarg, "wb"))) die(optarg); break;
    case 'o': options.stream_window = atoi(optarg); break;
    case 'f': options.backoff_first_ms = atoi(optarg); break;
    case 'l': options.backoff_longest_ms = atoi(optarg); break;
    default: return 2;
  }
  if (!nodes || options.port < 1 || options.streams < 1 || options.stream_window < 65535) {
    fprintf(stderr, "use: fleet --port N --streams M --nodes FILE [--host IP] [--roots FILE] [--server-name NAME] [--sotw]\n"
                    "             [--bodies FILE] [--window BYTES] [--backoff-first-ms N] [--backoff-longest-ms N]\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files;
  if (!getrlimit(RLIMIT_NOFILE, &files)) { files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
  srand48(getpid());
  streams = calloc(options.streams, sizeof *streams);
  if (!streams) die("memory");
  read_nodes(nodes);
  transport_init();
  printf("{\"event\":\"ready\",\"streams\":%d}\n", options.streams);
  fflush(stdout);
  loop();
  if (bodies) fclose(bodies);
  return 0;
}
