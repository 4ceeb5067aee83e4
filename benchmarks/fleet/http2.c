// One connection a stream: TCP, TLS where asked for, HTTP/2 with one gRPC stream.
//
// RFC 9113 as far as a client of one stream needs it: both flow-control windows in both directions, SETTINGS, PING,
// GOAWAY, RST_STREAM, CONTINUATION, padding. RFC 7541: requests are literals without indexing; the dynamic table is set to
// size 0, so that reading a status needs no state.
#include "fleet.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, WITH_PRIORITY = 32 };
enum { STREAM_ID = 1, CONNECTION_WINDOW = 24 << 20, LARGEST_HEADER = 65536 };
#define LARGEST_WINDOW 0x7fffffffll

int epoll_fd;
static u32 be32(const u8 *p) { return (u32)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

void transport_init(void) {
  if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
  if (options.tls) tls_init();
}

static void listen_to(Stream *s, int op) {
  u32 mask = (s->stalled ? 0 : EPOLLIN) | (s->blocked ? EPOLLOUT : 0);
  struct epoll_event event = {mask, {.ptr = s}};
  if (epoll_ctl(epoll_fd, op, s->fd, &event)) die("epoll_ctl");
}
static void block(Stream *s, bool blocked) {
  if (s->blocked != blocked) { s->blocked = blocked; listen_to(s, EPOLL_CTL_MOD); }
}
void transport_stall(Stream *s, bool stalled) {
  s->stalled = stalled;
  if (s->fd >= 0) listen_to(s, EPOLL_CTL_MOD);
}

void transport_close(Stream *s, const char *why) {
  if (s->fd < 0) return;
  if (why) snprintf(last_error, sizeof last_error, "stream %d: %s", s->index, why);
  tls_close(s);
  close(s->fd);
  s->fd = -1;
  if (s->state == OPEN) counters.disconnects++;
  s->state = DOWN;
  s->in.n = s->header.n = s->message.n = s->out.n = s->data.n = 0;
  drop(&s->in, 0); drop(&s->message, 0); drop(&s->out, 0); drop(&s->data, 0);
  s->written = 0;
  s->blocked = false;
  xds_lost(s);
  i64 longest = (i64)options.backoff_first_ms << (s->attempts < 12 ? s->attempts : 12);
  if (longest > options.backoff_longest_ms) longest = options.backoff_longest_ms;
  s->attempts++;
  s->due_ns = now_ns() + (i64)((0.5 + drand48()) * longest * 1e6);     // an agent's jitter
}

// ---- writing ----------------------------------------------------------------------------------------------------------
static void frame(Stream *s, int type, int flags, u32 stream, const void *p, size_t n) {
  u8 head[9] = {n >> 16, n >> 8, n, type, flags, stream >> 24, stream >> 16, stream >> 8, stream};
  put(&s->out, head, 9);
  put(&s->out, p, n);
}
static void window_update(Stream *s, u32 stream, u32 by) {
  u32 value = htonl(by);
  frame(s, WINDOW_UPDATE, 0, stream, &value, 4);
}
static void fill(Stream *s) {           // DATA as far as both windows allow
  size_t at = 0;
  while (at < s->data.n) {
    i64 n = s->data.n - at;
    if (n > s->largest_frame) n = s->largest_frame;
    if (n > s->connection_window) n = s->connection_window;
    if (n > s->stream_window) n = s->stream_window;
    if (n <= 0) break;
    frame(s, DATA, 0, STREAM_ID, s->data.p + at, n);
    s->connection_window -= n;
    s->stream_window -= n;
    at += n;
  }
  drop(&s->data, at);
}
static ssize_t write_some(Stream *s) {
  const u8 *p = s->out.p + s->written;
  size_t n = s->out.n - s->written;
  if (s->ssl) return tls_write(s, p, n);
  ssize_t got = send(s->fd, p, n, MSG_NOSIGNAL);
  return got >= 0 ? got : errno == EAGAIN || errno == EINTR ? WOULD_BLOCK : BROKEN;
}
static ssize_t read_some(Stream *s, u8 *p, size_t n) {
  if (s->ssl) return tls_read(s, p, n);
  ssize_t got = recv(s->fd, p, n, 0);
  return got > 0 ? got : got < 0 && (errno == EAGAIN || errno == EINTR) ? WOULD_BLOCK : BROKEN;
}
static void flush(Stream *s) {
  if (s->state != OPEN) return;
  fill(s);
  while (s->written < s->out.n) {
    ssize_t n = write_some(s);
    if (n == WOULD_BLOCK) { block(s, true); return; }
    if (n == BROKEN) { transport_close(s, "the connection broke while writing"); return; }
    s->written += n;
  }
  s->written = 0;
  s->out.n = 0;
  drop(&s->out, 0);
  block(s, false);
  if (!s->data.n) measure_flushed(s);
}
void transport_send(Stream *s, const Buf *message) {
  u8 prefix[5] = {0, message->n >> 24, message->n >> 16, message->n >> 8, message->n};
  put(&s->data, prefix, 5);
  put(&s->data, message->p, message->n);
}

static void put_text(Buf *h, const char *text) { u8 n = strlen(text); put(h, &n, 1); put(h, text, n); }   // up to 126 bytes
static void open_stream(Stream *s) {
  put(&s->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  u8 settings[] = {0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0,                 // no dynamic table, no push
                   0, 4, options.stream_window >> 24, options.stream_window >> 16, options.stream_window >> 8, options.stream_window};
  frame(s, SETTINGS, 0, 0, settings, sizeof settings);
  window_update(s, 0, CONNECTION_WINDOW - 65535);
  Buf h = {0};
  put(&h, options.tls ? "\x83\x87\x04" : "\x83\x86\x04", 3);           // :method POST, :scheme, :path
  put_text(&h, options.delta ? "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
                             : "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources");
  put(&h, "\x01", 1);
  put_text(&h, options.server_name);                                   // :authority
  put(&h, "\x0f\x10", 2);
  put_text(&h, "application/grpc");                                    // content-type
  put(&h, "\x00", 1);
  put_text(&h, "te");
  put_text(&h, "trailers");
  frame(s, HEADERS, END_HEADERS, STREAM_ID, h.p, h.n);
  free(h.p);
}
static void opened(Stream *s) {
  s->state = OPEN;
  s->connection_window = s->stream_window = s->initial_window = 65535;
  s->largest_frame = 16384;
  s->connection_received = s->stream_received = 0;
  s->goaway = false;
  counters.connects++;
  s->connected_ns = now_ns();
  open_stream(s);
  xds_open(s);
  flush(s);
}

// ---- opening ----------------------------------------------------------------------------------------------------------
static void shake(Stream *s) {
  switch (tls_shake(s)) {
    case SHAKEN: block(s, false); opened(s); return;
    case WANTS_READ: block(s, false); return;
    case WANTS_WRITE: block(s, true); return;
    default:
      counters.tls_failures++;
      transport_close(s, tls_reason());
  }
}
static void connected(Stream *s) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
    counters.refused_connections++;
    transport_close(s, strerror(error));
    return;
  }
  if (!options.tls) { block(s, false); opened(s); return; }
  tls_open(s);
  s->state = SHAKING;
  shake(s);
}
void transport_connect(Stream *s) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(options.port)};
  if (inet_pton(AF_INET, options.host, &to.sin_addr) != 1) { fprintf(stderr, "fleet: --host %s is no IPv4 address\n", options.host); exit(2); }
  if ((s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) die("socket");
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  s->state = CONNECTING;
  s->blocked = true;
  int failed = connect(s->fd, (void *)&to, sizeof to) && errno != EINPROGRESS;
  listen_to(s, EPOLL_CTL_ADD);
  if (failed) { counters.refused_connections++; transport_close(s, "the connection was refused"); }
}

