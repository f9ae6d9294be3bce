#include "image/card_store.hpp"

#include <boost/json.hpp>
#include <cstring>
#include <filesystem>

#include "image/directory_medium.hpp"
#include "image/flash_model.hpp"
#include "image/slot_rules.hpp"

namespace luge::image {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

std::string folder_of(const std::string& directory, unsigned device) { return directory + "/card" + std::to_string(device) + ".images"; }

// An image's length from its first bytes; 0: it is none.
std::uint64_t length_of(const std::uint8_t (&head)[kHeaderBytes]) {
  std::uint32_t sizes[2];
  std::memcpy(sizes, head + 8, sizeof sizes);
  return std::memcmp(head, "LUGEIMG1", 8) == 0 ? kHeaderBytes + std::uint64_t{sizes[0]} + sizes[1] : 0;
}

std::string numbered(const std::string& folder, unsigned n) {
  char name[16];
  std::snprintf(name, sizeof name, "/%04u.img", n);
  return folder + "/keys" + name;
}

std::string_view result_text(fw::UpdateResult r) {
  switch (r) {
    case fw::UpdateResult::done: return "done";
    case fw::UpdateResult::erase_failed: return "the slot cannot be erased";
    case fw::UpdateResult::write_failed: return "the slot cannot be written";
    case fw::UpdateResult::differs: return "what was read back is not what was written";
    case fw::UpdateResult::record_failed: return "the record of the new slot cannot be written";
    case fw::UpdateResult::too_large: return "the image is larger than a slot";
  }
  return "unknown";
}

}  // namespace

std::string_view slot_name(fw::Slot s) { return s == fw::kGolden ? "golden" : s == fw::kSlotA ? "A" : s == fw::kSlotB ? "B" : "none"; }

template <class F>
auto CardStore::with_medium(F f) {
  if (board_.update == "qspi") {
    auto flash = FlashModel::open(directory_ + "/flash", flash_layout(board_.slot_bytes, board_.sector_bytes));
    if (!flash.ok()) flash = FlashModel(flash_layout(board_.slot_bytes, board_.sector_bytes));  // blank: nothing boots but what golden has, which is nothing
    fw::FlashMedium<FlashModel> medium(*flash, flash->layout());
    return f(medium);
  }
  DirectoryMedium medium(directory_);
  return f(medium);
}

Result<CardStore> CardStore::create(const std::string& directory, unsigned device, const Board& board, std::uint32_t revision, const ByteVector& golden) {
  CardStore s;
  s.directory_ = folder_of(directory, device), s.board_ = board, s.revision_ = revision;
  if (fs::exists(s.directory_)) return Status(Code::exists, s.directory_ + " is there already");
  auto parsed = parse_file(golden);
  if (!parsed.ok()) return parsed.status();
  if (parsed->manifest.kind != "card" || parsed->manifest.board != board.name) return Status(Code::invalid, "the golden image is not one of board '" + board.name + "'");
  Target target{board.name, revision, 0, board.platform_uuid, board.development, false, {parsed->manifest.add, parsed->manifest.revoke}};
  if (auto f = admit(golden, target); !f.ok()) return f.status();
  std::error_code e;
  fs::create_directories(s.directory_ + "/keys", e);
  if (board.update == "qspi") {
    auto flash = FlashModel::open(s.directory_ + "/flash", flash_layout(board.slot_bytes, board.sector_bytes));
    if (!flash.ok()) return flash.status();
    if (!flash->write_golden(golden)) return Status(Code::no_space, "the golden image is larger than a slot");
  } else if (Status w = write_file(s.directory_ + "/golden.img", golden, 0400); !w.ok()) {
    return w;
  }
  const std::string text = json::serialize(json::object{{"board", board.name}, {"revision", revision}}) + "\n";
  if (Status w = write_file(s.directory_ + "/card.json", {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}); !w.ok()) return w;
  return s;
}

Result<CardStore> CardStore::open(const std::string& directory, unsigned device) {
  CardStore s;
  s.directory_ = folder_of(directory, device);
  auto text = read_file(s.directory_ + "/card.json");
  if (!text.ok()) return Status(Code::not_found, "the card has no slots: there is no " + s.directory_);
  boost::system::error_code e;
  const json::value v = json::parse({reinterpret_cast<const char*>(text->data()), text->size()}, e);
  if (e || !v.is_object() || !v.as_object().contains("board") || !v.at("board").is_string() || !v.as_object().contains("revision") || !v.at("revision").is_int64())
    return Status(Code::corrupt, s.directory_ + "/card.json is not what this program wrote");
  auto board = load_board(std::string(v.at("board").as_string()));
  if (!board.ok()) return board.status();
  s.board_ = *board, s.revision_ = static_cast<std::uint32_t>(v.at("revision").as_int64());
  return s;
}

Result<ByteVector> CardStore::image_in(fw::Slot slot) {
  return with_medium([&](auto& m) -> Result<ByteVector> {
    std::uint8_t head[kHeaderBytes];
    const std::uint64_t n = m.read(slot, 0, head, sizeof head) ? length_of(head) : 0;
    if (n == 0 || n > m.slot_bytes()) return Status(Code::corrupt, "there is no image in slot " + std::string(slot_name(slot)));
    ByteVector bytes(n);
    constexpr std::uint32_t kPiece = 4096;
    for (std::uint32_t at = 0; at < n; at += kPiece)
      if (!m.read(slot, at, &bytes[at], static_cast<std::uint32_t>(std::min<std::uint64_t>(kPiece, n - at))))
        return Status(Code::corrupt, "the image in slot " + std::string(slot_name(slot)) + " is cut");
    return bytes;
  });
}

