// The attach daemon with a real control plane in the simulator: what is exported after restarts, cuts and detachments that
// it did not hear of. No head is there: attaching needs none, and nothing is written.
#include "attach/attach.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/logging.hpp"
#include "control/api.hpp"
#include "control/control.hpp"
#include "io/testing.hpp"
#include "sim/cluster/simulation.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kUnit = 42;
constexpr const char* kControl = "tcp:control:1";

struct ControlNode {
  ControlNode(io::World& w, std::shared_ptr<control::Image> image, const std::string& listen = kControl)
      : control(w, options(listen), std::make_unique<control::MemoryStore>(std::move(image))), api(control) {
    w.spawn("start", [](control::Control& c) -> io::Task<void> {
      Status s = co_await c.start();
      LUGE_CHECK(s.ok());
    }(control));
  }
  static control::Options options(const std::string& listen) {
    control::Options o;
    o.listen = listen;
    return o;
  }
  control::Control control;
  control::ControlApi api;
};

struct AttachNode {
  AttachNode(io::World& w, Options o) : attach(w, std::move(o)) {
    w.spawn("start", [](Attach& a) -> io::Task<void> {
      Status s = co_await a.start();
      LUGE_CHECK(s.ok());
    }(attach));
  }
  Attach attach;
};

class AttachTest : public ::testing::Test {
 protected:
  AttachTest() {
    logging::setup("test", "off");
    for (VolumeId id : {1, 2}) {
      control::Volume v{id, id == 1 ? "v" : "w", 1 << 20, 1 << 20, {4, 2}, 2, false};
      image_->volumes[id] = v;
      image_->attachments[id] = {id, 0, 0};
      control::Designation d;
      d.vp = make_vp(id, 0);
      d.epoch = d.revision = d.history = 1;
      d.primary = 11;
      d.reserves = {12};
      d.required = {11, 12};
      d.blocks = 256;
      image_->designations[d.vp] = d;
    }
    image_->next_volume = 3;
    control_node_ = sim_.add_node("control", [this](io::World& w) {
      auto c = std::make_shared<ControlNode>(w, image_);
      control_ = c.get();
      return c;
    });
    for (NodeId id : {901, 902}) add(id, kUnit);
    client_ = sim_.add_node("client");
    EXPECT_TRUE(sim_.run_until([&] { return control_->control.registry().alive("attach").size() == 2; }, 10s));
    sim_.run_for(100ms);
  }
  void add(NodeId id, std::uint64_t unit) {
    Options o;
    o.id = id;
    o.name = "attach-" + std::to_string(id - 900);
    o.control = kControl;
    o.unit = unit;
    o.remember_unit = [this, id](std::uint64_t u) {
      remembered_[id] = u;
      return Status();
    };
    o.fail = [this, id](Status s) { failed_[id] = s; };
    node_[id] = sim_.add_node(o.name, [this, id, o](io::World& w) {
      auto a = std::make_shared<AttachNode>(w, o);
      daemon_[id] = a.get();
      return a;
    });
  }
  control::Answer http(std::string method, std::string target, std::string body = "") {
    control::Answer out;
    bool done = false;
    sim_.world(control_node_).spawn("http", [](control::ControlApi& api, std::string m, std::string t, std::string b, control::Answer& out, bool& done) -> io::Task<void> {
      out = co_await api.handle(m, t, b);
      done = true;
    }(control_->api, method, target, body, out, done));
    EXPECT_TRUE(sim_.run_until([&] { return done; }, 120s));
    return out;
  }
  void attach(const std::string& volume, const std::string& nbd, int daemon = 1, bool take_over = false) {
    auto a = http("POST", "/v1/volumes/" + volume + "/attach", R"({"nbd":")" + nbd + R"(","node":"attach-)" + std::to_string(daemon) + R"(","take_over":)" + (take_over ? "true" : "false") + "}");
    EXPECT_EQ(a.status, 200u) << boost::json::serialize(a.body);
  }
  void detach(const std::string& volume) {
    auto a = http("POST", "/v1/volumes/" + volume + "/detach");
    EXPECT_EQ(a.status, 200u) << boost::json::serialize(a.body);
  }
  // Does anybody answer at the address?
  bool served(const std::string& nbd) {
    bool yes = false;
    sim_.run(client_, [](io::World& w, std::string nbd, bool& yes) -> io::Task<void> {
      auto s = co_await w.network().connect(nbd, 1s);
      if (!s.ok()) co_return;
      std::byte greeting[18];
      yes = co_await (*s)->read_some(greeting) != 0;
    }(sim_.world(client_), nbd, yes));
    return yes;
  }
  void restart(NodeId id) {
    sim_.restart(node_[id]);
    ASSERT_TRUE(sim_.run_until([&] { return control_->control.registry().find(id)->connected(); }, 10s));
    sim_.run_for(2s);
  }
  void cut_off(NodeId id) {
    sim_.fabric().cut_both(node_[id], control_node_);
    ASSERT_TRUE(sim_.run_until([&] { return !control_->control.registry().find(id)->connected(); }, 60s));
  }
  void heal(NodeId id) {
    sim_.fabric().heal_all();
    ASSERT_TRUE(sim_.run_until([&] { return control_->control.registry().find(id)->connected(); }, 60s));
    sim_.run_for(5s);
  }

