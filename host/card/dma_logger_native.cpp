#include <cstring>

#include "card/dma_logger.hpp"
#include "hls/dma_write_log/step.hpp"

namespace luge::card {
namespace {

class Native final : public DmaLogger {
 public:
  const char* kind() const override { return "native"; }

  void cycle(const In& in, Out& out) override {
    set(in);
    dma_write_log::step(state_, in_, out_);
    out.address_taken = in.address && out_.s_axi.awready;
    out.data_taken = in.data && out_.s_axi.wready;
    out.answered = out_.s_axi.bvalid;
    out.response_taken = in.response && out_.m_axi.bready;
    out.leaves = out_.m_axi.awvalid;
    if (out.leaves) out.leaves_line = out_.m_axi.awaddr.to_uint64() >> 6;
    out.beat = out_.m_axi.wvalid;
    if (out.beat) {
      out.strobes = out_.m_axi.wstrb.to_uint64();
      std::memcpy(out.bytes, &out_.m_axi.wdata, sizeof out.bytes);
    }
    const auto& s = out_.status;
    out.ready = s.ready, out.recording = s.recording, out.ring_busy = s.ring_busy, out.settled = s.settled, out.suspended = s.suspended;
    out.holding = s.holding, out.overflow = s.overflow, out.overflowing = s.overflowing, out.over_watermark = s.over_watermark;
    out.bad_ring = s.bad_ring, out.bad_head = s.bad_head, out.record_error = s.record_error;
    out.tail = s.tail.to_uint();
    out.dirty = out_.dirty.to_uint64();
  }

  // The two counters of idle time, at their ends: nothing else happens in cycles without a write.
  void pass_time(const In&) override {
    if (state_.open) state_.idle = 512;
    if (state_.line_any) state_.linger = 128;
  }

 private:
  void set(const In& in) {
    in_.control.enable = in.enable, in_.control.suspend = in.suspend, in_.control.at_scheduling = in.at_scheduling;
    in_.ring.base = in.ring_base, in_.ring.log2_slots = in.slots_log2, in_.ring.watermark = in.watermark, in_.ring.patience = in.patience;
    in_.examined.valid = in.examined, in_.examined.head = in.head;
    in_.load.valid = in.load, in_.load.function = in.function, in_.load.record = in.record;
    in_.load.first_page = in.first_page, in_.load.last_page = in.last_page;
    in_.clear.valid = in.clear, in_.clear.functions = in.clear_functions;
    in_.s_axi.awvalid = in.address, in_.s_axi.awaddr = in.line << 6, in_.s_axi.awlen = in.lines - 1, in_.s_axi_awuser = in.function;
    in_.s_axi.wvalid = in.data, in_.s_axi.wlast = true, in_.s_axi.wstrb = ~0ull;
    in_.s_axi.bready = true;
    in_.m_axi.awready = in_.m_axi.wready = true, in_.m_axi.bvalid = in.response, in_.m_axi.bresp = 0;
  }

  dma_write_log::State state_;
  dma_write_log::In in_ = dma_write_log::In();
  dma_write_log::Out out_ = dma_write_log::Out();
};

}  // namespace

std::unique_ptr<DmaLogger> make_native_dma_logger() { return std::make_unique<Native>(); }

}  // namespace luge::card
