// Checkpoints between hosts: a Target whose other end is a luge-vmstated. Frames are in checkpoint_format.hpp.
//
// Everything that arrives is checked before it is used: lengths, CRCs of frames, CRC of each page. A connection that ends without a commit
// leaves nothing behind. Threads: one a connection, blocking.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "vmstate/target.hpp"

namespace luge::vmstate {

/// A connected, blocking socket. `address`: unix:PATH or tcp:HOST:PORT.
Result<int> connect_to(const std::string& address);
/// A listening socket; tcp addresses that aren't loopback only with `anywhere`. `bound`: the address with the port that was chosen.
Result<int> listen_at(const std::string& address, bool anywhere, std::string& bound);

inline constexpr std::chrono::seconds kSilence{30};

class RemoteTarget final : public Target {
 public:
  /// `live`: the machine is to run there after the commit. `silence`: without a byte of it the other end counts as gone.
  RemoteTarget(std::string address, bool live, std::chrono::seconds silence = kSilence) : address_(std::move(address)), live_(live), silence_(silence) {}
  ~RemoteTarget() override;
  Result<std::uint64_t> newest(const std::string& machine) override;
  Status begin(const Begin& begin) override;
  Status put(const PageBatch& batch) override;
  Status commit(const std::string& device_state, const std::string& description) override;
  void abandon() override;

 private:
  Status connect();
  Status lost(const char* where);
  Result<std::uint64_t> answer();
  const std::string address_;
  const bool live_;
  const std::chrono::seconds silence_;
  int fd_ = -1;
  std::vector<std::byte> head_;
};

/// Serves one connection until it ends or says nonsense (the Status then), or its source's host has gone without a word. `make`: the
/// target for a machine; live or not. `working_every`: the sender of a commit that takes long hears that often that it goes on.
Status serve_transfer(int fd, const std::function<Result<std::unique_ptr<Target>>(const std::string& machine, bool live)>& make,
                      std::chrono::milliseconds working_every = std::chrono::seconds(5));

}  // namespace luge::vmstate
