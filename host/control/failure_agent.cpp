#include "control/failure_agent.hpp"
#include "switches/switches.hpp"

namespace luge::control {
namespace {

// Bounds the memory that unanswered pings hold; whether the node counts as alive is decided long before.
constexpr io::Duration kPingTimeout = std::chrono::seconds(30);

std::string milliseconds(io::Duration d) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(d).count()) + " ms";
}

}  // namespace

io::Task<void> FailureAgent::run() {
  // Twice per heartbeat: a failure is then seen at most half a heartbeat after its time is up.
  const io::Duration tick = options_.heartbeat / 2;
  io::Time due = world_.now();
  while (running_) {
    io::Time now = world_.now();
    if (now - due > options_.heartbeat) forgive(now - due);
    for (auto& [id, n] : registry_.nodes()) {
      judge(id, n);
      if (!n.connected() || n.ping_open || now - n.last_ping < options_.heartbeat) continue;
      n.ping_open = true;
      n.last_ping = now;
      world_.spawn("ping", ping(id, n.channel));
    }
    due = world_.now() + tick;
    co_await world_.sleep(tick);
  }
}

void FailureAgent::forgive(io::Duration lost) {
  logging::warn("the control plane stood still for {}", milliseconds(lost));
  for (auto& [id, n] : registry_.nodes()) {
    n.last_heard += lost;
    n.silent_since += lost;
  }
}

void FailureAgent::judge(NodeId id, const Node& n) {
  if (!n.alive || broken(Switch::silent_head_unnoticed)) return;
  io::Time now = world_.now();
  if (n.connected()) {
    if (now - n.last_heard > options_.suspicion)
      registry_.set_alive(id, false, "no answer to pings for " + milliseconds(now - n.last_heard));
  } else if (now - n.silent_since > n.patience) {
    registry_.set_alive(id, false, "not connected for " + milliseconds(now - n.silent_since));
  }
}

io::Task<void> FailureAgent::ping(NodeId id, std::shared_ptr<wire::Channel> channel) {
  co_await registry_.ping(id, kPingTimeout);
  auto it = registry_.nodes().find(id);
  if (it != registry_.nodes().end() && it->second.channel == channel) it->second.ping_open = false;
}

}  // namespace luge::control
