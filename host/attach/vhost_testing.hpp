// A guest and its driver in a test: memory in a memfd, split rings in it, a disk in memory behind the device. Nothing here is a socket.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "attach/virtio_blk.hpp"
#include "card/dirty_log_testing.hpp"

namespace luge::attach::testing {

/// A disk in memory. With `late`, answers wait for answer_all().
class MemoryDisk : public client::BlockTarget {
 public:
  MemoryDisk(io::World& world, std::uint64_t bytes) : world_(world), bytes_(bytes, std::byte{0}) {}
  std::uint64_t size_bytes() const override { return bytes_.size(); }
  void write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) override {
    std::memcpy(bytes_.data() + offset, image.data() + offset % kBlockBytes, length);
    ++writes;
    later([done = std::move(done)] { done(Status()); });
  }
  void read(std::uint64_t offset, std::uint32_t length, ReadDone done) override {
    later([this, offset, length, done = std::move(done)] {
      std::vector<Buffer> parts;  // one a block, as of a volume
      for (std::uint64_t at = offset, end = offset + length; at < end;) {
        std::uint64_t n = std::min(end, (at / kBlockBytes + 1) * kBlockBytes) - at;
        parts.push_back(Buffer::copy_of({bytes_.data() + at, n}));
        at += n;
      }
      done(fail, fail.ok() ? std::span(parts) : std::span<Buffer>());
    });
  }
  void trim(std::uint64_t offset, std::uint32_t length, Done done) override { zero(offset, length, std::move(done)); }
  void zero(std::uint64_t offset, std::uint32_t length, Done done) override {
    std::memset(bytes_.data() + offset, 0, length);
    later([done = std::move(done)] { done(Status()); });
  }
  void map(std::uint64_t, std::uint32_t, MapDone done) override { done(Status(Code::invalid, "not here"), {}); }
  void answer_all() {
    auto all = std::exchange(waiting_, {});
    std::shuffle(all.begin(), all.end(), random_);
    for (auto& f : all) f();
  }
  /// Nobody waits for the answers any more.
  void forget() { waiting_.clear(); }
  std::size_t waiting() const { return waiting_.size(); }
  std::byte* at(std::uint64_t offset) { return bytes_.data() + offset; }

  bool late = false;
  Status fail;
  std::uint64_t writes = 0;

 private:
  void later(std::function<void()> f) {
    if (late) waiting_.push_back(std::move(f));
    else world_.post(std::move(f));
  }
  io::World& world_;
  std::vector<std::byte> bytes_;
  std::vector<std::function<void()>> waiting_;
  std::mt19937_64 random_{3};
};

using card::testing::Log;

/// The guest's memory, and one queue's driver in it.
class Driver {
 public:
  static constexpr std::uint64_t kMemory = 4 << 20, kRings = 0x10000, kTables = 0x20000, kHeaders = 0x80000, kData = 0x100000;
  explicit Driver(std::uint32_t entries = 64) : entries(entries) {
    fd = ::memfd_create("guest", MFD_CLOEXEC);
    LUGE_CHECK(::ftruncate(fd, kMemory) == 0);
    card::GuestRegion r{0, kMemory, kUser, 0, fd};
    auto m = card::GuestMemory::map(std::span(&r, 1));
    LUGE_CHECK(m.ok());
    memory = *m;
    place = {entries, kRings, kRings + 0x4000, kRings + 0x8000};
    for (std::uint32_t i = 0; i < entries; ++i) free.push_back(static_cast<std::uint16_t>(entries - 1 - i));
  }
  ~Driver() { ::close(fd); }
  static constexpr std::uint64_t kUser = 0x7f0000000000;

  std::byte* at(std::uint64_t address) const { return memory->at(address, 1); }
  template <class T>
  T get(std::uint64_t address) const {
    T t;
    std::memcpy(&t, at(address), sizeof t);
    return t;
  }
  template <class T>
  void put(std::uint64_t address, T t) const { std::memcpy(at(address), &t, sizeof t); }

  struct Descriptor {
    std::uint64_t address;
    std::uint32_t bytes;
    std::uint16_t flags, next;
  };
  /// Header and status lie at a place of the head's own; `data` is [address, bytes) pieces. Indirect by choice. The head.
  std::uint16_t submit(std::uint32_t type, std::uint64_t sector, std::vector<std::pair<std::uint64_t, std::uint32_t>> data, bool device_writes, bool indirect = false) {
    std::uint16_t head = free.back();
    const std::uint64_t header = kHeaders + 64ull * head;
    put<std::uint32_t>(header, type), put<std::uint32_t>(header + 4, 0), put<std::uint64_t>(header + 8, sector), put<std::uint8_t>(header + 16, 0xee);
    std::vector<Descriptor> chain{{header, 16, 0, 0}};
    for (auto [a, n] : data) chain.push_back({a, n, static_cast<std::uint16_t>(device_writes ? 2 : 0), 0});
    chain.push_back({header + 16, 1, 2, 0});
    if (indirect) {
      std::uint64_t table = kTables + 0x1000ull * head % 0x40000;
      for (std::size_t i = 0; i < chain.size(); ++i) {
        if (i + 1 < chain.size()) chain[i].flags |= 1, chain[i].next = static_cast<std::uint16_t>(i + 1);
        put(table + 16 * i, chain[i]);
      }
      free.pop_back();
      put(place.descriptors + 16ull * head, Descriptor{table, static_cast<std::uint32_t>(16 * chain.size()), 4, 0});
      owned[head] = {head};
    } else {
      std::vector<std::uint16_t> used;
      for (std::size_t i = 0; i < chain.size(); ++i) used.push_back(free.back()), free.pop_back();
      for (std::size_t i = 0; i < chain.size(); ++i) {
        if (i + 1 < chain.size()) chain[i].flags |= 1, chain[i].next = used[i + 1];
        put(place.descriptors + 16ull * used[i], chain[i]);
      }
      owned[head] = used;
    }
    available(head);
    return head;
  }
  void available(std::uint16_t head) {
    put<std::uint16_t>(place.available + 4 + 2ull * (next % entries), head);
    __atomic_store_n(reinterpret_cast<std::uint16_t*>(at(place.available + 2)), ++next, __ATOMIC_RELEASE);
  }
  /// Heads that have ended since the last call, with the length given.
  std::vector<std::pair<std::uint16_t, std::uint32_t>> ended() {
    std::vector<std::pair<std::uint16_t, std::uint32_t>> all;
    auto used = __atomic_load_n(reinterpret_cast<const std::uint16_t*>(at(place.used + 2)), __ATOMIC_ACQUIRE);
    for (; seen != used; ++seen) {
      std::uint64_t element = place.used + 4 + 8ull * (seen % entries);
      auto head = static_cast<std::uint16_t>(get<std::uint32_t>(element));
      all.emplace_back(head, get<std::uint32_t>(element + 4));
      for (std::uint16_t d : owned[head]) free.push_back(d);
      owned.erase(head);
    }
    return all;
  }
  std::uint8_t status(std::uint16_t head) const { return get<std::uint8_t>(kHeaders + 64ull * head + 16); }

  const std::uint32_t entries;
  int fd = -1;
  std::shared_ptr<card::GuestMemory> memory;
  Vring::Place place;
  std::vector<std::uint16_t> free;
  std::map<std::uint16_t, std::vector<std::uint16_t>> owned;
  std::uint16_t next = 0, seen = 0;
};

}  // namespace luge::attach::testing
