// The area of vhost-user in which a device notes, in memory that its front end keeps, which requests it has taken and not ended: what
// a new process does again after a kill -9. Layout: QEMU's docs/interop/vhost-user, "inflight I/O tracking", split virtqueues.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.hpp"

namespace luge::attach {

class Inflight {
 public:
  /// Bytes for `queues` rings of `entries`.
  static std::uint64_t bytes_for(std::size_t queues, std::uint32_t entries);
  /// A new area in a memfd, all zeros.
  static Result<std::shared_ptr<Inflight>> create(std::size_t queues, std::uint32_t entries);
  /// The front end's, from before.
  static Result<std::shared_ptr<Inflight>> map(int fd, std::uint64_t offset, std::uint64_t bytes, std::size_t queues, std::uint32_t entries);
  ~Inflight();
  Inflight(const Inflight&) = delete;

  int fd() const { return fd_; }
  std::uint64_t bytes() const { return bytes_; }
  std::size_t queues() const { return queues_; }
  std::uint32_t entries() const { return entries_; }

  /// Heads in flight, in the order in which they were taken. `used`: the used index in guest memory; what was published of a batch that
  /// was not cleared is cleared first.
  std::vector<std::uint16_t> recover(std::size_t queue, std::uint16_t used);
  /// Nothing has been noted of this queue in it yet: recover() will find nothing, whatever is in flight.
  bool fresh(std::size_t queue) const;
  // What lies outside of the area is not noted: VirtioBlk starts no ring that could name it.
  void taken(std::size_t queue, std::uint16_t head);
  /// The batch whose used index comes next.
  void ending(std::size_t queue, const std::vector<std::uint16_t>& heads);
  /// The used index is in memory.
  void ended(std::size_t queue, const std::vector<std::uint16_t>& heads, std::uint16_t used);

 private:
  struct Entry {
    std::uint8_t inflight;
    std::uint8_t padding[5];
    std::uint16_t next;
    std::uint64_t counter;
  };
  struct Queue {
    std::uint64_t features;
    std::uint16_t version, entries, last_batch_head, used;
    Entry entry[];
  };
  static_assert(sizeof(Entry) == 16 && sizeof(Queue) == 16);
  Inflight() = default;
  bool inside(std::size_t queue, std::uint16_t head) const { return queue < queues_ && head < entries_; }
  Queue& queue(std::size_t i) const { return *reinterpret_cast<Queue*>(base_ + i * stride_); }

  int fd_ = -1;
  void* mapped_ = nullptr;
  std::uint64_t mapped_bytes_ = 0, bytes_ = 0, stride_ = 0;
  std::byte* base_ = nullptr;
  std::size_t queues_ = 0;
  std::uint32_t entries_ = 0;
  std::uint64_t counter_ = 1;
};

}  // namespace luge::attach
