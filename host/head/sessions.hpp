// The client sessions of one VP and the sequence numbers they have had applied: part of the replicated state, so
// that a repeat is answered and not applied again, also after a promotion (protocol 2.3).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "head/record.hpp"

namespace luge::head {

class Sessions {
 public:
  struct Session {
    std::uint64_t incarnation = 0;
    Lsn logged_at = 0;                         ///< of a record in this replica's log that says so; 0: none is known
    std::uint64_t low = 0;                     ///< everything below was answered and will not be sent again
    std::map<std::uint64_t, Lsn> answered;     ///< sequence -> LSN, only sequences >= low; at most the window
  };

  /// Takes note of a record that carries a request, or opens a session. Older incarnations are closed.
  void apply(const RecordHeader& header);
  /// The LSN that `sequence` got, 0 for one below low (answered long ago), nothing if it is new.
  std::optional<Lsn> find(std::uint64_t attachment, std::uint64_t incarnation, std::uint64_t sequence) const;
  /// Incarnation now open for the attachment (0: none).
  std::uint64_t incarnation(std::uint64_t attachment) const;
  /// A record of this replica's log says so. Without one the incarnation may be known here alone: an opening that was truncated.
  bool logged(std::uint64_t attachment) const;
  /// Attachments that are remembered. None is ever forgotten: an older incarnation of it could write again.
  std::size_t size() const { return sessions_.size(); }

  /// Leaves out requests beyond `up_to`.
  std::vector<flatbuffers::Offset<fbs::Session>> save(flatbuffers::FlatBufferBuilder& b, Lsn up_to) const;
  /// Merges what was saved with what is known (used with images and index records, in LSN order).
  void merge(const flatbuffers::Vector<flatbuffers::Offset<fbs::Session>>* saved);
  void merge_from(const Sessions& newer);
  /// Requests whose records were truncated count as never seen.
  void forget_after(Lsn lsn);
  void clear() { sessions_.clear(); }

 private:
  Session& open(std::uint64_t attachment, std::uint64_t incarnation);
  static void prune(Session& s, std::uint64_t low);
  std::map<std::uint64_t, Session> sessions_;
};

}  // namespace luge::head
