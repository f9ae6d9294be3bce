#include "attach/vhost_session.hpp"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cstring>

#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::attach {
namespace {

using boost::asio::posix::stream_descriptor;
using vhost::Message;

constexpr std::uint64_t kProtocol = 1ull << vhost::kMultiQueue | 1ull << vhost::kLogShared | 1ull << vhost::kReplyAck | 1ull << vhost::kBackendRequests |
                                    1ull << vhost::kConfig | 1ull << vhost::kInflightShared | 1ull << vhost::kResetDevice;
constexpr std::uint64_t kTransport = 1ull << vhost::kLogAll | 1ull << vhost::kProtocolFeatures;

Status wrong(std::string text) { return Status(Code::invalid, std::move(text)); }

// The front end shares these, and may take from or fill them at any moment: they must never block.
void never_blocks(int fd) {
  int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

template <class T>
bool read_as(T& t, const std::vector<std::byte>& payload) {
  if (payload.size() < sizeof t) return false;
  std::memcpy(&t, payload.data(), sizeof t);
  return true;
}

void signal(int fd) {
  std::uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(fd, &one, sizeof one);
}

}  // namespace

std::string_view vhost::message_name(std::uint32_t request) {
  switch (static_cast<Message>(request)) {
    case Message::get_features: return "GET_FEATURES";
    case Message::set_features: return "SET_FEATURES";
    case Message::set_owner: return "SET_OWNER";
    case Message::reset_owner: return "RESET_OWNER";
    case Message::set_mem_table: return "SET_MEM_TABLE";
    case Message::set_log_base: return "SET_LOG_BASE";
    case Message::set_log_fd: return "SET_LOG_FD";
    case Message::set_vring_num: return "SET_VRING_NUM";
    case Message::set_vring_addr: return "SET_VRING_ADDR";
    case Message::set_vring_base: return "SET_VRING_BASE";
    case Message::get_vring_base: return "GET_VRING_BASE";
    case Message::set_vring_kick: return "SET_VRING_KICK";
    case Message::set_vring_call: return "SET_VRING_CALL";
    case Message::set_vring_err: return "SET_VRING_ERR";
    case Message::get_protocol_features: return "GET_PROTOCOL_FEATURES";
    case Message::set_protocol_features: return "SET_PROTOCOL_FEATURES";
    case Message::get_queue_num: return "GET_QUEUE_NUM";
    case Message::set_vring_enable: return "SET_VRING_ENABLE";
    case Message::set_backend_request_fd: return "SET_BACKEND_REQ_FD";
    case Message::get_config: return "GET_CONFIG";
    case Message::set_config: return "SET_CONFIG";
    case Message::get_inflight_fd: return "GET_INFLIGHT_FD";
    case Message::set_inflight_fd: return "SET_INFLIGHT_FD";
    case Message::reset_device: return "RESET_DEVICE";
  }
  return "?";
}

struct VhostSession::Waiter {
  Waiter(boost::asio::io_context& c, int fd) : context(c), socket(c, fd) {}
  boost::asio::io_context& context;
  stream_descriptor socket;
  std::array<std::shared_ptr<stream_descriptor>, VirtioBlk::kMostQueues> kick;
};

VhostSession::VhostSession(io::RealWorld& world, VhostOwner& owner, io::Descriptor socket)
    : world_(world), owner_(owner), waiter_(std::make_unique<Waiter>(world.context(), socket.release())) {}
VhostSession::~VhostSession() = default;

void VhostSession::start() {
  never_blocks(waiter_->socket.native_handle());
  owner_.device().on_broken([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    for (Ring& r : self->rings_)
      if (r.error) signal(r.error.get());
  });
  listen();
}

void VhostSession::close() {
  if (std::exchange(ending_, true)) return;
  boost::system::error_code ignored;
  waiter_->socket.close(ignored);
  for (auto& k : waiter_->kick) k.reset();
  if (!serving_) world_.spawn("vhost end", end(shared_from_this()));
}

void VhostSession::listen() {
  if (ending_) return;
  waiter_->socket.async_wait(stream_descriptor::wait_read, [weak = weak_from_this()](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || self->ending_) return;
    if (e || !self->hear()) self->close();
  });
}

