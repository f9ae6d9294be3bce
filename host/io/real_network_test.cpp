#include "io/network.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <numeric>

#include "io/testing.hpp"

namespace luge::io {
namespace {

using testing::TemporaryDirectory;

struct Pair {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> client, server;
};

Task<void> accept_into(Listener& listener, std::unique_ptr<Stream>& stream) { stream = co_await listener.accept(); }

Task<Pair> make_pair(World& world, std::string address) {
  Pair p;
  auto listener = world.network().listen(address);
  EXPECT_TRUE(listener.ok()) << listener.status().to_string();
  p.listener = std::move(*listener);
  TaskGroup group(world);
  group.spawn("accept", accept_into(*p.listener, p.server));
  auto client = co_await world.network().connect(p.listener->address(), 2s);
  EXPECT_TRUE(client.ok()) << client.status().to_string();
  p.client = std::move(*client);
  co_await group.join();
  EXPECT_TRUE(p.server != nullptr);
  co_return p;
}

Task<void> write_parts(Stream& stream, std::vector<Bytes> parts, bool& ok) {
  ok = co_await stream.write_all(parts);
}

Task<Buffer> read_exactly(Stream& stream, std::size_t bytes) {
  Buffer b = Buffer::allocate(bytes);
  std::size_t have = 0;
  while (have < bytes) {
    std::size_t n = co_await stream.read_some(b.mutable_bytes().subspan(have));
    if (n == 0) break;
    have += n;
  }
  EXPECT_EQ(have, bytes);
  co_return b;
}

// 20 MiB in 5000 parts of uneven length, more than one sendmsg takes and far more than the socket holds.
Task<void> big_gather(World& world, std::string address) {
  Pair p = co_await make_pair(world, address);
  Buffer out = Buffer::allocate(20 << 20);
  for (std::size_t i = 0; i < out.size(); ++i) out.data()[i] = static_cast<std::byte>(i * 31 >> 3);
  std::vector<Bytes> parts;
  for (std::size_t at = 0, i = 0; at < out.size(); ++i) {
    std::size_t n = std::min(out.size() - at, i % 7 == 0 ? 0 : 1 + i * 37 % 9000);
    parts.push_back(out.bytes().subspan(at, n));
    at += n;
  }
  EXPECT_GT(parts.size(), 4000u);
  TaskGroup group(world);
  bool ok = false;
  group.spawn("write", write_parts(*p.client, parts, ok));
  Buffer in = co_await read_exactly(*p.server, out.size());
  co_await group.join();
  EXPECT_TRUE(ok);
  EXPECT_EQ(std::memcmp(in.data(), out.data(), out.size()), 0);
}

TEST(Network, GathersOverUnix) {
  TemporaryDirectory d;
  testing::run([&](World& world) -> Task<void> { co_await big_gather(world, "unix:" + d / "s"); });
}

TEST(Network, GathersOverTcp) {
  testing::run([&](World& world) -> Task<void> { co_await big_gather(world, "tcp:127.0.0.1:0"); });
}

TEST(Network, LongUnixPaths) {
  TemporaryDirectory d;
  std::string deep = d.path();
  for (int i = 0; i < 4; ++i) deep += "/" + std::string(60, 'd');
  std::filesystem::create_directories(deep);
  testing::run([&](World& world) -> Task<void> { co_await big_gather(world, "unix:" + deep + "/socket"); });
  EXPECT_FALSE(std::filesystem::exists(deep + "/socket")) << "a closed listener removes its socket";
}

Task<void> read_to_end(Stream& stream, std::size_t& result) {
  std::byte b[16];
  result = co_await stream.read_some(b);
}

TEST(Network, CloseEndsAPendingReadAndThePeerSeesIt) {
  testing::run([&](World& world) -> Task<void> {
    Pair p = co_await make_pair(world, "tcp:127.0.0.1:0");
    std::size_t client = 99, server = 99;
    TaskGroup group(world);
    group.spawn("read", read_to_end(*p.client, client));
    group.spawn("read", read_to_end(*p.server, server));
    co_await world.sleep(20ms);
    p.client->close();
    p.client->close();
    co_await group.join();
    EXPECT_EQ(client, 0u);
    EXPECT_EQ(server, 0u);
    Bytes part = as_bytes("x");
    bool ok = co_await p.client->write_all({&part, 1});
    EXPECT_FALSE(ok);
  });
}

TEST(Network, CloseEndsAPendingWriteAndAccept) {
  testing::run([&](World& world) -> Task<void> {
    Pair p = co_await make_pair(world, "tcp:127.0.0.1:0");
    Buffer big = Buffer::zeros(64 << 20);
    bool ok = true;
    std::unique_ptr<Stream> accepted;
    TaskGroup group(world);
    group.spawn("write", write_parts(*p.client, {big.bytes()}, ok));
    group.spawn("accept", accept_into(*p.listener, accepted));
    co_await world.sleep(20ms);
    p.client->close();
    p.listener->close();
    co_await group.join();
    EXPECT_FALSE(ok);
    EXPECT_EQ(accepted, nullptr);
  });
}

TEST(Network, ConnectSaysWhatIsWrong) {
  TemporaryDirectory d;
  testing::run([&](World& world) -> Task<void> {
    auto refused = co_await world.network().connect("unix:" + d / "nobody", 1s);
    EXPECT_EQ(refused.code(), Code::unavailable);
    refused = co_await world.network().connect("tcp:127.0.0.1:1", 1s);
    EXPECT_EQ(refused.code(), Code::unavailable);
    for (const char* bad : {"", "host:1", "tcp:", "tcp:1.2.3.4", "tcp:1.2.3.4:70000", "tcp:1.2.3.4:x", "tcp::1",
                            "unix:", "tcp:[::1:1"}) {
      auto r = co_await world.network().connect(bad, 1s);
      EXPECT_EQ(r.code(), Code::invalid) << bad;
    }
  });
}

TEST(Network, ConnectTimesOut) {
  TemporaryDirectory d;
  testing::run([&](World& world) -> Task<void> {
    // A listener that never accepts, with a backlog of one connection.
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    std::string path = d / "full";
    std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&un), sizeof un), 0);
    EXPECT_EQ(::listen(fd, 0), 0);
    auto first = co_await world.network().connect("unix:" + path, 1s);
    EXPECT_TRUE(first.ok());
    Time begin = world.now();
    auto second = co_await world.network().connect("unix:" + path, 100ms);
    EXPECT_EQ(second.code(), Code::timed_out);
    EXPECT_GE(world.now() - begin, 100ms);
    ::close(fd);
  });
}

