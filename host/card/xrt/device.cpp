#include "card/xrt/device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <experimental/xrt_xclbin.h>

#include "card/bus.hpp"

namespace luge::card {
namespace {

using namespace luge_card;

constexpr const char* kKernel = "luge_card";
constexpr std::uint32_t kTimeoutCycles = 1u << 20;  // 4 ms at 250 MHz; a daemon gives up on its own after longer
constexpr std::uint16_t kMajor = VERSION_VALUE >> 16;
constexpr std::chrono::milliseconds kFenceLimit{400};
constexpr std::chrono::seconds kFirmwareLimit{10};  // boot and self-test; verilated they take some
constexpr auto kShortest = std::chrono::microseconds(50), kLongest = std::chrono::microseconds(2000);

// Places in CountersMessage::values.
enum { kJobs, kJobsFailed, kEncodes, kDecodes, kTables, kSourceBytes, kResultBytes, kToCard, kOnCard, kFromCard, kFirstRegister };
constexpr std::uint32_t kRegisters[] = {REG_COMPLETED, REG_CYCLES, REG_BUSY_CYCLES, REG_BEATS_READ, REG_BEATS_WRITTEN, REG_READ_STALLS, REG_WRITE_STALLS, REG_JOBS_FAILED};

std::uint64_t ns_since(std::chrono::steady_clock::time_point t) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - t).count());
}

std::string hex(std::uint32_t v) {
  char b[16];
  std::snprintf(b, sizeof b, "0x%08x", v);
  return b;
}

}  // namespace

Device::Device(const DeviceOptions& options) : mapped_(options.mapped) {
  load(options);
  identify();
  meet_firmware();
  make_pool(options);
  make_rings();
  counters();  // so that the counts begin here
  std::fill(std::begin(counters_.values), std::end(counters_.values), 0);
}

Device::~Device() {
  if (!mapped_ && pool_data_ != nullptr) ::munmap(pool_data_, pool_bytes_);
  if (!mapped_ && pool_fd_ >= 0) ::close(pool_fd_);
}

// XRT trusts the lengths in an xclbin: what is cut is found here.
static void check_file(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  if (!f) throw Failure(Fault::no_runtime, Code::not_found, "cannot read the xclbin " + path + ": " + std::strerror(errno));
  char head[496];
  f.read(head, sizeof head);
  if (f.gcount() < 8 || std::memcmp(head, "xclbin2\0", 8) != 0) throw Failure(Fault::not_a_card, Code::invalid, path + " is not an xclbin");
  std::uint64_t length = 0;
  if (f.gcount() == sizeof head) std::memcpy(&length, head + 304, 8);
  f.clear();
  f.seekg(0, std::ios::end);
  auto have = static_cast<std::uint64_t>(f.tellg());
  if (length < sizeof head || have < length)
    throw Failure(Fault::not_a_card, Code::invalid, "the xclbin " + path + " is cut: " + std::to_string(have) + " bytes" +
                  (length >= sizeof head ? " of " + std::to_string(length) : ""));
}

void Device::load(const DeviceOptions& options) {
  check_file(options.xclbin);
  try {
    device_ = xrt::device(options.device);
  } catch (const std::exception& e) {
    throw Failure(Fault::no_runtime, Code::not_found, "XRT shows no device " + std::to_string(options.device) + ": " + e.what());
  }
  try {
    xrt::xclbin file(options.xclbin);
    for (const auto& m : file.get_mems())
      if (m.get_used() && m.get_type() != xrt::xclbin::mem::memory_type::streaming && m.get_size_kb() * 1024 >= options.pool_bytes) {
        bank_ = static_cast<unsigned>(m.get_index());
        break;
      }
    uuid_ = device_.load_xclbin(file);
    ip_ = xrt::ip(device_, uuid_, kKernel);
  } catch (const std::system_error& e) {
    if (e.code().value() == EBUSY || e.code().value() == EPERM)
      throw Failure(Fault::in_use, Code::exists, "another host has the card: " + std::string(e.what()));
    throw Failure(Fault::not_a_card, Code::invalid, options.xclbin + " does not make the device a card of ours: " + e.what());
  } catch (const std::exception& e) {
    throw Failure(Fault::not_a_card, Code::invalid, options.xclbin + " does not make the device a card of ours: " + e.what());
  }
}

