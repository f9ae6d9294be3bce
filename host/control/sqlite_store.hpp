// The Store in one SQLite file. It runs in WAL mode with synchronous=FULL (one fsync per transaction, checked at
// open) and in exclusive locking mode, so a second process on the same file is refused. Its mark is a small file beside it,
// PATH.mark: whoever restores a copy of the database alone, or takes it to another machine, finds the VPs doubted (protocol 5.2).
#pragma once

#include "control/store.hpp"

struct sqlite3;

namespace luge::control {

class SqliteStore final : public Store {
 public:
  static constexpr int kSchemaVersion = 2;
  struct Fresh {
    std::uint64_t unit = 0, incarnation = 0;  ///< for a store that does not exist yet; not 0
  };
  /// exists: another process has it open. wrong_version: made by another version. corrupt: not a store of ours, or
  /// damaged. wrong_unit: `unit` != 0 and the store is another unit's.
  static Result<std::unique_ptr<Store>> open(const std::string& path, Fresh fresh, std::uint64_t unit = 0);
  ~SqliteStore() override;

 protected:
  Status persist(const Change& change) override;
  Status remember(const StoreMark& mark) override;

 private:
  SqliteStore() = default;
  Status open_file(const std::string& path);
  Status make_schema(Fresh fresh);
  Status load();
  Result<StoreMark> find_mark();
  Status open_mark(bool fresh, std::uint64_t next_incarnation);
  Status run(const char* sql);
  Status fail(const std::string& what);
  Status write(const Change& change);
  Status check_swaps(const Change& change);

  std::string path_;
  sqlite3* db_ = nullptr;
  int mark_ = -1;
  Status failed_;
};

}  // namespace luge::control
