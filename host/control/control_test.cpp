// The control plane in the simulator: daemons that only speak the wire protocol around it, virtual time, real frames.
#include "control/control.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <random>
#include <set>
#include <tuple>

#include "control/api.hpp"
#include "sim/cluster/simulation.hpp"
#include "wire/control_link.hpp"

namespace luge::control {
namespace {

using io::Task;
using namespace std::chrono_literals;
namespace json = boost::json;

constexpr const char* kAddress = "tcp:control:1";
constexpr std::uint64_t kUnit = 42;

struct ControlNode {
  ControlNode(io::World& w, std::shared_ptr<Image> image, std::uint64_t vp_bytes)
      : control(w, options(vp_bytes), std::make_unique<MemoryStore>(std::move(image))), api(control) {
    w.spawn("start", start(control));
  }
  static Task<void> start(Control& c) {
    Status s = co_await c.start();
    LUGE_CHECK(s.ok());
  }
  static Options options(std::uint64_t vp_bytes) {
    Options o;
    o.listen = kAddress;
    o.vp_bytes = vp_bytes;
    return o;
  }
  Control control;
  ControlApi api;
};

// A daemon as the control plane sees one: it registers, notes what it is told and answers as the test wants.
struct Peer {
  struct Setup {
    NodeId id;
    std::string name, role;
    std::uint64_t unit = 0;
    std::uint32_t devices = 0, columns = 64;
    std::uint64_t column_bytes = 16 << 20;
  };
  Peer(io::World& w, Setup s) : world(w), setup(std::move(s)), identity{setup.unit, setup.id},
        link(w, identity, kAddress, {setup.id, setup.name, setup.role, "tcp:" + setup.name + ":1", w.random() | 1, 1000 + setup.id},
             callbacks()) {
    link.start();
  }
  wire::ControlLink::Callbacks callbacks() {
    wire::ControlLink::Callbacks c;
    c.report = [this] { return report; };
    c.registered = [this] { world.spawn("ask", ask(*this)); };
    c.devices = [this](flatbuffers::FlatBufferBuilder& b) {
      std::vector<flatbuffers::Offset<fbs::Device>> rows;
      for (std::uint32_t i = 0; i < setup.devices; ++i)
        rows.push_back(fbs::CreateDevice(b, i, setup.columns * setup.column_bytes, setup.column_bytes, setup.columns,
                                         free_columns.contains(i) ? free_columns[i] : setup.columns,
                                         b.CreateString(device_state.contains(i) ? device_state[i] : "ok"), b.CreateString("so it is")));
      return rows;
    };
    c.designations = [this](flatbuffers::FlatBufferBuilder& b) {
      std::vector<flatbuffers::Offset<fbs::Designation>> held;
      for (const Designation& d : holds) held.push_back(d.to(b));
      return held;
    };
    c.directory = [this] {
      ++directories;
      for (const auto& [id, n] : link.nodes()) {
        if (!n.alive && !dead.contains(id)) death_heard[id] = world.now();
        n.alive ? (void)dead.erase(id) : (void)dead.insert(id);
        if (!n.alive) ever_dead.insert(id);
      }
    };
    c.designate = [this](const fbs::Designate& d) {
      Designation v = Designation::from(*d.designation());
      designations[v.vp] = v;
      sandbox[v.vp].clear();
      if (d.sandbox())
        for (const auto* s : *d.sandbox()) sandbox[v.vp].push_back({v.vp, s->sled(), s->device(), s->column()});
    };
    c.request = [this](const std::shared_ptr<wire::Channel>& channel, wire::Frame f) {
      if (f.kind == wire::Kind::drop_vp) drops.push_back(f.as<fbs::DropVp>()->vp());
      if (f.kind == wire::Kind::export_volume) exports.push_back(f.as<fbs::ExportVolume>()->name()->str());
      if (f.kind == wire::Kind::unexport_volume) exports.push_back("-" + f.as<fbs::UnexportVolume>()->name()->str());
      if (f.kind != wire::Kind::flush_vp) return channel->reply(f, wire::reply_frame(answer));
      ++flushes;
      channel->reply(f, wire::make_frame(wire::Kind::flush_reply, [&](auto& b) {
        auto text = b.CreateString(flush_answer.text());
        return fbs::CreateFlushReply(b, static_cast<std::uint16_t>(flush_answer.code()), text, unflushed);
      }));
    };
    return c;
  }
  static Task<void> ask(Peer& p) {
    auto r = co_await p.link.call(wire::make_frame(wire::Kind::list_exports, [](auto& b) { return fbs::CreateListExports(b); }), 2s);
    const auto* m = r.ok() && r->kind == wire::Kind::exports ? r->as<fbs::Exports>() : nullptr;
    if (!m) co_return;
    p.wanted.clear(), ++p.asked;
    if (m->exports())
      for (const auto* e : *m->exports()) p.wanted[e->name()->str()] = e->nbd()->str();
  }
  Task<Result<Designation>> propose(Revision expected, Designation d, Status* status) {
    auto answer = co_await link.call(wire::make_frame(wire::Kind::propose, [&](auto& b) {
      auto designation = d.to(b);
      return fbs::CreatePropose(b, expected, designation);
    }), 2s);
    if (!answer.ok()) co_return answer.status();
    const auto* r = answer->as<fbs::ProposeReply>();
    *status = wire::make_status(r->code(), r->text());
    if (r->current() == nullptr) co_return Status(Code::not_found, "none");
    co_return Designation::from(*r->current());
  }

  io::World& world;
  Setup setup;
  wire::Identity identity;
  std::string report = "{}";
  Status answer, flush_answer;
  std::uint64_t unflushed = 0;
  std::vector<Designation> holds;
  std::map<std::uint32_t, std::string> device_state;   // else "ok"
  std::map<std::uint32_t, std::uint32_t> free_columns;  // else all
  int directories = 0, flushes = 0;
  std::set<NodeId> dead, ever_dead;
  std::map<NodeId, io::Time> death_heard;
  std::map<VpId, Designation> designations;
  std::map<VpId, std::vector<SandboxRow>> sandbox;
  std::vector<VpId> drops;
  std::vector<std::string> exports;
  std::map<std::string, std::string> wanted;  // as it was told when it registered last
  int asked = 0;
  wire::ControlLink link;
};

class ControlTest : public testing::Test {
 protected:
  ControlTest() {
    control_node_ = sim_.add_node("control", [this](io::World& w) {
      auto c = std::make_shared<ControlNode>(w, image_, vp_bytes_);
      control_ = c.get();
      return c;
    });
  }
  sim::Node add(Peer::Setup s) {
    NodeId id = s.id;
    std::string name = s.name;
    sim::Node n = sim_.add_node(name, [this, s](io::World& w) {
      auto p = std::make_shared<Peer>(w, s);
      peers_[s.id] = p.get();
      return p;
    });
    sim_node_[id] = n;
    return n;
  }
  void add_unit(std::uint32_t heads = 4, std::uint32_t sleds = 8) {
    for (NodeId i = 0; i < heads; ++i) add({11 + i, "head-" + std::to_string(i + 1), "head"});
    for (NodeId i = 0; i < sleds; ++i) add({101 + i, "sled-" + std::to_string(i + 1), "sled", 0, 2});
    add({901, "attach-1", "attach"});
    ASSERT_TRUE(sim_.run_until([&] { return all_up(); }, 10s));
  }
  bool all_up() {
    for (auto& [id, p] : peers_)
      if (!p->link.connected()) return false;
    return control_->control.registry().nodes().size() == peers_.size();
  }
  Control& control() { return control_->control; }
  Peer& peer(NodeId id) { return *peers_.at(id); }
  const Image& image() { return control().store().image(); }

