// Turns k data chunks into m parity chunks and back. One interface for every place that codes: ISA-L on the CPU, the card's
// kernel, OpenCL; all of them give the same bytes.
//
// Code: systematic Reed-Solomon over GF(2^8) with polynomial 0x11D and a Cauchy matrix; parity row i (k <= i < k + m)
// has the coefficients 1 / (i xor j) for data chunk j: ISA-L's gf_gen_cauchy1_matrix.
// Asynchronous because a card is; the ISA-L coder never suspends. One World, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "io/task.hpp"

namespace luge::coding {

inline constexpr std::uint32_t kMaxData = 16;
inline constexpr std::uint32_t kMaxParity = 4;

/// In whose name something is coded. epoch 0: nobody's.
struct Authority {
  VpId partition = 0;
  Epoch epoch = 0;
};

class ErasureCoder {
 public:
  virtual ~ErasureCoder() = default;

  /// data: k chunks, parity: m chunks to fill; all of one size, a multiple of 64.
  /// invalid: sizes or layout are not possible.
  virtual io::Task<Status> encode(Layout layout, std::span<const Bytes> data, std::span<const MutableBytes> parity) = 0;

  /// The same for a partition's primary. A device that keeps fences refuses (fenced) what comes under an epoch below one that it has seen; others do not look.
  virtual io::Task<Status> encode_for(Authority, Layout layout, std::span<const Bytes> data, std::span<const MutableBytes> parity) { return encode(layout, data, parity); }

  /// Rebuilds the chunks `wanted` (indices 0 .. k + m - 1) into `out` from the first k chunks of `present` that are not
  /// empty; present has k + m entries. degraded: fewer than k are there.
  virtual io::Task<Status> reconstruct(Layout layout, std::span<const Bytes> present,
                                       std::span<const std::uint32_t> wanted, std::span<const MutableBytes> out) = 0;

  virtual std::string_view name() const = 0;

  /// For one that can fail by itself (a device): opens it, or begins anew after a fault. What was asked before ends, with
  /// whatever status, before this does. One that cannot fail has nothing to do.
  virtual io::Task<Status> reset() { co_return Status(); }
  /// Memory that this coder reads and writes without copying it; uninitialised, 4 KiB aligned. Any other will do as well.
  virtual Buffer allocate(std::size_t bytes) { return Buffer::allocate(bytes); }
  /// What the device itself has counted, by name; empty: it counts nothing.
  using Figures = std::vector<std::pair<std::string, std::uint64_t>>;
  virtual Figures figures() const { return {}; }
};

std::unique_ptr<ErasureCoder> make_isal_coder();

}  // namespace luge::coding