// ---- headers ----------------------------------------------------------------------------------------------------------
static bool integer(const u8 **p, const u8 *end, int bits, u32 *v) {   // RFC 7541, 5.1
  u32 most = (1u << bits) - 1;
  if (*p >= end) return false;
  if ((*v = *(*p)++ & most) < most) return true;
  for (int shift = 0; *p < end && shift < 28; shift += 7) {
    u8 c = *(*p)++;
    *v += (u32)(c & 127) << shift;
    if (c < 128) return true;
  }
  return false;
}
static bool text(const u8 **p, const u8 *end, View *v, bool *huffman) {
  if (*p >= end) return false;
  *huffman = **p & 128;
  u32 n;
  if (!integer(p, end, 7, &n) || n > (u32)(end - *p)) return false;
  *v = (View){*p, n};
  *p += n;
  return true;
}
static int number(View v, bool huffman) {                              // digits; -1 for anything else
  if (!huffman) {
    int value = 0;
    for (size_t i = 0; i < v.n; i++) { if (v.p[i] < '0' || v.p[i] > '9' || value > 999) return -1; value = value * 10 + v.p[i] - '0'; }
    return v.n ? value : -1;
  }
  int value = -1, left = v.n * 8, at = 0;                              // RFC 7541, appendix B: 0-2 have 5 bits, 3-9 have 6
  while (left >= 5) {
    u32 window = v.p[at / 8] << 8 | (at / 8 + 1 < (int)v.n ? v.p[at / 8 + 1] : 0xff);
    u32 six = window >> (10 - at % 8) & 63;
    if (six >> 1 <= 2) { value = (value < 0 ? 0 : value) * 10 + (six >> 1); at += 5; left -= 5; }
    else if (left >= 6 && six >= 25 && six <= 31) { value = (value < 0 ? 0 : value) * 10 + (six - 22); at += 6; left -= 6; }
    else break;
    if (value > 999) return -1;
  }
  return value;
}
static int grpc_status(View block) {                                   // -1: none in it; -2: not a header block
  static const u8 coded[] = {0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f};   // "grpc-status" in Huffman's code
  const u8 *p = block.p, *end = p + block.n;
  int status = -1;
  while (p < end) {
    u32 index;
    View name = {0}, value;
    bool name_coded = false, value_coded;
    if (*p & 128) { if (!integer(&p, end, 7, &index)) return -2; continue; }
    if ((*p & 0xe0) == 0x20) { if (!integer(&p, end, 5, &index)) return -2; continue; }   // a table size
    if (!integer(&p, end, *p & 64 ? 6 : 4, &index)) return -2;
    if (!index && !text(&p, end, &name, &name_coded)) return -2;
    if (!text(&p, end, &value, &value_coded)) return -2;
    bool is_status = name_coded ? same(name, (View){coded, sizeof coded}) : same(name, text_view("grpc-status"));
    if (is_status) status = number(value, value_coded);
    if (!name_coded && !value_coded && same(name, text_view("grpc-message")) && value.n)
      snprintf(last_error, sizeof last_error, "grpc-message: %.*s", (int)(value.n < 400 ? value.n : 400), value.p);
  }
  return status;
}
static bool headers_complete(Stream *s) {
  int status = grpc_status(buf_view(&s->header));
  s->header.n = 0;
  if (status == -2) { counters.protocol_errors++; transport_close(s, "headers that are none"); return false; }
  if (!s->headers_end_stream) return true;
  counters.statuses[status >= 0 && status <= 16 ? status : 17]++;
  transport_close(s, NULL);
  return false;
}

