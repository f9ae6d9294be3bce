#include "head/index.hpp"

#include <algorithm>
#include <utility>

#include "switches/switches.hpp"

namespace luge::head {
namespace {

std::uint64_t entry_digest(Lba lba, Entry e) {
  if (e.hole()) return 0;
  std::uint64_t h = (lba + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9;
  h ^= h >> 29;
  h = (h ^ e.raw()) * 0x94d049bb133111eb;
  return h ^ (h >> 32);
}

std::uint64_t page_digest(std::uint64_t number, const Index::Page& p) {
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < Index::kFanOut; ++i) sum += entry_digest(number * Index::kFanOut + i, p[i]);
  return sum;
}

}  // namespace

const Index::Page* Index::page(std::uint64_t number) const {
  std::uint64_t n = number / kFanOut;
  if (n >= root_.size() || !root_[n]) return nullptr;
  return root_[n]->pages[number % kFanOut].get();
}

Entry Index::get(Lba lba) const {
  const Page* p = page(lba / kFanOut);
  return p ? (*p)[lba % kFanOut] : Entry();
}

Index::Node& Index::writable_node(std::uint64_t number) {
  std::uint64_t n = number / kFanOut;
  if (n >= root_.size()) root_.resize(n + 1);
  auto& node = root_[n];
  if (!node) node = std::make_shared<Node>();
  if (node.use_count() > 1) node = std::make_shared<Node>(*node);
  return *node;
}

// A page is an allocation of its own: 4096 bytes are a size that allocators have, with a count in front they take 5120.
Index::Page& Index::writable(std::uint64_t number, Lsn at) {
  Node& node = writable_node(number);
  node.changed[number % kFanOut] = at;
  auto& page = node.pages[number % kFanOut];
  if (!page) {
    page = std::shared_ptr<Page>(new Page());
    ++node.used;
    ++page_count_;
  } else if (page.use_count() > 1) {
    page = std::shared_ptr<Page>(new Page(*page));
  }
  return *page;
}

Entry Index::set(Lba lba, Entry entry, Lsn at) {
  Entry old = std::exchange(writable(lba / kFanOut, at)[lba % kFanOut], entry);
  digest_ += entry_digest(lba, entry) - entry_digest(lba, old);
  return old;
}

void Index::clear(Lba lba, std::uint64_t blocks, Lsn at, const std::function<void(Lba, Entry)>& old) {
  if (broken(Switch::clear_stops_at_page)) blocks = std::min(blocks, kFanOut - lba % kFanOut);
  for (Lba end = lba + blocks; lba < end;) {
    std::uint64_t number = lba / kFanOut;
    Lba page_end = std::min<Lba>(end, (number + 1) * kFanOut);
    if (const Page* p = page(number)) {
      for (Lba l = lba; l < page_end; ++l)
        if (Entry e = (*p)[l % kFanOut]; !e.hole()) old(l, e);
      if (page_end - lba == kFanOut) {
        drop_page(number, at);
      } else {
        Page& w = writable(number, at);
        for (Lba l = lba; l < page_end; ++l) digest_ -= entry_digest(l, std::exchange(w[l % kFanOut], Entry()));
      }
      lba = page_end;
    } else if (number / kFanOut >= root_.size()) {
      break;  // nothing beyond
    } else if (!root_[number / kFanOut]) {
      lba = std::min<Lba>(end, (number / kFanOut + 1) * kFanOut * kFanOut);
    } else {
      lba = page_end;
    }
  }
}

void Index::for_each_page(const std::function<void(std::uint64_t, const Page&)>& f) const {
  for (std::uint64_t n : pages()) f(n, *page(n));
}

std::vector<std::uint64_t> Index::pages() const {
  std::vector<std::uint64_t> out;
  out.reserve(page_count_);
  for (std::size_t n = 0; n < root_.size(); ++n) {
    if (!root_[n] || root_[n]->used == 0) continue;
    for (std::uint32_t i = 0; i < kFanOut; ++i)
      if (root_[n]->pages[i]) out.push_back(n * kFanOut + i);
  }
  return out;
}

std::vector<std::uint64_t> Index::changed_since(Lsn base) const {
  std::vector<std::uint64_t> out;
  for (std::size_t n = 0; n < root_.size(); ++n) {
    if (!root_[n]) continue;
    for (std::uint32_t i = 0; i < kFanOut; ++i)
      if (root_[n]->changed[i] > base) out.push_back(n * kFanOut + i);
  }
  return out;
}

Lsn Index::changed(std::uint64_t number) const {
  std::uint64_t n = number / kFanOut;
  return n < root_.size() && root_[n] ? root_[n]->changed[number % kFanOut] : 0;
}

void Index::load_page(std::uint64_t number, const Page& page, Lsn at) {
  Page& p = writable(number, at);
  digest_ += page_digest(number, page) - page_digest(number, p);
  p = page;
}

void Index::drop_page(std::uint64_t number, Lsn at) {
  Node& node = writable_node(number);
  node.changed[number % kFanOut] = at;
  if (!node.pages[number % kFanOut]) return;
  digest_ -= page_digest(number, *node.pages[number % kFanOut]);
  node.pages[number % kFanOut].reset();
  --node.used;
  --page_count_;
}

std::uint64_t Index::digest_of_entries() const {
  std::uint64_t sum = 0;
  for_each_page([&](std::uint64_t number, const Page& p) { sum += page_digest(number, p); });
  return sum;
}

}  // namespace luge::head