TEST(Network, OnlyStaleSocketsAreReplaced) {
  TemporaryDirectory d;
  testing::run([&](World& world) -> Task<void> {
    std::string path = d / "s", address = "unix:" + path;
    {  // what a killed process leaves behind
      int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_un un{};
      un.sun_family = AF_UNIX;
      std::memcpy(un.sun_path, path.c_str(), path.size() + 1);
      EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&un), sizeof un), 0);
      ::close(fd);
    }
    auto first = world.network().listen(address);
    EXPECT_TRUE(first.ok()) << first.status().to_string();
    auto second = world.network().listen(address);
    EXPECT_EQ(second.code(), Code::exists);
    EXPECT_NE(second.status().text().find("address in use"), std::string::npos);
    EXPECT_EQ(world.network().listen("unix:" + d.path()).code(), Code::exists) << "a directory is no socket";
    auto tcp = world.network().listen("tcp:127.0.0.1:0");
    EXPECT_EQ(world.network().listen((*tcp)->address()).code(), Code::exists);
    co_return;
  });
}

TEST(Network, ListensBeyondLoopbackOnlyWhenTold) {
  testing::run([&](World& world) -> Task<void> {
    auto r = world.network().listen("tcp:0.0.0.0:0");
    EXPECT_EQ(r.code(), Code::invalid);
    EXPECT_NE(r.status().text().find("--insecure-listen"), std::string::npos);
    EXPECT_TRUE(world.network().listen("tcp:localhost:0").ok());
    co_return;
  });
  RealWorld::Options options;
  options.insecure_listen = true;
  testing::run(options, [&](World& world) -> Task<void> {
    EXPECT_TRUE(world.network().listen("tcp:0.0.0.0:0").ok());
    co_return;
  });
}

