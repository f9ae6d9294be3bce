// Text for people: tables with aligned columns, sizes, colours (only on a terminal).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace luge::cli {

/// "256 MiB", "1.5 GiB", "512 B".
std::string human_bytes(std::uint64_t bytes);

enum class Colour { none, good, warning, bad };
/// `text` coloured if standard output is a terminal and NO_COLOR is not set.
std::string paint(const std::string& text, Colour colour);

class Table {
 public:
  explicit Table(std::vector<std::string> heads) : heads_(std::move(heads)) {}
  struct Cell {
    Cell(std::string t, Colour c = Colour::none) : text(std::move(t)), colour(c) {}
    Cell(const char* t) : text(t) {}
    std::string text;
    Colour colour = Colour::none;
  };
  void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }
  std::string render() const;

 private:
  std::vector<std::string> heads_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace luge::cli