// ---- reading ----------------------------------------------------------------------------------------------------------
static bool on_data(Stream *s, int flags, View v, u32 stream) {
  s->connection_received += v.n;
  s->stream_received += v.n;
  if (flags & PADDED) {
    if (!v.n || v.p[0] >= v.n) return false;
    v = (View){v.p + 1, v.n - 1 - v.p[0]};
  }
  if (stream != STREAM_ID) return false;
  put(&s->message, v.p, v.n);
  size_t at = 0;
  while (s->state == OPEN && s->message.n - at >= 5) {
    size_t n = be32(s->message.p + at + 1);
    if (s->message.p[at]) return false;                                // compressed: nobody asked for it
    if (s->message.n - at < 5 + n) break;
    counters.bytes += n;
    xds_message(s, (View){s->message.p + at + 5, n});
    at += 5 + n;
  }
  if (s->state != OPEN) return true;
  drop(&s->message, at);
  if (s->connection_received >= CONNECTION_WINDOW / 2) { window_update(s, 0, s->connection_received); s->connection_received = 0; }
  if (s->stream_received >= options.stream_window / 2) { window_update(s, STREAM_ID, s->stream_received); s->stream_received = 0; }
  if (flags & END_STREAM) { counters.statuses[17]++; transport_close(s, "the stream ended without a status"); }
  return true;
}
static bool on_headers(Stream *s, int type, int flags, View v) {
  if (type == HEADERS) {
    size_t pad = 0, skip = 0;
    if (flags & PADDED) { if (!v.n) return false; pad = v.p[0]; skip = 1; }
    if (flags & WITH_PRIORITY) skip += 5;
    if (skip + pad > v.n) return false;
    v = (View){v.p + skip, v.n - skip - pad};
    s->headers_end_stream = flags & END_STREAM;
  }
  if (s->header.n + v.n > LARGEST_HEADER) return false;
  put(&s->header, v.p, v.n);
  return flags & END_HEADERS ? headers_complete(s) || s->state == DOWN : true;
}
static bool on_settings(Stream *s, int flags, View v) {
  if (flags & ACK) return true;
  if (v.n % 6) return false;
  for (size_t at = 0; at < v.n; at += 6) {
    int id = v.p[at] << 8 | v.p[at + 1];
    i64 value = be32(v.p + at + 2);
    if (id == 4) { if (value > LARGEST_WINDOW) return false; s->stream_window += value - s->initial_window; s->initial_window = value; }
    if (id == 5) { if (value < 16384 || value > 16777215) return false; s->largest_frame = value; }
  }
  frame(s, SETTINGS, ACK, 0, NULL, 0);
  return true;
}
static bool on_frame(Stream *s, int type, int flags, u32 stream, View v) {   // false: the peer breaks the protocol
  switch (type) {
    case DATA: return on_data(s, flags, v, stream);
    case HEADERS: case CONTINUATION: return on_headers(s, type, flags, v);
    case SETTINGS: return on_settings(s, flags, v);
    case PUSH_PROMISE: return false;
    case PING:
      if (v.n != 8) return false;
      if (!(flags & ACK)) frame(s, PING, ACK, 0, v.p, 8);
      return true;
    case WINDOW_UPDATE: {
      if (v.n != 4) return false;
      i64 *window = stream ? &s->stream_window : &s->connection_window, by = be32(v.p) & 0x7fffffff;
      *window += by;
      return by && *window <= LARGEST_WINDOW;
    }
    case RST_STREAM:
      counters.resets++;
      transport_close(s, "the server reset the stream");
      return true;
    case GOAWAY:                                                       // what is open may be finished; new ones go elsewhere
      if (v.n < 8) return false;
      if (!s->goaway) counters.goaways++;
      s->goaway = true;
      if ((be32(v.p) & 0x7fffffff) < STREAM_ID) transport_close(s, "the server went away before it saw the stream");
      return true;
    default: return true;
  }
}
static bool on_bytes(Stream *s, const u8 *p, size_t n) {
  bool direct = s->in.n == 0;
  if (!direct) { put(&s->in, p, n); p = s->in.p; n = s->in.n; }
  size_t at = 0;
  while (s->state == OPEN && n - at >= 9) {
    size_t size = (size_t)p[at] << 16 | p[at + 1] << 8 | p[at + 2];
    if (size > 16384) return false;
    if (n - at < 9 + size) break;
    if (!on_frame(s, p[at + 3], p[at + 4], be32(p + at + 5) & 0x7fffffff, (View){p + at + 9, size})) return false;
    at += 9 + size;
  }
  if (s->state != OPEN) return true;
  if (direct) put(&s->in, p + at, n - at); else drop(&s->in, at);
  return true;
}
static void on_readable(Stream *s) {
  static u8 chunk[1 << 18];
  for (size_t taken = 0; s->state == OPEN && taken < 4 * sizeof chunk;) {   // then the others have their turn
    ssize_t n = read_some(s, chunk, sizeof chunk);
    if (n == WOULD_BLOCK) break;
    if (n == BROKEN) { transport_close(s, "the connection ended"); return; }
    taken += n;
    counters.wire_bytes += n;
    if (!on_bytes(s, chunk, n)) { counters.protocol_errors++; transport_close(s, "the server broke HTTP/2"); return; }
    if (!s->ssl && n < (ssize_t)sizeof chunk) break;
  }
  flush(s);
}
void transport_event(Stream *s, u32 events) {
  if (s->state == CONNECTING) { connected(s); return; }
  if (s->state == SHAKING) { shake(s); return; }
  if (s->state == OPEN && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(s);
  if (s->state == OPEN && events & EPOLLOUT) flush(s);
}