Task<void> note_stopped(Task<void> task, int& stopped) {
  try {
    co_await std::move(task);
  } catch (const Stopped&) {
    ++stopped;
    throw;
  }
}

Task<void> sleep_long(World& world) { co_await world.sleep(1h); }

TEST(Network, StopEndsEveryWaitByStopped) {
  int stopped = 0;
  {
    RealWorld world;
    Pair p;
    std::size_t n = 0;
    bool ok = false;
    Buffer big = Buffer::zeros(64 << 20);
    std::unique_ptr<Stream> accepted;
    auto body = [&]() -> Task<int> {
      p = co_await make_pair(world, "tcp:127.0.0.1:0");
      world.spawn("read", note_stopped(read_to_end(*p.client, n), stopped));
      world.spawn("write", note_stopped(write_parts(*p.client, {big.bytes()}, ok), stopped));
      world.spawn("accept", note_stopped(accept_into(*p.listener, accepted), stopped));
      world.spawn("sleep", note_stopped(sleep_long(world), stopped));
      co_await world.sleep(20ms);
      co_return 7;
    };
    EXPECT_EQ(run_main(world, body()), 7);
    EXPECT_EQ(world.tasks(), 0u);
  }
  EXPECT_EQ(stopped, 4);
}

Task<void> take_turn(World& world, Mutex& mutex, std::vector<int>& order, int me) {
  Mutex::Guard guard = co_await mutex.lock();
  co_await world.yield();
  order.push_back(me);
}

TEST(World, AMutexIsFirstInFirstOut) {
  testing::run([&](World& world) -> Task<void> {
    Mutex mutex(world);
    std::vector<int> order;
    TaskGroup group(world);
    for (int i = 0; i < 50; ++i) group.spawn("turn", take_turn(world, mutex, order, i));
    co_await group.join();
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    EXPECT_EQ(order.size(), 50u);
  });
}

Task<void> note_after(World& world, Duration d, std::vector<int>& order, int me) {
  co_await world.sleep(d);
  order.push_back(me);
}

TEST(World, TimersFireInOrder) {
  testing::run([&](World& world) -> Task<void> {
    std::vector<int> order;
    TaskGroup group(world);
    for (int i : {5, 1, 4, 2, 3}) group.spawn("timer", note_after(world, i * 10ms, order, i));
    co_await group.join();
    EXPECT_EQ(order, (std::vector<int>{1, 2, 3, 4, 5}));
  });
}

// The kernel may give a caller the port that it calls, when nobody listens there; some thousand tries come to that.
TEST(Network, NobodyConnectsToHimself) {
  testing::run([](World& world) -> Task<void> {
    std::string address;
    {
      auto listener = world.network().listen("tcp:127.0.0.1:0");
      EXPECT_TRUE(listener.ok());
      address = (*listener)->address();
      (*listener)->close();
    }
    for (int i = 0; i < 20'000; ++i) {
      auto c = co_await world.network().connect(address, 1s);
      EXPECT_FALSE(c.ok()) << "try " << i;
      if (c.ok()) co_return;
    }
  });
}

// The connection is there and its time is over, both at once: a process that stood still meanwhile. A sanitizer sees what the timer touches.
TEST(Network, AConnectionThatIsMadeAsItsTimeEndsIsOneOrTheOther) {
  testing::run([](World& world) -> Task<void> {
    auto listener = world.network().listen("tcp:127.0.0.1:0");
    EXPECT_TRUE(listener.ok());
    for (int i = 0; i < 5; ++i) {
      world.spawn("stands still", [](World&) -> Task<void> {
        ::usleep(30'000);
        co_return;
      }(world));
      auto c = co_await world.network().connect((*listener)->address(), 10ms);
      if (!c.ok()) EXPECT_EQ(c.status().code(), Code::timed_out);
      co_await world.sleep(5ms);
    }
  });
}

}  // namespace
}  // namespace luge::io
