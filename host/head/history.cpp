// Loss accepted (protocol 4.6): an operator has let one replica's log be the truth, complete or not. The designation then
// has another history id and a higher epoch. Its primary begins that history with what it has; every other replica is a
// stranger to it and is rebuilt whole.
#include "base/logging.hpp"
#include "head/partition.hpp"
#include "switches/paths.hpp"

namespace luge::head {
namespace {

// No log of a history given up reaches up to here, however much further than this replica's it went: commit LSNs and
// records that such a log still names must never be taken for ones of the new history.
constexpr Lsn kHistoryStep = Lsn{1} << 40;

}  // namespace

std::string stranger_key(VpId vp) { return "stranger/" + std::to_string(vp); }

void Partition::become_stranger(const Designation& d) {
  stranger = true;
  reached(Path::stranger);
  replica.suspect = true;
  replica.suspect_reason = "it holds a history that was given up";
  synced_epoch = 0;
  logging::warn("VP {:x}: loss has been accepted: a new history begins with node {} in epoch {}", d.vp, d.primary, d.epoch);
}

// The image is the whole of it: should this head restart before it is complete, it is a stranger still and begins again.
io::Task<Status> Partition::begin_history() {
  Epoch epoch = designation().epoch;
  if (Status s = co_await wait_durable(replica.last().lsn); !s.ok()) co_return s;
  if (epoch != designation().epoch) co_return Status(Code::unavailable, "another epoch has begun");
  Lsn last = replica.last().lsn;
  bool begun = replica.last().epoch == epoch;  // by an attempt of before
  std::uint64_t lost = begun ? 0 : replica.begin_history({epoch, (last / kHistoryStep + 1) * kHistoryStep});
  Status s = co_await write_image();
  if (s.ok()) s = co_await no_stranger();
  if (!s.ok()) co_return s;
  logging::warn("VP {:x}: a new history begins from LSN {} of this replica as LSN {}; {} blocks are lost and read as errors until they are written again",
                replica.vp(), last, replica.last().lsn, lost);
  co_return Status();
}

io::Task<Status> Partition::no_stranger() {
  if (!stranger) co_return Status();
  std::uint64_t history = designation().history;
  Status s = co_await ctx.meta_store->put(std::vector<io::MetaStore::Change>{{stranger_key(replica.vp()), std::nullopt}});
  if (!s.ok()) co_return s;
  if (history != designation().history) co_return Status(Code::unavailable, "yet another history has begun");
  stranger = false;
  replica.suspect = false;
  replica.suspect_reason.clear();
  co_return s;
}

}  // namespace luge::head
