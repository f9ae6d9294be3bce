#include "io/world.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <cstdlib>

#include "base/check.hpp"

namespace luge::io {
namespace {

constexpr std::size_t kReadyAtOnce = 1024;

}  // namespace

// A suspended coroutine. Lives in the coroutine frame of World::wait; `resume` owns the continuation.
struct World::Waiter {
  Event* event = nullptr;
  bool through_stop = false;
  Waiter* prev = nullptr;  // in Event's queue
  Waiter* next = nullptr;
  Waiter* all_prev = nullptr;  // in World::waiting_
  Waiter* all_next = nullptr;
  std::optional<std::multimap<Time, Waiter*>::iterator> timer;
  std::optional<boost::asio::async_result<boost::asio::use_awaitable_t<>, void(bool)>::handler_type> resume;
};

// What runs from the loop, later: a coroutine that goes on, or a function.
struct World::Ready {
  std::optional<boost::asio::async_result<boost::asio::use_awaitable_t<>, void(bool)>::handler_type> resume;
  bool notified = false;
  std::function<void()> call;
};

World::World() : ready_(std::make_unique<std::deque<Ready>>()) {}

World::~World() { LUGE_CHECK(waiting_ == nullptr || stopped_); }

void World::spawn(std::string_view name, Task<void> task) {
  ++tasks_;
  boost::asio::co_spawn(
      executor(), std::move(task), [this, name = std::string(name)](std::exception_ptr e) {
        --tasks_;
        if (!e) return;
        try {
          std::rethrow_exception(e);
        } catch (const Stopped&) {
        } catch (const std::exception& x) {
          std::fprintf(stderr, "task '%s' ended by exception: %s\n", name.c_str(), x.what());
          std::abort();
        }
      });
}

void World::post(std::function<void()> f) { enqueue({std::nullopt, false, std::move(f)}); }

// Through a queue of our own: Asio looks at all descriptors (a system call) between two posted handlers.
void World::enqueue(Ready r) {
  ready_->push_back(std::move(r));
  if (ready_->size() == 1) has_ready();
}

void World::has_ready() {
  boost::asio::post(executor(), [this] {
    if (!run_ready()) has_ready();
  });
}

bool World::anything_ready() const { return !ready_->empty(); }

bool World::run_ready() {
  for (std::size_t n = 0; n < kReadyAtOnce && !ready_->empty(); ++n) {
    // The entry stays in the queue while it runs, so that what it wakes does not ask for another call.
    Ready r = std::move(ready_->front());
    if (r.resume) std::move(*r.resume)(r.notified);
    else r.call();
    ready_->pop_front();
  }
  return ready_->empty();
}

Task<void> World::sleep(Duration d) { co_await wait(nullptr, now() + d); }

Task<bool> World::wait(Event* event, std::optional<Time> deadline, bool through_stop) {
  if (stopped_ && !through_stop) throw Stopped{};
  Waiter w;
  w.through_stop = through_stop;
  w.event = event;
  bool notified = co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void(bool)>(
      [&](auto handler) {
        w.resume.emplace(std::move(handler));
        if (event != nullptr) {
          w.prev = event->last_;
          (event->last_ ? event->last_->next : event->first_) = &w;
          event->last_ = &w;
        }
        w.all_next = waiting_;
        if (waiting_) waiting_->all_prev = &w;
        waiting_ = &w;
        if (deadline) arm(w, *deadline);
      },
      boost::asio::use_awaitable);
  if (stopped_ && !through_stop) throw Stopped{};
  co_return notified;
}

void World::arm(Waiter& w, Time deadline) {
  w.timer = timers_.emplace(deadline, &w);
  if (*w.timer == timers_.begin()) wake_at(deadline);
}

void World::disarm(Waiter& w) {
  if (w.timer) timers_.erase(*w.timer);
  w.timer.reset();
}

void World::wake(Waiter& w, bool notified) {
  disarm(w);
  if (Event* e = w.event) {
    (w.prev ? w.prev->next : e->first_) = w.next;
    (w.next ? w.next->prev : e->last_) = w.prev;
  }
  (w.all_prev ? w.all_prev->all_next : waiting_) = w.all_next;
  if (w.all_next) w.all_next->all_prev = w.all_prev;
  enqueue({std::move(w.resume), notified, {}});
}

void World::run_timers() {
  Time t = now();
  while (!timers_.empty() && timers_.begin()->first <= t) wake(*timers_.begin()->second, false);
  if (!timers_.empty()) wake_at(timers_.begin()->first);
}

void World::stop() {
  if (std::exchange(stopped_, true)) return;
  for (Waiter* w = waiting_; w != nullptr;) {
    Waiter* next = w->all_next;
    if (!w->through_stop) wake(*w, false);
    w = next;
  }
  on_stop();
}

Event::~Event() {
  // Only a stopped World may leave waiters behind, and stop() has already detached those.
  LUGE_CHECK(first_ == nullptr);
}

Task<void> Event::wait() { co_await world_.wait(this, std::nullopt); }
Task<bool> Event::wait_for(Duration d) { return world_.wait(this, world_.now() + d); }
Task<bool> Event::wait_until(Time deadline) { return world_.wait(this, deadline); }
void Event::notify_all() { while (first_) world_.wake(*first_, true); }
void Event::notify_one() { if (first_) world_.wake(*first_, true); }

Task<Mutex::Guard> Mutex::lock() {
  // unlock() hands the mutex over to the first waiter, so nobody who comes later can overtake.
  if (held_) co_await free_.wait();
  held_ = true;
  co_return Guard(*this);
}

void Mutex::unlock() {
  held_ = free_.has_waiters();
  free_.notify_one();
}

Task<void> TaskGroup::run(std::shared_ptr<State> state, Task<void> task) {
  struct Finish {
    State& s;
    ~Finish() { if (--s.running == 0) s.done.notify_all(); }
  } finish{*state};
  co_await std::move(task);
}

void TaskGroup::spawn(std::string_view name, Task<void> task) {
  ++state_->running;
  world_.spawn(name, run(state_, std::move(task)));
}

Task<void> TaskGroup::join() {
  while (state_->running != 0) co_await world_.wait(&state_->done, std::nullopt, true);
  if (world_.stopped()) throw Stopped{};
}

}  // namespace luge::io