// Takes what has come of the next message. False: the connection ends.
bool VhostSession::hear() {
  std::byte buffer[sizeof(vhost::Header) + vhost::kMostPayload];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * vhost::kMostDescriptors)];
  // No more than this message: descriptors come with the first byte of theirs.
  std::size_t want = in_.size() < sizeof(vhost::Header) ? sizeof(vhost::Header) - in_.size() : sizeof(vhost::Header) + next_.header.size - in_.size();
  iovec v{buffer, want};
  msghdr h{};
  h.msg_iov = &v, h.msg_iovlen = 1, h.msg_control = control, h.msg_controllen = sizeof control;
  ssize_t n = ::recvmsg(waiter_->socket.native_handle(), &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return listen(), true;
  for (cmsghdr* c = n > 0 ? CMSG_FIRSTHDR(&h) : nullptr; c != nullptr; c = CMSG_NXTHDR(&h, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      next_.descriptors.emplace_back(fd);
    }
  }
  if (n <= 0) return false;
  if (next_.descriptors.size() > vhost::kMostDescriptors || (h.msg_flags & MSG_CTRUNC) != 0) return complain(wrong("too many descriptors")), false;
  in_.insert(in_.end(), buffer, buffer + n);
  if (in_.size() == sizeof(vhost::Header)) {
    std::memcpy(&next_.header, in_.data(), sizeof next_.header);
    if ((next_.header.flags & vhost::kVersionMask) != vhost::kVersion || next_.header.size > vhost::kMostPayload)
      return complain(wrong(fmt::format("a message of version {} and {} bytes", next_.header.flags & vhost::kVersionMask, next_.header.size))), false;
  }
  if (in_.size() < sizeof(vhost::Header) || in_.size() < sizeof(vhost::Header) + next_.header.size) return listen(), true;
  next_.payload.assign(in_.begin() + sizeof(vhost::Header), in_.end());
  in_.clear();
  serving_ = true;
  world_.spawn("vhost message", serve(shared_from_this(), std::exchange(next_, Incoming())));
  return true;
}

io::Task<void> VhostSession::serve(std::shared_ptr<VhostSession> self, Incoming m) {
  Status s = co_await self->handle(m);
  self->serving_ = false;
  if (!s.ok()) self->complain(s.with(vhost::message_name(m.header.request)));
  if (self->ending_) {
    self->world_.spawn("vhost end", end(self));
    co_return;
  }
  if (s.ok()) self->listen();
  else self->close();
}

void VhostSession::complain(const Status& s) { logging::error("vhost-user front end of '{}': {}; connection closed", owner_.called(), s.text()); }

void VhostSession::reply(const Incoming& m, const void* payload, std::size_t bytes, int descriptor) {
  vhost::Header h{m.header.request, vhost::kVersion | vhost::kReply, static_cast<std::uint32_t>(bytes)};
  iovec v[2] = {{&h, sizeof h}, {const_cast<void*>(payload), bytes}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr out{};
  out.msg_iov = v, out.msg_iovlen = bytes != 0 ? 2 : 1;
  if (descriptor >= 0) {
    out.msg_control = control, out.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&out);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
  }
  if (ending_) return;
  ssize_t n = ::sendmsg(waiter_->socket.native_handle(), &out, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n != static_cast<ssize_t>(sizeof h + bytes)) close();  // one that asks and does not read
}

