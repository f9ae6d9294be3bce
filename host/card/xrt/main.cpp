// luge-card: the card process of a daemon (card.hpp). Opens a card through XRT, shares memory with the daemon, does its jobs.
//
// Why a process: XRT and its emulation end their process in more than one way when a device or a simulator goes wrong (exit(), a read
// loop that never ends, a signal to the whole process group), and a call can hang for ever. Here that costs the card; the daemon sees
// the socket close or a deadline pass, kills this process with all it has started, and codes with ISA-L meanwhile.
//
// Started by the daemon with its end of the socket as descriptor 3 and the card's lock as 4, in a session of its own. Exit code: 0 the daemon closed the socket,
// 1 the card was lost (said in the last message), 2 wrong usage.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "card/inquiry.hpp"
#include "card/xrt/device.hpp"

namespace {

using namespace luge;
using namespace luge::card;

bool parse(int argc, char** argv, DeviceOptions& a, std::string& ask) {
  const char *xclbin = std::getenv("LUGE_CARD_XCLBIN"), *memory = std::getenv("LUGE_CARD_MEMORY");
  std::string how = memory ? memory : "copied";
  a.xclbin = xclbin ? xclbin : "";
  for (int i = 1; i < argc; i += 2) {
    std::string name = argv[i];
    if (i + 1 == argc) return false;
    std::string value = argv[i + 1];
    if (name == "--device") a.device = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    else if (name == "--xclbin") a.xclbin = value;
    else if (name == "--pool-bytes") a.pool_bytes = std::strtoull(value.c_str(), nullptr, 10);
    else if (name == "--memory") how = value;
    else if (name == "--ask") ask = value;
    else return false;
  }
  a.mapped = how == "mapped";
  return (how == "mapped" || how == "copied") && !a.xclbin.empty() && a.pool_bytes % kPage == 0;
}

template <class M>
void say(const M& m, int descriptor = -1) {
  iovec v{const_cast<M*>(&m), sizeof m};
  msghdr h{};
  h.msg_iov = &v, h.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (descriptor >= 0) {
    h.msg_control = control, h.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
  }
  while (::sendmsg(kCardSocket, &h, MSG_NOSIGNAL) < 0 && errno == EINTR) {}
}

void say_done(Say what, std::uint32_t id, Code code, Fault fault, const std::string& text) {
  DoneMessage m;
  m.header = {what, id};
  m.code = static_cast<std::uint16_t>(code), m.fault = static_cast<std::uint8_t>(fault);
  std::strncpy(m.text, text.c_str(), sizeof m.text - 1);
  say(m);
}

HelloMessage hello_of(Device& d) {
  HelloMessage m;
  m.sources = d.sources(), m.rows = d.rows(), m.slots = d.slots(), m.pool_bytes = d.pool_bytes();
  std::strncpy(m.text, d.describe().c_str(), sizeof m.text - 1);
  return m;
}

void do_job(Device& d, const JobMessage& m) {
  try {
    d.submit(m);
  } catch (const Failure& f) {
    if (f.fault != Fault::refused) throw;
    say_done(Say::done, m.header.id, f.code, f.fault, f.what());
  }
}

FirmwareReport report_of(Device& d, const FirmwareMessage& m) {
  using namespace luge_card;
  FirmwareReport r;
  r.header.id = m.header.id;
  Firmware& f = d.firmware();
  r.there = f.there();
  constexpr std::chrono::seconds kLimit{10};
  if (r.there != 0 && m.op != 0) {
    auto a = m.op == Command::self_test ? d.self_test(kLimit) : f.command(m.op, m.argument, kLimit);
    r.answered = a.has_value();
    if (a) r.status = a->status, std::copy(a->words.begin(), a->words.end(), r.answer);
  }
  if (r.there != 0) {
    auto fill = [&](auto& to, std::uint32_t offset) {
      auto w = f.words(offset, std::size(to));
      std::copy(w.begin(), w.end(), to);
    };
    fill(r.words, SHARED_MAGIC), fill(r.telemetry, SHARED_TELEMETRY), fill(r.last_fault, SHARED_LAST_FAULT), fill(r.log, SHARED_LOG);
  }
  return r;
}

// False: the daemon has closed its end.
bool hear(Device& d) {
  JobMessage m;
  ssize_t n = ::recv(kCardSocket, &m, sizeof m, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n < static_cast<ssize_t>(sizeof m.header)) return false;
  if (m.header.say == Say::job && n == sizeof m) {
    do_job(d, m);
  } else if (m.header.say == Say::firmware && n == sizeof(FirmwareMessage)) {
    FirmwareMessage f;
    std::memcpy(static_cast<void*>(&f), &m, sizeof f);
    say(report_of(d, f));
  } else if (m.header.say == Say::counters) {
    CountersMessage c = d.counters();
    c.header.id = m.header.id;
    say(c);
  } else {
    throw Failure(Fault::refused, Code::internal, "the daemon said something unknown");
  }
  return true;
}

void tell_ended(Device& d) {
  while (auto done = d.reap()) {
    Code code;
    std::string text;
    Fault fault = Device::fault_of(done->status, code, text);
    say_done(Say::done, done->id, code, fault, text);
    if (fault == Fault::hang) throw Failure(fault, code, text);
  }
}

// Counters go out by themselves, so that the daemon can show them without asking: once a second at work, and when work has ended.
class Reporter {
 public:
  bool due() const { return unsaid_ && std::chrono::steady_clock::now() >= at_; }
  bool waits() const { return unsaid_; }
  void worked(bool idle) {
    auto now = std::chrono::steady_clock::now();
    if (!unsaid_ || idle) at_ = std::min(unsaid_ ? at_ : now + std::chrono::seconds(1), now + (idle ? std::chrono::milliseconds(100) : std::chrono::milliseconds(1000)));
    unsaid_ = true;
  }
  void said() { unsaid_ = false; }

