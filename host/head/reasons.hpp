// Why a VP does not serve as it should, for status: at most one text for each thing that can be waited for.
#pragma once

#include <array>
#include <string>

namespace luge::head {

enum class Wait : std::uint8_t { promotion, control_plane, copies, log_space, flush, block, reads, count };

class Reasons {
 public:
  void set(Wait w, std::string text) { texts_[static_cast<std::size_t>(w)] = std::move(text); }
  void clear(Wait w) { texts_[static_cast<std::size_t>(w)].clear(); }
  const std::string& of(Wait w) const { return texts_[static_cast<std::size_t>(w)]; }
  /// All of them, joined by "; ". Empty: nothing waits.
  std::string text() const {
    std::string all;
    for (const std::string& t : texts_)
      if (!t.empty()) all += (all.empty() ? "" : "; ") + t;
    return all;
  }

 private:
  std::array<std::string, static_cast<std::size_t>(Wait::count)> texts_;
};

}  // namespace luge::head
