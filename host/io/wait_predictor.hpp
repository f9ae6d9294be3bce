#pragma once
#include <array>
#include <cstdint>

namespace luge::io {

/// Foretells whether a loop's next wait is a short one, from the pattern of those before: a two-level adaptive predictor, as processors have
/// for branches (Yeh and Patt, MICRO-24, 1991). A daemon under load waits in patterns - long for the answer to what it has sent, then
/// briefly again and again while the answer comes in pieces - in which the last wait alone foretells the wrong thing.
/// Not thread-safe: of one loop.
class WaitPredictor {
 public:
  bool will_be_short() const { return confidence_[history_] >= 2; }

  void was(bool brief) {
    std::uint8_t& c = confidence_[history_];
    if (brief && c < 3) ++c;
    if (!brief && c > 0) --c;
    history_ = static_cast<std::uint8_t>((history_ << 1 | (brief ? 1 : 0)) % confidence_.size());
  }

 private:
  std::array<std::uint8_t, 16> confidence_{};  ///< by the last four waits: 0 and 1 foretell a long one, 2 and 3 a short one
  std::uint8_t history_ = 0;                   ///< a bit per wait, the last one lowest; 1: it was short
};

}  // namespace luge::io
