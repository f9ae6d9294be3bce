// A disk at its two sockets: a front end in a thread of its own says what QEMU says (and what it never would), a VMC records.
#include "attach/vhost_disk.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <thread>

#include "attach/vhost_front_end.hpp"
#include "io/testing.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using card::RecorderReply;
using card::RecorderRequest;
using card::RecorderVerb;
using testing::Driver;
using testing::FrontEnd;
using testing::MemoryDisk;
using vhost::Message;

constexpr std::uint64_t kDisk = 8 << 20, kFeatures = 1ull << 32 | 1ull << 28;

struct Vmc {
  explicit Vmc(const std::string& path) : socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, path.data(), path.size());
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << path;
  }
  RecorderReply ask(RecorderRequest q) {
    static std::uint32_t id = 0;
    q.id = ++id;
    EXPECT_EQ(::send(socket.get(), &q, sizeof q, MSG_NOSIGNAL), static_cast<ssize_t>(sizeof q));
    RecorderReply r;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 67)];
    iovec v{&r, sizeof r};
    msghdr h{};
    h.msg_iov = &v, h.msg_iovlen = 1, h.msg_control = control, h.msg_controllen = sizeof control;
    EXPECT_EQ(::recvmsg(socket.get(), &h, 0), static_cast<ssize_t>(sizeof r));
    EXPECT_EQ(r.id, q.id);
    descriptors.clear();
    for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c))
      for (std::size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        descriptors.emplace_back(fd);
      }
    return r;
  }
  RecorderReply ask(RecorderVerb verb) {
    RecorderRequest q;
    q.verb = verb;
    return ask(q);
  }
  io::Descriptor socket;
  std::vector<io::Descriptor> descriptors;
};

class VhostDiskTest : public ::testing::Test {
 public:
  // The disk's loop runs here while `body` runs in a thread of its own.
  void run(std::function<void()> body) {
    io::testing::run(io::RealWorld::Options{.io_uring = false}, [&](io::RealWorld& world) -> io::Task<void> {
      memory = std::make_unique<MemoryDisk>(world, kDisk);
      VhostDisk::Options o;
      o.name = "disk", o.path = path, o.bytes = kDisk, o.queues = 2;
      VhostDisk::Lease lease;
      lease.take = [this](bool first) -> io::Task<Result<client::BlockTarget*>> {
        if (refused) co_return Status(Code::unavailable, "attached elsewhere");
        EXPECT_EQ(first, taken == 0) << "what was taken over once is not taken over again";
        ++taken;
        co_return memory.get();
      };
      lease.give = [this, &world]() -> io::Task<void> {
        while (away) co_await world.sleep(1ms);
        ++given;
      };
      auto disk = VhostDisk::serve(world, o, lease);
      LUGE_CHECK(disk.ok());
      served = *disk;
      std::atomic<bool> ended{false};
      std::thread thread([&] {
        body();
        ended = true;
      });
      while (!ended) {
        if (resize_to.load() != 0) served->resize(resize_to.exchange(0));
        memory->late = late;
        if (lose.exchange(false)) {
          memory->fail = Status(Code::closed_session, "attached elsewhere");
          memory->answer_all();
          served->lost();
          memory->fail = Status(), late = memory->late = false;
        }
        waiting = memory->waiting();
        co_await world.sleep(1ms);
      }
      thread.join();
      co_await served->close(1s);
      EXPECT_EQ(taken, given);
      EXPECT_FALSE(served->connected());
      served.reset();
      memory.reset();
    });
  }
  void one(FrontEnd& f, Driver& d, std::uint32_t type, std::uint64_t sector) {
    std::uint16_t head = d.submit(type, sector, {{Driver::kData, 4096}}, type == 0);
    f.notify();
    std::size_t n = 0;
    for (int i = 0; i < 20 && n == 0; ++i) {
      f.wait(1000);
      n = d.ended().size();
    }
    EXPECT_EQ(n, 1u);
    EXPECT_EQ(d.status(head), 0);
  }

  /// A read that the volume doesn't answer, behind a write that it has.
  void leave_in_flight(FrontEnd& f, Driver& d) {
    one(f, d, 1, 8);
    late = true;
    std::this_thread::sleep_for(20ms);
    d.submit(0, 8, {{Driver::kData, 4096}}, true);
    f.notify();
    ASSERT_TRUE(comes_true([&] { return waiting == 1; }));
  }

