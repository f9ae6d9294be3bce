#include "attach/recorder.hpp"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>

#include "attach/unix_listener.hpp"
#include "base/logging.hpp"

namespace luge::attach {
namespace {

using boost::asio::posix::stream_descriptor;
using card::RecorderReply;
using card::RecorderRequest;
using card::RecorderVerb;

constexpr std::size_t kMostConnections = 16;
constexpr io::Duration kAcceptAgain = std::chrono::milliseconds(100);

bool send_with(int socket, const RecorderReply& reply, const std::vector<int>& descriptors) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * (3 + card::kRecorderMostRegions))];
  iovec v{const_cast<RecorderReply*>(&reply), sizeof reply};
  msghdr h{};
  h.msg_iov = &v, h.msg_iovlen = 1;
  if (!descriptors.empty()) {
    h.msg_control = control, h.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    std::memcpy(CMSG_DATA(c), descriptors.data(), sizeof(int) * descriptors.size());
  }
  return ::sendmsg(socket, &h, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof reply);
}

}  // namespace

struct Recorder::Connection {
  Connection(boost::asio::io_context& context, int fd) : descriptor(context, fd) {}
  stream_descriptor descriptor;
  ~Connection() {
    if (window != nullptr) ::munmap(window, card::kRecorderWindow);
  }
  bool ended = false;
  std::byte* window = nullptr;        // what `read` answers with
  std::vector<int> to_close;          // descriptors that the next reply takes along
};

struct Recorder::Sockets {
  explicit Sockets(boost::asio::io_context& context) : listener(context), doorbell(context) {}
  stream_descriptor listener, doorbell;
  int watermark = -1;
};

Recorder::Recorder(io::RealWorld& world, std::string path, RecordedDisk& disk)
    : world_(world), path_(std::move(path)), disk_(&disk), sockets_(std::make_unique<Sockets>(world.context())) {}

Recorder::~Recorder() { close(); }

Result<std::shared_ptr<Recorder>> Recorder::listen(io::RealWorld& world, std::string path, RecordedDisk& disk) {
  auto socket = listen_unix(path, SOCK_SEQPACKET);
  if (!socket.ok()) return socket.status();
  std::shared_ptr<Recorder> r(new Recorder(world, path, disk));
  r->sockets_->listener.assign(socket->release());
  r->accept();
  return r;
}

void Recorder::close() {
  if (disk_ == nullptr) return;
  auto all = connections_;
  for (auto& c : all) end(c);
  boost::system::error_code ignored;
  sockets_->listener.close(ignored);
  ::unlink(path_.c_str());
  disk_ = nullptr;
}

void Recorder::accept() {
  sockets_->listener.async_wait(stream_descriptor::wait_read, [weak = weak_from_this()](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || e || self->disk_ == nullptr) return;
    int fd = ::accept4(self->sockets_->listener.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && errno != EAGAIN) return self->world_.spawn("recorder accepts", accept_later(weak));
    if (fd >= 0 && self->connections_.size() >= kMostConnections) {
      ::close(fd);
    } else if (fd >= 0) {
      auto c = std::make_shared<Connection>(self->world_.context(), fd);
      self->connections_.push_back(c);
      self->hear(c);
    }
    self->accept();
  });
}

// No descriptor is left, or no memory: who waits is still there, and the listener would be readable in every turn.
io::Task<void> Recorder::accept_later(std::weak_ptr<Recorder> weak) {
  if (auto self = weak.lock()) co_await self->world_.sleep(kAcceptAgain);
  if (auto self = weak.lock(); self && self->disk_ != nullptr) self->accept();
}

void Recorder::hear(ConnectionPtr c) {
  c->descriptor.async_wait(stream_descriptor::wait_read, [weak = weak_from_this(), c](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || c->ended) return;
    if (e || !self->hear_one(c)) self->end(c);
  });
}

