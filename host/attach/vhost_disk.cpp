#include "attach/vhost_disk.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstring>

#include "attach/unix_listener.hpp"
#include "base/logging.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using boost::asio::posix::stream_descriptor;

constexpr io::Duration kLeaseRetry = 20ms, kLeaseLastRetry = 500ms, kLeaseComplaint = 5s;
constexpr io::Duration kLeaseSoon = 2s;  // who has it is about to give it back, as in a migration; later, it may take any time
constexpr io::Duration kStay = 1s;
constexpr io::Duration kAcceptAgain = 100ms;
constexpr io::Duration kGiveBack = 500ms;  // that a front end waits for the control plane when it stops its guest

}  // namespace

struct VhostDisk::Listener {
  explicit Listener(boost::asio::io_context& context) : socket(context) {}
  stream_descriptor socket;
};

VhostDisk::VhostDisk(io::RealWorld& world, Options o, Lease lease, std::shared_ptr<card::DmaPath> dma)
    : world_(world), options_(std::move(o)), lease_(std::move(lease)), dma_(std::move(dma)), device_(world, dma_, options_.name, options_.queues),
      listener_(std::make_unique<Listener>(world.context())), leasing_(world), changed_(world) {
  device_.set_size(options_.bytes);
  device_.set_read_only(options_.read_only);
}
VhostDisk::~VhostDisk() {
  if (recorder_) recorder_->close();
}

Result<std::shared_ptr<VhostDisk>> VhostDisk::serve(io::RealWorld& world, Options o, Lease lease) {
  auto logger = card::make_dma_logger(o.card, o.card_tree);
  if (!logger.ok()) return logger.status();
  auto socket = listen_unix(o.path, SOCK_STREAM);
  if (!socket.ok()) return socket.status();
  auto dma = std::make_shared<card::DmaPath>(world, std::move(*logger), o.function);
  std::shared_ptr<VhostDisk> disk(new VhostDisk(world, std::move(o), std::move(lease), dma));
  disk->listener_->socket.assign(socket->release());
  auto recorder = Recorder::listen(world, disk->options_.path + card::kRecorderSuffix, *disk);
  if (!recorder.ok()) return recorder.status();
  disk->recorder_ = std::move(*recorder);
  disk->accept();
  return disk;
}

// One front end at a time: the next is heard when the one before has ended.
void VhostDisk::accept() {
  listener_->socket.async_wait(stream_descriptor::wait_read, [weak = weak_from_this()](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || e || self->closed_) return;
    io::Descriptor fd(::accept4(self->listener_->socket.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && errno != EAGAIN) return self->world_.spawn("front ends wait", accept_later(weak));
    if (!fd) return self->accept();
    logging::info("disk '{}': a front end has connected", self->options_.name);
    self->session_ = std::make_shared<VhostSession>(self->world_, *self, std::move(fd));
    self->session_->on_end([weak] {
      auto self = weak.lock();
      if (!self) return;
      logging::info("disk '{}': the front end has gone", self->options_.name);
      self->world_.post([ended = std::move(self->session_)] {});  // not within its own call
      self->session_ = nullptr;
      self->forget_memory();
      self->changed_.notify_all();
      if (!self->closed_) self->accept();
    });
    self->session_->start();
  });
}

// No descriptor is left, or no memory: who waits is still there, and the listener would be readable in every turn.
io::Task<void> VhostDisk::accept_later(std::weak_ptr<VhostDisk> weak) {
  if (auto self = weak.lock()) co_await self->world_.sleep(kAcceptAgain);
  if (auto self = weak.lock(); self && !self->closed_) self->accept();
}

// A guest that has gone would keep all its memory for as long as it is mapped here; the next front end, be it the same, tells its table anew.
// A recording needs the table until its end: what the guest wrote last is still in its ring.
void VhostDisk::forget_memory() {
  if (session_ == nullptr && !dma_->recording() && dma_->idle()) dma_->set_memory(nullptr);
}

// ---- the volume ----

void VhostDisk::rings_started() {
  if (!quiesced_) stays_ = false;
  if (std::exchange(wanted_, true)) return;
  world_.spawn("vhost lease", hold_lease(shared_from_this()));
}

io::Task<void> VhostDisk::hold_lease(std::shared_ptr<VhostDisk> self) {
  auto guard = co_await self->leasing_.lock();
  const io::Time began = self->world_.now();
  io::Time complain_at = began + 1s;
  io::Duration retry = kLeaseRetry;
  while (self->wanted_ && !self->taken_) {
    auto target = co_await self->lease_.take(self->never_taken_);
    if (target.ok()) {
      self->never_taken_ = false;
      self->taken_ = true;
      self->written_.set_target(*target);
      break;
    }
    if (self->world_.now() >= complain_at) {
      logging::warn("disk '{}': the guest waits: {}", self->options_.name, target.status().to_string());
      complain_at = self->world_.now() + kLeaseComplaint;
    }
    if (self->world_.now() - began > kLeaseSoon) retry = std::min<io::Duration>(retry * 2, kLeaseLastRetry);
    co_await self->changed_.wait_for(retry);
  }
  if (self->wanted_ && self->taken_) self->device_.set_target(&self->written_);
}

