// Everything a daemon touches outside its own memory: time, timers, tasks, randomness, network, files.
// Daemons get a World handed in and use nothing else, so the same objects run under Boost.Asio and the real
// kernel (real_world.hpp) and under virtual time with a seed (sim/cluster).
//
// Threads: one World is one event loop on one thread. Nothing here may be called from another thread.
// Re-entrancy: a wake-up is always posted, never run inside the call that caused it.
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

class World {
 public:
  World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  virtual ~World();

  virtual Executor executor() = 0;
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
  Task<void> sleep(Duration d);
  /// Lets everything that is ready run first.
  Task<void> yield() { return sleep(Duration(0)); }

  void stop();
  bool stopped() const { return stopped_; }
  std::size_t tasks() const { return tasks_; }

 protected:
  /// Ask to have run_timers() called at `t` (or earlier); replaces an earlier request.
  virtual void wake_at(Time t) = 0;
  void run_timers();
  /// The queue of what is ready has its first entry: see to it that run_ready() is called, from the loop and not from
  /// here. By itself: posted to the executor.
  virtual void has_ready();
  /// Runs what is ready in the order in which it became so, and what becomes ready meanwhile, up to a bound that lets
  /// sockets and timers have their turn. False: the bound was reached and something is left.
  bool run_ready();
  bool anything_ready() const;
  /// stop() has begun: end waits that the World does not know of (sockets), so that they throw Stopped too.
  virtual void on_stop() {}

 private:
  friend class Event;
  friend class TaskGroup;
  struct Waiter;
  Task<bool> wait(class Event* event, std::optional<Time> deadline, bool through_stop = false);
  void arm(Waiter& w, Time deadline);
  void disarm(Waiter& w);
  void wake(Waiter& w, bool notified);
  struct Ready;
  void enqueue(Ready r);

  std::unique_ptr<std::deque<Ready>> ready_;
  std::multimap<Time, Waiter*> timers_;
  Waiter* waiting_ = nullptr;  // all suspended waiters, for stop()
  std::size_t tasks_ = 0;
  bool stopped_ = false;
};

/// A condition to wait on, always in a loop around the predicate. Notifications are not remembered.
class Event {
 public:
  explicit Event(World& world) : world_(world) {}
  Event(const Event&) = delete;
  ~Event();
  Task<void> wait();
  /// False: the time passed first.
  Task<bool> wait_for(Duration d);
  Task<bool> wait_until(Time deadline);
  void notify_all();
  void notify_one();
  bool has_waiters() const { return first_ != nullptr; }

 private:
  friend class World;
  World& world_;
  World::Waiter* first_ = nullptr;  // FIFO
  World::Waiter* last_ = nullptr;
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