  io::testing::TemporaryDirectory directory;
  std::string path = directory / "disk.sock";
  std::unique_ptr<MemoryDisk> memory;
  std::shared_ptr<VhostDisk> served;
  /// The front end stops queue 0; its next index.
  static std::uint32_t stop(FrontEnd& f) {
    vhost::RingState s{0, 0};
    f.send(Message::get_vring_base, &s, sizeof s);
    auto base = f.receive();
    EXPECT_EQ(base.size(), sizeof s);
    std::memcpy(&s, base.data(), std::min(base.size(), sizeof s));
    return s.number;
  }
  bool comes_true(const std::function<bool()>& what) {
    for (int i = 0; i < 2000 && !what(); ++i) std::this_thread::sleep_for(10ms);
    return what();
  }
  std::atomic<std::uint64_t> resize_to{0};
  std::atomic<bool> late{false}, lose{false};  // the volume's answers; the volume
  std::atomic<bool> refused{false};            // it is not given
  std::atomic<std::size_t> waiting{0};
  std::atomic<int> taken{0}, given{0};
  std::atomic<bool> away{false};  // the control plane, when the volume is given back
};

TEST_F(VhostDiskTest, TheVolumeIsHeldWhileARingRuns) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    vhost::ConfigHeader h{0, 60, 0};
    std::byte asked[sizeof h + 60] = {};
    std::memcpy(asked, &h, sizeof h);
    f.send(Message::get_config, asked, sizeof asked);
    auto config = f.receive();
    std::uint64_t sectors = 0;
    ASSERT_EQ(config.size(), sizeof asked);
    std::memcpy(&sectors, config.data() + sizeof h, sizeof sectors);
    EXPECT_EQ(sectors, kDisk / 512);
    EXPECT_EQ(taken, 0) << "only the configuration was asked for";
    for (int round = 1; round <= 3; ++round) {
      ASSERT_TRUE(f.start(d, kFeatures, d.next));
      one(f, d, 1, 8);
      one(f, d, 0, 8);
      EXPECT_EQ(taken, round);
      vhost::RingState s{0, 0};
      f.send(Message::get_vring_base, &s, sizeof s);
      auto base = f.receive();
      ASSERT_EQ(base.size(), sizeof s);
      std::memcpy(&s, base.data(), sizeof s);
      EXPECT_EQ(s.number, d.next);
      EXPECT_EQ(given, round) << "the ring has stopped and the volume is still held";
    }
  });
}

TEST_F(VhostDiskTest, AStopDoesNotWaitForAControlPlaneThatIsAway) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    one(f, d, 1, 8);
    away = true;
    EXPECT_EQ(stop(f), d.next);  // receive() would have ended without an answer
    EXPECT_EQ(given, 0);
    ASSERT_TRUE(f.start(d, kFeatures, d.next));  // what it asks waits until the volume has been given back and taken anew
    away = false;
    one(f, d, 0, 8);
    EXPECT_EQ(stop(f), d.next);
    EXPECT_TRUE(comes_true([&] { return taken == given; }));
  });
}

// A checkpoint stops the guest and lets it go on: the volume is neither given back nor taken anew. Where it doesn't go on, it is given back.
TEST_F(VhostDiskTest, TheVolumeStaysWhileAManagerHasTheGuestStopped) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    one(f, d, 1, 8);
    Vmc vmc(path + card::kRecorderSuffix);
    RecorderRequest quiesce;
    quiesce.verb = RecorderVerb::quiesce, quiesce.value = 1;
    for (int checkpoint = 0; checkpoint < 3; ++checkpoint) {
      EXPECT_EQ(vmc.ask(quiesce).code, 0);
      EXPECT_EQ(stop(f), d.next);
      EXPECT_EQ(vmc.ask(RecorderVerb::resume).code, 0);
      ASSERT_TRUE(f.start(d, kFeatures, d.next));
      one(f, d, 0, 8);
      EXPECT_EQ(given, 0);
      EXPECT_EQ(taken, 1);
    }
    EXPECT_EQ(stop(f), d.next);
    EXPECT_EQ(given, 1) << "nobody has the guest stopped but its front end";
    ASSERT_TRUE(f.start(d, kFeatures, d.next));
    one(f, d, 0, 8);
    EXPECT_EQ(vmc.ask(quiesce).code, 0);
    EXPECT_EQ(stop(f), d.next);
    EXPECT_EQ(given, 1);
    EXPECT_EQ(vmc.ask(RecorderVerb::resume).code, 0);
    EXPECT_TRUE(comes_true([&] { return given == 2; })) << "the guest doesn't go on, and its volume is kept";
  });
}

