// A kernel in front of the card for hosts that know only kernels with arguments (OpenCL, xrt::kernel): ap_ctrl_hs. A start makes one job of its
// arguments, puts it on the card's ring and rings the doorbell; it is done when the card's completion is there. The bytes take the same way as those of
// any other job. A host that drives the card's registers itself (xrt::ip) must not use it at the same time.
//
//   luge_code(sources, coefficients, results, completion, k, rows, bytes)
//     sources       k chunks of `bytes` bytes, one behind the other
//     coefficients  rows * k bytes, row by row
//     results       rows chunks, one behind the other
//     completion    64 bytes, what the card says of the job (docs/registers.md): its status is 0 if all went well
//
// This one is software of the simulator; there is no RTL of it yet.
#pragma once
#include <cstdint>

#include "sim/xrt/machine.hpp"

namespace luge::xrt_sim {

class FrontKernel {
 public:
  explicit FrontKernel(Machine& machine) : machine_(machine) {}
  std::uint32_t read(std::uint32_t offset);
  void write(std::uint32_t offset, std::uint32_t value);

 private:
  std::uint64_t pointer(std::uint32_t offset) const { return arguments_[offset / 4] | static_cast<std::uint64_t>(arguments_[offset / 4 + 1]) << 32; }
  void start();
  bool own_card();
  void put(const void* descriptor);
  bool ended();
  void finish(std::uint16_t status);

  Machine& machine_;
  std::uint32_t arguments_[64] = {};
  bool owns_ = false, running_ = false, done_ = false;
  std::uint32_t submitted_ = 0;  // descriptors, all told
};

}  // namespace luge::xrt_sim