// From here on nothing of this guest goes to the volume. That it is given back is waited for, so that whoever runs the guest next has it at
// once; but not for longer than the guest's stop can bear when the control plane is away: it stays attached here then, written by nobody.
io::Task<void> VhostDisk::rings_stopped() {
  auto self = shared_from_this();
  wanted_ = false;
  device_.set_target(nullptr);
  if (stays_) co_return;
  auto given = std::make_shared<bool>(false);
  world_.spawn("vhost lease", give_lease(self, given));
  changed_.notify_all();
  if (quiesced_) co_return;  // a manager moves the guest: the volume is given back while it saves and copies the rest
  const io::Time deadline = world_.now() + kGiveBack;
  while (!*given && world_.now() < deadline) co_await changed_.wait_until(deadline);
  if (!*given) logging::warn("disk '{}': the control plane doesn't answer; the volume is given back when it does", options_.name);
}

io::Task<void> VhostDisk::give_lease(std::shared_ptr<VhostDisk> self, std::shared_ptr<bool> given) {
  auto guard = co_await self->leasing_.lock();
  if (!self->wanted_ && std::exchange(self->taken_, false)) co_await self->lease_.give();
  *given = true;
  self->changed_.notify_all();
}

void VhostDisk::lost() {
  device_.set_target(nullptr);
  taken_ = false;
  if (wanted_) world_.spawn("vhost lease", hold_lease(shared_from_this()));
}

io::Task<void> VhostDisk::close(io::Duration limit) {
  if (std::exchange(closed_, true)) co_return;
  auto self = shared_from_this();
  boost::system::error_code ignored;
  listener_->socket.close(ignored);
  ::unlink(options_.path.c_str());
  if (quiesced_) resume();
  recorder_->close();
  if (session_) session_->close();
  io::Time deadline = world_.now() + limit;
  while (session_ && world_.now() < deadline) co_await changed_.wait_until(deadline);
  if (taken_) {  // requests are still open: what the volume does not do any more stays in flight
    taken_ = false;
    device_.set_target(nullptr);
    co_await lease_.give();
    io::Time soon = world_.now() + 1s;
    while (session_ && world_.now() < soon) co_await changed_.wait_until(soon);
  }
}

void VhostDisk::resize(std::uint64_t bytes) {
  if (bytes <= options_.bytes) return;
  options_.bytes = bytes;
  device_.set_size(bytes);
  if (session_) session_->config_changed();
}

// ---- the recorder ----

io::Task<bool> VhostDisk::quiesce(bool stays) {
  auto self = shared_from_this();
  stays_ = stays;
  if (!std::exchange(quiesced_, true)) device_.hold(true);  // held once, however often it is asked
  if (!co_await device_.finish_all() || !quiesced_) co_return false;
  co_return co_await dma_->suspend() && quiesced_;
}

void VhostDisk::resume() {
  if (!std::exchange(quiesced_, false)) return;
  stays_ = stays_ && !wanted_;
  if (stays_ && !closed_) world_.spawn("vhost stay", end_of_stay(shared_from_this()));
  dma_->resume();
  device_.hold(false);
}

// The guest's rings are started again soon after the manager has resumed its disk; if they are not, its volume is not kept for it.
io::Task<void> VhostDisk::end_of_stay(std::shared_ptr<VhostDisk> self) {
  co_await self->world_.sleep(kStay);
  if (self->quiesced_ || self->closed_ || !std::exchange(self->stays_, false) || self->wanted_) co_return;
  co_await give_lease(self, std::make_shared<bool>(false));
}

std::uint32_t VhostDisk::recorder_flags() const {
  return (session_ && dma_->memory() ? card::kDiskConnected : 0u) | (device_.any_started() ? card::kDiskRunning : 0u) | (quiesced_ ? card::kDiskQuiesced : 0u);
}

io::Task<Result<Buffer>> VhostDisk::read_volume(std::uint64_t offset, std::uint32_t bytes) {
  auto self = shared_from_this();
  if (!taken_ || written_.target() == nullptr) co_return Status(Code::unavailable, "the guest doesn't run: its volume isn't held here");
  if (offset > options_.bytes || bytes > options_.bytes - offset) co_return Status(Code::invalid, "beyond the volume's end");
  co_return co_await client::read(world_, *written_.target(), offset, bytes);
}

void VhostDisk::describe(card::RecorderReply& reply) const {
  reply.volume_bytes = options_.bytes;
  std::strncpy(reply.volume, options_.name.c_str(), sizeof reply.volume - 1);
}

}  // namespace luge::attach
