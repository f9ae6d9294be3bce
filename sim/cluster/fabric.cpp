#include "sim/cluster/fabric.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "sim/cluster/simulation.hpp"

namespace luge::sim {

class SimStream;

// Copied once, when it is sent; what is split and what waits somewhere shares that.
struct Fabric::Segment {
  std::shared_ptr<const std::byte[]> memory;
  Bytes bytes;
  bool fin = false;
};

// What one side's kernel knows of a connection. The stream object may be gone before the kernel is done with it.
struct Fabric::End {
  std::uint32_t node = 0;
  SimStream* stream = nullptr;  // null: closed, or the process or machine is gone
  bool broken = false;          // reads end and writes fail
  // Receiving
  std::deque<Segment> received;
  std::size_t first_used = 0;  // bytes of received.front() already read
  bool fin_received = false;
  // Sending
  std::size_t outstanding = 0;  // sent and not yet read by the other side
  io::Duration last_arrival{0};
  io::Duration not_before{0};   // stranded: nothing sent arrives earlier
  bool fin_sent = false;
  std::deque<Segment> stalled;
  bool watching = false;  // a retransmission timer runs
  bool probing = false;   // and one that asks whether the other side has room again
  io::Duration unacknowledged_since{0};
  io::Duration back_off{0};
};

struct Fabric::Connection {
  std::uint64_t id = 0;
  io::Duration break_after{0};
  End end[2];
};

class SimStream final : public io::Stream {
 public:
  SimStream(io::World& world, Fabric& fabric, Fabric::Ref c, int side, std::string peer)
      : world_(world), fabric_(fabric), c_(std::move(c)), side_(side), peer_(std::move(peer)), changed_(world) {
    end().stream = this;
  }
  ~SimStream() override { close(); }

  io::Task<std::size_t> read_some(MutableBytes into) override { return read_some(into, {}); }

  io::Task<std::size_t> read_some(MutableBytes into, MutableBytes then) override {
    if (world_.stopped()) throw io::Stopped{};
    while (!closed_ && !end().broken && end().received.empty() && !end().fin_received) co_await changed_.wait();
    if (closed_ || end().broken || end().received.empty()) co_return 0;
    std::size_t n = take_received(into);
    if (n == into.size()) n += take_received(then);
    Fabric::End& other = c_->end[1 - side_];
    other.outstanding -= std::min(n, other.outstanding);
    if (other.stream) other.stream->notify();
    co_return n;
  }

  io::Task<bool> write_all(std::span<const Bytes> parts) override {
    if (world_.stopped()) throw io::Stopped{};
    while (!closed_ && !end().broken && end().outstanding >= fabric_.wire.window) {
      fabric_.probe(c_, side_);
      co_await changed_.wait();
    }
    if (closed_ || end().broken) co_return false;
    fabric_.send(c_, side_, parts, false);
    co_return true;
  }

  void close() override {
    if (closed_) return;
    closed_ = true;
    end().stream = nullptr;
    fabric_.close_end(c_, side_);
    changed_.notify_all();
  }
  std::string peer() const override { return peer_; }

  void notify() { changed_.notify_all(); }

 private:
  Fabric::End& end() { return c_->end[side_]; }
  std::size_t take_received(MutableBytes into) {
    std::size_t n = 0;
    while (n < into.size() && !end().received.empty()) {
      const Bytes front = end().received.front().bytes;
      std::size_t take = std::min(into.size() - n, front.size() - end().first_used);
      std::memcpy(into.data() + n, front.data() + end().first_used, take);
      n += take;
      end().first_used += take;
      if (end().first_used == front.size()) {
        end().received.pop_front();
        end().first_used = 0;
      }
    }
    return n;
  }
  io::World& world_;
  Fabric& fabric_;
  Fabric::Ref c_;
  int side_;
  std::string peer_;
  bool closed_ = false;
  io::Event changed_;
};

class SimListener final : public io::Listener {
 public:
  SimListener(io::World& world, Fabric& fabric, std::uint32_t node, std::string address)
      : world_(world), fabric_(fabric), node_(node), address_(std::move(address)), changed_(world) {
    fabric_.listeners_[address_] = this;
    fabric_.owner_of_[address_] = node_;
  }
  ~SimListener() override { close(); }

  io::Task<std::unique_ptr<io::Stream>> accept() override {
    if (world_.stopped()) throw io::Stopped{};
    while (!closed_ && backlog_.empty()) co_await changed_.wait();
    if (closed_) co_return nullptr;
    Fabric::Ref c = std::move(backlog_.front());
    backlog_.pop_front();
    co_return std::make_unique<SimStream>(world_, fabric_, c, 1, fabric_.sim_.name(c->end[0].node));
  }
  std::string address() const override { return address_; }
  void close() override {
    if (closed_) return;
    closed_ = true;
    auto it = fabric_.listeners_.find(address_);
    if (it != fabric_.listeners_.end() && it->second == this) fabric_.listeners_.erase(it);
    for (auto& c : backlog_) fabric_.close_end(c, 1);
    backlog_.clear();
    changed_.notify_all();
  }

