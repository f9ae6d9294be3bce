#include "vmstate/vhost_recorder.hpp"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace luge::vmstate {
namespace {

using Clock = std::chrono::steady_clock;

void close_all(std::vector<int>& descriptors) {
  for (int fd : descriptors) ::close(fd);
  descriptors.clear();
}

// What tells one table from another: places, and which files.
std::vector<std::array<std::uint64_t, 5>> identities(const std::vector<MemoryRange>& table) {
  std::vector<std::array<std::uint64_t, 5>> out;
  for (const MemoryRange& r : table) {
    struct stat st {};
    (void)::fstat(r.fd, &st);
    out.push_back({r.address, r.bytes, r.offset, st.st_dev, st.st_ino});
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<VhostRecorder>> VhostRecorder::open(const std::string& path, std::chrono::milliseconds answer_within) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Status(Code::invalid, path + ": too long for the name of a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    Status why(Code::unavailable, path + ": " + std::strerror(errno) + "; luge-attach makes this socket beside the disk's own");
    if (fd >= 0) ::close(fd);
    return why;
  }
  std::unique_ptr<VhostRecorder> r(new VhostRecorder(path, fd, answer_within));
  auto status = r->status();
  if (!status.ok()) return status.status();
  r->function_ = status->function, r->volume_bytes_ = status->volume_bytes;
  if (r->function_ > 63) return Status(Code::wrong_version, path + ": function " + std::to_string(r->function_));
  return r;
}

VhostRecorder::~VhostRecorder() {
  forget_memory();
  unmap();
  if (doorbell_ >= 0) ::close(doorbell_);
  ::close(socket_);
}

void VhostRecorder::forget_memory() { close_all(memory_); }

// An answer that came too late for its question is still on its way when the next is asked.
Result<card::RecorderReply> VhostRecorder::receive(std::uint32_t id, std::vector<int>& descriptors) {
  const auto deadline = Clock::now() + answer_within_;
  while (true) {
    auto reply = receive_one(deadline, descriptors);
    if (!reply.ok()) return reply;
    if (static_cast<std::int32_t>(reply->id - id) < 0) {
      close_all(descriptors);
      continue;
    }
    if (reply->id != id) return Status(Code::wrong_version, path_ + ": an answer that nobody asked for");
    if (reply->code != 0) return Status(static_cast<Code>(reply->code), path_ + ": " + reply->text);
    return reply;
  }
}

Result<card::RecorderReply> VhostRecorder::receive_one(Clock::time_point deadline, std::vector<int>& descriptors) {
  pollfd p{socket_, POLLIN, 0};
  auto left = [&] { return static_cast<int>(std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count())); };
  int ready;
  while ((ready = ::poll(&p, 1, left())) < 0 && errno == EINTR) {}
  if (ready <= 0) return Status(Code::timed_out, path_ + ": no answer within " + std::to_string(answer_within_.count()) + " ms");
  card::RecorderReply reply;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * (card::kRecorderMostRegions + 3))];
  iovec v{&reply, sizeof reply};
  msghdr h{};
  h.msg_iov = &v, h.msg_iovlen = 1, h.msg_control = control, h.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(socket_, &h, MSG_CMSG_CLOEXEC);
  if (n <= 0) return Status(Code::unavailable, path_ + ": the disk has closed the connection");
  for (cmsghdr* c = CMSG_FIRSTHDR(&h); c != nullptr; c = CMSG_NXTHDR(&h, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int), at = descriptors.size();
    descriptors.resize(at + count);
    std::memcpy(descriptors.data() + at, CMSG_DATA(c), count * sizeof(int));
  }
  if (n != sizeof reply || reply.magic != card::kRecorderMagic || reply.version != card::kRecorderVersion || (h.msg_flags & MSG_CTRUNC) != 0 ||
      reply.regions > card::kRecorderMostRegions)
    return Status(Code::wrong_version, path_ + ": an answer that isn't known: is luge-attach of another version?");
  reply.text[sizeof reply.text - 1] = 0;
  return reply;
}