  Answer http(std::string method, std::string target, std::string body = "") {
    Answer out;
    bool done = false;
    sim_.world(control_node_).spawn("http", run(control_->api, method, target, body, out, done));
    EXPECT_TRUE(sim_.run_until([&] { return done; }, 120s));
    return out;
  }
  static Task<void> run(ControlApi& api, std::string m, std::string t, std::string b, Answer& out, bool& done) {
    out = co_await api.handle(m, t, b);
    done = true;
  }
  Answer create(const std::string& name, std::uint64_t bytes = 256 << 20, const std::string& layout = "4+2") {
    return http("POST", "/v1/volumes", R"({"name":")" + name + R"(","size":)" + std::to_string(bytes) + R"(,"layout":")" + layout + "\"}");
  }
  static std::string error_code(const Answer& a) {
    return std::string(a.body.at("error").at("code").as_string());
  }
  static Task<void> promote(Peer& p, Designation d) {
    Status status;
    auto r = co_await p.propose(d.revision - 1, d, &status);
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
  std::pair<Status, Designation> propose(NodeId source, Revision expected, Designation d) {
    Status status;
    Designation current;
    bool done = false;
    sim_.world(sim_node_[source]).spawn("propose", run_propose(peer(source), expected, d, status, current, done));
    EXPECT_TRUE(sim_.run_until([&] { return done; }, 10s));
    return {status, current};
  }
  static Task<void> run_propose(Peer& p, Revision expected, Designation d, Status& status, Designation& current, bool& done) {
    auto r = co_await p.propose(expected, d, &status);
    if (r.ok()) current = *r;
    done = true;
  }

  /// What `daemon` hears when it asks what it is to export: names and addresses.
  // As the attach daemon `by` asks for the volume "v".
  Code attach(NodeId by, bool take_over, std::uint64_t* incarnation) {
    Code code = Code::internal;
    bool done = false;
    struct Run {
      static Task<void> go(Peer& p, bool take_over, std::uint64_t* incarnation, Code& code, bool& done) {
        auto r = co_await p.link.call(wire::make_frame(wire::Kind::attach_volume, [&](auto& b) {
          auto name = b.CreateString("v");
          return fbs::CreateAttachVolume(b, name, p.setup.id, take_over);
        }), 2s);
        const auto* v = r->as<fbs::VolumeView>();
        code = static_cast<Code>(v->code());
        *incarnation = v->incarnation();
        if (v->code() == 0) {
          EXPECT_EQ(v->vps()->size(), 1u);
          EXPECT_EQ(v->vps()->Get(0)->primary_address()->str(), "tcp:head-1:1");
        } else {
          EXPECT_NE(v->text()->str().find("attach-"), std::string::npos) << "it names the holder";
        }
        done = true;
      }
    };
    sim_.world(sim_node_[by]).spawn("attach", Run::go(peer(by), take_over, incarnation, code, done));
    EXPECT_TRUE(sim_.run_until([&] { return done; }, 10s));
    return code;
  }
  std::map<std::string, std::string> listed(NodeId daemon) {
    std::map<std::string, std::string> out;
    bool done = false;
    sim_.world(sim_node_[daemon]).spawn("list", run_list(peer(daemon), out, done));
    EXPECT_TRUE(sim_.run_until([&] { return done; }, 10s));
    return out;
  }
  static Task<void> run_list(Peer& p, std::map<std::string, std::string>& out, bool& done) {
    auto r = co_await p.link.call(wire::make_frame(wire::Kind::list_exports, [](auto& b) { return fbs::CreateListExports(b); }), 2s);
    const auto* m = r.ok() && r->kind == wire::Kind::exports ? r->as<fbs::Exports>() : nullptr;
    EXPECT_NE(m, nullptr);
    if (m && m->exports())
      for (const auto* e : *m->exports()) out[e->name()->str()] = e->nbd()->str();
    done = true;
  }

  std::uint64_t vp_bytes_ = 64ull << 30;
  std::map<NodeId, Peer*> peers_;
  std::map<NodeId, sim::Node> sim_node_;
  ControlNode* control_ = nullptr;
  std::shared_ptr<Image> image_ = MemoryStore::make_image(kUnit);
  sim::Simulation sim_{1};
  sim::Node control_node_ = 0;
};

TEST_F(ControlTest, DaemonsLearnTheUnitAndOneAnother) {
  add_unit();
  EXPECT_EQ(peer(11).identity.unit, kUnit);
  sim_.run_for(200ms);
  for (auto& [id, p] : peers_) EXPECT_EQ(p->link.nodes().size(), peers_.size()) << id;
}

// Requirement: B-10
TEST_F(ControlTest, ADaemonOfAnotherUnitHearsSo) {
  add({11, "head-1", "head", 43});
  sim_.run_for(2s);
  EXPECT_EQ(peer(11).link.refused().code(), Code::wrong_unit);
  EXPECT_TRUE(control().registry().nodes().empty());
}

TEST_F(ControlTest, OddNamesAndTakenIdsAreRefused) {
  add({11, "head-1", "head"});
  ASSERT_TRUE(sim_.run_until([&] { return peer(11).link.connected(); }, 5s));
  add({12, "../x", "head"});
  add({13, "head-1", "head"});
  add({1, "control-2", "head"});
  add({14, "x", "king"});
  sim_.run_for(2s);
  for (NodeId id : {12u, 13u, 1u, 14u}) EXPECT_EQ(peer(id).link.refused().code(), Code::invalid) << id;
  EXPECT_TRUE(peer(11).link.connected());
}

TEST_F(ControlTest, ASecondDaemonUnderTheSameIdWaitsForTheFirst) {
  sim::Node first = add({11, "head-1", "head"});
  ASSERT_TRUE(sim_.run_until([&] { return peer(11).link.connected(); }, 5s));
  sim_.add_node("rival", [](io::World& w) { return std::make_shared<Peer>(w, Peer::Setup{11, "head-1", "head"}); });
  std::uint64_t incarnation = control().registry().find(11)->incarnation;
  sim_.run_for(3s);
  EXPECT_EQ(control().registry().find(11)->incarnation, incarnation);
  sim_.crash(first, sim::Crash::process);
  EXPECT_TRUE(sim_.run_until([&] { return control().registry().find(11)->incarnation != incarnation; }, 5s));
}

// Requirement: MC-18 switch=silent-head-unnoticed
// Requirement: MC-19 switch=survivors-not-told
TEST_F(ControlTest, ASilentHeadIsFoundByPingsAndAllOthersAreTold) {
  add_unit();
  sim_.run_for(1s);
  sim_.pause(sim_node_[12]);
  io::Duration begin = sim_.now();
  auto told = [&] {
    for (auto& [id, p] : peers_)
      if (id != 12 && !p->dead.contains(12)) return false;
    return true;
  };
  ASSERT_TRUE(sim_.run_until(told, 5s));
  EXPECT_GE(sim_.now() - begin, 400ms);
  EXPECT_LE(sim_.now() - begin, 800ms);
  for (auto& [id, p] : peers_)
    if (id != 12) EXPECT_EQ(p->dead, std::set<NodeId>{12}) << id;
  sim_.resume(sim_node_[12]);
  EXPECT_TRUE(sim_.run_until([&] { return peer(11).dead.empty(); }, 5s)) << "it is back";
}

// Without power there is not even a closed connection.
// Requirement: MC-18, MC-19
TEST_F(ControlTest, AHeadWithoutPowerIsFound) {
  add_unit();
  sim_.crash(sim_node_[12], sim::Crash::power);
  peers_.erase(12);
  io::Duration begin = sim_.now();
  ASSERT_TRUE(sim_.run_until([&] { return peer(11).dead.contains(12) && peer(901).dead.contains(12); }, 5s));
  EXPECT_LE(sim_.now() - begin, 800ms);
}

TEST_F(ControlTest, AKilledHeadIsFoundBeforeItsPingsTimeOut) {
  add_unit();
  sim_.run_for(1s);
  sim_.crash(sim_node_[12], sim::Crash::process);
  peers_.erase(12);
  io::Duration begin = sim_.now();
  ASSERT_TRUE(sim_.run_until([&] { return peer(11).dead.contains(12); }, 5s));
  EXPECT_LE(sim_.now() - begin, 450ms);
}

TEST_F(ControlTest, AConnectionThatComesBackAtOnceIsNoFailure) {
  add_unit();
  sim_.run_for(1s);
  sim_.fabric().reset(control_node_, sim_node_[12]);
  sim_.run_for(3s);
  EXPECT_TRUE(peer(12).link.connected());
  EXPECT_TRUE(peer(11).ever_dead.empty());
}

// Cut before the first ping, so that nothing ever comes and nothing is ever sent: the daemon must notice all the same.
TEST_F(ControlTest, AConnectionThatIsCutRightAfterItsRegistrationIsMadeAgain) {
  add({11, "head-1", "head"});
  ASSERT_TRUE(sim_.run_until([&] { return peer(11).link.connected(); }, 5s));
  sim_.fabric().cut_both(control_node_, sim_node_[11]);
  sim_.run_for(20s);
  EXPECT_FALSE(peer(11).link.connected());
  sim_.fabric().heal_all();
  EXPECT_TRUE(sim_.run_until([&] { return peer(11).link.connected() && control().registry().find(11)->connected(); }, 30s));
}

TEST_F(ControlTest, TheAgentDoesNotBlameNodesForItsOwnPause) {
  add_unit();
  sim_.run_for(1s);
  sim_.pause(control_node_);
  sim_.run_for(1900ms);
  sim_.resume(control_node_);
  sim_.run_for(2s);
  for (auto& [id, p] : peers_) EXPECT_TRUE(p->ever_dead.empty()) << id;
}

TEST_F(ControlTest, ARestartedControlPlaneCallsNobodyFailedWhoComesBack) {
  add_unit();
  create("v");
  sim_.crash(control_node_, sim::Crash::process);
  sim_.run_for(1s);
  sim_.restart(control_node_);
  ASSERT_TRUE(sim_.run_until([&] { return all_up(); }, 10s));
  sim_.run_for(6s);
  for (auto& [id, p] : peers_) EXPECT_TRUE(p->ever_dead.empty()) << id;
  EXPECT_NE(image().find_volume("v"), nullptr);
}

TEST_F(ControlTest, ARestartedControlPlaneTellsOfThoseWhoDoNotComeBack) {
  add_unit();
  sim_.crash(control_node_, sim::Crash::process);
  sim_.crash(sim_node_[12], sim::Crash::process);
  peers_.erase(12);
  sim_.run_for(1s);
  sim_.restart(control_node_);
  EXPECT_TRUE(sim_.run_until([&] { return peer(11).dead.contains(12); }, 12s));
}

// One primary and two reserves unless asked otherwise, on distinct heads.
// Requirement: HN-02, HN-03, HN-04
TEST_F(ControlTest, AVolumeGetsAPrimaryAndTwoReservesOnDistinctHeads) {
  add_unit();
  EXPECT_EQ(create("v").status, 201u);
  ASSERT_EQ(image().designations.size(), 1u);
  const Designation& d = image().designations.begin()->second;
  EXPECT_EQ(d.reserves.size(), 2u);
  EXPECT_EQ((std::set<NodeId>(d.required.begin(), d.required.end()).size()), 3u);
  EXPECT_EQ(d.epoch, 1u);
  EXPECT_EQ(d.revision, 1u);
  EXPECT_EQ(d.blocks, (256u << 20) / 4096);
  sim_.run_for(100ms);
  for (NodeId n : d.members()) EXPECT_EQ(peer(n).designations.at(d.vp), d);
  EXPECT_EQ(http("POST", "/v1/volumes", R"({"name":"w","size":4096,"layout":"1+1","copies":2})").status, 201u);
  EXPECT_EQ(image().designations.rbegin()->second.reserves.size(), 1u);
  EXPECT_EQ(error_code(http("POST", "/v1/volumes", R"({"name":"u","size":4096,"layout":"1+1","copies":1})")), "invalid");
  EXPECT_EQ(error_code(http("POST", "/v1/volumes", R"({"name":"u","size":4096,"layout":"1+1","copies":5})")), "degraded");
}

class SmallVpTest : public ControlTest {
 protected:
  SmallVpTest() { vp_bytes_ = 16 << 20; sim_.crash(control_node_, sim::Crash::process); sim_.restart(control_node_); }
};

// Partitions are placed independently, roles are per VP and spread over all heads.
// Requirement: HN-04, HN-07
TEST_F(SmallVpTest, AVolumeIsDividedIntoPartitionsSpreadOverTheHeads) {
  add_unit();
  EXPECT_EQ(create("v", (8 * 16 + 4) << 20).status, 201u);
  ASSERT_EQ(image().designations.size(), 9u);
  std::map<NodeId, int> primaries, memberships;
  std::uint64_t blocks = 0;
  for (const auto& [vp, d] : image().designations) {
    ++primaries[d.primary];
    for (NodeId n : d.members()) ++memberships[n];
    blocks += d.blocks;
  }
  EXPECT_EQ(blocks, (8 * 16 + 4u) << 8);
  for (NodeId n = 11; n < 15; ++n) {
    EXPECT_GE(primaries[n], 2) << n;
    EXPECT_GT(memberships[n], primaries[n]) << n << " is only ever primary";
  }
}

// Requirement: CP-05, CP-06
TEST_F(ControlTest, ASandboxCoversAllSledsAndReachesThePrimary) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  const Designation& d = image().designations.begin()->second;
  std::map<NodeId, int> per_sled;
  std::set<std::pair<NodeId, std::uint16_t>> devices;
  for (const SandboxRow& s : peer(d.primary).sandbox.at(d.vp)) {
    ++per_sled[s.sled];
    devices.insert({s.sled, s.device});
  }
  EXPECT_EQ(per_sled.size(), 8u);
  EXPECT_EQ(devices.size(), 16u);
  for (auto& [sled, n] : per_sled) EXPECT_GE(n, 4) << sled;
}

// Neither an allocation (overlaps when all is given out) nor a limit (more on request).
// Requirement: CP-07
TEST(PlacementTest, SandboxesDoNotOverlapWhileThereIsRoom) {
  std::vector<Node> sleds(6);
  std::vector<const Node*> up;
  for (NodeId i = 0; i < 6; ++i) {
    sleds[i].row = {101 + i, "s", "sled", ""};
    sleds[i].devices = {{0, 1 << 30, 16 << 20, 10, 10, "ok", ""}};
    for (const char* state : {"failed", "in_use", "closed", "full", "", "what"})
      sleds[i].devices.push_back({static_cast<std::uint16_t>(sleds[i].devices.size()), 1 << 30, 16 << 20, 10, 10, state, ""});
    sleds[i].devices.push_back({7, 1 << 30, 16 << 20, 10, 0, "ok", "no column is free"});
    up.push_back(&sleds[i]);
  }
  Sandboxes all;
  std::set<std::pair<NodeId, std::uint32_t>> columns;
  for (VpId vp : {65536u, 131072u}) {
    auto r = recommend_columns(all, {}, up, vp, 30);
    EXPECT_EQ(r.size(), 30u);
    for (const SandboxRow& s : r) all.insert(s);
    for (const SandboxRow& s : r) EXPECT_TRUE(columns.insert({s.sled, s.column}).second);
  }
  auto more = recommend_columns(all, {}, up, 65536, 40);
  EXPECT_EQ(more.size(), 30u) << "the other's columns, each once";
  for (const SandboxRow& s : more) all.insert(s);
  EXPECT_TRUE(recommend_columns(all, {}, up, 65536, 1).empty());
}

// What is counted beside the rows is what counting them gives.
TEST(Placement, SandboxesCountTheirRows) {
  Sandboxes table;
  std::set<SandboxRow> rows;
  std::mt19937 rng(3);
  for (int i = 0; i < 3000; ++i) {
    SandboxRow r{1 + rng() % 5, static_cast<NodeId>(1 + rng() % 3), static_cast<std::uint16_t>(rng() % 2), static_cast<std::uint32_t>(rng() % 40)};
    if (i % 400 == 399) {
      table.erase(r.vp);
      std::erase_if(rows, [&](const SandboxRow& s) { return s.vp == r.vp; });
    } else if (i % 3 == 2) {
      table.erase(r);
      rows.erase(r);
    } else {
      table.insert(r);
      rows.insert(r);
    }
    auto on_device = std::count_if(rows.begin(), rows.end(), [&](const SandboxRow& s) { return s.sled == r.sled && s.device == r.device; });
    auto on_column = std::count_if(rows.begin(), rows.end(), [&](const SandboxRow& s) { return std::tie(s.sled, s.device, s.column) == std::tie(r.sled, r.device, r.column); });
    ASSERT_EQ(table.used(r.sled, r.device), static_cast<std::uint64_t>(on_device));
    ASSERT_EQ(table.taken(r.sled, r.device, r.column), on_column != 0);
  }
  EXPECT_EQ(table.rows(), rows);
}

// What a device is now counts, not what it was when its sled registered.
// Requirement: CP-05
TEST_F(ControlTest, ADeviceThatFailsLaterIsRecommendedNoMore) {
  add_unit();
  sim_.run_for(1s);
  peer(101).device_state = {{0, "failed"}};
  peer(102).device_state = {{0, "full"}, {1, "in_use"}};
  peer(103).free_columns = {{1, 0}};
  sim_.run_for(300ms);
  create("v");
  sim_.run_for(100ms);
  std::set<std::pair<NodeId, std::uint16_t>> used;
  auto note = [&] {
    const Designation& d = image().designations.begin()->second;
    for (const SandboxRow& s : peer(d.primary).sandbox.at(d.vp)) used.insert({s.sled, s.device});
  };
  note();
  EXPECT_EQ(used.size(), 16u - 4u);
  for (auto [sled, device] : {std::pair(101, 0), {102, 0}, {102, 1}, {103, 1}}) EXPECT_FALSE(used.contains({sled, device})) << sled << " " << device;
  std::string events = json::serialize(http("GET", "/v1/events").body);
  EXPECT_NE(events.find("sled-1: device 0 is failed: so it is"), std::string::npos) << events;
  EXPECT_EQ(events.find("sled-3: device"), std::string::npos) << "a device that is in order and full of data is no event";
  // Both directions: what is repaired is used again.
  peer(102).device_state.clear();
  sim_.run_for(300ms);
  EXPECT_EQ(http("DELETE", "/v1/volumes/v").status, 200u);
  create("w");
  sim_.run_for(100ms);
  note();
  EXPECT_TRUE(used.contains({102, 0}) && used.contains({102, 1}));
  EXPECT_EQ(json::serialize(http("GET", "/v1/status").body).find("\"state\":\"full\""), std::string::npos);
}

TEST_F(ControlTest, RoomIsWhatDevicesInOrderHave) {
  add_unit(3, 6);
  for (NodeId i = 101; i < 107; ++i) peer(i).device_state = {{0, "failed"}};
  sim_.run_for(300ms);
  // 6 sleds of one good GiB at 4+2 hold 4 GiB.
  EXPECT_EQ(error_code(create("v", (4ull << 30) + 4096)), "invalid");
  EXPECT_EQ(create("v", 4ull << 30).status, 201u);
}

TEST_F(ControlTest, AfterARestartTheNodesOfTheStoreAreUnknownUntilTheyRegister) {
  add_unit();
  sim_.crash(control_node_, sim::Crash::process);
  sim_.crash(sim_node_[12], sim::Crash::process);
  peers_.erase(12);
  sim_.run_for(1s);
  sim_.restart(control_node_);
  auto states = [&] {
    std::map<std::string, std::string> out;
    Answer status = http("GET", "/v1/status");
    for (const auto& n : status.body.at("nodes").as_array())
      out[std::string(n.at("name").as_string())] = std::string(n.at("state").as_string());
    return out;
  };
  auto at_start = states();
  for (const auto& [name, state] : at_start) EXPECT_EQ(state, name == "control-1" ? "up" : "unknown") << name;
  ASSERT_TRUE(sim_.run_until([&] { return control().registry().alive("head").size() == 3; }, 5s));
  EXPECT_EQ(states()["head-1"], "up");
  EXPECT_EQ(states()["head-2"], "unknown");
  // Nothing is placed on it ...
  EXPECT_EQ(error_code(http("POST", "/v1/volumes", R"({"name":"v","size":4096,"layout":"4+2","copies":4})")), "degraded");
  // ... and nobody is told that it has failed before its time is up.
  for (auto& [id, p] : peers_) EXPECT_TRUE(p->ever_dead.empty()) << id;
  ASSERT_TRUE(sim_.run_until([&] { return peer(11).dead.contains(12); }, 12s));
  EXPECT_EQ(states()["head-2"], "down");
  // A connection that is lost later is another matter: it was heard of.
  sim_.crash(sim_node_[13], sim::Crash::process);
  peers_.erase(13);
  sim_.run_for(50ms);
  EXPECT_EQ(states()["head-3"], "away");
}

// Requirement: MC-22, P-4.1
TEST_F(ControlTest, OneSwapWinsAndAllMembersHear) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  Designation d = image().designations.begin()->second;
  Designation smaller = d;
  smaller.revision = 2;
  smaller.required = {d.primary, d.reserves[0]};
  EXPECT_TRUE(propose(d.primary, 1, smaller).first.ok());
  Designation promoted = d;
  promoted.epoch = promoted.revision = 2;
  promoted.primary = d.reserves[1];
  promoted.reserves = {d.primary, d.reserves[0]};
  promoted.required = {d.reserves[1], d.reserves[0]};
  auto [status, current] = propose(d.reserves[1], 1, promoted);
  EXPECT_EQ(status.code(), Code::conflict);
  EXPECT_EQ(current, smaller);
  promoted.revision = 3;
  EXPECT_EQ(propose(d.reserves[1], 2, promoted).first.code(), Code::invalid) << "it has left required";
  EXPECT_EQ(propose(14, 2, smaller).first.code(), Code::invalid);
  sim_.run_for(100ms);
  for (NodeId n : d.members()) EXPECT_EQ(peer(n).designations.at(d.vp), smaller);
}

