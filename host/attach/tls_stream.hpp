// TLS over any byte stream, server side: OpenSSL between two memory buffers, so that it waits for nothing itself and runs
// over simulated streams too. NBD clients ask for it in the handshake (STARTTLS) and then speak through it.
//
// Threads: the stream's World's. One read and one write may be under way at the same time.
#pragma once

#include <memory>
#include <string>

#include "io/network.hpp"

namespace luge::attach {

/// PEM files. `ca` set: clients must show a certificate that it has signed.
struct TlsFiles {
  std::string certificate, key, ca;
  bool any() const { return !certificate.empty() || !key.empty() || !ca.empty(); }
};

/// Certificates as read at one time; TLS 1.2 and later.
class TlsContext {
 public:
  /// invalid: a file is missing, does not parse, or key and certificate do not belong together; the text names it.
  static Result<std::shared_ptr<TlsContext>> load(const TlsFiles& files);
  ~TlsContext();

 private:
  friend class TlsStream;
  struct Impl;
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class TlsStream final : public io::Stream {
 public:
  TlsStream(io::World& world, std::unique_ptr<io::Stream> under, std::shared_ptr<TlsContext> context);
  ~TlsStream() override;
  /// Before anything is read or written. The error says what the client did wrong.
  io::Task<Status> handshake();

  io::Task<std::size_t> read_some(MutableBytes into) override;
  io::Task<bool> write_all(std::span<const Bytes> parts) override;
  void close() override;
  std::string peer() const override;

 private:
  io::Task<bool> send_pending();
  io::Task<bool> receive();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace luge::attach
