// Column credentials (architecture A8): what a sled gives out on presentation of a signed designation, and what every write and
// free of a chunk slot must carry (wire/sled.fbs).
//
// A credential is genuine if its MAC is this sled's: HMAC-SHA-256, the first 128 bits of it, over the fields before it, under a secret
// that is drawn once and kept in the sled's own metadata. So nothing is remembered of those that are given out, and neither a
// control plane nor a head is needed to tell. A genuine one opens exactly one column, in one claim of it and in one epoch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "wire/common_generated.h"
#include "wire/designation.hpp"

struct evp_mac_ctx_st;

namespace luge::sled {

inline constexpr std::uint16_t kCredentialVersion = 1;
static_assert(sizeof(fbs::Credential) == 72);

/// A claim of a column, and whom the column is open to.
struct Opening {
  VpId vp = 0;
  Epoch epoch = 0;
  Generation generation = 0;  ///< of the column
  std::uint32_t column = 0;
  std::uint16_t device = 0;
  NodeId role = 0;            ///< of the column
};

/// What refusals are counted by.
struct Refusals {
  std::uint64_t forged = 0, replayed = 0, expired = 0, other_unit = 0, not_permitted = 0;
  void count(Code code);
};

class Credentials {
 public:
  using Secret = std::array<std::uint8_t, 32>;
  Credentials(std::uint64_t unit, NodeId sled, const Secret& secret);
  ~Credentials();

  fbs::Credential issue(NodeId holder, const Opening& opening) const;
  /// Does it open that, as it is now? wrong_unit, wrong_version; forged: not of this sled's making; fenced: of an earlier
  /// epoch; expired: of an earlier claim of the column; not_permitted: it opens something else. Well below 1 us.
  Status check(const fbs::Credential* credential, const Opening& opening) const;

 private:
  std::array<std::uint64_t, 2> mac(const fbs::Credential& c) const;
  std::uint64_t unit_;
  NodeId sled_;
  std::unique_ptr<evp_mac_ctx_st, void (*)(evp_mac_ctx_st*)> context_;
};

/// May `holder` have columns of that role by this designation? The primary all of the VP's; a reserve those of its own checkpoints.
Status check_role(const wire::Designation& d, NodeId holder, NodeId role);

}  // namespace luge::sled
