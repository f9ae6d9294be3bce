#include "cli/log_records.hpp"

#include <spdlog/fmt/fmt.h>

#include <boost/json.hpp>
#include <cstring>

#include "head/index.hpp"
#include "wire/designation.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;
using head::Entry;
using head::RecordKind;

// The body as table T of log.fbs, or nothing.
template <class T>
const T* verified(Bytes body) {
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 64, 10'000'000);
  return v.VerifyBuffer<T>(nullptr) ? flatbuffers::GetRoot<T>(body.data()) : nullptr;
}

template <class V>
std::size_t count(const V* vector) {
  return vector ? vector->size() : 0;
}

std::string point_text(const fbs::LogPoint* p) { return p ? to_string(LogPoint{p->epoch(), p->lsn()}) : "none"; }
json::value point_json(const fbs::LogPoint* p) {
  return p ? json::value(json::object{{"epoch", p->epoch()}, {"lsn", p->lsn()}}) : json::value();
}

json::object stripe_json(const fbs::Stripe& s) {
  json::object o{{"number", s.number()}, {"k", s.k()}, {"m", s.m()}, {"chunk_bytes", s.chunk_bytes()}, {"live_blocks", s.live_blocks()}};
  if (s.id()) o["id"] = json::object{{"vp", s.id()->vp()}, {"epoch", s.id()->epoch()}, {"counter", s.id()->counter()}};
  json::array places;
  if (s.places())
    for (const fbs::ChunkPlace* p : *s.places())
      places.push_back(json::object{{"sled", p->sled()}, {"device", p->device()}, {"column", p->column()}, {"slot", p->slot()},
                                    {"generation", p->generation()}});
  o["places"] = std::move(places);
  return o;
}

template <class Stripes>
json::array stripes_json(const Stripes* stripes) {
  json::array out;
  if (stripes)
    for (const fbs::Stripe* s : *stripes) out.push_back(stripe_json(*s));
  return out;
}

template <class Sessions>
json::array sessions_json(const Sessions* sessions) {
  json::array out;
  if (!sessions) return out;
  for (const fbs::Session* s : *sessions) {
    json::array answered;
    if (s->answered())
      for (const fbs::Answered* a : *s->answered()) answered.push_back(json::object{{"sequence", a->sequence()}, {"lsn", a->lsn()}});
    out.push_back(json::object{{"attachment", s->attachment()}, {"incarnation", s->incarnation()}, {"low", s->low()},
                               {"answered", std::move(answered)}});
  }
  return out;
}

// "stripes 5 6 7" of what may be many.
template <class Stripes>
std::string stripe_numbers(const Stripes* stripes) {
  std::string out = fmt::format("{} stripes", count(stripes));
  std::size_t n = std::min<std::size_t>(count(stripes), 4);
  for (std::size_t i = 0; i < n; ++i) out += fmt::format("{}{}", i == 0 ? " (" : " ", stripes->Get(static_cast<flatbuffers::uoffset_t>(i))->number());
  return n == 0 ? out : out + (n < count(stripes) ? " ...)" : ")");
}

bool describe_index(Bytes body, Described& d) {
  const auto* r = verified<fbs::IndexRecord>(body);
  if (!r) return false;
  d.text += fmt::format(", {}, {} placements, {} sessions", stripe_numbers(r->stripes()), count(r->placements()), count(r->sessions()));
  d.fields["stripes"] = stripes_json(r->stripes());
  d.fields["sessions"] = sessions_json(r->sessions());
  json::array placements;
  for (std::uint32_t i = 0; i < count(r->placements()); ++i) {
    const fbs::Placement* p = r->placements()->Get(i);
    json::object o{{"lba", p->lba()}, {"lsn", p->lsn()}, {"block", p->block()}};
    if (i < count(r->placement_stripe())) o["stripe"] = r->placement_stripe()->Get(i);
    placements.push_back(std::move(o));
  }
  d.fields["placements"] = std::move(placements);
  return true;
}

bool describe_truncate(Bytes body, Described& d) {
  const auto* r = verified<fbs::Truncate>(body);
  if (!r) return false;
  d.text += ", what is beyond " + point_text(r->to()) + " is void";
  d.fields["to"] = point_json(r->to());
  return true;
}

bool describe_image_begin(Bytes body, Described& d) {
  const auto* r = verified<fbs::ImageBegin>(body);
  if (!r) return false;
  d.text += fmt::format(", complete up to {}, {} epoch starts, next stripe {}, {} sessions", point_text(r->point()), count(r->starts()),
                        r->next_stripe(), count(r->sessions()));
  d.fields["point"] = point_json(r->point());
  d.fields["history"] = r->history();
  d.fields["next_stripe"] = r->next_stripe();
  json::array starts;
  if (r->starts())
    for (const fbs::EpochStartEntry* s : *r->starts()) starts.push_back(json::object{{"epoch", s->epoch()}, {"lsn", s->lsn()}});
  d.fields["starts"] = std::move(starts);
  d.fields["sessions"] = sessions_json(r->sessions());
  return true;
}

// Entries that are no hole, each with what it names instead of its bits: they do not fit a JSON reader's double.
json::array entries_json(const fbs::Page& page, std::uint64_t& mapped) {
  json::array out;
  if (!page.entries()) return out;
  for (std::uint32_t i = 0; i < page.entries()->size(); ++i) {
    Entry e = Entry::from_raw(page.entries()->Get(i));
    if (e.hole()) continue;
    ++mapped;
    json::object o{{"lba", page.number() * head::Index::kFanOut + i}};
    if (e.is_lsn()) o["lsn"] = e.lsn();
    else if (e.is_stripe()) o["stripe"] = e.stripe(), o["block"] = e.block();
    else o["unknown"] = fmt::format("{:x}", e.raw());
    out.push_back(std::move(o));
  }
  return out;
}

