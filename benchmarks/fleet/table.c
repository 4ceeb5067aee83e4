// Names and contents, each kept once; a content is examined when it is first seen.
#include "fleet.h"

const char *const type_url[TYPES] = {
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
};
const char *const type_word[TYPES] = {"cds", "eds", "lds", "rds", "ecds"};
FILE *bodies;

void die(const char *what) { perror(what); exit(1); }
void *more(void *p, size_t bytes) {
  void *got = realloc(p, bytes);
  if (!got && bytes) die("memory");
  return got;
}
void reserve(Buf *b, size_t extra) {
  if (b->n + extra <= b->cap) return;
  b->cap = (b->n + extra) * 2;
  b->p = more(b->p, b->cap);
}
void put(Buf *b, const void *p, size_t n) {
  if (!n) return;
  reserve(b, n);
  memcpy(b->p + b->n, p, n);
  b->n += n;
}
void drop(Buf *b, size_t n) {
  if (n) memmove(b->p, b->p + n, b->n - n);
  b->n -= n;
  if (!b->n && b->cap > 32768) { free(b->p); *b = (Buf){0}; }
}
void put_varint(Buf *b, u64 v) {
  for (; v > 127; v >>= 7) put(b, &(u8){(v & 127) | 128}, 1);
  put(b, &(u8){v}, 1);
}
void put_bytes(Buf *b, u32 field, View v) { put_varint(b, field << 3 | 2); put_varint(b, v.n); put(b, v.p, v.n); }

Reader reader(View v) { return (Reader){.p = v.p, .end = v.p + v.n}; }
static bool read_varint(Reader *r, u64 *v) {
  *v = 0;
  for (int shift = 0; r->p < r->end && shift < 64; shift += 7) {
    u8 c = *r->p++;
    *v |= (u64)(c & 127) << shift;
    if (c < 128) return true;
  }
  return false;
}
bool next_field(Reader *r) {
  if (r->p >= r->end) return false;
  u64 tag;
  if (!read_varint(r, &tag) || !(tag >> 3)) return r->bad = true, false;
  r->field = tag >> 3;
  r->wire = tag & 7;
  size_t fixed = r->wire == 1 ? 8 : r->wire == 5 ? 4 : 0;
  if (r->wire == 0) { if (!read_varint(r, &r->value)) return r->bad = true, false; return true; }
  if (r->wire == 2) {
    u64 n;
    if (!read_varint(r, &n) || n > (u64)(r->end - r->p)) return r->bad = true, false;
    r->bytes = (View){r->p, n};
    r->p += n;
    return true;
  }
  if (!fixed || fixed > (size_t)(r->end - r->p)) return r->bad = true, false;
  r->p += fixed;
  return true;
}

// ---- hashing ----------------------------------------------------------------------------------------------------------
static u64 mix(u64 a, u64 b) { __uint128_t m = (__uint128_t)a * b; return (u64)m ^ (u64)(m >> 64); }
static u64 hash(View v, u64 seed) {     // 16 bytes a step; made for speed, not against enemies
  const u64 k = 0x9e3779b97f4a7c15ull;
  u64 h = seed ^ (v.n * k), a, b;
  const u8 *p = v.p;
  size_t n = v.n;
  for (; n >= 16; p += 16, n -= 16) { memcpy(&a, p, 8); memcpy(&b, p + 8, 8); h = mix(h ^ a ^ k, b ^ 0xd1b54a32d192ed03ull) + k; }
  u8 rest[16] = {0};
  memcpy(rest, p, n);
  memcpy(&a, rest, 8); memcpy(&b, rest + 8, 8);
  h = mix(h ^ a ^ 0xa0761d6478bd642full, b ^ k);
  return mix(h, k) | 1;
}
typedef struct { u32 *slots; u32 cap, n; } Index;        // open addressing; 0 is free, the rest are numbers of entries
typedef u64 HashOf(int type, u32 id);
static void grow(Index *x, int type, HashOf *of) {
  u32 *old = x->slots, before = x->cap;
  x->cap = before ? before * 2 : 1024;
  x->slots = calloc(x->cap, sizeof *x->slots);
  if (!x->slots) die("memory");
  for (u32 i = 0; i < before; i++)
    if (old[i]) { u64 h = of(type, old[i]); while (x->slots[h & (x->cap - 1)]) h++; x->slots[h & (x->cap - 1)] = old[i]; }
  free(old);
}

