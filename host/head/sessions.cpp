#include "head/sessions.hpp"

namespace luge::head {

Sessions::Session& Sessions::open(std::uint64_t attachment, std::uint64_t incarnation) {
  Session& s = sessions_[attachment];
  if (incarnation > s.incarnation) {
    s = Session();
    s.incarnation = incarnation;
  }
  return s;
}

void Sessions::prune(Session& s, std::uint64_t low) {
  if (low <= s.low) return;
  s.low = low;
  s.answered.erase(s.answered.begin(), s.answered.lower_bound(low));
}

void Sessions::apply(const RecordHeader& h) {
  if (h.incarnation() == 0) return;
  Session& s = open(h.attachment(), h.incarnation());
  if (h.incarnation() < s.incarnation) return;
  if (s.logged_at == 0) s.logged_at = h.lsn();
  prune(s, h.low());
  if (h.sequence() != 0 && h.sequence() >= s.low) s.answered[h.sequence()] = h.lsn();
}

std::optional<Lsn> Sessions::find(std::uint64_t attachment, std::uint64_t incarnation, std::uint64_t sequence) const {
  auto it = sessions_.find(attachment);
  if (it == sessions_.end() || it->second.incarnation != incarnation) return std::nullopt;
  if (sequence < it->second.low) return Lsn{0};
  auto a = it->second.answered.find(sequence);
  if (a == it->second.answered.end()) return std::nullopt;
  return a->second;
}

std::uint64_t Sessions::incarnation(std::uint64_t attachment) const {
  auto it = sessions_.find(attachment);
  return it == sessions_.end() ? 0 : it->second.incarnation;
}

bool Sessions::logged(std::uint64_t attachment) const {
  auto it = sessions_.find(attachment);
  return it != sessions_.end() && it->second.logged_at != 0;
}

std::vector<flatbuffers::Offset<fbs::Session>> Sessions::save(flatbuffers::FlatBufferBuilder& b,
                                                              Lsn up_to) const {
  std::vector<flatbuffers::Offset<fbs::Session>> out;
  for (const auto& [attachment, s] : sessions_) {
    std::vector<fbs::Answered> answered;
    answered.reserve(s.answered.size());
    for (auto [sequence, lsn] : s.answered)
      if (lsn <= up_to) answered.emplace_back(sequence, lsn);
    auto list = b.CreateVectorOfStructs(answered);
    out.push_back(fbs::CreateSession(b, attachment, s.incarnation, s.low, list));
  }
  return out;
}

void Sessions::merge(const flatbuffers::Vector<flatbuffers::Offset<fbs::Session>>* saved) {
  if (saved == nullptr) return;
  for (const fbs::Session* from : *saved) {
    Session& s = open(from->attachment(), from->incarnation());
    if (from->incarnation() < s.incarnation) continue;
    prune(s, from->low());
    if (from->answered() == nullptr) continue;
    for (const fbs::Answered* a : *from->answered())
      if (a->sequence() >= s.low) s.answered[a->sequence()] = a->lsn();
  }
}

void Sessions::merge_from(const Sessions& newer) {
  for (const auto& [attachment, from] : newer.sessions_) {
    Session& s = open(attachment, from.incarnation);
    if (from.incarnation < s.incarnation) continue;
    prune(s, from.low);
    for (auto [sequence, lsn] : from.answered)
      if (sequence >= s.low) s.answered[sequence] = lsn;
  }
}

void Sessions::forget_after(Lsn lsn) {
  for (auto& [attachment, s] : sessions_) {
    std::erase_if(s.answered, [&](const auto& a) { return a.second > lsn; });
    if (s.logged_at > lsn) s.logged_at = 0;
  }
}

}  // namespace luge::head
