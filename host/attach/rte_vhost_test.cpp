// The guest's disk behind another vhost-user server, DPDK's librte_vhost: the same front end says the same to both, and must find the same in
// its memory, its rings, its disk and its dirty log. The device is VirtioBlk with its DMA path in both; protocol, table of memory, rings'
// addresses and the log's bits are DPDK's in one of them. Its log is fed with the records of the ring.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <future>
#include <set>
#include <thread>

#define VIRTIO_RING_NO_LEGACY
#include <rte_config.h>
#include <rte_eal.h>
#include <rte_vhost.h>

#include "attach/vhost_disk.hpp"
#include "attach/vhost_front_end.hpp"
#include "io/testing.hpp"
#include "switches/switches.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using testing::Driver;
using testing::FrontEnd;
using testing::MemoryDisk;
using vhost::Message;

constexpr std::uint64_t kDisk = 8 << 20, kFeatures = 1ull << 32 | 1ull << 28 | 1ull << 9 | 1ull << 13 | 1ull << 14;

/// DPDK without huge pages, devices and files that outlive it; once a process.
bool dpdk() {
  static const bool good = [] {
    cpu_set_t before;
    ::sched_getaffinity(0, sizeof before, &before);
    std::vector<std::string> words{"rte-vhost-test", "--no-huge", "--no-pci", "--no-telemetry", "--no-shconf", "-m", "64", "-l", "0", "--log-level=3"};
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    const int n = rte_eal_init(static_cast<int>(argv.size()), argv.data());
    ::sched_setaffinity(0, sizeof before, &before);  // it has bound this thread to the first core
    return n >= 0;
  }();
  return good;
}

/// The device behind librte_vhost. DPDK's thread calls; what is to be done is done in the loop, and waited for.
class RteDisk {
 public:
  RteDisk(io::RealWorld& world, std::string path, client::BlockTarget& target)
      : world_(world), path_(std::move(path)), dma_(std::make_shared<card::DmaPath>(world, card::make_native_dma_logger(), 0)), device_(world, dma_, "disk", 1) {
    device_.set_size(kDisk);
    device_.set_target(&target);
    one() = this;
  }
  ~RteDisk() { one() = nullptr; }
  bool serve() {
    static const rte_vhost_device_ops calls = [] {
      rte_vhost_device_ops o{};
      o.new_device = [](int vid) { return one()->in_loop([vid] { one()->start(vid); }), 0; };
      o.destroy_device = [](int vid) { one()->in_loop_task([](int v) -> io::Task<void> { co_await one()->stop(v); }, vid); };
      o.features_changed = [](int vid, std::uint64_t features) {
        if ((features >> vhost::kLogAll & 1) != 0) one()->in_loop([vid] { one()->log(vid); });
        return 0;
      };
      return o;
    }();
    return rte_vhost_driver_register(path_.c_str(), 0) == 0 && rte_vhost_driver_set_features(path_.c_str(), kFeatures | 1ull << vhost::kLogAll | 1ull << vhost::kProtocolFeatures) == 0 &&
           rte_vhost_driver_set_protocol_features(path_.c_str(), 1ull << vhost::kMultiQueue | 1ull << vhost::kLogShared | 1ull << vhost::kReplyAck) == 0 &&
           rte_vhost_driver_callback_register(path_.c_str(), &calls) == 0 && rte_vhost_driver_start(path_.c_str()) == 0;
  }
  void end() { rte_vhost_driver_unregister(path_.c_str()); }
  const Status& wrong() const { return wrong_; }

