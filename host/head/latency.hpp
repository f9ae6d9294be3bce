// How long the members of a VP take to make the same appends durable, as its primary sees it, and what follows from that
// (protocol 3.5). No I/O and no clock: the primary says what happened when.
//
// A *sample* is one append, timed at the primary's own log and at each member that takes records. A *window* ends when it is long
// enough and has samples enough; its medians are compared. What a member does is judged against the primary's own append of the
// same records, so a unit that is slow as a whole has no slow member; and below an absolute floor nobody is slow, however fast the
// others are. Several windows in a row must say the same, and changes keep a distance: no slowness is worth a set that swings.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "io/world.hpp"
#include "wire/designation.hpp"

namespace luge::head {

struct LatencyLimits {
  std::uint64_t factor = 4;  ///< slow: this many times as long as the one it is measured against, ...
  io::Duration floor = std::chrono::milliseconds(20);  ///< ... and longer than that by at least this. factor 0: nobody ever is
  std::uint64_t back = 2;    ///< not slow any more: less than this many times as long, or longer by less than half the floor
  io::Duration gap = std::chrono::seconds(10);    ///< least time between two changes
  io::Duration window = std::chrono::seconds(1);  ///< shortest window
  std::uint32_t samples = 200;                    ///< least samples of a window
  std::uint32_t windows = 3;                      ///< so many in a row must agree
};

class LatencyWatch {
 public:
  LatencyWatch(const LatencyLimits& limits, NodeId self, io::Time now);

  /// The member takes records from `after` on, or does not any more. At most kMost members at once; others are not judged.
  void follow(NodeId member, Lsn after);
  void unfollow(NodeId member);
  void appended(Lsn lsn, io::Time now);
  /// `who` (self or a member) has everything up to `lsn` on its medium.
  void durable(NodeId who, Lsn lsn, io::Time now);

  enum class Kind { leave, back, hand_over };
  struct Change {
    Kind kind;
    NodeId node;  ///< who leaves or comes back; who is to be primary
  };
  /// Asked some times a second. What is returned counts as done: slow() says so from then on.
  std::optional<Change> judge(const wire::Designation& d, io::Time now);
  /// Need not acknowledge, because it is slow.
  bool slow(NodeId member) const;
  /// Median of the last complete window; zero: there is none.
  io::Duration latency(NodeId who) const;

 private:
  static constexpr std::size_t kMost = 8;  // with the primary itself, which is in place 0
  static constexpr io::Duration kOldest = std::chrono::seconds(2);  // an answer that takes longer counts as this
  static constexpr std::size_t kMostOpen = 4096;  // in what nobody takes
  static constexpr io::Duration kSpacing = std::chrono::milliseconds(1);  // of samples beyond those that a window needs
  struct Party {
    NodeId node = 0;
    bool followed = false;
    Lsn after = 0;
    std::vector<io::Duration> window{};
    io::Duration median{};
    std::uint32_t windows_slow = 0, windows_fine = 0;
    bool slow = false;
  };
  struct Sample {
    Lsn lsn;
    io::Time at;
    std::array<io::Duration, kMost> took;  // negative: no answer yet
  };
  Party* party(NodeId node);
  const Party* party(NodeId node) const { return const_cast<LatencyWatch*>(this)->party(node); }
  bool awaits(const Party& p, const Sample& s) const { return p.followed && s.lsn > p.after; }
  void take_complete(io::Time now);
  void end_window(const wire::Designation& d, io::Time now);
  bool slower(io::Duration a, io::Duration than) const;
  bool fine(io::Duration a, io::Duration than) const;
  std::optional<Change> hand_over(const wire::Designation& d) const;
  std::optional<Change> leave(const wire::Designation& d) const;

  LatencyLimits limits_;
  std::vector<Party> parties_;
  std::deque<Sample> open_;
  io::Time window_begin_, last_change_, last_sample_{};
};

}  // namespace luge::head
