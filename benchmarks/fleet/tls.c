// TLS of one connection: the stream's own certificate, the server's checked against the roots and its name.
// -DWITHOUT_TLS builds it where OpenSSL's headers are missing; such a fleet speaks plaintext only and says so.
#include "fleet.h"

#ifdef WITHOUT_TLS
void tls_init(void) { fprintf(stderr, "fleet: built without TLS: apt-get install libssl-dev\n"); exit(1); }
void tls_open(Stream *s) { (void)s; }
int tls_shake(Stream *s) { (void)s; return REFUSED; }
const char *tls_reason(void) { return "no TLS"; }
ssize_t tls_read(Stream *s, void *p, size_t n) { (void)s; (void)p; (void)n; return BROKEN; }
ssize_t tls_write(Stream *s, const void *p, size_t n) { (void)s; (void)p; (void)n; return BROKEN; }
void tls_close(Stream *s) { s->ssl = NULL; }
#else
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *context;

void tls_init(void) {
  context = SSL_CTX_new(TLS_client_method());
  if (!context || !SSL_CTX_load_verify_locations(context, options.roots, NULL)) {
    fprintf(stderr, "fleet: %s: no readable root certificate\n", options.roots);
    exit(1);
  }
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_alpn_protos(context, (const u8 *)"\x02h2", 3);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}
void tls_open(Stream *s) {
  SSL *ssl = SSL_new(context);
  if (!ssl || SSL_use_certificate_chain_file(ssl, s->certificate) != 1 || SSL_use_PrivateKey_file(ssl, s->certificate, SSL_FILETYPE_PEM) != 1) {
    fprintf(stderr, "fleet: %s: no readable certificate and key\n", s->certificate);
    exit(1);
  }
  SSL_set1_host(ssl, options.server_name);
  SSL_set_tlsext_host_name(ssl, options.server_name);
  SSL_set_fd(ssl, s->fd);
  s->ssl = ssl;
}
int tls_shake(Stream *s) {
  ERR_clear_error();
  int got = SSL_connect(s->ssl);
  if (got == 1) return SHAKEN;
  int error = SSL_get_error(s->ssl, got);
  return error == SSL_ERROR_WANT_READ ? WANTS_READ : error == SSL_ERROR_WANT_WRITE ? WANTS_WRITE : REFUSED;
}
const char *tls_reason(void) {
  const char *reason = ERR_reason_error_string(ERR_peek_error());
  return reason ? reason : "the TLS handshake broke off";
}
static ssize_t result(Stream *s, int got) {
  if (got > 0) return got;
  int error = SSL_get_error(s->ssl, got);
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WOULD_BLOCK : BROKEN;
}
ssize_t tls_read(Stream *s, void *p, size_t n) { ERR_clear_error(); return result(s, SSL_read(s->ssl, p, n)); }
ssize_t tls_write(Stream *s, const void *p, size_t n) {
  ERR_clear_error();
  return result(s, SSL_write(s->ssl, p, n > 1 << 20 ? 1 << 20 : n));
}
void tls_close(Stream *s) {
  if (s->ssl) SSL_free(s->ssl);
  s->ssl = NULL;
}
#endif
