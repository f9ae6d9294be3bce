#include "sim/xrt/machine.hpp"

#include <chrono>
#include <cstring>
#include <fstream>
#include <utility>

#include "hls/registers/card.h"

namespace luge::xrt_sim {
namespace {
constexpr std::uint64_t kSettle = 4096;  // cycles after the last sign of life; the log's records linger for less
constexpr int kLatency = 60;             // cycles, as DDR behind an interconnect
constexpr int kStuck = 10000;            // cycles without an answer on the register bus: never with a sound card
constexpr std::int64_t kLookEveryMs = 20;
constexpr std::uint64_t kInstructions = 20000;  // of the controller at once
}  // namespace

Machine::Machine(std::unique_ptr<sim::Card> card, std::uint32_t version, unsigned mutant)
    : card_(std::move(card)), read_(memory, random_), job_read_(memory, random_), write_(memory, random_), job_write_(memory, random_),
      version_(version), mutant_(mutant), in_(card::In()), answer_(axi::LiteIn()) {
  for (auto* p : {&read_, &job_read_}) p->behaviour.latency = kLatency;
  for (auto* p : {&write_, &job_write_}) p->behaviour.latency = kLatency, p->behaviour.may_wait_for_data = false;
#ifdef HLS_MUTANTS
  in_.mutant = mutant_;
#endif
}

void Machine::add_controller(MakeController make, sim::ControllerSettings settings) {
  memory.allocate(kScratch, luge_card::MAP_SCRATCH_BYTES);
  memory.holds(kScratch, luge_card::MAP_SCRATCH_BYTES);
  settings.scratch_address = kScratch, settings.scratch = memory.at(kScratch);
  controller_ = make(*this, std::move(settings));
  controller_awake_ = true;
}

void Machine::cycle() {
  if (read_error_) read_.faults.error_beat = 0;
  if (write_error_) write_.faults.error_beat = 0;
  if (lost_) read_.faults.lose_beat = 0;
  if (write_.beats != beats_) flip_some();
  read_.present(in_.m_axi_read), job_read_.present(in_.m_axi_job_r), write_.present(in_.m_axi_write), job_write_.present(in_.m_axi_job_w);
  card::Out out = card_->cycle(in_);
  read_.observe(in_.m_axi_read, out.m_axi_read), job_read_.observe(in_.m_axi_job_r, out.m_axi_job_r);
  write_.observe(in_.m_axi_write, out.m_axi_write), job_write_.observe(in_.m_axi_job_w, out.m_axi_job_w);
  answer_ = out.s_axil;
  now_++;
}

// Once for every beat: what is armed hits the next one.
void Machine::flip_some() {
  beats_ = write_.beats;
  if (flip_in_ != 0 && random_() % flip_in_ == 0) write_.faults.flip_beat = 0;
  if (flip_each_ == 0 || beats_ % flip_each_ != flip_each_ / 2) return;
  write_.faults.flip_beat = 0;
  std::ofstream(fault_file_ + ".flipped", std::ios::app) << beats_ << '\n';
}

bool Machine::write_register(std::uint32_t offset, std::uint32_t value) {
  if (all_ones_) return true;
  if (controller_ && is_shared(offset)) {
    controller_->set_shared(offset, value);
    return true;
  }
  return write(offset, value);
}

bool Machine::read_register(std::uint32_t offset, std::uint32_t& value) {
  value = 0xffffffff;
  if (all_ones_) return true;
  if (controller_ && is_shared(offset)) {
    value = controller_->shared(offset);
    return true;
  }
  return read(offset, value);
}

// One access over AXI-Lite, whoever makes it.
bool Machine::write(std::uint32_t offset, std::uint32_t value) {
  auto& bus = in_.s_axil;
  bus.awvalid = bus.wvalid = true, bus.awaddr = offset, bus.wdata = value, bus.wstrb = 15, bus.bready = false;
  int left = kStuck;
  do cycle(); while (!answer_.awready && --left > 0);
  bus.awvalid = bus.wvalid = false, bus.bready = true;
  do cycle(); while (!answer_.bvalid && --left > 0);
  bus.bready = false;
  awake_until_ = now_ + kSettle;
  return left > 0 && answer_.bresp == axi::OKAY;
}

bool Machine::read(std::uint32_t offset, std::uint32_t& value) {
  value = 0xffffffff;
  auto& bus = in_.s_axil;
  bus.arvalid = true, bus.araddr = offset, bus.rready = false;
  int left = kStuck;
  do cycle(); while (!answer_.arready && --left > 0);
  bus.arvalid = false, bus.rready = true;
  do cycle(); while (!answer_.rvalid && --left > 0);
  bus.rready = false;
  if (left <= 0 || answer_.rresp != axi::OKAY) return false;
  value = offset == luge_card::REG_VERSION && version_ != 0 ? version_ : static_cast<std::uint32_t>(answer_.rdata.to_uint());
  return true;
}

void Machine::run(int cycles) {
  for (int i = 0; i < cycles; ++i) cycle();
  std::uint32_t status;
  if (read(luge_card::REG_STATUS, status) && !(status & luge_card::STATUS_IDLE)) awake_until_ = now_ + kSettle;
}

void Machine::power_lost() {
  card_->reset();
  in_ = card::In(), answer_ = axi::LiteIn();
#ifdef HLS_MUTANTS
  in_.mutant = mutant_;
#endif
  for (auto* p : {&read_, &job_read_}) p->reset();
  for (auto* p : {&write_, &job_write_}) p->reset();
}

void Machine::run_controller() {
  if (!controller_) return;
  if (reset_within_ != 0 && controller_->resets() != resets_) resets_ = controller_->resets(), controller_->reset_in(1 + random_() % reset_within_, brown_out_);
  controller_awake_ = controller_->run(kInstructions);
}

// A controller that has nothing to do executes next to nothing here, where a real one would go round its loop: its reset must not wait for that.
void Machine::hasten_reset(std::int64_t now_ms) {
  constexpr std::int64_t kSleptMs = 100;
  constexpr std::uint64_t kRound = 200, kCommand = 12000;  // instructions
  if (controller_awake_) slept_at_ = now_ms;
  if (now_ms - slept_at_ < kSleptMs || hastened_ == controller_->resets()) return;
  hastened_ = controller_->resets();
  controller_->reset_in(1 + random_() % (random_() % 2 ? kRound : kCommand), brown_out_);
}

bool Machine::look_at_faults() {
  if (fault_file_.empty()) return false;
  std::int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  if (now - looked_at_ < kLookEveryMs) return hang_;
  looked_at_ = now;
  bool was_lost = std::exchange(lost_, false);
  read_error_ = write_error_ = all_ones_ = hang_ = false, flip_in_ = flip_each_ = 0;
  std::uint64_t reset_within = 0;
  bool controller_hangs = false;
  std::ifstream f(fault_file_);
  for (std::string word; f >> word;) {
    if (word == "read-error") read_error_ = true;
    else if (word == "write-error") write_error_ = true;
    else if (word == "lost") lost_ = true;
    else if (word == "all-ones") all_ones_ = true;
    else if (word == "hang") hang_ = true;
    else if (word == "flip") f >> flip_in_;
    else if (word == "flip-each") f >> flip_each_;
    else if (word == "controller-hang") controller_hangs = true;
    else if (word == "controller-reset" || word == "controller-brown-out") brown_out_ = word == "controller-brown-out", f >> reset_within;
  }
  if (controller_ && controller_hangs) controller_->hang();
  if (controller_ && reset_within != reset_within_) {
    reset_within_ = reset_within, resets_ = controller_->resets();
    controller_->reset_in(reset_within ? 1 + random_() % reset_within : 0, brown_out_);
  }
  if (controller_ && reset_within_ != 0) hasten_reset(now);
  if (was_lost && !lost_) read_.release();
  if (!read_error_) read_.faults.error_beat = -1;
  if (!write_error_) write_.faults.error_beat = -1;
  return hang_;
}

}  // namespace luge::xrt_sim
