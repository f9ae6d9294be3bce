#include "wire/control_link.hpp"

#include <algorithm>

#include "base/logging.hpp"

namespace luge::wire {
namespace {

constexpr io::Duration kRegisterTimeout = std::chrono::seconds(5);
// The control plane pings several times a second. When its machine goes dark, or comes back without knowing this
// connection, nothing else would tell: a daemon only answers, it does not send.
constexpr io::Duration kSilence = std::chrono::seconds(2);

// Asking again cannot help: the daemon and the control plane were never meant for each other.
bool is_final(Code code) {
  return code == Code::wrong_unit || code == Code::wrong_version || code == Code::invalid;
}

std::string text(const flatbuffers::String* s) { return s ? s->str() : std::string(); }

}  // namespace

struct ControlLink::State {
  State(io::World& w, Identity& i, std::string address, Self s, Callbacks c)
      : world(w), identity(i), self(std::move(s)), callbacks(std::move(c)), changed(w),
        link(w, i, std::move(address),
             [this](const std::shared_ptr<Channel>& channel, Frame f) { on_frame(channel, std::move(f)); }) {
    link.on_connect([this](std::shared_ptr<Channel> channel) { return join(std::move(channel)); });
    link.on_disconnect([this] { on_disconnect(); });
  }

  Frame registration();
  static io::Task<void> watch(io::World& world, std::shared_ptr<Channel> channel, std::shared_ptr<io::Time> heard);
  io::Task<bool> join(std::shared_ptr<Channel> channel);
  Status accept(const Frame& reply);
  void take_nodes(const flatbuffers::Vector<flatbuffers::Offset<fbs::NodeInfo>>* infos);
  void on_frame(const std::shared_ptr<Channel>& channel, Frame frame);
  void act(const std::shared_ptr<Channel>& channel, Frame frame);
  void on_disconnect();
  void complain(const Status& status);

