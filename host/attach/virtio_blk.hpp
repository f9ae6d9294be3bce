// A guest's disk (virtio 1.2, 5.2) on a block target: requests come from split virtqueues, and every byte that goes back into guest
// memory (data, status, used ring) goes through the DMA path, in this order: data, status; then, of all that has ended in one turn of the loop, used
// elements, used index, interrupt.
//
// Invariants
// - A descriptor is read once. What the guest may not do stops the whole device, with one log line; a request that is merely impossible
//   (beyond the end, unaligned, of an unknown type) fails with its status byte.
// - Requests in flight are marked in the inflight area (if there is one) from before they are begun until after the used index that ends
//   them is in memory: another process can take over at any moment, and does them again.
// - What ended because the volume was lost is in flight still: the next target does it, and no drain is done before.
// - At most kOutstanding bytes are in flight; beyond that no descriptor is taken.
// - A ring whose queue was stopped (drain) touches guest memory no more.
// Threads: one World. Ownership: target and memory outlive the requests: drain() first.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attach/inflight.hpp"
#include "attach/vring.hpp"
#include "card/dma_path.hpp"
#include "client/block_target.hpp"

namespace luge::attach {

/// struct virtio_blk_config, as the guest sees it.
struct __attribute__((packed)) VirtioBlkConfig {
  std::uint64_t capacity = 0;  // in sectors of 512 bytes
  std::uint32_t size_max = 0, seg_max = 126;
  std::uint16_t cylinders = 0;
  std::uint8_t heads = 0, sectors = 0;
  std::uint32_t blk_size = 512;
  std::uint8_t physical_block_exp = 3, alignment_offset = 0;
  std::uint16_t min_io_size = 8;
  std::uint32_t opt_io_size = 256;
  std::uint8_t wce = 1, unused = 0;
  std::uint16_t num_queues = 1;
  std::uint32_t max_discard_sectors = 0, max_discard_seg = 0, discard_sector_alignment = 8;
  std::uint32_t max_write_zeroes_sectors = 0, max_write_zeroes_seg = 0;
  std::uint8_t write_zeroes_may_unmap = 1, unused1[3] = {};
};
static_assert(sizeof(VirtioBlkConfig) == 60);

class VirtioBlk {
 public:
  static constexpr std::size_t kMostQueues = 16;
  static constexpr std::uint64_t kOutstanding = 64u << 20, kMostBytes = 32u << 20;
  static constexpr io::Duration kReplayPatience = std::chrono::seconds(2);
  struct Stats {
    std::uint64_t reads = 0, writes = 0, read_bytes = 0, written_bytes = 0, errors = 0, replayed = 0, interrupts = 0;
  };

  VirtioBlk(io::World& world, std::shared_ptr<card::DmaPath> dma, std::string name, std::size_t queues);
  ~VirtioBlk();

  // What the disk is. Null target: requests wait until there is one.
  void set_target(client::BlockTarget* target);
  void set_size(std::uint64_t bytes) { bytes_ = bytes; }
  void set_read_only(bool on) { read_only_ = on; }
  VirtioBlkConfig config() const;
  /// Of virtio, without those of the transport.
  std::uint64_t features() const;
  void set_features(std::uint64_t features);

  // Queues. REQUIRES: q < queues().
  std::size_t queues() const { return queues_.size(); }
  /// Begins at `available`, or with an inflight area where that says; what it has in flight is done again.
  Status start(std::size_t q, const Vring::Place& place, std::uint16_t available);
  /// Is called when the guest is to be told that requests have ended; stays, whether the queue runs or not.
  void set_interrupt(std::size_t q, std::function<void()> interrupt);
  void enable(std::size_t q, bool on);
  bool started(std::size_t q) const { return queues_[q].ring.started(); }
  bool any_started() const;
  /// The guest has made requests available.
  void kick(std::size_t q);
  /// Takes no more from the queue and ends when nothing of it is in flight; it is stopped then. Its next available index.
  /// What is to be done again is in flight, too; where it cannot be begun (no target) that is waited for `patience`, and left in the inflight area.
  io::Task<std::uint16_t> drain(std::size_t q, io::Duration patience = kReplayPatience);
  /// While held, by whoever, nothing is taken.
  void hold(bool on);
  /// REQUIRES: held. Ends when nothing is in flight but what is to be done again and has not begun. False: nobody holds it any more.
  io::Task<bool> drain_all();
  /// REQUIRES: held. The same, with all that is to be done again. False also: that could not be begun within kReplayPatience.
  io::Task<bool> finish_all();
  /// Guest memory is another. REQUIRES: held and drained.
  Status move_ring(std::size_t q, const Vring::Place& place);
  void set_inflight(std::shared_ptr<Inflight> area) { inflight_ = std::move(area); }

