#include "card/coder.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "coding/matrix.hpp"

namespace luge::card {
namespace {

constexpr std::size_t kJobBytes = 1u << 20;  // of sources and results in one job: a slow card must show progress within job_limit
constexpr std::size_t kAhead = 3;            // jobs of one call on their way at once

// What one call wants multiplied: `from` and `to` of one size, a row of coefficients for each of `to`.
struct Work {
  bool decode = false;
  std::vector<Bytes> from;
  std::vector<MutableBytes> to;
  std::vector<std::uint8_t> rows;  // to.size() x from.size()
  std::uint32_t k = 0, m = 0, present = 0, wanted = 0;  // the pattern, as in JobMessage
  coding::Authority who;
};

// A piece of the work on its way, with the memory of the pool that stands in for the caller's where that is not of the pool.
struct Piece {
  std::shared_ptr<Job> job = std::make_shared<Job>();
  std::size_t at = 0, bytes = 0;
  std::vector<Buffer> stand_ins;                         // kept until the job has ended
  std::vector<std::pair<std::size_t, Buffer>> results;   // to be copied out: index into Work::to
};

// False: the pool has no room now.
bool place(Link& link, const Work& work, Piece& p) {
  Pool& pool = *link.pool();
  auto stand_in = [&](std::uint64_t& offset, Buffer& b) {
    b = pool.take(p.bytes, true);
    if (b.empty()) return false;
    offset = *pool.offset_of(b.bytes());
    p.stand_ins.push_back(b);
    p.job->pins.push_back(pool.pin(offset));
    return true;
  };
  JobMessage& m = p.job->message;
  for (std::size_t i = 0; i < work.from.size(); ++i) {
    Bytes part = work.from[i].subspan(p.at, p.bytes);
    if (auto offset = pool.offset_of(part)) {
      m.source[i] = *offset;
      p.job->pins.push_back(pool.pin(*offset));
      continue;
    }
    Buffer b;
    if (!stand_in(m.source[i], b)) return false;
    std::memcpy(b.data(), part.data(), p.bytes);
    link.counters().copied_bytes += p.bytes;
  }
  for (std::size_t i = 0; i < work.to.size(); ++i) {
    if (auto offset = pool.offset_of(work.to[i].subspan(p.at, p.bytes))) {
      m.destination[i] = *offset;
      p.job->pins.push_back(pool.pin(*offset));
      continue;
    }
    Buffer b;
    if (!stand_in(m.destination[i], b)) return false;
    p.results.emplace_back(i, b);
  }
  return true;
}

void describe(const Work& work, Piece& p) {
  JobMessage& m = p.job->message;
  m.sources = static_cast<std::uint32_t>(work.from.size()), m.rows = static_cast<std::uint32_t>(work.to.size());
  m.length = static_cast<std::uint32_t>(p.bytes), m.decode = work.decode;
  m.k = work.k, m.m = work.m, m.present = work.present, m.wanted = work.wanted;
  m.partition = work.who.partition, m.epoch = work.who.epoch;
  for (std::size_t r = 0; r < work.to.size(); ++r)
    for (std::size_t j = 0; j < work.from.size(); ++j) m.coefficients[16 * r + j] = work.rows[r * work.from.size() + j];
}

io::Task<Status> finish(std::shared_ptr<Link> link, const Work& work, std::deque<Piece>& on_way) {
  Piece p = std::move(on_way.front());
  on_way.pop_front();
  co_await link->ended(p.job);
  if (!p.job->status.ok()) co_return p.job->status;
  for (auto& [i, b] : p.results) {
    std::memcpy(work.to[i].data() + p.at, b.data(), p.bytes);
    link->counters().copied_bytes += p.bytes;
  }
  co_return Status();
}

// Pieces are worked on one after the other, some at once. After an error those on their way are awaited all the same: they write into
// the caller's memory.
io::Task<Status> run(std::shared_ptr<Link> link, Work work) {
  if (!link->status().ok()) co_return link->status();
  const std::size_t bytes = work.from[0].size();
  const std::size_t length = std::max<std::size_t>(kPage, kJobBytes / (work.from.size() + work.to.size()) / kPage * kPage);
  std::deque<Piece> on_way;
  Status result;
  for (std::size_t at = 0; at < bytes && result.ok();) {
    if (on_way.size() >= kAhead) {
      result = co_await finish(link, work, on_way);
      continue;
    }
    Piece p;
    p.at = at, p.bytes = std::min(length, bytes - at);
    if (!place(*link, work, p)) {
      p = {};
      if (!link->status().ok()) result = link->status();
      else if (!on_way.empty()) result = co_await finish(link, work, on_way);
      else if (link->in_flight() != 0) co_await link->any_ended();
      else result = Status(Code::no_space, "the card's pool has no room for a job");
      continue;
    }
    describe(work, p);
    link->start(p.job);
    on_way.push_back(std::move(p));
    at += on_way.back().bytes;
  }
  while (!on_way.empty()) {
    Status s = co_await finish(link, work, on_way);
    if (result.ok()) result = s;
  }
  co_return result;
}

Status check_sizes(std::size_t bytes, std::span<const Bytes> from, std::span<const MutableBytes> to) {
  auto same = [&](auto b) { return b.size() == bytes; };
  if (!std::all_of(from.begin(), from.end(), same) || !std::all_of(to.begin(), to.end(), same)) return Status(Code::invalid, "chunks differ in size");
  if (bytes % 64 != 0) return Status(Code::invalid, "chunk size is not a multiple of 64");
  return Status();
}

class LinkCoder final : public coding::ErasureCoder {
 public:
  LinkCoder(std::weak_ptr<Link> link, std::string name) : link_(std::move(link)), name_(std::move(name)) {}

