#include "head/connections.hpp"

namespace luge::head {

wire::Link* Connections::to(NodeId node) {
  if (auto it = links_.find(node); it != links_.end()) return it->second.get();
  const wire::NodeRecord* r = control_.node(node);
  if (r == nullptr || r->address.empty()) return nullptr;
  auto link = std::make_unique<wire::Link>(world_, self_, r->address,
                                           [this, node](const std::shared_ptr<wire::Channel>&, wire::Frame f) {
                                             if (on_frame) on_frame(node, std::move(f));
                                           });
  link->on_connect([this, node](std::shared_ptr<wire::Channel>) -> io::Task<bool> {
    // The link counts as connected once this returns; tell on the next turn.
    world_.post([this, node] { if (on_connect) on_connect(node); });
    co_return true;
  });
  link->on_disconnect([this, node] { if (on_disconnect) on_disconnect(node); });
  link->start();
  return (links_[node] = std::move(link)).get();
}

bool Connections::connected(NodeId node) const {
  auto it = links_.find(node);
  return it != links_.end() && it->second->connected();
}

io::Task<Result<wire::Frame>> Connections::call(NodeId node, wire::Frame request, io::Duration timeout) {
  wire::Link* link = to(node);
  if (link == nullptr) co_return Status(Code::unavailable, "node " + std::to_string(node) + " is not in the directory");
  co_return co_await link->call(std::move(request), timeout);
}

bool Connections::send(NodeId node, wire::Frame frame) {
  wire::Link* link = to(node);
  return link != nullptr && link->send(std::move(frame));
}

void Connections::refresh() {
  for (auto& [node, link] : links_) {
    const wire::NodeRecord* r = control_.node(node);
    if (r != nullptr && !r->address.empty()) link->set_address(r->address);
  }
}

void Connections::stop() {
  for (auto& [node, link] : links_) link->stop();
}

}  // namespace luge::head
