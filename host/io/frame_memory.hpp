// Memory of coroutine frames. A request passes through a dozen of them, all short-lived and of a few sizes: what is freed is kept, by
// size, for the next of the same thread.
#pragma once

#include <cstddef>

namespace luge::io::frame_memory {

void* take(std::size_t bytes);
/// `bytes`: as taken, by the same thread.
void give(void* frame, std::size_t bytes) noexcept;

}  // namespace luge::io::frame_memory