io::Task<Status> VhostSession::handle(Incoming& m) {
  bool answered = false;
  Status s;
  switch (static_cast<Message>(m.header.request)) {
    case Message::get_features:
    case Message::get_protocol_features:
    case Message::get_queue_num:
    case Message::get_config:
    case Message::get_inflight_fd:
    case Message::get_vring_base:
    case Message::set_log_base: answered = true; break;
    default: break;
  }
  switch (static_cast<Message>(m.header.request)) {
    case Message::set_vring_num:
    case Message::set_vring_addr:
    case Message::set_vring_base:
    case Message::get_vring_base:
    case Message::set_vring_enable:
    case Message::set_vring_kick:
    case Message::set_vring_call:
    case Message::set_vring_err: s = co_await queue_message(m); break;
    default: s = co_await control(m); break;
  }
  if (s.ok() && !answered && (m.header.flags & vhost::kNeedReply) != 0 && (protocol_features_ >> vhost::kReplyAck & 1) != 0) reply_u64(m, 0);
  co_return s;
}

io::Task<Status> VhostSession::control(Incoming& m) {
  std::uint64_t value = 0;
  const bool has_value = read_as(value, m.payload);
  switch (static_cast<Message>(m.header.request)) {
    case Message::get_features: reply_u64(m, owner_.device().features() | kTransport); break;
    case Message::set_features: co_return has_value ? co_await set_features(value) : wrong("no features");
    case Message::get_protocol_features: reply_u64(m, kProtocol); break;
    case Message::set_protocol_features:
      if (!has_value || (value & ~kProtocol) != 0) co_return wrong(fmt::format("protocol features {:#x} that were not offered", value & ~kProtocol));
      protocol_features_ = value;
      break;
    case Message::set_owner:
    case Message::set_log_fd: break;
    case Message::reset_owner:
    case Message::reset_device:
      for (std::uint32_t q = 0; q < owner_.device().queues(); ++q)
        if (Status s = co_await stop_ring(q); !s.ok()) co_return s;
      break;
    case Message::get_queue_num: reply_u64(m, owner_.device().queues()); break;
    case Message::set_mem_table: co_return co_await set_memory(m);
    case Message::set_log_base: co_return co_await set_log(m);
    case Message::get_config: co_return get_config(m);
    case Message::set_config: break;  // nothing of it can be set: the write cache is always "on" and always durable
    case Message::get_inflight_fd: co_return get_inflight(m);
    case Message::set_inflight_fd: co_return set_inflight(m);
    case Message::set_backend_request_fd:
      if (m.descriptors.size() != 1) co_return wrong("no descriptor");
      backend_requests_ = std::move(m.descriptors[0]);
      never_blocks(backend_requests_.get());
      break;
    default: co_return wrong(fmt::format("message {} is not known", m.header.request));
  }
  co_return Status();
}

io::Task<Status> VhostSession::queue_message(Incoming& m) {
  const auto kind = static_cast<Message>(m.header.request);
  VirtioBlk& device = owner_.device();
  vhost::RingState state{};
  vhost::RingAddress address{};
  std::uint64_t value = 0;
  const bool by_descriptor = kind == Message::set_vring_kick || kind == Message::set_vring_call || kind == Message::set_vring_err;
  std::uint32_t index = 0;
  if (by_descriptor && read_as(value, m.payload)) index = static_cast<std::uint32_t>(value & vhost::kIndexMask);
  else if (kind == Message::set_vring_addr && read_as(address, m.payload)) index = address.index;
  else if (!by_descriptor && read_as(state, m.payload)) index = state.index;
  else co_return wrong("its size");
  if (index >= device.queues()) co_return wrong(fmt::format("queue {} of {}", index, device.queues()));
  Ring& ring = rings_[index];
  io::Descriptor descriptor;
  if (by_descriptor && (value & vhost::kNoDescriptor) == 0) {
    if (m.descriptors.size() != 1) co_return wrong("no descriptor");
    descriptor = std::move(m.descriptors[0]);
    never_blocks(descriptor.get());
  }
  const bool runs = device.started(index);
  switch (kind) {
    case Message::set_vring_num:
      if (runs || state.number == 0 || state.number > Vring::kMostEntries) co_return wrong(fmt::format("{} entries for queue {}{}", state.number, index, runs ? ", which runs" : ""));
      ring.entries = state.number;
      break;
    case Message::set_vring_base:
      if (runs) co_return wrong(fmt::format("of queue {}, which runs", index));
      ring.base = static_cast<std::uint16_t>(state.number);
      break;
    case Message::set_vring_addr:  // of one that runs: only the log's switch, which goes by the features here
      ring.address = address, ring.has_address = true;
      break;
    case Message::set_vring_enable: device.enable(index, state.number != 0); break;
    case Message::set_vring_kick:
      if (!descriptor) co_return wrong("a queue without a kick descriptor is polled, which is not done here");
      co_return start_ring(index, std::move(descriptor));
    case Message::set_vring_call: co_return set_call(index, std::move(descriptor));
    case Message::set_vring_err: ring.error = std::move(descriptor); break;
    default: {  // get_vring_base
      Status s = co_await stop_ring(index);
      if (!s.ok()) co_return s;
      vhost::RingState base{index, ring.base};
      reply(m, &base, sizeof base);
    }
  }
  co_return Status();
}

