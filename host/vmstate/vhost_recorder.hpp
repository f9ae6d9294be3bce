// A Luge disk of a machine (luge-attach, vhost-user-blk) as a recorder, over its socket (card/recorder_messages.hpp).
//
// Invariant: a recording lives in one connection; whatever happens here, the end of it ends recording, quiet and throttle over there.
// Threads: requests from one thread at a time; examined() from another.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "card/dma_ring.hpp"
#include "card/recorder_messages.hpp"
#include "vmstate/replicator.hpp"

namespace luge::vmstate {

/// Also the machine's disk, for checkpoints that have it in them. REQUIRES then: the machine runs, so that the disk is held, from start() on.
class VhostRecorder final : public Recorder, public Disk {
 public:
  /// `path`: PATH.recorder of a disk served at PATH. The machine is connected to it, else `unavailable`.
  static Result<std::unique_ptr<VhostRecorder>> open(const std::string& path, std::chrono::milliseconds answer_within = std::chrono::seconds(10));
  ~VhostRecorder() override;

  /// The table of guest memory that the disk has. Its descriptors belong to this and live until the next call.
  Result<std::vector<MemoryRange>> memory();
  Result<card::RecorderReply> status();

  std::string name() const override { return path_; }
  std::uint64_t functions() const override { return std::uint64_t{1} << function_; }
  Result<Ring> start(bool at_scheduling, unsigned slots_log2) override;
  Status stop() override;
  Status quiesce(bool stays) override;
  Status resume() override;
  Status throttle(std::uint64_t bytes_per_second) override;
  void examined(std::uint32_t sequence) override;
  bool memory_changed() override;

  Disk& disk() { return *this; }

 private:
  // Disk
  std::uint64_t pages() const override { return volume_bytes_ / kPage; }
  Status start_tracking() override;
  Status take(PageSet& to, std::uint64_t first_page) override;
  Status stop_tracking() override;
  Status read(std::uint64_t first, std::uint64_t count, std::byte* into) override;
  void unmap();
  VhostRecorder(std::string path, int fd, std::chrono::milliseconds answer_within) : path_(std::move(path)), socket_(fd), answer_within_(answer_within) {}
  Result<card::RecorderReply> ask(card::RecorderRequest request, std::vector<int>& descriptors);
  Result<card::RecorderReply> ask(card::RecorderVerb verb, std::uint64_t value = 0);
  Result<card::RecorderReply> receive(std::uint32_t id, std::vector<int>& descriptors);
  Result<card::RecorderReply> receive_one(std::chrono::steady_clock::time_point deadline, std::vector<int>& descriptors);
  void forget_memory();

  const std::string path_;
  const int socket_;
  const std::chrono::milliseconds answer_within_;
  bool throttled_ = false;
  std::uint32_t next_id_ = 1, function_ = 0;
  card::DmaRing ring_;
  int doorbell_ = -1;
  std::uint64_t volume_bytes_ = 0, bitmap_bytes_ = 0;
  std::uint64_t* bitmap_ = nullptr;
  const std::byte* window_ = nullptr;
  std::vector<int> memory_;
  std::vector<std::array<std::uint64_t, 5>> at_start_;
  std::mutex asking_;
};

}  // namespace luge::vmstate