// ---- names ------------------------------------------------------------------------------------------------------------
typedef struct { u64 hash; View text; } Name;
static Name *names[TYPES];
static Index name_index[TYPES];
static u64 hash_of_name(int type, u32 id) { return names[type][id].hash; }
u32 name_count(int type) { return name_index[type].n; }
View name_text(int type, u32 id) { return names[type][id].text; }
u32 name_id(int type, View text) {
  Index *x = &name_index[type];
  u64 h = hash(text, 1);
  if (x->n * 2 >= x->cap) grow(x, type, hash_of_name);
  u32 at = h & (x->cap - 1);
  for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
    Name *known = &names[type][x->slots[at]];
    if (known->hash == h && same(known->text, text)) return x->slots[at];
  }
  u32 id = ++x->n;
  if ((id & (id - 1)) == 0) names[type] = more(names[type], sizeof(Name) * id * 2);
  u8 *copy = more(NULL, text.n + 1);
  memcpy(copy, text.p, text.n);
  copy[text.n] = 0;
  names[type][id] = (Name){h, {copy, text.n}};
  return x->slots[at] = id;
}
int type_of_url(View url) {
  for (int t = 0; t < TYPES; t++) if (same(url, text_view(type_url[t]))) return t;
  return -1;
}
int type_of_word(const char *word) {
  for (int t = 0; t < TYPES; t++) if (!strcmp(word, type_word[t])) return t;
  return -1;
}

// ---- what a content refers to -----------------------------------------------------------------------------------------
// Field numbers: envoy/config/{cluster,listener,route}/v3, http_connection_manager.proto, tcp_proxy.proto.
static Ref *found;
static u32 found_count, found_cap;
static View own_name;
static bool broken;
static void refer(int type, View name) {
  if (!name.n) return;
  if (found_count == found_cap) found = more(found, sizeof(Ref) * (found_cap = found_cap ? found_cap * 2 : 64));
  found[found_count++] = (Ref){name_id(type, name), type};
}
typedef void Walker(Reader *r);
static void walk(View v, Walker *each) {
  Reader r = reader(v);
  while (next_field(&r)) if (r.wire == 2) each(&r);
  broken |= r.bad;
}
static void walk_any(View v, View *url, View *value) {
  *url = *value = (View){0};
  Reader r = reader(v);
  while (next_field(&r)) if (r.wire == 2) { if (r.field == 1) *url = r.bytes; if (r.field == 2) *value = r.bytes; }
  broken |= r.bad;
}
static void weighted_entry(Reader *r) { if (r->field == 1) refer(CLUSTER, r->bytes); }
static void weighted(Reader *r) { if (r->field == 1) walk(r->bytes, weighted_entry); }
static void mirror(Reader *r) { if (r->field == 1) refer(CLUSTER, r->bytes); }
static void route_action(Reader *r) {
  if (r->field == 1) refer(CLUSTER, r->bytes);
  if (r->field == 3) walk(r->bytes, weighted);
  if (r->field == 30) walk(r->bytes, mirror);
}
static void one_route(Reader *r) { if (r->field == 2) walk(r->bytes, route_action); }
static void virtual_host(Reader *r) {
  if (r->field == 3) walk(r->bytes, one_route);
  if (r->field == 22) walk(r->bytes, mirror);
}
static void route_configuration(Reader *r) {
  if (r->field == 1) own_name = r->bytes;
  if (r->field == 2) walk(r->bytes, virtual_host);
}
static void rds(Reader *r) { if (r->field == 2) refer(ROUTE, r->bytes); }
static View filter_name;
static bool filter_discovered;
static void http_filter(Reader *r) {
  if (r->field == 1) filter_name = r->bytes;
  if (r->field == 5) filter_discovered = true;
}
static void inline_routes(Reader *r) { if (r->field == 2) walk(r->bytes, virtual_host); }
static void connection_manager(Reader *r) {
  if (r->field == 3) walk(r->bytes, rds);
  if (r->field == 4) walk(r->bytes, inline_routes);
  if (r->field == 5) {
    filter_discovered = false;
    walk(r->bytes, http_filter);
    if (filter_discovered) refer(EXTENSION, filter_name);
  }
}
static void tcp_proxy(Reader *r) {
  if (r->field == 2) refer(CLUSTER, r->bytes);
  if (r->field == 10) walk(r->bytes, weighted);
}
static void network_filter_config(View any) {
  View url, value;
  walk_any(any, &url, &value);
  if (memmem(url.p, url.n, ".HttpConnectionManager", 22)) walk(value, connection_manager);
  if (memmem(url.p, url.n, "tcp_proxy.v3.TcpProxy", 21)) walk(value, tcp_proxy);
}
static void network_filter(Reader *r) { if (r->field == 4) network_filter_config(r->bytes); }
static void filter_chain(Reader *r) { if (r->field == 3) walk(r->bytes, network_filter); }
static void api_listener(Reader *r) { if (r->field == 1) network_filter_config(r->bytes); }
static void listener(Reader *r) {
  if (r->field == 1) own_name = r->bytes;
  if (r->field == 3 || r->field == 25) walk(r->bytes, filter_chain);
  if (r->field == 19) walk(r->bytes, api_listener);
}
static View service_name;
static void eds_config(Reader *r) { if (r->field == 2) service_name = r->bytes; }
static void cluster(View body) {
  bool eds = false;
  service_name = (View){0};
  Reader r = reader(body);
  while (next_field(&r)) {
    if (r.field == 1 && r.wire == 2) own_name = r.bytes;
    if (r.field == 2 && r.wire == 0) eds = r.value == 3;               // Cluster.DiscoveryType.EDS
    if (r.field == 3 && r.wire == 2) walk(r.bytes, eds_config);
  }
  broken |= r.bad;
  if (eds) refer(ENDPOINT, service_name.n ? service_name : own_name);
}
static void first_name(Reader *r) { if (r->field == 1) own_name = r->bytes; }
static int by_name(const void *a, const void *b) {
  const Ref *x = a, *y = b;
  return x->type != y->type ? x->type - y->type : x->name < y->name ? -1 : x->name > y->name;
}
static void examine(Content *c, View body) {
  found_count = 0;
  own_name = (View){0};
  broken = false;
  switch (c->type) {
    case CLUSTER: cluster(body); break;
    case LISTENER: walk(body, listener); break;
    case ROUTE: walk(body, route_configuration); break;
    default: walk(body, first_name); break;                            // cluster_name, and an extension's name
  }
  c->malformed = broken || !same(own_name, name_text(c->type, c->name));
  if (found_count) qsort(found, found_count, sizeof *found, by_name);
  u32 n = 0;
  for (u32 i = 0; i < found_count; i++) if (!n || by_name(&found[n - 1], &found[i])) found[n++] = found[i];
  c->references = n;
  c->refs = more(NULL, sizeof(Ref) * (n + 1));
  if (n) memcpy(c->refs, found, sizeof(Ref) * n);
}

