// What a head is told at its start. Sizes in bytes.
#pragma once

#include <string>

#include "base/ids.hpp"
#include "head/latency.hpp"
#include "io/world.hpp"

namespace luge::head {

using namespace std::chrono_literals;

struct Options {
  NodeId id = 0;
  std::string name;
  std::string listen;                    ///< where peers and attaches reach this head
  std::string control;                   ///< address of the control plane
  std::uint32_t pid = 0;                 ///< for status
  std::uint64_t unit = 0;                ///< 0: learned at the first registration
  std::uint64_t log_bytes = 1ull << 30;  ///< volume-data portion
  std::uint64_t meta_bytes = 128 << 20;  ///< metadata portion, at first
  std::uint64_t meta_bytes_most = 8ull << 30;  ///< ... and as far as it may grow: images of what the volumes map must fit
  std::uint64_t meta_store_bytes = 4 << 20;  ///< file of the designations and of the segments' tables
  std::uint64_t segment_bytes = 16 << 20;
  std::uint64_t meta_segment_bytes = 4 << 20;
  std::uint32_t chunk_bytes = 128 << 10;
  bool codes_itself = false;             ///< new stripes are coded by this head, not by a sled
  std::uint64_t memory_bytes = 256 << 20; ///< payloads kept in memory for reads and flushes

  std::uint64_t flush_bytes = 64 << 20;   ///< a flush starts at this much unflushed data per VP ...
  io::Duration flush_age = 20s;           ///< ... or when the oldest has waited this long ...
  io::Duration flush_idle = 3s;           ///< ... or when nothing was written for this long ...
  std::uint32_t flush_fill = 400;         ///< ... or at this fill (1/1000) of its own or a reserve's log
  std::uint32_t slow_fill = 700;          ///< writes are slowed from here ...
  std::uint32_t high_fill = 850;          ///< ... and wait from here
  std::uint32_t image_fill = 125;         ///< data portion: from here images are written so that drained segments can be used again
  std::uint32_t meta_high_fill = 750;     ///< metadata portion: new data waits from here; what is left belongs to index records, epochs and cleaning
  std::uint32_t clean_fill = 500;         ///< metadata portion: images are written, old segments freed; above 1000: never

  /// Which replicas write checkpoints of their metadata to the sleds; none: nor are any loaded.
  enum class Checkpoints { none, primary, all };
  Checkpoints checkpoints = Checkpoints::all;
  std::uint64_t checkpoint_growth = 1 << 20;  ///< one is due after this much of metadata records of a VP ...
  io::Duration checkpoint_age = 60s;          ///< ... or when the last is this old and anything has changed ...
  std::uint32_t checkpoint_pages = 2048;      ///< ... or when so many index pages have changed
  std::uint32_t checkpoint_percent = 200;     ///< of the metadata records, so much is written at most (parity and headers counted)
  std::uint32_t checkpoint_chain = 64;        ///< so many that say only what has changed stand on a whole one, if that can be written then
  std::uint32_t checkpoint_chunk_bytes = 16 << 10;
  io::Duration checkpoint_poll = 200ms;       ///< how often it is looked whether one is due

  std::uint32_t most_attachments = 4096;  ///< that a partition remembers, its volume's own aside

  bool lease_reads = true;                ///< else each batch of reads is confirmed by a round to `required`
  io::Duration heartbeat = 100ms;
  io::Duration short_loss = 300ms;        ///< a member away for less is waited for, not removed (protocol 3.1)
  io::Duration replace_after = 5s;        ///< another head takes the place of a member that the failure agent has given up for this long
  io::Duration silent_member = 1500ms;    ///< a connected member that answers nothing for this long is removed
  io::Duration io_timeout = 30s;          ///< a log or metadata store whose disk takes longer for an operation has failed
  io::Duration stuck_member = 10s;        ///< ... or that answers, but has nothing more durable for this long though records are outstanding
  LatencyLimits latency;                  ///< when a member that answers, but late, is not waited for
};

}  // namespace luge::head