// 4.1: a store that lost its last transaction takes the greater designation from a member.
// Requirement: P-4.1
TEST_F(ControlTest, AGreaterDesignationOfAMemberIsAdopted) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  Designation d = image().designations.begin()->second;
  d.epoch = 2;
  d.revision = 5;
  peer(d.reserves[0]).holds = {d};
  sim_.fabric().reset(control_node_, sim_node_[d.reserves[0]]);
  ASSERT_TRUE(sim_.run_until([&] { return image().designations.at(d.vp) == d; }, 5s));
  sim_.run_for(200ms);
  EXPECT_EQ(peer(d.primary).designations.at(d.vp), d);
}

// Requirement: B-01, B-02
TEST_F(ControlTest, CreateRefusesWhatCannotBe) {
  add_unit(3, 6);
  auto refused = [this](std::string body) { return error_code(http("POST", "/v1/volumes", body)); };
  for (const char* name : {"", ".x", "-x", "a/b", "a b", "\\u00e4", "0123456789012345678901234567890123456789012345678901234567890123x"})
    EXPECT_EQ(refused(R"({"name":")" + std::string(name) + R"(","size":4096,"layout":"4+2"})"), "invalid") << name;
  EXPECT_EQ(refused(R"({"name":"v","size":0,"layout":"4+2"})"), "invalid");
  EXPECT_EQ(refused(R"({"name":"v","size":4097,"layout":"4+2"})"), "invalid");
  EXPECT_EQ(refused(R"({"name":"v","size":-4096,"layout":"4+2"})"), "invalid");
  EXPECT_EQ(refused(R"({"name":"v","size":18446744073709547520,"layout":"4+2"})"), "invalid");
  EXPECT_EQ(refused(R"({"name":"v","size":9007199254740992,"layout":"4+2"})"), "invalid");
  EXPECT_EQ(refused(R"({"name":"v","size":1e300,"layout":"4+2"})"), "invalid");
  for (const char* layout : {"", "4", "4+", "+2", "0+2", "4+0", "17+2", "4+5", "4+2x", "4-2"})
    EXPECT_EQ(refused(R"({"name":"v","size":4096,"layout":")" + std::string(layout) + "\"}"), "invalid") << layout;
  EXPECT_EQ(refused(R"({"name":"v","size":4096,"layout":"6+2"})"), "degraded");
  // 6 sleds of 2 GiB at 4+2 hold 8 GiB.
  EXPECT_EQ(refused(R"({"name":"v","size":8589938688,"layout":"4+2"})"), "invalid");
  EXPECT_EQ(create("v", 8589934592).status, 201u);
  EXPECT_EQ(error_code(create("v")), "exists");
  EXPECT_EQ(image().volumes.size(), 1u);
}

