// Lease reads (protocol 6). A primary answers reads without asking as long as no other can have opened. It rests on one
// assumption, that the rates of two heads' CLOCK_BOOTTIME differ by less than 1 %; writes rest on no clock.
//
// - A reserve that takes a Replicate message in its epoch *grants* kLease from its receipt: as a candidate it does not open
//   before that has passed (Partition::granted_until).
// - The primary holds the lease until kPrimaryLease after the *sending* of the message that was answered, the smallest over all
//   of `required` and of those that a proposal without an answer would add (Primary::lease_holds).
// - Whoever may become primary next is in that set, and waits longer on its clock than the primary does on its own:
//   kPrimaryLease * 1.01 < kLease, and the sending lies before the receipt.
// - A head that has restarted, or has been told of another history, behaves as if it had granted then.
#pragma once

#include "io/world.hpp"

namespace luge::head {

inline constexpr io::Duration kLease = std::chrono::milliseconds(500);
inline constexpr io::Duration kPrimaryLease = kLease * 98 / 100;

}  // namespace luge::head
