// What a head remembers of partitions that it has left to others: the last designation that it knew, durably. So "I hold nothing of it" of
// a head that remembers everything says that it never was told of its part in it, or that the volume was removed; and a control plane whose
// store was set back need not wait for more of one that was to join (protocol 5.2).
//
// A recollection is a random number that is drawn with the metadata store, and anew whenever something of this is dropped: who compares it
// with the one of before knows whether anything between the two can have been forgotten.
#pragma once

#include <cstdint>
#include <vector>

#include "head/context.hpp"
#include "wire/designation.hpp"

namespace luge::head {

inline constexpr std::size_t kMostLeft = 256;  ///< partitions; beyond it all are dropped

/// Draws the number if the store has none. corrupt: what is remembered does not parse.
io::Task<Status> begin_recollection(Context& ctx);
/// 0: there is none.
std::uint64_t recollection(const io::MetaStore& store);
/// Of partitions that this head has left; it may have come back to some since.
std::vector<wire::Designation> left_partitions(const io::MetaStore& store);
/// Puts `changes`, which make the head forget what it holds of the partition, and remembers `last`: all of it or nothing.
io::Task<Status> put_left(Context& ctx, std::vector<io::MetaStore::Change> changes, const wire::Designation& last);

}  // namespace luge::head
