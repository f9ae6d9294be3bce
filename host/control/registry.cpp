#include "control/registry.hpp"

#include <algorithm>

#include "control/reports.hpp"
#include "switches/switches.hpp"

namespace luge::control {
namespace {

constexpr std::size_t kMaxAddress = 512;
constexpr std::size_t kMaxDevices = 1024;
constexpr std::size_t kMaxNodes = 10'000;

std::string text(const flatbuffers::String* s) { return s ? s->str() : std::string(); }

bool known_role(const std::string& role) { return role == "head" || role == "sled" || role == "attach"; }

std::vector<DeviceInfo> devices_of(const flatbuffers::Vector<flatbuffers::Offset<fbs::Device>>* rows) {
  std::vector<DeviceInfo> out;
  if (rows == nullptr) return out;
  for (const fbs::Device* d : *rows) {
    if (out.size() == kMaxDevices) break;
    out.push_back({d->index(), d->bytes(), d->column_bytes(), d->columns(), d->free_columns(), text(d->state()), text(d->reason())});
  }
  return out;
}

}  // namespace

Status check_name(const std::string& name) {
  auto wrong = [](const std::string& why) { return Status(Code::invalid, "bad name: " + why); };
  if (name.empty()) return wrong("it is empty");
  if (name.size() > 64) return wrong("it has " + std::to_string(name.size()) + " characters, at most 64 are allowed");
  if (name[0] == '-' || name[0] == '.') return wrong("it must not start with '-' or '.'");
  for (unsigned char c : name)
    if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
      return wrong("only letters, digits, '.', '_' and '-' are allowed");
  return Status();
}

Registry::Registry(io::World& world, Store& store, Events& events, Options options, Joined joined)
    : world_(world), store_(store), events_(events), options_(options), joined_(std::move(joined)) {
  for (const auto& [id, row] : store_.image().nodes) {
    Node& n = nodes_[id];
    n.row = row;
    n.silent_since = world_.now();
    n.patience = options_.start_grace;
  }
}

Result<NodeRow> Registry::check(const std::shared_ptr<wire::Channel>& channel, const wire::Frame& frame,
                                const fbs::RegisterNode* r) const {
  if (r == nullptr) return Status(Code::invalid, "the registration does not verify");
  if (frame.unit != 0 && frame.unit != store_.image().unit)
    return Status(Code::wrong_unit, "this control plane serves unit " + std::to_string(store_.image().unit) +
                                        ", the daemon's data belongs to unit " + std::to_string(frame.unit));
  NodeRow row{r->id(), text(r->name()), text(r->role()), text(r->address())};
  if (row.id == 0 || row.id == options_.self)
    return Status(Code::invalid, "node id " + std::to_string(row.id) + " is not free: give the daemon an id of its own");
  if (Status s = check_name(row.name); !s.ok()) return s.with("node");
  if (!known_role(row.role)) return Status(Code::invalid, "a node's role is head, sled or attach");
  if (row.address.size() > kMaxAddress || row.address.find_first_of("\n\r") != std::string::npos)
    return Status(Code::invalid, "bad address");
  for (const auto& [id, n] : nodes_) {
    if (id != row.id && n.row.name == row.name)
      return Status(Code::invalid, "the name " + row.name + " belongs to node id " + std::to_string(id));
    if (id != row.id) continue;
    if (n.row.name != row.name || n.row.role != row.role)
      return Status(Code::invalid, "node id " + std::to_string(id) + " is " + n.row.name + " (" + n.row.role +
                                       ") in this unit: give the daemon an id of its own");
    if (n.connected() && n.channel != channel && n.alive && n.incarnation != r->incarnation())
      return Status(Code::exists, "another daemon runs as " + n.row.name + " (pid " + std::to_string(n.pid) + ")");
  }
  if (nodes_.size() >= kMaxNodes && !nodes_.contains(row.id)) return Status(Code::no_space, "too many nodes");
  return row;
}

Status Registry::bind(const std::shared_ptr<wire::Channel>& channel, const NodeRow& row, const fbs::RegisterNode& r) {
  auto stored = store_.image().nodes.find(row.id);
  if (stored == store_.image().nodes.end() || stored->second != row) {
    Change c;
    c.nodes.push_back(row);
    if (Status s = store_.commit(c); !s.ok()) return s;
  }
  for (auto& [id, other] : nodes_)  // one channel speaks for one node
    if (id != row.id && other.channel == channel) return Status(Code::invalid, "this connection has registered another node");
  Node& n = nodes_[row.id];
  bool restarted = n.incarnation != r.incarnation();
  auto old = std::exchange(n.channel, channel);
  n.row = row;
  n.pid = r.pid();
  n.incarnation = r.incarnation();
  n.version = text(r.version());
  n.recollection = r.recollection();
  n.alive = true;
  n.heard = true;
  n.last_heard = world_.now();
  n.ping_open = false;
  if (restarted) n.report.clear();
  if (old && old != channel) old->close();
  events_.note(row.name + (restarted ? " registered (pid " + std::to_string(n.pid) + ")" : " reconnected"));
  take_devices(n, devices_of(r.devices()));
  return Status();
}

void Registry::take_devices(Node& n, std::vector<DeviceInfo> devices) {
  for (const DeviceInfo& d : devices) {
    auto before = std::find_if(n.devices.begin(), n.devices.end(), [&](const DeviceInfo& old) { return old.index == d.index; });
    if (before != n.devices.end() ? before->state == d.state : d.ok()) continue;
    events_.note(n.row.name + ": device " + std::to_string(d.index) + " is " + d.state + (d.reason.empty() ? "" : ": " + d.reason));
  }
  n.devices = std::move(devices);
}

wire::Frame Registry::registered(const Status& status) const {
  return wire::make_frame(wire::Kind::register_reply, [&](flatbuffers::FlatBufferBuilder& b) {
    auto message = b.CreateString(status.text());
    auto nodes = b.CreateVector(status.ok() ? node_infos(b) : std::vector<flatbuffers::Offset<fbs::NodeInfo>>());
    flatbuffers::Offset<flatbuffers::Vector<std::uint8_t>> key;
    if (status.ok() && store_.signer()) key = b.CreateVector(store_.signer()->public_key().data(), store_.signer()->public_key().size());
    return fbs::CreateRegisterReply(b, static_cast<std::uint16_t>(status.code()), message,
                                    status.ok() ? store_.image().unit : 0, nodes, 0, key);
  });
}

void Registry::register_node(const std::shared_ptr<wire::Channel>& channel, const wire::Frame& frame) {
  const auto* r = frame.as<fbs::RegisterNode>();
  auto row = check(channel, frame, r);
  Status status = row.ok() ? bind(channel, *row, *r) : row.status();
  channel->reply(frame, registered(status));
  if (!status.ok()) {
    logging::warn("{}: registration refused: {}", channel->peer(), status.text());
    return;
  }
  push_directory();
  joined_(nodes_.at(row->id), *r);
}

void Registry::closed(const std::shared_ptr<wire::Channel>& channel) {
  for (auto& [id, n] : nodes_) {
    if (n.channel != channel) continue;
    n.channel.reset();
    n.ping_open = false;
    n.silent_since = world_.now();
    n.patience = options_.close_grace;
  }
}

void Registry::set_alive(NodeId id, bool alive, const std::string& why) {
  Node& n = nodes_.at(id);
  if (n.alive == alive) return;
  n.alive = alive;
  events_.note(n.row.name + (alive ? " is back: " : " failed: ") + why);
  if (!alive && broken(Switch::survivors_not_told)) return;
  push_directory();
}

std::vector<flatbuffers::Offset<fbs::NodeInfo>> Registry::node_infos(flatbuffers::FlatBufferBuilder& b) const {
  std::vector<flatbuffers::Offset<fbs::NodeInfo>> out;
  for (const auto& [id, n] : nodes_)
    out.push_back(fbs::CreateNodeInfo(b, id, b.CreateString(n.row.name), b.CreateString(n.row.role),
                                      b.CreateString(n.row.address), n.pid, n.alive, n.incarnation));
  return out;
}

void Registry::push_directory() {
  wire::Frame frame = wire::make_frame(wire::Kind::directory, [&](flatbuffers::FlatBufferBuilder& b) {
    return fbs::CreateDirectory(b, ++version_, b.CreateVector(node_infos(b)));
  });
  for (const auto& [id, n] : nodes_)
    if (n.connected()) n.channel->send(frame);
}

const Node* Registry::find(NodeId id) const {
  auto it = nodes_.find(id);
  return it == nodes_.end() ? nullptr : &it->second;
}

const Node* Registry::find(const std::shared_ptr<wire::Channel>& channel) const {
  for (const auto& [id, n] : nodes_)
    if (n.channel == channel) return &n;
  return nullptr;
}

const Node* Registry::find_name(const std::string& name) const {
  for (const auto& [id, n] : nodes_)
    if (n.row.name == name) return &n;
  return nullptr;
}

std::vector<const Node*> Registry::alive(std::string_view role) const {
  std::vector<const Node*> out;
  for (const auto& [id, n] : nodes_)
    if (n.is(role) && n.alive && n.connected()) out.push_back(&n);
  return out;
}

std::string Registry::name(NodeId id) const {
  const Node* n = find(id);
  return n ? n->row.name : "node " + std::to_string(id);
}

bool Registry::send(NodeId to, wire::Frame frame) {
  const Node* n = find(to);
  if (n == nullptr || !n->connected()) return false;
  n->channel->send(std::move(frame));
  return true;
}

io::Task<Result<wire::Frame>> Registry::call(NodeId to, wire::Frame request, io::Duration timeout) {
  const Node* n = find(to);
  if (n == nullptr || !n->connected()) co_return Status(Code::unavailable, name(to) + " is not connected");
  auto channel = n->channel;
  auto answer = co_await channel->call(std::move(request), timeout);
  if (!answer.ok()) co_return answer.status().with(name(to));
  co_return std::move(*answer);
}

// A coder that is put out or comes back is an event. Reports come several times a second: they are parsed only when something changed.
void Registry::take_coder(Node& n) {
  std::size_t begin = n.report.find("\"coding\":{\"device\":"), end = n.report.find(",\"last_fault\":", begin);
  if (begin == std::string::npos || end == std::string::npos) return;
  std::string coder = n.report.substr(begin, end - begin), before = std::exchange(n.coder, std::move(coder));
  if (n.coder == before) return;
  boost::json::value report = parse_report(n.report);
  const boost::json::value* c = report_member(report, "coding");
  if (c == nullptr) return;
  std::string state = report_string(*c, "state"), fault = report_string(*c, "last_fault");
  if (state != "out" && (before.empty() || state == "opening" || before.find("\"opening\"") != std::string::npos)) return;
  events_.note(n.row.name + ": coder " + report_string(*c, "device") + " is " + state + (state == "out" ? ": " + fault : ""));
}

io::Task<void> Registry::ping(NodeId id, io::Duration timeout) {
  const Node* to = find(id);
  if (to == nullptr || !to->connected()) co_return;
  auto channel = to->channel;
  auto answer = co_await channel->call(wire::make_frame(wire::Kind::ping, [this](auto& b) { return fbs::CreatePing(b, store_.image().incarnation, store_.image().sequence); }), timeout);
  auto it = nodes_.find(id);
  if (!answer.ok() || answer->kind != wire::Kind::pong || it == nodes_.end() || it->second.channel != channel) co_return;
  const auto* pong = answer->as<fbs::Pong>();
  if (pong == nullptr) co_return;
  Node& n = it->second;
  n.last_heard = world_.now();
  if (pong->report() && pong->report()->size() <= wire::kMaxBodyBytes) {
    n.report = pong->report()->str();
    n.report_time = n.last_heard;
  }
  if (n.is("sled")) take_coder(n);
  if (pong->devices()) take_devices(n, devices_of(pong->devices()));
  set_alive(id, true, "it answers pings again");
}

}  // namespace luge::control
