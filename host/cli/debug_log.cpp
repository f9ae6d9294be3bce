#include "cli/debug_log.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <functional>

#include "base/ids.hpp"
#include "cli/log_records.hpp"
#include "io/meta_format.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;

constexpr std::uint64_t kPiece = 1 << 20;          // read at a time
constexpr std::uint64_t kLongestBatch = 16 << 20;  // a header that claims more is no header
constexpr std::uint64_t kLargestStore = 1 << 30;   // a metadata store is read whole
constexpr std::uint64_t kDataSegment = 16 << 20, kMetaSegment = 4 << 20;  // what a head takes by default

// Keeps the piece of the file that is being looked at.
class Window {
 public:
  explicit Window(ByteSource& file) : file_(file) {}
  /// At least `length` bytes from `offset` on, fewer at the end of the file.
  Result<Bytes> at(std::uint64_t offset, std::uint64_t length) {
    length = std::min(length, file_.size() - offset);
    if (offset < begin_ || offset + length > begin_ + piece_.size()) {
      auto read = file_.read(offset, std::max(length, std::min(kPiece, file_.size() - offset)));
      // A piece with a bad spot in it: as little as was asked for may be readable still.
      if (!read.ok()) read = file_.read(offset, length);
      if (!read.ok()) return read.status();
      piece_ = std::move(*read);
      begin_ = offset;
    }
    Bytes rest = piece_.bytes().subspan(std::min<std::uint64_t>(offset - begin_, piece_.size()));
    return rest;
  }

 private:
  ByteSource& file_;
  Buffer piece_;
  std::uint64_t begin_ = 0;
};

// One line for a person or one JSON object for a program.
class Lines {
 public:
  Lines(std::ostream& out, bool as_json) : out_(out), json_(as_json) {}
  void say(const std::string& text, json::object fields) {
    if (json_) out_ << json::serialize(fields) << "\n";
    else out_ << text << "\n";
  }
  void damage(std::uint64_t offset, const std::string& what) {
    ++damaged_;
    say(fmt::format("offset {}: DAMAGED: {}", offset, what), {{"type", "damage"}, {"offset", offset}, {"text", what}});
  }
  void note(std::uint64_t offset, const std::string& what) {
    say(fmt::format("offset {}: {}", offset, what), {{"type", "note"}, {"offset", offset}, {"text", what}});
  }
  std::uint64_t damaged() const { return damaged_; }

 private:
  std::ostream& out_;
  bool json_;
  std::uint64_t damaged_ = 0;
};

// Walks a log portion from block to block. What is wrong at a place can only be told from what stands behind it: a
// batch that does not parse is torn if nothing of the same use of the segment follows, and rot if something does.
class LogWalk {
 public:
  LogWalk(ByteSource& file, const LogPrintOptions& options, Lines& lines)
      : window_(file), options_(options), lines_(lines) {}

