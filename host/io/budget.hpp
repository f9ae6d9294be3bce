// A bound on memory held by work in progress; who finds it used up waits, first come first served. A piece larger than
// the whole budget gets in alone. With crowded() asked before each take(), about five times the budget is held at most.
#pragma once

#include <cstdint>
#include <utility>

#include "io/world.hpp"

namespace luge::io {

class Budget {
 public:
  Budget(World& world, std::uint64_t bytes) : bytes_(bytes), room_(world), turn_(world) {}

  class Lease {
   public:
    Lease(Budget& b, std::uint64_t bytes) : budget_(&b), bytes_(bytes) { b.used_ += bytes; }
    Lease(Lease&& o) noexcept : budget_(std::exchange(o.budget_, nullptr)), bytes_(o.bytes_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (!budget_) return;
      budget_->used_ -= bytes_;
      budget_->room_.notify_all();
    }

   private:
    Budget* budget_;
    std::uint64_t bytes_;
  };

  Task<Lease> take(std::uint64_t bytes) {
    if (waiting_ == 0 && has_room(bytes)) co_return Lease(*this, bytes);
    waiting_ += bytes;
    struct Leave {
      std::uint64_t& waiting;
      std::uint64_t bytes;
      ~Leave() { waiting -= bytes; }
    } leave{waiting_, bytes};
    Mutex::Guard guard = co_await turn_.lock();
    while (!has_room(bytes)) co_await room_.wait();
    co_return Lease(*this, bytes);
  }
  std::uint64_t used() const { return used_; }
  std::uint64_t waiting() const { return waiting_; }
  /// So much waits already that one more had better be refused: what waits holds memory too.
  bool crowded() const { return waiting_ > 4 * bytes_; }

 private:
  bool has_room(std::uint64_t bytes) const { return used_ == 0 || used_ + bytes <= bytes_; }

  std::uint64_t bytes_;
  std::uint64_t used_ = 0, waiting_ = 0;
  Event room_;
  Mutex turn_;
};

}  // namespace luge::io
