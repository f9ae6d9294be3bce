// Rules that a test may break, to show that it would notice. Nothing that is shipped can break one: kept() is constant but in the library
// that firmware_test links (FW_BREAKABLE), and who makes Slots says whose rules they have.
#pragma once

namespace fw {

enum class Rule {
  verify_before_flip,   // a record names a slot only when that was read back and found whole
  count_attempts,       // an image on trial starts kAttempts times at most
  whole_before_boot,    // what boots has the digest that its record says
  good_after_test,      // an image is good when its self-test has passed
  fail_closed,          // a card whose self-test failed is not ready
  respect_owner,        // registers of the kernels belong to the host that has the ring
  refuse_old_epochs,    // a command under an epoch below the fence is refused
  fences_outlive_reset, // of the controller
  faults_outlive_reset,
  bounded_waits,        // a wait ends, whatever the card does
};

/// Of Slots in what is shipped.
struct AllRules {
  static constexpr bool kept(Rule) { return true; }
};

#ifdef FW_BREAKABLE
bool kept(Rule rule);  // the test's
#else
constexpr bool kept(Rule) { return true; }
#endif

}  // namespace fw
