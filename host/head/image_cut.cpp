#include "head/image_cut.hpp"

#include <algorithm>

namespace luge::head {
namespace {

constexpr std::size_t kPagesPerPart = 32;
constexpr std::size_t kStripesPerPart = 512;
constexpr std::size_t kEntriesPerPart = 8192;

std::string finished(const flatbuffers::FlatBufferBuilder& b) {
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

flatbuffers::Offset<fbs::Page> save_page(flatbuffers::FlatBufferBuilder& b, const Index& index, std::uint64_t number) {
  static_assert(sizeof(Entry) == sizeof(std::uint64_t));
  std::uint64_t* raw = nullptr;
  const Index::Page* page = index.page(number);
  auto entries = b.CreateUninitializedVector<std::uint64_t>(page ? page->size() : 0, &raw);
  if (page) std::transform(page->begin(), page->end(), raw, [](Entry e) { return flatbuffers::EndianScalar(e.raw()); });
  return fbs::CreatePage(b, number, entries, index.changed(number));
}

flatbuffers::Offset<fbs::Stripe> save_row(flatbuffers::FlatBufferBuilder& b, std::uint64_t number, const StripeRow& row) {
  fbs::StripeId id(row.id.vp, row.id.epoch, row.id.counter);
  auto places = b.CreateVectorOfStructs<fbs::ChunkPlace>(row.places.size(), [&](std::size_t i, fbs::ChunkPlace* place) { *place = row.places[i]; });
  return fbs::CreateStripe(b, number, &id, static_cast<std::uint16_t>(row.layout.k), static_cast<std::uint16_t>(row.layout.m),
                           row.chunk_bytes, places, row.live_blocks, row.changed);
}

// The next of `from`, at most `limit`; no vector where there are none.
template <class T>
flatbuffers::Offset<flatbuffers::Vector<const T*>> save_some(flatbuffers::FlatBufferBuilder& b, const std::vector<T>& from, std::size_t& at, std::size_t limit) {
  std::size_t n = std::min(from.size() - at, limit);
  if (n == 0) return {};
  auto saved = b.CreateVectorOfStructs(&from[at], n);
  at += n;
  return saved;
}

}  // namespace

bool ImageCut::all_told() const {
  const Content& c = content_;
  return page_ == c.pages.size() && row_ == c.rows.size() && entry_ == c.entries.size() && range_ == c.cleared.size();
}

std::string ImageCut::part() {
  const Content& c = content_;
  flatbuffers::FlatBufferBuilder b(160 << 10);
  std::vector<flatbuffers::Offset<fbs::Page>> pages;
  std::vector<flatbuffers::Offset<fbs::Stripe>> rows;
  for (; pages.size() < kPagesPerPart && page_ < c.pages.size(); ++page_) pages.push_back(save_page(b, c.index, c.pages[page_]));
  for (; rows.size() < kStripesPerPart && row_ < c.rows.size(); ++row_) rows.push_back(save_row(b, c.rows[row_].first, c.rows[row_].second));
  auto pages_vector = b.CreateVector(pages);
  auto rows_vector = b.CreateVector(rows);
  auto cleared_vector = save_some(b, c.cleared, range_, kEntriesPerPart);
  auto entries_vector = save_some(b, c.entries, entry_, kEntriesPerPart);
  b.Finish(fbs::CreateImagePart(b, pages_vector, rows_vector, cleared_vector, entries_vector));
  ++parts_;
  return finished(b);
}

std::optional<ImageCut::Body> ImageCut::next() {
  if (next_ == Next::nothing) return std::nullopt;
  if (next_ == Next::begin) {
    next_ = Next::part;
    return Body(RecordKind::image_begin, std::move(content_.begin));
  }
  if (!all_told()) return Body(RecordKind::image_part, part());
  next_ = Next::nothing;
  flatbuffers::FlatBufferBuilder b;
  fbs::LogPoint point(content_.point.epoch, content_.point.lsn);
  b.Finish(fbs::CreateImageEnd(b, &point, parts_));
  content_ = Content{.point = content_.point};  // what it has shared is not copied on write any more
  return Body(RecordKind::image_end, finished(b));
}

}  // namespace luge::head
