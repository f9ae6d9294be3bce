#include "io/meta_store.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>

#include "base/ids.hpp"
#include "base/logging.hpp"
#include "io/meta_format.hpp"

namespace luge::io {
namespace {

constexpr std::uint64_t kMinRegion = 64 << 10;

std::uint64_t round_up(std::uint64_t n) { return (n + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

std::uint64_t pair_bytes(std::size_t key, std::size_t value) { return sizeof(MetaPairHeader) + key + value; }

// What stands in a region: zeros where nothing does, and those take no memory. Most of a region is never written to.
class Content {
 public:
  explicit Content(std::uint64_t bytes) : bytes_(bytes), base_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Content() {
    if (valid()) ::munmap(base_, bytes_);
  }
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  bool valid() const { return base_ != MAP_FAILED; }
  std::uint64_t size() const { return bytes_; }
  void put(std::uint64_t at, Bytes piece) {
    for (; !piece.empty(); at += kBlockBytes, piece = piece.subspan(kBlockBytes)) {
      Bytes block = piece.first(kBlockBytes);
      if (all_zero(block)) continue;
      std::memcpy(static_cast<std::byte*>(base_) + at, block.data(), block.size());
      used_ = at + block.size();
    }
  }
  Bytes bytes() const { return {static_cast<const std::byte*>(base_), bytes_}; }
  std::uint64_t used() const { return used_; }  ///< only zeros from here on; pieces are put in order

 private:
  const std::uint64_t bytes_;
  std::uint64_t used_ = 0;
  void* const base_;
};

using Overlay = std::map<std::string, std::optional<std::string>, std::less<>>;

class MetaStoreImpl final : public MetaStore {
 public:
  MetaStoreImpl(World& world, BlockFile& file, std::uint64_t offset, std::uint64_t bytes)
      : file_(file), offset_(offset), half_bytes_(bytes / 2), turn_(world) {}

  Task<Status> load() {
    Content region(2 * half_bytes_);
    if (!region.valid()) co_return Status(Code::no_space, "metadata store: no memory for " + std::to_string(region.size()) + " bytes");
    const std::uint64_t piece_bytes = std::min<std::uint64_t>(1 << 20, region.size());
    const Buffer piece = Buffer::allocate(piece_bytes);
    for (std::uint64_t at = 0; at < region.size(); at += piece_bytes) {
      const Buffer part = piece.slice(0, std::min(piece_bytes, region.size() - at));
      if (Status s = co_await file_.read(offset_ + at, part); !s.ok()) co_return s.with("metadata store");
      region.put(at, part.bytes());
    }
    if (region.used() == 0) {
      // Written before the first put, so that a put that tears never leaves a region without a snapshot.
      co_return co_await write_batch(kMetaSnapshot, 0, 0, {});
    }
    co_return choose(region);
  }

  std::optional<std::string_view> get(std::string_view key) const override {
    auto it = state_.find(key);
    if (it == state_.end()) return std::nullopt;
    return it->second;
  }

  std::vector<std::pair<std::string_view, std::string_view>> list(std::string_view prefix) const override {
    std::vector<std::pair<std::string_view, std::string_view>> found;
    for (auto it = state_.lower_bound(prefix); it != state_.end() && it->first.starts_with(prefix); ++it)
      found.emplace_back(it->first, it->second);
    return found;
  }

  bool failed() const override { return failed_; }

  Task<Status> put(std::vector<Change> changes, Kind kind) override {
    // Shared with the putter that writes for all, which may outlive this one when the World stops.
    auto request = std::make_shared<Request>();
    request->changes = std::move(changes);
    request->limit = kind == Kind::refusable ? capacity() / 2 : capacity();
    queue_.push_back(request);
    while (!request->result) {
      if (writing_) co_await turn_.wait();
      else co_await write_queued();
    }
    co_return *request->result;
  }

 private:
  struct Request {
    std::vector<Change> changes;
    std::uint64_t limit = 0;
    std::optional<Status> result;
  };

  Status choose(const Content& region) {
    Bytes bytes[2] = {region.bytes().first(half_bytes_), region.bytes().subspan(half_bytes_)};
    MetaHalf halves[2] = {replay_meta_half(bytes[0]), replay_meta_half(bytes[1])};
    for (const MetaHalf& h : halves)
      if (h.unknown_version != 0)
        return Status(Code::wrong_version, "metadata store at " + std::to_string(offset_) + " has format version " +
                                               std::to_string(h.unknown_version) + ", this program knows " +
                                               std::to_string(kMetaVersion));
    std::optional<int> counting = counting_half(halves[0], halves[1]);
    if (!counting)
      return Status(Code::corrupt, "metadata store at " + std::to_string(offset_) +
                                       ": neither half begins with a readable snapshot");
    int a = *counting;
    MetaHalf& h = halves[a];
    // Where there are only zeros no batch begins.
    const std::uint64_t used[2] = {std::min(region.used(), half_bytes_), region.used() - std::min(region.used(), half_bytes_)};
    std::uint64_t lost = std::max(greatest_meta_sequence(bytes[a], h.end, used[a]), greatest_meta_sequence(bytes[1 - a], 0, used[1 - a]));
    if (lost > h.last)
      return Status(Code::corrupt, "metadata store at " + std::to_string(offset_) + ": batch " +
                                       std::to_string(h.last + 1) + " is damaged though batch " +
                                       std::to_string(lost) + " was written after it: the medium lost acknowledged "
                                       "changes");
    warn_of_torn_tail(bytes[a], h);
    if (!halves[1 - a].readable && !all_zero(bytes[1 - a].first(kBlockBytes)))
      logging::warn("metadata store at {}: half {} has no readable snapshot, half {} is used", offset_, 1 - a, a);
    active_ = a;
    end_ = h.end;
    sequence_ = h.last;
    crc_ = h.last_crc;
    state_ = std::move(h.state);
    for (const auto& [k, v] : state_) state_bytes_ += pair_bytes(k.size(), v.size());
    return Status();
  }

  void warn_of_torn_tail(Bytes bytes, const MetaHalf& h) const {
    MetaBatchHeader next;
    if (bytes.size() - h.end < sizeof next) return;
    std::memcpy(&next, bytes.data() + h.end, sizeof next);
    if (next.magic == kMetaMagic && next.sequence == h.last + 1)
      logging::warn("metadata store at {}: batch {} is incomplete (a crash while it was written); dropped", offset_,
                    next.sequence);
  }

  std::uint64_t capacity() const { return half_bytes_ - sizeof(MetaBatchHeader); }

  // What the state's size becomes by `changes` on top of `overlay`, which is changed accordingly if it fits.
  bool admit(const std::vector<Change>& changes, std::uint64_t limit, Overlay& overlay, std::uint64_t& state_bytes) {
    Overlay mine;
    std::uint64_t bytes = state_bytes;
    for (const Change& c : changes) {
      if (c.first.size() > capacity() || (c.second && c.second->size() > capacity())) return false;
      bytes -= present_bytes(c.first, mine, overlay);
      if (c.second) bytes += pair_bytes(c.first.size(), c.second->size());
      mine.insert_or_assign(c.first, c.second);
    }
    if (bytes > limit) return false;
    for (auto& [key, value] : mine) overlay.insert_or_assign(key, std::move(value));
    state_bytes = bytes;
    return true;
  }

  std::uint64_t present_bytes(const std::string& key, const Overlay& mine, const Overlay& overlay) const {
    for (const Overlay* o : {&mine, &overlay})
      if (auto it = o->find(key); it != o->end())
        return it->second ? pair_bytes(key.size(), it->second->size()) : 0;
    auto it = state_.find(key);
    return it == state_.end() ? 0 : pair_bytes(key.size(), it->second.size());
  }

  // Writes everything queued as one batch and wakes those who wait for it.
  Task<void> write_queued() {
    struct Turn {
      MetaStoreImpl& s;
      bool done = false;
      explicit Turn(MetaStoreImpl& store) : s(store) { s.writing_ = true; }
      ~Turn() {
        if (!done) s.failed_ = true;  // stopped in the middle: nobody knows what is on the medium
        s.writing_ = false;
        s.turn_.notify_all();
      }
    } turn(*this);
    std::deque<std::shared_ptr<Request>> group;
    group.swap(queue_);
    Overlay overlay;
    std::uint64_t state_bytes = state_bytes_;
    std::deque<std::shared_ptr<Request>> admitted;
    for (auto& r : group) {
      if (failed_) r->result = failure();
      else if (admit(r->changes, r->limit, overlay, state_bytes)) admitted.push_back(r);
      else r->result = Status(Code::no_space, "metadata store is full: the state would exceed " +
                                                  std::to_string(r->limit) + " bytes");
    }
    Status s;
    if (!overlay.empty()) s = co_await write_overlay(overlay);
    if (s.ok()) {
      for (auto& [key, value] : overlay) {
        if (value) state_.insert_or_assign(key, std::move(*value));
        else state_.erase(key);
      }
      state_bytes_ = state_bytes;
    } else {
      failed_ = true;
      logging::error("metadata store at {}: {}; no more changes are taken", offset_, s.text());
    }
    for (auto& r : admitted) r->result = s;
    turn.done = true;
  }

  Status failure() const {
    return Status(Code::io_error, "metadata store has failed earlier; restart the daemon to use it again");
  }

  Task<Status> write_overlay(const Overlay& overlay) {
    std::uint64_t bytes = 0;
    for (const auto& [key, value] : overlay) bytes += pair_bytes(key.size(), value ? value->size() : 0);
    if (round_up(sizeof(MetaBatchHeader) + bytes) <= half_bytes_ - end_) {
      std::string pairs;
      pairs.reserve(bytes);
      for (const auto& [key, value] : overlay) append(pairs, key, value);
      co_return co_await write_batch(kMetaChanges, active_, end_, pairs);
    }
    std::string pairs;
    for (const auto& [key, value] : state_)
      if (!overlay.contains(key)) append(pairs, key, value);
    for (const auto& [key, value] : overlay)
      if (value) append(pairs, key, value);
    co_return co_await write_batch(kMetaSnapshot, 1 - active_, 0, pairs);
  }

  static void append(std::string& pairs, std::string_view key, const std::optional<std::string_view>& value) {
    MetaPairHeader p{static_cast<std::uint32_t>(key.size()), value ? static_cast<std::uint32_t>(value->size()) : kMetaErased};
    pairs.append(reinterpret_cast<const char*>(&p), sizeof p);
    pairs.append(key);
    if (value) pairs.append(*value);
  }

  Task<Status> write_batch(std::uint16_t kind, int half, std::uint64_t at, const std::string& pairs) {
    MetaBatchHeader h;
    h.kind = kind;
    h.sequence = sequence_ + 1;
    h.bytes = static_cast<std::uint32_t>(pairs.size());
    h.previous_crc = crc_;
    h.crc = meta_batch_crc(h, as_bytes(pairs));
    Buffer out = Buffer::zeros(round_up(sizeof h + pairs.size()));
    std::memcpy(out.data(), &h, sizeof h);
    std::memcpy(out.data() + sizeof h, pairs.data(), pairs.size());
    Bytes part = out.bytes();
    std::uint64_t place = offset_ + static_cast<std::uint64_t>(half) * half_bytes_ + at;
    Status s = co_await file_.write(place, {&part, 1}, Durability::durable);
    if (!s.ok()) co_return s;
    active_ = half;
    end_ = at + out.size();
    sequence_ = h.sequence;
    crc_ = h.crc;
    co_return s;
  }

  BlockFile& file_;
  const std::uint64_t offset_;
  const std::uint64_t half_bytes_;
  MetaState state_;
  std::uint64_t state_bytes_ = 0;  // of a snapshot's pairs
  int active_ = 0;
  std::uint64_t end_ = 0;          // in the active half
  std::uint64_t sequence_ = 0;
  std::uint32_t crc_ = 0;
  bool failed_ = false;
  bool writing_ = false;
  std::deque<std::shared_ptr<Request>> queue_;
  Event turn_;
};

}  // namespace

Task<Result<std::unique_ptr<MetaStore>>> MetaStore::open(World& world, BlockFile& file, std::uint64_t offset,
                                                         std::uint64_t bytes) {
  if (offset % kBlockBytes != 0 || bytes % (2 * kBlockBytes) != 0 || bytes < kMinRegion ||
      bytes > std::numeric_limits<std::uint32_t>::max() || offset > file.size() || bytes > file.size() - offset)
    co_return Status(Code::invalid, "metadata store: the region [" + std::to_string(offset) + ", +" +
                                        std::to_string(bytes) + ") is too small, misaligned or beyond the file");
  auto store = std::make_unique<MetaStoreImpl>(world, file, offset, bytes);
  Status s = co_await store->load();
  if (!s.ok()) co_return s;
  co_return std::unique_ptr<MetaStore>(std::move(store));
}

}  // namespace luge::io
