// vhost-user as bytes: what of it is served here (QEMU's docs/interop/vhost-user).
#pragma once

#include <cstdint>
#include <string_view>

namespace luge::attach::vhost {

enum class Message : std::uint32_t {
  get_features = 1, set_features = 2, set_owner = 3, reset_owner = 4, set_mem_table = 5, set_log_base = 6, set_log_fd = 7,
  set_vring_num = 8, set_vring_addr = 9, set_vring_base = 10, get_vring_base = 11, set_vring_kick = 12, set_vring_call = 13,
  set_vring_err = 14, get_protocol_features = 15, set_protocol_features = 16, get_queue_num = 17, set_vring_enable = 18,
  set_backend_request_fd = 21, get_config = 24, set_config = 25, get_inflight_fd = 31, set_inflight_fd = 32, reset_device = 34,
};
std::string_view message_name(std::uint32_t request);  ///< "GET_FEATURES"; "?" for one that is not known

/// Message to the front end, on the socket that it gave.
inline constexpr std::uint32_t kBackendConfigChanged = 2;

inline constexpr std::uint32_t kVersion = 1, kReply = 4, kNeedReply = 8;  // flags
inline constexpr std::uint32_t kVersionMask = 3;
struct Header {
  std::uint32_t request = 0, flags = 0, size = 0;
};
static_assert(sizeof(Header) == 12);
inline constexpr std::uint32_t kMostPayload = 4096;
inline constexpr std::size_t kMostDescriptors = 8;

enum ProtocolFeature : unsigned {
  kMultiQueue = 0, kLogShared = 1, kReplyAck = 3, kBackendRequests = 5, kConfig = 9, kInflightShared = 12, kResetDevice = 13,
};
inline constexpr unsigned kLogAll = 26, kProtocolFeatures = 30;  // bits of the virtio features

struct RingState {
  std::uint32_t index, number;
};
struct RingAddress {
  std::uint32_t index, flags;
  std::uint64_t descriptors, used, available, log;
};
struct Region {
  std::uint64_t address, bytes, user, offset;
};
struct MemoryTable {
  std::uint32_t count, padding;
  Region region[8];
};
struct Log {
  std::uint64_t bytes, offset;
};
struct ConfigHeader {
  std::uint32_t offset, size, flags;
};
struct InflightArea {
  std::uint64_t bytes, offset;
  std::uint16_t queues, entries;
  std::uint32_t padding;
};
static_assert(sizeof(RingAddress) == 40 && sizeof(MemoryTable) == 264 && sizeof(InflightArea) == 24);
inline constexpr std::uint32_t kMostConfig = 256;
inline constexpr std::uint64_t kIndexMask = 0xff, kNoDescriptor = 0x100;  // of the payload of kick, call and err

}  // namespace luge::attach::vhost