  void run(std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t at = begin; at < end;) at += step(at, end);
    end_segment();
  }
  std::uint64_t batches() const { return batches_; }

 private:
  // Looks at `at`; how far to go on.
  std::uint64_t step(std::uint64_t at, std::uint64_t end) {
    auto bytes = window_.at(at, std::min<std::uint64_t>(kBlockBytes, end - at));
    if (!bytes.ok()) {
      lines_.damage(at, bytes.status().text());
      return kBlockBytes;
    }
    head::BatchHeader h;
    Status s = head::parse_batch_header(*bytes, h);
    bool longer = s.code() == Code::corrupt && head::batch_bytes(h) <= std::min(kLongestBatch, end - at);
    if (longer) {
      auto whole = window_.at(at, head::batch_bytes(h));
      if (whole.ok()) bytes = whole, s = head::parse_batch_header(*bytes, h);
      else s = whole.status();
    }
    if (s.ok() && std::uint64_t{h.offset_blocks} * kBlockBytes > at) s = Status(Code::corrupt, "a batch of another place");
    if (!s.ok()) {
      broken_at(at, s, h, first_block(*bytes));
      return kBlockBytes;
    }
    batch(at, h, *bytes);
    return head::batch_bytes(h);
  }

  static Bytes first_block(Bytes bytes) { return bytes.first(std::min<std::size_t>(bytes.size(), kBlockBytes)); }

  void broken_at(std::uint64_t at, const Status& s, const head::BatchHeader& h, Bytes block) {
    bool begun = s.code() != Code::not_found;
    if (s.code() == Code::wrong_version) return lines_.damage(at, s.text());
    // Behind the last batch of a use anything may stand; only what stands there first can be a batch that was begun.
    if (!in_segment_ || at != next_ || first_bad_) return;
    if (!begun && all_zero(block)) return;
    first_bad_ = at;
    bad_text_ = s.text();
    bad_was_begun_ = begun && h.generation == generation_ && h.node == node_;
  }

  void batch(std::uint64_t at, const head::BatchHeader& h, Bytes bytes) {
    std::uint64_t start = at - std::uint64_t{h.offset_blocks} * kBlockBytes;
    if (!in_segment_ || start != segment_start_) {
      end_segment();
      in_segment_ = true;
      segment_start_ = start;
      generation_ = h.generation;
      portion_ = h.portion;
      node_ = h.node;
      if (h.offset_blocks != 0 && options_.from <= start) lines_.damage(start, "the first batches of this segment are gone");
    } else if (h.generation < generation_ || h.node != node_ || h.portion != portion_) {
      ++old_batches_;
      if (options_.old) print(at, h, bytes, true);
      return;
    } else if (h.generation > generation_) {
      lines_.damage(segment_start_, "the batches of the newest use of this segment begin only here");
      generation_ = h.generation;
    } else if (first_bad_) {
      lines_.damage(*first_bad_, bad_text_ + fmt::format("; {} bytes, and a batch of the same use stands behind them", at - *first_bad_));
    } else if (h.previous_crc != last_crc_) {
      lines_.damage(at, "the batch before this one is gone: its checksum is not the one that this batch names");
    }
    first_bad_.reset();
    next_ = at + head::batch_bytes(h);
    last_crc_ = h.crc;
    ++batches_;
    print(at, h, bytes, false);
  }

  void end_segment() {
    if (in_segment_ && first_bad_ && bad_was_begun_)
      lines_.note(*first_bad_, "a batch that was begun and not completed (" + bad_text_ + "); nothing of this use stands behind it");
    if (in_segment_ && old_batches_ != 0 && !options_.old)
      lines_.note(next_, fmt::format("{} batches of earlier uses of the segment (--old prints them)", old_batches_));
    in_segment_ = false;
    first_bad_.reset();
    old_batches_ = 0;
  }

  // "segment 3 + 8192", or where the segment begins if sizes do not go up in it.
  std::string place(std::uint64_t at) const {
    std::uint64_t size = segment_bytes();
    if (segment_start_ % size != 0) return fmt::format("{} (segment at {})", at, segment_start_);
    return fmt::format("{} (segment {} + {})", at, segment_start_ / size, at - segment_start_);
  }
  std::uint64_t segment_bytes() const {
    if (options_.segment_bytes != 0) return options_.segment_bytes;
    return portion_ == 0 ? kDataSegment : kMetaSegment;
  }

  void print(std::uint64_t at, const head::BatchHeader& h, Bytes bytes, bool old) {
    auto batch = head::parse_batch(bytes, h);
    json::object fields{{"type", "batch"}, {"offset", at}, {"segment_offset", std::uint64_t{h.offset_blocks} * kBlockBytes},
                        {"portion", h.portion == 0 ? "data" : "metadata"}, {"generation", h.generation}, {"order", h.order},
                        {"node", h.node}, {"records", h.records}, {"payload_blocks", h.payload_blocks}, {"crc", h.crc},
                        {"previous_crc", h.previous_crc}, {"old", old}};
    std::string commits;
    json::array commits_json;
    if (batch.ok())
      for (const head::CommitEntry& c : batch->commits) {
        commits += fmt::format(" {}:{}", c.vp, c.commit);
        commits_json.push_back(json::object{{"vp", c.vp}, {"commit", c.commit}});
      }
    fields["commits"] = std::move(commits_json);
    lines_.say(fmt::format("offset {}: {}batch {} of node {}, generation {}, {} records, {} blocks, committed{}", place(at), old ? "OLD " : "",
                           h.order, h.node, h.generation, h.records, h.payload_blocks, commits.empty() ? " none" : commits),
               std::move(fields));
    if (!batch.ok()) return lines_.damage(at, batch.status().text());
    for (const head::RecordView& r : batch->records) print_record(at, h, r, old);
  }

  void print_record(std::uint64_t at, const head::BatchHeader& h, const head::RecordView& r, bool old) {
    Described d = describe_record(r);
    d.fields["type"] = "record";
    d.fields["offset"] = at;
    d.fields["order"] = h.order;
    d.fields["good"] = d.damage.empty();
    if (!d.damage.empty()) d.fields["damage"] = d.damage;
    if (old) d.fields["old"] = true;
    lines_.say("  " + d.text + (d.damage.empty() ? "" : ": BAD"), std::move(d.fields));
    if (!d.damage.empty() && !old) lines_.damage(at, d.damage);
  }

  Window window_;
  const LogPrintOptions& options_;
  Lines& lines_;
  std::uint64_t batches_ = 0;
  // The segment that is walked, and its present use.
  bool in_segment_ = false;
  std::uint64_t segment_start_ = 0, generation_ = 0, node_ = 0;
  std::uint8_t portion_ = 0;
  std::uint64_t next_ = 0;  // where the chain goes on
  std::uint32_t last_crc_ = 0;
  std::optional<std::uint64_t> first_bad_;
  std::string bad_text_;
  bool bad_was_begun_ = false;  // else it may be what an earlier use has left
  std::uint64_t old_batches_ = 0;
};

