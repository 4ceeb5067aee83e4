// When which stream acknowledged what, and the report.
//
// An expectation is a change that is about to be made: the resource's name and a text that only its new bytes contain. A
// stream meets it when it has ACKed bytes with that text, or with the text of a later expectation of the same name (the
// newest state wins; what lies between may be skipped). Times are CLOCK_MONOTONIC, which every process of the machine shares.
#include "fleet.h"
#include <sys/resource.h>
#include <time.h>

typedef struct Expectation {
  struct Expectation *next;             // of the same name, older
  i64 *acked_ns, began_ns, wrote_ns, last_ns;
  u32 id, name, needed, got;
  int type;
  char marker[128];
} Expectation;

Counters counters;
char last_error[512];
static Expectation **waiting[TYPES];    // by name
static u32 waiting_cap[TYPES], last_id, open_count;
static float *samples, *lasts, *whole;                 // from the write's return; the last of each; from the write's beginning
static size_t sample_count, sample_cap, last_count, last_cap, whole_count, whole_cap;
static bool sync_wanted;

i64 now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ll + t.tv_nsec; }
static void keep(float **list, size_t *n, size_t *cap, float value) {
  if (*n == *cap) *list = more(*list, sizeof **list * (*cap = *cap ? *cap * 2 : 4096));
  (*list)[(*n)++] = value;
}
static Expectation **at(int type, u32 name) {
  if (name >= waiting_cap[type]) {
    u32 cap = (name + 1) * 2;
    waiting[type] = more(waiting[type], sizeof *waiting[type] * cap);
    memset(waiting[type] + waiting_cap[type], 0, sizeof *waiting[type] * (cap - waiting_cap[type]));
    waiting_cap[type] = cap;
  }
  return &waiting[type][name];
}
void measure_expect(int type, u32 name, const char *marker) {
  Expectation *e = calloc(1, sizeof *e), **list = at(type, name);
  if (!e) die("memory");
  *e = (Expectation){.next = *list, .id = ++last_id, .name = name, .type = type};
  snprintf(e->marker, sizeof e->marker, "%s", marker);
  e->acked_ns = calloc(options.streams, sizeof *e->acked_ns);
  if (!e->acked_ns) die("memory");
  for (int i = 0; i < options.streams; i++) {
    const Held *h = &streams[i].held[type];
    if (name < h->cap && h->flags[name] & WANTED && !streams[i].stalled) e->needed++; else e->acked_ns[i] = -1;
  }
  *list = e;
  open_count++;
  printf("{\"event\":\"expecting\",\"id\":%u,\"needed\":%u}\n", e->id, e->needed);
}
static void settle(Expectation *e) {    // all have acknowledged and the time of the write is known
  if (e->got < e->needed || !e->wrote_ns) return;
  for (int i = 0; i < options.streams; i++)
    if (e->acked_ns[i] > 0) {
      float ms = (e->acked_ns[i] - e->wrote_ns) / 1e6f;
      keep(&samples, &sample_count, &sample_cap, ms > 0 ? ms : 0);
      keep(&whole, &whole_count, &whole_cap, (e->acked_ns[i] - e->began_ns) / 1e6f);
    }
  float last = e->needed ? (e->last_ns - e->wrote_ns) / 1e6f : 0;
  keep(&lasts, &last_count, &last_cap, last > 0 ? last : 0);
  printf("{\"event\":\"acked\",\"id\":%u,\"needed\":%u,\"last_ms\":%.3f}\n", e->id, e->needed, last > 0 ? last : 0);
  Expectation **link = at(e->type, e->name);
  while (*link != e) link = &(*link)->next;
  *link = e->next;
  open_count--;
  free(e->acked_ns);
  free(e);
}
void measure_wrote(u32 id, i64 began_ns, i64 at_ns) {
  for (int t = 0; t < TYPES; t++)
    for (u32 n = 0; n < waiting_cap[t]; n++)
      for (Expectation *e = waiting[t][n]; e; e = e->next)
        if (e->id == id) { e->began_ns = began_ns; e->wrote_ns = at_ns; settle(e); return; }
}
u32 measure_mark(int type, u32 name, View body) {
  if (name >= waiting_cap[type]) return 0;
  for (const Expectation *e = waiting[type][name]; e; e = e->next)
    if (memmem(body.p, body.n, e->marker, strlen(e->marker))) return e->id;
  return 0;
}
void measure_received(Stream *s, int type, u32 name, u32 content) {
  if (!open_count || name >= waiting_cap[type] || !waiting[type][name]) return;
  u32 mark = content_at(content)->mark;
  for (const Expectation *e = waiting[type][name]; e; e = e->next) {
    if (e->id > mark || e->acked_ns[s->index]) continue;
    if (s->hit_count + 3 > s->hit_cap) s->hits = more(s->hits, sizeof *s->hits * (s->hit_cap = s->hit_cap * 2 + 12));
    memcpy(s->hits + s->hit_count, (u32[]){type, name, e->id}, 12);
    s->hit_count += 3;
  }
}
void measure_flushed(Stream *s) {       // the ACK of what was received has been handed to the kernel
  if (!s->hit_count) return;
  i64 now = now_ns();
  u32 n = s->hit_count;
  s->hit_count = 0;
  for (u32 i = 0; i < n; i += 3)
    for (Expectation *e = *at(s->hits[i], s->hits[i + 1]); e; e = e->next)
      if (e->id == s->hits[i + 2]) {
        if (!e->acked_ns[s->index]) { e->acked_ns[s->index] = e->last_ns = now; e->got++; settle(e); }
        break;
      }
}
static u32 synced_count(void) {
  u32 n = 0;
  for (int i = 0; i < options.streams; i++) n += streams[i].synced;
  return n;
}
static u32 all_synced;
void measure_synced(Stream *s) {
  all_synced += s->synced ? 1 : -1;
  if (sync_wanted && all_synced == (u32)options.streams) measure_await_sync();
}
void measure_await_sync(void) {
  all_synced = synced_count();
  sync_wanted = all_synced < (u32)options.streams;
  if (!sync_wanted) printf("{\"event\":\"synced\",\"at_ns\":%lld}\n", (long long)now_ns());
}
void measure_reset(void) {
  memset(&counters, 0, sizeof counters);
  sample_count = last_count = whole_count = 0;
  *last_error = 0;
}
static int by_value(const void *a, const void *b) { float x = *(const float *)a, y = *(const float *)b; return x < y ? -1 : x > y; }
static void percentiles(const char *name, float *list, size_t n) {
  if (n) qsort(list, n, sizeof *list, by_value);
  const double share[] = {0.5, 0.9, 0.99, 1};
  const char *const word[] = {"p50", "p90", "p99", "max"};
  printf(",\"%s_count\":%zu", name, n);
  for (int i = 0; i < 4 && n; i++) {
    size_t k = (size_t)(share[i] * n + 0.999999);
    printf(",\"%s_%s\":%.3f", name, word[i], list[k ? k - 1 : 0]);
  }
}
static void by_type(const char *name, const u64 *values) {
  for (int t = 0; t < TYPES; t++) printf(",\"%s_%s\":%llu", name, type_word[t], (unsigned long long)values[t]);
}
static void put_escaped(const char *text) {
  for (; *text; text++) { if (*text == '"' || *text == '\\') putchar('\\'); putchar((u8)*text < 32 || (u8)*text > 126 ? '?' : *text); }
}
void measure_report(void) {
  const Counters *c = &counters;
  if (bodies) fflush(bodies);
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  double cpu = use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
  u32 connected = 0;
  for (int i = 0; i < options.streams; i++) connected += streams[i].state == OPEN;
  printf("{\"event\":\"report\",\"connected\":%u,\"synced\":%u,\"waiting\":%u,\"contents\":%u,\"fleet_cpu_s\":%.3f", connected,
         synced_count(), open_count, content_count(), cpu);
  percentiles("ack_ms", samples, sample_count);
  percentiles("last_ms", lasts, last_count);
  percentiles("whole_ms", whole, whole_count);
  by_type("messages", c->messages);
  by_type("resources", c->resources);
  by_type("removed", c->removed);
#define FIELD(name) printf(",\"" #name "\":%llu", (unsigned long long)c->name)
  FIELD(bytes); FIELD(wire_bytes); FIELD(acks); FIELD(nacks);
  FIELD(versions_back); FIELD(missing_references); FIELD(removed_in_use); FIELD(malformed); FIELD(changed_under_version);
  FIELD(unknown_type); FIELD(unasked); FIELD(protocol_errors);
  FIELD(connects); FIELD(disconnects); FIELD(goaways); FIELD(resets); FIELD(refused_connections); FIELD(tls_failures);
  u64 ended = 0;
  for (int i = 1; i < 18; i++) ended += c->statuses[i];
  printf(",\"ended_with_error\":%llu,\"statuses\":\"", (unsigned long long)ended);
  for (int i = 0; i < 18; i++) if (c->statuses[i]) printf("%s%d:%llu ", i == 17 ? "none/" : "", i, (unsigned long long)c->statuses[i]);
  printf("\",\"last_error\":\"");
  put_escaped(last_error);
  printf("\"}\n");
}
