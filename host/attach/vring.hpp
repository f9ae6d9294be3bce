// A split virtqueue as a device reads it (virtio 1.2, 2.7). Everything here comes from a guest that may be hostile and runs meanwhile:
// each word is read once, checked, and only the copy is used.
//
// Errors: invalid, with what is wrong; the device then stops for good.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.hpp"
#include "card/guest_memory.hpp"

namespace luge::attach {

/// A piece of guest memory that a descriptor names; inside the table of guest memory.
struct Segment {
  std::uint64_t address = 0;
  std::uint32_t bytes = 0;
  bool writable = false;
};

class Vring {
 public:
  static constexpr std::uint32_t kMostEntries = 1024;      ///< of a ring
  static constexpr std::uint32_t kMostDescriptors = 1024;  ///< of a request, indirect ones included

  struct Place {
    std::uint32_t entries = 0;                       ///< a power of 2
    std::uint64_t descriptors = 0, available = 0, used = 0;  ///< guest physical
  };

  /// The ring's parts lie in the memory, or it is not started. The table stays alive as long as the ring uses it.
  Status start(const card::GuestMemory& memory, const Place& place);
  void stop() { memory_ = nullptr; }
  bool started() const { return memory_ != nullptr; }
  std::uint32_t entries() const { return place_.entries; }

  /// The guest's index: so many requests have ever been made available, modulo 2^16.
  std::uint16_t available_index() const;
  bool wants_no_interrupt() const;
  /// The guest asks to be told when the used index passes this one (VIRTIO_F_EVENT_IDX).
  std::uint16_t used_event() const;
  std::uint16_t used_index() const;
  /// Head of the request that was made available as number `index`; invalid: there is no such descriptor.
  Result<std::uint16_t> head(std::uint16_t index) const;
  /// The request's memory, in order: all that is readable first.
  Status chain(std::uint16_t head, std::vector<Segment>& segments) const;

  std::uint64_t used_element_address(std::uint16_t index) const { return place_.used + 4 + 8ull * (index % place_.entries); }
  std::uint64_t used_index_address() const { return place_.used + 2; }
  std::uint64_t used_flags_address() const { return place_.used; }
  std::uint64_t available_event_address() const { return place_.used + 4 + 8ull * place_.entries; }

 private:
  struct Descriptor {
    std::uint64_t address;
    std::uint32_t bytes;
    std::uint16_t flags, next;
  };
  static Descriptor read_descriptor(const std::byte* table, std::uint32_t index);
  Status add(const Descriptor& d, std::vector<Segment>& segments) const;
  Status indirect(const Descriptor& table, std::vector<Segment>& segments) const;

  const card::GuestMemory* memory_ = nullptr;
  Place place_;
  const std::byte *descriptors_ = nullptr, *available_ = nullptr, *used_ = nullptr;
};

}  // namespace luge::attach
