#include "sim/cluster/unit.hpp"

#include <algorithm>
#include <array>

#include "coding/faulty_coder.hpp"

namespace luge::sim {

using io::Task;

struct Unit::ControlDaemon {
  ControlDaemon(io::World& w, Unit& u)
      : unit(u), control(w, options(u), std::make_unique<control::MemoryStore>(u.image_, u.mark_)) {
    w.spawn("control", run());
  }
  ~ControlDaemon() { unit.control_ = nullptr; }
  Task<void> run() {
    Status s = co_await control.start();
    if (s.ok()) unit.control_ = &control;
    else unit.failed(unit.control_node_, "the control plane", s);
  }
  static control::Options options(const Unit& u) {
    control::Options c;
    c.listen = kControlAddress;
    c.vp_bytes = u.shape_.vp_bytes;
    c.signer = std::make_shared<wire::Signer>(wire::KeyBytes{static_cast<std::uint8_t>(kUnit), static_cast<std::uint8_t>(kUnit >> 8)});
    return c;
  }
  Unit& unit;
  control::Control control;
};

struct Unit::HeadDaemon {
  HeadDaemon(io::World& w, Unit& u, std::size_t i, Node n, head::Options o)
      : unit(u), index(i), node(n), name(o.name), head(w, std::move(o)) {
    w.spawn("head", run());
  }
  ~HeadDaemon() { unit.heads_[index] = nullptr; }
  Task<void> run() {
    Status s = co_await head.start();
    if (s.ok()) unit.heads_[index] = &head;
    else unit.failed(node, name, s);
  }
  Unit& unit;
  std::size_t index;
  Node node;
  std::string name;
  head::Head head;
};

struct Unit::SledDaemon {
  SledDaemon(io::World& w, Unit& u, std::size_t i, Node n, sled::Options o)
      : unit(u), index(i), node(n), name(o.name), sled(w, std::move(o)) {
    w.spawn("sled", run());
  }
  ~SledDaemon() { unit.sleds_[index] = nullptr; }
  Task<void> run() {
    Status s = co_await sled.start();
    if (s.ok()) unit.sleds_[index] = &sled;
    else unit.failed(node, name, s);
  }
  Unit& unit;
  std::size_t index;
  Node node;
  std::string name;
  sled::Sled sled;
};

Unit::Unit(Simulation& sim, Shape shape, Failed failed)
    : sim_(sim), shape_(std::move(shape)), failed_(std::move(failed)), image_(control::MemoryStore::make_image(kUnit)), mark_(std::make_shared<control::StoreMark>(control::StoreMark{image_->incarnation, 0})) {}

// Outside of the node's handler, so that the owner may crash it.
void Unit::failed(Node n, const std::string& who, const Status& s) {
  sim_.after(Duration(0), [this, n, who, s] { failed_(n, who, s); });
}

void Unit::start(const std::vector<std::size_t>& full) {
  control_node_ = static_cast<Node>(sim_.nodes());
  sim_.add_node("control", [this](io::World& w) { return std::make_shared<ControlDaemon>(w, *this); });
  heads_.resize(shape_.heads);
  sleds_.resize(shape_.sleds);
  for (std::size_t i = 0; i < shape_.heads; ++i) {
    add_head(i);
    if (std::find(full.begin(), full.end(), i) != full.end()) sim_.disk(head_nodes_.back()).faults.capacity = shape_.head.log_bytes;
  }
  for (std::size_t i = 0; i < shape_.sleds; ++i) add_sled(i);
}

void Unit::add_head(std::size_t i) {
  head::Options h = shape_.head;
  h.id = kFirstHead + static_cast<NodeId>(i);
  h.name = "head-" + std::to_string(i + 1);
  h.listen = "tcp:" + h.name + ":1";
  h.control = kControlAddress;
  Node n = static_cast<Node>(sim_.nodes());
  head_nodes_.push_back(n);
  sim_.add_node(h.name, [this, i, n, h](io::World& w) { return std::make_shared<HeadDaemon>(w, *this, i, n, h); });
}

namespace {

// A sled's card fails in each of its ways, about once in 60 jobs: what it does must never be seen. Drawn from the job's number,
// not from the seed's stream, so that who codes changes nothing else of a history.
std::shared_ptr<coding::ErasureCoder> unreliable_card(io::World& world, NodeId sled) {
  using Mood = coding::FaultyCoder::Mood;
  Random random(sled);
  return std::make_shared<coding::FaultyCoder>(world, [random](std::uint64_t) mutable {
    constexpr std::array kWays = {Mood::wrong, Mood::silent, Mood::refuses, Mood::hangs};
    std::uint64_t n = random.below(60 * kWays.size());
    return n < kWays.size() ? kWays[n] : Mood::right;
  });
}

}  // namespace

void Unit::add_sled(std::size_t i) {
  sled::Options s;
  s.id = kFirstSled + static_cast<NodeId>(i);
  s.name = "sled-" + std::to_string(i + 1);
  s.listen = "tcp:" + s.name + ":1";
  s.control = kControlAddress;
  s.column_bytes = shape_.column_bytes;
  s.list_bytes = 8 << 10;  // so that lists come in pages
  for (std::uint32_t d = 0; d < shape_.devices; ++d) s.devices.push_back({device_path(d)});
  if (shape_.cards_fail) s.make_coder = [id = s.id](io::World& w) { return unreliable_card(w, id); };
  s.guard.longest_pause = 4s;
  Node n = static_cast<Node>(sim_.nodes());
  sled_nodes_.push_back(n);
  auto fresh = std::make_shared<bool>(true);
  sim_.add_node(s.name, [this, i, n, s, fresh](io::World& w) {
    if (std::exchange(*fresh, false))
      for (auto& d : s.devices) sim_.disk(n).make_file(d.path, shape_.device_bytes);
    return std::make_shared<SledDaemon>(w, *this, i, n, s);
  });
}

bool Unit::is_head(Node n) const { return std::find(head_nodes_.begin(), head_nodes_.end(), n) != head_nodes_.end(); }
bool Unit::is_sled(Node n) const { return std::find(sled_nodes_.begin(), sled_nodes_.end(), n) != sled_nodes_.end(); }

std::pair<Node, Node> Unit::talking(Random& random, const std::vector<Node>& clients) const {
  auto any = [&](const std::vector<Node>& v) { return v[random.below(v.size())]; };
  const auto& all = store().designations;
  std::vector<Node> members;  // of some VP, its primary first
  if (!all.empty()) {
    auto it = all.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random.below(all.size())));
    for (NodeId id : it->second.members()) members.push_back(node_of_head(id));
  }
  if (members.empty()) members = head_nodes_;
  Node a = members[0], b = any(members);
  double kind = random.unit();
  if (kind < 0.25) a = any(clients), b = members[0];
  else if (kind < 0.45) b = any(sled_nodes_);
  else if (kind < 0.55) a = any(sled_nodes_), b = any(sled_nodes_);
  else if (kind < 0.65) b = control_node_;
  else if (kind < 0.70) a = any(clients), b = control_node_;
  if (random.chance(0.5)) std::swap(a, b);
  return {a, b};
}

void Unit::replace_disk(Node n) {
  LUGE_CHECK(!sim_.up(n));
  sim_.disk(n).wipe();
  sim_.disk(n).faults_of.clear();
  if (is_sled(n))
    for (std::uint32_t d = 0; d < shape_.devices; ++d) sim_.disk(n).make_file(device_path(d), shape_.device_bytes);
}

void Unit::remember_store() {
  past_.push_back(*image_);
  if (past_.size() > 64) past_.pop_front();
}

void Unit::set_store_back(Random& random) {
  LUGE_CHECK(!sim_.up(control_node_));
  if (past_.empty()) return;
  std::size_t back = std::min<std::size_t>(past_.size(), random.spread(1, 64));
  restore_store(past_[past_.size() - back]);
}

void Unit::lose_store() {
  LUGE_CHECK(!sim_.up(control_node_));
  *image_ = *control::MemoryStore::make_image(kUnit, image_->incarnation + 1);
  *mark_ = {image_->incarnation, 0};
}

void Unit::restore_store(const control::Image& copy, bool mark) {
  LUGE_CHECK(!sim_.up(control_node_));
  *image_ = copy;
  if (mark) *mark_ = {copy.incarnation, copy.sequence};
  ++set_backs_;
}

}  // namespace luge::sim