 private:
  static RteDisk*& one() {
    static RteDisk* disk = nullptr;
    return disk;
  }
  template <class F>
  void in_loop(F f) {
    std::promise<void> done;
    boost::asio::post(world_.context(), [&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  }
  template <class F>
  void in_loop_task(F f, int vid) {
    std::promise<void> done;
    boost::asio::post(world_.context(), [&] {
      world_.spawn("rte vhost", [](F f, int vid, std::promise<void>& done) -> io::Task<void> {
        co_await f(vid);
        done.set_value();
      }(f, vid, done));
    });
    done.get_future().wait();
  }

  void start(int vid) {
    rte_vhost_memory* table = nullptr;
    rte_vhost_vring v{};
    std::uint64_t features = 0;
    std::uint16_t available = 0, used = 0;
    if (rte_vhost_get_mem_table(vid, &table) != 0 || rte_vhost_get_vhost_vring(vid, 0, &v) != 0 || rte_vhost_get_negotiated_features(vid, &features) != 0 ||
        rte_vhost_get_vring_base(vid, 0, &available, &used) != 0)
      return note(Status(Code::internal, "DPDK doesn't say what the device is"));
    std::vector<card::GuestRegion> regions;
    auto guest = [&](const void* p) -> std::uint64_t {
      for (std::uint32_t i = 0; i < table->nregions; ++i)
        if (std::uint64_t inside = reinterpret_cast<std::uint64_t>(p) - table->regions[i].host_user_addr; inside < table->regions[i].size) return table->regions[i].guest_phys_addr + inside;
      return ~0ull;
    };
    for (std::uint32_t i = 0; i < table->nregions; ++i) {
      const rte_vhost_mem_region& r = table->regions[i];
      regions.push_back({r.guest_phys_addr, r.size, r.guest_user_addr, r.host_user_addr - reinterpret_cast<std::uint64_t>(r.mmap_addr), r.fd});
    }
    const Vring::Place place{v.size, guest(v.desc), guest(v.avail), guest(v.used)};
    auto memory = card::GuestMemory::map(regions);
    ::free(table);
    if (!memory.ok()) return note(memory.status());
    dma_->set_memory(*memory);
    device_.set_features(features);
    device_.set_interrupt(0, [call = v.callfd] {
      const std::uint64_t n = 1;
      [[maybe_unused]] ssize_t written = ::write(call, &n, sizeof n);
    });
    note(device_.start(0, place, available));
    device_.enable(0, true);
    kick_ = std::make_shared<boost::asio::posix::stream_descriptor>(world_.context(), ::fcntl(v.kickfd, F_DUPFD_CLOEXEC, 3));
    wait_kick(kick_);
  }
  void wait_kick(std::shared_ptr<boost::asio::posix::stream_descriptor> kick) {
    kick->async_wait(boost::asio::posix::stream_descriptor::wait_read, [this, kick](const boost::system::error_code& e) {
      if (e || kick_ != kick) return;
      std::uint64_t n;
      [[maybe_unused]] ssize_t got = ::read(kick->native_handle(), &n, sizeof n);
      device_.kick(0);
      wait_kick(kick);
    });
  }
  void log(int vid) {
    note(dma_->start_recording(card::RecordMode::completed, 8, 0, {}));
    auto ring = card::DmaRing::open(::fcntl(dma_->ring().fd(), F_DUPFD_CLOEXEC, 3));
    reader_ = std::make_unique<card::DmaRingReader>(std::move(*ring));
    world_.spawn("records", [](RteDisk& self, int vid) -> io::Task<void> {
      while (self.reader_) {
        self.feed(vid);
        co_await self.world_.sleep(1ms);
      }
      self.feeding_ = false;
    }(*this, vid));
    feeding_ = true;
  }
  void feed(int vid) {
    luge_card::dma_record r;
    while (reader_->next(r))
      if (r.kind == luge_card::DMA_WRITTEN) rte_vhost_log_write(vid, r.address, r.last + 1ull);
    if (reader_->publish()) dma_->doorbell();
  }
  // DPDK answers GET_VRING_BASE afterwards: everything is in its log by then.
  io::Task<void> stop(int vid) {
    kick_.reset();
    const std::uint16_t base = co_await device_.drain(0);
    if (reader_) {
      note(co_await dma_->suspend() ? Status() : Status(Code::internal, "not suspended"));
      feed(vid);
      reader_.reset();
      dma_->resume();
      dma_->stop_recording();
      while (feeding_) co_await world_.sleep(1ms);
    }
    rte_vhost_set_vring_base(vid, 0, base, base);
  }
  void note(Status s) {
    if (!s.ok() && wrong_.ok()) wrong_ = s;
  }

  io::RealWorld& world_;
  const std::string path_;
  std::shared_ptr<card::DmaPath> dma_;
  VirtioBlk device_;
  std::shared_ptr<boost::asio::posix::stream_descriptor> kick_;
  std::unique_ptr<card::DmaRingReader> reader_;
  bool feeding_ = false;
  Status wrong_;
};

/// What a front end has seen.
struct Seen {
  std::vector<std::byte> memory;
  std::vector<std::tuple<std::uint16_t, std::uint32_t, int>> ended;  // head, length, status
  std::set<std::uint64_t> logged;
  std::uint32_t base = 0;
};

// Requests of all kinds, good and bad, one after the other; from the middle on with the dirty log.
void talk(const std::string& path, Seen& seen) {
  Driver d;
  testing::Log log(Driver::kMemory);
  FrontEnd f(FrontEnd::connect(path));
  ASSERT_TRUE(f.start(d, kFeatures));
  std::mt19937_64 random(7);
  for (int i = 0; i < 400; ++i) {
    if (i == 150) {
      vhost::Log area{log.bytes, 0};
      f.send(Message::set_log_base, &area, sizeof area, std::span<const int>(&log.fd, 1));
      f.receive();
      f.send_u64(Message::set_features, kFeatures | 1ull << vhost::kLogAll | 1ull << vhost::kProtocolFeatures);
      ASSERT_NE(f.ask(Message::get_queue_num), 0u);
    }
    constexpr std::uint32_t kTypes[] = {0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 99};
    const std::uint32_t type = kTypes[random() % std::size(kTypes)];
    const bool device_writes = type == 0 || type == 8;
    std::vector<std::pair<std::uint64_t, std::uint32_t>> pieces;
    for (std::uint64_t n = 1 + random() % 4; n != 0 && type != 4; --n) pieces.emplace_back(Driver::kData + random() % (2 << 20), 512 * (1 + random() % 24));
    if (type == 11 || type == 13) {
      pieces.assign(1, {Driver::kData, 16});
      d.put<std::uint64_t>(Driver::kData, random() % 16000), d.put<std::uint32_t>(Driver::kData + 8, static_cast<std::uint32_t>(random() % 600)), d.put<std::uint32_t>(Driver::kData + 12, 0);
    }
    for (auto [at, bytes] : pieces)
      if (type == 1)
        for (std::uint32_t b = 0; b < bytes; b += 8) d.put<std::uint64_t>(at + b, random());
    d.submit(type, random() % 16500, pieces, device_writes, random() % 2 != 0);
    f.notify();
    std::vector<std::pair<std::uint16_t, std::uint32_t>> ended;
    for (int turn = 0; turn < 20 && ended.empty(); ++turn) {
      f.wait(1000);
      ended = d.ended();
    }
    ASSERT_EQ(ended.size(), 1u) << "request " << i << " of type " << type;
    seen.ended.emplace_back(ended[0].first, ended[0].second, d.status(ended[0].first));
  }
  vhost::RingState s{0, 0};
  f.send(Message::get_vring_base, &s, sizeof s);
  auto base = f.receive();
  ASSERT_EQ(base.size(), sizeof s);
  std::memcpy(&s, base.data(), sizeof s);
  seen.base = s.number;
  for (std::uint64_t p = 0; p < Driver::kMemory / 4096; ++p)
    if (log.has(p)) seen.logged.insert(p);
  seen.memory.assign(d.at(0), d.at(0) + Driver::kMemory);
}

class RteVhostTest : public ::testing::Test {
 protected:
  template <class Serve>
  void run(Seen& seen, std::vector<std::byte>& disk, Serve serve) {
    io::testing::run(io::RealWorld::Options{.io_uring = false}, [&](io::RealWorld& world) -> io::Task<void> {
      MemoryDisk memory(world, kDisk);
      for (std::uint64_t i = 0; i < kDisk; ++i) *memory.at(i) = static_cast<std::byte>(i / 3 + i / 4096);
      auto end = serve(world, memory);
      std::atomic<bool> ended{false};
      std::thread front_end([&] {
        talk(path, seen);
        ended = true;
      });
      while (!ended) co_await world.sleep(1ms);
      front_end.join();
      std::atomic<bool> closed{false};
      std::thread closing([&] {  // DPDK's thread may need the loop until it has ended
        end.second();
        closed = true;
      });
      while (!closed) co_await world.sleep(1ms);
      closing.join();
      co_await end.first();
      disk.assign(memory.at(0), memory.at(0) + kDisk);
    });
  }
  io::testing::TemporaryDirectory directory;
  std::string path = directory / "disk.sock";
};

// Requirement: DWR-11, DWR-21 switch=dma-unrecorded
TEST_F(RteVhostTest, AFrontEndFindsTheSameBehindDpdksServer) {
  ASSERT_TRUE(dpdk());
  using Ends = std::pair<std::function<io::Task<void>()>, std::function<void()>>;
  Seen ours, theirs;
  std::vector<std::byte> our_disk, their_disk;
  run(ours, our_disk, [&](io::RealWorld& world, MemoryDisk& memory) -> Ends {
    VhostDisk::Options o;
    o.name = "disk", o.path = path, o.bytes = kDisk, o.queues = 1;
    VhostDisk::Lease lease;
    lease.take = [&memory](bool) -> io::Task<Result<client::BlockTarget*>> { co_return &memory; };
    lease.give = []() -> io::Task<void> { co_return; };
    auto disk = VhostDisk::serve(world, o, lease).value();
    return {[disk] { return disk->close(1s); }, [] {}};
  });
  run(theirs, their_disk, [&](io::RealWorld& world, MemoryDisk& memory) -> Ends {
    auto disk = std::make_shared<RteDisk>(world, path, memory);
    set_broken(Switch::dma_unrecorded, false);  // what is compared with this one may be broken
    EXPECT_TRUE(disk->serve());
    return {[disk]() -> io::Task<void> {
              EXPECT_TRUE(disk->wrong().ok()) << disk->wrong().to_string();
              co_return;
            },
            [disk] { disk->end(); }};
  });
  ASSERT_EQ(ours.ended.size(), 400u);
  EXPECT_EQ(ours.ended, theirs.ended);
  EXPECT_EQ(ours.base, 400u);
  EXPECT_EQ(ours.base, theirs.base);
  EXPECT_TRUE(ours.memory == theirs.memory);
  EXPECT_TRUE(our_disk == their_disk);
  EXPECT_GT(ours.logged.size(), 200u);
  EXPECT_EQ(ours.logged, theirs.logged);
}

}  // namespace
}  // namespace luge::attach