  std::uint32_t node() const { return node_; }
  void push(Fabric::Ref c) {
    backlog_.push_back(std::move(c));
    changed_.notify_one();
  }

 private:
  io::World& world_;
  Fabric& fabric_;
  std::uint32_t node_;
  std::string address_;
  std::deque<Fabric::Ref> backlog_;
  bool closed_ = false;
  io::Event changed_;
};

io::Duration Fabric::latency(std::uint32_t from, std::uint32_t to) {
  auto d = io::Duration(random_.spread(wire.latency_min.count(), wire.latency_max.count()));
  if (random_.chance(wire.spike)) d += io::Duration(random_.below(wire.spike_max.count()));
  if (auto it = slow_.find({from, to}); it != slow_.end()) d += it->second / 2 + io::Duration(random_.below(it->second.count()));
  return d;
}

void Fabric::send(const Ref& c, int side, std::span<const Bytes> parts, bool fin) {
  std::size_t size = 0;
  for (Bytes p : parts) size += p.size();
  auto memory = std::make_shared_for_overwrite<std::byte[]>(size);
  std::byte* end = memory.get();
  for (Bytes p : parts) end = std::copy(p.begin(), p.end(), end);
  Bytes bytes(memory.get(), size);
  c->end[side].outstanding += size;
  // Now and then in two pieces, so that readers meet every kind of boundary.
  if (bytes.size() > 1 && random_.chance(0.1)) {
    std::size_t first = random_.between(1, bytes.size() - 1);
    post(c, side, {memory, bytes.first(first), false});
    bytes = bytes.subspan(first);
  }
  post(c, side, {std::move(memory), bytes, fin});
}

void Fabric::post(const Ref& c, int side, Segment segment) {
  End& from = c->end[side];
  auto wire_time = io::Duration(static_cast<std::int64_t>(static_cast<double>(segment.bytes.size()) / wire.bytes_per_ns));
  io::Duration at = sim_.now() + latency(from.node, c->end[1 - side].node) + wire_time;
  from.last_arrival = std::max(at, from.last_arrival + io::Duration(1));
  sim_.after(from.last_arrival - sim_.now(), [this, c, side, s = std::move(segment)] { arrive(c, side, s); });
}

void Fabric::arrive(const Ref& c, int side, Segment segment) {
  End& from = c->end[side];
  if (sim_.now() < from.not_before) {
    sim_.after(from.not_before - sim_.now(), [this, c, side, s = std::move(segment)] { arrive(c, side, s); });
    return;
  }
  if (!from.stalled.empty() || !deliver(c, side, segment)) {
    from.stalled.push_back(std::move(segment));
    watch(c, side);
  } else if (is_cut(c->end[1 - side].node, from.node)) {
    watch(c, side);  // arrived, but the acknowledgement does not
  }
}

// All that was sent has arrived and is not read: a side that has been switched off meanwhile is found out by this alone.
void Fabric::probe(const Ref& c, int side) {
  if (std::exchange(c->end[side].probing, true)) return;
  sim_.after(std::chrono::seconds(1), [this, c, side] {
    End& e = c->end[side];
    e.probing = false;
    if (e.broken || e.stream == nullptr || e.outstanding < wire.window) return;
    if (e.stalled.empty()) post(c, side, {});
    probe(c, side);
  });
}

// False: nothing at the other side took it.
bool Fabric::deliver(const Ref& c, int side, const Segment& segment) {
  End &from = c->end[side], &to = c->end[1 - side];
  if (is_cut(from.node, to.node) || dark_.count(to.node) != 0) return false;
  sim_.note(c->id * 2 + static_cast<std::uint64_t>(side), segment.bytes.size());
  if (to.broken || (to.stream == nullptr && to.fin_sent)) {
    reset_later(c, side);
    return true;
  }
  bytes_delivered_ += segment.bytes.size();
  if (!segment.bytes.empty()) to.received.push_back(segment);
  if (segment.fin) to.fin_received = true;
  if (to.stream) to.stream->notify();
  if (from.fin_sent && to.fin_sent && from.stalled.empty()) forget(c);
  return true;
}

// Retransmission: tries again with back-off, breaks the sending side when nothing has been acknowledged for too long.
void Fabric::watch(const Ref& c, int side) {
  End& from = c->end[side];
  if (from.watching || from.broken) return;
  from.watching = true;
  from.unacknowledged_since = sim_.now();
  from.back_off = std::chrono::milliseconds(200);
  sim_.after(from.back_off, [this, c, side] { retransmit(c, side); });
}

void Fabric::retransmit(const Ref& c, int side) {
  End &from = c->end[side], &to = c->end[1 - side];
  if (from.broken) {
    from.stalled.clear();
    from.watching = false;
    return;
  }
  while (!from.stalled.empty() && deliver(c, side, from.stalled.front())) from.stalled.pop_front();
  if (from.stalled.empty() && !is_cut(to.node, from.node)) {
    from.watching = false;
    return;
  }
  if (sim_.now() - from.unacknowledged_since >= c->break_after) {
    from.stalled.clear();
    from.watching = false;
    break_end(c, side);
    return;
  }
  from.back_off = std::min<io::Duration>(from.back_off * 2, std::chrono::seconds(2));
  sim_.after(from.back_off, [this, c, side] { retransmit(c, side); });
}

void Fabric::break_end(const Ref& c, int side) {
  End& e = c->end[side];
  if (e.broken) return;
  sim_.note(0x62726561, c->id);
  e.broken = true;
  e.received.clear();
  e.first_used = 0;
  e.stalled.clear();
  if (e.stream) e.stream->notify();
  if (c->end[0].broken && c->end[1].broken) forget(c);
}

// The other side answers `side` with a reset, if there is a way back; if not, the sender's own timer ends it.
void Fabric::reset_later(const Ref& c, int side) {
  std::uint32_t from = c->end[1 - side].node, to = c->end[side].node;
  if (is_cut(from, to)) {
    watch(c, side);
    return;
  }
  sim_.after(latency(from, to), [this, c, side] { break_end(c, side); });
}

void Fabric::close_end(const Ref& c, int side) {
  End& e = c->end[side];
  e.stream = nullptr;
  e.received.clear();
  e.first_used = 0;
  if (e.broken || e.fin_sent) return;
  e.fin_sent = true;
  send(c, side, {}, true);
}

void Fabric::node_gone(std::uint32_t node, bool silent) {
  if (silent) dark_.insert(node);
  for (auto it = connections_.begin(); it != connections_.end();) {
    Ref c = it->second;
    ++it;  // close_end() and break_end() may forget the connection
    for (int side = 0; side < 2; ++side) {
      if (c->end[side].node != node) continue;
      if (silent)
        break_end(c, side);  // the peer is not told: it finds out by its own timer or by a reset after the restart
      else
        close_end(c, side);
    }
  }
}

void Fabric::reset(std::uint32_t a, std::uint32_t b) {
  for (auto it = connections_.begin(); it != connections_.end();) {
    Ref c = it->second;
    ++it;
    std::uint32_t x = c->end[0].node, y = c->end[1].node;
    if (!((x == a && y == b) || (x == b && y == a))) continue;
    break_end(c, 0);
    break_end(c, 1);
  }
}

void Fabric::strand(std::uint32_t a, std::uint32_t b, io::Duration late) {
  for (auto it = connections_.begin(); it != connections_.end();) {
    Ref c = it->second;
    ++it;
    for (int side = 0; side < 2; ++side) {
      if (c->end[side].node != a || c->end[1 - side].node != b || c->end[side].broken) continue;
      c->end[side].not_before = sim_.now() + late;
      break_end(c, side);
    }
  }
}

void Fabric::forget(const Ref& c) { connections_.erase(c->id); }

io::Task<Result<std::unique_ptr<io::Stream>>> SimNetwork::connect(std::string address, io::Duration timeout) {
  Fabric& f = fabric_;
  io::Time deadline = world_.now() + timeout;
  io::Duration retry = std::chrono::milliseconds(200);
  while (true) {
    auto owner = f.owner_of_.find(address);
    std::uint32_t there = owner == f.owner_of_.end() ? node_ : owner->second;
    co_await world_.sleep(f.latency(node_, there) + f.latency(there, node_));
    owner = f.owner_of_.find(address);
    bool way = owner == f.owner_of_.end() ||
               (!f.is_cut(node_, owner->second) && !f.is_cut(owner->second, node_) && f.dark_.count(owner->second) == 0);
    if (way) {
      auto l = f.listeners_.find(address);
      if (l == f.listeners_.end()) co_return Status(Code::unavailable, address + ": Connection refused");
      auto c = std::make_shared<Fabric::Connection>();
      c->id = f.next_connection_++;
      c->break_after = io::Duration(f.random_.between(f.wire.break_min.count(), f.wire.break_max.count()));
      c->end[0].node = node_;
      c->end[1].node = l->second->node();
      f.connections_[c->id] = c;
      f.sim_.note(0x636f6e6e, c->id);
      l->second->push(c);
      co_return std::unique_ptr<io::Stream>(std::make_unique<SimStream>(world_, f, c, 0, address));
    }
    if (world_.now() >= deadline) co_return Status(Code::timed_out, address + ": no answer");
    co_await world_.sleep(std::min<io::Duration>(retry, deadline - world_.now()));
    retry *= 2;
  }
}

Result<std::unique_ptr<io::Listener>> SimNetwork::listen(const std::string& address, bool /*encrypted*/) {
  std::string name = address;
  if (name.ends_with(":0")) name = name.substr(0, name.size() - 1) + std::to_string(fabric_.next_port_++);
  if (fabric_.listeners_.count(name)) return Status(Code::exists, name + ": Address already in use");
  return std::unique_ptr<io::Listener>(std::make_unique<SimListener>(world_, fabric_, node_, name));
}

}  // namespace luge::sim