TEST_F(ControlTest, BadRequestsAreAnsweredWithASentence) {
  EXPECT_EQ(http("GET", "/nowhere").status, 404u);
  EXPECT_EQ(http("GET", "/v1/volumes/x").status, 404u);
  EXPECT_EQ(http("GET", "/v1/volumes/../x").status, 400u);
  EXPECT_EQ(http("PUT", "/v1/status").status, 405u);
  EXPECT_EQ(http("POST", "/v1/volumes", "{").status, 400u);
  EXPECT_EQ(http("POST", "/v1/volumes", "[1]").status, 400u);
  EXPECT_EQ(http("POST", "/v1/volumes", std::string(1000, '[')).status, 400u);
  EXPECT_EQ(http("POST", "/v1/volumes", std::string(100'000, ' ')).status, 413u);
  EXPECT_EQ(http("POST", "/v1/volumes", R"({"name":7,"size":4096,"layout":"4+2"})").status, 400u);
  EXPECT_EQ(http("POST", "/v1/volumes", R"({"name":"v","size":4096,"layout":"4+2","colour":1})").status, 400u);
  EXPECT_EQ(http("GET", "/v1/status?x=1").status, 400u);
  EXPECT_EQ(http("GET", "/v1/status").status, 200u);
}

TEST_F(ControlTest, ARemovedVolumeIsDroppedByAllMembersAlsoThoseThatWereDown) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  Designation d = image().designations.begin()->second;
  sim_.crash(sim_node_[d.reserves[1]], sim::Crash::process);
  sim_.run_for(1s);
  EXPECT_EQ(http("DELETE", "/v1/volumes/v").status, 202u);
  EXPECT_EQ(peer(d.primary).drops, std::vector<VpId>{d.vp});
  EXPECT_EQ(peer(d.reserves[0]).drops, std::vector<VpId>{d.vp});
  EXPECT_TRUE(image().sandboxes.empty());
  EXPECT_EQ(image().removals.size(), 1u);
  sim_.crash(control_node_, sim::Crash::process);  // it is remembered
  sim_.restart(control_node_);
  sim_.run_for(1s);
  sim_.restart(sim_node_[d.reserves[1]]);
  EXPECT_TRUE(sim_.run_until([&] { return image().removals.empty(); }, 10s));
  EXPECT_EQ(peer(d.reserves[1]).drops, std::vector<VpId>{d.vp});
  EXPECT_EQ(create("v").status, 201u);
  EXPECT_EQ(image().find_volume("v")->id, 2u) << "ids are not reused";
}

TEST_F(ControlTest, OneWriterAttachmentAVolume) {
  add_unit();
  add({902, "attach-2", "attach"});
  ASSERT_TRUE(sim_.run_until([&] { return peer(902).link.connected(); }, 5s));
  create("v");
  std::uint64_t first = 0, again = 0, none = 0, taken = 0;
  EXPECT_EQ(attach(901, false, &first), Code::ok);
  EXPECT_EQ(attach(902, false, &none), Code::exists);
  EXPECT_EQ(attach(901, false, &again), Code::ok);
  EXPECT_GT(again, first);
  EXPECT_EQ(attach(902, true, &taken), Code::ok);
  EXPECT_GT(taken, again);
  EXPECT_EQ(error_code(http("DELETE", "/v1/volumes/v")), "exists");
  EXPECT_EQ(http("DELETE", "/v1/volumes/v?force=true").status, 200u);
}

TEST_F(ControlTest, ExportsGoToAnAttachDaemonAndOutliveIt) {
  add_unit();
  create("v");
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"unix:x"})")), "invalid");
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/w/attach", R"({"nbd":"unix:/x"})")), "not_found");
  EXPECT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"unix:/x"})").status, 200u);
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"unix:/y"})")), "exists");
  EXPECT_EQ(peer(901).exports, std::vector<std::string>{"v"});
  EXPECT_EQ(listed(901), (std::map<std::string, std::string>{{"v", "unix:/x"}}));
  add({902, "attach-2", "attach"});
  sim_.crash(sim_node_[901], sim::Crash::process);
  sim_.restart(sim_node_[901]);
  ASSERT_TRUE(sim_.run_until([&] { return peer(901).link.connected() && peer(902).link.connected(); }, 5s));
  EXPECT_EQ(listed(901), (std::map<std::string, std::string>{{"v", "unix:/x"}}));
  EXPECT_TRUE(listed(902).empty()) << "another's";
  EXPECT_EQ(http("POST", "/v1/volumes/v/detach").status, 200u);
  EXPECT_EQ(peer(901).exports.back(), "-v");
  EXPECT_TRUE(listed(901).empty());
  // Detached while the daemon was away: nothing of it stands when it is back.
  EXPECT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"unix:/x","node":"attach-1"})").status, 200u);
  sim_.crash(sim_node_[901], sim::Crash::process);
  sim_.run_for(1s);
  EXPECT_EQ(http("POST", "/v1/volumes/v/detach").status, 200u);
  sim_.restart(sim_node_[901]);
  ASSERT_TRUE(sim_.run_until([&] { return peer(901).link.connected(); }, 5s));
  EXPECT_TRUE(listed(901).empty());
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/detach")), "not_found");
}

