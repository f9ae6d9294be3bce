// Calls that block, on threads of their own: for the kernel's and for libraries that have no other way.
#pragma once

#include <functional>
#include <memory>

#include "io/real_world.hpp"

namespace luge::io {

/// All members are called on the World's thread. What `f` refers to must live until it has returned: also when the World stops,
/// a call that has begun is awaited to its end. Destroying it waits for the threads, for ever if a call never returns.
class BlockingCalls {
 public:
  virtual ~BlockingCalls() = default;
  /// The result of `f`, which runs on another thread and must not throw.
  virtual Task<int> run(std::function<int()> f) = 0;
};
std::unique_ptr<BlockingCalls> make_blocking_calls(RealWorld& world, int threads = 4);

}  // namespace luge::io
