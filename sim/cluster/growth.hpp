// What growth costs: the same writes in a larger unit, on more volumes, and the memory of an index for more mapped data.
#pragma once

namespace luge::sim {

/// Prints a line for each figure. Exit code: 0 all within their bars.
int run_growth();

}  // namespace luge::sim
