// Memory behind the card's AXI ports: bytes, and for each port latency, stalls and faults. One cycle is: present() what the port
// drives, step the card, observe() what the card drove. All chance comes from the generator handed in.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "hls/lib/axi.h"

namespace luge::sim {

// Bytes [base, base + size); everything else answers DECERR.
class Memory {
 public:
  Memory(uint64_t base, size_t size) : base_(base), bytes_(size) {}
  bool holds(uint64_t address, uint64_t length) const { return address >= base_ && length <= bytes_.size() && address - base_ <= bytes_.size() - length; }
  uint8_t *at(uint64_t address) { return &bytes_[address - base_]; }
  uint64_t base() const { return base_; }
  size_t size() const { return bytes_.size(); }

 private:
  uint64_t base_;
  std::vector<uint8_t> bytes_;
};

// How a port behaves. Counts are from now; -1 is never.
struct Behaviour {
  int latency = 40;   // cycles from request to answer
  int stall = 0;      // percent of cycles in which a ready or an answer is held back
  bool may_wait_for_data = true;  // writes: awready only with wvalid, now and then
};
struct Faults {
  long error_beat = -1;   // the answer to this beat (read) or burst (write) is `error`
  int error = axi::SLVERR;
  long lose_beat = -1;    // this beat (read) or answer (write) never comes, nor anything after it until release()
  long flip_beat = -1;    // one bit of this beat is wrong
  bool short_burst = false;  // the next read burst of more than one beat ends a beat early
  bool stuck_request = false, stuck_data = false;  // ready never comes
};

// M: a memory with holds(address, length) and at(address).
template <class M> class ReadPortOf {
 public:
  Behaviour behaviour;
  Faults faults;
  uint64_t beats = 0;
  ReadPortOf(M &memory, std::mt19937_64 &random) : memory_(memory), random_(random) {}

  template <class D> void present(axi::ReadInOf<D> &in) {
    in.arready = !faults.stuck_request && requests_.size() < 32 && !held();
    in.rvalid = false;
    if (!requests_.empty() && requests_.front().due <= now_ && !lost_ && (offering_ || !held())) {
      if (faults.lose_beat == 0) { lost_ = true, faults.lose_beat = -1; return; }
      Request &r = requests_.front();
      offering_ = true;
      in.rvalid = true;
      uint64_t address = r.address + 64 * r.done;
      bool good = memory_.holds(address, 64);
      in.rresp = !good ? axi::DECERR : faults.error_beat == 0 ? faults.error : axi::OKAY;
      in.rlast = r.done + 1 == r.beats;
      static_assert(sizeof in.rdata == 64, "");
      if (good) std::memcpy((void *)&in.rdata, memory_.at(address), 64);
      else std::memset((void *)&in.rdata, 0xdd, 64);
      if (faults.flip_beat == 0) reinterpret_cast<uint8_t *>(&in.rdata)[5] ^= 0x10;
    }
  }
  template <class D> void observe(const axi::ReadInOf<D> &in, const axi::ReadOut &out) {
    if (in.rvalid && out.rready) {
      Request &r = requests_.front();
      offering_ = false, beats++;
      count(faults.error_beat), count(faults.lose_beat), count(faults.flip_beat);
      if (++r.done == r.beats) requests_.pop_front();
    }
    if (out.arvalid && in.arready) {
      uint32_t n = (uint32_t)out.arlen.to_uint() + 1;
      if (faults.short_burst && n > 1) n--, faults.short_burst = false;
      requests_.push_back({out.araddr.to_uint64(), n, 0, now_ + (uint64_t)behaviour.latency});
    }
    now_++;
  }
  // What was lost comes after all.
  void release() { lost_ = false, faults = Faults(); }
  void reset() { requests_.clear(), offering_ = lost_ = false, faults = Faults(); }
  bool busy() const { return !requests_.empty(); }

 private:
  struct Request { uint64_t address; uint32_t beats, done; uint64_t due; };
  M &memory_;
  std::mt19937_64 &random_;
  std::deque<Request> requests_;
  bool offering_ = false, lost_ = false;
  uint64_t now_ = 0;
  bool held() { return behaviour.stall && (int)(random_() % 100) < behaviour.stall; }
  static void count(long &n) { if (n > 0) n--; else if (n == 0) n = -1; }
};

template <class M> class WritePortOf {
 public:
  Behaviour behaviour;
  Faults faults;
  uint64_t beats = 0;
  WritePortOf(M &memory, std::mt19937_64 &random) : memory_(memory), random_(random) {}

  // wvalid of the cycle before: a memory may wait for data before it takes an address.
  void present(axi::WriteIn &in) {
    bool shy = behaviour.may_wait_for_data && shy_;
    in.awready = !faults.stuck_request && addresses_.size() < 32 && !held() && (!shy || saw_data_ || !words_.empty());
    in.wready = !faults.stuck_data && words_.size() < 256 && !held();
    in.bvalid = false;
    if (!answers_.empty() && answers_.front().due <= now_ && !lost_ && (offering_ || !held())) {
      if (faults.lose_beat == 0) { lost_ = true, faults.lose_beat = -1; return; }
      in.bvalid = offering_ = true;
      in.bresp = answers_.front().resp;
    }
  }
  template <class D> void observe(const axi::WriteIn &in, const axi::WriteOutOf<D> &out) {
    if (in.bvalid && out.bready) answers_.pop_front(), offering_ = false, count(faults.lose_beat);
    saw_data_ = out.wvalid;
    if (out.awvalid && in.awready) addresses_.push_back({out.awaddr.to_uint64(), (uint32_t)out.awlen.to_uint() + 1}), shy_ = random_() % 4 == 0;
    if (out.wvalid && in.wready) {
      Word w;
      std::memcpy(w.bytes, (const void *)&out.wdata, 64);
      w.strobes = out.wstrb.to_uint64();
      words_.push_back(w);
      beats++;
    }
    if (!addresses_.empty() && words_.size() >= addresses_.front().beats) finish();
    now_++;
  }
  void release() { lost_ = false, faults = Faults(); }
  void reset() { addresses_.clear(), words_.clear(), answers_.clear(), offering_ = lost_ = false, faults = Faults(); }
  bool busy() const { return !addresses_.empty() || !answers_.empty(); }

 private:
  struct Burst { uint64_t address; uint32_t beats; };
  struct Word { uint8_t bytes[64]; uint64_t strobes; };
  struct Answer { int resp; uint64_t due; };
  M &memory_;
  std::mt19937_64 &random_;
  std::deque<Burst> addresses_;
  std::deque<Word> words_;
  std::deque<Answer> answers_;
  bool offering_ = false, lost_ = false, shy_ = false, saw_data_ = false;
  uint64_t now_ = 0;
  bool held() { return behaviour.stall && (int)(random_() % 100) < behaviour.stall; }
  static void count(long &n) { if (n > 0) n--; else if (n == 0) n = -1; }

  void finish() {
    Burst b = addresses_.front();
    addresses_.pop_front();
    int resp = faults.error_beat == 0 ? faults.error : axi::OKAY;
    count(faults.error_beat);
    for (uint32_t i = 0; i < b.beats; i++) {
      uint64_t address = b.address + 64 * i;
      if (!memory_.holds(address, 64)) resp = axi::DECERR;
      else if (resp == axi::OKAY) store(memory_.at(address), words_.front());
      count(faults.flip_beat);
      words_.pop_front();
    }
    answers_.push_back({resp, now_ + (uint64_t)behaviour.latency});
  }
  void store(uint8_t *to, Word &w) {
    if (faults.flip_beat == 0) w.bytes[5] ^= 0x10;
    if (w.strobes == ~0ull) {
      // A host that looks on from another process goes by a completion's last byte.
      std::memcpy(to, w.bytes, 56);
      std::atomic_thread_fence(std::memory_order_release);
      std::memcpy(to + 56, w.bytes + 56, 8);
      return;
    }
    for (int j = 0; j < 64; j++)
      if (w.strobes >> j & 1) to[j] = w.bytes[j];
  }
};
using ReadPort = ReadPortOf<Memory>;
using WritePort = WritePortOf<Memory>;

}  // namespace luge::sim
