#include <array>

#include "switches/switches.hpp"

namespace luge {

std::string_view switch_name(Switch s) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Switch::count_)> names = {
      "lost-ack", "wrong-parity", "stale-read", "skip-flush",
      "diverged-unchecked", "read-at-append", "free-at-append", "no-session-fence", "no-duplicate-table",
      "merge-without-block-lock", "ack-before-shrink", "join-before-acks", "longest-log-by-length",
      "truncate-not-durable", "open-before-all-hold-tail", "restarted-primary-keeps-epoch", "reads-unconfirmed",
      "unconditional-index-record", "retry-on-same-slots", "free-without-generation", "no-sled-fence",
      "segment-generation-unchecked", "suspect-promoted", "torn-end-forgotten", "reuse-before-image", "index-without-reserve"};
  return names[static_cast<std::size_t>(s)];
}

}  // namespace luge
