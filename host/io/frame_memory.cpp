#include "io/frame_memory.hpp"

#include "base/kept_memory.hpp"

namespace luge::io::frame_memory {
namespace {

constinit thread_local KeptMemory<64, 48, 256, 1 << 20> memory;  // up to 3 KiB

}  // namespace

void* take(std::size_t bytes) { return memory.take(bytes); }
void give(void* frame, std::size_t bytes) noexcept { memory.give(frame, bytes); }

}  // namespace luge::io::frame_memory
