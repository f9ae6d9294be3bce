#include "io/file_engine.hpp"

#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <vector>

#include "base/check.hpp"
#include "base/logging.hpp"

namespace luge::io {
namespace {

namespace asio = boost::asio;

class PoolCalls final : public BlockingCalls {
 public:
  PoolCalls(RealWorld& world, int threads) : world_(world), threads_(threads) {}
  ~PoolCalls() override { if (pool_) pool_->join(); }

  Task<int> run(std::function<int()> f) override {
    if (world_.stopped()) throw Stopped{};
    if (!pool_) pool_ = std::make_unique<asio::thread_pool>(threads_);
    co_return co_await suspended<int>([&](Resume<int> resume) {
      asio::post(*pool_, [this, &f, resume] {
        int result = f();
        asio::post(world_.context(), [resume, result] { resume(result); });
      });
    });
  }

 private:
  RealWorld& world_;
  const int threads_;
  std::unique_ptr<asio::thread_pool> pool_;
};

class ThreadEngine final : public FileEngine {
 public:
  explicit ThreadEngine(BlockingCalls& calls) : calls_(calls) {}

  Task<int> transfer(Transfer t) override {
    return calls_.run([t] {
      auto count = static_cast<int>(t.count);
      auto offset = static_cast<off_t>(t.offset);
      ssize_t n;
      do {
        n = t.write ? ::pwritev2(t.fd, t.parts, count, offset, t.durable ? RWF_DSYNC : 0)
                    : ::preadv(t.fd, t.parts, count, offset);
      } while (n < 0 && errno == EINTR);
      return n < 0 ? -errno : static_cast<int>(n);
    });
  }
  Task<int> sync(int fd) override {
    return calls_.run([fd] { return ::fdatasync(fd) == 0 ? 0 : -errno; });
  }

 private:
  BlockingCalls& calls_;
};

// Operations started in one turn of the loop go to the kernel in one call, when the loop has nothing else to do;
// completions come in through an eventfd.
class UringEngine final : public FileEngine {
 public:
  explicit UringEngine(RealWorld& world) : world_(world), event_(world.context()), retry_(world.context()) {}
  ~UringEngine() override {
    if (ready_) ::io_uring_queue_exit(&ring_);
  }

  int init() {
    // Completions are then posted only when this thread asks: nothing interrupts it in the middle of other work.
    unsigned quiet = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    int error = ::io_uring_queue_init(kEntries, &ring_, quiet);
    if (error == -EINVAL) error = ::io_uring_queue_init(kEntries, &ring_, 0);  // kernels before 6.1
    if (error != 0) return -error;
    ready_ = true;
    int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return errno;
    event_.assign(fd);
    if (error = ::io_uring_register_eventfd(&ring_, fd); error != 0) return -error;
    watch();
    world_.before_waiting([this] {
      if (!waiting_.empty() || ::io_uring_sq_ready(&ring_) != 0) submit();
      if (in_flight_ != 0 && ::io_uring_cq_ready(&ring_) != 0) reap();
    });
    return 0;
  }

  Task<int> transfer(Transfer t) override {
    co_return co_await Op(*this, t);
  }
  Task<int> sync(int fd) override {
    co_return co_await Op(*this, Transfer{.fd = fd}, true);
  }

 private:
  struct Op {
    explicit Op(UringEngine& e, const Transfer& t, bool s = false) : engine(e), transfer(t), sync(s) {}
    bool await_ready() const {
      if (engine.world_.stopped()) throw Stopped{};
      return false;
    }
    void await_suspend(std::coroutine_handle<> h) {
      waiting = h;
      engine.waiting_.push_back(this);
    }
    int await_resume() const { return result; }

    UringEngine& engine;
    Transfer transfer;
    bool sync;
    int result = 0;
    std::coroutine_handle<> waiting;
  };
  static constexpr unsigned kEntries = 256;

  void submit() {
    while (!waiting_.empty() && in_flight_ < 2 * kEntries) {
      io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
      if (sqe == nullptr) {
        if (!enter()) return;
        continue;
      }
      prepare(sqe, *waiting_.front());
      waiting_.pop_front();
      ++in_flight_;
    }
    enter();
  }

  // False: the kernel is short of something for the moment; tried again soon.
  bool enter() {
    if (::io_uring_sq_ready(&ring_) == 0) return true;
    int n = ::io_uring_submit(&ring_);
    if (n >= 0) return true;
    if (n != -EAGAIN && n != -EBUSY && n != -EINTR) {
      logging::error("io_uring_submit: {}", std::strerror(-n));
      check_failed(__FILE__, __LINE__, "io_uring_submit");
    }
    retry_.expires_after(std::chrono::milliseconds(1));
    retry_.async_wait([](const boost::system::error_code&) {});  // the loop turns, and submits
    return false;
  }

  static void prepare(io_uring_sqe* sqe, Op& op) {
    const Transfer& t = op.transfer;
    if (op.sync) {
      ::io_uring_prep_fsync(sqe, t.fd, IORING_FSYNC_DATASYNC);
    } else if (t.write) {
      ::io_uring_prep_writev2(sqe, t.fd, t.parts, t.count, t.offset, t.durable ? RWF_DSYNC : 0);
    } else {
      ::io_uring_prep_readv(sqe, t.fd, t.parts, t.count, t.offset);
    }
    ::io_uring_sqe_set_data(sqe, &op);
  }

  void watch() {
    event_.async_read_some(asio::buffer(&signals_, sizeof signals_), [this](const boost::system::error_code& e, std::size_t) {
      if (e) return;
      watch();
      reap();
    });
  }

  // The kernel signals work to be done and again the result of that work. While the ring is looked at the signal is off,
  // and afterwards it is looked at once more, for what came in between.
  void reap() {
    // Resuming may start operations and come here again: take all results out of the ring first.
    std::vector<Op*> done;
    done.swap(spare_);
    ::io_uring_cq_eventfd_toggle(&ring_, false);
    take_results(done);
    ::io_uring_cq_eventfd_toggle(&ring_, true);
    // Either the kernel sees the signal on again, or the look below sees what the kernel has added.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    take_results(done);
    for (Op* op : done) op->waiting.resume();
    done.clear();
    spare_.swap(done);
  }

  void take_results(std::vector<Op*>& done) {
    io_uring_cqe* cqe = nullptr;
    while (in_flight_ != 0 && ::io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
      auto* op = static_cast<Op*>(::io_uring_cqe_get_data(cqe));
      op->result = cqe->res;
      ::io_uring_cqe_seen(&ring_, cqe);
      --in_flight_;
      done.push_back(op);
      cqe = nullptr;
    }
  }

  RealWorld& world_;
  io_uring ring_{};
  bool ready_ = false;
  unsigned in_flight_ = 0;
  std::deque<Op*> waiting_;
  std::vector<Op*> spare_;
  std::uint64_t signals_ = 0;  // where the event is read to
  asio::posix::stream_descriptor event_;
  asio::steady_timer retry_;
};

}  // namespace

std::unique_ptr<BlockingCalls> make_blocking_calls(RealWorld& world, int threads) { return std::make_unique<PoolCalls>(world, threads); }

std::unique_ptr<FileEngine> make_uring_engine(RealWorld& world, int& error) {
  auto engine = std::make_unique<UringEngine>(world);
  error = engine->init();
  if (error != 0) return nullptr;
  return engine;
}

std::unique_ptr<FileEngine> make_thread_engine(BlockingCalls& calls) { return std::make_unique<ThreadEngine>(calls); }

}  // namespace luge::io
