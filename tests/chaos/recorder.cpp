// luge-recorder: a client of an NBD export that records what it asks and is answered, on the clock of this machine, and then
// asks the simulator's oracle (sim/cluster/history.hpp): is it linearizable, block by block? It rides over lost connections
// and front ends that shut down; what was open on one has an unknown outcome. A front end that is another process than before has fenced the one
// before it off, once it has answered something (protocol 2.3).
//
// Exit code: 0 all held; 1 no order explains what was read; 2 usage; 3 the client saw an error; 4 requests stayed
// unanswered for longer than --patience. One JSON object on standard output; the story of a violation on standard error.
#include <libnbd.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/config.hpp"
#include "sim/cluster/history.hpp"

namespace luge::chaos {
namespace {

using sim::History;
using Time = History::Time;
using namespace std::chrono_literals;

volatile std::sig_atomic_t told_to_end = 0;

Time now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

struct Pending {
  History::Op op = 0;
  History::Kind kind = History::Kind::read;
  std::int64_t cookie = 0;
  std::vector<std::byte> memory;  // libnbd's until the answer
  Time asked{0};
};

struct Connection {
  nbd_handle* handle = nullptr;
  std::uint32_t client = 0;
  std::list<Pending> open;
};

struct Options {
  std::string uri;
  Time seconds{}, patience{};
  std::uint64_t blocks = 0, first_block = 0, pause_us = 0;
  std::uint32_t connections = 0, depth = 0, longest = 0;
};

class Recorder {
 public:
  Recorder(Options o, std::uint64_t seed) : o_(std::move(o)), random_(seed), connections_(o_.connections) {}
  int run();

 private:
  bool connect(Connection& c);
  void drop(Connection& c);
  void submit(Connection& c, Pending p, std::uint64_t offset, std::uint64_t length, bool trim);
  void write_or_zero(Connection& c, std::uint64_t offset, std::uint64_t length, double dice);
  void read(Connection& c, std::uint64_t offset, std::uint64_t length);
  void ask_something(Connection& c);
  void collect(Connection& c);
  void note_answer(const Connection& c, const Pending& p);
  bool turn(bool ask);
  bool settle(const char* what);
  std::size_t open() const;
  int report(int code, const std::string& verdict);