enum class Content { nothing, log, metadata_store, unknown };

// By the first block that has a magic number; `portion` of a log.
Result<Content> content_of(ByteSource& file, std::uint64_t from, std::uint8_t& portion) {
  Window window(file);
  bool zeros = true;
  for (std::uint64_t at = from; at < file.size(); at += kBlockBytes) {
    auto bytes = window.at(at, kBlockBytes);
    if (!bytes.ok()) continue;
    head::BatchHeader h;
    if (head::parse_batch_header(*bytes, h).code() != Code::not_found) {
      portion = h.portion;
      return Content::log;
    }
    std::uint32_t magic = 0;
    std::memcpy(&magic, bytes->data(), std::min(bytes->size(), sizeof magic));
    if (magic == io::kMetaMagic) return Content::metadata_store;
    zeros = zeros && all_zero(bytes->first(std::min<std::size_t>(bytes->size(), kBlockBytes)));
  }
  return zeros ? Content::nothing : Content::unknown;
}

void print_pairs(std::uint64_t at, const io::MetaBatchHeader& h, Bytes pairs, Lines& lines) {
  const char* kind = h.kind == io::kMetaSnapshot ? "snapshot" : "changes";
  lines.say(fmt::format("offset {}: batch {} ({}), {} bytes", at, h.sequence, kind, h.bytes),
            {{"type", "batch"}, {"offset", at}, {"sequence", h.sequence}, {"kind", kind}, {"bytes", h.bytes}, {"crc", h.crc}});
  io::for_each_meta_pair(pairs, [&](std::string_view key, std::optional<std::string_view> value) {
    json::object fields{{"type", "pair"}, {"sequence", h.sequence}, {"key", key}};
    if (!value) {
      fields["erased"] = true;
      return lines.say(fmt::format("  {}: erased", key), std::move(fields));
    }
    Described d = describe_pair(key, *value);
    if (d.damage.empty()) fields["value"] = std::move(d.fields);
    lines.say(fmt::format("  {}: {}", key, d.damage.empty() ? d.text : "BAD"), std::move(fields));
    if (!d.damage.empty()) lines.damage(at, std::string(key) + ": " + d.damage);
  });
}

void print_half(Bytes half, std::uint64_t begin, bool counts, bool old, Lines& lines) {
  if (counts || old)
    lines.note(begin, counts ? "this half counts" : "this half is superseded");
  io::replay_meta_half(half, [&](std::uint64_t at, const io::MetaBatchHeader& h, Bytes pairs) {
    if (counts || old) print_pairs(begin + at, h, pairs, lines);
  });
}

