// The kernel's ports as DmaLogger has them. Private to what steps the kernel: it sees the kernel's integers.
#pragma once

#include <cstring>

#include "card/dma_logger.hpp"
#include "hls/dma_write_log/step.hpp"

namespace luge::card {

inline void to_kernel(const DmaLogger::In& in, dma_write_log::In& k) {
  k.control.enable = in.enable, k.control.suspend = in.suspend, k.control.at_scheduling = in.at_scheduling;
  k.ring.base = in.ring_base, k.ring.log2_slots = in.slots_log2, k.ring.watermark = in.watermark, k.ring.patience = in.patience;
  k.examined.valid = in.examined, k.examined.head = in.head;
  k.load.valid = in.load, k.load.function = in.function, k.load.record = in.record;
  k.load.first_page = in.first_page, k.load.last_page = in.last_page;
  k.clear.valid = in.clear, k.clear.functions = in.clear_functions;
  k.s_axi.awvalid = in.address, k.s_axi.awaddr = in.line << 6, k.s_axi.awlen = in.lines - 1, k.s_axi_awuser = in.function;
  k.s_axi.wvalid = in.data, k.s_axi.wlast = true, k.s_axi.wstrb = ~0ull;
  k.s_axi.bready = true;
  k.m_axi.awready = k.m_axi.wready = true, k.m_axi.bvalid = in.response, k.m_axi.bresp = 0;
}

inline void from_kernel(const DmaLogger::In& in, const dma_write_log::Out& k, DmaLogger::Out& out) {
  out.address_taken = in.address && k.s_axi.awready;
  out.data_taken = in.data && k.s_axi.wready;
  out.answered = k.s_axi.bvalid;
  out.response_taken = in.response && k.m_axi.bready;
  out.leaves = k.m_axi.awvalid;
  if (out.leaves) out.leaves_line = k.m_axi.awaddr.to_uint64() >> 6;
  out.beat = k.m_axi.wvalid;
  if (out.beat) {
    out.strobes = k.m_axi.wstrb.to_uint64();
    std::memcpy(out.bytes, &k.m_axi.wdata, sizeof out.bytes);
  }
  const auto& s = k.status;
  out.ready = s.ready, out.recording = s.recording, out.ring_busy = s.ring_busy, out.settled = s.settled, out.suspended = s.suspended;
  out.holding = s.holding, out.overflow = s.overflow, out.overflowing = s.overflowing, out.over_watermark = s.over_watermark;
  out.bad_ring = s.bad_ring, out.bad_head = s.bad_head, out.record_error = s.record_error;
  out.tail = s.tail.to_uint();
  out.dirty = k.dirty.to_uint64();
}

}  // namespace luge::card