// False: the connection ends. A request that is taken is answered before the next one is heard.
bool Recorder::hear_one(const ConnectionPtr& c) {
  RecorderRequest request;
  char more[8];
  iovec v[2] = {{&request, sizeof request}, {more, sizeof more}};
  msghdr h{};
  h.msg_iov = v, h.msg_iovlen = 2;
  ssize_t n = ::recvmsg(c->descriptor.native_handle(), &h, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return hear(c), true;
  if (n != static_cast<ssize_t>(sizeof request) || request.magic != card::kRecorderMagic || request.version != card::kRecorderVersion) {
    if (n > 0) logging::warn("recorder {}: a message that is not one of version {}; connection closed", path_, card::kRecorderVersion);
    return false;
  }
  world_.spawn("recorder", serve(c, request));
  return true;
}

io::Task<void> Recorder::serve(ConnectionPtr c, RecorderRequest request) {
  auto self = shared_from_this();
  RecorderReply reply;
  std::vector<int> descriptors;
  Status s = co_await perform(*c, request, reply, descriptors);
  if (c->ended || disk_ == nullptr) {
    if (c->ended && quiesced_ == c.get() && disk_ != nullptr) disk_->resume(), quiesced_ = nullptr;
    co_return;
  }
  reply.verb = request.verb, reply.id = request.id, reply.code = static_cast<std::uint16_t>(s.code());
  std::strncpy(reply.text, s.text().c_str(), sizeof reply.text - 1);
  const card::DmaPath& dma = disk_->dma();
  const auto& n = dma.stats();
  reply.flags = disk_->recorder_flags() | (dma.recording() ? card::kDiskRecording : 0u) | (dma.has_dirty_log() ? card::kDiskDirtyLog : 0u);
  reply.function = dma.function(), reply.throttle = dma.throttled(), reply.memory_generation = disk_->memory_generation();
  reply.dma_bytes = n.bytes, reply.bursts = n.bursts, reply.records = n.records, reply.holds = n.holds, reply.overflows = n.overflows;
  if (dma.recording()) {
    const card::RingHeader& h = dma.ring().header();
    reply.ring_state = h.state.load(), reply.slots_log2 = dma.ring().slots_log2(), reply.mode = h.mode;
  }
  disk_->describe(reply);
  const bool sent = send_with(c->descriptor.native_handle(), reply, descriptors);
  for (int fd : std::exchange(c->to_close, {})) ::close(fd);
  if (sent) hear(c);
  else end(c);
}

io::Task<Status> Recorder::perform(Connection& c, const RecorderRequest& request, RecorderReply& reply, std::vector<int>& descriptors) {
  switch (request.verb) {
    case RecorderVerb::start: co_return start(c, request, reply, descriptors);
    case RecorderVerb::stop:
      if (recording_ != &c) co_return Status(Code::not_found, "this connection has no recording");
      stop();
      co_return Status();
    case RecorderVerb::quiesce: {
      if (quiesced_ != nullptr && quiesced_ != &c) co_return Status(Code::exists, "another connection has quiesced this disk");
      if (quiesced_ == &c && quiet_) co_return Status();
      quiesced_ = &c;
      quiet_ = false;
      quiet_ = co_await disk_->quiesce(request.value == 1);
      co_return quiet_ ? Status() : Status(Code::unavailable, "resumed before it was quiet, or requests of before a restart wait for the volume");
    }
    case RecorderVerb::resume:
      if (quiesced_ != &c) co_return Status(Code::not_found, "this connection has not quiesced the disk");
      quiesced_ = nullptr;
      disk_->resume();
      co_return Status();
    case RecorderVerb::throttle:
      throttled_ = request.value != 0 ? &c : nullptr;
      disk_->dma().throttle(request.value);
      co_return Status();
    case RecorderVerb::status: co_return Status();
    case RecorderVerb::track: co_return track(c, request.value != 0, descriptors);
    case RecorderVerb::read: co_return co_await read(c, request.value, request.mode);
    case RecorderVerb::memory:
      list_memory(reply, descriptors);
      co_return Status();
  }
  co_return Status(Code::invalid, "this request is not known");
}

Status Recorder::start(Connection& c, const RecorderRequest& request, RecorderReply& reply, std::vector<int>& descriptors) {
  if (request.mode > 1) return Status(Code::invalid, "mode " + std::to_string(request.mode) + " of recording is not known");
  if (!disk_->dma().memory()) return Status(Code::unavailable, "no guest is connected to this disk");
  std::uint32_t watermark = request.watermark != 0 ? request.watermark : (1u << std::min(request.slots_log2, 20u)) / 2;
  int raised = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), bell = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  Status s = raised < 0 || bell < 0 ? Status(Code::no_space, "no descriptor is left")
                                    : disk_->dma().start_recording(static_cast<card::RecordMode>(request.mode), request.slots_log2, watermark, [raised] {
                                        std::uint64_t one = 1;
                                        [[maybe_unused]] ssize_t n = ::write(raised, &one, sizeof one);
                                      });
  if (!s.ok()) {
    if (raised >= 0) ::close(raised);
    if (bell >= 0) ::close(bell);
    return s;
  }
  recording_ = &c;
  sockets_->watermark = raised;
  sockets_->doorbell.assign(bell);
  wait_doorbell();
  descriptors = {disk_->dma().ring().fd(), raised, bell};
  list_memory(reply, descriptors);
  logging::info("recorder {}: DMA writes are recorded, {} slots, {}", path_, 1u << request.slots_log2, request.mode == 0 ? "after completion" : "at scheduling");
  return Status();
}