// As long as the disk has it mapped, the memory of a guest that has ended isn't the host's again.
// Requirement: DWR-26 switch=abandoned-requests-forgotten
TEST_F(VhostDiskTest, WhatWasInFlightWhenTheVolumeWasLostIsDoneWhenItIsTakenAgain) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    ASSERT_NO_FATAL_FAILURE(leave_in_flight(f, d));
    lose = true;
    ASSERT_TRUE(comes_true([&] { return taken == 2; }));
    std::size_t n = 0;
    for (int i = 0; i < 5 && n == 0; ++i) f.wait(1000), n = d.ended().size();
    EXPECT_EQ(n, 1u);
    Vmc vmc(path + card::kRecorderSuffix);
    EXPECT_EQ(vmc.ask(RecorderVerb::quiesce).code, 0u);
    EXPECT_EQ(stop(f), d.seen) << "the guest goes on behind a request that nobody has done";
    vmc.ask(RecorderVerb::resume);
    ++given;  // the one that was lost
  });
}

// A manager that asks again, because the first answer was an error, must not take that for a point at which nothing is in flight.
// Requirement: DWR-26
TEST_F(VhostDiskTest, ADiskThatCouldNotBeQuietIsNotSoAtTheSecondAsking) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    ASSERT_NO_FATAL_FAILURE(leave_in_flight(f, d));
    refused = lose = true;
    ASSERT_TRUE(comes_true([&] { return !lose; }));
    Vmc vmc(path + card::kRecorderSuffix);
    EXPECT_NE(vmc.ask(RecorderVerb::quiesce).code, 0u);
    EXPECT_NE(vmc.ask(RecorderVerb::quiesce).code, 0u);
    refused = false;
    ASSERT_TRUE(comes_true([&] { return taken == 2; }));
    EXPECT_EQ(vmc.ask(RecorderVerb::quiesce).code, 0u);
    EXPECT_EQ(d.ended().size(), 1u);
    vmc.ask(RecorderVerb::resume);
    stop(f);
    ++given;  // the one that was lost
  });
}

