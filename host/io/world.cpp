#include "io/world.hpp"

#include <cstdio>
#include <cstdlib>

#include "base/check.hpp"

namespace luge::io {
namespace {

constexpr std::size_t kReadyAtOnce = 1024;

}  // namespace

World::World() = default;

World::~World() { LUGE_CHECK(waiting_ == nullptr || stopped_); }

// The frame at the bottom of a task; nobody holds it, and it ends with itself.
struct World::Root {
  struct promise_type {
    Root get_return_object() noexcept { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
    static void* operator new(std::size_t bytes) { return frame_memory::take(bytes); }
    static void operator delete(void* frame, std::size_t bytes) noexcept { frame_memory::give(frame, bytes); }
  };
  std::coroutine_handle<> frame;
};

World::Root World::run_task(World& world, std::string name, Task<void> task) {
  try {
    co_await std::move(task);
  } catch (const Stopped&) {
  } catch (const std::exception& x) {
    std::fprintf(stderr, "task '%s' ended by exception: %s\n", name.c_str(), x.what());
    std::abort();
  }
  --world.tasks_;
}

void World::spawn(std::string_view name, Task<void> task) {
  ++tasks_;
  start(run_task(*this, std::string(name), std::move(task)).frame);
}

void World::start(std::coroutine_handle<> task) { enqueue({task, {}}); }

void World::post(std::function<void()> f) { enqueue({{}, std::move(f)}); }

// Through a queue of our own: Asio looks at all descriptors (a system call) between two posted handlers.
void World::enqueue(Ready r) {
  ready_.push_back(std::move(r));
  if (ready_.size() == 1) has_ready();
}

bool World::anything_ready() const { return !ready_.empty(); }

bool World::run_ready() {
  for (std::size_t n = 0; n < kReadyAtOnce && !ready_.empty(); ++n) {
    // The entry stays in the queue while it runs, so that what it wakes does not ask for another call.
    Ready& r = ready_.front();
    if (r.resume) r.resume.resume();
    else r.call();
    ready_.pop_front();
  }
  return ready_.empty();
}

bool Wait::await_ready() const {
  if (world_.stopped_ && !through_stop_) throw Stopped{};
  return false;
}

void Wait::await_suspend(std::coroutine_handle<> waiting) {
  waiting_ = waiting;
  if (event_ != nullptr) {
    prev_ = event_->last_;
    (event_->last_ ? event_->last_->next_ : event_->first_) = this;
    event_->last_ = this;
  }
  all_next_ = world_.waiting_;
  if (all_next_) all_next_->all_prev_ = this;
  world_.waiting_ = this;
  if (deadline_) world_.arm(*this, *deadline_);
}

bool Wait::await_resume() const {
  if (world_.stopped_ && !through_stop_) throw Stopped{};
  return notified_;
}

void World::arm(Wait& w, Time deadline) {
  w.timer_ = timers_.emplace(deadline, &w);
  if (*w.timer_ == timers_.begin()) wake_at(deadline);
}

void World::disarm(Wait& w) {
  if (w.timer_) timers_.erase(*w.timer_);
  w.timer_.reset();
}

void World::wake(Wait& w, bool notified) {
  disarm(w);
  if (Event* e = w.event_) {
    (w.prev_ ? w.prev_->next_ : e->first_) = w.next_;
    (w.next_ ? w.next_->prev_ : e->last_) = w.prev_;
  }
  (w.all_prev_ ? w.all_prev_->all_next_ : waiting_) = w.all_next_;
  if (w.all_next_) w.all_next_->all_prev_ = w.all_prev_;
  w.notified_ = notified;
  enqueue({w.waiting_, {}});
}

void World::run_timers() {
  Time t = now();
  while (!timers_.empty() && timers_.begin()->first <= t) wake(*timers_.begin()->second, false);
  if (!timers_.empty()) wake_at(timers_.begin()->first);
}

void World::stop() {
  if (std::exchange(stopped_, true)) return;
  for (Wait* w = waiting_; w != nullptr;) {
    Wait* next = w->all_next_;
    if (!w->through_stop_) wake(*w, false);
    w = next;
  }
  on_stop();
}

Event::~Event() {
  // Only a stopped World may leave waiters behind, and stop() has already detached those.
  LUGE_CHECK(first_ == nullptr);
}

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
  while (state_->running != 0) co_await Wait(world_, &state_->done, std::nullopt, true);
  if (world_.stopped()) throw Stopped{};
}

}  // namespace luge::io
