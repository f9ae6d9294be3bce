// The images of one card, as its host keeps them: DIR/cardN.images/ with
//
//   card.json       board, revision
//   golden.img, a.img, b.img, records       xclbin: slots are files (directory_medium.hpp)
//   flash           qspi, emulated board: the flash itself (flash_model.hpp)
//   keys/0001.img   images of kind "keys" that were applied, in their order: each checked again by the keys before it
//   boot/           what was taken out of the image that boots: firmware.bin, card.xclbin
//
// A card without this folder has no slots: it runs what its daemon is told to load.
// One process at a time: whoever holds the card's lock (host/card), or DIR/cardN.hold.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "firmware/update/slots.hpp"
#include "image/board.hpp"
#include "image/keys.hpp"

namespace luge::image {

std::string_view slot_name(fw::Slot slot);  ///< "golden", "A", "B"

class CardStore {
 public:
  using Tell = std::function<void(std::uint32_t done, std::uint32_t total)>;
  /// A card from the factory: golden written, nothing else. The keys that the card trusts are those that golden's manifest adds. exists.
  static Result<CardStore> create(const std::string& directory, unsigned device, const Board& board, std::uint32_t revision, const ByteVector& golden);
  /// not_found: the card has no slots.
  static Result<CardStore> open(const std::string& directory, unsigned device);

  const Board& board() const { return board_; }
  std::uint32_t revision() const { return revision_; }
  /// What an image must be for. `version` is that of the slot that is good.
  Result<Target> target();

  struct Slot {
    fw::Slot slot = fw::kGolden;
    bool current = false, good = false;
    std::uint32_t version = 0, attempts = 0;
  };
  /// Golden, A and B: what is in them. A slot without an image has version 0.
  std::vector<Slot> slots();
  fw::Slot next_slot();

  struct Boot {
    fw::Slot slot = fw::kGolden;
    bool fell_back = false;
    std::string version, firmware, xclbin;  ///< paths; empty: the image has none
  };
  /// Chooses what boots, counts the attempt, takes its parts out. corrupt: not even golden is an image.
  Result<Boot> boot();
  Status mark_good(fw::Slot slot);

  /// REQUIRES: admit() has admitted `file`. The image is not booted by this.
  Status update(const ByteVector& file, const File& parsed, const Tell& tell);
  /// conflict: nothing to go back to.
  Status roll_back();
  /// An admitted image of kind "keys".
  Status apply_keys(const ByteVector& file, const File& parsed);

 private:
  CardStore() = default;
  Result<ByteVector> image_in(fw::Slot slot);
  template <class F>
  auto with_medium(F f);

  std::string directory_;
  Board board_;
  std::uint32_t revision_ = 0;
};

}  // namespace luge::image
