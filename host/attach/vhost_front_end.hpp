// A front end of vhost-user as QEMU is one, small and blocking: for tests and the bench. Its guest is testing::Driver.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "io/descriptor.hpp"
#include "attach/vhost_protocol.hpp"
#include "attach/vhost_testing.hpp"

namespace luge::attach::testing {

class FrontEnd {
 public:
  explicit FrontEnd(int socket) : socket_(socket) {}
  static int connect(const std::string& path) {
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, path.data(), std::min(path.size(), sizeof a.sun_path - 1));
    if (::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) return ::close(fd), -1;
    return fd;
  }
  int socket() const { return socket_.get(); }

  bool send(vhost::Message m, const void* payload, std::size_t bytes, std::span<const int> descriptors = {}, std::uint32_t flags = vhost::kVersion) {
    vhost::Header h{static_cast<std::uint32_t>(m), flags, static_cast<std::uint32_t>(bytes)};
    iovec v[2] = {{&h, sizeof h}, {const_cast<void*>(payload), bytes}};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)] = {};
    msghdr out{};
    out.msg_iov = v, out.msg_iovlen = bytes != 0 ? 2 : 1;
    if (!descriptors.empty()) {
      out.msg_control = control, out.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
      cmsghdr* c = CMSG_FIRSTHDR(&out);
      c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
      std::memcpy(CMSG_DATA(c), descriptors.data(), sizeof(int) * descriptors.size());
    }
    return ::sendmsg(socket_.get(), &out, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof h + bytes);
  }
  bool send_u64(vhost::Message m, std::uint64_t v, int descriptor = -1) {
    return send(m, &v, sizeof v, descriptor >= 0 ? std::span<const int>(&descriptor, 1) : std::span<const int>());
  }
  /// The answer's payload; empty: none came. A descriptor that came with it is kept.
  std::vector<std::byte> receive() {
    vhost::Header h;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    iovec v{&h, sizeof h};
    msghdr in{};
    in.msg_iov = &v, in.msg_iovlen = 1, in.msg_control = control, in.msg_controllen = sizeof control;
    pollfd p{socket_.get(), POLLIN, 0};
    if (::poll(&p, 1, 20000) != 1 || ::recvmsg(socket_.get(), &in, MSG_WAITALL) != sizeof h) return {};
    for (cmsghdr* c = CMSG_FIRSTHDR(&in); c != nullptr; c = CMSG_NXTHDR(&in, c)) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
      received = io::Descriptor(fd);
    }
    std::vector<std::byte> payload(h.size);
    if (h.size != 0 && ::recv(socket_.get(), payload.data(), h.size, MSG_WAITALL) != static_cast<ssize_t>(h.size)) return {};
    return payload;
  }
  std::uint64_t ask(vhost::Message m) {
    send(m, nullptr, 0);
    auto p = receive();
    std::uint64_t v = 0;
    std::memcpy(&v, p.data(), std::min(p.size(), sizeof v));
    return v;
  }

  /// All that QEMU says until queue 0 runs. `features` of virtio beside those of the transport.
  bool start(Driver& d, std::uint64_t features, std::uint16_t base = 0) {
    using vhost::Message;
    if (ask(Message::get_features) == 0) return false;
    send_u64(Message::set_protocol_features, ask(Message::get_protocol_features));
    say_start(d, features, base);
    return ask(Message::get_queue_num) != 0;  // all before has been taken
  }
  /// The part of it that has no answers.
  void say_start(Driver& d, std::uint64_t features, std::uint16_t base) {
    using vhost::Message;
    send(Message::set_owner, nullptr, 0);
    send_u64(Message::set_features, features | 1ull << vhost::kProtocolFeatures);
    vhost::MemoryTable table{1, 0, {{0, Driver::kMemory, Driver::kUser, 0}}};
    send(Message::set_mem_table, &table, 8 + sizeof(vhost::Region), std::span<const int>(&d.fd, 1));
    vhost::RingState entries{0, d.entries}, available{0, base}, on{0, 1};
    vhost::RingAddress address{0, 0, Driver::kUser + d.place.descriptors, Driver::kUser + d.place.used, Driver::kUser + d.place.available, d.place.used};
    kick = io::Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), call = io::Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    send(Message::set_vring_num, &entries, sizeof entries);
    send(Message::set_vring_base, &available, sizeof available);
    send(Message::set_vring_addr, &address, sizeof address);
    send_u64(Message::set_vring_call, 0, call.get());
    send_u64(Message::set_vring_kick, 0, kick.get());
    send(Message::set_vring_enable, &on, sizeof on);
  }
  void notify() {
    std::uint64_t one = 1;
    [[maybe_unused]] ssize_t n = ::write(kick.get(), &one, sizeof one);
  }
  /// Waits for an interrupt.
  bool wait(int milliseconds) {
    pollfd p{call.get(), POLLIN, 0};
    if (::poll(&p, 1, milliseconds) != 1) return false;
    std::uint64_t n;
    return ::read(call.get(), &n, sizeof n) == sizeof n;
  }

  io::Descriptor kick, call, received;

 private:
  io::Descriptor socket_;
};

}  // namespace luge::attach::testing
