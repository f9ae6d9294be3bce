// An ErasureCoder on an OpenCL device. The device's calls block, so they have a thread of their own. Closed at first: reset() opens the
// device and builds the kernel, and again after a fault. A call that never returns keeps its thread; reset() takes a new one.
#pragma once

#include <memory>
#include <string>

#include "coding/erasure_coder.hpp"
#include "io/world.hpp"

namespace luge::opencl {

/// `device`: part of its name as open_device() takes it. REQUIRES: a RealWorld.
std::shared_ptr<coding::ErasureCoder> make_opencl_coder(io::World& world, std::string device);

}  // namespace luge::opencl