 private:
  bool unsaid_ = false;
  std::chrono::steady_clock::time_point at_;
};

void serve(Device& d, Inquiries& inquiries) {
  Reporter reporter;
  for (;;) {
    auto wait = d.outstanding() != 0 ? d.wait_hint() : reporter.waits() ? std::chrono::microseconds(100000) : std::chrono::microseconds(60000000);
    timespec t{wait.count() / 1000000, wait.count() % 1000000 * 1000};
    pollfd p[] = {{kCardSocket, static_cast<short>(d.room() ? POLLIN : 0), 0}, {inquiries.descriptor(), POLLIN, 0}};
    int ready = ::ppoll(p, 2, &t, nullptr);
    if (ready > 0 && p[0].revents & POLLIN) {
      if (!hear(d)) return;
    } else if (ready > 0 && p[0].revents & (POLLHUP | POLLERR)) {
      return;
    }
    if (ready > 0 && p[1].revents & POLLIN)
      if (int caller = inquiries.next(); caller >= 0) Inquiries::give(caller, {hello_of(d), report_of(d, {})});
    std::size_t before = d.outstanding();
    tell_ended(d);
    if (d.outstanding() != before) reporter.worked(d.outstanding() == 0);
    if (reporter.due()) say(d.counters()), reporter.said();
  }
}

}  // namespace

int main(int argc, char** argv) {
  DeviceOptions a;
  std::string ask;
  if (!parse(argc, argv, a, ask)) {
    std::fprintf(stderr, "luge-card is started by the daemon whose card it is\n"
                         "usage: luge-card --xclbin FILE [--device N] [--pool-bytes N] [--memory mapped|copied] [--ask SOCKET]   (socket: descriptor 3)\n");
    return 2;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(2, 1);  // XRT talks on standard output
  for (int fd : {kCardSocket, kCardLock}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);  // a simulator must not keep them open
  try {
    Inquiries inquiries(ask);
    Device device(a);
    say(hello_of(device), device.pool_descriptor());
    serve(device, inquiries);
    return 0;
  } catch (const Failure& f) {
    say_done(Say::lost, 0, f.code, f.fault, f.what());
  } catch (const std::exception& e) {
    say_done(Say::lost, 0, Code::unavailable, Fault::died, "the XRT runtime failed: " + std::string(e.what()));
  }
  std::fflush(nullptr);
  ::_exit(1);  // the runtime's own end might wait for what is gone
}