  Options o_;
  std::mt19937_64 random_;
  std::vector<Connection> connections_;
  History history_;
  Time began_{now()}, last_answer_{now()}, longest_silence_{0}, longest_{0}, next_ask_{0};
  std::uint64_t reconnects_ = 0, unknown_ = 0, errors_ = 0, asked_ = 0;
  std::uint32_t client_ = 1;
  pid_t front_end_ = 0;
  bool fence_due_ = false;
  std::string first_error_;
};

std::size_t Recorder::open() const {
  std::size_t n = 0;
  for (const Connection& c : connections_) n += c.open.size();
  return n;
}

bool Recorder::connect(Connection& c) {
  nbd_handle* h = ::nbd_create();
  ::nbd_set_uri_allow_local_file(h, true);
  if (::nbd_connect_uri(h, o_.uri.c_str()) != 0) {
    ::nbd_close(h);
    return false;
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(::nbd_aio_get_fd(h), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid != 0) {
    if (front_end_ != 0 && peer.pid != front_end_) {
      ++client_;
      fence_due_ = true;
    }
    front_end_ = peer.pid;
  }
  c.handle = h;
  c.client = client_;
  return true;
}

// What is open on a connection that ends may have happened, may still happen, or may not.
void Recorder::drop(Connection& c) {
  ++reconnects_;
  unknown_ += c.open.size();
  c.open.clear();
  ::nbd_close(c.handle);
  c.handle = nullptr;
}

void Recorder::submit(Connection& c, Pending p, std::uint64_t offset, std::uint64_t length, bool trim) {
  c.open.push_back(std::move(p));
  Pending& q = c.open.back();
  std::uint64_t at = o_.first_block * kBlockBytes + offset;
  switch (q.kind) {
    case History::Kind::read: q.cookie = ::nbd_aio_pread(c.handle, q.memory.data(), length, at, NBD_NULL_COMPLETION, 0); break;
    case History::Kind::write: q.cookie = ::nbd_aio_pwrite(c.handle, q.memory.data(), length, at, NBD_NULL_COMPLETION, 0); break;
    case History::Kind::zero:
      q.cookie = trim ? ::nbd_aio_trim(c.handle, length, at, NBD_NULL_COMPLETION, 0) : ::nbd_aio_zero(c.handle, length, at, NBD_NULL_COMPLETION, 0);
      break;
  }
  ++asked_;
  if (q.cookie >= 0) return;
  // Not taken: the connection is going. Nothing was sent, so nothing can happen.
  history_.failed(q.op);
  c.open.pop_back();
}

void Recorder::write_or_zero(Connection& c, std::uint64_t offset, std::uint64_t length, double dice) {
  Pending p;
  p.asked = now();
  bool zero = dice < 0.1;
  p.kind = zero ? History::Kind::zero : History::Kind::write;
  p.op = zero ? history_.invoke_zero(c.client, p.asked, offset, length) : history_.invoke_write(c.client, p.asked, offset, length);
  if (!zero) {
    p.memory.resize(length);
    history_.fill(p.op, p.memory);
  }
  submit(c, std::move(p), offset, length, dice < 0.05);
}

void Recorder::read(Connection& c, std::uint64_t offset, std::uint64_t length) {
  Pending p;
  p.asked = now();
  p.op = history_.invoke_read(c.client, p.asked, offset, length);
  p.memory.resize(length);
  submit(c, std::move(p), offset, length, false);
}

void Recorder::ask_something(Connection& c) {
  auto below = [&](std::uint64_t n) { return random_() % n; };
  auto dice = [&] { return static_cast<double>(random_() >> 11) * 0x1p-53; };
  std::uint64_t first = below(o_.blocks), blocks = 1 + below(std::min<std::uint64_t>(o_.longest, o_.blocks - first));
  std::uint64_t offset = first * kBlockBytes, length = blocks * kBlockBytes;
  if (dice() < 0.2) {  // part of blocks
    std::uint64_t sectors = length / History::kSector, from = below(sectors);
    offset += from * History::kSector;
    length = (1 + below(sectors - from)) * History::kSector;
  }
  if (dice() < 0.4) read(c, offset, length);
  else write_or_zero(c, offset, length, dice());
}

void Recorder::note_answer(const Connection& c, const Pending& p) {
  Time t = now();
  if (fence_due_ && c.client == client_) {
    fence_due_ = false;
    for (std::uint32_t old = 1; old < client_; ++old) history_.fence(old, t);
  }
  if (p.kind == History::Kind::read) history_.complete_read(p.op, t, p.memory);
  else history_.complete(p.op, t);
  longest_ = std::max(longest_, t - p.asked);
  longest_silence_ = std::max(longest_silence_, t - std::max(last_answer_, p.asked));
  last_answer_ = t;
}

void Recorder::collect(Connection& c) {
  bool alive = ::nbd_aio_is_ready(c.handle) == 1;
  bool shut_down = false;  // the front end goes, or has lost the volume to another: no error, but nothing known of the request either
  for (auto p = c.open.begin(); p != c.open.end();) {
    int done = ::nbd_aio_command_completed(c.handle, static_cast<std::uint64_t>(p->cookie));
    if (done == 1) note_answer(c, *p);
    if (done < 0 && alive && ::nbd_get_errno() == ESHUTDOWN) {
      shut_down = true;
      break;
    }
    if (done < 0 && alive) {
      ++errors_;
      if (first_error_.empty()) first_error_ = history_.describe(p->op) + ": " + ::nbd_get_error();
    }
    bool settled = done == 1 || (done < 0 && alive);
    p = settled ? c.open.erase(p) : std::next(p);
  }
  if (!alive || shut_down) drop(c);
}

// One look at all sockets. `ask`: also new requests. False: too long without an answer.
bool Recorder::turn(bool ask) {
  std::vector<pollfd> fds;
  std::vector<Connection*> who;
  for (Connection& c : connections_) {
    if (c.handle == nullptr && !connect(c)) continue;
    while (ask && c.handle != nullptr && c.open.size() < o_.depth && now() >= next_ask_) {
      ask_something(c);
      next_ask_ = now() + std::chrono::microseconds(o_.pause_us);
      if (o_.pause_us != 0) break;
    }
    unsigned way = ::nbd_aio_get_direction(c.handle);
    fds.push_back({::nbd_aio_get_fd(c.handle), static_cast<short>(((way & LIBNBD_AIO_DIRECTION_READ) ? POLLIN : 0) | ((way & LIBNBD_AIO_DIRECTION_WRITE) ? POLLOUT : 0)), 0});
    who.push_back(&c);
  }
  if (fds.empty()) std::this_thread::sleep_for(20ms);
  else ::poll(fds.data(), fds.size(), 1);
  for (std::size_t i = 0; i < fds.size(); ++i) {
    unsigned way = ::nbd_aio_get_direction(who[i]->handle);
    if ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && (way & LIBNBD_AIO_DIRECTION_READ) != 0) ::nbd_aio_notify_read(who[i]->handle);
    else if ((fds[i].revents & POLLOUT) != 0 && (way & LIBNBD_AIO_DIRECTION_WRITE) != 0) ::nbd_aio_notify_write(who[i]->handle);
    collect(*who[i]);
  }
  Time oldest = now();
  for (const Connection& c : connections_)
    for (const Pending& p : c.open) oldest = std::min(oldest, p.asked);
  return now() - std::max(oldest, last_answer_) < o_.patience && (!fds.empty() || now() - last_answer_ < o_.patience);
}

bool Recorder::settle(const char* what) {
  while (open() != 0)
    if (!turn(false)) {
      first_error_ = std::string(what) + ": " + std::to_string(open()) + " requests are not answered";
      return false;
    }
  return true;
}

int Recorder::report(int code, const std::string& verdict) {
  auto ms = [](Time t) { return static_cast<double>(t.count()) * 1e-6; };
  std::string error;
  for (char ch : first_error_) error += ch == '"' || ch == '\\' || static_cast<unsigned char>(ch) < 0x20 ? ' ' : ch;
  std::printf(R"({"verdict":"%s","operations":%zu,"answered":%zu,"unknown":%llu,"errors":%llu,"reconnects":%llu,"front_ends":%u,)"
              R"("longest_ms":%.1f,"longest_silence_ms":%.1f,"seconds":%.1f,"error":"%s"})"
              "\n",
              verdict.c_str(), history_.size(), history_.completed(), static_cast<unsigned long long>(unknown_), static_cast<unsigned long long>(errors_),
              static_cast<unsigned long long>(reconnects_), client_, ms(longest_), ms(longest_silence_), ms(now() - began_) / 1e3, error.c_str());
  return code;
}

int Recorder::run() {
  // Whatever is there, the history begins with zeros.
  constexpr std::uint64_t kPiece = 64;
  for (std::uint64_t at = 0; at < o_.blocks;) {
    if (!turn(false)) return report(4, "no answer at the start");
    Connection& c = connections_.front();
    if (c.handle == nullptr) continue;
    std::uint64_t n = std::min(kPiece, o_.blocks - at);
    std::uint64_t answered = history_.completed();
    write_or_zero(c, at * kBlockBytes, n * kBlockBytes, 0);
    if (!settle("zeroing")) return report(4, "no answer at the start");
    if (history_.completed() != answered) at += n;  // else the connection died: once more
  }
  Time end = now() + o_.seconds;
  while (now() < end && told_to_end == 0)
    if (!turn(true)) return report(4, "no answer");
  if (!settle("at the end")) return report(4, "no answer");
  for (std::uint64_t at = 0; at < o_.blocks;) {
    if (!turn(false)) return report(4, "no answer while reading back");
    Connection& c = connections_.front();
    if (c.handle == nullptr) continue;
    std::uint64_t n = std::min(kPiece, o_.blocks - at), answered = history_.completed();
    read(c, at * kBlockBytes, n * kBlockBytes);
    if (!settle("reading back")) return report(4, "no answer while reading back");
    if (history_.completed() != answered) at += n;
  }
  if (auto bad = history_.check()) {
    std::fprintf(stderr, "%s\n", bad->c_str());
    return report(1, "not linearizable");
  }
  if (errors_ != 0) return report(3, "the client saw an error");
  return report(0, "ok");
}

}  // namespace
}  // namespace luge::chaos