Status print_meta_store(ByteSource& file, const LogPrintOptions& o, Lines& lines) {
  if (o.segment) return Status(Code::invalid, "--segment: this is a metadata store, which has none");
  if (file.size() > kLargestStore)
    return Status(Code::invalid, "a metadata store is not as large as " + std::to_string(file.size()) + " bytes; give the `meta` file of a head");
  auto all = file.read(0, file.size());
  if (!all.ok()) return all.status();
  std::uint64_t half = all->size() / 2 / kBlockBytes * kBlockBytes;
  Bytes bytes[2] = {all->bytes().first(half), all->bytes().subspan(half)};
  io::MetaHalf halves[2] = {io::replay_meta_half(bytes[0]), io::replay_meta_half(bytes[1])};
  std::optional<int> counting = io::counting_half(halves[0], halves[1]);
  for (int i = 0; i < 2; ++i) {
    std::uint64_t begin = i == 0 ? 0 : half;
    print_half(bytes[i], begin, counting == i, o.old, lines);
    if (halves[i].unknown_version != 0)
      lines.damage(begin + halves[i].end, "a batch of format version " + std::to_string(halves[i].unknown_version) + ", this program knows " +
                                              std::to_string(io::kMetaVersion));
  }
  if (!counting) {
    lines.damage(0, "neither half begins with a readable snapshot");
    return Status();
  }
  const io::MetaHalf& h = halves[*counting];
  std::uint64_t beyond = std::max(io::greatest_meta_sequence(bytes[*counting], h.end, bytes[*counting].size()), io::greatest_meta_sequence(bytes[1 - *counting], 0, bytes[1 - *counting].size()));
  if (beyond > h.last)
    lines.damage((*counting == 0 ? 0 : half) + h.end, fmt::format("batch {} is gone though batch {} was written after it", h.last + 1, beyond));
  return Status();
}

Status print_portion(ByteSource& file, const LogPrintOptions& o, std::uint8_t portion, Lines& lines) {
  std::uint64_t begin = o.from, end = file.size();
  if (o.segment) {
    std::uint64_t size = o.segment_bytes != 0 ? o.segment_bytes : portion == 0 ? kDataSegment : kMetaSegment;
    if (*o.segment >= (end + size - 1) / size)
      return Status(Code::invalid, fmt::format("--segment {}: the file has {} segments of {} bytes (--segment-bytes says another size)", *o.segment,
                                               (end + size - 1) / size, size));
    begin = std::max(begin, *o.segment * size);
    end = std::min(end, (*o.segment + std::uint64_t{1}) * size);
  }
  LogWalk walk(file, o, lines);
  walk.run(begin, end);
  if (walk.batches() == 0) lines.note(begin, "no batch of a log");
  return Status();
}

}  // namespace

Status print_log(ByteSource& file, const LogPrintOptions& o, std::ostream& out) {
  if (o.from % kBlockBytes != 0 || o.segment_bytes % kBlockBytes != 0)
    return Status(Code::invalid, "--from and --segment-bytes are multiples of 4096: batches begin at such offsets");
  if (o.from > file.size()) return Status(Code::invalid, "--from " + std::to_string(o.from) + ": the file has " + std::to_string(file.size()) + " bytes");
  std::uint8_t portion = 0;
  auto content = content_of(file, o.from, portion);
  if (!content.ok()) return content.status();
  Lines lines(out, o.json);
  Status s;
  switch (*content) {
    case Content::nothing: lines.note(o.from, "nothing but zeros"); break;
    case Content::unknown: return Status(Code::corrupt, "neither a log nor a metadata store of a head: nothing in it begins like one");
    case Content::log: s = print_portion(file, o, portion, lines); break;
    case Content::metadata_store: s = print_meta_store(file, o, lines); break;
  }
  if (s.ok() && lines.damaged() != 0) s = Status(Code::corrupt, std::to_string(lines.damaged()) + " damaged places, see above");
  return s;
}

}  // namespace luge::cli