// Addresses of rings are the front end's own; here they are the guest's.
Result<Vring::Place> VhostSession::place(std::uint32_t index) const {
  const Ring& ring = rings_[index];
  const auto& memory = owner_.dma_path().memory();
  if (!memory) return wrong("a ring is started before the table of guest memory is given");
  if (!ring.has_address || ring.entries == 0) return wrong("a ring is started before its size and addresses are given");
  Vring::Place p;
  p.entries = ring.entries;
  const std::uint64_t n = ring.entries;
  if (!memory->translate(ring.address.descriptors, 16 * n, p.descriptors) || !memory->translate(ring.address.available, 6 + 2 * n, p.available) ||
      !memory->translate(ring.address.used, 6 + 8 * n, p.used))
    return wrong(fmt::format("queue {} lies outside guest memory", index));
  return p;
}

Status VhostSession::start_ring(std::uint32_t index, io::Descriptor kick) {
  VirtioBlk& device = owner_.device();
  boost::system::error_code e;
  auto wait = std::make_shared<stream_descriptor>(waiter_->context);
  wait->assign(kick.get(), e);
  if (e) return wrong(fmt::format("the kick descriptor of queue {} cannot be waited for", index));
  kick.release();
  waiter_->kick[index] = wait;
  if (!device.started(index)) {
    auto p = place(index);
    if (!p.ok()) return p.status();
    if (device.broken()) return wrong("the device has been stopped");
    // Rings start enabled where the protocol has no switch for it.
    if ((features_ >> vhost::kProtocolFeatures & 1) == 0) device.enable(index, true);
    if (Status s = device.start(index, *p, rings_[index].base); !s.ok()) return s;
    owner_.rings_started();
  }
  wait_kick(index);
  return Status();
}

void VhostSession::wait_kick(std::uint32_t index) {
  auto kick = waiter_->kick[index];
  kick->async_wait(stream_descriptor::wait_read, [weak = weak_from_this(), index, kick](const boost::system::error_code& e) {
    auto self = weak.lock();
    if (!self || e || self->ending_ || self->waiter_->kick[index] != kick) return;
    std::uint64_t n;
    const ssize_t got = ::read(kick->native_handle(), &n, sizeof n);
    // Not an eventfd: at its end, or a socket that listens. It would be readable for ever.
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
      return logging::warn("queue {}: the kick descriptor is none: {}; it isn't listened to any more", index, got == 0 ? "end of file" : std::strerror(errno));
    self->owner_.device().kick(index);
    self->wait_kick(index);
  });
}

Status VhostSession::set_call(std::uint32_t index, io::Descriptor call) {
  if (!call) owner_.device().set_interrupt(index, {});
  else owner_.device().set_interrupt(index, [fd = std::make_shared<io::Descriptor>(std::move(call))] { signal(fd->get()); });
  return Status();
}

