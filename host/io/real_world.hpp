// The World of a running daemon or tool: Boost.Asio's event loop, the kernel's clock, sockets and files.
//
// One thread makes it, runs it and destroys it. Stopping: waits on sockets, timers and events throw Stopped; file
// I/O that the kernel already has is awaited to its end, because the buffers belong to the coroutines.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "io/world.hpp"

namespace boost::asio {
class io_context;
}

namespace luge::io {

class RealWorld final : public World {
 public:
  struct Options {
    std::string directory;          ///< files with relative names live here; empty: the working directory
    bool insecure_listen = false;   ///< TCP listeners may bind addresses that are not loopback
    bool allow_buffered = true;     ///< files on file systems without O_DIRECT: buffered, with one warning
    Duration busy_poll{};           ///< a loop with work looks for events so long before it sleeps; 0: sleeps at once
    bool io_uring = true;           ///< else a few threads; also when LUGE_NO_IO_URING=1 is set or the kernel refuses
  };

  RealWorld();
  explicit RealWorld(Options options);
  ~RealWorld() override;

  Time now() override;
  std::int64_t wall_clock_ns() override;
  std::uint64_t random() override;
  std::array<std::uint8_t, 32> secret() override;
  Network& network() override;
  Files& files() override;

  /// Runs until stop() has been called and the last task has ended. False: tasks were still there `grace` after the
  /// stop (logged); the process should then leave with _exit, since their frames may refer to anything.
  bool run(Duration grace = std::chrono::seconds(5));
  /// `f` is called from the loop with SIGTERM or SIGINT, each time one comes. Call at most once.
  void on_signal(std::function<void(int)> f);

  const Options& options() const;
  /// For code that talks to Asio itself (HTTP, NBD); runs on this World's thread.
  boost::asio::io_context& context();

  /// `f` is called when all that was ready has run, before the loop waits: the place to hand over to the kernel what
  /// was gathered meanwhile. Call at most once.
  void before_waiting(std::function<void()> f);

  /// Something with a wait of its own that stop() must end: `interrupt` makes the wait return.
  class Interruptible {
   public:
    explicit Interruptible(RealWorld& world);
    Interruptible(const Interruptible&) = delete;
    virtual ~Interruptible();
    virtual void interrupt() = 0;

   private:
    friend class RealWorld;
    RealWorld& world_;
    Interruptible* prev_ = nullptr;
    Interruptible* next_ = nullptr;
  };

 protected:
  void wake_at(Time t) override;
  void on_stop() override;
  void has_ready() override {}  // the loop looks for itself

 private:
  void turn(Duration limit);
  void wait_for_event();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// For command line tools: runs `task` to its end, then stops the World. The task's result, or 130 when SIGINT or
/// SIGTERM came first.
int run_main(RealWorld& world, Task<int> task);

}  // namespace luge::io