  std::shared_ptr<control::Image> image_ = control::MemoryStore::make_image(kUnit);
  std::map<NodeId, std::uint64_t> remembered_;
  std::map<NodeId, Status> failed_;
  std::map<NodeId, AttachNode*> daemon_;
  std::map<NodeId, sim::Node> node_;
  ControlNode* control_ = nullptr;
  sim::Simulation sim_{1};
  sim::Node control_node_ = 0, client_ = 0;
};

TEST_F(AttachTest, AnExportOutlivesARestart) {
  attach("v", "tcp:nbd-v:1");
  EXPECT_TRUE(served("tcp:nbd-v:1"));
  for (auto kind : {sim::Crash::process, sim::Crash::power}) {
    sim_.crash(node_[901], kind);
    EXPECT_FALSE(served("tcp:nbd-v:1"));
    restart(901);
    EXPECT_TRUE(served("tcp:nbd-v:1"));
  }
  sim_.crash(control_node_, sim::Crash::process);
  EXPECT_TRUE(served("tcp:nbd-v:1")) << "exports go on without a control plane";
  sim_.restart(control_node_);
  sim_.run_for(10s);
  EXPECT_TRUE(served("tcp:nbd-v:1"));
}

// The hole: the daemon remembered its exports itself and opened them again whatever had become of them.
TEST_F(AttachTest, WhatWasDetachedWhileItWasAwayStaysDetached) {
  attach("v", "tcp:nbd-v:1");
  attach("w", "tcp:nbd-w:1");
  sim_.crash(node_[901], sim::Crash::process);
  sim_.run_for(1s);
  detach("v");
  restart(901);
  EXPECT_FALSE(served("tcp:nbd-v:1"));
  EXPECT_TRUE(served("tcp:nbd-w:1"));
  EXPECT_EQ(image_->attachments.at(1).holder, 0u);
  EXPECT_EQ(image_->attachments.at(2).holder, 901u);
  // It may go elsewhere.
  attach("v", "tcp:nbd-v:2", 2);
  EXPECT_TRUE(served("tcp:nbd-v:2"));
}

// It was not away at all, it could only not be heard.
TEST_F(AttachTest, WhatWasDetachedWhileItWasCutOffIsClosed) {
  attach("v", "tcp:nbd-v:1");
  attach("w", "tcp:nbd-w:1");
  cut_off(901);
  detach("v");
  EXPECT_TRUE(served("tcp:nbd-v:1")) << "it has not heard of it yet";
  heal(901);
  EXPECT_FALSE(served("tcp:nbd-v:1"));
  EXPECT_TRUE(served("tcp:nbd-w:1"));
}