Result<card::RecorderReply> VhostRecorder::ask(card::RecorderRequest request, std::vector<int>& descriptors) {
  std::lock_guard lock(asking_);
  request.id = next_id_++;
  ssize_t n;
  while ((n = ::send(socket_, &request, sizeof request, MSG_NOSIGNAL)) < 0 && errno == EINTR) {}
  if (n != sizeof request) return Status(Code::unavailable, path_ + ": " + std::strerror(errno));
  auto reply = receive(request.id, descriptors);
  if (!reply.ok()) close_all(descriptors);
  return reply;
}

Result<card::RecorderReply> VhostRecorder::ask(card::RecorderVerb verb, std::uint64_t value) {
  card::RecorderRequest request;
  request.verb = verb, request.value = value;
  std::vector<int> descriptors;
  auto reply = ask(request, descriptors);
  close_all(descriptors);
  return reply;
}

Result<card::RecorderReply> VhostRecorder::status() { return ask(card::RecorderVerb::status); }

Result<std::vector<MemoryRange>> VhostRecorder::memory() {
  card::RecorderRequest request;
  request.verb = card::RecorderVerb::memory;
  forget_memory();
  auto reply = ask(request, memory_);
  if (!reply.ok()) return reply.status();
  if (reply->regions == 0 || reply->regions != memory_.size()) return Status(Code::unavailable, path_ + ": no machine is connected to this disk");
  std::vector<MemoryRange> out;
  for (std::size_t i = 0; i < memory_.size(); ++i) out.push_back({reply->region[i].address, reply->region[i].bytes, reply->region[i].offset, memory_[i]});
  return out;
}

Result<Recorder::Ring> VhostRecorder::start(bool at_scheduling, unsigned slots_log2) {
  card::RecorderRequest request;
  request.verb = card::RecorderVerb::start, request.mode = at_scheduling ? 1 : 0, request.slots_log2 = slots_log2;
  std::vector<int> descriptors;
  auto reply = ask(request, descriptors);
  if (!reply.ok()) return reply.status();
  if (descriptors.size() < 3) return close_all(descriptors), Status(Code::wrong_version, path_ + ": no ring came with the answer");
  auto ring = card::DmaRing::open(descriptors[0]);
  if (doorbell_ >= 0) ::close(doorbell_);
  doorbell_ = descriptors[2];
  ::close(descriptors[1]);  // the watermark: the ring is looked at anyway
  for (std::size_t i = 3; i < descriptors.size(); ++i) ::close(descriptors[i]);
  if (!ring.ok()) return ring.status().with(path_);
  ring_ = std::move(*ring);
  auto table = memory();
  if (!table.ok()) return table.status();
  at_start_ = identities(*table);
  return Ring{ring_.slot(0), ring_.slots_log2()};
}

Status VhostRecorder::stop() { return ask(card::RecorderVerb::stop).status(); }

// A disk that is slowed would need long for what it has begun, and is answered for when that is done.
Status VhostRecorder::quiesce(bool stays) {
  if (throttled_)
    if (Status s = throttle(0); !s.ok()) return s;
  auto reply = ask(card::RecorderVerb::quiesce, stays ? 1 : 0);
  if (!reply.ok()) return reply.status();
  // The bitmap has no bits for what is written beyond the old end, and the checkpoint no blocks.
  if (bitmap_ != nullptr && reply->volume_bytes != volume_bytes_)
    return Status(Code::conflict, "the disk has " + std::to_string(reply->volume_bytes) + " bytes now, and had " + std::to_string(volume_bytes_) + ": protect it anew");
  return Status();
}

Status VhostRecorder::resume() { return ask(card::RecorderVerb::resume).status(); }
Status VhostRecorder::throttle(std::uint64_t bytes_per_second) {
  throttled_ = throttled_ || bytes_per_second != 0;
  Status s = ask(card::RecorderVerb::throttle, bytes_per_second).status();
  if (s.ok()) throttled_ = bytes_per_second != 0;
  return s;
}

