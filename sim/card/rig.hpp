// A card with memory on every port, AXI rules checked on each, and a host that reads and writes its registers.
#pragma once
#include <random>

#include "hls/registers/card.h"
#include "sim/card/card.hpp"
#include "sim/card/checker.hpp"
#include "sim/card/memory.hpp"

namespace luge::sim {

class Rig {
 public:
  Card &card;
  std::mt19937_64 &random;
  Memory memory;
  ReadPort read, job_read;
  WritePort write, job_write;
  uint64_t &now;  // cycles
  bool interrupt = false;
  unsigned mutant = 0;

  Rig(Card &c, std::mt19937_64 &r, uint64_t base, size_t size, hls::Coverage &coverage, Fail fail, uint64_t &clock)
      : card(c), random(r), memory(base, size), read(memory, r), job_read(memory, r), write(memory, r), job_write(memory, r), now(clock), fail_(fail),
        check_read_("m_axi_read", coverage, fail), check_job_read_("m_axi_job", coverage, fail, hls::ReadyIs::soon, false),
        check_write_("m_axi_write", coverage, fail), check_job_write_("m_axi_job", coverage, fail, false) {
    check_write_.data_may_lead = true;  // the log's queues for addresses and data are of their own
    check_job_read_.longest_wait = 16;  // a descriptor is unpacked between two beats
  }

  void cycle() {
    card::In in = card::In();
#ifdef HLS_MUTANTS
    in.mutant = mutant;
#endif
    in.s_axil = bus_;
    read.present(in.m_axi_read), job_read.present(in.m_axi_job_r), write.present(in.m_axi_write), job_write.present(in.m_axi_job_w);
    card::Out out = card.cycle(in);
    check_read_.see(in.m_axi_read, out.m_axi_read), check_job_read_.see(in.m_axi_job_r, out.m_axi_job_r);
    check_write_.see(in.m_axi_write, out.m_axi_write), check_job_write_.see(in.m_axi_job_w, out.m_axi_job_w);
    read.observe(in.m_axi_read, out.m_axi_read), job_read.observe(in.m_axi_job_r, out.m_axi_job_r);
    write.observe(in.m_axi_write, out.m_axi_write), job_write.observe(in.m_axi_job_w, out.m_axi_job_w);
    answer_ = out.s_axil, interrupt = out.irq;
    now++;
  }
  void reset() {
    card.reset();
    bus_ = axi::LiteOut();
    for (auto *p : {&read, &job_read}) p->reset();
    for (auto *p : {&write, &job_write}) p->reset();
    check_read_.reset(), check_job_read_.reset(), check_write_.reset(), check_job_write_.reset();
  }
  void poke(uint32_t offset, uint32_t value) {
    bus_.awvalid = bus_.wvalid = true, bus_.awaddr = offset, bus_.wdata = value, bus_.wstrb = 15, bus_.bready = false;
    do cycle(); while (!answer_.awready);
    bus_.awvalid = bus_.wvalid = false, bus_.bready = true;
    do cycle(); while (!answer_.bvalid);
    bus_.bready = false;
    if (answer_.bresp != axi::OKAY) fail_("a register refuses a write");
  }
  void poke64(uint32_t offset, uint64_t value) { poke(offset, (uint32_t)value), poke(offset + 4, (uint32_t)(value >> 32)); }
  uint32_t peek(uint32_t offset) {
    bus_.arvalid = true, bus_.araddr = offset, bus_.rready = false;
    do cycle(); while (!answer_.arready);
    bus_.arvalid = false, bus_.rready = true;
    do cycle(); while (!answer_.rvalid);
    bus_.rready = false;
    return answer_.rdata.to_uint();
  }
  void behave(int latency, int stall) {
    for (auto *p : {&read, &job_read}) p->behaviour.latency = latency, p->behaviour.stall = stall;
    for (auto *p : {&write, &job_write}) p->behaviour.latency = latency, p->behaviour.stall = stall;
  }
  void release() {
    for (auto *p : {&read, &job_read}) p->release();
    for (auto *p : {&write, &job_write}) p->release();
  }

 private:
  Fail fail_;
  ReadChecker check_read_, check_job_read_;
  WriteChecker check_write_, check_job_write_;
  axi::LiteOut bus_ = axi::LiteOut();
  axi::LiteIn answer_ = axi::LiteIn();
};

}  // namespace luge::sim