// Such a socket is readable for ever, and reading it is an error: a guest's own front end could keep a processor busy with it.
TEST_F(VhostDiskTest, AKickDescriptorThatListensIsNotAskedForEver) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    one(f, d, 1, 8);
    const std::string where = directory / "kick";
    io::Descriptor listens(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), calls(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, where.data(), where.size());
    ASSERT_EQ(::bind(listens.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    ASSERT_EQ(::listen(listens.get(), 1), 0);
    ASSERT_EQ(::connect(calls.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    f.send_u64(Message::set_vring_kick, 0, listens.get());
    auto spent = [] {
      rusage r;
      ::getrusage(RUSAGE_SELF, &r);
      return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1'000'000 + r.ru_utime.tv_usec + r.ru_stime.tv_usec;
    };
    std::this_thread::sleep_for(50ms);
    const auto before = spent();
    std::this_thread::sleep_for(1s);
    EXPECT_LT(spent() - before, 500'000) << "us in a second";
    EXPECT_EQ(stop(f), d.next) << "the connection goes on";
  });
}

TEST_F(VhostDiskTest, TheMemoryOfAGuestThatHasGoneIsNotKept) {
  run([&] {
    Vmc vmc(path + card::kRecorderSuffix);
    RecorderRequest record;
    record.verb = RecorderVerb::start, record.slots_log2 = 8;
    auto regions = [&] { return vmc.ask(RecorderVerb::memory).regions; };
    for (bool recorded : {false, true, false}) {
      Driver d;
      {
        FrontEnd f(FrontEnd::connect(path));
        ASSERT_TRUE(f.start(d, kFeatures));
        one(f, d, 1, 8);
        if (recorded) EXPECT_EQ(vmc.ask(record).code, 0);
        one(f, d, 0, 8);
        EXPECT_EQ(regions(), 1u);
      }
      if (recorded) {
        EXPECT_TRUE(comes_true([&] { return (vmc.ask(RecorderVerb::status).flags & card::kDiskConnected) == 0; }));
        EXPECT_EQ(regions(), 1u) << "the recording isn't at its end";
        EXPECT_EQ(vmc.ask(RecorderVerb::stop).code, 0);
        EXPECT_EQ(regions(), 0u);
      }
      EXPECT_TRUE(comes_true([&] { return regions() == 0; }));
    }
  });
}

TEST_F(VhostDiskTest, TheGuestHearsOfANewSize) {
  run([&] {
    FrontEnd f(FrontEnd::connect(path));
    f.send_u64(Message::set_protocol_features, f.ask(Message::get_protocol_features));
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    io::Descriptor ours(pair[0]), theirs(pair[1]);
    f.send_u64(Message::set_backend_request_fd, 0, theirs.get());
    f.ask(Message::get_queue_num);
    resize_to = 2 * kDisk;
    vhost::Header h;
    ASSERT_EQ(::recv(ours.get(), &h, sizeof h, MSG_WAITALL), static_cast<ssize_t>(sizeof h));
    EXPECT_EQ(h.request, vhost::kBackendConfigChanged);
    EXPECT_EQ(h.size, 0u);
  });
}

// A front end that migrates its machine says so by a log and VHOST_F_LOG_ALL: only then, and only as long, anything is logged.
// Requirement: DWR-01, DWR-02 switch=log-all-ignored
TEST_F(VhostDiskTest, AMigrationIsWhenTheFrontEndAsksForTheLog) {
  run([&] {
    Driver d;
    testing::Log log(Driver::kMemory);
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    constexpr std::uint64_t kPage = Driver::kData / 4096;
    auto set = [&](std::uint64_t more) {
      f.send_u64(Message::set_features, kFeatures | more | 1ull << vhost::kProtocolFeatures);
      EXPECT_NE(f.ask(Message::get_queue_num), 0u);
    };
    vhost::Log area{log.bytes, 0};
    f.send(Message::set_log_base, &area, sizeof area, std::span<const int>(&log.fd, 1));
    f.receive();
    one(f, d, 0, 8);
    EXPECT_EQ(log.count(), 0u) << "nobody has asked for it";
    for (int migration = 0; migration < 2; ++migration) {
      f.send(Message::set_log_base, &area, sizeof area, std::span<const int>(&log.fd, 1));
      f.receive();
      set(1ull << vhost::kLogAll);
      for (int i = 0; i < 10; ++i) {
        log.clear();
        one(f, d, 0, 8);
        EXPECT_TRUE(log.has(kPage)) << "a page was written, and the request ended, before it was in the log";
      }
      set(0);  // it was cancelled, or has ended
      log.clear();
      one(f, d, 0, 8);
      EXPECT_EQ(log.count(), 0u);
    }
  });
}

// Requirement: DWR-02, DWR-05, DWR-08, DWR-26, DWR-27, DWR-31
TEST_F(VhostDiskTest, AManagerRecordsQuiescesAndLeaves) {
  run([&] {
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    Vmc vmc(path + card::kRecorderSuffix);
    RecorderRequest start;
    start.verb = RecorderVerb::start, start.slots_log2 = 8;
    EXPECT_EQ(vmc.ask(start).code, static_cast<std::uint16_t>(Code::unavailable)) << "there is no guest yet";
    ASSERT_TRUE(f.start(d, kFeatures));
    one(f, d, 0, 0);
    RecorderReply r = vmc.ask(start);
    ASSERT_EQ(r.code, 0) << r.text;
    ASSERT_EQ(r.regions, 1u);
    ASSERT_EQ(vmc.descriptors.size(), 4u);
    EXPECT_TRUE(r.flags & card::kDiskRecording && r.flags & card::kDiskRunning);
    auto ring = card::DmaRing::open(vmc.descriptors[0].release());
    ASSERT_TRUE(ring.ok());
    card::DmaRingReader reader(std::move(*ring));
    io::Descriptor bell(vmc.descriptors[2].release());
    luge_card::dma_record record;
    unsigned data = 0, suspended = 0;
    auto drain = [&] {
      while (reader.next(record)) {
        data += record.kind == luge_card::DMA_WRITTEN && record.address == Driver::kData && record.last == 4095;
        suspended += record.kind == luge_card::DMA_SUSPENDED;
      }
      std::uint64_t one = 1;
      if (reader.publish()) (void)!::write(bell.get(), &one, sizeof one);
    };
    for (int i = 0; i < 300; ++i) {  // several times round the ring
      one(f, d, 0, 8);
      drain();
    }
    {
      Vmc other(path + card::kRecorderSuffix);
      EXPECT_EQ(other.ask(start).code, static_cast<std::uint16_t>(Code::exists));
    }
    EXPECT_EQ(vmc.ask(RecorderVerb::quiesce).code, 0);
    drain();
    EXPECT_EQ(data, 300u);
    EXPECT_EQ(suspended, 1u);
    d.submit(0, 0, {{Driver::kData, 4096}}, true);
    f.notify();
    EXPECT_FALSE(f.wait(200)) << "a request was done while the disk was quiesced";
    EXPECT_EQ(d.ended().size(), 0u);
    EXPECT_FALSE(reader.next(record));
    EXPECT_EQ(vmc.ask(RecorderVerb::resume).code, 0);
    EXPECT_TRUE(f.wait(5000));
    EXPECT_EQ(d.ended().size(), 1u);
    EXPECT_EQ(vmc.ask(RecorderVerb::quiesce).code, 0);
    vmc.socket = io::Descriptor();  // the manager dies: the guest goes on, nothing is recorded
    one(f, d, 0, 8);
    EXPECT_FALSE(reader.ring().header().state & card::kRingRecording);
    Vmc again(path + card::kRecorderSuffix);
    EXPECT_FALSE(again.ask(RecorderVerb::status).flags & card::kDiskRecording);
  });
}

TEST_F(VhostDiskTest, MessagesThatBreakTheProtocolEndTheConnectionAndNoMore) {
  run([&] {
    std::vector<std::function<void(FrontEnd&, Driver&)>> bad{
        [](FrontEnd& f, Driver&) { f.send(static_cast<Message>(77), nullptr, 0); },
        [](FrontEnd& f, Driver&) { f.send(Message::get_features, nullptr, 0, {}, 2); },
        [](FrontEnd& f, Driver&) { std::vector<std::byte> big(5000); f.send(Message::set_mem_table, big.data(), big.size()); },
        [](FrontEnd& f, Driver&) { f.send_u64(Message::set_features, ~0ull); },
        [](FrontEnd& f, Driver&) { vhost::RingState s{9, 64}; f.send(Message::set_vring_num, &s, sizeof s); },
        [](FrontEnd& f, Driver&) { vhost::RingState s{0, 1 << 20}; f.send(Message::set_vring_num, &s, sizeof s); },
        [](FrontEnd& f, Driver& d) { vhost::MemoryTable t{2, 0, {{0, 8192, 0, 0}, {4096, 8192, 0, 0}}}; int fds[] = {d.fd, d.fd}; f.send(Message::set_mem_table, &t, 72, fds); },
        [](FrontEnd& f, Driver& d) { vhost::MemoryTable t{1, 0, {{0, 1ull << 40, 0, 0}}}; f.send(Message::set_mem_table, &t, 40, std::span<const int>(&d.fd, 1)); },
        [](FrontEnd& f, Driver& d) { vhost::MemoryTable t{1, 0, {{~0ull - 4095, 8192, 0, 0}}}; f.send(Message::set_mem_table, &t, 40, std::span<const int>(&d.fd, 1)); },
        [](FrontEnd& f, Driver& d) { vhost::Log l{1 << 30, 0}; f.send(Message::set_log_base, &l, sizeof l, std::span<const int>(&d.fd, 1)); },
        [](FrontEnd& f, Driver&) { f.send_u64(Message::set_vring_kick, 0x100); },
        [](FrontEnd& f, Driver& d) { f.send_u64(Message::set_vring_kick, 0, d.fd); },
        [this](FrontEnd& f, Driver& d) { ASSERT_TRUE(f.start(d, kFeatures)); one(f, d, 1, 8); vhost::InflightArea a{0, 0, 1, 4, 0}; f.send(Message::get_inflight_fd, &a, sizeof a); },
        [](FrontEnd& f, Driver& d) {
          vhost::InflightArea a{0, 0, 1, static_cast<std::uint16_t>(d.entries / 2), 0};
          f.send(Message::get_inflight_fd, &a, sizeof a);
          ASSERT_FALSE(f.receive().empty());
          f.say_start(d, kFeatures, 0);
        },
        [](FrontEnd& f, Driver& d) { vhost::InflightArea a{64, 0, 2, 128, 0}; f.send(Message::set_inflight_fd, &a, sizeof a, std::span<const int>(&d.fd, 1)); },
    };
    for (std::size_t i = 0; i < bad.size(); ++i) {
      Driver d;
      FrontEnd f(FrontEnd::connect(path));
      bad[i](f, d);
      pollfd p{f.socket(), POLLIN, 0};
      EXPECT_EQ(::poll(&p, 1, 10000), 1) << "case " << i;
      char c;
      EXPECT_LE(::recv(f.socket(), &c, 1, 0), 0) << "case " << i << ": the connection goes on";
    }
    Driver d;
    FrontEnd f(FrontEnd::connect(path));
    ASSERT_TRUE(f.start(d, kFeatures));
    one(f, d, 1, 0);
  });
}

}  // namespace
}  // namespace luge::attach
