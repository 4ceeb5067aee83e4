// What one Envoy would say: subscriptions that follow what it holds, ACKs, NACKs on demand, and a look at what it gets.
//
//   CDS (all) -> EDS by the clusters' names -> LDS (all), once those endpoints are there -> RDS and ECDS by the listeners'
//
// As in Envoy, subscriptions that follow from a response go out before its ACK. On a reconnect every type is asked for at
// once, with the versions that are held. Source: xDS protocol; Envoy source/extensions/config_subscription/grpc.
#include "fleet.h"
#include <fnmatch.h>

char nack_pattern[512];
int nack_type = -1, nack_streams;

static bool wildcard(int type) { return type == CLUSTER || type == LISTENER; }
static void make_room(Held *h, u32 name) {
  if (name < h->cap) return;
  u32 cap = name + name / 2 + 16;
  h->content = more(h->content, sizeof *h->content * cap);
  h->flags = more(h->flags, cap);
  memset(h->content + h->cap, 0, sizeof *h->content * (cap - h->cap));
  memset(h->flags + h->cap, 0, cap - h->cap);
  h->cap = cap;
}

// ---- requests ---------------------------------------------------------------------------------------------------------
static Buf request;                     // one at a time
static u32 *added, *gone;
static u32 added_count, gone_count, changed_cap;

static void begin(Stream *s, int type, bool first) {
  request.n = 0;
  if (first) put_bytes(&request, options.delta ? 1 : 2, s->node);
  put_bytes(&request, options.delta ? 2 : 4, text_view(type_url[type]));
}
static void put_names(int type, u32 field, const u32 *ids, u32 n) {
  for (u32 i = 0; i < n; i++) put_bytes(&request, field, name_text(type, ids[i]));
}
static void put_error(u32 field, const char *why) {                    // google.rpc.Status: code=1, message=2
  Buf status = {0};
  put(&status, "\x08\x0d", 2);                                         // INTERNAL, as Envoy says
  put_bytes(&status, 2, text_view(why));
  put_bytes(&request, field, buf_view(&status));
  free(status.p);
}
static void put_held_versions(const Held *h) {                         // initial_resource_versions=5, a map
  Buf entry = {0};
  for (u32 name = 1; name < h->cap; name++) {
    if (!h->content[name]) continue;
    const Content *c = content_at(h->content[name]);
    entry.n = 0;
    put_bytes(&entry, 1, name_text(c->type, name));
    put_bytes(&entry, 2, text_view(c->version));
    put_bytes(&request, 5, buf_view(&entry));
  }
  free(entry.p);
}
static void put_wanted(int type, const Held *h, u32 field) {
  if (wildcard(type)) return;
  for (u32 name = 1; name < h->cap; name++)
    if (h->flags[name] & WANTED) put_bytes(&request, field, name_text(type, name));
}
static void subscribe_first(Stream *s, int type, bool with_node) {     // also after a reconnect
  Held *h = &s->held[type];
  h->requested = true;
  begin(s, type, with_node);
  put_wanted(type, h, 3);
  if (options.delta) put_held_versions(h);
  else if (h->version.n) put_bytes(&request, 1, buf_view(&h->version));
  transport_send(s, &request);
}
static void subscription_changed(Stream *s, int type) {                // `added` and `gone` say how
  if (!added_count && !gone_count) return;
  Held *h = &s->held[type];
  if (!h->requested) { subscribe_first(s, type, false); return; }
  begin(s, type, false);
  if (options.delta) {
    put_names(type, 3, added, added_count);
    put_names(type, 4, gone, gone_count);
  } else {
    put_wanted(type, h, 3);
    if (h->version.n) put_bytes(&request, 1, buf_view(&h->version));
    if (h->nonce.n) put_bytes(&request, 5, buf_view(&h->nonce));
  }
  transport_send(s, &request);
}
static void answer(Stream *s, int type, View version, View nonce, const char *error) {
  Held *h = &s->held[type];
  begin(s, type, false);
  if (options.delta) {
    put_bytes(&request, 6, nonce);
    if (error) put_error(7, error);
  } else {
    h->nonce.n = 0;
    put(&h->nonce, nonce.p, nonce.n);
    if (!error) { h->version.n = 0; put(&h->version, version.p, version.n); }
    if (h->version.n) put_bytes(&request, 1, buf_view(&h->version));
    put_wanted(type, h, 3);
    put_bytes(&request, 5, nonce);
    if (error) put_error(6, error);
  }
  if (error) counters.nacks++; else counters.acks++;
  transport_send(s, &request);
}

