// Loss accepted (protocol 4.6): an operator has let one replica's log be the truth, complete or not. The designation then
// has another history id and a higher epoch. Its primary begins that history with what it has; every other replica is a
// stranger to it and is rebuilt whole.
#include "base/logging.hpp"
#include "head/partition.hpp"
#include "switches/paths.hpp"

namespace luge::head {
namespace {

// No log of a history given up reaches up to the first LSN, however much further than this replica's it went: commit LSNs and
// records that such a log still names must never be taken for ones of the new history. Histories are counted by their epochs: this replica
// may never have heard of the one before, and its heads return.
constexpr Lsn kHistoryStep = Lsn{1} << 40;
Lsn first_lsn(Epoch epoch, Lsn last) { return std::max(last / kHistoryStep + 1, epoch >> wire::kHistoryEpochBits) * kHistoryStep; }

}  // namespace

std::string unsound_key(VpId vp) { return "unsound/" + std::to_string(vp); }

void Partition::become_stranger(const Designation& d) {
  stranger = unsound = true;
  reached(Path::stranger);
  replica.suspect = true;
  replica.suspect_reason = kGivenUp;
  synced_epoch = 0;
  granted_until = std::max(granted_until, ctx.world.now() + kLease);  // who was primary need not have had a grant from here
  logging::warn("VP {:x}: loss has been accepted: a new history begins with node {} in epoch {}", d.vp, d.primary, d.epoch);
}

// Unflushed blocks that this head (or no head) can give any more. A loss accepted is the time to look: later, a record that
// is bad on its only copy keeps every other replica from being rebuilt.
io::Task<Partition::Unreadable> Partition::unreadable_blocks(bool ask_others) {
  Unreadable out;
  std::vector<RecordPtr> records;
  for (const auto& [lsn, r] : replica.records())
    if (r->kind() == RecordKind::data) records.push_back(r);
  for (const RecordPtr& r : records) {
    if (replica.find(r->lsn()) != r) continue;  // freed while others were read
    auto whole = co_await sound_payload(r, ask_others);
    for (std::uint32_t i = 0; !whole.ok() && i < r->payload_blocks(); ++i) {
      auto block = co_await payload(r, i, 1, false);
      if (block.ok()) continue;
      if (block.status().code() == Code::corrupt) out.blocks.emplace_back(r->header.lba() + i, r->lsn());
      else out.failed_read = block.status();
    }
  }
  co_return out;
}

// The image is the whole of it: should this head restart before it is complete, it is a stranger still and begins again.
io::Task<Status> Partition::begin_history() {
  Epoch epoch = designation().epoch;
  if (Status s = co_await wait_durable(replica.last().lsn); !s.ok()) co_return s;
  if (epoch != designation().epoch) co_return Status(Code::unavailable, "another epoch has begun");
  Lsn last = replica.last().lsn;
  bool begun = replica.last().epoch == epoch;  // by an attempt of before
  Unreadable unreadable;
  if (!begun) unreadable = co_await unreadable_blocks(true);
  if (epoch != designation().epoch) co_return Status(Code::unavailable, "another epoch has begun");
  if (!unreadable.failed_read.ok()) co_return unreadable.failed_read;  // it is asked again, until payload() gives it up
  std::uint64_t lost = begun ? 0 : replica.begin_history({epoch, first_lsn(epoch, last)}, unreadable.blocks);
  Status s = co_await write_image();
  if (s.ok()) s = co_await sound_again();
  if (!s.ok()) co_return s;
  logging::warn("VP {:x}: a new history begins from LSN {} of this replica as LSN {}; {} blocks are lost and read as errors until they are written again",
                replica.vp(), last, replica.last().lsn, lost);
  co_return Status();
}

io::Task<Status> Partition::sound_again() {
  if (unsound) {
    // Not beside a designation that is being kept: with another history comes that what is held is of none.
    std::uint64_t history = designation().history;
    auto guard = co_await adopting_.lock();
    if (history != designation().history) co_return Status(Code::unavailable, "yet another history has begun");
    Status s = co_await ctx.meta_store->put(std::vector<io::MetaStore::Change>{{unsound_key(replica.vp()), std::nullopt}});
    if (!s.ok()) co_return s;
    stranger = unsound = false;
  }
  replica.suspect = false;
  replica.suspect_reason.clear();
  co_return Status();
}

}  // namespace luge::head
