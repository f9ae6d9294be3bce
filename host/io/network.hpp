// Byte streams between daemons. Framing, unit identity and checksums are wire/'s business.
// Addresses: "unix:PATH" or "tcp:HOST:PORT" (port 0 to have one chosen; Listener::address() tells which).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/buffer.hpp"
#include "base/status.hpp"
#include "io/world.hpp"

namespace luge::io {

class Stream {
 public:
  virtual ~Stream() = default;
  /// At least one byte, or 0 when the peer is gone (end of file and errors are the same to the caller).
  virtual Task<std::size_t> read_some(MutableBytes into) = 0;
  /// The same; what is there beyond `into` may go to `then`.
  virtual Task<std::size_t> read_some(MutableBytes into, MutableBytes then) {
    (void)then;
    return read_some(into);
  }
  /// All of it, gathered, or false when the peer is gone. The memory must stay valid until it returns.
  /// At most one write at a time.
  virtual Task<bool> write_all(std::span<const Bytes> parts) = 0;
  /// Both directions; pending reads and writes return as if the peer were gone. Idempotent.
  virtual void close() = 0;
  virtual std::string peer() const = 0;
};

class Listener {
 public:
  virtual ~Listener() = default;
  /// Null after close().
  virtual Task<std::unique_ptr<Stream>> accept() = 0;
  virtual std::string address() const = 0;
  virtual void close() = 0;
};

class Network {
 public:
  virtual ~Network() = default;
  virtual Task<Result<std::unique_ptr<Stream>>> connect(std::string address, Duration timeout) = 0;
  /// `encrypted`: the caller lets nobody in without TLS, so the address may be beyond loopback.
  virtual Result<std::unique_ptr<Listener>> listen(const std::string& address, bool encrypted = false) = 0;
};

}  // namespace luge::io