// A guest's disk with two ends: the volume has one holder at any time, and the export goes where the guest has it attached.
TEST_F(ControlTest, AGuestsDiskMovesToWhereItIsAttached) {
  add_unit();
  add({902, "attach-2", "attach"});
  ASSERT_TRUE(sim_.run_until([&] { return peer(902).link.connected(); }, 5s));
  create("v");
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:x"})")), "invalid");
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2","incoming":true})")), "invalid") << "nothing to move";
  EXPECT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/a","node":"attach-1"})").status, 200u);
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2"})")), "exists");
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-1","incoming":true})")), "invalid") << "the same daemon";
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"unix:/b","node":"attach-2","incoming":true})")), "invalid");
  std::uint64_t first = 0, second = 0;
  EXPECT_EQ(attach(901, false, &first), Code::ok);
  EXPECT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2","incoming":true})").status, 200u);
  EXPECT_EQ(listed(901), (std::map<std::string, std::string>{{"v", "vhost-user:/a"}}));
  EXPECT_EQ(listed(902), (std::map<std::string, std::string>{{"v", "vhost-user:/b"}}));
  EXPECT_EQ(attach(902, false, &second), Code::exists) << "the first still has it";
  EXPECT_EQ(attach(901, false, &first), Code::ok) << "a migration that was cancelled";
  VolumeId id = image().volumes.begin()->first;
  sim_.run(sim_node_[901], [](Peer& p, VolumeId id, std::uint64_t incarnation) -> Task<void> {
    auto r = co_await p.link.call(wire::make_frame(wire::Kind::detach_volume, [&](auto& b) { return fbs::CreateDetachVolume(b, id, id, incarnation); }), 2s);
    EXPECT_TRUE(r.ok() && wire::status_of(*r).ok());
  }(peer(901), id, first));
  EXPECT_EQ(attach(902, false, &second), Code::ok);
  EXPECT_GT(second, first);
  EXPECT_EQ(listed(902), (std::map<std::string, std::string>{{"v", "vhost-user:/b"}}));
  EXPECT_TRUE(listed(901).empty());
  EXPECT_EQ(peer(901).exports.back(), "-v");
  EXPECT_EQ(attach(901, false, &first), Code::exists);
  EXPECT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/a","node":"attach-1","incoming":true})").status, 200u) << "and back";
  EXPECT_EQ(http("POST", "/v1/volumes/v/detach").status, 200u);
  EXPECT_TRUE(listed(901).empty() && listed(902).empty());
}