void Device::identify() {
  std::uint32_t id = read(REG_ID), version = read(REG_VERSION), build = read(REG_BUILD);
  bus_address_ = device_.get_info<xrt::info::device::bdf>();
  if (Status on_bus = check_on_bus(bus_address_, id, ID_VALUE); !on_bus.ok()) throw Failure(Fault::not_a_card, Code::invalid, on_bus.text());
  if (version >> 16 != kMajor)
    throw Failure(Fault::wrong_version, Code::wrong_version, "the card's register map has version " + std::to_string(version >> 16) + "." +
                  std::to_string(version & VERSION_MINOR) + ", this driver knows " + std::to_string(kMajor) + ".x: install a matching xclbin");
  sources_ = build & BUILD_SOURCES, rows_ = (build & BUILD_ROWS) >> 8, tables_ = (build & BUILD_TABLES) >> 16, slots_ = build >> 24;
  if (sources_ == 0 || rows_ == 0 || tables_ == 0 || slots_ == 0)
    throw Failure(Fault::wrong_version, Code::wrong_version, "the card says that it was built for nothing: build " + hex(build));
  std::string name = device_.get_info<xrt::info::device::name>();
  description_ = name + " at " + bus_address_ + ", register map " + std::to_string(version >> 16) + "." + std::to_string(version & VERSION_MINOR) + ", " +
                 std::to_string(sources_) + "+" + std::to_string(rows_) + ", " + std::to_string(tables_) + " tables, memory " + (mapped_ ? "mapped" : "copied");
}

// The self-test of a card that has just got its power runs on the ring that is about to be taken.
void Device::meet_firmware() {
  if (!firmware_.claim(kFirmwareLimit)) throw Failure(Fault::died, Code::unavailable, firmware_.why());
  description_ += ", " + firmware_.describe();
}

// The test writes the registers that say where the ring is.
std::optional<Firmware::Answer> Device::self_test(std::chrono::milliseconds limit) {
  write(REG_CONTROL, 0);
  firmware_.release();
  auto answer = firmware_.command(Command::self_test, {}, limit);
  if (!firmware_.claim(kFirmwareLimit)) return answer;  // failed: the card is left as it is
  recent_.clear();
  make_rings();
  return answer;
}

void Device::make_pool(const DeviceOptions& options) {
  pool_bytes_ = options.pool_bytes;
  if (mapped_) {
    try {
      pool_bo_ = xrt::bo(device_, pool_bytes_, xrt::bo::flags::p2p, bank_);
      pool_data_ = pool_bo_.map<std::uint8_t*>();
      pool_fd_ = pool_bo_.export_buffer();
    } catch (const std::exception& e) {
      throw Failure(Fault::no_runtime, Code::no_space, "the card's memory cannot be mapped (p2p): " + std::string(e.what()) + "; use memory = copied");
    }
    return;
  }
  pool_fd_ = ::memfd_create("luge-card-pool", MFD_CLOEXEC);
  void* p = pool_fd_ >= 0 && ::ftruncate(pool_fd_, static_cast<off_t>(pool_bytes_)) == 0
                ? ::mmap(nullptr, pool_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, pool_fd_, 0) : MAP_FAILED;
  if (p == MAP_FAILED) throw Failure(Fault::no_runtime, Code::no_space, "no memory for a pool of " + std::to_string(pool_bytes_) + " bytes");
  pool_data_ = static_cast<std::uint8_t*>(p);
  try {
    pool_bo_ = xrt::bo(device_, p, pool_bytes_, bank_);
  } catch (const std::exception& e) {
    throw Failure(Fault::no_runtime, Code::no_space, "the card has no room for a pool of " + std::to_string(pool_bytes_) + " bytes: " + e.what());
  }
}

