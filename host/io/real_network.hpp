// The real Network: unix and TCP stream sockets. Private to host/io.
#pragma once

#include <memory>

#include "io/network.hpp"
#include "io/real_world.hpp"

namespace luge::io {
std::unique_ptr<Network> make_real_network(RealWorld& world);
}