class Growing : public ControlTest {
 protected:
  // Sizes, as an attach daemon hears them: in its list, and when it attaches.
  static Task<void> ask_sizes(Peer& p, std::pair<std::uint64_t, std::uint64_t>& out) {
    auto list = co_await p.link.call(wire::make_frame(wire::Kind::list_exports, [](auto& b) { return fbs::CreateListExports(b); }), 2s);
    auto view = co_await p.link.call(wire::make_frame(wire::Kind::attach_volume, [&](auto& b) { return fbs::CreateAttachVolume(b, b.CreateString("v"), p.setup.id, false); }), 2s);
    const auto* e = list.ok() ? list->as<fbs::Exports>() : nullptr;
    const auto* v = view.ok() ? view->as<fbs::VolumeView>() : nullptr;
    out = {e && e->exports()->size() == 1 ? e->exports()->Get(0)->bytes() : 0, v ? v->bytes() : 0};
    if (v) EXPECT_EQ(v->vps()->size(), (v->bytes() + v->vp_bytes() - 1) / v->vp_bytes());
  }
  std::pair<std::uint64_t, std::uint64_t> sizes() {
    std::pair<std::uint64_t, std::uint64_t> out;
    sim_.run(sim_node_[901], ask_sizes(peer(901), out));
    return out;
  }
  unsigned resize(std::uint64_t bytes) { return http("POST", "/v1/volumes/v/resize", R"({"size":)" + std::to_string(bytes) + "}").status; }
};

