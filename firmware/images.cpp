#include "firmware/images.hpp"

#include "firmware/hal/hal.hpp"
#include "firmware/spi_flash.hpp"
#include "firmware/update/flash_medium.hpp"

namespace fw {
namespace {

using namespace luge_card;

using Medium = FlashMedium<SpiFlash>;

uint32_t slot_bytes() { return hal::load(MAP_BOARD + 16); }
uint32_t sector_bytes() { return hal::load(MAP_BOARD + 20); }

// Golden, A, B, then the two sectors of records (docs/flash.md).
FlashLayout layout() {
  FlashLayout l;
  l.slot_bytes = slot_bytes(), l.sector = sector_bytes();
  l.a = l.slot_bytes, l.b = 2 * l.slot_bytes;
  l.records[0] = 3 * l.slot_bytes, l.records[1] = l.records[0] + l.sector;
  return l;
}

}  // namespace

uint32_t choose_image(bool& fell_back) {
  fell_back = false;
  if (slot_bytes() == 0) return kNoSlot;
  SpiFlash flash(sector_bytes());
  Medium medium(flash, layout());
  const auto choice = Slots<Medium>(medium).choose();
  fell_back = choice.fell_back;
  return choice.slot;
}

bool image_is_good(uint32_t slot) {
  if (slot_bytes() == 0 || slot == kNoSlot || slot == kGolden) return true;
  SpiFlash flash(sector_bytes());
  Medium medium(flash, layout());
  return Slots<Medium>(medium).mark_good(static_cast<Slot>(slot));
}

}  // namespace fw