// A card that somebody left in the middle of work is drained first: what it does then is nobody's.
void Device::make_rings() {
  write(REG_CONTROL, CONTROL_DRAIN);
  for (int i = 0; i < 1000 && !(read(REG_STATUS) & STATUS_IDLE); ++i) ::usleep(1000);
  if (!(read(REG_STATUS) & STATUS_IDLE)) throw Failure(Fault::hang, Code::timed_out, "the card is busy and does not come to rest: status " + hex(read(REG_STATUS)));
  write(REG_CONTROL, 0);
  write(REG_CLEAR, CLEAR_GO);
  std::uint64_t bytes = kEntries * (sizeof(Descriptor) + sizeof(Completion));
  static_assert(kEntries * sizeof(Descriptor) % kPage == 0 && kEntries * sizeof(Completion) % kPage == 0, "rings begin on pages");
  ring_bo_ = xrt::bo(device_, bytes, mapped_ ? xrt::bo::flags::p2p : xrt::bo::flags::normal, bank_);
  ring_ = ring_bo_.map<std::uint8_t*>();
  submitted_ = completed_ = seen_completed_ = read(REG_SUBMITTED);
  // Entries must not look completed: the phase of the turn before.
  std::uint8_t* completions = ring_ + kEntries * sizeof(Descriptor);
  std::memset(completions, 0, kEntries * sizeof(Completion));
  for (std::uint32_t i = 0; i < kEntries; ++i) {
    std::uint32_t next = submitted_ + ((i - submitted_) & (kEntries - 1));
    completions[i * sizeof(Completion) + offsetof(Completion, phase)] = (next >> kEntriesLog2) & 1;
  }
  if (!mapped_) ring_bo_.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  write64(REG_RING_BASE, ring_bo_.address());
  write64(REG_COMPLETION_BASE, ring_bo_.address() + kEntries * sizeof(Descriptor));
  write(REG_RING_SIZE, kEntriesLog2);
  write64(REG_WINDOW_BASE, pool_bo_.address());
  write64(REG_WINDOW_END, pool_bo_.address() + pool_bytes_);
  write(REG_TIMEOUT, kTimeoutCycles);
  write(REG_SEAT, 0);
  write(REG_FAULT, read(REG_FAULT));
  write(REG_CONTROL, CONTROL_RUN);
  for (std::uint32_t t = 0; t < tables_; ++t) recent_.push_back({{}, static_cast<std::uint8_t>(t), false});
}

void Device::write64(std::uint32_t offset, std::uint64_t value) {
  write(offset, static_cast<std::uint32_t>(value));
  write(offset + 4, static_cast<std::uint32_t>(value >> 32));
}

void Device::copy(bool to_card, std::uint64_t at, std::uint64_t bytes) {
  if (mapped_) return;
  auto begin = Clock::now();
  pool_bo_.sync(to_card ? XCL_BO_SYNC_BO_TO_DEVICE : XCL_BO_SYNC_BO_FROM_DEVICE, bytes, at);
  counters_.values[to_card ? kToCard : kFromCard] += ns_since(begin);
}

void Device::put(const Descriptor& d, const Pending& p) {
  std::uint64_t at = submitted_ % kEntries * sizeof(Descriptor);
  std::memcpy(ring_ + at, &d, sizeof d);
  if (!mapped_) ring_bo_.sync(XCL_BO_SYNC_BO_TO_DEVICE, sizeof d, at);
  if (jobs_.empty()) busy_since_ = Clock::now();
  ++submitted_;
  jobs_.push_back(p);
}

// The table that was used longest ago goes; the card holds a load back for the jobs that use its table.
std::uint8_t Device::table_for(const JobMessage& job) {
  auto it = std::find_if(recent_.begin(), recent_.end(),
                         [&](const Table& t) { return t.loaded && std::memcmp(t.coefficients, job.coefficients, sizeof t.coefficients) == 0; });
  if (it == recent_.end()) {
    it = std::prev(recent_.end());
    std::memcpy(it->coefficients, job.coefficients, sizeof it->coefficients);
    it->loaded = true;
    Descriptor d;
    std::memset(static_cast<void*>(&d), 0, sizeof d);
    d.version = 1, d.op = Op::load_table, d.table = it->number;
    const auto made = job.k != 0 ? firmware_.table(job.k, job.m, job.present, job.wanted) : std::nullopt;
    std::memcpy(d.destination, made ? made->data() : job.coefficients, sizeof job.coefficients);
    put(d, Pending{});
    ++counters_.values[kTables];
  }
  recent_.splice(recent_.begin(), recent_, it);
  return it->number;
}