// The volume has the new size in the store, and its primary the old one.
TEST_F(Growing, ASizeThatIsNotServedYetIsNotOffered) {
  vp_bytes_ = 1ull << 30;
  sim_.crash(control_node_, sim::Crash::process);
  sim_.restart(control_node_);
  add_unit();
  constexpr std::uint64_t before = 256 << 20, after = 1280 << 20;  // one partition, and two
  create("v", before);
  ASSERT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"unix:/x"})").status, 200u);
  Designation d = image().designations.begin()->second;
  for (NodeId n : {11, 12, 13, 14}) peer(n).answer = Status(Code::unavailable, "not now");
  EXPECT_NE(resize(after), 200u);
  EXPECT_EQ(image().find_volume("v")->bytes, after);
  EXPECT_EQ(sizes(), std::pair(before, before));
  d.blocks = vp_bytes_ / kBlockBytes;
  ++d.revision;
  ASSERT_TRUE(propose(d.primary, 1, d).first.ok());
  EXPECT_EQ(resize(after), 200u);
  EXPECT_EQ(sizes(), std::pair(after, after));
}

// An attach daemon is cut off for a moment while its volume is taken over: it registers anew before the new export is in the store, and has a
// guest that asks for the volume again and again.
class TakenOver : public ControlTest {
 protected:
  void SetUp() override {
    add_unit();
    add({902, "attach-2", "attach"});
    ASSERT_TRUE(sim_.run_until([&] { return peer(902).link.connected(); }, 5s));
    create("v");
    ASSERT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/a","node":"attach-1"})").status, 200u);
    ASSERT_EQ(attach(901, false, &a_), Code::ok);
  }
  void take_over_in_a_blip(sim::Duration before, sim::Duration during) {
    sim_.fabric().cut_both(control_node_, sim_node_[901]);
    sim_.run_for(before);
    Answer out;
    bool done = false;
    sim_.world(control_node_).spawn("http", run(control_->api, "POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2","take_over":true})", out, done));
    sim_.run_for(during);
    sim_.fabric().heal_all();
    peer(901).exports.clear();
    peer(901).wanted = {{"v", "vhost-user:/a"}};
    ASSERT_TRUE(sim_.run_until([&] { return done; }, 60s));
    EXPECT_EQ(out.status, 200u);
    sim_.run_for(10s);
  }
  // Has it been told, by an unexport or by the list that it asks for when it registers?
  bool keeps_its_disk(NodeId daemon) {
    const auto& told = peer(daemon).exports;
    return peer(daemon).wanted.contains("v") && std::count(told.begin(), told.end(), "-v") == 0;
  }
  void give_back(NodeId by, std::uint64_t incarnation) {
    sim_.run(sim_node_[by], [](Peer& p, VolumeId id, std::uint64_t incarnation) -> Task<void> {
      auto r = co_await p.link.call(wire::make_frame(wire::Kind::detach_volume, [&](auto& b) { return fbs::CreateDetachVolume(b, id, id, incarnation); }), 2s);
      EXPECT_TRUE(r.ok() && wire::status_of(*r).ok());
    }(peer(by), image().volumes.begin()->first, incarnation));
  }
  std::uint64_t a_ = 0, b_ = 0;
};

// Requirement: P-2.3 switch=taken-over-disk-returns
TEST_F(TakenOver, WhoWasShutOutDoesNotGetItBack) {
  take_over_in_a_blip(1500ms, 1200ms);
  ASSERT_EQ(attach(902, true, &b_), Code::ok);
  EXPECT_EQ(attach(901, true, &a_), Code::exists) << "a disk that was opened with --take-over itself";
  give_back(902, b_);
  EXPECT_EQ(attach(901, false, &a_), Code::exists) << "the other guest only boots anew";
  EXPECT_EQ(attach(902, false, &b_), Code::ok);
}

// It registers anew, and asks for its list, when its unexport is lost and the new export is not in the store yet.
// Requirement: P-2.3 switch=taken-over-disk-returns
TEST_F(TakenOver, WhoComesBackBeforeTheNewExportIsStoredIsTold) {
  sim_.fabric().cut_both(control_node_, sim_node_[901]);
  sim_.pause(sim_node_[902]);
  Answer out;
  bool done = false;
  sim_.world(control_node_).spawn("http", run(control_->api, "POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2","take_over":true})", out, done));
  sim_.run_for(100ms);
  peer(901).exports.clear();
  control().registry().find(901)->channel->close();
  sim_.crash(sim_node_[901], sim::Crash::process);
  sim_.fabric().heal_all();
  sim_.restart(sim_node_[901]);
  ASSERT_TRUE(sim_.run_until([&] { return peer(901).asked != 0; }, 5s));
  ASSERT_FALSE(done);
  sim_.resume(sim_node_[902]);
  ASSERT_TRUE(sim_.run_until([&] { return done; }, 60s));
  EXPECT_EQ(out.status, 200u);
  sim_.run_for(5s);
  EXPECT_FALSE(keeps_its_disk(901));
}

TEST_F(TakenOver, WhoWasShutOutIsToldWheneverItComesBack) {
  for (auto before : {1000ms, 1500ms})
    for (auto during : {600ms, 1000ms, 1200ms, 1400ms, 1700ms}) {
      take_over_in_a_blip(before, during);
      EXPECT_FALSE(keeps_its_disk(901)) << before.count() << " " << during.count();
      EXPECT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/a","node":"attach-1","take_over":true})").status, 200u);
    }
}

// Requirement: P-2.3 switch=taken-over-disk-returns
TEST_F(TakenOver, NeitherDoesItWhileTheOtherIsBeingAsked) {
  sim_.pause(sim_node_[902]);
  Answer out;
  bool done = false;
  sim_.world(control_node_).spawn("http", run(control_->api, "POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2","take_over":true})", out, done));
  sim_.run_for(500ms);
  EXPECT_EQ(attach(901, true, &a_), Code::exists);
  EXPECT_TRUE(listed(901).empty()) << "it would open its disk again";
  EXPECT_EQ(error_code(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/c","node":"attach-1","take_over":true})")), "conflict");
  sim_.resume(sim_node_[902]);
  ASSERT_TRUE(sim_.run_until([&] { return done; }, 60s));
  EXPECT_EQ(attach(902, true, &b_), Code::ok);
}

