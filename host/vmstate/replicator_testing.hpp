// A machine of a few pages without a hypervisor: its processor and its device write when a test says so, deterministically.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "base/crc32c.hpp"
#include "vmstate/replicator.hpp"

namespace luge::vmstate::testing {

/// A device's side of the seam, by the rules of hls/dma_write_log: data before record, a slot only after it was examined.
class FakeDevice final : public Recorder {
 public:
  explicit FakeDevice(std::byte* memory, std::uint64_t functions = 1) : memory_(memory), functions_(functions) {}
  ~FakeDevice() override { finish(); }
  std::string name() const override { return "device"; }
  std::uint64_t functions() const override { return functions_; }
  Result<Ring> start(bool at_scheduling, unsigned slots_log2) override {
    slots_.assign(std::size_t{1} << slots_log2, {});
    log2_ = slots_log2, next_ = 1, examined_ = 1, recording_ = true, at_scheduling_ = at_scheduling, ++starts;
    return Ring{slots_.data(), slots_log2};
  }
  Status stop() override {
    recording_ = false;
    return Status();
  }
  // Its last writes take their time; the marker is behind them.
  Status quiesce(bool) override {
    finish();
    quiet_ = std::thread([this] {
      if (!in_flight.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(200));
      for (auto& f : in_flight) f();
      in_flight.clear();
      if (recording_) put({0, 0, 0, luge_card::DMA_SUSPENDED, 0});
    });
    return Status();
  }
  Status resume() override {
    finish();
    return Status();
  }
  Status throttle(std::uint64_t bytes_per_second) override {
    rate = bytes_per_second;
    return Status();
  }
  void examined(std::uint32_t sequence) override { examined_ = sequence; }
  void finish() {
    if (quiet_.joinable()) quiet_.join();
  }

  void fill(std::uint64_t address, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) memory_[address + i] = static_cast<std::byte>(counter_ ^ counter_ >> 8), ++counter_;
  }
  void record(std::uint64_t address, std::uint32_t bytes, std::uint8_t function = 0) {
    if (recording_) put({address, static_cast<std::uint16_t>(bytes - 1), function, luge_card::DMA_WRITTEN, 0});
  }
  void write(std::uint64_t address, std::uint32_t bytes, std::uint8_t function = 0) {
    fill(address, bytes);
    record(address, bytes, function);
  }
  void overflow(std::uint64_t functions) {
    if (recording_) put({functions, 0, 0, luge_card::DMA_OVERFLOW, 0});
  }
  std::uint32_t next() const { return next_; }
  void completed(std::uint32_t before) {
    if (recording_) put({before, 0, 0, luge_card::DMA_COMPLETED, 0});
  }
  void skip_a_number() { ++next_, ++examined_; }
  bool recording() const { return recording_; }

  std::vector<std::function<void()>> in_flight;  // done by quiesce(), late
  std::uint64_t rate = 0;
  int starts = 0;

 private:
  void put(card::dma_record r) {
    while (next_ - examined_ >= slots_.size()) std::this_thread::yield();  // held back
    r.sequence = next_++;
    card::dma_record& slot = slots_[r.sequence & (slots_.size() - 1)];
    std::memcpy(&slot, &r, 12);
    __atomic_store_n(&slot.sequence, r.sequence, __ATOMIC_RELEASE);
  }
  std::byte* memory_;
  const std::uint64_t functions_;
  std::vector<card::dma_record> slots_;
  unsigned log2_ = 0;
  std::uint32_t next_ = 1;
  std::atomic<std::uint32_t> examined_{1};
  std::atomic<bool> recording_{false};
  bool at_scheduling_ = false;
  std::uint32_t counter_ = 0;
  std::thread quiet_;
};

struct FakeProcessor final : ProcessorWrites {
  explicit FakeProcessor(PageSet& written) : written(written) {}
  Status arm() override {
    written.clear();
    return Status();
  }
  Status take(PageSet& to) override {
    PageSet now = written.take();
    now.for_each([&](std::uint64_t p) { to.add(p); });
    return std::exchange(next, Status());
  }
  const char* kind() const override { return "fake"; }
  PageSet& written;
  Status next;  // of the next take(), which takes all the same
};

