#include "attach/vring.hpp"

#include <spdlog/fmt/fmt.h>

namespace luge::attach {
namespace {

constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4, kNoInterrupt = 1;
constexpr std::uint64_t kDescriptorBytes = 16;

// One load of the guest's word, whatever the guest does to it meanwhile.
template <class T>
T once(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_RELAXED);
}

Status wrong(std::string text) { return Status(Code::invalid, std::move(text)); }

}  // namespace

Status Vring::start(const card::GuestMemory& memory, const Place& p) {
  if (p.entries == 0 || p.entries > kMostEntries || (p.entries & (p.entries - 1)) != 0) return wrong(fmt::format("a ring of {} entries", p.entries));
  if (p.descriptors % 16 != 0 || p.available % 2 != 0 || p.used % 4 != 0) return wrong("a ring that is not aligned");
  const std::byte* d = memory.at(p.descriptors, kDescriptorBytes * p.entries);
  const std::byte* a = memory.at(p.available, 6 + 2ull * p.entries);
  const std::byte* u = memory.at(p.used, 6 + 8ull * p.entries);
  if (d == nullptr || a == nullptr || u == nullptr)
    return wrong(fmt::format("a ring outside guest memory (descriptors {:#x}, available {:#x}, used {:#x})", p.descriptors, p.available, p.used));
  memory_ = &memory, place_ = p, descriptors_ = d, available_ = a, used_ = u;
  return Status();
}

std::uint16_t Vring::available_index() const { return __atomic_load_n(reinterpret_cast<const std::uint16_t*>(available_ + 2), __ATOMIC_ACQUIRE); }
bool Vring::wants_no_interrupt() const { return (once<std::uint16_t>(available_) & kNoInterrupt) != 0; }
std::uint16_t Vring::used_event() const { return once<std::uint16_t>(available_ + 4 + 2ull * place_.entries); }
std::uint16_t Vring::used_index() const { return once<std::uint16_t>(used_ + 2); }

Result<std::uint16_t> Vring::head(std::uint16_t index) const {
  auto h = once<std::uint16_t>(available_ + 4 + 2ull * (index % place_.entries));
  if (h >= place_.entries) return wrong(fmt::format("available entry {} names descriptor {} of {}", index % place_.entries, h, place_.entries));
  return h;
}

Vring::Descriptor Vring::read_descriptor(const std::byte* table, std::uint32_t index) {
  const std::byte* at = table + kDescriptorBytes * index;
  auto rest = once<std::uint64_t>(at + 8);
  return {once<std::uint64_t>(at), static_cast<std::uint32_t>(rest), static_cast<std::uint16_t>(rest >> 32), static_cast<std::uint16_t>(rest >> 48)};
}

// A descriptor may reach over the seam of two regions.
Status Vring::add(const Descriptor& d, std::vector<Segment>& segments) const {
  bool writable = (d.flags & kWrite) != 0;
  if (!writable && !segments.empty() && segments.back().writable) return wrong("a readable descriptor behind a writable one");
  std::uint64_t address = d.address, left = d.bytes;
  while (left != 0) {
    std::uint64_t n = std::min(left, memory_->room(address));
    if (n == 0) return wrong(fmt::format("a descriptor of {} bytes at {:#x} outside guest memory", d.bytes, d.address));
    if (segments.size() >= kMostDescriptors) return wrong(fmt::format("a request of more than {} descriptors", kMostDescriptors));
    segments.push_back({address, static_cast<std::uint32_t>(n), writable});
    address += n, left -= n;
  }
  return Status();
}

Status Vring::chain(std::uint16_t head, std::vector<Segment>& segments) const {
  segments.clear();
  std::uint32_t at = head;
  for (std::uint32_t n = 0;; ++n) {
    if (n >= place_.entries) return wrong("a chain of descriptors that is a loop");
    Descriptor d = read_descriptor(descriptors_, at);
    if ((d.flags & kIndirect) != 0) {
      if (n != 0 || (d.flags & kNext) != 0) return wrong("an indirect descriptor inside a chain");
      return indirect(d, segments);
    }
    if (Status s = add(d, segments); !s.ok()) return s;
    if ((d.flags & kNext) == 0) return Status();
    if (d.next >= place_.entries) return wrong(fmt::format("a descriptor goes on at {} of {}", d.next, place_.entries));
    at = d.next;
  }
}

Status Vring::indirect(const Descriptor& table, std::vector<Segment>& segments) const {
  const std::uint32_t count = table.bytes / kDescriptorBytes;
  if (count == 0 || table.bytes % kDescriptorBytes != 0 || count > kMostDescriptors) return wrong(fmt::format("an indirect table of {} bytes", table.bytes));
  const std::byte* entries = memory_->at(table.address, table.bytes);
  if (entries == nullptr || table.address % 8 != 0) return wrong(fmt::format("an indirect table at {:#x} outside guest memory or not aligned", table.address));
  std::uint32_t at = 0;
  for (std::uint32_t n = 0;; ++n) {
    if (n >= count) return wrong("an indirect table that is a loop");
    Descriptor d = read_descriptor(entries, at);
    if ((d.flags & kIndirect) != 0) return wrong("an indirect table within another");
    if (Status s = add(d, segments); !s.ok()) return s;
    if ((d.flags & kNext) == 0) return Status();
    if (d.next >= count) return wrong(fmt::format("an indirect descriptor goes on at {} of {}", d.next, count));
    at = d.next;
  }
}

}  // namespace luge::attach
