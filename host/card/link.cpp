#include "card/link.hpp"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>

#include "base/logging.hpp"

namespace luge::card {
namespace {

constexpr std::size_t kAtOnce = 16;            // jobs given to the card process
constexpr std::size_t kReserve = 8u << 20;     // of the pool, for callers whose memory is not of it
constexpr int kCloseMs = 1000;                 // for a sound card process to close its device

template <class M>
bool read_as(M& m, const char* data, std::size_t n) {
  if (n != sizeof m) return false;
  std::memcpy(&m, data, n);
  return true;
}

}  // namespace

// Apart from the socket's owner, so that it can be cancelled before the descriptor is closed.
struct Link::Waiter {
  Waiter(boost::asio::io_context& context, int fd) : descriptor(context, fd) {}
  ~Waiter() { descriptor.release(); }
  boost::asio::posix::stream_descriptor descriptor;
};

Link::Link(io::RealWorld& world, CardOptions options) : world_(world), options_(std::move(options)), changed_(world), started_(world) {}
Link::~Link() { close(false); }

io::Task<Status> Link::open() {
  auto process = Process::start(options_, fault_);
  if (!process.ok()) co_return status_ = process.status();
  process_ = std::move(*process);
  waiter_ = std::make_unique<Waiter>(world_.context(), process_->socket());
  listen();
  const io::Time deadline = world_.now() + options_.start_limit;
  while (!open_ && status_.ok())
    if (!co_await changed_.wait_until(deadline) && !open_ && status_.ok())
      lose(Fault::hang, Status(Code::timed_out, "the card was not open after " + std::to_string(options_.start_limit / std::chrono::seconds(1)) + " s; " +
                               process_->last_words()));
  if (!status_.ok()) co_return status_;
  process_->came_up();
  world_.spawn("card watch", watch(shared_from_this()));
  co_return Status();
}

void Link::close(bool kindly) {
  if (closed_) return;
  closed_ = true;
  const bool sound = open_ && status_.ok() && sent_.empty();
  if (status_.ok()) status_ = Status(Code::unavailable, "the card has been closed");
  waiter_.reset();
  if (process_ && sound && kindly) process_->close(kCloseMs);
  process_.reset();
  lose(fault_, status_);
}

void Link::listen() {
  waiter_->descriptor.async_wait(boost::asio::posix::stream_descriptor::wait_read, [weak = weak_from_this()](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || e || self->closed_ || !self->waiter_) return;
    self->hear();
    if (self->waiter_) self->listen();
  });
}

void Link::hear() {
  alignas(8) char data[2048];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  for (;;) {
    iovec v{data, sizeof data};
    msghdr h{};
    h.msg_iov = &v, h.msg_iovlen = 1, h.msg_control = control, h.msg_controllen = sizeof control;
    ssize_t n = ::recvmsg(process_->socket(), &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      waiter_.reset();
      if (status_.ok()) {
        Status why = explain_end();
        lose(fault_ == Fault::none ? Fault::died : fault_, why);
      }
      return;
    }
    int descriptor = -1;
    for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c))
      if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) std::memcpy(&descriptor, CMSG_DATA(c), sizeof descriptor);
    hear_one(data, static_cast<std::size_t>(n), descriptor);
    if (descriptor >= 0) ::close(descriptor);
    if (!waiter_) return;
  }
}

void Link::hear_one(const char* data, std::size_t n, int descriptor) {
  Header h;
  std::memcpy(&h, data, std::min(n, sizeof h));
  DoneMessage done;
  CountersMessage counters;
  if (h.say == Say::hello && read_as(hello_, data, n) && hello_.version == kMessageVersion && descriptor >= 0) {
    pool_ = Pool::map(descriptor, hello_.pool_bytes, kReserve);
    if (!pool_) return lose(Fault::no_runtime, Status(Code::no_space, "the card's memory cannot be mapped"));
    open_ = true;
    changed_.notify_all();
  } else if (h.say == Say::done && read_as(done, data, n)) {
    if (done.code != 0) fault_ = static_cast<Fault>(done.fault);
    finish(h.id, done.code == 0 ? Status() : Status(static_cast<Code>(done.code), done.text));
  } else if (h.say == Say::lost && read_as(done, data, n)) {
    lose(static_cast<Fault>(done.fault), Status(static_cast<Code>(done.code), done.text));
  } else if (h.say == Say::firmware && read_as(report_, data, n)) {
    if (auto it = questions_.find(h.id); it != questions_.end()) it->second = true;
    changed_.notify_all();
  } else if (h.say == Say::counters && read_as(counters, data, n)) {
    std::uint64_t copied = counters_.copied_bytes;
    const std::uint64_t* v = counters.values;
    counters_ = {v[0], v[1], v[2], v[3], v[4], v[5], v[6], copied, v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15], v[16], v[17]};
    if (auto it = questions_.find(h.id); it != questions_.end()) it->second = true;
    changed_.notify_all();
  } else {
    lose(Fault::died, Status(Code::internal, "the card process said something unknown: is it of another version?"));
  }
}