// Requirement: P-2.3 switch=taken-over-disk-returns
TEST_F(TakenOver, ATakeOverEndsAMoveToAThird) {
  ASSERT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/b","node":"attach-2","incoming":true})").status, 200u);
  ASSERT_EQ(http("POST", "/v1/volumes/v/attach", R"({"nbd":"vhost-user:/c","node":"attach-1","take_over":true})").status, 200u);
  EXPECT_EQ(peer(902).exports.back(), "-v");
  EXPECT_TRUE(listed(902).empty());
  EXPECT_EQ(attach(902, true, &b_), Code::exists);
}

TEST_F(ControlTest, AFlushFollowsThePrimary) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  Designation d = image().designations.begin()->second;
  peer(d.primary).flush_answer = Status(Code::unavailable, "no primary any more");
  peer(d.reserves[0]).unflushed = 0;
  sim_.after(500ms, [&] {
    Designation next = d;
    next.epoch = next.revision = 2;
    next.primary = d.reserves[0];
    next.reserves = {d.primary, d.reserves[1]};
    sim_.world(sim_node_[d.reserves[0]]).spawn("p", promote(peer(d.reserves[0]), next));
  });
  Answer a = http("POST", "/v1/volumes/v/flush", R"({"wait":true,"timeout_ms":10000})");
  EXPECT_EQ(a.status, 200u);
  EXPECT_EQ(peer(d.reserves[0]).flushes, 1);
  peer(d.reserves[0]).report = R"({"vps":[{"vp":65536,"role":"primary","state":"open","epoch":2,"unflushed_bytes":77}]})";
  EXPECT_EQ(http("POST", "/v1/volumes/v/flush").status, 200u);
  EXPECT_EQ(http("GET", "/v1/volumes/v").body.at("unflushed_bytes"), 77) << "the report is newer than the flush";
  peer(d.reserves[0]).flush_answer = Status(Code::unavailable, "later");
  EXPECT_EQ(http("POST", "/v1/volumes/v/flush", R"({"timeout_ms":1000})").status, 503u);
}
TEST_F(ControlTest, ACoderThatIsPutOutIsAnEvent) {
  add_unit();
  sim_.run_for(1s);
  auto report = [&](const char* state, const char* fault) {
    peer(101).report = R"({"coding":{"device":"card-native","state":")" + std::string(state) + R"(","last_fault":")" + fault + R"(","wrong":1}})";
    sim_.run_for(3s);
    return json::serialize(http("GET", "/v1/events").body);
  };
  EXPECT_EQ(report("healthy", "").find("card-native"), std::string::npos) << "nothing has happened";
  EXPECT_NE(report("out", "did not answer in time").find("coder card-native is out: did not answer in time"), std::string::npos);
  std::string events = report("suspect", "did not answer in time");
  EXPECT_NE(events.find("coder card-native is suspect"), std::string::npos);
  EXPECT_EQ(events.find("is out"), events.rfind("is out")) << "once, though it was reported many times";
}

TEST_F(ControlTest, StatusTellsWhatPrimariesReportAndNotMore) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  const Designation d = image().designations.begin()->second;
  auto volume = [&] { return http("GET", "/v1/volumes/v").body.as_object(); };
  EXPECT_EQ(volume()["state"], "unknown") << "nobody has reported it";
  EXPECT_TRUE(volume()["copies"].is_null());
  auto report = [&](NodeId n, const char* role, Epoch epoch) {
    peer(n).report = R"({"vps":[{"vp":65536,"role":")" + std::string(role) + R"(","state":"open","reason":"","epoch":)" +
                     std::to_string(epoch) + R"(,"copies":3,"unflushed_bytes":8192,"degraded_stripes":2,)"
                     R"("read_bytes":{"memory":1,"log":2,"sled":3,"reconstructed":4},"written_bytes":{"user":10},)"
                     R"("sleds":[{"sled":101,"live_bytes":4096,"chunks":3},{"sled":102,"live_bytes":0,"chunks":1}],)"
                     R"("events":[{"wall_ns":5,"text":"opened"}]}]})";
    sim_.run_for(300ms);
  };
  report(d.reserves[0], "reserve", 1);
  EXPECT_EQ(volume()["state"], "unknown") << "a reserve does not speak for the volume";
  report(d.primary, "primary", 1);
  auto v = volume();
  EXPECT_EQ(v["state"], "open");
  EXPECT_EQ(v["copies"], 3);
  EXPECT_EQ(v["unflushed_bytes"], 8192);
  EXPECT_EQ(v["read_bytes"].at("reconstructed"), 8) << "over all heads that report some";
  EXPECT_EQ(v["written_bytes"].at("user"), 20);
  EXPECT_EQ(v["events"].as_array().size(), 2u);
  ASSERT_EQ(v["placement"].as_array().size(), 2u);
  EXPECT_EQ(v["placement"].at(0).at("live_bytes"), 4096) << "the primary's word only: the reserve's is the same data again";
  EXPECT_EQ(v["placement"].at(0).at("chunks"), 3);
  peer(d.primary).report = "{nonsense";
  sim_.run_for(300ms);
  EXPECT_EQ(volume()["state"], "unknown");
  report(d.primary, "primary", 1);
  sim_.pause(sim_node_[d.primary]);
  sim_.run_for(3s);
  EXPECT_EQ(volume()["state"], "unknown") << "an old report says nothing about now";
}

TEST_F(ControlTest, ReplicasThatDifferAtOneLsnAreNamed) {
  add_unit();
  create("v");
  sim_.run_for(100ms);
  const Designation d = image().designations.begin()->second;
  auto report = [&](NodeId n, const char* state, int commit, const char* digest) {
    peer(n).report = R"({"vps":[{"vp":65536,"role":")" + std::string(n == d.primary ? "primary" : "reserve") + R"(","state":")" + state +
                     R"(","reason":"","epoch":1,"copies":3,"commit":)" + std::to_string(commit) + R"(,"digest":")" + digest + R"("}]})";
    sim_.run_for(300ms);
  };
  auto reason = [&] {
    auto v = http("GET", "/v1/volumes/v").body.as_object();
    const json::value* r = v["vps"].at(0).as_object().if_contains("reason");
    return r ? std::string(r->as_string()) : std::string();
  };
  report(d.primary, "open", 70, "aa");
  report(d.reserves[0], "live", 70, "aa");
  report(d.reserves[1], "live", 69, "bb");
  EXPECT_EQ(reason(), "") << "one is behind: there is nothing to compare it with";
  report(d.reserves[1], "catching_up", 70, "bb");
  EXPECT_EQ(reason(), "") << "and while it is brought up to date it has no say";
  report(d.reserves[1], "live", 70, "bb");
  EXPECT_NE(reason().find("the replicas differ at LSN 70"), std::string::npos) << reason();
  report(d.reserves[1], "live", 71, "aa");
  EXPECT_EQ(reason(), "");
}

}  // namespace
}  // namespace luge::control
