// Slots in a serial flash: what erasing and programming are to it. Bits are programmed from 1 to 0, a page at a time; a sector is erased to all ones.
//
//   golden | A | B | records 0 | records 1
//
// A record is 128 bytes in one of two record sectors, appended; when a sector is full the other one is erased and goes on. Attempts and `good` are
// bits of it that are programmed later: a cut leaves them burnt or not, and either is allowed. A record whose CRC is wrong was cut and does not exist.
#pragma once
#include <stddef.h>
#include <string.h>

#include "firmware/gf.hpp"
#include "firmware/update/slots.hpp"

namespace fw {

struct FlashLayout {
  uint32_t golden = 0, a = 0, b = 0, slot_bytes = 0;  // golden has slot_bytes, too
  uint32_t records[2] = {0, 0};
  uint32_t sector = 0, page = 256;
};

/// Flash: bool read(uint32_t at, uint8_t*, uint32_t); bool program(uint32_t at, const uint8_t*, uint32_t) within a page; bool erase(uint32_t sector_at).
template <class Flash>
class FlashMedium {
 public:
  static constexpr uint32_t kPiece = 256;
  /// `turns`: every record goes to the other sector, alone; for whoever can write whole sectors only.
  FlashMedium(Flash& flash, const FlashLayout& layout, bool turns = false) : flash_(flash), l_(layout), turns_(turns) {}

  uint32_t slot_bytes() { return l_.slot_bytes; }
  bool erase(Slot slot, uint32_t bytes) {
    if (slot == kGolden) return false;
    for (uint32_t at = 0; at < bytes; at += l_.sector)
      if (!flash_.erase(base(slot) + at)) return false;
    return true;
  }
  bool write(Slot slot, uint32_t at, const uint8_t* data, uint32_t n) { return slot != kGolden && flash_.program(base(slot) + at, data, n); }
  bool read(Slot slot, uint32_t at, uint8_t* to, uint32_t n) { return flash_.read(base(slot) + at, to, n); }
  bool seal(Slot) { return true; }

  Record newest() {
    Record best;
    place_ = 0;
    for (uint32_t s = 0; s < 2; ++s)
      for (uint32_t at = l_.records[s]; at < l_.records[s] + l_.sector; at += kRecordBytes) {
        Raw raw;
        if (!flash_.read(at, reinterpret_cast<uint8_t*>(&raw), sizeof raw) || raw.magic != kMagic || raw.crc != crc(raw) || raw.sequence <= best.sequence) continue;
        best = unpack(raw), place_ = at;
      }
    return best;
  }
  bool append(const Record& r) {
    newest();
    uint32_t at = place_ ? turns_ ? 0 : next_free(place_) : l_.records[0];
    if (place_ == 0 && !flash_.erase(l_.records[0])) return false;
    if (at == 0) {  // full: the other sector
      const uint32_t other = place_ - l_.records[0] < l_.sector ? l_.records[1] : l_.records[0];
      if (!flash_.erase(other)) return false;
      at = other;
    }
    Raw raw = pack(r);
    if (!flash_.program(at, reinterpret_cast<const uint8_t*>(&raw), sizeof raw)) return false;
    return newest().sequence == r.sequence;
  }
  bool burn_attempt() {
    const Record r = newest();
    if (place_ == 0 || r.attempts >= kAttempts) return false;
    const uint32_t word = ~0u << (8 * (r.attempts + 1));
    flash_.program(place_ + offsetof(Raw, attempts), reinterpret_cast<const uint8_t*>(&word), 4);
    return newest().attempts == r.attempts + 1;
  }
  bool set_good() {
    newest();
    const uint32_t zero = 0;
    return place_ != 0 && flash_.program(place_ + offsetof(Raw, good), reinterpret_cast<const uint8_t*>(&zero), 4) && newest().good;
  }

 private:
  static constexpr uint32_t kMagic = 0x5243474C;  // "LGCR"
  static constexpr uint32_t kRecordBytes = 128;
  struct Raw {
    uint32_t magic, sequence;
    uint8_t slot, previous, reserved[2];
    uint32_t bytes, version;
    Digest digest;
    uint32_t previous_bytes, previous_version;
    Digest previous_digest;
    uint32_t crc;       // of all before
    uint32_t attempts;  // programmed byte by byte
    uint32_t good;      // programmed to 0
    uint8_t rest[24];
  };
  static_assert(sizeof(Raw) == kRecordBytes, "");

  uint32_t base(Slot s) const { return s == kGolden ? l_.golden : s == kSlotA ? l_.a : l_.b; }
  static uint32_t crc(const Raw& r) {
    uint32_t words[offsetof(Raw, crc) / 4], c = ~0u;
    memcpy(words, &r, sizeof words);
    for (uint32_t w : words) c = gf::crc_word(c, w);
    return ~c;
  }
  static Raw pack(const Record& r) {
    Raw raw;
    memset(static_cast<void*>(&raw), 0xff, sizeof raw);
    raw.magic = kMagic, raw.sequence = r.sequence, raw.slot = r.slot, raw.previous = r.previous;
    raw.bytes = r.image.bytes, raw.version = r.image.version, raw.digest = r.image.digest;
    raw.previous_bytes = r.previous_image.bytes, raw.previous_version = r.previous_image.version, raw.previous_digest = r.previous_image.digest;
    raw.crc = crc(raw);
    if (r.good) raw.good = 0;
    return raw;
  }
  static Record unpack(const Raw& raw) {
    Record r;
    r.sequence = raw.sequence, r.slot = static_cast<Slot>(raw.slot), r.previous = static_cast<Slot>(raw.previous);
    r.image = {raw.bytes, raw.version, raw.digest}, r.previous_image = {raw.previous_bytes, raw.previous_version, raw.previous_digest};
    // A byte that a cut has half programmed counts as burnt.
    for (uint32_t i = 0; i < kAttempts; ++i) r.attempts += (raw.attempts >> (8 * i) & 255) != 255;
    r.good = raw.good != ~0u;
    return r;
  }
  // Behind a record; 0: the sector is full. What a cut has begun to program there is not free.
  uint32_t next_free(uint32_t place) {
    const uint32_t begin = place - l_.records[0] < l_.sector ? l_.records[0] : l_.records[1];
    for (uint32_t at = place + kRecordBytes; at < begin + l_.sector; at += kRecordBytes) {
      uint8_t bytes[kRecordBytes];
      if (!flash_.read(at, bytes, sizeof bytes)) return 0;
      bool blank = true;
      for (uint8_t b : bytes) blank = blank && b == 0xff;
      if (blank) return at;
    }
    return 0;
  }

  Flash& flash_;
  FlashLayout l_;
  bool turns_;
  uint32_t place_ = 0;  // of the newest record
};

}  // namespace fw
