#include "cli/format.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace luge::cli {

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char text[32];
  bool whole = value == static_cast<double>(static_cast<std::uint64_t>(value));
  std::snprintf(text, sizeof text, whole ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string paint(const std::string& text, Colour colour) {
  static const bool on = ::isatty(STDOUT_FILENO) && std::getenv("NO_COLOR") == nullptr;
  if (!on || colour == Colour::none) return text;
  const char* code = colour == Colour::good ? "32" : colour == Colour::warning ? "33" : "31";
  return std::string("\033[") + code + "m" + text + "\033[0m";
}

std::string Table::render() const {
  std::vector<std::size_t> widths;
  for (const auto& h : heads_) widths.push_back(h.size());
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].text.size());
  std::string out;
  auto line = [&](auto cell) {
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      auto [text, colour] = cell(i);
      out += paint(text, colour);
      if (i + 1 < heads_.size()) out += std::string(widths[i] - text.size() + 2, ' ');
    }
    out += '\n';
  };
  line([&](std::size_t i) { return std::pair(heads_[i], Colour::none); });
  for (const auto& row : rows_)
    line([&](std::size_t i) {
      return i < row.size() ? std::pair(row[i].text, row[i].colour) : std::pair(std::string(), Colour::none);
    });
  return out;
}

}  // namespace luge::cli