io::Task<Status> VhostSession::stop_ring(std::uint32_t index) {
  VirtioBlk& device = owner_.device();
  if (!device.started(index)) co_return Status();
  waiter_->kick[index].reset();
  rings_[index].base = co_await device.drain(index);
  co_await barrier();
  if (!device.any_started()) {
    co_await owner_.rings_stopped();
    device.mend();
  }
  co_return Status();
}

// Everything that was written is in the dirty log.
io::Task<void> VhostSession::barrier() {
  card::DmaPath& dma = owner_.dma_path();
  if (!dma.has_dirty_log() || dma.suspended()) co_return;
  VirtioBlk& device = owner_.device();
  device.hold(true);
  co_await device.drain_all();
  if (co_await dma.suspend()) dma.resume();
  device.hold(false);
}

io::Task<Status> VhostSession::set_features(std::uint64_t features) {
  const std::uint64_t offered = owner_.device().features() | kTransport;
  if ((features & ~offered) != 0) co_return wrong(fmt::format("features {:#x} that were not offered", features & ~offered));
  const bool log = (features >> vhost::kLogAll & 1) != 0, logged = owner_.dma_path().has_dirty_log();
  if (const auto& memory = owner_.dma_path().memory(); log && next_log_ && memory && !next_log_->covers(memory->end()))
    co_return wrong(fmt::format("LOG_ALL with a dirty log that does not cover guest memory up to {:#x}", memory->end()));
  if (log != logged) co_await barrier();
  features_ = features;
  owner_.device().set_features(features);
  if (log && !broken(Switch::log_all_ignored)) use_dirty_log();
  else owner_.dma_path().set_dirty_log(nullptr);
  co_return Status();
}

void VhostSession::use_dirty_log() {
  if (next_log_) owner_.dma_path().set_dirty_log(std::move(next_log_));
}

io::Task<Status> VhostSession::set_log(Incoming& m) {
  vhost::Log area{};
  if (!read_as(area, m.payload) || m.descriptors.size() != 1) co_return wrong("its size, or no descriptor");
  auto log = card::DirtyLog::map(m.descriptors[0].get(), area.offset, area.bytes);
  if (!log.ok()) co_return log.status();
  const auto& memory = owner_.dma_path().memory();
  if (memory && !(*log)->covers(memory->end())) co_return wrong(fmt::format("a dirty log of {} bytes for guest memory up to {:#x}", area.bytes, memory->end()));
  // The front end reads the old log once more when this is answered: all that belongs there must be in it.
  co_await barrier();
  next_log_ = std::move(*log);
  if ((features_ >> vhost::kLogAll & 1) != 0 && !broken(Switch::log_all_ignored)) use_dirty_log();
  reply(m, nullptr, 0);
  co_return Status();
}

io::Task<Status> VhostSession::set_memory(Incoming& m) {
  vhost::MemoryTable table{};
  if (m.payload.size() < 8) co_return wrong("its size");
  std::memcpy(&table, m.payload.data(), std::min(m.payload.size(), sizeof table));
  if (table.count > 8 || m.payload.size() < 8 + table.count * sizeof(vhost::Region) || m.descriptors.size() != table.count) co_return wrong(fmt::format("{} regions with {} descriptors", table.count, m.descriptors.size()));
  std::vector<card::GuestRegion> regions;
  for (std::uint32_t i = 0; i < table.count; ++i) {
    const vhost::Region& r = table.region[i];
    regions.push_back({r.address, r.bytes, r.user, r.offset, m.descriptors[i].get()});
  }
  auto memory = card::GuestMemory::map(regions);
  if (!memory.ok()) co_return memory.status();
  // A front end tells the table anew whenever its guest runs again. The one that is mapped stays then: its pages are there already.
  if (const auto& now = owner_.dma_path().memory(); now && !now->lost() && now->same_as(**memory)) co_return Status();
  if (!owner_.dma_path().log_covers((*memory)->end())) co_return wrong(fmt::format("guest memory up to {:#x}, which the dirty log does not cover", (*memory)->end()));
  VirtioBlk& device = owner_.device();
  device.hold(true);
  co_await device.drain_all();
  owner_.dma_path().set_memory(*memory);
  owner_.memory_changed();
  Status s;
  for (std::uint32_t q = 0; q < device.queues() && s.ok(); ++q) {
    if (!device.started(q)) continue;
    auto p = place(q);
    s = p.ok() ? device.move_ring(q, *p) : p.status();
  }
  if (!s.ok()) device.stop_for_good(s);
  device.hold(false);
  co_return s;
}

