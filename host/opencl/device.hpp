// One OpenCL device, found through the ICD loader, with our kernel built for it. Every call blocks; one thread at a time, which
// need not be always the same.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/status.hpp"

namespace luge::opencl {

class Device {
 public:
  virtual ~Device() = default;
  /// "PLATFORM: DEVICE" as the driver calls them.
  virtual const std::string& name() const = 0;
  /// out[i] = sum over j of rows[i * sources.size() + j] * sources[j] in GF(2^8)/0x11D, byte by byte. 1..16 sources and 1..4 results,
  /// all of one size, a multiple of 64. io_error: a call failed, its name and code.
  virtual Status multiply(std::span<const std::uint8_t> rows, std::span<const Bytes> sources, std::span<const MutableBytes> out) = 0;
};

/// The first usable device in whose name `wanted` occurs (letters of either case); empty: the first usable one. not_found: there is no
/// driver, no device, or none fits: the text has every device with why it was not taken. io_error: the kernel does not build.
Result<std::unique_ptr<Device>> open_device(const std::string& wanted);

}  // namespace luge::opencl
