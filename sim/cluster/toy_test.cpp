// The harness against a store small enough to be seen through: one server that keeps each block in two slots and
// writes durably before it answers; clients that retry. The right one passes every seed; each way of breaking it is
// found within a few, so the workload, the faults and the oracle do find what they are for.
#include <gtest/gtest.h>

#include "base/crc32c.hpp"
#include "sim/cluster/chaos.hpp"
#include "sim/cluster/workload.hpp"
#include "wire/channel.hpp"

namespace luge::sim {
namespace {

using io::Task;

enum class Bug { none, ack_before_write, not_durable, no_session_fence, one_slot, stale_cache };

constexpr std::uint64_t kBlocks = 32;

struct Ask {
  std::uint32_t write;
  std::uint32_t sector, sectors;
  std::uint32_t client;
  std::uint64_t sequence;
};

struct Slot {
  std::uint64_t version;
  std::uint32_t crc;
};

class ToyServer {
 public:
  ToyServer(io::World& w, Bug bug) : world_(w), bug_(bug), server_(w, identity_), turn_(w) { w.spawn("toy", start()); }

 private:
  static std::uint64_t slot_offset(std::uint64_t block, std::uint64_t version) { return (block * 2 + version % 2) * 8192; }

  Task<void> start() {
    auto f = co_await world_.files().open("data", {.create = true, .size = kBlocks * 16384});
    file_ = std::move(*f);
    for (std::uint64_t b = 0; b < kBlocks; ++b) {
      blocks_[b] = Buffer::zeros(4096);
      for (std::uint64_t s = 0; s < 2; ++s) {
        Buffer raw = Buffer::allocate(8192);
        Status r = co_await file_->read(slot_offset(b, s), raw.mutable_bytes());
        LUGE_CHECK(r.ok());
        Slot slot;
        std::memcpy(&slot, raw.data(), sizeof slot);
        if (slot.version <= version_[b]) continue;
        if (bug_ != Bug::one_slot && crc32c(raw.slice(4096, 4096).bytes()) != slot.crc) continue;
        version_[b] = slot.version;
        blocks_[b] = raw.slice(4096, 4096);
      }
    }
    Status s = server_.listen("tcp:toy:1", [this](const std::shared_ptr<wire::Channel>& c, wire::Frame f) {
      world_.spawn("serve", serve(c, std::move(f)));
    });
    LUGE_CHECK(s.ok());
  }

  Task<void> serve(std::shared_ptr<wire::Channel> c, wire::Frame f) {
    auto guard = co_await turn_.lock();
    Ask ask;
    Buffer in = f.data();
    std::memcpy(&ask, in.data(), sizeof ask);
    wire::Frame answer = wire::reply_frame(Status());
    bool old = ask.client < newest_client_ && bug_ != Bug::no_session_fence;
    bool repeated = ask.client == newest_client_ && ask.sequence <= last_;
    if (ask.client > newest_client_) last_ = 0;
    newest_client_ = std::max(newest_client_, ask.client);
    if (old) co_return;
    if (!ask.write) {
      Buffer out = Buffer::allocate(ask.sectors * 512);
      for (std::uint32_t s = 0; s < ask.sectors; ++s) {
        std::uint32_t at = ask.sector + s;
        Buffer& from = bug_ == Bug::stale_cache && world_.random_below(50) == 0 && old_[at / 8].size() ? old_[at / 8] : blocks_[at / 8];
        std::memcpy(out.data() + s * 512, from.data() + at % 8 * 512, 512);
      }
      answer.payload.push_back(out);
    } else if (!repeated && ask.sectors != 0) {
      if (bug_ == Bug::ack_before_write) c->reply(f, wire::reply_frame(Status()));
      for (std::uint32_t block = ask.sector / 8; block <= (ask.sector + ask.sectors - 1) / 8; ++block) co_await put(ask, in, block);
      last_ = ask.sequence;
      if (bug_ == Bug::ack_before_write) co_return;
    }
    c->reply(f, std::move(answer));
  }

  Task<void> put(Ask ask, Buffer in, std::uint32_t block) {
    Buffer raw = Buffer::zeros(8192);
    std::memcpy(raw.data() + 4096, blocks_[block].data(), 4096);
    for (std::uint32_t s = 0; s < ask.sectors; ++s)
      if ((ask.sector + s) / 8 == block)
        std::memcpy(raw.data() + 4096 + (ask.sector + s) % 8 * 512, in.data() + 512 + s * 512, 512);
    Slot slot{version_[block] + (bug_ == Bug::one_slot ? 2u : 1u), crc32c(raw.slice(4096, 4096).bytes())};
    std::memcpy(raw.data(), &slot, sizeof slot);
    Bytes part = raw.bytes();
    Status s = co_await file_->write(slot_offset(block, slot.version), {&part, 1},
                                     bug_ == Bug::not_durable ? io::Durability::cached : io::Durability::durable);
    LUGE_CHECK(s.ok());
    version_[block] = slot.version;
    old_[block] = blocks_[block];
    blocks_[block] = raw.slice(4096, 4096);
  }

