// A replica's committed metadata as it is at one moment, told part by part while the replica goes on: the index as another root over the
// same pages, the rows of the stripe table as copies. Making it takes some 0.1 us a stripe (20 ms for a volume of 100 GiB, a fiftieth of what telling it
// takes); each part after that is some 0.1 ms of work, so that who makes one between other work stalls nobody.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "head/index.hpp"
#include "head/record.hpp"
#include "head/stripe_row.hpp"
#include "wire/log_generated.h"

namespace luge::head {

class ImageCut {
 public:
  /// A record of the image: its kind and body.
  using Body = std::pair<RecordKind, std::string>;

  /// What the image tells.
  struct Content {
    LogPoint point;                    ///< it covers everything up to here
    std::string begin;                 ///< body of image_begin
    Index index;
    std::vector<std::uint64_t> pages;  ///< to be told whole, those that have become holes included
    std::vector<std::pair<std::uint64_t, StripeRow>> rows;
    std::vector<fbs::ChangedEntry> entries;
    std::vector<fbs::ClearedRange> cleared;
  };
  explicit ImageCut(Content content) : content_(std::move(content)) {}

  LogPoint point() const { return content_.point; }
  // Of these there are none left when image_end has been told.
  std::size_t pages() const { return content_.pages.size(); }
  std::size_t entries() const { return content_.entries.size(); }
  std::size_t stripes() const { return content_.rows.size(); }
  /// image_begin first, then the parts, image_end last; then nothing more.
  std::optional<Body> next();

 private:
  bool all_told() const;
  std::string part();
  Content content_;
  std::size_t page_ = 0, row_ = 0, entry_ = 0, range_ = 0;  // what comes next
  std::uint32_t parts_ = 0;
  enum class Next { begin, part, nothing } next_ = Next::begin;
};

}  // namespace luge::head
