// A small durable map from strings to bytes in a region of a BlockFile: designations, fences, column tables,
// attachments. Not for data: everything is in memory, a change costs one O_DSYNC write, and compaction rewrites all.
//
// Invariant: after any crash, open() finds the state after some prefix of the completed put() calls that includes
// every call that had returned ok. Two halves of the region take turns: the active one is a chain of checksummed
// 4 KiB-aligned batches behind a snapshot; when it is full, the snapshot goes to the other half under a higher
// sequence number. An I/O error is never retried in place: the store is failed() from then on and every put says so.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/files.hpp"

namespace luge::io {

class MetaStore {
 public:
  /// One change of a batch: a value, or nothing to erase the key.
  using Change = std::pair<std::string, std::optional<std::string>>;

  /// Region [offset, offset + bytes) of `file`; bytes is a multiple of 8 KiB, at least 64 KiB. A region of zeros is
  /// an empty store. corrupt: neither half has a readable snapshot though the region is not blank, or a change that
  /// had been acknowledged has gone bad (a valid batch stands behind a bad one, which no crash leaves behind).
  /// `file` is shared with the caller and outlives the store.
  static Task<Result<std::unique_ptr<MetaStore>>> open(World& world, BlockFile& file, std::uint64_t offset,
                                                       std::uint64_t bytes);
  virtual ~MetaStore() = default;

  virtual std::optional<std::string_view> get(std::string_view key) const = 0;
  /// All pairs whose key starts with `prefix`, in key order. Valid until the next put().
  virtual std::vector<std::pair<std::string_view, std::string_view>> list(std::string_view prefix) const = 0;

  enum class Kind { needed, refusable };  ///< refusable: something new that may be turned down, so that what is needed always has room
  /// All changes or none; durable when it returns ok; visible to get() only then. Concurrent calls are grouped.
  /// no_space: the state would not fit in half the region; for Kind::refusable, in half of that.
  virtual Task<Status> put(std::vector<Change> changes, Kind kind = Kind::needed) = 0;
  Task<Status> put(std::string key, std::string value) {
    std::vector<Change> c;
    c.emplace_back(std::move(key), std::move(value));
    return put(std::move(c));
  }
  virtual bool failed() const = 0;
};

}  // namespace luge::io
