#include "sim/xrt/server.hpp"

#include <unistd.h>

#include <cstring>

namespace luge::xrt_sim {
namespace {

// Numbers of the calls.
constexpr std::uint32_t kClose = 1, kAllocate = 4, kFree = 5, kHostToDevice = 6, kDeviceToHost = 7, kWriteRam = 8, kWriteRegisters = 9,
                        kReadRam = 10, kReadRegisters = 11, kTimestamp = 17;
constexpr int kCyclesAtOnce = 512;  // between two looks at the socket
constexpr int kCallsToTry = 200;    // in which the shim's second socket should have come up
constexpr std::uint32_t kDone = 6;  // ap_done and ap_idle
constexpr std::uint64_t kLargest = 64u << 20;

}  // namespace

bool Server::run() {
  Connection::Call call;
  while (!closed_) {
    while (machine_.look_at_faults()) ::usleep(10000);
    switch (connection_.receive(call, machine_.busy() || machine_.controller_busy() ? 0 : 1000)) {
      case Connection::Got::closed: return false;
      case Connection::Got::call:
        while (machine_.look_at_faults()) ::usleep(10000);
        if (!answer(call)) return false;
        machine_.run_controller();
        break;
      case Connection::Got::nothing: break;
    }
    if (machine_.busy()) machine_.run(kCyclesAtOnce);
    if (machine_.controller_busy()) machine_.run_controller();
  }
  return true;
}

bool Server::answer(const Connection::Call& call) {
  out_.clear();
  Reader in(call.body);
  if (++calls_ < kCallsToTry) connection_.try_back_channel();
  switch (call.number) {
    case kClose: connection_.dismiss_back_channel(), closed_ = true, out_.number(1, 1); break;
    case kAllocate: allocate(in); break;
    case kFree: {
      std::uint64_t address = 0;
      while (in.next()) if (in.field() == 1) address = in.number();
      out_.number(1, machine_.memory.free(address));
      break;
    }
    case kHostToDevice: case kWriteRam: host_to_device(in, call.number == kWriteRam); break;
    case kDeviceToHost: case kReadRam: device_to_host(in, call.number == kReadRam); break;
    case kWriteRegisters: write_registers(in); break;
    case kReadRegisters: read_registers(in); break;
    case kTimestamp: out_.number(1, machine_.cycles()); break;
    default: out_.number(1, 1); break;  // environment, bitstream, debug messages, performance counters: heard
  }
  return connection_.reply(out_.text());
}

void Server::allocate(Reader in) {
  std::uint64_t address = 0, size = 0;
  bool mapped = false;
  while (in.next()) switch (in.field()) {
      case 1: address = in.number(); break;
      case 2: size = in.number(); break;
      case 3: mapped = in.number() != 0; break;
    }
  out_.number(1, machine_.memory.allocate(address, size));
  if (mapped) out_.bytes(2, machine_.memory.file_of(address));
}

// Copies of buffers name the offset within the buffer apart from its address; those of plain memory have other fields.
void Server::host_to_device(Reader in, bool plain) {
  std::uint64_t address = 0, offset = 0;
  std::string_view data;
  while (in.next()) switch (in.field()) {
      case 2: if (plain) address = in.number(); break;
      case 3: if (!plain) address = in.number(); break;
      case 4: data = in.bytes(); break;
      case 6: offset = in.number(); break;
    }
  bool there = data.empty() || machine_.memory.holds(address + offset, data.size());
  if (there && !data.empty()) std::memcpy(machine_.memory.at(address + offset), data.data(), data.size());
  out_.number(1, there ? data.size() : 0);
}

void Server::device_to_host(Reader in, bool plain) {
  std::uint64_t address = 0, size = 0, offset = 0;
  while (in.next()) switch (in.field()) {
      case 2: if (plain) address = in.number(); break;
      case 3: if (plain) size = in.number(); break;
      case 4: address = in.number(); break;
      case 5: size = in.number(); break;
      case 6: offset = in.number(); break;
    }
  if (size > kLargest) throw BadMessage("more memory asked for than a packet holds");
  bool there = size != 0 && machine_.memory.holds(address + offset, size);
  out_.number(1, there ? size : 0);
  char* to = out_.room(2, size);
  if (there) std::memcpy(to, machine_.memory.at(address + offset), size);
  else std::memset(to, 0xff, size);
}

void Server::write_registers(Reader in) {
  std::uint64_t address = 0;
  std::string_view data;
  while (in.next()) switch (in.field()) {
      case 2: address = in.number(); break;
      case 4: data = in.bytes(); break;
    }
  bool good = true;
  for (std::size_t at = 0; at + 4 <= data.size(); at += 4) {
    std::uint32_t value;
    std::memcpy(&value, data.data() + at, 4);
    std::uint64_t to = address + at;
    if (to - kRegisters < kRegisterBytes) good = machine_.write_register(static_cast<std::uint32_t>(to - kRegisters), value) && good;
    else if (to - kCopyEngine < sizeof copy_) copy_[(to - kCopyEngine) / 4] = value;
    else good = false;
  }
  if (address == kCopyEngine && copy_[0] & 1) start_copy();
  out_.number(1, good);
}

void Server::read_registers(Reader in) {
  std::uint64_t address = 0, size = 0;
  while (in.next()) switch (in.field()) {
      case 2: address = in.number(); break;
      case 3: size = in.number(); break;
    }
  if (size > kRegisterBytes) throw BadMessage("registers asked for beyond their range");
  bool good = true;
  std::string data(size, '\xff');
  for (std::size_t at = 0; at + 4 <= size; at += 4) {
    std::uint32_t value = 0xffffffff;
    std::uint64_t from = address + at;
    if (from - kRegisters < kRegisterBytes) good = machine_.read_register(static_cast<std::uint32_t>(from - kRegisters), value) && good;
    else if (from - kCopyEngine < sizeof copy_) value = copy_[(from - kCopyEngine) / 4];
    else good = false;
    std::memcpy(data.data() + at, &value, 4);
  }
  out_.number(1, good).bytes(2, data);
}

// What copies between two buffers on the card at the host's wish (xrt::bo::copy).
void Server::start_copy() {
  std::uint64_t from, to;
  std::memcpy(&from, &copy_[4], 8);
  std::memcpy(&to, &copy_[6], 8);
  std::uint64_t size = copy_[8];
  if (size != 0 && machine_.memory.holds(from, size)) {
    std::uint8_t* p = machine_.memory.at(from);
    if (machine_.memory.holds(to, size)) std::memmove(machine_.memory.at(to), p, size);
  }
  copy_[0] = kDone;
}

}  // namespace luge::xrt_sim
