// What a head has to tell each of its peers as a primary, gathered over one turn of the loop: one Replicate message
// per peer carries the records of all VPs that became ready meanwhile (group commit over the wire).
#pragma once

#include <map>

#include "head/context.hpp"
#include "wire/replica_generated.h"

namespace luge::head {

class Outbox {
 public:
  explicit Outbox(Context& ctx) : ctx_(ctx) {}
  /// `blocks`: the record's payload (empty for metadata).
  void add(NodeId peer, const fbs::VpState& state, const Record& record, const Buffer& blocks);
  /// Just the state: heartbeat, commit LSN.
  void add(NodeId peer, const fbs::VpState& state);
  void clear(NodeId peer) { queues_.erase(peer); }

 private:
  struct Queue {
    std::map<VpId, fbs::VpState> states;
    PackedRecords records;
  };
  void post();
  void flush(NodeId peer, Queue& queue);
  Context& ctx_;
  std::map<NodeId, Queue> queues_;
  bool posted_ = false;
};

}  // namespace luge::head