Result<Target> CardStore::target() {
  auto golden = image_in(fw::kGolden);
  if (!golden.ok()) return golden.status();
  auto parsed = parse_file(*golden);
  if (!parsed.ok()) return parsed.status().with("golden");
  Target t{board_.name, revision_, parsed->manifest.version, board_.platform_uuid, board_.development, false, {parsed->manifest.add, parsed->manifest.revoke}};
  for (unsigned n = 1; fs::exists(numbered(directory_, n)); ++n) {
    auto bytes = read_file(numbered(directory_, n));
    if (!bytes.ok()) return bytes.status();
    auto keys = admit(*bytes, t);
    if (!keys.ok()) return keys.status().with(numbered(directory_, n));
    if (Status s = t.keys.apply(keys->manifest); !s.ok()) return s.with(numbered(directory_, n));
  }
  for (const Slot& s : slots())
    if (s.current) t.version = s.version;
  return t;
}

std::vector<CardStore::Slot> CardStore::slots() {
  std::vector<Slot> out;
  Slot golden{fw::kGolden, true, true, 0, 0};
  if (auto g = image_in(fw::kGolden); g.ok())
    if (auto p = parse_file(*g); p.ok()) golden.version = p->manifest.version;
  Slot a{fw::kSlotA}, b{fw::kSlotB};
  const fw::Record r = with_medium([&](auto& m) { return m.newest(); });
  auto fill = [&](fw::Slot s, const fw::Image& i, bool good) {
    if (s == fw::kGolden) return;
    Slot& to = s == fw::kSlotA ? a : b;
    to.version = i.version, to.good = good;
  };
  if (r.sequence != 0) {
    fill(r.previous, r.previous_image, true);
    fill(r.slot, r.image, r.good);
    golden.current = r.slot == fw::kGolden;
    Slot* now = r.slot == fw::kSlotA ? &a : r.slot == fw::kSlotB ? &b : nullptr;
    if (now) now->current = true, now->attempts = r.attempts;
    // On trial and out of attempts: the one before runs.
    if (now && !r.good && r.attempts >= fw::kAttempts) {
      now->current = false;
      (r.previous == fw::kSlotA ? a : r.previous == fw::kSlotB ? b : golden).current = true;
    }
  }
  out = {golden, a, b};
  return out;
}

fw::Slot CardStore::next_slot() {
  return with_medium([](auto& m) { return Slots<std::decay_t<decltype(m)>>(m).target(); });
}

Result<CardStore::Boot> CardStore::boot() {
  const auto choice = with_medium([](auto& m) {
    auto c = Slots<std::decay_t<decltype(m)>>(m).choose();
    return std::pair(c.slot, c.fell_back);
  });
  auto bytes = image_in(choice.first);
  if (!bytes.ok()) return bytes.status();
  auto f = parse_file(*bytes);
  if (!f.ok()) return f.status();
  Boot b{choice.first, choice.second, version_text(f->manifest.version), "", ""};
  const std::string folder = directory_ + "/boot";
  std::error_code e;
  fs::remove_all(folder, e);
  fs::create_directories(folder, e);
  for (auto [part, file, path] : {std::tuple{"firmware", "/firmware.bin", &b.firmware}, {"xclbin", "/card.xclbin", &b.xclbin}})
    if (const ByteVector* p = part_of(*f, part)) {
      *path = folder + file;
      if (Status s = write_file(*path, *p); !s.ok()) return s;
    }
  return b;
}

Status CardStore::mark_good(fw::Slot slot) {
  const bool ok = with_medium([&](auto& m) { return Slots<std::decay_t<decltype(m)>>(m).mark_good(slot); });
  return ok ? Status() : Status(Code::io_error, "slot " + std::string(slot_name(slot)) + " cannot be marked good");
}

Status CardStore::update(const ByteVector& file, const File& parsed, const Tell& tell) {
  fw::Sha256 sha;
  sha.add(file.data(), static_cast<std::uint32_t>(file.size()));
  const fw::Image image{static_cast<std::uint32_t>(file.size()), parsed.manifest.version, sha.end()};
  auto get = [&](std::uint32_t at, std::uint8_t* to, std::uint32_t n) { std::memcpy(to, &file[at], n); };
  const auto r = with_medium([&](auto& m) { return Slots<std::decay_t<decltype(m)>>(m).update(image, get, tell); });
  return r == fw::UpdateResult::done ? Status() : Status(r == fw::UpdateResult::too_large ? Code::no_space : Code::io_error, std::string(result_text(r)));
}

Status CardStore::roll_back() {
  const bool ok = with_medium([](auto& m) { return Slots<std::decay_t<decltype(m)>>(m).roll_back(); });
  return ok ? Status() : Status(Code::conflict, "there is no image before this one that is whole");
}

Status CardStore::apply_keys(const ByteVector& file, const File& parsed) {
  auto t = target();
  if (!t.ok()) return t.status();
  if (Status s = t->keys.apply(parsed.manifest); !s.ok()) return s;
  unsigned n = 1;
  while (fs::exists(numbered(directory_, n))) ++n;
  const std::string fresh = numbered(directory_, n) + ".new";
  if (Status s = write_file(fresh, file); !s.ok()) return s;
  std::error_code e;
  fs::rename(fresh, numbered(directory_, n), e);
  return e ? Status(Code::io_error, "cannot keep the keys: " + e.message()) : Status();
}

}  // namespace luge::image