TEST_F(AttachTest, WhatMovedWhileItWasCutOffIsWhereItBelongs) {
  attach("v", "tcp:nbd-v:1");
  attach("w", "tcp:nbd-w:1");
  cut_off(901);
  attach("v", "tcp:nbd-v:2", 2, true);
  // The same daemon, another address: known to the store only.
  control::Change c;
  c.exports.push_back({2, 901, "tcp:nbd-w:3", true});
  control::Store& store = const_cast<control::Store&>(control_->control.store());
  ASSERT_TRUE(store.commit(c).ok());
  heal(901);
  EXPECT_FALSE(served("tcp:nbd-v:1"));
  EXPECT_TRUE(served("tcp:nbd-v:2"));
  EXPECT_FALSE(served("tcp:nbd-w:1"));
  EXPECT_TRUE(served("tcp:nbd-w:3"));
  EXPECT_EQ(image_->attachments.at(1).holder, 902u);
  EXPECT_EQ(image_->attachments.at(2).holder, 901u);
}

TEST_F(AttachTest, ExportsThatHaveEndedAreNotKept) {
  for (int i = 0; i < 10; ++i) {
    attach("v", "tcp:nbd-v:1");
    EXPECT_TRUE(served("tcp:nbd-v:1"));
    detach("v");
    sim_.run_for(1s);
  }
  EXPECT_LE(daemon_[901]->attach.kept(), 1u);
}

// An export that cannot be opened yet is tried again until it can be.
TEST_F(AttachTest, WhatCannotBeOpenedYetIsTriedAgain) {
  attach("v", "tcp:nbd-v:1");
  sim_.crash(node_[901], sim::Crash::process);
  std::unique_ptr<io::Listener> other;
  auto l = sim_.world(client_).network().listen("tcp:nbd-v:1");
  ASSERT_TRUE(l.ok());
  restart(901);
  (*l)->close();
  l->reset();
  sim_.run_for(2s);
  EXPECT_TRUE(served("tcp:nbd-v:1"));
}

TEST_F(AttachTest, LearnsItsUnitOnceAndForAll) {
  EXPECT_EQ(remembered_[901], kUnit);
  add(903, 0);
  sim_.run_for(2s);
  EXPECT_EQ(remembered_[903], kUnit);
  EXPECT_TRUE(failed_.empty());
  add(904, kUnit + 1);
  sim_.run_for(2s);
  EXPECT_EQ(failed_[904].code(), Code::wrong_unit);
  EXPECT_FALSE(remembered_.contains(904));
}

// A guest's disk, between real sockets: luge control rebuild takes exports up from what the daemons report.
TEST(AttachDisk, TheReportSaysThatAGuestsDiskIsReadOnly) {
  io::testing::TemporaryDirectory directory;
  auto image = control::MemoryStore::make_image(kUnit);
  image->volumes[1] = {1, "v", 1 << 20, 1 << 20, {4, 2}, 2, false};
  image->attachments[1] = {1, 0, 0};
  const std::string address = "unix:" + (directory / "control.sock");
  io::RealWorld world(io::RealWorld::Options{.io_uring = false});
  ControlNode control(world, image, address);
  Options o;
  o.id = 901, o.name = "attach-1", o.control = address, o.unit = kUnit;
  o.remember_unit = [](std::uint64_t) { return Status(); };
  AttachNode node(world, o);
  std::string report;
  auto body = [&]() -> io::Task<int> {
    for (int i = 0; i < 500 && control.control.registry().alive("attach").empty(); ++i) co_await world.sleep(10ms);
    const std::string wish = R"({"nbd":"vhost-user:)" + (directory / "disk.sock") + R"(","node":"attach-1","read_only":true})";
    control::Answer a = co_await control.api.handle("POST", "/v1/volumes/v/attach", wish);
    EXPECT_EQ(a.status, 200u) << boost::json::serialize(a.body);
    report = node.attach.report();
    co_await node.attach.drain();
    co_return 0;
  };
  EXPECT_EQ(io::run_main(world, body()), 0);
  EXPECT_NE(report.find(R"("read_only":true)"), std::string::npos) << report;
}

}  // namespace
}  // namespace luge::attach