// The process closed its socket without a word.
Status Link::explain_end() {
  int status = 0;
  for (int i = 0; i < 20 && !process_->ended(status); ++i) ::usleep(1000);
  std::string words = process_->last_words(), how;
  if (!process_->ended(status)) how = "closed its socket";
  else if (WIFSIGNALED(status)) how = "was ended by signal " + std::to_string(WTERMSIG(status));
  else how = "ended with code " + std::to_string(WEXITSTATUS(status));
  const bool loader = WIFEXITED(status) && WEXITSTATUS(status) == 127, version = WIFEXITED(status) && WEXITSTATUS(status) == 69;
  if (!open_ && loader) {
    fault_ = Fault::no_runtime;
    return Status(Code::not_found, "XRT cannot be loaded (Debian package libxrt1): " + words);
  }
  if (!open_ && version) {
    fault_ = Fault::wrong_version;
    return Status(Code::wrong_version, words);
  }
  return Status(Code::unavailable, "the card process " + how + (words.empty() ? "" : "; its last words: " + words));
}

void Link::start(std::shared_ptr<Job> job) {
  if (!status_.ok()) {
    job->status = status_, job->ended = true;
    return;
  }
  job->message.header = {Say::job, next_id_++};
  if (next_id_ == 0) next_id_ = 1;
  if (sent_.empty()) progress_ = world_.now(), started_.notify_all();
  waiting_.push_back(std::move(job));
  send_waiting();
}

void Link::send_waiting() {
  while (status_.ok() && !waiting_.empty() && sent_.size() < kAtOnce) {
    std::shared_ptr<Job> job = waiting_.front();
    ssize_t n = ::send(process_->socket(), &job->message, sizeof job->message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {  // tried again when a job ends; if none does the watch sees to it
      if (sent_.empty()) lose(Fault::hang, Status(Code::timed_out, "the card process does not take what it is sent"));
      return;
    }
    if (n < 0) return lose(Fault::died, explain_end());
    waiting_.pop_front();
    sent_[job->message.header.id] = std::move(job);
  }
}

void Link::finish(std::uint32_t id, Status status) {
  auto it = sent_.find(id);
  if (it == sent_.end()) return;
  std::shared_ptr<Job> job = std::move(it->second);
  sent_.erase(it);
  job->status = std::move(status), job->ended = true;
  job->pins.clear();
  progress_ = world_.now();
  send_waiting();
  changed_.notify_all();
}

// Jobs end at once; the process is killed first, so that nothing can write into memory that is given out again.
void Link::lose(Fault fault, Status why) {
  if (status_.ok()) {
    status_ = std::move(why);
    fault_ = fault;
    if (open_) logging::error("card {}: {}", options_.kind, status_.to_string());
  }
  waiter_.reset();
  process_.reset();
  for (auto& [id, job] : sent_) job->status = status_, job->ended = true, job->pins.clear();
  for (auto& job : waiting_) job->status = status_, job->ended = true, job->pins.clear();
  sent_.clear();
  waiting_.clear();
  changed_.notify_all();
  started_.notify_all();
}

io::Task<void> Link::ended(std::shared_ptr<Job> job) {
  while (!job->ended) co_await changed_.wait();
}

io::Task<void> Link::any_ended() { co_await changed_.wait(); }

// Waits for the answer to a question that was sent.
io::Task<Status> Link::answered(std::uint32_t id, io::Duration limit, const char* what) {
  questions_[id] = false;
  const io::Time deadline = world_.now() + limit;
  while (!questions_[id] && status_.ok())
    if (!co_await changed_.wait_until(deadline)) break;
  bool got = questions_[id];
  questions_.erase(id);
  if (got) co_return Status();
  if (status_.ok() && sent_.empty()) lose(Fault::hang, Status(Code::timed_out, std::string("the card does not tell its ") + what));
  co_return status_.ok() ? Status(Code::timed_out, "the card is busy") : status_;
}

io::Task<Result<CardCounters>> Link::ask_counters() {
  if (!status_.ok()) co_return status_;
  Header question{Say::counters, next_id_++};
  if (::send(process_->socket(), &question, sizeof question, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof question)
    co_return Status(Code::unavailable, "the card process does not listen");
  if (Status s = co_await answered(question.id, options_.job_limit, "counters"); !s.ok()) co_return s;
  co_return counters_;
}

io::Task<Result<FirmwareReport>> Link::ask_firmware(int op, std::span<const std::uint32_t> arguments) {
  if (!status_.ok()) co_return status_;
  FirmwareMessage question;
  question.header.id = next_id_++, question.op = op;
  std::copy_n(arguments.begin(), std::min<std::size_t>(arguments.size(), std::size(question.argument)), question.argument);
  if (::send(process_->socket(), &question, sizeof question, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof question)
    co_return Status(Code::unavailable, "the card process does not listen");
  if (Status s = co_await answered(question.header.id, options_.start_limit, "firmware's state"); !s.ok()) co_return s;
  co_return report_;
}

io::Task<void> Link::watch(std::shared_ptr<Link> self) {
  while (!self->closed_ && self->status_.ok()) {
    if (self->in_flight() == 0) {
      co_await self->started_.wait();
      continue;
    }
    io::Time deadline = self->progress_ + self->options_.job_limit;
    if (self->world_.now() >= deadline) {
      self->lose(Fault::hang, Status(Code::timed_out, "the card completed nothing for " +
                                     std::to_string(self->options_.job_limit / std::chrono::milliseconds(1)) + " ms"));
      break;
    }
    co_await self->world_.sleep(deadline - self->world_.now());
  }
}

}  // namespace luge::card
