// A volume seen from outside: where its partitions are served, retries, failover. What its user sees of a head that
// dies is a pause, never an error.
//
// Errors: an answered request either was done or is wrong in itself (invalid, no_space, corrupt ...; a write that came to a head
// damaged, and is right here, is sent again). Everything that
// may pass (head gone, fenced, too few members) is tried again for as long as it takes. The one permanent end is
// closed_session: somebody else has taken the attachment over; then every request fails with it.
// Reads see every write that had completed before they were made; data is checked block by block against the CRC that
// the writer made before a byte is handed out.
// Ownership: World, Identity and ControlLink outlive the volume's tasks (World::tasks() == 0). REQUIRES: no request is
// open when a Volume is destroyed, unless after close(), or its World has stopped.
#pragma once

#include <memory>
#include <string>

#include "client/block_target.hpp"
#include "wire/control_link.hpp"

namespace luge::client {

struct VolumeState;

class Volume final : public BlockTarget {
 public:
  struct Stats {
    std::uint64_t reads = 0, writes = 0;  ///< requests answered; writes include trim and zero
    std::uint64_t read_bytes = 0, written_bytes = 0;
    std::uint64_t resent = 0;             ///< operations sent again
    std::uint64_t sessions = 0;           ///< sessions opened, over all partitions
    std::uint64_t corrupt_replies = 0;    ///< read answers that failed their CRC; asked again
    std::uint64_t late_replies = 0;       ///< answers of an older epoch; dropped
    std::uint64_t batches = 0;            ///< messages with writes
    io::Duration longest_pause{0};        ///< longest time without any answer while one was due
  };

  /// Attaches the volume for writing. exists: somebody else holds it and `take_over` was not given.
  static io::Task<Result<std::unique_ptr<Volume>>> attach(io::World& world, wire::Identity& self,
                                                          wire::ControlLink& control, std::string name, NodeId holder,
                                                          bool take_over);
  ~Volume() override;

  std::uint64_t size_bytes() const override;
  void write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) override;
  void read(std::uint64_t offset, std::uint32_t length, ReadDone done) override;
  void trim(std::uint64_t offset, std::uint32_t length, Done done) override;
  void zero(std::uint64_t offset, std::uint32_t length, Done done) override;
  void map(std::uint64_t offset, std::uint32_t length, MapDone done) override;

  /// The volume has grown, and its primaries know. Less than now is ignored.
  void grow(std::uint64_t bytes);
  /// Waits up to 2 s for open requests, closes, and gives the attachment back. Nothing may be asked afterwards
  /// but this again, where the control plane did not answer.
  io::Task<Status> detach();
  /// detach() until it is answered, however long the control plane is away, or until `over`.
  static io::Task<void> give_back(io::World& world, std::shared_ptr<Volume> volume, std::function<bool()> over);
  /// Every open request and all later ones fail with unavailable. The attachment stays with its holder.
  void close();
  /// Runs once from the loop when the attachment is lost for good.
  void on_lost(std::function<void(const Status&)> f);

  const std::string& name() const;
  VolumeId id() const;
  std::uint64_t incarnation() const;
  const Stats& stats() const;
  /// Requests are open and nothing has been answered for a second, or a partition they need has no open session.
  bool paused() const;
  /// Why, for people; empty if not paused.
  std::string pause_reason() const;
  std::size_t open_requests() const;

 private:
  explicit Volume(std::shared_ptr<VolumeState> state);
  std::shared_ptr<VolumeState> state_;
};

}  // namespace luge::client
