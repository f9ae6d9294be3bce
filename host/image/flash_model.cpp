#include "image/flash_model.hpp"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace luge::image {

fw::FlashLayout flash_layout(std::uint32_t slot_bytes, std::uint32_t sector) {
  fw::FlashLayout l;
  slot_bytes = (slot_bytes + sector - 1) / sector * sector;
  l.golden = 0, l.a = slot_bytes, l.b = 2 * slot_bytes, l.slot_bytes = slot_bytes, l.sector = sector;
  l.records[0] = 3 * slot_bytes, l.records[1] = l.records[0] + sector;
  return l;
}

FlashModel::FlashModel(const fw::FlashLayout& layout) : layout_(layout), bytes_(layout.records[1] + layout.sector, 0xff) {}

Result<FlashModel> FlashModel::open(const std::string& path, const fw::FlashLayout& layout) {
  FlashModel m(layout);
  if (std::ifstream f(path, std::ios::binary); f) {
    std::vector<std::uint8_t> got{std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>()};
    if (got.size() != m.bytes_.size()) return Status(Code::invalid, path + " is no flash of " + std::to_string(m.bytes_.size()) + " bytes");
    m.bytes_ = std::move(got), m.path_ = path;
    return m;
  }
  m.path_ = path;
  if (Status s = m.save(); !s.ok()) return s;
  return m;
}

Status FlashModel::save() const {
  if (path_.empty()) return Status();
  std::ofstream f(path_, std::ios::binary);
  f.write(reinterpret_cast<const char*>(bytes_.data()), static_cast<std::streamsize>(bytes_.size()));
  return f.flush() ? Status() : Status(Code::io_error, "cannot write " + path_);
}

void FlashModel::write_through(std::uint32_t at, std::uint32_t n) {
  if (path_.empty()) return;
  std::fstream f(path_, std::ios::binary | std::ios::in | std::ios::out);
  f.seekp(at);
  f.write(reinterpret_cast<const char*>(&bytes_[at]), n);
}

bool FlashModel::read(std::uint32_t at, std::uint8_t* to, std::uint32_t n) const {
  if (off_) throw PowerLost();
  if (at > bytes_.size() || n > bytes_.size() - at) return false;
  std::memcpy(to, &bytes_[at], n);
  return true;
}

bool FlashModel::cut() {
  if (off_) throw PowerLost();
  return ++operations_ == cut_at_;
}

void FlashModel::touch(std::uint32_t at, std::uint32_t n) {
  if (at < layout_.golden + layout_.slot_bytes && at + n > layout_.golden) golden_touched_ = true;
}

// A cut in a page: some of its bytes are programmed, one has some of its bits, the rest are as before.
bool FlashModel::program(std::uint32_t at, const std::uint8_t* data, std::uint32_t n) {
  if (at > bytes_.size() || n > bytes_.size() - at || n == 0 || at / layout_.page != (at + n - 1) / layout_.page) return false;
  const bool cut_here = cut();
  touch(at, n);
  const std::uint32_t whole = cut_here ? static_cast<std::uint32_t>(random_() % (n + 1)) : n;
  for (std::uint32_t i = 0; i < whole; ++i) bytes_[at + i] &= data[i];
  if (cut_here && whole < n) bytes_[at + whole] &= static_cast<std::uint8_t>(data[whole] | random_());
  write_through(at, n);
  if (!cut_here) return true;
  off_ = true;
  throw PowerLost();
}

// A cut in an erasure: any bit of the sector may be one already.
bool FlashModel::erase(std::uint32_t at) {
  if (at % layout_.sector != 0 || at >= bytes_.size()) return false;
  const bool cut_here = cut();
  ++erases_;
  touch(at, layout_.sector);
  for (std::uint32_t i = 0; i < layout_.sector; ++i) bytes_[at + i] |= cut_here ? static_cast<std::uint8_t>(random_() & random_()) : std::uint8_t{0xff};
  write_through(at, layout_.sector);
  if (!cut_here) return true;
  off_ = true;
  throw PowerLost();
}

bool FlashModel::write_golden(const std::vector<std::uint8_t>& bytes) {
  if (bytes.size() > layout_.slot_bytes) return false;
  std::memset(&bytes_[layout_.golden], 0xff, layout_.slot_bytes);
  std::memcpy(&bytes_[layout_.golden], bytes.data(), bytes.size());
  return save().ok();
}

}  // namespace luge::image
