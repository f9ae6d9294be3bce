// The unit's key pair in the control plane's data directory: `unit.key` (mode 0600) and, for people and for sleds that are told
// it by hand, `unit.pub`. Each is a line of 64 hexadecimal digits (docs/formats.md).
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/status.hpp"
#include "wire/unit_key.hpp"

namespace luge::control {

struct KeyRequest {
  wire::KeyBytes fresh{};   ///< what a new private key is made of
  bool signed_before = false;  ///< the store has designations that some key signed
  bool new_key = false;     ///< an operator's word that the old private key is lost, or is not to be used any more
};

/// The pair that is there. A new one if there never was one, or by `new_key`; then the old files are kept as NAME.old.
/// not_found: the private key is lost; the text says what can be done. invalid: it is damaged, or others may read it.
Result<std::shared_ptr<const wire::Signer>> open_unit_key(const std::string& directory, const KeyRequest& request);

}  // namespace luge::control
