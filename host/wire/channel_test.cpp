// Channels, links and servers over real sockets, and what hostile peers send.
#include "wire/channel.hpp"

#include "io/testing.hpp"
#include "wire/control_generated.h"

namespace luge::wire {
namespace {

using io::Task;
using io::World;
using namespace std::chrono_literals;

Frame text_frame(Kind kind, const std::string& text) {
  return make_frame(kind, [&](auto& b) { return fbs::CreateReply(b, 0, b.CreateString(text)); });
}

std::string text_of(const Frame& f) {
  const auto* r = f.as<fbs::Reply>();
  return r && r->text() ? r->text()->str() : "?";
}

// Answers each request with its own text and payload.
void echo(const std::shared_ptr<Channel>& channel, Frame f) {
  Frame answer = text_frame(Kind::reply, text_of(f));
  answer.payload = f.payload;
  channel->reply(f, std::move(answer));
}

struct Bench {
  explicit Bench(World& w) : world(w), address("unix:" + directory / "s") {}
  void listen(Channel::Handler handler = echo) {
    server = std::make_unique<Server>(world, server_self);
    Status s = server->listen(address, std::move(handler));
    EXPECT_TRUE(s.ok()) << s.to_string();
  }
  World& world;
  io::testing::TemporaryDirectory directory;
  std::string address;
  Identity server_self{7, 1}, client_self{7, 2};
  std::unique_ptr<Server> server;
};

// Objects outlive the World's tasks: Bench is made outside of the coroutine.
template <class Body>
void run(Body body) {
  io::RealWorld world;
  Bench bench(world);
  auto with_result = [&]() -> Task<int> {
    co_await body(bench);
    co_return 0;
  };
  EXPECT_EQ(io::run_main(world, with_result()), 0);
}

Task<std::shared_ptr<Channel>> connect(Bench& s, const Identity& self, Channel::Handler handler = {},
                                       std::function<void()> closed = {}) {
  auto stream = co_await s.world.network().connect(s.address, 1s);
  EXPECT_TRUE(stream.ok()) << stream.status().to_string();
  auto channel = std::make_shared<Channel>(s.world, std::move(*stream), self, true);
  channel->start(std::move(handler), std::move(closed));
  co_return channel;
}

TEST(Channel, CallsAreAnswered) {
  run([](Bench& s) -> Task<void> {
    s.listen();
    auto channel = co_await connect(s, s.client_self);
    for (std::size_t bytes : {0, 1, 4096, 300'000, 5'000'000}) {
      Frame request = text_frame(Kind::ping, "hello");
      Buffer payload = Buffer::zeros(bytes);
      if (bytes != 0) payload.data()[bytes - 1] = std::byte{42};
      // Two parts here, one at the other end.
      if (bytes > 1) request.payload = {payload.slice(0, 1), payload.slice(1, bytes - 1)};
      else if (bytes == 1) request.payload = {payload};
      auto answer = co_await channel->call(std::move(request), 5s);
      EXPECT_TRUE(answer.ok()) << answer.status().to_string();
      if (!answer.ok()) co_return;
      EXPECT_EQ(text_of(*answer), "hello");
      EXPECT_EQ(answer->data().size(), bytes);
      if (bytes != 0) EXPECT_EQ(answer->data().data()[bytes - 1], std::byte{42});
      if (bytes >= 4096) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(answer->data().data()) % 4096, 0u);
    }
    EXPECT_EQ(channel->peer_node(), 1u);
    channel->close();
  });
}

Task<void> call_one(std::shared_ptr<Channel> channel, int i, int& good) {
  auto answer = co_await channel->call(text_frame(Kind::ping, std::to_string(i)), 20s);
  if (answer.ok() && text_of(*answer) == std::to_string(i)) ++good;
}

TEST(Channel, TenThousandCallsAtOnce) {
  run([](Bench& s) -> Task<void> {
    s.listen();
    auto channel = co_await connect(s, s.client_self);
    int good = 0;
    io::TaskGroup group(s.world);
    for (int i = 0; i < 10'000; ++i) group.spawn("call", call_one(channel, i, good));
    co_await group.join();
    EXPECT_EQ(good, 10'000);
    EXPECT_EQ(channel->queued_bytes(), 0u);
    channel->close();
  });
}

TEST(Channel, FramesArriveInOrder) {
  run([](Bench& s) -> Task<void> {
    std::vector<int> seen;
    s.listen([&](const auto&, Frame f) { seen.push_back(std::stoi(text_of(f))); });
    auto channel = co_await connect(s, s.client_self);
    for (int i = 0; i < 10'000; ++i) {
      Frame f = text_frame(Kind::ping, std::to_string(i));
      if (i % 100 == 0) f.payload.push_back(Buffer::zeros(100'000));
      channel->send(std::move(f));
      if (i % 1000 == 0) co_await s.world.yield();
    }
    for (int turn = 0; turn < 500 && seen.size() < 10'000; ++turn) co_await s.world.sleep(10ms);
    EXPECT_EQ(seen.size(), 10'000u);
    for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<int>(i));
    channel->close();
  });
}

TEST(Channel, ACallThatNobodyAnswersTimesOut) {
  run([](Bench& s) -> Task<void> {
    std::vector<Frame> requests;
    std::shared_ptr<Channel> peer;
    s.listen([&](const auto& c, Frame f) { peer = c; requests.push_back(std::move(f)); });
    auto channel = co_await connect(s, s.client_self);
    auto answer = co_await channel->call(text_frame(Kind::ping, "x"), 50ms);
    EXPECT_EQ(answer.code(), Code::timed_out);
    if (requests.empty()) co_return void(ADD_FAILURE() << "no request");
    peer->reply(requests[0], text_frame(Kind::reply, "late"));  // belongs to nobody any more
    co_await s.world.sleep(20ms);
    EXPECT_TRUE(channel->open());
    peer.reset();
    channel->close();
  });
}

TEST(Channel, ACallFailsWhenTheConnectionEnds) {
  run([](Bench& s) -> Task<void> {
    s.listen([](const auto& c, Frame) { c->close(); });
    int closed = 0;
    auto channel = co_await connect(s, s.client_self, {}, [&] { ++closed; });
    auto answer = co_await channel->call(text_frame(Kind::ping, "x"), 5s);
    EXPECT_EQ(answer.code(), Code::unavailable);
    answer = co_await channel->call(text_frame(Kind::ping, "x"), 5s);
    EXPECT_EQ(answer.code(), Code::unavailable);
    channel->send(text_frame(Kind::ping, "x"));
    co_await s.world.sleep(10ms);
    EXPECT_EQ(closed, 1);
  });
}

// Requirement: B-10
TEST(Channel, AnotherUnitIsTurnedAway) {
  run([](Bench& s) -> Task<void> {
    s.listen();
    Identity stranger{8, 2}, tool{0, 0};
    auto channel = co_await connect(s, stranger);
    auto answer = co_await channel->call(text_frame(Kind::ping, "x"), 5s);
    EXPECT_EQ(answer.code(), Code::unavailable);
    channel = co_await connect(s, tool);
    answer = co_await channel->call(text_frame(Kind::ping, "x"), 5s);
    EXPECT_TRUE(answer.ok());
    channel->close();
  });
}

// Sends bytes and reports whether the server hung up within a second, without having handled any frame.
Task<bool> hangs_up(Bench& s, std::string bytes, bool then_close = false) {
  auto stream = co_await s.world.network().connect(s.address, 1s);
  EXPECT_TRUE(stream.ok());
  Bytes part = as_bytes(bytes);
  co_await (*stream)->write_all({&part, 1});
  if (then_close) {
    (*stream)->close();
    co_return true;
  }
  std::byte b[16];
  std::size_t n = co_await (*stream)->read_some(b);
  co_return n == 0;
}

std::string raw(FrameHeader h, const std::string& body) {
  std::string bytes(reinterpret_cast<const char*>(&h), sizeof h);
  return bytes + body;
}

// Requirement: B-09
TEST(Channel, HostileBytesEndTheConnectionOnly) {
  run([](Bench& s) -> Task<void> {
    int handled = 0;
    s.listen([&](const auto& c, Frame f) { ++handled; echo(c, std::move(f)); });
    FrameHeader good;
    good.kind = static_cast<std::uint16_t>(Kind::ping);
    good.unit = 7;
    std::vector<std::string> hostile;
    hostile.push_back(std::string(4096, 'g'));
    FrameHeader h = good;
    h.body_bytes = 0xffffffff;
    h.crc = frame_crc(h, {});
    hostile.push_back(raw(h, ""));
    h = good;
    h.payload_bytes = kMaxPayloadBytes + 1;
    h.crc = frame_crc(h, {});
    hostile.push_back(raw(h, ""));
    h = good;
    h.version = 99;
    h.crc = frame_crc(h, {});
    hostile.push_back(raw(h, ""));
    h = good;
    h.body_bytes = 8;
    h.crc = frame_crc(h, as_bytes("12345678")) ^ 1;
    hostile.push_back(raw(h, "12345678"));
    for (std::size_t i = 0; i < hostile.size(); ++i) {
      bool ended = co_await hangs_up(s, hostile[i]);
      EXPECT_TRUE(ended) << i;
    }
    h = good;
    h.body_bytes = 1000;
    h.payload_bytes = 1 << 20;
    co_await hangs_up(s, raw(h, "only the beginning"), true);
    h.body_bytes = 0;
    h.crc = frame_crc(h, {});
    co_await hangs_up(s, raw(h, "part of the payload"), true);
    EXPECT_EQ(handled, 0);
    // A right checksum around a body that is no flatbuffer: the frame arrives, as() says no.
    h = good;
    h.body_bytes = 8;
    h.crc = frame_crc(h, as_bytes("garbage!"));
    co_await hangs_up(s, raw(h, "garbage!") + std::string(100, 'x'));
    EXPECT_EQ(handled, 1);
    auto channel = co_await connect(s, s.client_self);
    auto answer = co_await channel->call(text_frame(Kind::ping, "still here"), 5s);
    EXPECT_TRUE(answer.ok());
    channel->close();
  });
}

TEST(Link, ReconnectsWithBackOff) {
  io::RealWorld world;
  Bench s(world);
  Link link(world, s.client_self, s.address);
  int connects = 0, disconnects = 0;
  std::vector<std::shared_ptr<Channel>> peers;
  auto on_connect = [&](std::shared_ptr<Channel>) -> Task<bool> {
    ++connects;
    co_return connects != 1;  // the first time it is not content
  };
  auto body = [&]() -> Task<int> {
    link.on_connect(on_connect);
    link.on_disconnect([&] { ++disconnects; });
    link.start();
    auto answer = co_await link.call(text_frame(Kind::ping, "x"), 100ms);
    EXPECT_EQ(answer.code(), Code::unavailable);
    EXPECT_FALSE(link.send(text_frame(Kind::ping, "x")));
    s.listen([&](const auto& c, Frame f) { peers.push_back(c); echo(c, std::move(f)); });
    answer = co_await link.call(text_frame(Kind::ping, "x"), 10s);
    EXPECT_TRUE(answer.ok()) << answer.status().to_string();
    EXPECT_EQ(connects, 2);
    peers.back()->close();
    co_await world.sleep(5ms);
    answer = co_await link.call(text_frame(Kind::ping, "again"), 10s);
    EXPECT_TRUE(answer.ok()) << answer.status().to_string();
    EXPECT_EQ(connects, 3);
    EXPECT_EQ(disconnects, 1);
    link.set_address("unix:" + s.directory / "nowhere");
    co_await world.sleep(50ms);
    EXPECT_FALSE(link.connected());
    link.set_address(s.address);
    bool connected = co_await link.wait_connected(10s);
    EXPECT_TRUE(connected);
    link.stop();
    peers.clear();
    co_await world.sleep(50ms);
    EXPECT_FALSE(link.connected());
    co_return 0;
  };
  EXPECT_EQ(io::run_main(world, body()), 0);
}

TEST(Link, StopsAndStartsAgain) {
  io::RealWorld world;
  Bench s(world);
  auto link = std::make_unique<Link>(world, s.client_self, s.address);
  auto body = [&]() -> Task<int> {
    s.listen();
    link->start();
    auto answer = co_await link->call(text_frame(Kind::ping, "x"), 5s);
    EXPECT_TRUE(answer.ok());
    link->stop();
    link->start();  // before the task of the first start has ended
    answer = co_await link->call(text_frame(Kind::ping, "x"), 5s);
    EXPECT_TRUE(answer.ok()) << answer.status().to_string();
    link.reset();  // while connected
    co_await world.sleep(20ms);
    co_return 0;
  };
  EXPECT_EQ(io::run_main(world, body()), 0);
}

}  // namespace
}  // namespace luge::wire