bool describe_image_part(Bytes body, Described& d) {
  const auto* r = verified<fbs::ImagePart>(body);
  if (!r) return false;
  json::array pages;
  std::uint64_t mapped = 0;
  if (r->pages())
    for (const fbs::Page* p : *r->pages()) pages.push_back(json::object{{"number", p->number()}, {"entries", entries_json(*p, mapped)}});
  d.text += fmt::format(", {} index pages with {} blocks, {}", count(r->pages()), mapped, stripe_numbers(r->stripes()));
  d.fields["pages"] = std::move(pages);
  d.fields["stripes"] = stripes_json(r->stripes());
  return true;
}

bool describe_image_end(Bytes body, Described& d) {
  const auto* r = verified<fbs::ImageEnd>(body);
  if (!r) return false;
  d.text += fmt::format(", complete up to {}, {} parts", point_text(r->point()), r->parts());
  d.fields["point"] = point_json(r->point());
  d.fields["parts"] = r->parts();
  return true;
}

bool describe_body(RecordKind kind, Bytes body, Described& d) {
  switch (kind) {
    case RecordKind::index: return describe_index(body, d);
    case RecordKind::truncate: return describe_truncate(body, d);
    case RecordKind::image_begin: return describe_image_begin(body, d);
    case RecordKind::image_part: return describe_image_part(body, d);
    case RecordKind::image_end: return describe_image_end(body, d);
    default: return true;  // the header says it all
  }
}

std::string kind_text(std::uint16_t kind) {
  std::string name = fbs::EnumNameRecordKind(static_cast<RecordKind>(kind));
  return name.empty() ? "kind " + std::to_string(kind) : name;
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (unsigned char c : bytes.substr(0, 64)) out += fmt::format("{:02x}", c);
  return bytes.size() > 64 ? out + "..." : out;
}

json::array ids_json(const std::vector<NodeId>& ids) {
  json::array out;
  for (NodeId id : ids) out.emplace_back(id);
  return out;
}

Described describe_designation(std::string_view value) {
  Described d;
  auto parsed = wire::Designation::parse(value);
  if (!parsed.ok()) {
    d.damage = parsed.status().text();
    return d;
  }
  const wire::Designation& g = *parsed;
  auto list = [](const std::vector<NodeId>& ids) { return fmt::format("{}", fmt::join(ids, " ")); };
  d.text = fmt::format("VP {}, epoch {}, revision {}, primary {}, reserves {}, required {}, layout {}, min_copies {}, {} blocks{}", g.vp, g.epoch,
                       g.revision, g.primary, list(g.reserves), list(g.required), to_string(g.layout), g.min_copies, g.blocks, g.opened ? ", opened" : "");
  d.fields = {{"vp", g.vp}, {"epoch", g.epoch}, {"revision", g.revision}, {"history", g.history}, {"primary", g.primary},
              {"reserves", ids_json(g.reserves)}, {"required", ids_json(g.required)}, {"k", g.layout.k}, {"m", g.layout.m},
              {"min_copies", g.min_copies}, {"blocks", g.blocks}, {"opened", g.opened}};
  return d;
}

Described describe_segment(std::string_view value) {
  Described d;
  head::SegmentRow row;
  if (value.size() != sizeof row) {
    d.damage = "a segment's row has " + std::to_string(sizeof row) + " bytes, this one " + std::to_string(value.size());
    return d;
  }
  std::memcpy(&row, value.data(), sizeof row);
  d.text = fmt::format("generation {}, use {}, follows a batch with crc {:08x}", row.generation, row.sequence, row.start_crc);
  d.fields = {{"generation", row.generation}, {"sequence", row.sequence}, {"start_crc", row.start_crc}};
  if (row.end != 0) {
    d.text += fmt::format(", ends at {} KiB", (row.end - 1) * 4);
    d.fields["end_bytes"] = std::uint64_t{row.end - 1} * kBlockBytes;
  }
  return d;
}

}  // namespace

Described describe_record(const head::RecordView& r) {
  const fbs::RecordHeader& h = r.header;
  Described d;
  d.fields = {{"kind", kind_text(h.kind())}, {"vp", h.vp()}, {"epoch", h.epoch()}, {"lsn", h.lsn()}, {"lba", h.lba()}, {"blocks", h.blocks()},
              {"attachment", h.attachment()}, {"incarnation", h.incarnation()}, {"sequence", h.sequence()}, {"low", h.low()}, {"crc", h.crc()}};
  d.text = fmt::format("{} of VP {}", kind_text(h.kind()), h.vp());
  if (h.lsn() != 0) d.text += fmt::format(", {}", to_string(LogPoint{h.epoch(), h.lsn()}));
  if (h.blocks() != 0) d.text += fmt::format(", lba {} +{}", h.lba(), h.blocks());
  if (h.attachment() != 0) d.text += fmt::format(", request {}/{}/{}", h.attachment(), h.incarnation(), h.sequence());
  Status s = head::check_record(h, r.body);
  auto kind = static_cast<RecordKind>(h.kind());
  if (s.ok() && kind == RecordKind::data) s = head::check_payload(h, r.body, r.payload);
  if (s.ok() && !describe_body(kind, r.body, d)) s = Status(Code::corrupt, "the body does not parse as its schema");
  d.damage = s.text();
  return d;
}

Described describe_pair(std::string_view key, std::string_view value) {
  if (key.starts_with("designation/")) return describe_designation(value);
  if (key.starts_with("segment/")) return describe_segment(value);
  Described d;
  d.text = fmt::format("{} bytes {}", value.size(), hex(value));
  d.fields = {{"bytes", hex(value)}};
  return d;
}

}  // namespace luge::cli
