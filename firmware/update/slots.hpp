// A card's images: golden, A and B; which one boots, and how another one takes its place. The same rules for images in flash and in directories: a
// Medium (flash_medium.hpp, host/image/directory_medium.hpp) says what a slot and a record are made of and what a cut leaves of them.
//
// Rules
//   1. Golden is never written here.
//   2. An update writes the slot that is not the last good one, reads it back, compares its digest, and only then appends the record that names it.
//   3. The newest whole record names what boots: `slot` while it is good or has attempts left; else `previous`; else golden. An attempt is burnt before
//      the image starts. What boots has the digest that its record says.
//   4. An image is good when it has passed its self-test: mark_good().
// So whatever is cut, the record that is newest and whole names a slot that is whole, or falls back to one that was good.
#pragma once
#include <stdint.h>

#include "firmware/rules.hpp"
#include "firmware/update/sha256.hpp"

namespace fw {

enum Slot : uint8_t { kGolden = 0, kSlotA = 1, kSlotB = 2, kNoSlot = 3 };

inline constexpr uint32_t kAttempts = 3;

struct Image {
  uint32_t bytes = 0, version = 0;
  Digest digest{};
};

struct Record {
  uint32_t sequence = 0;  // 0: no record: a card from the factory
  Slot slot = kGolden, previous = kGolden;
  Image image, previous_image;  // of `slot`, of `previous`
  uint32_t attempts = 0;        // burnt
  bool good = false;
};

enum class UpdateResult { done, erase_failed, write_failed, differs, record_failed, too_large };

/// Medium: uint32_t slot_bytes(); bool erase(Slot, uint32_t bytes); bool write(Slot, uint32_t at, const uint8_t*, uint32_t); bool read(Slot, uint32_t at,
/// uint8_t*, uint32_t); bool seal(Slot): what was written stays; Record newest(); bool append(const Record&); bool burn_attempt(); bool set_good();
/// static constexpr uint32_t kPiece: bytes that are written at once, at most 4096.
template <class Medium, class Rules = AllRules>
class Slots {
 public:
  explicit Slots(Medium& medium) : medium_(medium) {}

  struct Choice {
    Slot slot = kGolden;
    bool fell_back = false;  // another one was to boot
  };
  /// What boots now; burns an attempt if it is on trial. To be called once a boot.
  Choice choose() {
    const Record r = medium_.newest();
    if (r.sequence == 0) return {};
    if ((r.good || r.attempts < kAttempts || !Rules::kept(Rule::count_attempts)) && (whole(r.slot, r.image) || !Rules::kept(Rule::whole_before_boot))) {
      // An attempt that cannot be written down would be tried for ever.
      if (r.good || !Rules::kept(Rule::count_attempts) || medium_.burn_attempt()) return {r.slot, false};
    }
    if (r.previous != kGolden && whole(r.previous, r.previous_image)) return {r.previous, true};
    return {kGolden, true};
  }
  /// The image that runs has passed its self-test; `slot` is what choose() said.
  bool mark_good(Slot slot) {
    const Record r = medium_.newest();
    if (r.sequence == 0 || r.slot != slot || r.good) return true;
    return medium_.set_good();
  }

  /// Where an update goes, and what boots if it is no good.
  Slot target() {
    const Record r = medium_.newest();
    return last_good(r) == kSlotA ? kSlotB : kSlotA;
  }

  /// `get(at, to, bytes)` gives the image's bytes; `tell(done, total)` is told of progress in bytes.
  template <class Get, class Tell>
  UpdateResult update(const Image& image, Get get, Tell tell) {
    if (image.bytes > medium_.slot_bytes()) return UpdateResult::too_large;
    const Record now = medium_.newest();
    const Slot to = target();
    Record next;
    next.sequence = now.sequence + 1, next.slot = to, next.image = image;
    next.previous = last_good(now);
    if (next.previous != kGolden) next.previous_image = next.previous == now.slot ? now.image : now.previous_image;
    const bool flips_first = !Rules::kept(Rule::verify_before_flip);
    if (flips_first && !medium_.append(next)) return UpdateResult::record_failed;
    if (!medium_.erase(to, image.bytes)) return UpdateResult::erase_failed;
    uint8_t piece[Medium::kPiece];
    for (uint32_t at = 0; at < image.bytes; at += Medium::kPiece) {
      const uint32_t n = image.bytes - at < Medium::kPiece ? image.bytes - at : Medium::kPiece;
      get(at, piece, n);
      if (!medium_.write(to, at, piece, n)) return UpdateResult::write_failed;
      tell(at + n, image.bytes);
    }
    if (!medium_.seal(to)) return UpdateResult::write_failed;
    if (!whole(to, image)) return UpdateResult::differs;
    if (!flips_first && !medium_.append(next)) return UpdateResult::record_failed;
    return UpdateResult::done;
  }

  /// Boots `previous` from now on. False: there is none, or it is not whole any more.
  bool roll_back() {
    const Record r = medium_.newest();
    if (r.sequence == 0) return false;
    Record next;
    next.sequence = r.sequence + 1, next.slot = r.previous, next.image = r.previous_image, next.previous = kGolden, next.good = true;
    if (next.slot != kGolden && !whole(next.slot, next.image)) return false;
    return medium_.append(next);
  }

  /// Its bytes have the digest of `image`.
  bool whole(Slot slot, const Image& image) {
    if (slot == kGolden) return true;
    if (image.bytes == 0 || image.bytes > medium_.slot_bytes()) return false;
    Sha256 sha;
    uint8_t piece[Medium::kPiece];
    for (uint32_t at = 0; at < image.bytes; at += Medium::kPiece) {
      const uint32_t n = image.bytes - at < Medium::kPiece ? image.bytes - at : Medium::kPiece;
      if (!medium_.read(slot, at, piece, n)) return false;
      sha.add(piece, n);
    }
    return sha.end() == image.digest;
  }

  static Slot last_good(const Record& r) { return r.sequence == 0 ? kGolden : r.good ? r.slot : r.previous; }

 private:
  Medium& medium_;
};

}  // namespace fw
