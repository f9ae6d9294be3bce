// What clients of one volume asked and were answered, and the oracle: is it linearizable, block by block?
//
// The register is a 4 KiB block of eight 512-byte sectors. A write of whole blocks sets all eight at one instant, a
// sub-block write sets some of them at one instant, so that both torn blocks and lost merges are caught. Blocks are
// independent: a request over several blocks may take effect in each at another instant. Requests are sector aligned.
//
// Every write has a number of its own and fills its sectors with a pattern made of that number and the sector's place,
// so that each sector read tells which write it came from, or that no write wrote such a thing. Trim and write-zeroes
// write zeros; an unwritten sector is zeros.
//
// Outcomes: completed; failed (certain never to take effect); unknown (neither was called: it may take effect at any
// time after it was asked, or never). fence() bounds the unknown: a client that a newer incarnation has replaced can
// have no effect afterwards (protocol rule 2.3).
//
// Invariant of the check: it is exact (a Wing & Gong search with memory of failed states), with two sound shortcuts:
// a read that fits the present state is placed at once, unless that would shut out an unknown one; an unknown write
// that no read saw never happened, and one that was seen happened before the earliest such read ended.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/ids.hpp"
#include "io/world.hpp"

namespace luge::sim {

class History {
 public:
  using Time = io::Duration;  ///< true (virtual) time
  using Op = std::size_t;
  enum class Kind : std::uint8_t { write, zero, read };
  static constexpr std::uint32_t kSector = 512;
  static constexpr std::uint32_t kSectors = kBlockBytes / kSector;
  static constexpr Time kNever = Time::max();

  /// REQUIRES for all: offset and length are multiples of 512, length > 0.
  Op invoke_write(std::uint32_t client, Time now, std::uint64_t offset, std::uint64_t length);
  Op invoke_zero(std::uint32_t client, Time now, std::uint64_t offset, std::uint64_t length);
  Op invoke_read(std::uint32_t client, Time now, std::uint64_t offset, std::uint64_t length);
  /// The bytes that write `op` must send. REQUIRES: into.size() is its length.
  void fill(Op op, MutableBytes into) const;

  void complete(Op op, Time now);
  void complete_read(Op op, Time now, Bytes bytes);
  void failed(Op op);
  /// What `client` has asked and not been answered takes effect before `now` or never; what it asks later has none.
  void fence(std::uint32_t client, Time now);

  std::size_t size() const { return ops_.size(); }
  std::size_t completed() const { return completed_; }
  /// Neither completed, nor failed, nor fenced.
  std::size_t open() const { return open_; }
  std::vector<Op> open_ops() const;
  std::string describe(Op op) const;
  Kind kind(Op op) const { return ops_.at(op).kind; }

  /// Nothing, or the first block (by number) whose history no order explains, with that history in readable form.
  std::optional<std::string> check() const;
  /// For a report of one block.
  std::string print_block(std::uint64_t block) const;

 private:
  using Values = std::array<std::uint32_t, kSectors>;  // number of the write in each sector; 0: zeros
  static constexpr std::uint32_t kGarbage = ~std::uint32_t{0};

  struct Record {
    std::uint32_t client = 0;
    Kind kind = Kind::read;
    bool failed = false;
    std::uint64_t offset = 0, length = 0;
    Time invoked{0};
    Time returned = kNever;
    Time fenced = kNever;
    std::vector<std::uint32_t> read;  // one per sector, once completed
  };
  struct BlockOp {
    Op op;
    Kind kind;
    std::uint8_t mask;
    Values values;
    Time invoked, returned;
    bool optional;  // may also never happen
  };
  struct Search;

  Op add(Record r);
  std::uint32_t value_at(std::uint64_t sector, Bytes bytes) const;
  std::map<std::uint64_t, std::vector<BlockOp>> by_block() const;
  static void settle_unknown(std::vector<BlockOp>& ops);
  static void sort(std::vector<BlockOp>& ops);
  std::optional<std::string> check_block(std::uint64_t block, const std::vector<BlockOp>& ops) const;
  std::optional<std::string> impossible_read(std::uint64_t block, const std::vector<BlockOp>& ops) const;
  std::string line(const BlockOp& o) const;

  std::vector<Record> ops_;
  std::map<std::uint32_t, Time> fenced_clients_;
  std::size_t completed_ = 0, open_ = 0;
};

}  // namespace luge::sim
