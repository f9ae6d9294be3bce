// Damage to what disks hold, never more than the unit's redundancy is there for, so that the oracles may demand the data:
//  - at most one head has a bad disk: rot in its logs and tables, lost and misdirected writes, a replacement by an empty disk,
//    or its end; these two only while another is required with it. So every acknowledged write is on another required head.
//  - at most one sled has such a disk, and only where the others suffice for stripes of k + 1 chunks;
//  - chunks on other sleds rot one by one, or are parity that was wrong from the start, each only while k others of its stripe
//    are whole and not on the bad sled.
// A seed may be `reckless`: then chunks and logged payloads rot beyond that. Reads may wait for ever or fail, but never
// return wrong bytes.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "sim/cluster/chaos.hpp"
#include "sim/cluster/media.hpp"

namespace luge::sim {

class Damage {
 public:
  /// `with_bad_head`: always, not only in some seeds.
  Damage(Simulation& sim, Unit& unit, Media& media, Layout layout, bool with_bad_head = false);

  std::vector<Chaos::Fault> faults();
  void heal();
  /// Some of the chunks that may rot do. For when no fault comes any more, before everything is read.
  void rot_chunks();
  /// The header in front of a record that the bad head has logged lately goes bad, or a block of the record before. Null: there is none.
  head::RecordPtr rot_header(Node bad_head);
  /// Payloads that only logs hold, a few of them.
  void rot_payloads(Node bad_head);
  /// The bad head gets an empty disk and starts again after `after`. False: another head could not do without it.
  bool replace_bad_head(Chaos& chaos, io::Duration after);
  /// So many of the newest checkpoints of each VP on the sleds cannot be read any more.
  void rot_checkpoints(std::size_t newest);
  bool reckless() const { return reckless_; }
  /// A VP is where only an operator goes on who accepts a loss: what it can do is what one of a reckless seed can, from now on.
  bool beyond_help();
  /// Its disk has been damaged; the one that may be, and to which nothing has happened so far, is judged like all others.
  bool bad(Node n) const { return touched_.contains(n) || sim_.disk(n).lies() != 0; }
  /// A bad node could not start from what its disk holds: it gets an empty one after a while.
  void could_not_start(Node n);
  /// One that could not has what it held still, and is about to lose it.
  bool replacing() const { return replacing_ != 0; }
  /// The node's disk has answered with errors: what its owner finds on it later is no measure of the owner.
  void excuse(Node n) { excused_.insert(n); }
  bool excused(Node n) const { return excused_.contains(n) && sim_.disk(n).errors() != 0; }
  /// Chunk `chunk` of that stripe has been damaged where it lies.
  bool spoilt(StripeId stripe, std::uint32_t chunk) const { return spoilt_.contains({stripe, chunk}); }
  std::optional<Node> bad_head() const { return bad_head_; }
  std::optional<Node> bad_sled() const { return bad_sled_; }

 private:
  void rot_log();
  void rot_log_once(Node n);
  void rot_payload(Node n);
  void rot_at(Node n, const head::Record& r);
  std::vector<head::RecordPtr> logged_data(Node n) const;
  void rot_tables();
  void lie(Chaos& chaos);
  void new_disk(Chaos& chaos);
  void end(Chaos& chaos);
  bool may_rot(const head::StripeRow& row, std::uint32_t chunk) const;
  void spoil(const Media::Slot& slot);
  std::optional<Node> bad_node();
  bool others_hold(Node n) const;
  void empty_disk(Node n);
  /// The bad head is all that a VP's `required` has left, and its replica is suspect: rot that nobody had come by yet, then all others cut
  /// off for long.
  void alone_with_rot();
  /// The store is an older copy, and whom it would have to hear has lost what it knew with its disk.
  void older_and_forgotten();
  void log(const std::string& text);

  Simulation& sim_;
  Unit& unit_;
  Media& media_;
  Random random_;
  std::optional<Node> bad_head_, bad_sled_;
  std::set<Node> excused_, touched_;
  std::set<Node> emptied_;  // its disk was replaced
  std::set<std::pair<StripeId, std::uint32_t>> spoilt_;
  bool reckless_ = false;
  bool ended_ = false;
  std::uint64_t replacing_ = 0;
};

}  // namespace luge::sim
