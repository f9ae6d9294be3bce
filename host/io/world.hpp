// Everything a daemon touches outside its own memory: time, timers, tasks, randomness, network, files.
// Daemons get a World handed in and use nothing else, so the same objects run under Boost.Asio and the real
// kernel (real_world.hpp) and under virtual time with a seed (sim/cluster).
//
// Threads: one World is one event loop on one thread. Nothing here may be called from another thread.
// Re-entrancy: a wake-up is always posted, never run inside the call that caused it; so is the start of a task.
// Stopping: stop() makes every present and future wait throw Stopped. The owner then runs the loop until
// tasks() is 0 and destroys the daemon: objects therefore outlive the coroutines that use them.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "io/task.hpp"

namespace luge::io {

using Duration = std::chrono::nanoseconds;
/// Monotonic, counts suspend too (CLOCK_BOOTTIME). Only differences mean anything.
using Time = std::chrono::time_point<std::chrono::steady_clock, Duration>;
using namespace std::chrono_literals;

class Network;
class Files;
class World;
class Event;

/// A wait for an Event or for a time, to be awaited where it is made. True: the Event was notified; false: the time has come.
/// Throws Stopped.
class [[nodiscard]] Wait {
 public:
  Wait(const Wait&) = delete;
  bool await_ready() const;
  void await_suspend(std::coroutine_handle<> waiting);
  bool await_resume() const;

 private:
  friend class World;
  friend class Event;
  friend class TaskGroup;
  Wait(World& world, Event* event, std::optional<Time> deadline, bool through_stop = false)
      : world_(world), event_(event), deadline_(deadline), through_stop_(through_stop) {}
  World& world_;
  Event* event_;
  std::optional<Time> deadline_;
  std::coroutine_handle<> waiting_;
  Wait* prev_ = nullptr;  // in event_'s queue
  Wait* next_ = nullptr;
  Wait* all_prev_ = nullptr;  // in World::waiting_
  Wait* all_next_ = nullptr;
  std::optional<std::multimap<Time, Wait*>::iterator> timer_;
  bool through_stop_;
  bool notified_ = false;
};

class World {
 public:
  World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  virtual ~World();

  virtual Time now() = 0;
  /// Nanoseconds since 1970 for people and logs only; nothing may be decided by it.
  virtual std::int64_t wall_clock_ns() = 0;
  virtual std::uint64_t random() = 0;
  /// 32 bytes that nobody can guess, whatever else they have seen of random(). Deterministic in the simulator.
  virtual std::array<std::uint8_t, 32> secret() = 0;
  virtual Network& network() = 0;
  virtual Files& files() = 0;

  /// Uniform in [0, bound). REQUIRES: bound > 0.
  std::uint64_t random_below(std::uint64_t bound) { return random() % bound; }

  /// Starts a task that nobody waits for. Stopped ends it quietly; any other exception ends the process
  /// with its name and the exception's text.
  void spawn(std::string_view name, Task<void> task);
  /// Runs `f` from the loop, later.
  void post(std::function<void()> f);
  Wait sleep(Duration d) { return {*this, nullptr, now() + d}; }
  /// Lets everything that is ready run first.
  Wait yield() { return sleep(Duration(0)); }

  void stop();
  bool stopped() const { return stopped_; }
  std::size_t tasks() const { return tasks_; }

 protected:
  /// Ask to have run_timers() called at `t` (or earlier); replaces an earlier request.
  virtual void wake_at(Time t) = 0;
  void run_timers();
  /// The queue of what is ready has its first entry: see to it that run_ready() is called, from the loop and not from
  /// here.
  virtual void has_ready() = 0;
  /// The first step of a spawned task: to be resumed from the loop. By itself: queued with what is ready.
  virtual void start(std::coroutine_handle<> task);
  /// Runs what is ready in the order in which it became so, and what becomes ready meanwhile, up to a bound that lets
  /// sockets and timers have their turn. False: the bound was reached and something is left.
  bool run_ready();
  bool anything_ready() const;
  /// stop() has begun: end waits that the World does not know of (sockets), so that they throw Stopped too.
  virtual void on_stop() {}

 private:
  friend class Event;
  friend class Wait;
  struct Root;
  static Root run_task(World& world, std::string name, Task<void> task);
  void arm(Wait& w, Time deadline);
  void disarm(Wait& w);
  void wake(Wait& w, bool notified);
  /// What runs from the loop, later: a coroutine that goes on, or a function.
  struct Ready {
    std::coroutine_handle<> resume;
    std::function<void()> call;
  };
  void enqueue(Ready r);

  std::deque<Ready> ready_;
  std::multimap<Time, Wait*> timers_;
  Wait* waiting_ = nullptr;  // all that are suspended, for stop()
  std::size_t tasks_ = 0;
  bool stopped_ = false;
};

/// A condition to wait on, always in a loop around the predicate. Notifications are not remembered.
class Event {
 public:
  explicit Event(World& world) : world_(world) {}
  Event(const Event&) = delete;
  ~Event();
  Wait wait() { return {world_, this, std::nullopt}; }
  /// False: the time passed first.
  Wait wait_for(Duration d) { return {world_, this, world_.now() + d}; }
  Wait wait_until(Time deadline) { return {world_, this, deadline}; }
  void notify_all();
  void notify_one();
  bool has_waiters() const { return first_ != nullptr; }

 private:
  friend class World;
  friend class Wait;
  World& world_;
  Wait* first_ = nullptr;  // FIFO
  Wait* last_ = nullptr;
};

/// Mutual exclusion between coroutines of one World; FIFO.
class Mutex {
 public:
  explicit Mutex(World& world) : free_(world) {}
  class Guard {
   public:
    explicit Guard(Mutex& m) : m_(&m) {}
    Guard(Guard&& o) noexcept : m_(std::exchange(o.m_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() { if (m_) m_->unlock(); }
   private:
    Mutex* m_;
  };
  Task<Guard> lock();

 private:
  void unlock();
  Event free_;
  bool held_ = false;
};

/// Runs tasks side by side and waits for all of them. REQUIRES: the first wait after spawn() is join().
/// join() waits for the tasks even when the World is stopped (and then throws Stopped), so that they may
/// refer to the locals of the joiner.
class TaskGroup {
 public:
  explicit TaskGroup(World& world) : world_(world), state_(std::make_shared<State>(world)) {}
  void spawn(std::string_view name, Task<void> task);
  Task<void> join();

 private:
  struct State {
    explicit State(World& w) : done(w) {}
    std::size_t running = 0;
    Event done;
  };
  static Task<void> run(std::shared_ptr<State> state, Task<void> task);
  World& world_;
  std::shared_ptr<State> state_;
};

}  // namespace luge::io
