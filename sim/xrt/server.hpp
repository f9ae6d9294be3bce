// Answers the calls of XRT's emulation shim with a Machine: what a vendor's simulator does behind the same socket.
#pragma once
#include <cstdint>

#include "sim/xrt/connection.hpp"
#include "sim/xrt/front_kernel.hpp"
#include "sim/xrt/machine.hpp"
#include "sim/xrt/message.hpp"

namespace luge::xrt_sim {

/// Where the card's registers lie: also in the xclbin (make_xclbin.py) and, for the copy engine, in emconfig.json.
inline constexpr std::uint64_t kRegisters = 0x1800000, kRegisterBytes = 0x10000;
inline constexpr std::uint64_t kFrontKernel = 0x1810000;
inline constexpr std::uint64_t kCopyEngine = 0x1c20000;

class Server {
 public:
  Server(Connection& connection, Machine& machine) : connection_(connection), machine_(machine), front_(machine) {}
  /// Until the host closes (true) or goes away (false). Throws BadMessage.
  bool run();

 private:
  bool answer(const Connection::Call& call);
  void allocate(Reader in);
  void host_to_device(Reader in, bool plain);
  void device_to_host(Reader in, bool plain);
  void write_registers(Reader in);
  void read_registers(Reader in);
  void start_copy();

  Connection& connection_;
  Machine& machine_;
  FrontKernel front_;
  Writer out_;
  bool closed_ = false;
  int calls_ = 0;
  std::uint32_t copy_[16] = {};  // registers of the copy engine
};

}  // namespace luge::xrt_sim
