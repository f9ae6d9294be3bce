// What operators do to a unit in service, beside the faults: they make volumes larger, and take copies away from heads. What is asked for may
// fail half-way, as the faults will have it; asked for again when they are over it must succeed, and the whole of each volume be served.
//
// Of a move: where it is answered with success, the head has left each partition that it had a copy of when that was asked. When the faults are
// over one copy of each volume is moved once more, wherever a head is free to take it, and that must succeed. (Not the same copies: which head
// an unanswered move has taken one from, others may have given it back to.)
//
// The part that a volume has grown by is written to here, block by block with one request at a time: at the end each block is as the last
// write that was acknowledged left it, or as one left it that was not answered since.
#pragma once

#include <deque>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sim/cluster/chaos.hpp"
#include "sim/cluster/tenant.hpp"

namespace luge::sim {

class Operators {
 public:
  using Tenants = std::vector<std::unique_ptr<Tenant>>;
  /// `random` is none of the simulation's: what else a seed draws must not depend on who operates.
  /// `errors`: those that a client sees fail the seed. `may_grow`: volumes are made larger, too. With a head whose log may go bad they are not: a
  /// partition that it becomes a member of, and that is not open yet when it does, is never opened (docs/reliability.md, known and open).
  Operators(Simulation& sim, Unit& unit, const Tenants& tenants, const Chaos& chaos, bool errors, bool may_grow, Random random);

  void start();
  void stop() { active_ = false; }
  /// After the heal, again and again: asks for what has been asked for and is not so yet. True: all is.
  bool settled();
  /// The same: asks until one copy of each volume has been moved. True: they have been, or no head is free.
  bool moved_again();
  /// The store has a new designation of `vp`.
  void stored(VpId vp);
  /// What is missing for that, or what has gone wrong.
  std::string unsettled() const;
  /// Reads what each volume has grown by. True: it has ended; an error or another content than it must have is in failure().
  bool read_back();
  void begin_read_back() { reading_.reset(); }
  const std::string& failure() const { return failure_; }
  /// "3 resize, 2 move"
  std::string summary() const;

 private:
  struct Block {
    std::uint64_t at = 0;
    std::vector<std::uint8_t> may_be{0};  // fills; the first one is there for certain unless a later one is
  };
  struct Grown {
    Tenant* tenant = nullptr;
    std::uint64_t made = 0, asked = 0;
    std::deque<Block> blocks;     // written beyond `made`
    bool writing = false;
    NodeId leaver = 0;            // whose copies are moved after the heal; 0: not chosen
    bool moved = false;           // they have been
  };
  struct Moving {                 // a move that is under way
    NodeId from = 0;
    std::set<VpId> left_with;     // partitions that `from` has been a member of since that was asked
  };
  struct Asked;   // one request to the control plane, under way or answered
  struct Reading;

  void schedule();
  void act();
  void resize(Grown& d, std::uint64_t bytes);
  void move(Grown& d);
  void ask_to_move(Grown& d, NodeId from, std::string to, bool wait, Duration timeout, std::shared_ptr<Asked> asked);
  bool is_member(VpId vp, NodeId head) const;
  NodeId may_leave(const Grown& d);
  bool has_copy(const Grown& d, NodeId head) const;
  bool may_ask();
  void rebuild();
  void refused();
  void write(Grown& d);
  void served(Grown& d, std::uint64_t bytes);
  bool as_asked(const Grown& d) const;
  void fail(const std::string& why) { if (failure_.empty()) failure_ = why; }
  static io::Task<void> ask_resize(Operators& o, Grown& d, std::uint64_t bytes, std::shared_ptr<Asked> asked);
  static io::Task<void> ask_move(Operators& o, std::string volume, NodeId from, std::string to, bool wait, Duration timeout, std::shared_ptr<Asked> asked);
  static io::Task<void> ask_rebuild(Operators& o, bool accept_loss, std::shared_ptr<Asked> asked);
  static io::Task<void> write_block(Operators& o, Grown& d, Block& b, std::uint8_t fill, Target& target);
  static io::Task<void> read_blocks(Operators& o, Grown& d, Target& target, std::shared_ptr<Reading> reading);

  Simulation& sim_;
  Unit& unit_;
  const Chaos& chaos_;
  const bool errors_, may_grow_;
  Random random_;
  Duration interval_;
  std::deque<Grown> grown_;
  bool active_ = false;
  std::uint64_t resizes_ = 0, moves_ = 0, rebuilds_ = 0;
  std::uint8_t fills_ = 0;
  std::shared_ptr<Asked> asking_;  // after the heal: the one request that is under way
  std::list<Moving> moving_;
  std::string last_error_;
  std::shared_ptr<Reading> reading_;
  std::string failure_;
};

}  // namespace luge::sim
