// Channels, servers and links of host/wire over the simulated network.
#include <gtest/gtest.h>

#include "sim/cluster/simulation.hpp"
#include "wire/channel.hpp"
#include "wire/client_generated.h"

namespace luge::sim {
namespace {

using io::Task;
using wire::Channel;
using wire::Frame;
using wire::Kind;

// Answers every frame with its own payload.
struct EchoDaemon {
  explicit EchoDaemon(io::World& w) : server(w, identity) {
    Status s = server.listen("tcp:echo:7", [](const std::shared_ptr<Channel>& c, Frame f) {
      Frame answer = wire::reply_frame(Status());
      answer.payload = f.payload;
      c->reply(f, std::move(answer));
    });
    LUGE_CHECK(s.ok());
  }
  wire::Identity identity{1, 10};
  wire::Server server;
};

struct Caller {
  explicit Caller(io::World& w) : world(w), link(w, identity, "tcp:echo:7") {
    link.start();
    for (int i = 0; i < 4; ++i) w.spawn("calls", calls());
  }
  Task<void> calls() {
    while (true) {
      Frame f = wire::reply_frame(Status());
      Buffer sent = Buffer::allocate(4096 * (1 + world.random_below(40)));
      for (std::size_t i = 0; i < sent.size(); i += 512) sent.data()[i] = static_cast<std::byte>(world.random());
      f.payload.push_back(sent);
      auto r = co_await link.call(std::move(f), 500ms);
      if (r.ok()) {
        ++answered;
        Buffer got = r->data();
        if (got.size() != sent.size()) ++wrong;
        for (std::size_t i = 0; i < std::min(got.size(), sent.size()); i += 512)
          if (got.data()[i] != sent.data()[i]) ++wrong;
      } else {
        ++failed;
        co_await world.sleep(50ms);
      }
      co_await world.sleep(1ms);
    }
  }
  io::World& world;
  wire::Identity identity{1, 20};
  wire::Link link;
  std::uint64_t answered = 0, failed = 0, wrong = 0;
};

std::uint64_t run(std::uint64_t seed) {
  Simulation sim(seed);
  Node server = sim.add_node("server", [](io::World& w) { return std::make_shared<EchoDaemon>(w); });
  std::shared_ptr<Caller> caller;
  Node client = sim.add_node("client", [&](io::World& w) { return caller = std::make_shared<Caller>(w); });
  std::uint64_t last = 0;
  auto progress = [&](const char* what) {
    bool more = sim.run_until([&] { return caller->answered > last + 20; }, 30s);
    EXPECT_TRUE(more) << what << ", seed " << seed;
    last = caller->answered;
  };
  progress("start");
  for (int i = 0; i < 6; ++i) {
    switch (sim.random().below(6)) {
      case 0: sim.crash(server, Crash::power); sim.run_for(500ms); sim.restart(server); break;
      case 1: sim.crash(server, Crash::process); sim.run_for(500ms); sim.restart(server); break;
      case 2: sim.fabric().cut_both(server, client); sim.run_for(5s); sim.fabric().heal_all(); break;
      case 3: sim.fabric().cut(client, server); sim.run_for(5s); sim.fabric().heal_all(); break;
      case 4: sim.pause(server); sim.run_for(3s); sim.resume(server); break;
      case 5: sim.fabric().reset(server, client); break;
    }
    progress("after a fault");
  }
  EXPECT_EQ(caller->wrong, 0u);
  sim.note(caller->answered, caller->failed);
  caller.reset();
  return sim.trace_hash();
}

TEST(WireOverSimulation, LinkComesBackAfterEveryFault) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) run(seed);
}

TEST(WireOverSimulation, SameSeedSameTrace) {
  for (std::uint64_t seed = 100; seed < 105; ++seed) EXPECT_EQ(run(seed), run(seed));
}

}  // namespace
}  // namespace luge::sim