// The bitmap, and a window for the bytes of `read`.
Status Recorder::track(Connection& c, bool on, std::vector<int>& descriptors) {
  if (tracking_ != nullptr && tracking_ != &c) return Status(Code::exists, "another connection has this disk's writes tracked");
  if (!on) {
    disk_->untrack_writes();
    tracking_ = nullptr;
    return Status();
  }
  const int window = ::memfd_create("luge-recorder-window", MFD_CLOEXEC);
  void* p = window >= 0 && ::ftruncate(window, card::kRecorderWindow) == 0 ? ::mmap(nullptr, card::kRecorderWindow, PROT_READ | PROT_WRITE, MAP_SHARED, window, 0) : MAP_FAILED;
  auto bitmap = p == MAP_FAILED ? Result<int>(Code::no_space, "no window") : disk_->track_writes();
  if (!bitmap.ok()) {
    if (p != MAP_FAILED) ::munmap(p, card::kRecorderWindow);
    if (window >= 0) ::close(window);
    return bitmap.status();
  }
  if (c.window != nullptr) ::munmap(c.window, card::kRecorderWindow);
  c.window = static_cast<std::byte*>(p);
  tracking_ = &c;
  descriptors = c.to_close = {*bitmap, window};
  return Status();
}

io::Task<Status> Recorder::read(Connection& c, std::uint64_t offset, std::uint32_t bytes) {
  if (c.window == nullptr) co_return Status(Code::invalid, "there is no window: track first");
  if (bytes == 0 || bytes > card::kRecorderWindow) co_return Status(Code::invalid, "a read has 1 byte to 1 MiB");
  auto got = co_await disk_->read_volume(offset, bytes);
  if (!got.ok()) co_return got.status();
  std::memcpy(c.window, got->data(), got->size());
  co_return Status();
}

void Recorder::wait_doorbell() {
  sockets_->doorbell.async_wait(stream_descriptor::wait_read, [weak = weak_from_this()](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || e || self->recording_ == nullptr) return;
    std::uint64_t n;
    [[maybe_unused]] ssize_t got = ::read(self->sockets_->doorbell.native_handle(), &n, sizeof n);
    self->disk_->dma().doorbell();
    self->wait_doorbell();
  });
}

void Recorder::stop() {
  disk_->dma().stop_recording();
  boost::system::error_code ignored;
  sockets_->doorbell.close(ignored);
  ::close(std::exchange(sockets_->watermark, -1));
  recording_ = nullptr;
  disk_->recording_stopped();
  logging::info("recorder {}: DMA writes are not recorded any more", path_);
}

void Recorder::list_memory(RecorderReply& reply, std::vector<int>& descriptors) {
  const auto& memory = disk_->dma().memory();
  if (!memory) return;
  for (const card::GuestRegion& r : memory->regions()) {
    reply.region[reply.regions++] = {r.address, r.bytes, r.offset};
    descriptors.push_back(r.fd);
  }
}

void Recorder::end(const ConnectionPtr& c) {
  if (std::exchange(c->ended, true)) return;
  std::erase(connections_, c);
  if (recording_ == c.get()) stop();
  if (tracking_ == c.get()) disk_->untrack_writes(), tracking_ = nullptr;
  if (throttled_ == c.get()) disk_->dma().throttle(0), throttled_ = nullptr;
  if (quiesced_ == c.get()) disk_->resume(), quiesced_ = nullptr;
  boost::system::error_code ignored;
  c->descriptor.close(ignored);
}

}  // namespace luge::attach