  /// The guest or its front end has broken the rules: the device does nothing any more. Says why, once.
  void stop_for_good(const Status& why);
  /// Its guest is another, or has been reset: no ring is started any more.
  void mend() { broken_ = Status(); }
  bool broken() const { return !broken_.ok(); }
  void on_broken(std::function<void()> f) { on_broken_ = std::move(f); }
  std::size_t in_flight() const { return in_flight_; }
  const Stats& stats() const { return stats_; }

 private:
  struct Request;
  struct UsedElement {  // as in the ring (virtio 1.2, 2.7.8)
    std::uint32_t head = 0, written = 0;
  };
  struct Publication;
  struct Queue {
    Vring ring;
    bool enabled = false, stopping = false, publishing = false;
    std::uint16_t available = 0, published = 0;  // published: the used index in memory
    std::size_t in_flight = 0;
    std::vector<bool> taken;                               // by head
    std::vector<std::uint16_t> ended;                      // heads that the guest has not been told of
    std::vector<UsedElement> elements;                     // what it is to be told of each
    const Publication* telling = nullptr;                  // on its way through the DMA path: the guest may see it before published()
    std::vector<std::uint16_t> replay;                     // heads of before, in their order, and those that a lost volume has not done
    std::function<void()> interrupt;
    // VIRTIO_F_EVENT_IDX: the index at which the guest is to kick, as it was written last.
    bool arming = false, armed = false, submitting = false;
    std::uint16_t event = 0;
    card::DmaTransfer arm;
  };
  void process(Queue& q);
  static bool being_told(const Queue& q, std::uint16_t head);
  bool arm(Queue& q);
  bool may_replay(const Queue& q) const { return target_ != nullptr && away_ != target_number_ && (q.enabled || q.stopping) && held_ == finishing_; }
  bool stuck(const Queue& q) const { return idle(q) && !may_replay(q); }
  bool done(const Queue& q) const { return idle(q) && (q.replay.empty() || !broken_.ok()); }
  bool idle(const Queue& q) const { return q.in_flight == 0 && !q.publishing && q.ended.empty() && !q.arming; }
  bool take(Queue& q, std::uint16_t head);
  Request* new_request();
  void give_back(Request* r);
  Status parse(Request& r);
  void begin(Request& r);
  void read(Request& r);
  void write(Request& r);
  void discard(Request& r);
  void identify(Request& r);
  void finish(Request& r, std::uint8_t status);
  void finished(const Status& s, Request& r);
  void do_again(Request& r);
  void scatter(Request& r, Bytes bytes, std::size_t& segment, std::uint32_t& inside);
  void publish_later(Queue& q);
  void publish(Queue& q);
  void published(Publication& p);
  bool sound(const Request& r, std::uint64_t bytes) const;

  io::World& world_;
  std::shared_ptr<card::DmaPath> dma_;
  std::string name_;
  client::BlockTarget* target_ = nullptr;
  std::uint64_t target_number_ = 1, away_ = 0;  // counts set_target(); the last one that answered that it has gone
  std::uint64_t bytes_ = 0, features_ = 0;
  bool read_only_ = false;
  unsigned held_ = 0, finishing_ = 0;  // finishing_: of those who hold it, who wait for replays
  std::vector<Queue> queues_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  std::vector<std::unique_ptr<Publication>> publications_;
  std::vector<Publication*> free_publications_;
  std::shared_ptr<Inflight> inflight_;
  std::size_t in_flight_ = 0;
  std::uint64_t outstanding_ = 0;
  io::Event changed_;
  Status broken_;
  std::function<void()> on_broken_;
  Stats stats_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace luge::attach
