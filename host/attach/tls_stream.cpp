#include "attach/tls_stream.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>

namespace luge::attach {
namespace {

constexpr std::size_t kReceiveBytes = 64 << 10;
constexpr std::size_t kSendBytes = 256 << 10;   // encrypted and not yet handed on
constexpr std::size_t kRecordBytes = 16 << 10;  // what fits one TLS record

std::string last_error() {
  unsigned long e = ::ERR_get_error();
  char text[256];
  ::ERR_error_string_n(e, text, sizeof text);
  ::ERR_clear_error();
  return e == 0 ? "the peer ended it" : text;
}

template <class T, void (*release)(T*)>
struct Release {
  void operator()(T* p) const { release(p); }
};
using Context = std::unique_ptr<SSL_CTX, Release<SSL_CTX, ::SSL_CTX_free>>;
using Session = std::unique_ptr<SSL, Release<SSL, ::SSL_free>>;

}  // namespace

struct TlsContext::Impl {
  Context context;
};

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::load(const TlsFiles& files) {
  if (files.certificate.empty() || files.key.empty())
    return Status(Code::invalid, "TLS needs both a certificate and its key: give --tls-certificate and --tls-key");
  Context c(::SSL_CTX_new(::TLS_server_method()));
  ::SSL_CTX_set_min_proto_version(c.get(), TLS1_2_VERSION);
  ::SSL_CTX_set_options(c.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  ::SSL_CTX_set_mode(c.get(), SSL_MODE_RELEASE_BUFFERS);
  ::SSL_CTX_set_session_cache_mode(c.get(), SSL_SESS_CACHE_OFF);
  auto wrong = [](const std::string& file) { return Status(Code::invalid, file + ": " + last_error()); };
  if (::SSL_CTX_use_certificate_chain_file(c.get(), files.certificate.c_str()) != 1) return wrong(files.certificate);
  if (::SSL_CTX_use_PrivateKey_file(c.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) return wrong(files.key);
  if (::SSL_CTX_check_private_key(c.get()) != 1) return Status(Code::invalid, files.key + " is not the key of " + files.certificate);
  if (!files.ca.empty()) {
    if (::SSL_CTX_load_verify_locations(c.get(), files.ca.c_str(), nullptr) != 1) return wrong(files.ca);
    ::SSL_CTX_set_client_CA_list(c.get(), ::SSL_load_client_CA_file(files.ca.c_str()));
    ::SSL_CTX_set_verify(c.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  auto impl = std::make_unique<Impl>();
  impl->context = std::move(c);
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

struct TlsStream::Impl {
  Impl(io::World& world, std::unique_ptr<io::Stream> u, std::shared_ptr<TlsContext> c)
      : under(std::move(u)), context(std::move(c)), session(::SSL_new(context->impl_->context.get())), sending(world) {
    in = ::BIO_new(::BIO_s_mem());
    out = ::BIO_new(::BIO_s_mem());
    ::BIO_set_mem_eof_return(in, -1);
    ::BIO_set_mem_eof_return(out, -1);
    ::SSL_set_bio(session.get(), in, out);  // owns both
    ::SSL_set_accept_state(session.get());
  }
  std::unique_ptr<io::Stream> under;
  std::shared_ptr<TlsContext> context;
  Session session;
  BIO* in = nullptr;
  BIO* out = nullptr;
  io::Mutex sending;  // what leaves `out` first goes first, whoever takes it
  Buffer received;
};

TlsStream::TlsStream(io::World& world, std::unique_ptr<io::Stream> under, std::shared_ptr<TlsContext> context)
    : impl_(std::make_unique<Impl>(world, std::move(under), std::move(context))) {}
TlsStream::~TlsStream() = default;

io::Task<bool> TlsStream::send_pending() {
  if (::BIO_ctrl_pending(impl_->out) == 0) co_return true;
  auto guard = co_await impl_->sending.lock();
  std::size_t n = ::BIO_ctrl_pending(impl_->out);
  if (n == 0) co_return true;
  Buffer bytes = Buffer::allocate(n);
  std::size_t got = 0;
  ::BIO_read_ex(impl_->out, bytes.data(), n, &got);
  Bytes part = bytes.bytes().subspan(0, got);
  co_return co_await impl_->under->write_all({&part, 1});
}

// One read of the stream below into OpenSSL's hands. False: there is no more.
io::Task<bool> TlsStream::receive() {
  if (impl_->received.empty()) impl_->received = Buffer::allocate(kReceiveBytes);
  std::size_t n = co_await impl_->under->read_some(impl_->received.mutable_bytes());
  if (n == 0) co_return false;
  std::size_t taken = 0;
  co_return ::BIO_write_ex(impl_->in, impl_->received.data(), n, &taken) == 1 && taken == n;
}

io::Task<Status> TlsStream::handshake() {
  while (true) {
    ::ERR_clear_error();
    int r = ::SSL_do_handshake(impl_->session.get());
    int why = r == 1 ? SSL_ERROR_NONE : ::SSL_get_error(impl_->session.get(), r);
    std::string text = why == SSL_ERROR_NONE || why == SSL_ERROR_WANT_READ ? "" : last_error();
    // An alert is sent too: it tells the client what was wrong.
    if (!co_await send_pending()) co_return Status(Code::unavailable, "the client left during the TLS handshake");
    if (why == SSL_ERROR_NONE) co_return Status();
    if (why != SSL_ERROR_WANT_READ) co_return Status(Code::invalid, "TLS handshake: " + text);
    if (!co_await receive()) co_return Status(Code::unavailable, "the client left during the TLS handshake");
  }
}

io::Task<std::size_t> TlsStream::read_some(MutableBytes into) {
  if (into.empty()) co_return 0;
  while (true) {
    ::ERR_clear_error();
    std::size_t n = 0;
    int r = ::SSL_read_ex(impl_->session.get(), into.data(), into.size(), &n);
    int why = r == 1 ? SSL_ERROR_NONE : ::SSL_get_error(impl_->session.get(), r);
    ::ERR_clear_error();
    if (!co_await send_pending()) co_return 0;  // answers to key updates, alerts
    if (why == SSL_ERROR_NONE) co_return n;
    if (why != SSL_ERROR_WANT_READ || !co_await receive()) co_return 0;
  }
}

io::Task<bool> TlsStream::write_all(std::span<const Bytes> parts) {
  for (Bytes left : parts)
    while (!left.empty()) {
      std::size_t n = 0;
      ::ERR_clear_error();
      if (::SSL_write_ex(impl_->session.get(), left.data(), std::min(left.size(), kRecordBytes), &n) != 1) co_return false;
      left = left.subspan(n);
      if (::BIO_ctrl_pending(impl_->out) >= kSendBytes && !co_await send_pending()) co_return false;
    }
  co_return co_await send_pending();
}

// No close notification: it could have to wait, and an NBD client knows from the protocol what is complete.
void TlsStream::close() { impl_->under->close(); }
std::string TlsStream::peer() const { return impl_->under->peer() + " (TLS)"; }

}  // namespace luge::attach
