// A fleet of lean ADS clients in one process: what its parts share.
//
//   fleet.c    arguments, the event loop, the line protocol         http2.c  TCP, HTTP/2 frames, flow control
//   xds.c      one stream's protocol state: what Envoy would ask    tls.c    an identity a connection, by OpenSSL
//   measure.c  when which stream acknowledged what; the report      table.c  every name and content once, examined
//
// A content is one resource's bytes, kept once for the whole fleet: streams hold its number, 4 bytes a resource.
#pragma once
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

typedef struct { u8 *p; size_t n, cap; } Buf;
typedef struct { const u8 *p; size_t n; } View;

enum { CLUSTER, ENDPOINT, LISTENER, ROUTE, EXTENSION, TYPES };
enum { WANTED = 1, ANSWERED = 2 };

// ---- memory and protobuf, just enough (table.c) -----------------------------------------------------------------------
typedef struct { const u8 *p, *end; u32 field; int wire; u64 value; View bytes; bool bad; } Reader;

void die(const char *what);
void *more(void *p, size_t bytes);
void reserve(Buf *b, size_t extra);
void put(Buf *b, const void *p, size_t n);
void drop(Buf *b, size_t n);            // the first n bytes; gives back memory of a large buffer that is empty
void put_varint(Buf *b, u64 v);
void put_bytes(Buf *b, u32 field, View v);
Reader reader(View v);
bool next_field(Reader *r);             // false at the end, or with r->bad set
static inline View text_view(const char *s) { return (View){(const u8 *)s, strlen(s)}; }
static inline View buf_view(const Buf *b) { return (View){b->p, b->n}; }
static inline bool same(View a, View b) { return a.n == b.n && !memcmp(a.p, b.p, a.n); }

// ---- names and contents (table.c) -------------------------------------------------------------------------------------
typedef struct { u32 name; u8 type; } Ref;
typedef struct {
  u64 hash;
  u32 name, size, references, mark, order;
  u8 type;
  bool malformed;
  Ref *refs;                            // what it refers to: EDS names, route configurations, clusters, extensions
  char *version;                        // as the server called it first; "" in state of the world
} Content;

extern const char *const type_url[TYPES];
extern const char *const type_word[TYPES];
extern FILE *bodies;                    // every content's bytes as it is first seen, if somebody wants them
int type_of_url(View url);              // -1: none that is asked for
int type_of_word(const char *word);
u32 name_id(int type, View name);       // from 1
u32 name_count(int type);
View name_text(int type, u32 id);
u32 content_id(int type, u32 name, View body, View version);   // from 1
Content *content_at(u32 id);
u32 content_count(void);

// ---- one stream (xds.c) -----------------------------------------------------------------------------------------------
typedef struct {
  u32 *content;                         // by name: what is held, 0 for nothing
  u8 *flags;                            // by name: WANTED, ANSWERED
  u32 cap, missing;                     // wanted names that were not answered yet
  bool requested, answered;
  Buf version, nonce;                   // of the last response: state of the world repeats them
} Held;

enum { DOWN, CONNECTING, SHAKING, OPEN };
typedef struct {
  int index, fd, state;
  void *ssl;                            // NULL: plaintext
  View node;
  const char *certificate;
  bool stalled, blocked, synced, headers_end_stream, goaway;
  Buf in, header, message, out, data;   // data: gRPC bytes that wait for the peer's window
  size_t written;                       // of out
  i64 connection_window, stream_window, initial_window, largest_frame;
  u32 connection_received, stream_received;
  int attempts;
  i64 due_ns, connected_ns, synced_ns;
  u64 version;                          // system_version_info, where it is a number
  Held held[TYPES];
  u32 *hits, hit_count, hit_cap;        // expectations met by what was read, until its ACK is written
} Stream;

typedef struct {
  int port, streams, backoff_first_ms, backoff_longest_ms;
  const char *host, *server_name, *roots;
  bool delta, tls;
  u32 stream_window;
} Options;
extern Options options;
extern Stream *streams;

void xds_open(Stream *s);               // the first requests, all of them on a reconnect
void xds_message(Stream *s, View message);
void xds_lost(Stream *s);
extern char nack_pattern[512];
extern int nack_type, nack_streams;

// ---- transport (http2.c) ----------------------------------------------------------------------------------------------
void transport_init(void);
void transport_connect(Stream *s);
void transport_event(Stream *s, u32 events);
void transport_send(Stream *s, const Buf *message);   // one gRPC message
void transport_close(Stream *s, const char *why);
void transport_stall(Stream *s, bool stalled);
extern int epoll_fd;

// ---- TLS (tls.c) ------------------------------------------------------------------------------------------------------
enum { WOULD_BLOCK = -1, BROKEN = -2 };
enum { SHAKEN, WANTS_READ, WANTS_WRITE, REFUSED };
void tls_init(void);
void tls_open(Stream *s);
int tls_shake(Stream *s);
const char *tls_reason(void);
ssize_t tls_read(Stream *s, void *p, size_t n);
ssize_t tls_write(Stream *s, const void *p, size_t n);
void tls_close(Stream *s);

// ---- measuring (measure.c) --------------------------------------------------------------------------------------------
typedef struct {
  u64 messages[TYPES], resources[TYPES], removed[TYPES], bytes, wire_bytes, acks, nacks;
  u64 versions_back, missing_references, removed_in_use, malformed, changed_under_version, unknown_type, unasked;
  u64 connects, disconnects, goaways, resets, refused_connections, tls_failures, protocol_errors, statuses[18];
} Counters;
extern Counters counters;
extern char last_error[512];
i64 now_ns(void);
u32 measure_mark(int type, u32 name, View body);      // number of the newest expectation that these bytes meet
void measure_received(Stream *s, int type, u32 name, u32 content);
void measure_flushed(Stream *s);
void measure_synced(Stream *s);
void measure_expect(int type, u32 name, const char *marker);
void measure_wrote(u32 id, i64 began_ns, i64 at_ns);
void measure_reset(void);
void measure_report(void);
void measure_await_sync(void);
