#include "control/control.hpp"

#include "base/logging.hpp"

namespace luge::control {
namespace {

constexpr io::Duration kRegistrationTime = std::chrono::seconds(10);

}  // namespace

// The listener accepts any unit, so that a daemon of another one hears `wrong_unit` in words instead of a closed
// connection; register_node checks it, and nothing else is answered before that.
Control::Control(io::World& world, Options options, std::unique_ptr<Store> store)
    : world_(world), options_(std::move(options)), store_(std::move(store)), identity_{0, options_.id}, events_(world),
      registry_(world, *store_, events_, {options_.id, options_.close_grace, options_.start_grace},
                [this](const Node& n, const fbs::RegisterNode& r) { volumes_.joined(n, r); }),
      agent_(world, registry_, {options_.heartbeat, options_.suspicion}),
      volumes_(world, *store_, registry_, events_, {options_.vp_bytes, options_.copies}),
      server_(world, identity_) {}

io::Task<Status> Control::start() {
  if (options_.signer)
    if (Status s = store_->sign_with(options_.signer); !s.ok()) co_return s;
  Status s = server_.listen(
      options_.listen,
      [this](const std::shared_ptr<wire::Channel>& channel, wire::Frame f) { on_frame(channel, std::move(f)); },
      [this](const std::shared_ptr<wire::Channel>& channel) {
        world_.spawn("registration", expect_registration(channel));
      },
      [this](const std::shared_ptr<wire::Channel>& channel) { registry_.closed(channel); });
  if (!s.ok()) co_return s;
  agent_.start();
  volumes_.start();
  events_.note("control plane started, unit " + std::to_string(store_->image().unit));
  co_return Status();
}

io::Task<void> Control::drain() {
  agent_.stop();
  volumes_.stop();
  server_.close();
  co_return;
}

std::string Control::report() const {
  return "{\"volumes\":" + std::to_string(store_->image().volumes.size()) +
         ",\"nodes\":" + std::to_string(registry_.nodes().size()) + "}";
}

io::Task<void> Control::expect_registration(std::weak_ptr<wire::Channel> weak) {
  co_await world_.sleep(kRegistrationTime);
  auto channel = weak.lock();
  if (channel == nullptr || !channel->open() || registry_.find(channel) != nullptr) co_return;
  logging::warn("{}: connected and did not register; connection closed", channel->peer());
  channel->close();
}

void Control::on_frame(const std::shared_ptr<wire::Channel>& channel, wire::Frame frame) {
  if (frame.kind == wire::Kind::register_node) return registry_.register_node(channel, frame);
  const Node* from = registry_.find(channel);
  if (from == nullptr)
    return channel->reply(frame, wire::reply_frame(Status(Code::invalid, "register first")));
  switch (frame.kind) {
    case wire::Kind::propose: return channel->reply(frame, volumes_.propose(*from, frame));
    case wire::Kind::get_sandbox: return channel->reply(frame, volumes_.get_sandbox(*from, frame));
    case wire::Kind::lookup_vp: return channel->reply(frame, volumes_.lookup_vp(*from, frame));
    case wire::Kind::attach_volume: return channel->reply(frame, volumes_.attach_volume(*from, frame));
    case wire::Kind::detach_volume: return channel->reply(frame, volumes_.detach_volume(*from, frame));
    case wire::Kind::list_exports: return channel->reply(frame, volumes_.list_exports(*from));
    default:
      channel->reply(frame, wire::reply_frame(Status(Code::invalid, "the control plane knows no requests of kind " +
                                                                        std::string(wire::kind_name(frame.kind)))));
  }
}

}  // namespace luge::control
