#include "sled/peers.hpp"

namespace luge::sled {
namespace {

constexpr std::size_t kPeers = 256;  // connections kept

}  // namespace

void Peers::stop() {
  for (auto& [address, peer] : peers_) peer.link->stop();
}

std::shared_ptr<wire::Link> Peers::link(const std::string& address) {
  Peer& peer = peers_[address];
  peer.last_use = ++uses_;
  if (!peer.link) {
    peer.link = std::make_shared<wire::Link>(world_, self_, address);
    peer.link->start();
  }
  std::shared_ptr<wire::Link> link = peer.link;
  if (peers_.size() <= kPeers) return link;
  // One that nobody waits on goes; a sled that moved to another address leaves such a one behind.
  auto oldest = peers_.end();
  for (auto it = peers_.begin(); it != peers_.end(); ++it)
    if (it->second.link.use_count() == 1 && (oldest == peers_.end() || it->second.last_use < oldest->second.last_use)) oldest = it;
  if (oldest != peers_.end()) {
    oldest->second.link->stop();
    peers_.erase(oldest);
  }
  return link;
}

}  // namespace luge::sled
