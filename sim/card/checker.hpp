// Rules of AXI4 that a port of the card may not break, looked at in every cycle; hls/lib/axi.h lists them. The checker ends the
// bench through `fail`, with the port's name and the rule.
#pragma once
#include <cstring>
#include <deque>
#include <functional>
#include <string>

#include "hls/lib/axi.h"
#include "hls/lib/bench.hpp"

namespace luge::sim {

using Fail = std::function<void(const std::string &)>;

class ReadChecker {
 public:
  ReadChecker(std::string name, hls::Coverage &c, Fail fail, hls::ReadyIs rready = hls::ReadyIs::always, bool long_bursts = true) : name_(std::move(name)), fail_(std::move(fail)), ar_(c, name_ + "_ar"), r_(c, name_ + "_r", rready), lengths_(&c) {
    if (long_bursts) c.declare(name_ + " burst beats", {"1", "2-15", "16-63", "64"});
  }
  template <class D> void see(const axi::ReadInOf<D> &in, const axi::ReadOut &out) {
    ar_.see(out.arvalid, in.arready), r_.see(in.rvalid, out.rready);
    if (was_.arvalid && (!out.arvalid || out.araddr != was_.araddr || out.arlen != was_.arlen)) bad("arvalid fell, or its address changed, before arready");
    was_ = out;
    if (out.arvalid && in.arready) {
      was_.arvalid = false;
      uint64_t first = out.araddr.to_uint64(), beats = out.arlen.to_uint() + 1;
      if (first % 64) bad("a read starts at no multiple of 64");
      if (beats > axi::MAX_BEATS) bad("a read of more than 64 beats");
      if (first / axi::BOUNDARY != (first + 64 * beats - 1) / axi::BOUNDARY) bad("a read crosses 4 KiB");
      open_.push_back(beats);
      lengths_->hit(name_ + " burst beats", beats == 1 ? "1" : beats < 16 ? "2-15" : beats < 64 ? "16-63" : "64");
    }
    waiting_ = in.rvalid && !out.rready ? waiting_ + 1 : 0;
    if (waiting_ > longest_wait) bad("data is not taken for too long");
  }
  void reset() { was_ = axi::ReadOut(), open_.clear(), waiting_ = 0; }
  hls::Handshake &address() { return ar_; }
  hls::Handshake &data() { return r_; }
  int longest_wait = 0;  // cycles in which rready may be low with rvalid high: a memory must not be held up

 private:
  std::string name_;
  Fail fail_;
  hls::Handshake ar_, r_;
  hls::Coverage *lengths_;
  axi::ReadOut was_ = axi::ReadOut();
  std::deque<uint64_t> open_;
  int waiting_ = 0;
  void bad(const char *rule) { fail_(name_ + ": " + rule); }
};

class WriteChecker {
 public:
  WriteChecker(std::string name, hls::Coverage &c, Fail fail, bool long_bursts = true)
      : name_(std::move(name)), fail_(std::move(fail)), aw_(c, name_ + "_aw"), w_(c, name_ + "_w"), b_(c, name_ + "_b", hls::ReadyIs::always), lengths_(&c) {
    if (long_bursts) c.declare(name_ + " burst beats", {"1", "2-15", "16-63", "64"});
  }
  template <class D> void see(const axi::WriteIn &in, const axi::WriteOutOf<D> &given) {
    axi::WriteOut out;
    out.awvalid = given.awvalid, out.awaddr = given.awaddr, out.awlen = given.awlen, out.wvalid = given.wvalid, out.wstrb = given.wstrb, out.wlast = given.wlast, out.bready = given.bready;
    static_assert(sizeof given.wdata == sizeof out.wdata, "");
    std::memcpy((void *)&out.wdata, (const void *)&given.wdata, 64);
    aw_.see(out.awvalid, in.awready), w_.see(out.wvalid, in.wready), b_.see(in.bvalid, out.bready);
    if (was_.awvalid && (!out.awvalid || out.awaddr != was_.awaddr || out.awlen != was_.awlen)) bad("awvalid fell, or its address changed, before awready");
    if (was_.wvalid && (!out.wvalid || out.wlast != was_.wlast || out.wstrb != was_.wstrb || std::memcmp(&out.wdata, &was_.wdata, 64))) bad("wvalid fell, or its data changed, before wready");
    if (in.bvalid && !out.bready) bad("an answer is not taken");
    bool announced = out.awvalid && !seen_;
    if (announced) {  // from the first cycle of its awvalid a burst's data may leave
      seen_ = true;
      uint64_t first = out.awaddr.to_uint64(), beats = out.awlen.to_uint() + 1;
      if (first % 64) bad("a write starts at no multiple of 64");
      if (beats > axi::MAX_BEATS) bad("a write of more than 64 beats");
      if (first / axi::BOUNDARY != (first + 64 * beats - 1) / axi::BOUNDARY) bad("a write crosses 4 KiB");
      if (led_.empty()) {
        open_.push_back(beats);
      } else {
        if (led_.front() != beats) bad("data that led its address has another length");
        led_.pop_front();
      }
      lengths_->hit(name_ + " burst beats", beats == 1 ? "1" : beats < 16 ? "2-15" : beats < 64 ? "16-63" : "64");
      starving_ = 0;
    }
    if (out.awvalid && in.awready) seen_ = false;
    if (out.wvalid && open_.empty() && !data_may_lead) bad("data before its address");
    if (out.wvalid && in.wready) {
      sent_++;
      uint64_t strobes = out.wstrb.to_uint64(), low = strobes & (~strobes + 1);
      if (strobes && ((strobes + low) & strobes) != 0) bad("strobes are not contiguous");
      if (sent_ > axi::MAX_BEATS) bad("no wlast in 64 beats");
      if (!open_.empty() && out.wlast != (sent_ == open_.front())) bad("wlast is not on the last beat");
      if (out.wlast) {
        if (open_.empty()) led_.push_back(sent_);
        else open_.pop_front();
        sent_ = 0;
      }
    }
    // Once announced, a burst's data must follow without waiting for anything but wready.
    if (!open_.empty() && !out.wvalid) { if (++starving_ > 8) bad("the data of a burst is held back"); }
    else starving_ = 0;
    was_ = out;
    if (in.awready) was_.awvalid = false;
    if (in.wready) was_.wvalid = false;
  }
  void reset() { was_ = axi::WriteOut(), open_.clear(), led_.clear(), sent_ = 0, seen_ = false, starving_ = 0; }
  hls::Handshake &data() { return w_; }
  bool data_may_lead = false;  // as AXI allows: a burst's data while its address waits behind another

 private:
  std::string name_;
  Fail fail_;
  hls::Handshake aw_, w_, b_;
  hls::Coverage *lengths_;
  axi::WriteOut was_ = axi::WriteOut();
  std::deque<uint64_t> open_, led_;  // beats of bursts announced and not sent, and sent and not announced
  uint64_t sent_ = 0;
  bool seen_ = false;
  int starving_ = 0;
  void bad(const char *rule) { fail_(name_ + ": " + rule); }
};

}  // namespace luge::sim
