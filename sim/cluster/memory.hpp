// What the simulator asks of its allocator: a seed lives for a second, alone in its process, and touches some 100 MiB.
#pragma once

namespace luge::sim {

/// Memory that is freed is wanted again at once: giving it back to the kernel costs page faults, a tenth of the time.
void keep_freed_memory();

}  // namespace luge::sim