// ---- what is wanted follows from what is held -------------------------------------------------------------------------
static void note(u32 **list, u32 *n, u32 name) {
  if (added_count + gone_count + 2 > changed_cap) {
    changed_cap = changed_cap * 2 + 1024;
    added = more(added, sizeof *added * changed_cap);
    gone = more(gone, sizeof *gone * changed_cap);
  }
  (*list)[(*n)++] = name;
}
static void want(Held *h, u32 name) {
  make_room(h, name);
  if (h->flags[name] & WANTED) return;
  h->flags[name] = WANTED;
  h->missing++;
  note(&added, &added_count, name);
}
static void answered(Held *h, u32 name) {
  if (h->flags[name] & WANTED && !(h->flags[name] & ANSWERED)) { h->flags[name] |= ANSWERED; h->missing--; }
}
static void follow(Stream *s, int from, int to) {                      // all that `from` refers to, and nothing else, is wanted of `to`
  static u8 *named;
  static u32 named_cap;
  Held *h = &s->held[to], *source = &s->held[from];
  u32 top = name_count(to) + 1;
  if (top > named_cap) named = more(named, named_cap = top * 2);
  memset(named, 0, top);
  for (u32 name = 1; name < source->cap; name++) {
    if (!source->content[name]) continue;
    const Content *c = content_at(source->content[name]);
    for (u32 i = 0; i < c->references; i++) if (c->refs[i].type == to) named[c->refs[i].name] = 1;
  }
  added_count = gone_count = 0;
  for (u32 name = 1; name < top; name++) {
    if (named[name]) want(h, name);
    else if (name < h->cap && h->flags[name] & WANTED) {
      if (!(h->flags[name] & ANSWERED)) h->missing--;
      h->flags[name] = 0;
      h->content[name] = 0;
      note(&gone, &gone_count, name);
    }
  }
  subscription_changed(s, to);
}

// ---- checks -----------------------------------------------------------------------------------------------------------
static bool holds(const Stream *s, Ref ref) { const Held *h = &s->held[ref.type]; return ref.name < h->cap && h->content[ref.name]; }
static void check_references(const Stream *s, const Content *c) {      // a cluster that is named must have been sent before
  for (u32 i = 0; i < c->references; i++)
    if (c->refs[i].type == CLUSTER && !holds(s, c->refs[i])) {
      View missing = name_text(CLUSTER, c->refs[i].name), by = name_text(c->type, c->name);
      counters.missing_references++;
      snprintf(last_error, sizeof last_error, "%.*s refers to cluster %.*s, which was not sent", (int)by.n, by.p, (int)missing.n, missing.p);
    }
}
static bool in_use(const Stream *s, u32 cluster) {
  for (int t = LISTENER; t <= ROUTE; t++)
    for (u32 name = 1; name < s->held[t].cap; name++) {
      if (!s->held[t].content[name]) continue;
      const Content *c = content_at(s->held[t].content[name]);
      for (u32 i = 0; i < c->references; i++) if (c->refs[i].type == CLUSTER && c->refs[i].name == cluster) return true;
    }
  return false;
}