int main(int argc, char** argv) {
  using namespace luge;
  using T = Option::Type;
  const std::vector<Option> table = {
      {"uri", T::text, "", "NBD URI of the export", true},
      {"for", T::duration, "10s", "how long new requests are made; SIGTERM ends it sooner"},
      {"patience", T::duration, "60s", "longest time without any answer"},
      {"blocks", T::number, "64", "blocks that all requests collide on"},
      {"first-block", T::number, "0", "where they begin"},
      {"longest", T::number, "8", "blocks a request"},
      {"connections", T::number, "2", ""},
      {"depth", T::number, "8", "open requests a connection"},
      {"pause-us", T::number, "0", "between requests, so that a long history stays checkable"},
      {"seed", T::number, "0", "0: a random one"},
  };
  CommandLine line = parse_command_line(argc, argv, "luge-recorder", "Records a history over NBD and checks it.", table);
  if (line.exit_code) {
    std::fputs(line.output.c_str(), *line.exit_code == 0 ? stdout : stderr);
    return *line.exit_code;
  }
  const Settings& s = line.settings;
  chaos::Options o{s.text("uri"), s.duration("for"), s.duration("patience"), s.number("blocks"), s.number("first-block"), s.number("pause-us"),
                   static_cast<std::uint32_t>(s.number("connections")), static_cast<std::uint32_t>(s.number("depth")), static_cast<std::uint32_t>(s.number("longest"))};
  if (o.blocks == 0 || o.connections == 0 || o.depth == 0 || o.longest == 0) {
    std::fputs("luge-recorder: --blocks, --connections, --depth and --longest are at least 1\n", stderr);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGTERM, [](int) { chaos::told_to_end = 1; });
  std::uint64_t seed = s.number("seed");
  chaos::Recorder recorder(std::move(o), seed != 0 ? seed : std::random_device{}());
  return recorder.run();
}
