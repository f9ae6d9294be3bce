// What the simulator asks of its allocator: a seed lives for a second, alone in its process, and touches some 100 MiB.
#pragma once

namespace luge::sim {

/// Memory that is freed is wanted again at once: giving it back to the kernel costs page faults, a tenth of the time.
void keep_freed_memory();
/// From now on memory comes in pages of 2 MiB where the kernel has any: to touch it first page by page took a quarter of a seed's time.
/// Not where resident memory is what is measured. Once for a process.
void take_large_pages();

}  // namespace luge::sim