// ---- responses --------------------------------------------------------------------------------------------------------
typedef struct { View name, version, url, body; } Item;
static Item parse_any(View any) {
  Item item = {0};
  Reader r = reader(any);
  while (next_field(&r)) if (r.wire == 2) { if (r.field == 1) item.url = r.bytes; if (r.field == 2) item.body = r.bytes; }
  return item;
}
static Item parse_delta_item(View v) {                                 // Resource: version=1, resource=2, name=3
  Item item = {0};
  Reader r = reader(v);
  while (next_field(&r)) {
    if (r.wire != 2) continue;
    if (r.field == 1) item.version = r.bytes;
    if (r.field == 2) { Item any = parse_any(r.bytes); item.url = any.url; item.body = any.body; }
    if (r.field == 3) item.name = r.bytes;
  }
  return item;
}
static Item parse_item(View v) {
  if (options.delta) return parse_delta_item(v);
  Item item = parse_any(v);
  Reader r = reader(item.body);                                        // the name: field 1 of each type that is asked for
  while (next_field(&r)) if (r.wire == 2 && r.field == 1) { item.name = r.bytes; break; }
  return item;
}
static bool refuses(const Stream *s, int type, View name) {
  if (type != nack_type || s->index >= nack_streams) return false;
  char text[512];
  snprintf(text, sizeof text, "%.*s", (int)name.n, name.p);
  return !fnmatch(nack_pattern, text, 0);
}
static void take(Stream *s, int type, const Item *item) {
  u32 name = name_id(type, item->name);
  u32 id = content_id(type, name, item->body, item->version);
  Held *h = &s->held[type];
  make_room(h, name);
  counters.resources[type]++;
  if (!same(item->url, text_view(type_url[type]))) counters.malformed++;
  if (!wildcard(type) && !(h->flags[name] & WANTED)) counters.unasked++;
  u32 before = h->content[name];
  if (before && content_at(id)->order < content_at(before)->order) counters.versions_back++;
  h->content[name] = id;
  answered(h, name);
  measure_received(s, type, name, id);
}
static void release(Stream *s, int type, u32 name) {
  Held *h = &s->held[type];
  make_room(h, name);
  counters.removed[type]++;
  h->content[name] = 0;
  answered(h, name);
  if (type == CLUSTER && in_use(s, name)) counters.removed_in_use++;
}
typedef struct { View url, version, nonce; u32 resources, removed; } Envelope;
static Envelope open_envelope(View message, bool *bad) {
  Envelope e = {0};
  Reader r = reader(message);
  while (next_field(&r)) {
    if (r.wire != 2) continue;
    if (r.field == 1) e.version = r.bytes;
    if (r.field == 2) e.resources++;
    if (r.field == 4) e.url = r.bytes;
    if (r.field == 5) e.nonce = r.bytes;
    if (r.field == 6) e.removed++;
  }
  *bad = r.bad;
  return e;
}
static void check_set_version(Stream *s, View version) {               // a number, where the server counts its snapshots
  u64 value = 0;
  if (!version.n || version.n > 18) return;
  for (size_t i = 0; i < version.n; i++) { if (version.p[i] < '0' || version.p[i] > '9') return; value = value * 10 + version.p[i] - '0'; }
  if (value < s->version) counters.versions_back++;
  s->version = value;
}
static const char *refused_name(Stream *s, int type, View message) {   // NULL: nothing in it is to be refused
  static char why[600];
  if (nack_type != type || s->index >= nack_streams) return NULL;
  Reader r = reader(message);
  while (next_field(&r)) {
    if (r.wire != 2 || r.field != 2) continue;
    Item item = parse_item(r.bytes);
    if (!refuses(s, type, item.name)) continue;
    snprintf(why, sizeof why, "refused on demand: %.*s", (int)(item.name.n < 500 ? item.name.n : 500), item.name.p);
    return why;
  }
  return NULL;
}
static void forget_unsent(Stream *s, int type) {                       // state of the world: what was not in it is gone
  Held *h = &s->held[type];
  for (u32 name = 1; name < h->cap; name++) {
    if (h->flags[name] & ANSWERED) { h->flags[name] &= ~ANSWERED; continue; }
    if (h->content[name]) release(s, type, name);
  }
}
static void apply(Stream *s, int type, View message) {
  Held *h = &s->held[type];
  Reader r = reader(message);
  while (next_field(&r)) {
    if (r.wire != 2) continue;
    if (r.field == 2) {
      Item item = parse_item(r.bytes);
      take(s, type, &item);
      if (!options.delta && wildcard(type)) { u32 name = name_id(type, item.name); h->flags[name] |= ANSWERED; }
    }
    if (r.field == 6 && options.delta) release(s, type, name_id(type, r.bytes));
  }
  if (!options.delta && wildcard(type)) forget_unsent(s, type);
  if (type != LISTENER && type != ROUTE) return;
  r = reader(message);                                                 // once all of it is taken
  while (next_field(&r)) {
    if (r.wire != 2 || r.field != 2) continue;
    Item item = parse_item(r.bytes);
    u32 id = h->content[name_id(type, item.name)];
    if (id) check_references(s, content_at(id));                       // 0: taken back by the same response
  }
}
static void check_synced(Stream *s) {
  bool whole = s->held[LISTENER].answered && s->state == OPEN;
  for (int t = 0; t < TYPES; t++) whole = whole && !s->held[t].missing;
  if (whole == s->synced) return;
  s->synced = whole;
  if (whole) { s->synced_ns = now_ns(); s->attempts = 0; }
  measure_synced(s);
}
void xds_message(Stream *s, View message) {
  bool bad;
  Envelope e = open_envelope(message, &bad);
  int type = type_of_url(e.url);
  if (bad) counters.malformed++;
  if (type < 0 || bad) { counters.unknown_type += type < 0; return; }
  counters.messages[type]++;
  if (options.delta) check_set_version(s, e.version);
  const char *refused = refused_name(s, type, message);
  if (refused) { answer(s, type, e.version, e.nonce, refused); return; }
  Held *h = &s->held[type];
  apply(s, type, message);
  h->answered = true;
  if (type == CLUSTER) follow(s, CLUSTER, ENDPOINT);
  if (type == LISTENER) { follow(s, LISTENER, ROUTE); follow(s, LISTENER, EXTENSION); }
  answer(s, type, e.version, e.nonce, NULL);
  if (s->held[CLUSTER].answered && !s->held[ENDPOINT].missing && !s->held[LISTENER].requested) subscribe_first(s, LISTENER, false);
  check_synced(s);
}
void xds_open(Stream *s) {
  s->version = 0;
  bool again = s->held[CLUSTER].answered;
  subscribe_first(s, CLUSTER, true);
  for (int t = ENDPOINT; again && t < TYPES; t++) if (s->held[t].requested) subscribe_first(s, t, false);
  check_synced(s);
}
void xds_lost(Stream *s) {
  s->hit_count = 0;
  for (int t = 0; t < TYPES; t++) {
    s->held[t].nonce.n = 0;
    if (!s->held[CLUSTER].answered) s->held[t].requested = false;
  }
  check_synced(s);
}
