// For tests: a coder that codes right, or is wrong, refuses, hangs, answers late or is gone, as it is told. It keeps fences, as a card does.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

#include "coding/erasure_coder.hpp"
#include "io/world.hpp"

namespace luge::coding {

class FaultyCoder final : public ErasureCoder {
 public:
  enum class Mood { right, wrong, refuses, hangs, silent };  ///< silent: says ok and writes nothing
  /// Asked at every job; the job's number counts from 1.
  using Choice = std::function<Mood(std::uint64_t job)>;
  explicit FaultyCoder(io::World& world, Choice choice = {}) : choice_(std::move(choice)), world_(world), released_(world) {}

  io::Task<Status> encode(Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override {
    return run(parity, software_->encode(l, data, parity));
  }
  io::Task<Status> encode_for(Authority who, Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override {
    Epoch& fence = fences[who.partition];
    if (who.epoch != 0 && who.epoch < fence) return refused();
    fence = std::max(fence, who.epoch);
    return encode(l, data, parity);
  }
  io::Task<Status> reconstruct(Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted, std::span<const MutableBytes> out) override {
    return run(out, software_->reconstruct(l, present, wanted, out));
  }
  std::string_view name() const override { return "faulty"; }
  io::Task<Status> reset() override {
    ++resets;
    release();
    co_await world_.yield();
    co_return broken_down ? Status(Code::unavailable, "it does not open") : Status();
  }
  /// Jobs that hang end now, as a card's do that was stopped for a while: late, and with what they write.
  void release() {
    ++releases_;
    released_.notify_all();
  }

  Mood mood = Mood::right;   ///< if there is no `choice`
  bool broken_down = false;  ///< reset() fails
  io::Duration latency{};
  std::map<VpId, Epoch> fences;
  std::uint64_t jobs = 0, resets = 0;
  unsigned at_once = 0, most_at_once = 0;

 private:
  static io::Task<Status> refused() { co_return Status(Code::fenced, "an older epoch"); }
  io::Task<Status> run(std::span<const MutableBytes> out, io::Task<Status> real) {
    Mood m = choice_ ? choice_(++jobs) : (++jobs, mood);
    most_at_once = std::max(most_at_once, ++at_once);
    struct Leave {
      unsigned& n;
      ~Leave() { --n; }
    } leave{at_once};
    if (m == Mood::hangs)
      for (auto before = releases_; releases_ == before;) co_await released_.wait();
    if (latency != io::Duration{}) co_await world_.sleep(latency);
    if (m == Mood::refuses) co_return Status(Code::io_error, "bus error");
    if (m == Mood::silent) co_return Status();
    Status s = co_await std::move(real);
    if (m != Mood::right)
      for (const MutableBytes& b : out) b[b.size() / 3] ^= std::byte{1};
    co_return s;
  }
  Choice choice_;
  io::World& world_;
  io::Event released_;
  std::uint64_t releases_ = 0;
  std::unique_ptr<ErasureCoder> software_ = make_isal_coder();
};

}  // namespace luge::coding
