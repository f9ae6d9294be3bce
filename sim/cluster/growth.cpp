#include "sim/cluster/growth.hpp"

#include <linux/perf_event.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/crc32c.hpp"
#include "client/volume.hpp"
#include "head/replica.hpp"
#include "sim/cluster/unit.hpp"

namespace luge::sim {
namespace {

using io::Task;

// Instructions of this process in user mode; where they may not be counted, processor time in ns.
class Meter {
 public:
  Meter() {
    perf_event_attr a{};
    a.type = PERF_TYPE_HARDWARE;
    a.size = sizeof a;
    a.config = PERF_COUNT_HW_INSTRUCTIONS;
    a.exclude_kernel = a.exclude_hv = 1;
    fd_ = static_cast<int>(syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
  }
  ~Meter() {
    if (fd_ >= 0) close(fd_);
  }
  Meter(const Meter&) = delete;
  std::string unit() const { return fd_ >= 0 ? "instructions" : "ns"; }
  double now() const {
    std::uint64_t count = 0;
    if (fd_ >= 0 && read(fd_, &count, sizeof count) == sizeof count) return static_cast<double>(count);
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
  }

 private:
  int fd_ = -1;
};

struct Load {
  std::uint32_t heads = 3, volumes = 1, workers = 1, writes = 1;  // workers and writes: of each volume that is written to
  std::uint32_t idle = 0;  // so many volumes more that nobody writes to
};
constexpr std::uint64_t kVolumeBytes = 1 << 20;

struct Client {
  explicit Client(io::World& w)
      : world(w), control(w, identity, kControlAddress,
                          {.id = kFirstClient, .name = "client", .role = "attach", .address = "tcp:client:1", .incarnation = w.random()}, {}) {
    identity.node = kFirstClient;
    control.start();
  }
  Task<void> attach(std::uint32_t count, std::uint32_t& failed) {
    for (std::uint32_t i = 0; i < count; ++i) {
      auto v = co_await client::Volume::attach(world, identity, control, "v" + std::to_string(i), kFirstClient, false);
      failed += !v.ok();
      if (v.ok()) volumes.push_back(std::move(*v));
    }
  }
  static Task<void> worker(Client& c, client::Volume& v, std::uint32_t writes, std::uint32_t& failed) {
    Buffer block = Buffer::allocate(kBlockBytes);
    std::memset(block.data(), 'g', block.size());
    for (std::uint32_t i = 0; i < writes; ++i) {
      std::uint64_t at = c.world.random_below(kVolumeBytes / kBlockBytes) * kBlockBytes;
      failed += !(co_await client::write(c.world, v, at, block)).ok();
    }
  }
  Task<void> work(Load load, std::uint32_t& failed) {
    io::TaskGroup group(world);
    for (std::uint32_t i = 0; i < load.volumes; ++i)
      for (std::uint32_t w = 0; w < load.workers; ++w) group.spawn("writer", worker(*this, *volumes[i], load.writes / load.workers, failed));
    co_await group.join();
  }
  io::World& world;
  wire::Identity identity;
  wire::ControlLink control;
  std::vector<std::unique_ptr<client::Volume>> volumes;
};

// Of a write, of all daemons and the client together; negative: it did not work. Events (messages, disk operations, timers) are the same
// on any machine and say nothing of loops over what grows; processor time has both, and the caches' share besides.
struct Cost {
  double work = -1, events = -1;
};

Cost cost_of_a_write(const Load& load, std::uint64_t seed) {
  Simulation sim(seed);
  Unit::Shape shape{.heads = load.heads};
  shape.head.segment_bytes = shape.head.meta_segment_bytes = 1 << 20;
  shape.head.log_bytes = 256 << 20;
  shape.head.meta_bytes = 64 << 20;
  shape.head.flush_age = shape.head.flush_idle = 3600s;  // the path of a write, not that of its flush
  shape.head.flush_bytes = 1ull << 40;
  shape.head.flush_fill = 1000;
  bool failed_to_start = false;
  Unit unit(sim, shape, [&](Node, const std::string&, const Status&) { failed_to_start = true; });
  unit.start();
  Client* client = nullptr;
  Node node = sim.add_node("client", [&](io::World& w) {
    auto c = std::make_shared<Client>(w);
    client = c.get();
    return c;
  });
  auto all = [&] { return unit.control() && unit.control()->registry().alive("head").size() == load.heads && unit.control()->registry().alive("sled").size() == 6; };
  Cost cost;
  std::uint32_t failed = 0;
  if (sim.run_until(all, 20s) && !failed_to_start) {
    for (std::uint32_t i = 0; i < load.volumes + load.idle; ++i) failed += !unit.control()->volumes().create({"v" + std::to_string(i), kVolumeBytes, {4, 2}, 3}).ok();
    sim.run(node, client->attach(load.volumes + load.idle, failed), 120s);
    Load warm_up = load;
    warm_up.writes = std::max<std::uint32_t>(load.workers, load.writes / 10);
    sim.run(node, client->work(warm_up, failed), 600s);
    Meter meter;
    double begin = meter.now(), writes = static_cast<double>(load.volumes) * (load.writes / load.workers * load.workers);
    std::uint64_t events = sim.events();
    sim.run(node, client->work(load, failed), 3600s);
    if (failed == 0) cost = {(meter.now() - begin) / writes, static_cast<double>(sim.events() - events) / writes};
  }
  for (Node n = 0; n < sim.nodes(); ++n)
    if (sim.up(n)) sim.crash(n, Crash::power);
  return cost;
}

// In a process of its own: memory that one measurement has touched is no saving of the next.
template <class F>
auto in_a_child(F f) {
  using Value = decltype(f());
  Value bad{};
  if constexpr (std::is_same_v<Value, double>) bad = -1;
  int p[2];
  if (pipe(p) != 0) return bad;
  std::fflush(nullptr);
  pid_t child = fork();
  if (child == 0) {
    Value value = f();
    _exit(write(p[1], &value, sizeof value) == sizeof value ? 0 : 1);
  }
  close(p[1]);
  Value value = bad;
  if (read(p[0], &value, sizeof value) != sizeof value) value = bad;
  close(p[0]);
  int status;
  waitpid(child, &status, 0);
  return value;
}

Cost least_cost(const Load& load) {
  Cost least;
  auto take = [](double& least, double cost) { if (cost > 0 && (least < 0 || cost < least)) least = cost; };
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Cost cost = in_a_child([&] { return cost_of_a_write(load, seed); });
    take(least.work, cost.work);
    take(least.events, cost.events);
  }
  return least;
}

std::uint64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  std::uint64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

constexpr std::uint32_t kChunkBlocks = 32, kDataChunks = 4;

// Maps so much flushed data, by the records that a flush logs.
void map_flushed(head::Replica& replica, std::uint64_t mapped) {
  constexpr std::uint32_t k = kDataChunks;
  constexpr std::uint64_t kStripeBlocks = kChunkBlocks * k;
  replica.designation.blocks = mapped / kBlockBytes;
  auto take = [&](head::RecordPtr r) {
    replica.append(r);
    r->durable = true;
    replica.on_durable(*r);
    replica.advance_commit(r->lsn());
  };
  auto next = [&] { return LogPoint{1, replica.last().lsn + 1}; };
  take(head::make_record(replica.vp(), next(), head::RecordKind::epoch_start, 0, 0, {}, {}, {}));
  Buffer payload = Buffer::zeros(kStripeBlocks * kBlockBytes);
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  std::string body(reinterpret_cast<const char*>(crcs.data()), crcs.size() * 4);
  for (std::uint64_t number = 1, lba = 0; lba < mapped / kBlockBytes; ++number, lba += kStripeBlocks) {
    auto data = head::make_record(replica.vp(), next(), head::RecordKind::data, lba, kStripeBlocks, {}, body, {});
    take(data);
    flatbuffers::FlatBufferBuilder b;
    fbs::StripeId id(replica.vp(), 1, number);
    std::vector<fbs::ChunkPlace> places;
    for (std::uint32_t c = 0; c < 6; ++c) places.emplace_back(40 + c, static_cast<std::uint32_t>(number / 64), static_cast<std::uint32_t>(number % 64), 0, 0, 1);
    auto pv = b.CreateVectorOfStructs(places);
    std::vector<flatbuffers::Offset<fbs::Stripe>> stripes{fbs::CreateStripe(b, number, &id, k, 2, kChunkBlocks * kBlockBytes, pv, 0)};
    std::vector<fbs::Placement> placements;
    for (std::uint32_t i = 0; i < kStripeBlocks; ++i) placements.emplace_back(lba + i, data->lsn(), i, 0);
    auto sv = b.CreateVector(stripes);
    auto placed = b.CreateVectorOfStructs(placements);
    auto numbers = b.CreateVector(std::vector<std::uint64_t>(placements.size(), number));
    b.Finish(fbs::CreateIndexRecord(b, sv, placed, numbers));
    take(head::make_record(replica.vp(), next(), head::RecordKind::index, 0, 0, {}, std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize()), {}));
  }
}

// RSS of index and stripe table over mapped bytes, in percent.
double index_percent(std::uint64_t mapped) {
  {
    head::Replica first(make_vp(2, 0));  // code, tables of the allocator and a record's payload are not the index
    map_flushed(first, 16 << 20);
  }
  std::uint64_t before = resident_bytes();
  head::Replica replica(make_vp(1, 0));
  map_flushed(replica, mapped);
  malloc_trim(0);
  std::uint64_t used = resident_bytes() - before;
  if (replica.unflushed_blocks() != 0 || replica.index().page_count() != mapped / kBlockBytes / head::Index::kFanOut) return -1;
  return 100 * static_cast<double>(used) / static_cast<double>(mapped);
}

bool say(const std::string& what, double value, double bar, const char* unit) {
  bool holds = value >= 0 && value <= bar;
  std::printf("%-56s %.3f%s, at most %.2f%s: %s\n", what.c_str(), value, unit, bar, unit, value < 0 ? "not measured" : holds ? "holds" : "MISSED");
  std::fflush(stdout);
  return holds;
}

}  // namespace