struct FakeMachine final : Machine {
  Result<bool> pause(bool) override {
    handed_over = false;
    return !std::exchange(paused, true);
  }
  Status hand_over() override {
    handed_over = true;
    return next_hand_over;
  }
  Status resume() override {
    if (on_resume) on_resume();
    paused = false;
    return Status();
  }
  Result<std::string> device_state() override { return saved; }
  Result<std::string> saved = std::string("state");
  std::function<void()> on_resume;
  Status next_hand_over;
  bool paused = false, handed_over = false;
};

/// Keeps what it is given; `while_copying` is the machine's life between two batches.
struct FakeTarget final : Target {
  explicit FakeTarget(std::uint64_t pages) : image(pages * kPage), staged(image) {}
  Result<std::uint64_t> newest(const std::string&) override { return begun.sequence; }
  Status begin(const Begin& b) override {
    begun = b, staged = image;
    return Status();
  }
  Status put(const PageBatch& batch) override {
    const std::byte* from = batch.content.data();
    for (const auto& e : batch.entries) {
      std::byte* to = staged.data() + e.page * kPage;
      if (e.zero) std::memset(to, 0, kPage);
      else std::memcpy(to, from, kPage), from += kPage;
      EXPECT_EQ(crc32c({to, kPage}), e.crc);
      ++copies[e.page];
    }
    ++puts;
    if (while_copying) while_copying();
    return next_put;
  }
  Status commit(const std::string&, const std::string&) override {
    image = staged, committed = true;
    return Status();
  }
  void abandon() override { abandoned = true; }
  std::vector<std::byte> image, staged;
  std::map<std::uint64_t, int> copies;
  Begin begun;
  Status next_put;
  std::function<void()> while_copying;
  int puts = 0;
  bool committed = false, abandoned = false;
};

class ReplicatorTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 1024;
  void SetUp() override {
    fd_ = ::memfd_create("guest", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(fd_, kPages * kPage), 0);
    guest_ = static_cast<std::byte*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    const MemoryRange range{0, kPages * kPage, 0, fd_};
    memory_ = MachineMemory::make({&range, 1}).value();
    device_ = std::make_unique<FakeDevice>(guest_);
    machine_.on_resume = [this] {
      device_->finish();
      at_pause_.assign(guest_, guest_ + kPages * kPage);
    };
    for (std::uint64_t p = 0; p < kPages; ++p)
      if (p % 3 != 0) std::memset(guest_ + p * kPage, static_cast<int>(p * 7 + 1), kPage);
  }
  void TearDown() override {
    replicator_.reset();
    ::munmap(guest_, kPages * kPage);
    ::close(fd_);
  }
  Replicator& replicator(ReplicationOptions o = {}, std::vector<Recorder*> recorders = {}) {
    if (recorders.empty()) recorders.push_back(device_.get());
    auto notes = std::make_unique<FakeProcessor>(processor_);
    notes_ = notes.get();
    replicator_ = std::make_unique<Replicator>(memory_, machine_, std::move(notes), recorders, nullptr, o);
    return *replicator_;
  }
  void processor_writes(std::uint64_t page) {
    device_->fill(page * kPage + 8, 100);
    processor_.add(page);
  }
  Result<Report> checkpoint(Replicator& r, FakeTarget& t) {
    ++sequence_;
    return r.checkpoint(t, {"vm", sequence_, sequence_ - 1, {}}, "{}", Replicator::Then::resume);
  }
  /// Pages of the target that aren't what the machine's were when it was paused.
  std::vector<std::uint64_t> differing(const FakeTarget& t) const {
    std::vector<std::uint64_t> out;
    for (std::uint64_t p = 0; p < kPages; ++p)
      if (std::memcmp(t.image.data() + p * kPage, at_pause_.data() + p * kPage, kPage) != 0) out.push_back(p);
    return out;
  }
  static constexpr std::uint64_t at(std::uint64_t page) { return page * kPage; }

  int fd_ = -1;
  std::byte* guest_ = nullptr;
  std::shared_ptr<MachineMemory> memory_;
  std::unique_ptr<FakeDevice> device_;
  PageSet processor_{kPages};
  FakeProcessor* notes_ = nullptr;
  FakeMachine machine_;
  std::vector<std::byte> at_pause_;
  std::uint64_t sequence_ = 0;
  std::unique_ptr<Replicator> replicator_;
};

}  // namespace luge::vmstate::testing