// The first job under an epoch raises the card's fence to it, by way of the firmware: jobs under older ones that are still on their way are refused from then on.
// A card that keeps none, or has no room for another, does not look: the sled has, before.
void Device::pass_fence(const JobMessage& job, Descriptor& d) {
  if (job.epoch == 0) return;
  Fence& f = fences_[job.partition];
  if (f.epoch < job.epoch) {
    const std::uint32_t arguments[] = {static_cast<std::uint32_t>(job.partition), static_cast<std::uint32_t>(job.partition >> 32), static_cast<std::uint32_t>(job.epoch),
                                       static_cast<std::uint32_t>(job.epoch >> 32)};
    const auto a = firmware_.command(Command::fence, arguments, kFenceLimit);
    if (a && a->status == static_cast<std::uint32_t>(AnswerStatus::ok)) f = {a->words[0] | std::uint64_t{a->words[1]} << 32, static_cast<std::uint8_t>(a->words[2])};
    else if (a) f.epoch = job.epoch;
  }
  if (f.entry != 0) d.fence = f.entry, d.epoch = job.epoch;
}

void Device::submit(const JobMessage& job) {
  auto inside = [&](std::uint64_t at) { return at <= pool_bytes_ && job.length <= pool_bytes_ - at; };
  Pending p{job.header.id, job.decode != 0, job.rows, job.sources, job.length, {}};
  if (job.sources == 0 || job.sources > sources_ || job.rows == 0 || job.rows > rows_ || job.length == 0 || job.length > MAX_LENGTH ||
      !std::all_of(job.source, job.source + job.sources, inside) || !std::all_of(job.destination, job.destination + job.rows, inside))
    throw Failure(Fault::refused, Code::internal, "a job that the card would refuse: " + std::to_string(job.sources) + "+" + std::to_string(job.rows) +
                  " chunks of " + std::to_string(job.length) + " bytes");
  Descriptor d;
  std::memset(static_cast<void*>(&d), 0, sizeof d);
  d.version = 1, d.op = Op::code, d.cookie = job.header.id;
  d.sources = static_cast<std::uint8_t>(job.sources), d.rows = static_cast<std::uint8_t>(job.rows), d.length = job.length;
  d.table = table_for(job);
  pass_fence(job, d);
  for (std::uint32_t i = 0; i < job.sources; ++i) copy(true, job.source[i], job.length), d.source[i] = pool_bo_.address() + job.source[i];
  for (std::uint32_t i = 0; i < job.rows; ++i) d.destination[i] = pool_bo_.address() + (p.destination[i] = job.destination[i]);
  put(d, p);
  // The descriptor must be in memory before the card is told of it, also where that memory is the card's, behind a bus.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  write(REG_SUBMITTED, submitted_);
}

// Where the ring is mapped the completion's last byte tells; else the card's count does, and the entry is fetched.
bool Device::fetch_completion(Completion& c) {
  std::uint64_t at = kEntries * sizeof(Descriptor) + completed_ % kEntries * sizeof(Completion);
  if (mapped_) {
    std::uint8_t phase = (completed_ >> kEntriesLog2) & 1 ? 0 : 1;
    if (__atomic_load_n(ring_ + at + offsetof(Completion, phase), __ATOMIC_ACQUIRE) != phase) return false;
  } else {
    if (seen_completed_ == completed_) seen_completed_ = read(REG_COMPLETED);
    if (seen_completed_ == completed_) return false;
    ring_bo_.sync(XCL_BO_SYNC_BO_FROM_DEVICE, sizeof c, at);
  }
  std::memcpy(static_cast<void*>(&c), ring_ + at, sizeof c);
  if (c.index != completed_)
    throw Failure(Fault::hang, Code::internal, "the card completed job " + std::to_string(c.index) + " where " + std::to_string(completed_) + " was due");
  return true;
}

