#include "sim/xrt/front_kernel.hpp"

#include <cstring>

#include "hls/registers/card.h"

namespace luge::xrt_sim {
namespace {

using namespace luge_card;

// Offsets of the arguments: make_xclbin.py has the same.
constexpr std::uint32_t kSources = 0x10, kCoefficients = 0x1c, kResults = 0x28, kCompletion = 0x34, kK = 0x40, kRows = 0x48, kBytes = 0x50;
constexpr std::uint32_t kStart = 1, kDone = 2, kIdle = 4, kReady = 8;
// Rings in memory of the kernel's own, behind the bank that hosts allocate from.
constexpr std::uint64_t kRing = 0x10'0000'0000, kBank = 4ull << 30;
constexpr std::uint32_t kEntriesLog2 = 2, kEntries = 1u << kEntriesLog2, kRingBytes = 4096;
constexpr std::uint32_t kTimeout = 1u << 20;

std::uint8_t* completion_of(Machine& m, std::uint32_t index) {
  std::uint64_t at = kRing + kRingBytes + index % kEntries * sizeof(Completion);
  return m.memory.holds(at, sizeof(Completion)) ? m.memory.at(at) : nullptr;
}

}  // namespace

std::uint32_t FrontKernel::read(std::uint32_t offset) {
  if (offset != 0) return offset / 4 < 64 ? arguments_[offset / 4] : 0;
  if (running_ && ended()) {
    Completion c;
    std::memcpy(static_cast<void*>(&c), completion_of(machine_, submitted_ - 1), sizeof c);
    finish(c.status);
  }
  if (running_) return kStart;
  return (done_ ? (done_ = false, kDone | kReady) : 0) | kIdle;
}

void FrontKernel::write(std::uint32_t offset, std::uint32_t value) {
  if (offset != 0) {
    if (offset / 4 < 64) arguments_[offset / 4] = value;
  } else if ((value & kStart) && !running_) {
    start();
  }
}

// Rings and window, once.
bool FrontKernel::own_card() {
  if (owns_) return true;
  if (!machine_.memory.allocate(kRing, 2 * kRingBytes)) return false;
  machine_.write_register(REG_CLEAR, CLEAR_GO);
  machine_.write_register(REG_RING_BASE, static_cast<std::uint32_t>(kRing)), machine_.write_register(REG_RING_BASE + 4, kRing >> 32);
  machine_.write_register(REG_COMPLETION_BASE, static_cast<std::uint32_t>(kRing + kRingBytes)), machine_.write_register(REG_COMPLETION_BASE + 4, (kRing + kRingBytes) >> 32);
  machine_.write_register(REG_RING_SIZE, kEntriesLog2);
  machine_.write_register(REG_WINDOW_BASE, 0), machine_.write_register(REG_WINDOW_BASE + 4, 0);
  machine_.write_register(REG_WINDOW_END, 0), machine_.write_register(REG_WINDOW_END + 4, kBank >> 32);
  machine_.write_register(REG_TIMEOUT, kTimeout);
  machine_.read_register(REG_SUBMITTED, submitted_);
  machine_.write_register(REG_CONTROL, CONTROL_RUN);
  return owns_ = true;
}

void FrontKernel::put(const void* descriptor) {
  std::uint64_t at = kRing + submitted_ % kEntries * sizeof(Descriptor);
  if (machine_.memory.holds(at, sizeof(Descriptor))) std::memcpy(machine_.memory.at(at), descriptor, sizeof(Descriptor));
  submitted_++;
}

// A table and a job that uses it. What is wrong with the arguments the card says itself, but for what no descriptor can say.
void FrontKernel::start() {
  running_ = true;
  std::uint32_t k = arguments_[kK / 4], rows = arguments_[kRows / 4], bytes = arguments_[kBytes / 4];
  std::uint64_t from = pointer(kCoefficients);
  if (k == 0 || k > 16 || rows == 0 || rows > 4) return finish(k == 0 || k > 16 ? JobStatus::bad_sources : JobStatus::bad_rows);
  if (!own_card() || !machine_.memory.holds(from, k * rows)) return finish(JobStatus::outside);
  Descriptor d;
  std::memset(static_cast<void*>(&d), 0, sizeof d);
  d.version = 1, d.op = Op::load_table;
  const std::uint8_t* coefficients = machine_.memory.at(from);
  for (std::uint32_t r = 0; r < rows; ++r) std::memcpy(reinterpret_cast<std::uint8_t*>(d.destination) + 16 * r, coefficients + k * r, k);
  put(&d);
  std::memset(static_cast<void*>(&d), 0, sizeof d);
  d.version = 1, d.op = Op::code, d.sources = static_cast<std::uint8_t>(k), d.rows = static_cast<std::uint8_t>(rows), d.length = bytes;
  for (std::uint32_t j = 0; j < k; ++j) d.source[j] = pointer(kSources) + std::uint64_t{bytes} * j;
  for (std::uint32_t r = 0; r < rows; ++r) d.destination[r] = pointer(kResults) + std::uint64_t{bytes} * r;
  put(&d);
  machine_.write_register(REG_SUBMITTED, submitted_);
}

bool FrontKernel::ended() {
  std::uint32_t index = submitted_ - 1;
  const std::uint8_t* c = completion_of(machine_, index);
  return c != nullptr && c[offsetof(Completion, phase)] == ((index >> kEntriesLog2) & 1 ? 0 : 1);
}

void FrontKernel::finish(std::uint16_t status) {
  Completion c;
  std::memset(static_cast<void*>(&c), 0, sizeof c);
  if (owns_ && ended()) std::memcpy(static_cast<void*>(&c), completion_of(machine_, submitted_ - 1), sizeof c);
  c.status = status;
  std::uint64_t to = pointer(kCompletion);
  if (machine_.memory.holds(to, sizeof c)) std::memcpy(machine_.memory.at(to), &c, sizeof c);
  running_ = false, done_ = true;
}

}  // namespace luge::xrt_sim
