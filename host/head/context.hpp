// What the parts of a head share: the world, the two log portions, connections, the partitions. Owned by Head;
// everything runs on its loop.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <map>
#include <memory>

#include "coding/erasure_coder.hpp"
#include "head/connections.hpp"
#include "head/options.hpp"
#include "head/reader.hpp"
#include "head/segment_log.hpp"
#include "io/budget.hpp"
#include "io/meta_store.hpp"
#include "wire/control_link.hpp"

namespace luge::head {

class Partition;
class Outbox;

struct Context {
  Context(io::World& w, Options o);
  ~Context();

  io::World& world;
  Options options;
  wire::Identity identity;
  const io::Time started;       ///< of this process
  std::uint64_t log_order = 1;  ///< next batch's order over both portions
  std::unique_ptr<io::BlockFile> meta_file;
  std::unique_ptr<io::MetaStore> meta_store;
  std::unique_ptr<SegmentLog> data_log, meta_log;
  std::unique_ptr<wire::ControlLink> control;
  std::unique_ptr<coding::ErasureCoder> coder;
  std::unique_ptr<Connections> connections;
  std::unique_ptr<Outbox> outbox;
  std::map<VpId, std::unique_ptr<Partition>> partitions;
  std::vector<std::unique_ptr<Partition>> removed;  ///< their tasks may still run; destroyed with the head

  io::Budget read_memory;  ///< of what is read for clients and not on its way to them yet
  absl::flat_hash_map<const wire::Channel*, std::weak_ptr<Reader>> readers;  ///< with something unanswered; others may have expired
  std::uint64_t next_stripe_counter = 1;
  std::size_t in_flight = 0;  ///< payload that this head's primaries have admitted and not committed yet
  std::uint64_t coded_bytes = 0;  ///< source bytes that this head's own processor has coded: 0 while sleds can and are to
  bool draining = false;

  Partition* partition(VpId vp);
  std::shared_ptr<Reader> reader_of(const wire::Channel& channel);
  /// A log or the metadata store has failed: nothing more can be made durable here, until the daemon is restarted.
  bool failed() const { return data_log->failed() || meta_log->failed() || meta_store->failed(); }
  SegmentLog& log(Portion p) { return p == Portion::data ? *data_log : *meta_log; }
  bool alive(NodeId n) const {
    const wire::NodeRecord* r = control->node(n);
    return r != nullptr && r->alive;
  }
};

}  // namespace luge::head
