// A wait with a limit for something that cannot be taken back.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "io/world.hpp"

namespace luge::io {

/// The result of `task`, or nothing when it has not ended within `limit`: it then goes on by itself, and what it returns
/// is dropped. REQUIRES: everything that the task refers to is its own, or outlives the World's tasks.
/// Time in which this process itself stood still (stopped, suspended) is not held against the task: the limit is waited
/// for in slices, and a slice counts once however long it took.
template <class T>
Task<std::optional<T>> within(World& world, Duration limit, Task<T> task) {
  struct State {
    explicit State(World& w) : ended(w) {}
    Event ended;
    std::optional<T> result;
  };
  auto state = std::make_shared<State>(world);
  world.spawn("within", [](Task<T> t, std::shared_ptr<State> s) -> Task<void> {
    s->result.emplace(co_await std::move(t));
    s->ended.notify_all();
  }(std::move(task), state));
  constexpr int kSlices = 8;
  for (int i = 0; i < kSlices && !state->result; ++i) co_await state->ended.wait_for(limit / kSlices);
  co_return std::move(state->result);
}

}  // namespace luge::io
