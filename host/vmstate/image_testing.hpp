// A machine's memory and disk as a test of stores has them: an image in which every second page is zeros at first.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate::testing {

inline constexpr Shape kShape{300, 20};

inline std::string read_file(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(f), {}};
}

class ImageTest : public ::testing::Test {
 protected:
  ImageTest() : image_(kShape.pages() * kPage, 0) {
    for (std::uint64_t p = 0; p < kShape.pages(); p += 2) change(p);
  }
  void change(std::uint64_t page) {
    for (std::size_t i = 0; i < kPage; ++i) image_[page * kPage + i] = static_cast<char>(random_());
  }
  PageBatch batch(const std::vector<std::uint64_t>& pages) const {
    PageBatch b;
    for (std::uint64_t p : pages) {
      const Bytes content = as_bytes(std::string_view(image_).substr(p * kPage, kPage));
      b.entries.push_back({p, crc32c(content), all_zero(content)});
      if (!b.entries.back().zero) b.content.insert(b.content.end(), content.begin(), content.end());
    }
    return b;
  }

  std::string image_;
  std::map<std::uint64_t, std::string> images_;  // as they were at each checkpoint
  std::mt19937_64 random_{7};
};

}  // namespace luge::vmstate::testing
