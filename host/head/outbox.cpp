#include "head/outbox.hpp"

namespace luge::head {
namespace {
constexpr std::size_t kMessagePayload = 1 << 20;
}

void Outbox::add(NodeId peer, const fbs::VpState& state, const Record& record, const Buffer& blocks) {
  Queue& q = queues_[peer];
  q.states.insert_or_assign(state.vp(), state);
  q.records.add(record, blocks);
  if (q.records.payload_bytes >= kMessagePayload) flush(peer, q);
  else post();
}

void Outbox::add(NodeId peer, const fbs::VpState& state) {
  queues_[peer].states.insert_or_assign(state.vp(), state);
  post();
}

void Outbox::post() {
  if (std::exchange(posted_, true)) return;
  ctx_.world.post([this] {
    posted_ = false;
    for (auto& [peer, queue] : queues_) flush(peer, queue);
  });
}

void Outbox::flush(NodeId peer, Queue& q) {
  if (q.states.empty()) return;
  std::vector<fbs::VpState> states;
  for (const auto& [vp, s] : q.states) states.push_back(s);
  auto sent = static_cast<std::uint64_t>(ctx_.world.now().time_since_epoch().count());
  wire::Frame f = wire::make_frame(wire::Kind::replicate, [&](auto& b) {
    auto states_vector = b.CreateVectorOfStructs(states);
    auto headers = b.CreateVectorOfStructs(q.records.headers);
    auto bodies = b.CreateVector(reinterpret_cast<const std::uint8_t*>(q.records.bodies.data()), q.records.bodies.size());
    return fbs::CreateReplicate(b, states_vector, headers, bodies, sent);
  });
  f.payload = std::move(q.records.payload);
  q = Queue();
  ctx_.connections->send(peer, std::move(f));
}

}  // namespace luge::head
