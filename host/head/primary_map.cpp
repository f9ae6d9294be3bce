// Which blocks hold data: the index asked without the data. As true as a read: it waits for what is appended to be
// committed, and the epoch is confirmed after the look-up and before the answer.
#include "head/primary.hpp"

namespace luge::head {

struct Primary::MapJob {
  ChannelPtr channel;
  std::uint64_t tag = 0;
  Lba lba = 0;
  std::uint32_t blocks = 0;
  Status status;
};

namespace {

// Lengths by turns of holes and of data. A page that is not there is 512 holes at once.
std::vector<std::uint32_t> runs_of(const Index& index, Lba lba, std::uint32_t blocks) {
  std::vector<std::uint32_t> runs{0};
  bool data = false;
  auto add = [&](bool is_data, std::uint32_t count) {
    if (is_data != data) runs.push_back(0);
    data = is_data;
    runs.back() += count;
  };
  for (Lba end = lba + blocks; lba < end;) {
    const Index::Page* page = index.page(lba / Index::kFanOut);
    Lba page_end = std::min<Lba>(end, (lba / Index::kFanOut + 1) * Index::kFanOut);
    if (page == nullptr) add(false, static_cast<std::uint32_t>(page_end - lba));
    for (; page != nullptr && lba < page_end; ++lba) add(!(*page)[lba % Index::kFanOut].hole(), 1);
    lba = page_end;
  }
  return runs;
}

}  // namespace

void Primary::map(const ChannelPtr& channel, const fbs::MapQuery& query) {
  MapJob job{channel, query.tag(), query.lba(), query.blocks(), {}};
  std::uint64_t size = partition_.designation().blocks;
  if (job.blocks == 0 || job.blocks > kMaxMapBlocks) job.status = Status(Code::invalid, "a map of no block, or of too many");
  else if (query.epoch() != epoch_ || !open()) job.status = Status(Code::unavailable, state_);
  else if (!inside(job.lba, job.blocks, size)) job.status = beyond_end();
  ctx_.world.spawn("map", answer_map(shared_from_this(), std::move(job)));
}

io::Task<void> Primary::answer_map(std::shared_ptr<Primary> self, MapJob job) {
  Replica& replica = partition_.replica;
  std::vector<std::uint32_t> runs;
  if (job.status.ok()) {
    co_await wait_commit(replica.last().lsn);
    if (!deposed_) runs = runs_of(replica.index(), job.lba, job.blocks);
    bool confirmed = co_await confirm();
    if (!confirmed || deposed_) job.status = Status(Code::unavailable, "this head is not the primary any more");
  }
  if (!job.status.ok()) runs.clear();
  job.channel->send(wire::make_frame(wire::Kind::map_reply, [&](auto& b) {
    auto text = b.CreateString(job.status.text());
    auto list = b.CreateVector(runs);
    return fbs::CreateMapReply(b, replica.vp(), epoch_, job.tag, static_cast<std::uint16_t>(job.status.code()), text, list);
  }));
}

}  // namespace luge::head
