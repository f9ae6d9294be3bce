// What a sled remembers beside its devices, in the file `meta` of its data directory: which devices are its own, the
// epochs that it has been fenced in, the secret of its credentials and the unit's key.
//
// Invariants
// - A device is in here, durably, before it is used.
// - So are the secret of its credentials and the unit's key: a sled that started with another secret would refuse its own credentials, one
//   that took another key would obey whoever has that.
// - An epoch is in here, durably, before its fence is answered. Devices keep copies; no device has to be there for the
//   sled to know its fences. Without this a device that was lost, or came back empty, would take its fences with it: one
//   that had failed before the last fence, and works again, knows only older epochs, and an old primary would get in
//   (protocol 8.2).
// - Nothing is ever forgotten, fences of removed volumes included: a head that was cut off before the removal may still
//   send a fence of its old epoch, and, were it accepted, claim columns for a volume that nobody will ever release again.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/ids.hpp"
#include "io/meta_store.hpp"
#include "io/watched_file.hpp"

namespace luge::sled {

using DeviceId = std::uint64_t;  ///< drawn when a device is formatted, never 0
using Fences = std::map<VpId, Epoch>;

/// As people read it: 16 hexadecimal digits.
std::string to_string_id(DeviceId id);

class SledMeta {
 public:
  /// corrupt: the file is damaged or does not parse; it is left as it is.
  static io::Task<Result<std::unique_ptr<SledMeta>>> open(io::World& world, io::Duration io_timeout);

  /// False until the sled has been started once with everything that it was told to have: before that, a device may know
  /// fences that are not in here.
  bool complete() const { return store_->get("complete").has_value(); }
  io::Task<Status> set_complete();

  std::optional<DeviceId> device(std::uint16_t index) const;
  io::Task<Status> remember(std::uint16_t index, DeviceId id);
  /// The id that a replacement of device `index` is to be formatted with: the same until one has been remembered, so that
  /// a replacement that was cut off anywhere is recognised.
  io::Task<Result<DeviceId>> replacement(std::uint16_t index);

  /// What the sled's credentials are made with: drawn when it is asked for first, and durable before it is answered.
  io::Task<Result<std::array<std::uint8_t, 32>>> secret();
  /// With which designations are verified. None: it has not been heard yet.
  std::optional<std::array<std::uint8_t, 32>> unit_key() const;
  io::Task<Status> remember_unit_key(std::array<std::uint8_t, 32> key);

  const Fences& fences() const { return fences_; }
  /// Durable when it returns; never lowers. no_space: full, `fences` are as before.
  io::Task<Status> raise(Fences fences);

 private:
  SledMeta(io::World& world, std::unique_ptr<io::WatchedFile> file) : world_(world), file_(std::move(file)), raising_(world) {}
  Status load();

  io::World& world_;
  std::unique_ptr<io::WatchedFile> file_;
  std::unique_ptr<io::MetaStore> store_;
  std::map<std::uint16_t, DeviceId> devices_;
  Fences fences_;
  io::Mutex raising_;
};

/// Rows "fence/VP" of a metadata store, as SledMeta and Device keep them. False: one does not parse.
bool read_fences(const io::MetaStore& store, Fences& fences);
/// Brings `held` and the store to at least `wanted`, in a few writes. The caller keeps concurrent calls in order.
io::Task<Status> write_fences(io::MetaStore& store, Fences& held, Fences wanted);

}  // namespace luge::sled