void VhostRecorder::examined(std::uint32_t sequence) {
  ring_.header().examined.store(sequence, std::memory_order_seq_cst);
  if ((ring_.header().state.load(std::memory_order_seq_cst) & card::kRingHeld) == 0) return;
  const std::uint64_t one = 1;
  (void)!::write(doorbell_, &one, sizeof one);
}

// ---- the disk ----

void VhostRecorder::unmap() {
  if (bitmap_ != nullptr) ::munmap(bitmap_, bitmap_bytes_);
  if (window_ != nullptr) ::munmap(const_cast<std::byte*>(window_), card::kRecorderWindow);
  bitmap_ = nullptr, window_ = nullptr;
}

Status VhostRecorder::start_tracking() {
  card::RecorderRequest request;
  request.verb = card::RecorderVerb::track, request.value = 1;
  std::vector<int> descriptors;
  auto reply = ask(request, descriptors);
  if (!reply.ok()) return reply.status();
  struct stat st {};
  unmap();
  if (descriptors.size() == 2 && ::fstat(descriptors[0], &st) == 0 && static_cast<std::uint64_t>(st.st_size) * 8 >= pages() && st.st_size % 8 == 0) {
    bitmap_bytes_ = static_cast<std::uint64_t>(st.st_size);
    void* b = ::mmap(nullptr, bitmap_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[0], 0);
    void* w = ::mmap(nullptr, card::kRecorderWindow, PROT_READ, MAP_SHARED, descriptors[1], 0);
    bitmap_ = b == MAP_FAILED ? nullptr : static_cast<std::uint64_t*>(b);
    window_ = w == MAP_FAILED ? nullptr : static_cast<const std::byte*>(w);
  }
  close_all(descriptors);
  return bitmap_ && window_ ? Status() : Status(Code::wrong_version, path_ + ": no bitmap of written blocks came with the answer");
}

Status VhostRecorder::stop_tracking() {
  if (bitmap_ == nullptr) return Status();
  unmap();
  return ask(card::RecorderVerb::track, 0).status();
}

Status VhostRecorder::take(PageSet& to, std::uint64_t first_page) {
  for (std::uint64_t i = 0; i < bitmap_bytes_ / 8; ++i) {
    if (__atomic_load_n(&bitmap_[i], __ATOMIC_RELAXED) == 0) continue;
    for (std::uint64_t w = __atomic_exchange_n(&bitmap_[i], 0, __ATOMIC_SEQ_CST); w != 0; w &= w - 1) {
      const std::uint64_t page = i * 64 + static_cast<std::uint64_t>(__builtin_ctzll(w));
      if (page < pages()) to.add(first_page + page);
    }
  }
  return Status();
}

Status VhostRecorder::read(std::uint64_t first, std::uint64_t count, std::byte* into) {
  for (constexpr std::uint64_t kMost = card::kRecorderWindow / kPage; count != 0;) {
    const std::uint64_t n = std::min(count, kMost);
    card::RecorderRequest request;
    request.verb = card::RecorderVerb::read, request.value = first * kPage, request.mode = static_cast<std::uint32_t>(n * kPage);
    std::vector<int> descriptors;
    auto reply = ask(request, descriptors);
    close_all(descriptors);
    if (!reply.ok()) return reply.status();
    std::memcpy(into, window_, n * kPage);
    first += n, count -= n, into += n * kPage;
  }
  return Status();
}

// QEMU tells the table anew whenever the machine runs again; what counts is whether it is another one.
bool VhostRecorder::memory_changed() {
  if (!ring_ || (ring_.header().state.load(std::memory_order_acquire) & card::kRingMemoryChanged) == 0) return false;
  auto now = memory();
  return !now.ok() || identities(*now) != at_start_;
}

}  // namespace luge::vmstate
