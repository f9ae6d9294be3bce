// A stripe that was written while too few sleds were reachable gets the chunks that it lacks when they are back (protocol
// 8.5): its blocks are read, a gateway codes them again and writes the missing chunks to fresh slots, and an index
// record gives its row the new places. No index entry changes (7.1).
#include "base/logging.hpp"
#include "head/primary.hpp"
#include "head/stripe_reader.hpp"
#include "head/stripe_writer.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

io::Task<void> Primary::widen_loop(std::shared_ptr<Primary> self) {
  std::uint64_t last = 0;  // taken in turn: one that cannot be widened does not hold up the others
  while (!deposed_) {
    const std::set<std::uint64_t>& narrow = partition_.replica.narrow_stripes();
    if (narrow.empty()) {
      co_await ctx_.world.sleep(1s);
      continue;
    }
    auto next = narrow.upper_bound(last);
    last = next == narrow.end() ? *narrow.begin() : *next;
    Status s = co_await widen(last);
    if (deposed_) break;
    if (s.ok()) continue;
    logging::debug("VP {:x}: stripe number {} stays narrow: {}", partition_.replica.vp(), last, s.to_string());
    co_await ctx_.world.sleep(1s);
  }
}

io::Task<Status> Primary::widen(std::uint64_t number) {
  StripeRow row = *partition_.replica.stripe(number);
  StripeReader reader(ctx_);
  auto whole = co_await reader.read_whole(row);  // first: an unreadable stripe must not use up slots
  if (!whole.ok() || deposed_) co_return whole.status();
  auto places = co_await columns_.allocate_missing(row);
  if (deposed_) co_return Status(Code::unavailable, "the epoch has ended");
  if (!places.ok()) {
    if (places.code() == Code::fenced && !broken(Switch::sleds_word_ignored)) depose(places.status().text());
    co_return places.status();
  }
  StripeWrite w{row.id.vp, epoch_, row.id, row.layout, row.chunk_bytes, std::move(whole->identities), {whole->data}, *places, columns_.credentials(*places), true};
  NodeId gateway = 0;
  for (const fbs::ChunkPlace& p : *places)
    if (gateway == 0) gateway = p.sled();
  Status s = co_await write_stripe(ctx_, w, gateway);
  if (deposed_) co_return s;
  if (s.code() == Code::fenced && !broken(Switch::sleds_word_ignored)) depose(s.text());
  if (!s.ok()) {
    columns_.refused(*places, s);
    for (const fbs::ChunkPlace& p : *places)
      if (p.sled() != 0) columns_.avoid(p.sled());
    co_return s;
  }
  for (std::size_t i = 0; i < places->size(); ++i)
    if ((*places)[i].sled() != 0) row.places.set(i, (*places)[i]);
  Lsn lsn = append(RecordKind::index, 0, 0, {}, row_record(number, row), {})->lsn();
  co_await wait_commit(lsn);
  counters_.parity_chunks += row.chunk_bytes;
  ++counters_.widened;
  co_return s;
}

std::string Primary::row_record(std::uint64_t number, const StripeRow& row) const {
  flatbuffers::FlatBufferBuilder b;
  fbs::StripeId id(row.id.vp, row.id.epoch, row.id.counter);
  auto places = b.CreateVectorOfStructs(row.places.unpacked());
  std::vector<flatbuffers::Offset<fbs::Stripe>> stripes{fbs::CreateStripe(b, number, &id, static_cast<std::uint16_t>(row.layout.k),
                                                                         static_cast<std::uint16_t>(row.layout.m), row.chunk_bytes, places, 0)};
  auto list = b.CreateVector(stripes);
  b.Finish(fbs::CreateIndexRecord(b, list));
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

}  // namespace luge::head