  io::World& world;
  Identity& identity;
  Self self;
  Callbacks callbacks;
  io::Event changed;
  std::map<NodeId, NodeRecord> nodes;
  std::optional<KeyBytes> unit_key;
  Status refused;
  std::string last_complaint;
  bool registered = false;
  std::shared_ptr<io::Time> heard;  // last frame on the present connection, once registered
  std::uint64_t store = 0, sequence = 0;  // what the control plane said last of its store
  // Frames that overtook the end of registration: a designation means nothing before the first directory.
  std::vector<Frame> early;
  Link link;
};

Frame ControlLink::State::registration() {
  return make_frame(Kind::register_node, [&](flatbuffers::FlatBufferBuilder& b) {
    auto name = b.CreateString(self.name), role = b.CreateString(self.role), address = b.CreateString(self.address);
    auto version = b.CreateString(LUGE_VERSION);
    flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fbs::Device>>> devices;
    if (callbacks.devices) devices = b.CreateVector(callbacks.devices(b));
    flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fbs::Designation>>> designations;
    if (callbacks.designations) designations = b.CreateVector(callbacks.designations(b));
    flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fbs::Designation>>> left;
    if (callbacks.left) left = b.CreateVector(callbacks.left(b));
    return fbs::CreateRegisterNode(b, self.id, name, role, address, self.pid, self.incarnation, version, devices, designations, store, sequence, left,
                                   callbacks.recollection ? callbacks.recollection() : 0);
  });
}

io::Task<bool> ControlLink::State::join(std::shared_ptr<Channel> channel) {
  early.clear();
  heard.reset();
  auto answer = co_await channel->call(registration(), kRegisterTimeout);
  Status status = answer.ok() ? accept(*answer) : answer.status();
  if (!status.ok()) {
    complain(status);
    if (is_final(status.code())) {
      refused = status;
      link.stop();
      changed.notify_all();
    }
    co_return false;
  }
  last_complaint.clear();
  registered = true;
  heard = std::make_shared<io::Time>(world.now());  // it may go dark before it has pinged once
  world.spawn("control watch", watch(world, channel, heard));
  logging::info("registered with the control plane at {}", link.address());
  if (callbacks.directory) callbacks.directory();
  if (callbacks.registered) callbacks.registered();
  for (Frame& f : std::exchange(early, {})) act(channel, std::move(f));
  changed.notify_all();
  co_return true;
}

Status ControlLink::State::accept(const Frame& frame) {
  const auto* reply = frame.kind == Kind::register_reply ? frame.as<fbs::RegisterReply>() : nullptr;
  if (reply == nullptr) {
    Status s = status_of(frame);
    return s.ok() ? Status(Code::corrupt, "the answer to the registration does not verify") : s;
  }
  if (Status s = make_status(reply->code(), reply->text()); !s.ok()) return s;
  if (reply->unit() == 0) return Status(Code::invalid, "the control plane names no storage unit");
  if (identity.unit != 0 && identity.unit != reply->unit())
    return Status(Code::wrong_unit, "this daemon's data belongs to unit " + std::to_string(identity.unit) +
                                        ", the control plane to unit " + std::to_string(reply->unit()) +
                                        ": check the addresses in the configuration");
  identity.unit = reply->unit();
  if (const auto* key = reply->key(); key && key->size() == sizeof(KeyBytes)) {
    unit_key.emplace();
    std::copy(key->begin(), key->end(), unit_key->begin());
  }
  take_nodes(reply->nodes());
  return Status();
}

void ControlLink::State::take_nodes(
    const flatbuffers::Vector<flatbuffers::Offset<fbs::NodeInfo>>* infos) {
  nodes.clear();
  if (infos == nullptr) return;
  for (const fbs::NodeInfo* n : *infos) {
    NodeRecord& r = nodes[n->id()];
    r.id = n->id();
    r.name = text(n->name());
    r.role = text(n->role());
    r.address = text(n->address());
    r.pid = n->pid();
    r.alive = n->alive();
    r.incarnation = n->incarnation();
  }
}

// Refers to nothing of the State, which may be gone while the channel closes.
io::Task<void> ControlLink::State::watch(io::World& world, std::shared_ptr<Channel> channel, std::shared_ptr<io::Time> heard) {
  while (channel->open()) {
    io::Duration silence = world.now() - *heard;
    if (silence >= kSilence) {
      channel->close();
      break;
    }
    co_await world.sleep(kSilence - silence);
  }
}

void ControlLink::State::on_frame(const std::shared_ptr<Channel>& channel, Frame frame) {
  if (heard) *heard = world.now();
  if (frame.kind == Kind::ping || registered) return act(channel, std::move(frame));
  early.push_back(std::move(frame));
}

void ControlLink::State::act(const std::shared_ptr<Channel>& channel, Frame frame) {
  switch (frame.kind) {
    case Kind::ping: {
      if (const auto* p = frame.as<fbs::Ping>(); p && p->store() != 0) store = p->store(), sequence = p->sequence();
      std::string report = callbacks.report ? callbacks.report() : "{}";
      channel->reply(frame, make_frame(Kind::pong, [&](auto& b) {
                       auto text = b.CreateString(report);
                       flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<fbs::Device>>> devices;
                       if (callbacks.devices) devices = b.CreateVector(callbacks.devices(b));
                       return fbs::CreatePong(b, text, devices);
                     }));
      return;
    }
    case Kind::directory:
      if (const auto* d = frame.as<fbs::Directory>()) {
        take_nodes(d->nodes());
        if (callbacks.directory) callbacks.directory();
        return;
      }
      break;
    case Kind::designate:
      if (const auto* d = frame.as<fbs::Designate>(); d && d->designation()) {
        if (callbacks.designate) callbacks.designate(*d);
        return;
      }
      break;
    default:
      if (callbacks.request)
        callbacks.request(channel, std::move(frame));
      else if (frame.id != 0)
        channel->reply(frame, reply_frame(Status(Code::invalid, self.name + " does not know requests of kind " +
                                                                    std::string(kind_name(frame.kind)))));
      return;
  }
  logging::warn("control plane sent a '{}' that does not verify; connection closed", kind_name(frame.kind));
  channel->close();
}

void ControlLink::State::on_disconnect() {
  if (std::exchange(registered, false) && refused.ok())
    logging::warn("lost the control plane at {}; serving on without it", link.address());
  changed.notify_all();
}

void ControlLink::State::complain(const Status& status) {
  if (status.text() == last_complaint) return;
  last_complaint = status.text();
  logging::warn("the control plane at {} does not register this daemon: {}", link.address(), status.to_string());
}

ControlLink::ControlLink(io::World& world, Identity& identity, std::string address, Self self,
                         Callbacks callbacks)
    : state_(std::make_unique<State>(world, identity, std::move(address), std::move(self),
                                     std::move(callbacks))) {}

ControlLink::~ControlLink() { stop(); }
void ControlLink::start() { state_->link.start(); }
void ControlLink::stop() { state_->link.stop(); }
bool ControlLink::connected() const { return state_->registered && state_->link.connected(); }
const Status& ControlLink::refused() const { return state_->refused; }

io::Task<bool> ControlLink::wait_registered(io::Duration timeout) {
  io::Time deadline = state_->world.now() + timeout;
  while (!connected() && state_->refused.ok()) {
    if (!co_await state_->changed.wait_until(deadline)) break;
  }
  co_return connected();
}

io::Task<Result<Frame>> ControlLink::call(Frame request, io::Duration timeout) {
  if (!state_->refused.ok()) co_return state_->refused;
  co_return co_await state_->link.call(std::move(request), timeout);
}

std::optional<KeyBytes> ControlLink::unit_key() const { return state_->unit_key; }

const std::map<NodeId, NodeRecord>& ControlLink::nodes() const { return state_->nodes; }

const NodeRecord* ControlLink::node(NodeId id) const {
  auto it = state_->nodes.find(id);
  return it == state_->nodes.end() ? nullptr : &it->second;
}

}  // namespace luge::wire
