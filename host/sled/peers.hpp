// Connections to other sleds, by address: made when they are needed, kept while they are used.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "wire/channel.hpp"

namespace luge::sled {

class Peers {
 public:
  /// Both outlive it.
  Peers(io::World& world, const wire::Identity& self) : world_(world), self_(self) {}
  std::shared_ptr<wire::Link> link(const std::string& address);
  void stop();

 private:
  struct Peer {
    std::shared_ptr<wire::Link> link;
    std::uint64_t last_use = 0;
  };
  io::World& world_;
  const wire::Identity& self_;
  std::map<std::string, Peer> peers_;
  std::uint64_t uses_ = 0;
};

}  // namespace luge::sled
