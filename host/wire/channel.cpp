#include "wire/channel.hpp"

#include <algorithm>

#include "base/logging.hpp"

namespace luge::wire {
namespace {

constexpr std::size_t kReceiveBytes = 16 << 10;  // read ahead, and so copied, of a message; its payload goes where it is to lie
constexpr std::size_t kGatherBytes = 4 << 20;
constexpr std::size_t kGatherParts = 512;
constexpr io::Duration kShortestBackOff = std::chrono::milliseconds(10);
constexpr io::Duration kLongestBackOff = std::chrono::seconds(1);

}  // namespace

struct Channel::Pending {
  explicit Pending(io::World& world) : done(world) {}
  io::Event done;
  std::optional<Frame> answer;
  bool failed = false;
};

Channel::Channel(io::World& world, std::unique_ptr<io::Stream> stream, const Identity& self, bool initiator)
    : world_(world), stream_(std::move(stream)), self_(self), peer_(stream_->peer()),
      next_id_(initiator ? 1 : 2), writable_(world), rx_(Buffer::allocate(kReceiveBytes)) {}

Channel::~Channel() = default;

void Channel::start(Handler handler, std::function<void()> closed) {
  handler_ = std::move(handler);
  closed_ = std::move(closed);
  world_.spawn("channel reader", read_loop(shared_from_this()));
  world_.spawn("channel writer", write_loop(shared_from_this()));
}

void Channel::send(Frame frame) {
  if (!open_) return;
  queued_bytes_ += sizeof(FrameHeader) + frame.body.size() + frame.payload_bytes();
  queue_.push_back(std::move(frame));
  if (queue_.size() == 1) writable_.notify_all();
}

void Channel::reply(const Frame& request, Frame frame) {
  frame.id = request.id;
  send(std::move(frame));
}

io::Task<Result<Frame>> Channel::call(Frame request, io::Duration timeout) {
  auto self = shared_from_this();  // outlives `remove` below
  if (!open_) co_return Status(Code::unavailable, peer_ + ": connection has ended");
  Pending pending(world_);
  std::uint64_t id = next_id_;
  next_id_ += 2;
  request.id = id;
  pending_[id] = &pending;
  struct Remove {
    Channel& c;
    std::uint64_t id;
    ~Remove() { c.pending_.erase(id); }
  } remove{*this, id};
  io::Time deadline = world_.now() + timeout;
  send(std::move(request));
  while (!pending.answer && !pending.failed) {
    if (!co_await pending.done.wait_until(deadline) && !pending.answer && !pending.failed)
      co_return Status(Code::timed_out, peer_ + ": no answer");
  }
  if (pending.failed) co_return Status(Code::unavailable, peer_ + ": connection has ended");
  co_return std::move(*pending.answer);
}

void Channel::close() {
  open_ = false;
  stream_->close();
  writable_.notify_all();
}

void Channel::end() {
  open_ = false;
  stream_->close();
  writable_.notify_all();
  // In order of asking: the order of the map differs from run to run, and a simulation must repeat.
  std::vector<std::pair<std::uint64_t, Pending*>> waiting(pending_.begin(), pending_.end());
  std::sort(waiting.begin(), waiting.end());
  for (auto& [id, p] : waiting) {
    p->failed = true;
    p->done.notify_all();
  }
  queue_.clear();
  queued_bytes_ = 0;
  auto closed = std::exchange(closed_, {});
  handler_ = {};
  if (closed) closed();
}

io::Task<void> Channel::write_loop(std::shared_ptr<Channel> self) {
  std::vector<Frame> sending;
  std::vector<FrameHeader> headers;
  std::vector<Bytes> parts;
  while (true) {
    while (open_ && queue_.empty()) co_await writable_.wait();
    if (!open_) break;
    sending.swap(queue_);
    for (std::size_t first = 0; first < sending.size() && open_;) {
      headers.clear();
      headers.reserve(sending.size());
      parts.clear();
      std::size_t bytes = 0, i = first;
      for (; i < sending.size() && bytes < kGatherBytes && parts.size() < kGatherParts; ++i) {
        const Frame& f = sending[i];
        FrameHeader& h = headers.emplace_back();
        h.kind = static_cast<std::uint16_t>(f.kind);
        h.body_bytes = static_cast<std::uint32_t>(f.body.size());
        h.payload_bytes = static_cast<std::uint32_t>(f.payload_bytes());
        h.id = f.id;
        h.unit = self_.unit;
        h.source = self_.node;
        h.crc = frame_crc(h, f.body);
        parts.push_back({reinterpret_cast<const std::byte*>(&h), sizeof h});
        parts.push_back(f.body);
        for (const Buffer& b : f.payload) parts.push_back(b.bytes());
        bytes += sizeof h + f.body.size() + h.payload_bytes;
      }
      bool ok = co_await stream_->write_all(parts);
      queued_bytes_ -= std::min(bytes, queued_bytes_);
      if (!ok) close();
      first = i;
    }
    sending.clear();
  }
}

// At least `want` unconsumed bytes in rx_. REQUIRES: want <= kReceiveBytes.
io::Task<bool> Channel::fill(std::size_t want) {
  if (rx_end_ - rx_begin_ >= want) co_return true;
  if (rx_begin_ != 0) {  // less than a header is left
    std::memmove(rx_.data(), rx_.data() + rx_begin_, rx_end_ - rx_begin_);
    rx_end_ -= rx_begin_;
    rx_begin_ = 0;
  }
  while (rx_end_ - rx_begin_ < want) {
    std::size_t n = co_await stream_->read_some({rx_.data() + rx_end_, kReceiveBytes - rx_end_});
    if (n == 0) co_return false;
    rx_end_ += n;
  }
  co_return true;
}

io::Task<bool> Channel::read_frame(Frame& frame) {
  if (!co_await fill(sizeof(FrameHeader))) co_return false;
  FrameHeader h;
  std::memcpy(&h, rx_.data() + rx_begin_, sizeof h);
  rx_begin_ += sizeof h;
  if (Status s = check_header(h, self_.unit); !s.ok()) {
    logging::warn("{}: {}; connection closed", peer_, s.text());
    co_return false;
  }
  auto take = [this](std::byte* to, std::size_t bytes) -> io::Task<bool> {
    std::size_t have = std::min(bytes, rx_end_ - rx_begin_);
    if (have != 0) std::memcpy(to, rx_.data() + rx_begin_, have);
    rx_begin_ += have;
    while (have < bytes) {  // rx_ is empty: it takes what follows
      std::size_t n = co_await stream_->read_some({to + have, bytes - have}, {rx_.data(), kReceiveBytes});
      if (n == 0) co_return false;
      std::size_t mine = std::min(n, bytes - have);
      have += mine;
      rx_begin_ = 0;
      rx_end_ = n - mine;
    }
    co_return true;
  };
  auto body = std::make_shared<std::vector<std::uint64_t>>((h.body_bytes + 7) / 8);
  auto* body_bytes = reinterpret_cast<std::byte*>(body->data());
  if (!co_await take(body_bytes, h.body_bytes)) co_return false;
  frame.kind = static_cast<Kind>(h.kind);
  frame.id = h.id;
  frame.source = h.source;
  frame.unit = h.unit;
  frame.body = {body_bytes, h.body_bytes};
  frame.body_owner = std::move(body);
  if (frame_crc(h, frame.body) != h.crc) {
    logging::warn("{}: frame '{}' fails its checksum; connection closed", peer_, kind_name(frame.kind));
    co_return false;
  }
  frame.payload.clear();
  if (h.payload_bytes != 0) {
    Buffer payload = memory_ ? memory_(frame.kind, h.payload_bytes) : Buffer::allocate(h.payload_bytes);
    if (!co_await take(payload.data(), h.payload_bytes)) co_return false;
    frame.payload.push_back(std::move(payload));
  }
  peer_node_ = h.source;
  co_return true;
}

void Channel::dispatch(Frame frame) {
  bool ours = frame.id != 0 && (frame.id & 1) == (next_id_ & 1);
  if (!ours) {
    if (handler_) handler_(shared_from_this(), std::move(frame));
    return;
  }
  auto it = pending_.find(frame.id);
  if (it == pending_.end()) return;  // answer to a call that timed out
  it->second->answer = std::move(frame);
  it->second->done.notify_all();
}

io::Task<void> Channel::read_loop(std::shared_ptr<Channel> self) {
  struct End {
    Channel& c;
    ~End() { c.end(); }
  } at_end{*this};
  while (open_) {
    Frame frame;
    if (!co_await read_frame(frame)) break;
    dispatch(std::move(frame));
  }
}

Status Server::listen(const std::string& address, Channel::Handler handler, Accepted accepted, Accepted closed) {
  auto listener = world_.network().listen(address);
  if (!listener.ok()) return listener.status();
  listener_ = std::move(*listener);
  world_.spawn("accept", accept_loop(std::move(handler), std::move(accepted), std::move(closed)));
  return Status();
}

io::Task<void> Server::accept_loop(Channel::Handler handler, Accepted accepted, Accepted closed) {
  while (true) {
    auto stream = co_await listener_->accept();
    if (!stream) break;
    auto channel = std::make_shared<Channel>(world_, std::move(stream), self_, false);
    std::weak_ptr<Channel> weak = channel;
    if (accepted) accepted(channel);
    channel->start(handler, [weak, closed] {
      if (auto c = weak.lock(); c && closed) closed(c);
    });
  }
}

struct Link::State {
  State(io::World& w, const Identity& s, std::string a, Channel::Handler h, Link* l)
      : world(w), self(s), address(std::move(a)), handler(std::move(h)), link(l), changed(w) {}
  io::World& world;
  const Identity& self;
  std::string address;
  Channel::Handler handler;
  Link* link;  // null once the Link is gone
  io::Event changed;
  std::shared_ptr<Channel> channel;  // set when ready for callers
  std::shared_ptr<Channel> raw;      // set while a connection exists
  bool running = false;
  std::uint64_t turn = 0;  // of start() and stop(): the task of an older turn ends
};

Link::Link(io::World& world, const Identity& self, std::string address, Channel::Handler handler)
    : state_(std::make_shared<State>(world, self, std::move(address), std::move(handler), this)) {}

Link::~Link() {
  stop();
  state_->link = nullptr;
}

void Link::start() {
  if (std::exchange(state_->running, true)) return;
  state_->world.spawn("link " + state_->address, run(state_, ++state_->turn));
}

void Link::stop() {
  state_->running = false;
  ++state_->turn;
  if (state_->raw) state_->raw->close();
  state_->changed.notify_all();
}

void Link::set_address(const std::string& address) {
  if (state_->address == address) return;
  state_->address = address;
  if (state_->raw) state_->raw->close();
  state_->changed.notify_all();
}

const std::string& Link::address() const { return state_->address; }
bool Link::connected() const { return state_->channel && state_->channel->open(); }
std::shared_ptr<Channel> Link::channel() const { return connected() ? state_->channel : nullptr; }

bool Link::send(Frame frame) {
  if (!connected()) return false;
  state_->channel->send(std::move(frame));
  return true;
}

io::Task<bool> Link::wait_connected(io::Duration timeout) {
  auto state = state_;
  io::Time deadline = state->world.now() + timeout;
  while (!(state->channel && state->channel->open())) {
    if (!co_await state->changed.wait_until(deadline) && !(state->channel && state->channel->open()))
      co_return false;
  }
  co_return true;
}

io::Task<Result<Frame>> Link::call(Frame request, io::Duration timeout) {
  auto state = state_;
  io::Time deadline = state->world.now() + timeout;
  if (!connected() && !co_await wait_connected(timeout))
    co_return Status(Code::unavailable, state->address + ": not reachable");
  auto channel = state->channel;
  co_return co_await channel->call(std::move(request), deadline - state->world.now());
}

io::Task<void> Link::run(std::shared_ptr<State> state, std::uint64_t turn) {
  io::World& world = state->world;
  io::Duration back_off = kShortestBackOff;
  while (state->turn == turn) {
    std::string address = state->address;
    io::Time begin = world.now();
    auto stream = co_await world.network().connect(address, std::chrono::seconds(2));
    if (stream.ok() && state->turn == turn && state->address == address)
      co_await serve(state, turn, std::make_shared<Channel>(world, std::move(*stream), state->self, true));
    // Only a connection that held for a while says that all is well: a peer may accept and then turn us away.
    if (world.now() - begin >= kLongestBackOff) back_off = kShortestBackOff;
    // Jitter keeps a mass restart from arriving in step.
    io::Time end = world.now() + back_off / 2 + io::Duration(world.random_below(back_off.count()));
    while (state->turn == turn && state->address == address && co_await state->changed.wait_until(end)) {
    }
    back_off = state->address == address ? std::min(back_off * 2, kLongestBackOff) : kShortestBackOff;
  }
}

// From a fresh connection to its end.
io::Task<void> Link::serve(std::shared_ptr<State> state, std::uint64_t turn, std::shared_ptr<Channel> channel) {
  state->raw = channel;
  auto ended = std::make_shared<bool>(false);
  channel->start(state->handler, [state, ended] {
    *ended = true;
    state->changed.notify_all();
  });
  auto on_connect = state->link->on_connect_;  // a copy, since the Link may go while it runs
  bool ready = true;
  if (on_connect) ready = co_await on_connect(channel);
  ready = ready && !*ended && state->turn == turn;
  if (ready) {
    state->channel = channel;
    state->changed.notify_all();
    while (!*ended) co_await state->changed.wait();
  }
  channel->close();
  if (state->channel == channel) state->channel.reset();
  if (state->raw == channel) state->raw.reset();
  if (ready && state->link && state->link->on_disconnect_) state->link->on_disconnect_();
}

}  // namespace luge::wire