int run_growth() {
  std::printf("cost of a write in %s, least of 3 seeds\n", Meter().unit().c_str());
  auto ratio = [](const Load& more, const Load& less) {
    Cost a = least_cost(more), b = least_cost(less);
    std::printf("  %.0f against %.0f; events %.1f against %.1f: %.3fx\n", a.work, b.work, a.events, b.events, a.events / b.events);
    return a.work > 0 && b.work > 0 ? a.work / b.work : -1;
  };
  bool all = say("9 heads against 3, a volume for each", ratio({9, 9, 16, 2000}, {3, 3, 16, 2000}), 1.15, "x");
  all &= say("a volume beside 99 idle ones against alone", ratio({3, 1, 32, 10000, 99}, {3, 1, 32, 10000}), 1.15, "x");
  all &= say("100 volumes against 1, a writer each", ratio({3, 100, 1, 100}, {3, 1, 1, 10000}), 1.15, "x");
  std::printf("for comparison, what the batches of one volume with 100 writers save: 1 writer against 100\n");
  ratio({3, 1, 1, 10000}, {3, 1, 100, 10000});
  for (std::uint64_t gib : {1, 8, 64})
    all &= say("index memory of " + std::to_string(gib) + " GiB mapped", in_a_child([&] { return index_percent(gib << 30); }), 0.25, " %");
  return all ? 0 : 1;
}

}  // namespace luge::sim
