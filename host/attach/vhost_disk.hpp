// A volume as the disk of one guest: a vhost-user-blk socket for the front end (QEMU) and, beside it, the recorder's for a VMC.
//
// The volume is held only while a ring runs: the front end of a migration's target connects long before its source has stopped, and
// wants no more than the configuration until then. So two disks on one volume never write at the same time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "attach/recorder.hpp"
#include "attach/vhost_session.hpp"
#include "attach/written_blocks.hpp"

namespace luge::attach {

class VhostDisk : public VhostOwner, public RecordedDisk, public std::enable_shared_from_this<VhostDisk> {
 public:
  struct Options {
    std::string name;       ///< of the volume
    std::string path;       ///< of the socket
    std::uint64_t bytes = 0;
    bool read_only = false;
    unsigned function = 0;  ///< < card::DmaPath::kFunctions
    std::string card = "native";  ///< whose DMA write log: "native", "rtl"
    std::string card_tree;
    std::size_t queues = 4;
  };
  /// How the volume is taken and given back. A taken one may turn out to be lost: lost().
  struct Lease {
    /// first: it has never been taken for this disk before.
    std::function<io::Task<Result<client::BlockTarget*>>(bool first)> take;
    std::function<io::Task<void>()> give;
  };
  static Result<std::shared_ptr<VhostDisk>> serve(io::RealWorld& world, Options options, Lease lease);
  ~VhostDisk() override;

  /// Ends what is in flight, for `limit` at most, and gives the volume back. The front end sees its connection end.
  io::Task<void> close(io::Duration limit);
  void resize(std::uint64_t bytes);
  /// The volume has been taken by another: nothing more goes to it.
  void lost();

  const VirtioBlk& disk() const { return device_; }
  unsigned function() const { return options_.function; }
  bool connected() const { return session_ != nullptr; }

  // VhostOwner
  VirtioBlk& device() override { return device_; }
  card::DmaPath& dma_path() override { return *dma_; }
  const std::string& called() const override { return options_.name; }
  void rings_started() override;
  io::Task<void> rings_stopped() override;
  void memory_changed() override { ++memory_generation_; }
  // RecordedDisk
  card::DmaPath& dma() override { return *dma_; }
  io::Task<bool> quiesce(bool stays) override;
  void resume() override;
  std::uint32_t recorder_flags() const override;
  std::uint32_t memory_generation() const override { return memory_generation_; }
  void describe(card::RecorderReply& reply) const override;
  Result<int> track_writes() override { return written_.track(options_.bytes); }
  void untrack_writes() override { written_.untrack(); }
  void recording_stopped() override { forget_memory(); }
  io::Task<Result<Buffer>> read_volume(std::uint64_t offset, std::uint32_t bytes) override;

 private:
  VhostDisk(io::RealWorld& world, Options options, Lease lease, std::shared_ptr<card::DmaPath> dma);
  void accept();
  static io::Task<void> accept_later(std::weak_ptr<VhostDisk> weak);
  void forget_memory();
  static io::Task<void> hold_lease(std::shared_ptr<VhostDisk> self);
  static io::Task<void> end_of_stay(std::shared_ptr<VhostDisk> self);
  static io::Task<void> give_lease(std::shared_ptr<VhostDisk> self, std::shared_ptr<bool> given);

  io::RealWorld& world_;
  Options options_;
  Lease lease_;
  std::shared_ptr<card::DmaPath> dma_;
  VirtioBlk device_;
  WrittenBlocks written_;  // between device and volume
  struct Listener;
  std::unique_ptr<Listener> listener_;
  std::shared_ptr<VhostSession> session_;
  std::shared_ptr<Recorder> recorder_;
  io::Mutex leasing_;
  io::Event changed_;
  bool never_taken_ = true;
  bool wanted_ = false, taken_ = false, quiesced_ = false, closed_ = false;
  bool stays_ = false;  // the volume is kept while the guest's rings are stopped
  std::uint32_t memory_generation_ = 0;
};

}  // namespace luge::attach
