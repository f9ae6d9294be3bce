// Reads blocks of a stripe from the sleds; what cannot be read is rebuilt from any k chunks (RD-03): by one of the
// stripe's sleds, whose coder it is (A9), or here if none can. Each block is checked against the CRC and identity that every
// chunk's header carries for the whole stripe (protocol 8.6): other sets of k are tried here on a mismatch, then an error, never
// wrong bytes.
#pragma once

#include <optional>

#include "coding/chunk_header.hpp"
#include "head/context.hpp"
#include "head/replica.hpp"

namespace luge::head {

class StripeReader {
 public:
  explicit StripeReader(Context& ctx) : ctx_(ctx) {}
  /// Blocks [block, block + crcs.size()) of the stripe (all in one data chunk), which must be the LBAs from `lba` on, and into `crcs`
  /// the checksums they were written with. degraded: fewer than k chunks can be read now; the text names the sleds. corrupt: all that
  /// were written have been asked for, and no k of them give the blocks.
  io::Task<Result<Buffer>> read(StripeRow row, std::uint32_t block, Lba lba, std::span<std::uint32_t> crcs);
  bool reconstructed() const { return reconstructed_; }  ///< what read() gave was rebuilt from other chunks
  /// All data chunks of the stripe behind each other, and the identity of each block. Errors as read(). `front`: only so many data
  /// chunks, the others and parity are asked for if one of these does not read; 0: all are, and parity too.
  struct Whole {
    Buffer data;
    std::vector<fbs::BlockIdentity> identities;
    std::uint32_t chunks = 0;  ///< that could be read, parity included
    std::uint64_t bytes = 0;   ///< of them, as the sleds have sent them
  };
  io::Task<Result<Whole>> read_whole(StripeRow row, std::uint32_t front = 0);

 private:
  struct Piece {
    Buffer blocks;
    Buffer header;
    const flatbuffers::Vector<const fbs::BlockIdentity*>* identities = nullptr;  // one per block, in the memory of `answer`
    std::shared_ptr<const void> answer;
  };
  io::Task<Result<Piece>> read_chunk(const StripeRow& row, std::uint32_t chunk, std::uint32_t first, std::uint32_t count,
                                     bool want_header);
  struct Gathered {
    std::vector<std::optional<Piece>> pieces;  // by chunk
    std::optional<coding::ChunkHeader> header;
    std::string missing;
    bool may_come_back = false;                // some could not be asked for, or their device fails: they may be whole
  };
  /// Blocks [first, first + count) of every chunk below `end` that can be read, but `without`, and a header of the stripe.
  io::Task<void> gather(const StripeRow& row, std::uint32_t without, std::uint32_t end, std::uint32_t first, std::uint32_t count, Gathered& got);
  /// Blocks [first, first + count) of `chunk` as a sled rebuilds them. Not ok: whatever the reason, none has.
  struct Rebuilt {
    Buffer blocks;
    std::vector<fbs::BlockIdentity> identities;
  };
  io::Task<Result<Rebuilt>> rebuilt_by_sled(const StripeRow& row, std::uint32_t chunk, std::uint32_t first, std::uint32_t count);
  io::Task<Status> decode(const StripeRow& row, std::span<const Bytes> present, std::uint32_t chunk, MutableBytes out);
  /// `why`: the chunk itself could not be read.
  io::Task<Result<Buffer>> rebuild(const StripeRow& row, std::uint32_t chunk, std::uint32_t first, Lba lba, std::span<std::uint32_t> crcs, Status why);
  Context& ctx_;
  bool reconstructed_ = false;
};

}  // namespace luge::head