  io::Task<Status> encode(Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override { return encode_for({}, l, data, parity); }
  io::Task<Status> encode_for(coding::Authority who, Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override {
    auto link = link_.lock();
    if (!link) co_return Status(Code::unavailable, "the card has been closed");
    co_return co_await encode_on(link, l, data, parity, who);
  }
  io::Task<Status> reconstruct(Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted,
                               std::span<const MutableBytes> out) override {
    auto link = link_.lock();
    if (!link) co_return Status(Code::unavailable, "the card has been closed");
    co_return co_await reconstruct_on(link, l, present, wanted, out);
  }
  std::string_view name() const override { return name_; }
  Buffer allocate(std::size_t bytes) override {
    auto link = link_.lock();
    Buffer b = link && link->pool() ? link->pool()->take(bytes, false) : Buffer();
    return b.empty() ? Buffer::allocate(bytes) : b;
  }

 private:
  std::weak_ptr<Link> link_;
  std::string name_;
};

}  // namespace

std::shared_ptr<coding::ErasureCoder> make_link_coder(std::weak_ptr<Link> link, std::string name) {
  return std::make_shared<LinkCoder>(std::move(link), std::move(name));
}

io::Task<Status> encode_on(std::shared_ptr<Link> link, Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity,
                           coding::Authority who) {
  if (Status s = coding::check_layout(l); !s.ok()) co_return s;
  if (data.size() != l.k || parity.size() != l.m) co_return Status(Code::invalid, "chunk count is not that of the layout");
  if (Status s = check_sizes(data[0].size(), data, parity); !s.ok()) co_return s;
  if (l.m == 0 || data[0].empty()) co_return Status();
  std::vector<std::uint32_t> sources(l.k), wanted(l.m);
  std::iota(sources.begin(), sources.end(), 0);
  std::iota(wanted.begin(), wanted.end(), l.k);
  auto rows = coding::coefficients(l, sources, wanted);
  if (!rows.ok()) co_return rows.status();
  Work work{false, {data.begin(), data.end()}, {parity.begin(), parity.end()}, std::move(*rows)};
  work.who = who;
  co_return co_await run(link, std::move(work));
}

// What a card's firmware needs to make the coefficients itself. It gives rows in the order of the chunks: another order it is not asked for.
static void name_pattern(Work& work, Layout l, std::span<const std::uint32_t> sources, std::span<const std::uint32_t> wanted) {
  if (!std::is_sorted(wanted.begin(), wanted.end(), std::less_equal<>())) return;
  work.k = l.k, work.m = l.m;
  for (std::uint32_t i : sources) work.present |= 1u << i;
  for (std::uint32_t i : wanted) work.wanted |= 1u << i;
}

// The card makes as many chunks at once as it has rows; more are made in turns.
io::Task<Status> reconstruct_on(std::shared_ptr<Link> link, Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted,
                                std::span<const MutableBytes> out) {
  if (Status s = coding::check_layout(l); !s.ok()) co_return s;
  if (present.size() != l.width() || wanted.size() != out.size() || wanted.empty() || wanted.size() > l.width())
    co_return Status(Code::invalid, "chunk count is not that of the layout");
  for (std::uint32_t w : wanted)
    if (w >= l.width()) co_return Status(Code::invalid, "no chunk " + std::to_string(w) + " in " + to_string(l));
  auto sources = coding::choose_sources(l, present);
  if (!sources.ok()) co_return sources.status();
  std::vector<Bytes> from;
  for (std::uint32_t i : *sources) from.push_back(present[i]);
  if (Status s = check_sizes(from[0].size(), from, out); !s.ok()) co_return s;
  for (std::size_t at = 0; at < wanted.size(); at += kMessageRows) {
    std::size_t n = std::min<std::size_t>(kMessageRows, wanted.size() - at);
    auto rows = coding::coefficients(l, *sources, wanted.subspan(at, n));
    if (!rows.ok()) co_return rows.status();
    Work work{true, from, {out.begin() + static_cast<std::ptrdiff_t>(at), out.begin() + static_cast<std::ptrdiff_t>(at + n)}, std::move(*rows)};
    name_pattern(work, l, *sources, wanted.subspan(at, n));
    Status s = co_await run(link, std::move(work));
    if (!s.ok()) co_return s;
  }
  co_return Status();
}

namespace {

struct TestStripe {
  Layout layout;
  std::vector<Buffer> chunks;  // right ones
};

io::Task<Status> compare(std::span<const Buffer> right, std::span<const Buffer> got, Layout l, std::size_t bytes, const char* what) {
  for (std::size_t i = 0; i < right.size(); ++i)
    if (std::memcmp(right[i].data(), got[i].data(), bytes) != 0)
      co_return Status(Code::corrupt, std::string("self-test: the card's ") + what + " of " + to_string(l) + ", " + std::to_string(bytes) + " bytes, differs from ISA-L's");
  co_return Status();
}

// Encodes, loses the first m chunks, decodes them.
io::Task<Status> test_layout(std::shared_ptr<Link> link, coding::ErasureCoder& software, Layout l, std::size_t bytes, std::uint64_t& seed) {
  std::vector<Buffer> chunks, made;
  std::vector<Bytes> data, present(l.width());
  std::vector<MutableBytes> right, parity;
  for (std::uint32_t i = 0; i < l.width(); ++i) {
    chunks.push_back(Buffer::allocate(bytes));
    if (i < l.k) {
      for (std::size_t at = 0; at < bytes; at += 8) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        std::memcpy(chunks[i].data() + at, &seed, 8);
      }
      data.push_back(chunks[i].bytes());
    } else {
      right.push_back(chunks[i].mutable_bytes());
    }
  }
  if (Status s = co_await software.encode(l, data, right); !s.ok()) co_return s;
  for (std::uint32_t i = 0; i < l.m; ++i) made.push_back(Buffer::zeros(bytes)), parity.push_back(made[i].mutable_bytes());
  if (Status s = co_await encode_on(link, l, data, parity); !s.ok()) co_return s;
  if (Status s = co_await compare(std::span(chunks).subspan(l.k), made, l, bytes, "parity"); !s.ok()) co_return s;
  std::uint32_t lost = std::min(l.k, l.m);
  std::vector<std::uint32_t> wanted;
  for (std::uint32_t i = 0; i < l.width(); ++i)
    if (i < lost) wanted.push_back(i);
    else present[i] = chunks[i].bytes();
  std::vector<MutableBytes> out(parity.begin(), parity.begin() + lost);
  if (Status s = co_await reconstruct_on(link, l, present, wanted, out); !s.ok()) co_return s;
  co_return co_await compare(std::span(chunks).first(lost), made, l, bytes, "decoded chunk");
}

}  // namespace

io::Task<Status> self_test_on(std::shared_ptr<Link> link) {
  auto software = coding::make_isal_coder();
  std::uint64_t seed = 0x9e3779b97f4a7c15;
  for (std::uint32_t k : {1u, 2u, 4u, 8u, 10u, 16u})
    for (std::uint32_t m = 1; m <= coding::kMaxParity; ++m)
      if (Status s = co_await test_layout(link, *software, {k, m}, 64 * (1 + (k * 7 + m * 13) % 150), seed); !s.ok()) co_return s;
  co_return Status();
}

}  // namespace luge::card