// ---- contents ---------------------------------------------------------------------------------------------------------
static Content *contents;
static Index content_index, version_index;
static u64 *version_hash;
static u64 hash_of_content(int type, u32 id) { (void)type; return contents[id].hash; }
static u64 hash_of_version(int type, u32 id) { (void)type; return version_hash[id]; }
Content *content_at(u32 id) { return contents + id; }
u32 content_count(void) { return content_index.n; }
static void check_version(u32 id) {     // one version of a name never stands for two contents
  Index *x = &version_index;
  if (x->n * 2 >= x->cap) grow(x, 0, hash_of_version);
  u32 at = version_hash[id] & (x->cap - 1);
  for (; x->slots[at]; at = (at + 1) & (x->cap - 1))
    if (version_hash[x->slots[at]] == version_hash[id]) { counters.changed_under_version++; return; }
  x->slots[at] = id;
  x->n++;
}
static void keep_body(const Content *c, View body) {
  if (!bodies) return;
  u32 head[2] = {c->type, body.n};
  fwrite(head, sizeof head, 1, bodies);
  fwrite(body.p, body.n, 1, bodies);
}
u32 content_id(int type, u32 name, View body, View version) {
  Index *x = &content_index;
  u64 h = hash(body, (u64)type << 56 | name);
  if (x->n * 2 >= x->cap) grow(x, 0, hash_of_content);
  u32 at = h & (x->cap - 1);
  for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
    Content *known = &contents[x->slots[at]];
    if (known->hash == h && known->name == name && known->type == type && known->size == body.n) return x->slots[at];
  }
  u32 id = ++x->n;
  if ((id & (id - 1)) == 0) {
    contents = more(contents, sizeof *contents * id * 2);
    version_hash = more(version_hash, sizeof *version_hash * id * 2);
  }
  Content *c = contents + id;
  *c = (Content){.hash = h, .name = name, .size = body.n, .type = type, .order = id};
  c->version = strndup((const char *)version.p ?: "", version.n);
  version_hash[id] = hash(version, (u64)type << 48 ^ (u64)name << 8);
  x->slots[at] = id;
  if (version.n) check_version(id);
  examine(c, body);
  c = contents + id;
  c->mark = measure_mark(type, name, body);
  if (c->malformed) counters.malformed++;
  keep_body(c, body);
  return id;
}