  io::World& world_;
  Bug bug_;
  wire::Identity identity_{1, 1};
  wire::Server server_;
  io::Mutex turn_;
  std::unique_ptr<io::BlockFile> file_;
  std::map<std::uint64_t, Buffer> blocks_, old_;
  std::map<std::uint64_t, std::uint64_t> version_;
  std::uint32_t newest_client_ = 0;
  std::uint64_t last_ = 0;
};

class ToyClient : public Target {
 public:
  ToyClient(io::World& w, Workload& load, std::uint32_t number)
      : world_(w), number_(number), link_(w, identity_, "tcp:toy:1"), turn_(w) {
    link_.start();
    w.spawn("open", open(load));
  }
  Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    Buffer out = co_await ask(false, offset, into.size(), {});
    std::memcpy(into.data(), out.data(), into.size());
    co_return Status();
  }
  Task<Status> write(std::uint64_t offset, Bytes bytes) override {
    auto guard = co_await turn_.lock();
    co_await ask(true, offset, bytes.size(), bytes);
    co_return Status();
  }
  Task<Status> trim(std::uint64_t offset, std::uint64_t bytes) override { return zero(offset, bytes); }
  Task<Status> zero(std::uint64_t offset, std::uint64_t bytes) override {
    Buffer zeros = Buffer::zeros(bytes);
    co_return co_await write(offset, zeros.bytes());
  }

 private:
  Task<void> open(Workload& load) {
    auto guard = co_await turn_.lock();
    co_await ask(true, 0, 0, {});  // announces the client: fences the one before
    load.attach(world_, *this);
  }
  Task<Buffer> ask(bool write, std::uint64_t offset, std::uint64_t bytes, Bytes data) {
    Ask a{write, static_cast<std::uint32_t>(offset / 512), static_cast<std::uint32_t>(bytes / 512), number_,
          write ? ++sequence_ : ~std::uint64_t{0}};
    while (true) {
      wire::Frame f = wire::reply_frame(Status());
      Buffer payload = Buffer::zeros(512 + data.size());
      std::memcpy(payload.data(), &a, sizeof a);
      if (!data.empty()) std::memcpy(payload.data() + 512, data.data(), data.size());
      f.payload.push_back(payload);
      auto r = co_await link_.call(std::move(f), 300ms);
      if (r.ok()) co_return r->data();
      co_await world_.sleep(10ms);
    }
  }

  io::World& world_;
  std::uint32_t number_;
  wire::Identity identity_{1, 2};
  wire::Link link_;
  io::Mutex turn_;
  std::uint64_t sequence_ = 0;
};

struct Outcome {
  std::string failure;
  std::uint64_t trace = 0, answered = 0, faults = 0;
};

Outcome run(std::uint64_t seed, Bug bug) {
  Simulation sim(seed);
  Workload load(sim, {.volume_bytes = kBlocks * 4096, .hot_blocks = 4, .workers = 5, .requests = 1500, .pause = 10ms});
  Node server = sim.add_node("server", [&](io::World& w) { return std::make_shared<ToyServer>(w, bug); });
  std::uint32_t clients = 0;
  std::shared_ptr<ToyClient> present;
  Node client = sim.add_node("client", [&](io::World& w) { return present = std::make_shared<ToyClient>(w, load, ++clients); });
  Chaos chaos(sim, {.crashable = {server, client}, .networked = {server, client}, .all_at_once = {server, client}});
  chaos.start();
  for (int i = 0; i < 200 && !load.done(); ++i) {
    present.reset();  // the node owns it
    sim.run_for(100ms);
  }
  chaos.heal();
  Outcome out;
  bool quiet = sim.run_until([&] { return load.open() == 0; }, 30s);
  load.stop();
  quiet = quiet && sim.run_until([&] { return load.open() == 0 && load.attached(); }, 30s);
  if (!quiet) out.failure = "not live: " + std::to_string(load.open()) + " requests open";
  bool read = false;
  sim.crash(client, Crash::process);
  sim.restart(client);
  sim.world(client).spawn("read back", [](io::World& w, Workload& l, ToyClient& t, bool& read) -> Task<void> {
    co_await w.sleep(5s);
    co_await l.read_back(w, t);
    read = true;
  }(sim.world(client), load, *present, read));
  present.reset();
  if (!sim.run_until([&] { return read; }, 60s) && out.failure.empty()) out.failure = "not live: read back";
  if (auto bad = load.history().check()) out.failure = *bad;
  if (!load.error().empty()) out.failure = load.error();
  out.trace = sim.trace_hash();
  out.answered = load.answered();
  out.faults = chaos.faults();
  return out;
}

TEST(Toy, RightOnePassesEverySeed) {
  std::uint64_t answered = 0, faults = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Outcome o = run(seed, Bug::none);
    EXPECT_EQ(o.failure, "") << "seed " << seed;
    answered += o.answered;
    faults += o.faults;
  }
  EXPECT_GT(answered, 60u * 300);
  EXPECT_GT(faults, 60u * 2);
}

TEST(Toy, SameSeedSameTrace) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) EXPECT_EQ(run(seed, Bug::none).trace, run(seed, Bug::none).trace);
}

TEST(Toy, EachBugIsFound) {
  for (Bug bug : {Bug::ack_before_write, Bug::not_durable, Bug::no_session_fence, Bug::one_slot, Bug::stale_cache}) {
    std::uint64_t seed = 0;
    while (seed < 300 && run(seed, bug).failure.empty()) ++seed;
    std::printf("bug %d found by seed %d\n", static_cast<int>(bug), static_cast<int>(seed));
    EXPECT_LT(seed, 300u) << static_cast<int>(bug);
  }
}

}  // namespace
}  // namespace luge::sim
