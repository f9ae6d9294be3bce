// The last things that happened, for people: node lost, designation changed, volume made.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "base/logging.hpp"
#include "io/world.hpp"

namespace luge::control {

class Events {
 public:
  static constexpr std::size_t kKept = 256;
  struct Event {
    std::int64_t wall_ns;
    std::string text;
  };
  explicit Events(io::World& world) : world_(world) {}
  void note(std::string text) {
    logging::info("{}", text);
    if (events_.size() == kKept) events_.pop_front();
    events_.push_back({world_.wall_clock_ns(), std::move(text)});
  }
  const std::deque<Event>& all() const { return events_; }

 private:
  io::World& world_;
  std::deque<Event> events_;
};

}  // namespace luge::control
