// What the disks of the simulated sleds really hold, read without any daemon's help: the formats (sled/device_format.hpp,
// coding/chunk_header.hpp) and a stripe table are enough. For oracles, and to damage chunks with an aim.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "head/replica.hpp"
#include "sim/cluster/unit.hpp"

namespace luge::sim {

class Media {
 public:
  Media(Simulation& sim, const Unit& unit) : sim_(sim), unit_(unit) {}

  struct Slot {
    Node node = 0;
    std::string path;
    std::uint64_t offset = 0, bytes = 0;  ///< header area and chunk
  };
  /// Where chunk `i` of the stripe should be; nothing if it was never written or its device cannot be read.
  std::optional<Slot> slot(const head::StripeRow& row, std::uint32_t i) const;
  /// Chunk `i`, if its slot holds it whole: right header, right stripe, every block as its checksum says.
  std::optional<Buffer> chunk(const head::StripeRow& row, std::uint32_t i) const;
  /// Chunk `i` now holds something else under right checksums: parity that a coder got wrong and nobody compared. It counts
  /// as gone from here on. False: there is no whole chunk to do that to. REQUIRES: i >= k.
  bool forge_parity(const head::StripeRow& row, std::uint32_t i);

  /// Nothing, or what is wrong with the stripe: a chunk that has a place and that it may not `lack` is not whole, two are on one sled, or
  /// the whole ones are not chunks of the same data. With `few` it may also have fewer than k of them.
  using Lack = std::function<bool(std::uint32_t chunk)>;
  std::optional<std::string> check(const head::StripeRow& row, const Lack& lack, bool few) const;

  /// Chunks of checkpoints, whoever wrote them.
  struct CheckpointChunk {
    Slot blocks;  ///< without the header
    VpId vp = 0;
    std::uint64_t id = 0;
    Lsn lsn = 0;
  };
  std::vector<CheckpointChunk> checkpoint_chunks() const;

  /// A data record; `crc` is over the checksums of its blocks, too.
  struct LoggedRecord {
    VpId vp = 0;
    Lsn lsn = 0;
    std::uint32_t crc = 0;
    auto operator<=>(const LoggedRecord&) const = default;
  };
  struct Logged {
    std::set<LoggedRecord> records;
    std::string damage;  ///< what the head would call rot and not the torn end of its log, the first of it; empty: nothing
  };
  /// Those that a head would find with all their blocks in its log if it lost its power now, read as a recovery reads it
  /// (head/segment_log.cpp): what that takes for torn does not count, though whole records lie there.
  Logged logged_data(NodeId head) const;

 private:
  Simulation& sim_;
  const Unit& unit_;
  std::set<std::pair<StripeId, std::uint32_t>> forged_;
};

}  // namespace luge::sim