std::optional<Device::Done> Device::reap() {
  Completion c;
  while (!jobs_.empty() && fetch_completion(c)) {
    Pending p = jobs_.front();
    jobs_.pop_front();
    ++completed_;
    auto now = Clock::now();
    if (p.id == 0 && c.status == JobStatus::ok) continue;
    if (p.id == 0) {  // the job behind it will be refused: say why once, here
      recent_.clear();
      throw Failure(Fault::bus_error, Code::io_error, "the card could not load a coefficient table: status " + std::to_string(c.status));
    }
    std::uint64_t source_bytes = std::uint64_t{p.sources} * p.length, spent = ns_since(busy_since_);
    busy_since_ = now;
    counters_.values[kOnCard] += spent;
    ns_per_byte_ = ns_per_byte_ == 0 ? double(spent) / double(source_bytes) : 0.8 * ns_per_byte_ + 0.2 * double(spent) / double(source_bytes);
    ++counters_.values[kJobs];
    ++counters_.values[p.decode ? kDecodes : kEncodes];
    if (c.status != JobStatus::ok) {
      ++counters_.values[kJobsFailed];
    } else {
      counters_.values[kSourceBytes] += source_bytes;
      counters_.values[kResultBytes] += std::uint64_t{p.rows} * p.length;
      for (std::uint32_t i = 0; i < p.rows; ++i) copy(false, p.destination[i], p.length);
    }
    return Done{p.id, c.status};
  }
  return std::nullopt;
}

// Most of a job's time is slept away in one piece, the rest in pieces of a 32nd of it: a card at work costs a core next to nothing,
// and a job that is done waits for 3 % of its time at most.
std::chrono::microseconds Device::wait_hint() const {
  if (jobs_.empty()) return kLongest;
  std::uint64_t bytes = 0;
  for (const Pending& p : jobs_)
    if (p.id != 0) {
      bytes = std::uint64_t{p.sources} * p.length;
      break;
    }
  double whole_us = ns_per_byte_ * double(bytes) / 1000, left_us = whole_us * 0.95 - double(ns_since(busy_since_)) / 1000;
  auto piece = std::clamp(std::chrono::microseconds(static_cast<std::int64_t>(whole_us / 32)), kShortest, kLongest);
  return std::clamp(std::chrono::microseconds(static_cast<std::int64_t>(std::max(0.0, left_us))), piece, std::chrono::microseconds(20000));
}

CountersMessage Device::counters() {
  for (std::size_t i = 0; i < std::size(kRegisters); ++i) {
    std::uint32_t now = read(kRegisters[i]);
    counters_.values[kFirstRegister + i] += static_cast<std::uint32_t>(now - last_registers_[i]);
    last_registers_[i] = now;
  }
  return counters_;
}

Fault Device::fault_of(std::uint16_t status, Code& code, std::string& text) {
  code = Code::io_error;
  switch (status) {
    case JobStatus::ok: code = Code::ok; return Fault::none;
    case JobStatus::fetch_error: text = "the card could not read a descriptor"; return Fault::bus_error;
    case JobStatus::read_error: text = "the card's memory answered a read with an error (SLVERR)"; return Fault::bus_error;
    case JobStatus::read_decode: text = "the card read where there is no memory (DECERR)"; return Fault::bus_error;
    case JobStatus::write_error: text = "the card's memory answered a write with an error (SLVERR)"; return Fault::bus_error;
    case JobStatus::write_decode: text = "the card wrote where there is no memory (DECERR)"; return Fault::bus_error;
    case JobStatus::read_drained: case JobStatus::write_drained: text = "the card was drained"; return Fault::bus_error;
    case JobStatus::fenced: code = Code::fenced; text = "the card has done jobs of the volume partition under a greater epoch"; return Fault::refused;
    case JobStatus::read_protocol: case JobStatus::read_timeout: case JobStatus::write_timeout:
      code = Code::timed_out;
      text = "the card's memory does not answer: job status " + std::to_string(status);
      return Fault::hang;
    default:
      code = Code::internal;
      text = "the card refused a job with status " + std::to_string(status) + " (docs/registers.md, JobStatus)";
      return Fault::refused;
  }
}

}  // namespace luge::card
