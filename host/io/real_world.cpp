#include "io/real_world.hpp"

#include <sched.h>
#include <sys/random.h>
#include <time.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <random>

#include "base/logging.hpp"
#include "io/file_engine.hpp"
#include "io/real_files.hpp"
#include "io/real_network.hpp"
#include "io/wait_predictor.hpp"

namespace luge::io {
namespace {

template <class T>
T from_kernel() {
  T s{};
  auto* p = reinterpret_cast<char*>(&s);
  for (std::size_t have = 0; have < sizeof s;) {
    ssize_t n = ::getrandom(p + have, sizeof s - have, 0);
    if (n > 0) have += static_cast<std::size_t>(n);
  }
  return s;
}

Time boot_time() {
  timespec t;
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return Time(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

}  // namespace

struct RealWorld::Impl {
  explicit Impl(Options o) : options(std::move(o)) {}

  Options options;
  boost::asio::io_context context{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{context.get_executor()};
  boost::asio::steady_timer timer{context};
  std::optional<Time> armed;  // when `timer` fires
  std::mt19937_64 random{from_kernel<std::uint64_t>()};
  std::optional<boost::asio::signal_set> signals;
  std::function<void(int)> on_signal;
  std::function<void()> before_waiting;
  WaitPredictor waits;
  Interruptible* interruptibles = nullptr;
  std::unique_ptr<Network> network;
  std::unique_ptr<Files> files;

  void wait_for_signal() {
    signals->async_wait([this](const boost::system::error_code& e, int number) {
      if (e) return;
      wait_for_signal();
      on_signal(number);
    });
  }
};

RealWorld::RealWorld() : RealWorld(Options{}) {}

RealWorld::RealWorld(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {
  std::signal(SIGPIPE, SIG_IGN);
  impl_->network = make_real_network(*this);
  impl_->files = make_real_files(*this);
}

RealWorld::~RealWorld() { stop(); }

Time RealWorld::now() { return boot_time(); }

std::int64_t RealWorld::wall_clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::uint64_t RealWorld::random() { return impl_->random(); }
// Not from the generator above, whose state can be told from a few hundred of its numbers.
std::array<std::uint8_t, 32> RealWorld::secret() { return from_kernel<std::array<std::uint8_t, 32>>(); }
Network& RealWorld::network() { return *impl_->network; }
Files& RealWorld::files() { return *impl_->files; }
const RealWorld::Options& RealWorld::options() const { return impl_->options; }
boost::asio::io_context& RealWorld::context() { return impl_->context; }

// All that is ready, then one thing that Asio has, waiting for it at most `limit`.
void RealWorld::turn(Duration limit) {
  run_ready();
  if (impl_->before_waiting) impl_->before_waiting();
  if (anything_ready()) impl_->context.poll_one();
  else if (limit == Duration::max()) wait_for_event();
  else impl_->context.run_one_for(limit);
}

// A wait that is likely to be short is spent looking for events: waking a processor that has gone idle takes as long as a whole message,
// and at queue depth 1 each write would pay for it at each hop. The others sleep at once.
void RealWorld::wait_for_event() {
  if (impl_->context.poll_one() != 0) return;
  Time begin = now(), end = begin + impl_->options.busy_poll;
  if (impl_->waits.will_be_short()) {
    for (Time t = begin; t < end; t = now()) {
      ::sched_yield();
      if (impl_->context.poll_one() != 0) return impl_->waits.was(true);
    }
  }
  impl_->context.run_one();
  impl_->waits.was(now() < end);
}

void RealWorld::before_waiting(std::function<void()> f) {
  LUGE_CHECK(!impl_->before_waiting);
  impl_->before_waiting = std::move(f);
}

bool RealWorld::run(Duration grace) {
  while (!stopped()) turn(Duration::max());
  impl_->context.restart();
  Time end = now() + grace;
  while (tasks() != 0 && now() < end) turn(end - now());
  if (tasks() == 0) return true;
  logging::warn("{} tasks did not end within {} ms of the stop", tasks(), grace / std::chrono::milliseconds(1));
  return false;
}

void RealWorld::on_signal(std::function<void(int)> f) {
  LUGE_CHECK(!impl_->signals);
  impl_->on_signal = std::move(f);
  impl_->signals.emplace(impl_->context, SIGTERM, SIGINT);
  impl_->wait_for_signal();
}

void RealWorld::wake_at(Time t) {
  // An earlier alarm than asked for does no harm: run_timers() finds nothing due and asks again.
  if (impl_->armed && *impl_->armed <= t) return;
  impl_->armed = t;
  impl_->timer.expires_after(std::max<Duration>(t - now(), Duration(0)));
  impl_->timer.async_wait([this](const boost::system::error_code& e) {
    if (e) return;  // replaced by an earlier one
    impl_->armed.reset();
    run_timers();
  });
}

void RealWorld::on_stop() {
  for (Interruptible* i = impl_->interruptibles; i != nullptr;) {
    Interruptible* next = i->next_;
    i->interrupt();
    i = next;
  }
  impl_->context.stop();
}

RealWorld::Interruptible::Interruptible(RealWorld& world) : world_(world) {
  Interruptible*& first = world.impl_->interruptibles;
  next_ = first;
  if (first) first->prev_ = this;
  first = this;
}

RealWorld::Interruptible::~Interruptible() {
  (prev_ ? prev_->next_ : world_.impl_->interruptibles) = next_;
  if (next_) next_->prev_ = prev_;
}

namespace {

Task<void> run_and_stop(RealWorld& world, Task<int> task, int& result) {
  result = co_await std::move(task);
  world.stop();
}

}  // namespace

int run_main(RealWorld& world, Task<int> task) {
  int result = 130;
  world.on_signal([&world](int) { world.stop(); });
  world.spawn("main", run_and_stop(world, std::move(task), result));
  if (!world.run()) std::_Exit(result);
  return result;
}

}  // namespace luge::io
