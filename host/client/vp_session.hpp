// One VP of an attached volume: the window of open writes, the open reads, and the way to the present primary.
// Private to host/client.
//
// Invariants
// - A write keeps its sequence number from its first sending until its answer; sequences [low, next) are the window,
//   next - low <= kSessionWindow. Below low all are answered and never sent again (protocol 2.3).
// - Nothing is sent without a session opened on this very connection in this epoch; after opening, all unanswered
//   writes go out again in sequence order.
// - An answer under an epoch lower than any seen is dropped (protocol 6.3).
#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "client/requests.hpp"
#include "wire/channel.hpp"
#include "wire/control_generated.h"

namespace luge::client {

struct VolumeState;

class VpSession {
 public:
  VpSession(VolumeState& volume, VpId vp);

  /// What the control plane says of the VP; older designations than the one held are ignored.
  void learn(const fbs::VpView* view);
  void submit(Part* part);
  /// Sends what has been submitted since the last call. Runs once per turn of the loop.
  void send();
  void on_write_replies(const fbs::WriteReplies& replies);
  /// False: the message contradicts itself.
  bool on_read_replies(const fbs::ReadReplies& replies, const Buffer& payload);
  bool on_map_reply(const fbs::MapReply& reply);
  void wake() { wake_.notify_all(); }
  /// Takes all open parts out, to be failed; ends the session.
  void abandon(std::vector<Part*>& parts);

  std::size_t outstanding() const { return queued_.size() + in_window_ + reads_.size(); }
  bool paused(io::Time now) const;
  const std::string& reason() const { return reason_; }
  const std::string& address() const { return address_; }
  /// Finds the primary, opens the session and watches it, while there is demand. One task per VP that was ever used.
  static io::Task<void> run(std::shared_ptr<VolumeState> volume, VpSession& s);

  bool dirty = false;  ///< in the volume's list of sessions that have something to send

 private:
  // vp_session.cpp
  void send_writes();
  void emit_writes(std::vector<Part*>& batch);
  void send_reads();
  void emit_reads(const std::vector<Part*>& batch);
  void emit_map(const Part& part);
  void answered_read(Part* part, const Status& status);
  bool note_epoch(Epoch epoch);
  void retry_read(Part* part);
  void release_delayed_reads(io::Time now);
  void progress();
  void trouble(std::string reason, Epoch epoch);

  // vp_route.cpp
  io::Task<void> find_primary();
  io::Task<bool> look_up();
  io::Task<bool> open();
  io::Task<void> watch();
  io::Task<void> watch_once();
  io::Task<void> back_off();
  bool stalled(io::Time now) const;
  void say_if_long();

  VolumeState& v_;
  const VpId vp_;
  std::array<Part*, kSessionWindow> window_{};  // by sequence % W; null: answered
  std::uint64_t low_ = 1, next_ = 1, unsent_ = 1;
  std::size_t in_window_ = 0;
  std::deque<Part*> queued_;                       // writes without a sequence yet
  absl::flat_hash_map<std::uint64_t, Part*> reads_;  // all open reads, by tag
  std::deque<Part*> unsent_reads_;
  std::deque<Part*> delayed_reads_;
  std::uint64_t next_tag_ = 1;

  std::shared_ptr<wire::Channel> channel_;  // set while a session is open on it
  Epoch epoch_ = 0;       // what requests carry
  Epoch seen_epoch_ = 0;
  Revision revision_ = 0;
  NodeId primary_ = 0;
  std::vector<NodeId> members_;  // primary first
  std::map<NodeId, std::string> addresses_;
  std::size_t turn_ = 0;         // which member is tried while the control plane is away
  std::string address_;          // of the head in use or tried
  bool look_up_first_ = false;
  io::Time opened_{};            // the present session

  io::Event wake_;
  bool running_ = false;
  bool sleeping_ = false;        // run() waits without a timeout: submit() must wake it
  std::uint64_t submitted_ = 0;
  std::uint32_t attempts_ = 0;   // since the last progress
  io::Time last_progress_{};
  bool said_ = false;
  std::string reason_;
  // Scratch of send(), kept for its memory.
  std::vector<Part*> batch_;
  std::vector<fbs::WriteOp> ops_;
  std::vector<fbs::ReadOp> read_ops_;
  std::vector<std::uint32_t> crcs_;
};

}  // namespace luge::client
