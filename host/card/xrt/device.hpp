// The card on XRT's native interface: xrt::device, xrt::bo, xrt::ip and nothing else, so that the same program drives an emulated
// card and a real one. Owns the ring of jobs, the coefficient tables and the memory that is shared with the daemon.
//
// The pool is one buffer: byte i of it lies at the same distance from its start here, in the daemon and on the card, so that a job
// needs no buffer of its own. There are two ways to share it:
//   mapped   a p2p buffer: the card's own memory, mapped here and there; nothing is ever copied
//   copied   memory of ours that XRT copies to the card before a job (sources) and back after it (destinations); always possible
//
// One thread. Every call may throw Failure, and XRT may take long, hang or end the process: that is why this lives in a process of
// its own (main.cpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <experimental/xrt_ip.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>

#include "base/status.hpp"
#include "card/card.hpp"
#include "card/messages.hpp"
#include "card/xrt/firmware.hpp"
#include "hls/registers/card.h"

namespace luge::card {

struct Failure : std::runtime_error {
  Failure(Fault f, Code c, const std::string& text) : std::runtime_error(text), fault(f), code(c) {}
  Fault fault;
  Code code;
};

struct DeviceOptions {
  unsigned device = 0;
  std::string xclbin;
  std::size_t pool_bytes = 64u << 20;
  bool mapped = false;
};

class Device {
 public:
  explicit Device(const DeviceOptions& options);
  ~Device();

  int pool_descriptor() const { return pool_fd_; }
  std::uint8_t* pool() { return pool_data_; }
  std::uint64_t pool_bytes() const { return pool_bytes_; }
  std::string describe() const { return description_; }
  /// Where the device is on the host's PCI Express bus, as XRT says: domain:bus:device.function.
  std::string bus_address() const { return bus_address_; }
  std::uint32_t sources() const { return sources_; }
  std::uint32_t rows() const { return rows_; }
  std::uint32_t slots() const { return slots_; }

  /// Room on the ring for a job and the table that it may need.
  bool room() const { return submitted_ - completed_ + 2 <= kEntries; }
  /// Copies the sources to the card, puts the job on the ring, rings. REQUIRES: room().
  void submit(const JobMessage& job);
  std::size_t outstanding() const { return jobs_.size(); }

  struct Done { std::uint32_t id = 0; std::uint16_t status = 0; };
  /// The next job that has ended, its results copied back; nothing: none has.
  std::optional<Done> reap();
  /// How long it is sensible to wait before looking again.
  std::chrono::microseconds wait_hint() const;

  CountersMessage counters();
  /// What `status` of a completion means. `text` is for people.
  static Fault fault_of(std::uint16_t status, Code& code, std::string& text);

  std::uint32_t read(std::uint32_t offset) { return ip_.read_register(offset); }
  void write(std::uint32_t offset, std::uint32_t value) { ip_.write_register(offset, value); }
  std::uint32_t submitted() const { return submitted_; }
  /// Lets the firmware test the card: the ring is given up meanwhile. REQUIRES: outstanding() == 0.
  std::optional<Firmware::Answer> self_test(std::chrono::milliseconds limit);
  /// The controller's, if the card has one. It makes the coefficients of decodes.
  Firmware& firmware() { return firmware_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr unsigned kEntriesLog2 = 6;
  static constexpr std::uint32_t kEntries = 1u << kEntriesLog2;
  struct Pending {
    std::uint32_t id = 0;       // 0: a table
    bool decode = false;
    std::uint32_t rows = 0, sources = 0, length = 0;
    std::uint64_t destination[kMessageRows] = {};
  };
  struct Table { std::uint8_t coefficients[64]; std::uint8_t number; bool loaded; };

  void load(const DeviceOptions& options);
  void identify();
  void meet_firmware();
  void make_pool(const DeviceOptions& options);
  void make_rings();
  void write64(std::uint32_t offset, std::uint64_t value);
  std::uint8_t table_for(const JobMessage& job);
  void pass_fence(const JobMessage& job, luge_card::Descriptor& d);
  void put(const luge_card::Descriptor& d, const Pending& p);
  bool fetch_completion(luge_card::Completion& c);
  void copy(bool to_card, std::uint64_t at, std::uint64_t bytes);

  xrt::device device_;
  xrt::uuid uuid_;
  xrt::ip ip_;
  Firmware firmware_{[this](std::uint32_t at) { return read(at); }, [this](std::uint32_t at, std::uint32_t v) { write(at, v); }};
  unsigned bank_ = 0;
  std::string description_, bus_address_;
  std::uint32_t sources_ = 0, rows_ = 0, slots_ = 0, tables_ = 0;

  bool mapped_ = false;
  xrt::bo pool_bo_, ring_bo_;
  std::uint8_t* pool_data_ = nullptr;
  std::uint64_t pool_bytes_ = 0;
  int pool_fd_ = -1;
  std::uint8_t* ring_ = nullptr;  // descriptors, then completions

  std::uint32_t submitted_ = 0, completed_ = 0;
  std::uint32_t seen_completed_ = 0;  // the card's count, as last read
  std::deque<Pending> jobs_;
  std::list<Table> recent_;           // most recently used first
  struct Fence { std::uint64_t epoch = 0; std::uint8_t entry = 0; };
  std::map<std::uint64_t, Fence> fences_;  // by partition, as the card has them
  Clock::time_point busy_since_;      // the oldest job has had the card to itself since
  double ns_per_byte_ = 0;            // of late
  CountersMessage counters_;
  std::uint32_t last_registers_[8] = {};
};

}  // namespace luge::card