Status VhostSession::get_config(Incoming& m) {
  vhost::ConfigHeader h{};
  VirtioBlkConfig config = owner_.device().config();
  if (!read_as(h, m.payload) || h.size > vhost::kMostConfig || m.payload.size() != sizeof h + h.size || h.offset > vhost::kMostConfig) return wrong("its size");
  std::vector<std::byte> answer(m.payload.size());
  std::memcpy(answer.data(), &h, sizeof h);
  if (h.offset < sizeof config) std::memcpy(answer.data() + sizeof h, reinterpret_cast<const std::byte*>(&config) + h.offset, std::min<std::size_t>(h.size, sizeof config - h.offset));
  reply(m, answer.data(), answer.size());
  return Status();
}

Status VhostSession::get_inflight(Incoming& m) {
  vhost::InflightArea a{};
  if (!read_as(a, m.payload) || a.queues == 0 || a.queues > owner_.device().queues() || a.entries == 0 || a.entries > Vring::kMostEntries)
    return wrong(fmt::format("an area for {} queues of {}", a.queues, a.entries));
  if (owner_.device().any_started()) return wrong("a queue runs");
  auto area = Inflight::create(a.queues, a.entries);
  if (!area.ok()) return area.status();
  owner_.device().set_inflight(*area);
  a.bytes = (*area)->bytes(), a.offset = 0;
  reply(m, &a, sizeof a, (*area)->fd());
  return Status();
}

Status VhostSession::set_inflight(Incoming& m) {
  vhost::InflightArea a{};
  if (!read_as(a, m.payload) || m.descriptors.size() != 1) return wrong("its size, or no descriptor");
  if (owner_.device().any_started()) return wrong("a queue runs");
  auto area = Inflight::map(m.descriptors[0].get(), a.offset, a.bytes, a.queues, a.entries);
  if (!area.ok()) return area.status();
  owner_.device().set_inflight(*area);
  return Status();
}

void VhostSession::config_changed() {
  if (ending_ || !backend_requests_ || (protocol_features_ >> vhost::kConfig & 1) == 0) return;
  vhost::Header h{vhost::kBackendConfigChanged, vhost::kVersion, 0};
  [[maybe_unused]] ssize_t n = ::send(backend_requests_.get(), &h, sizeof h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// The front end is gone, with or without a word. Guest memory is written to the end of what is in flight, and then no more.
io::Task<void> VhostSession::end(std::shared_ptr<VhostSession> self) {
  if (self->ended_) co_return;
  VirtioBlk& device = self->owner_.device();
  bool any = device.any_started();
  for (std::uint32_t q = 0; q < device.queues(); ++q) {
    if (device.started(q)) co_await device.drain(q, io::Duration(0));  // what isn't done again here is so from its inflight area, by the next
    device.enable(q, false);
    device.set_interrupt(q, {});
  }
  if (any) co_await self->owner_.rings_stopped();
  co_await self->barrier();
  self->owner_.dma_path().set_dirty_log(nullptr);
  device.set_inflight(nullptr);
  device.mend();
  self->ended_ = true;
  if (auto f = std::exchange(self->on_end_, {})) f();
}

}  // namespace luge::attach
