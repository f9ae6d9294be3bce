#include "attach/nbd_connection.hpp"

#include "base/logging.hpp"

namespace luge::attach {
namespace {

constexpr std::size_t kReceiveBytes = 256 << 10;
constexpr std::uint64_t kOutstanding = 64u << 20;
constexpr std::uint64_t kRequestCost = 4096;  // of one without payload

// Trims and zeroes carry no bytes and are one record whatever their length.
std::uint64_t cost_of(const nbd::Request& r) {
  auto command = static_cast<nbd::Command>(r.type);
  bool payload = command == nbd::Command::read || command == nbd::Command::write;
  return kRequestCost + (payload ? r.length : 0);
}

}  // namespace

NbdConnection::NbdConnection(io::World& world, std::unique_ptr<io::Stream> stream, std::shared_ptr<NbdExport> e)
    : world_(world), stream_(std::move(stream)), export_(std::move(e)), wake_writer_(world), room_(world) {}

void NbdConnection::close() {
  closing_ = true;
  stream_->close();
  wake_writer_.notify_all();
  room_.notify_all();
}

io::Task<void> NbdConnection::drain(std::shared_ptr<NbdConnection> self) {
  draining_ = true;
  while (!closing_ && (open_requests_ != 0 || outstanding_ != 0)) co_await room_.wait();
  close();
}

io::Task<void> NbdConnection::serve(std::shared_ptr<NbdConnection> self) {
  ++export_->stats.connections;
  struct Leave {
    NbdExport& e;
    ~Leave() { --e.stats.connections; }
  } leave{*export_};
  if (co_await negotiate_in_time(self)) {
    writer_done_ = false;
    world_.spawn("nbd writer", writer(self));
    co_await requests();
  }
  while (open_requests_ != 0) co_await room_.wait();
  // What is queued still goes out when the client said goodbye properly.
  closing_ = true;
  wake_writer_.notify_all();
  room_.notify_all();
  while (!writer_done_) co_await room_.wait();
  stream_->close();
}

io::Task<bool> NbdConnection::fill(std::size_t want) {
  if (rx_.empty()) rx_ = Buffer::allocate(kReceiveBytes);
  if (begin_ == end_) begin_ = end_ = 0;
  if (kReceiveBytes - begin_ < want) {
    std::memmove(rx_.data(), rx_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (end_ - begin_ < want) {
    std::size_t n = co_await stream_->read_some({rx_.data() + end_, kReceiveBytes - end_});
    if (n == 0) co_return false;
    end_ += n;
  }
  co_return true;
}

io::Task<bool> NbdConnection::take(std::byte* to, std::size_t bytes) {
  std::size_t have = std::min(bytes, end_ - begin_);
  std::memcpy(to, rx_.data() + begin_, have);
  begin_ += have;
  while (have < bytes) {
    std::size_t n = co_await stream_->read_some({to + have, bytes - have});
    if (n == 0) co_return false;
    have += n;
  }
  co_return true;
}

io::Task<bool> NbdConnection::send_now(std::string bytes) {
  Bytes part = as_bytes(bytes);
  co_return co_await stream_->write_all(std::span(&part, 1));
}

// A handshake takes milliseconds. Who does not finish it may hold a connection for so long, and only so many may.
io::Task<bool> NbdConnection::negotiate_in_time(std::shared_ptr<NbdConnection> self) {
  auto& waiting = export_->negotiating;
  std::erase_if(waiting, [](const auto& w) { return w.expired(); });
  if (waiting.size() >= kMaxNegotiating) {
    if (auto oldest = waiting.front().lock()) oldest->close();
    waiting.pop_front();
  }
  waiting.push_back(self);
  world_.spawn("nbd negotiation", watch_negotiation(self));
  bool ok = co_await negotiate();
  negotiated_ = true;
  room_.notify_all();
  std::erase_if(waiting, [&](const auto& w) { return w.lock() == self; });
  co_return ok && !closing_;
}

io::Task<void> NbdConnection::watch_negotiation(std::shared_ptr<NbdConnection> self) {
  io::Time deadline = world_.now() + kNegotiationTime;
  while (!negotiated_ && !closing_ && co_await room_.wait_until(deadline)) {
  }
  if (negotiated_ || closing_) co_return;
  logging::info("nbd client of '{}' has not finished the handshake within {} s; connection closed", export_->info.name, kNegotiationTime / std::chrono::seconds(1));
  close();
}

io::Task<bool> NbdConnection::negotiate() {
  if (!co_await send_now(nbd::greeting())) co_return false;
  // The first byte is waited for without a receive buffer: a thousand silent connections cost next to nothing.
  std::byte flags[4];
  std::size_t got = 0;
  while (got < sizeof flags) {
    std::size_t n = co_await stream_->read_some({flags + got, sizeof flags - got});
    if (n == 0) co_return false;
    got += n;
  }
  if (!nbd::known_client_flags(flags)) {
    logging::warn("nbd client of '{}' sets unknown handshake flags; connection closed", export_->info.name);
    co_return false;
  }
  bool no_zeroes = (flags[3] & std::byte{2}) != std::byte{0};
  while (!closing_) {
    if (!co_await fill(nbd::kOptionHeaderBytes)) co_return false;
    auto h = nbd::parse_option_header(rx_.bytes().subspan(begin_, nbd::kOptionHeaderBytes));
    if (!h.ok()) {
      logging::warn("nbd client of '{}': {}; connection closed", export_->info.name, h.status().text());
      co_return false;
    }
    begin_ += nbd::kOptionHeaderBytes;
    if (!co_await fill(h->length)) co_return false;
    std::string body(reinterpret_cast<const char*>(rx_.data() + begin_), h->length);
    begin_ += h->length;
    bool done = false;
    if (!co_await option(*h, as_bytes(body), no_zeroes, done)) co_return false;
    if (done) co_return true;
  }
  co_return false;
}

// False: the connection ends. done: transmission begins.
io::Task<bool> NbdConnection::option(const nbd::OptionHeader& h, Bytes body, bool no_zeroes, bool& done) {
  const nbd::ExportInfo& e = export_->info;
  auto ours = [&](std::string_view name) { return name.empty() || name == e.name; };
  switch (static_cast<nbd::Option>(h.option)) {
    case nbd::Option::export_name: {
      std::string name(reinterpret_cast<const char*>(body.data()), body.size());
      if (!ours(name)) co_return false;  // the protocol has no other answer here
      done = true;
      co_return co_await send_now(nbd::export_name_answer(e, no_zeroes));
    }
    case nbd::Option::abort:
      co_await send_now(nbd::option_reply(h.option, nbd::kAck, ""));
      co_return false;
    case nbd::Option::list:
      if (h.length != 0) co_return co_await send_now(nbd::option_reply(h.option, nbd::kErrInvalid, "LIST has no data"));
      co_return co_await send_now(nbd::list_replies({e}));
    case nbd::Option::info:
    case nbd::Option::go: {
      auto asked = nbd::parse_info(body);
      if (!asked.ok()) co_return co_await send_now(nbd::option_reply(h.option, nbd::kErrInvalid, asked.status().text()));
      if (!ours(asked->name))
        co_return co_await send_now(nbd::option_reply(h.option, nbd::kErrUnknown, "there is no export of that name here; this one is '" + e.name + "'"));
      done = static_cast<nbd::Option>(h.option) == nbd::Option::go;
      co_return co_await send_now(nbd::info_replies(h.option, e, *asked));
    }
    default: co_return co_await send_now(nbd::option_reply(h.option, nbd::kErrUnsupported, ""));
  }
}

io::Task<void> NbdConnection::requests() {
  while (!closing_) {
    while (outstanding_ > kOutstanding && !closing_) co_await room_.wait();
    if (closing_ || !co_await one_request()) break;
  }
}

io::Task<bool> NbdConnection::one_request() {
  if (!co_await fill(nbd::kRequestBytes) || draining_) co_return false;
  auto r = nbd::parse_request(rx_.bytes().subspan(begin_, nbd::kRequestBytes));
  if (!r.ok()) {
    logging::warn("nbd client of '{}': {}; connection closed", export_->info.name, r.status().text());
    co_return false;
  }
  begin_ += nbd::kRequestBytes;
  auto command = static_cast<nbd::Command>(r->type);
  if (command == nbd::Command::disconnect) co_return false;
  if (command == nbd::Command::write) co_return co_await take_write(*r);
  nbd::Error error = nbd::judge(*r, export_->info);
  bool nothing_to_do = command == nbd::Command::flush || command == nbd::Command::cache || r->length == 0;
  if (error != nbd::ok || nothing_to_do) {
    outstanding_ += kRequestCost;
    reply(r->cookie, error, kRequestCost);
  }
  else start(*r, {});
  co_return true;
}

io::Task<bool> NbdConnection::take_write(const nbd::Request& request) {
  nbd::Request r = request;
  nbd::Error error = nbd::judge(r, export_->info);
  if (error == nbd::ok && r.length != 0) {
    Buffer image = client::allocate_image(r.offset, r.length);
    if (!co_await take(image.data() + r.offset % kBlockBytes, r.length) || draining_) co_return false;
    start(r, std::move(image));
    co_return true;
  }
  // The payload of a refused write is read past, in bounded pieces.
  Buffer sink;
  if (r.length != 0) sink = Buffer::allocate(64 << 10);
  for (std::uint32_t left = r.length; left != 0;) {
    auto n = static_cast<std::uint32_t>(std::min<std::size_t>(left, sink.size()));
    if (!co_await take(sink.data(), n)) co_return false;
    left -= n;
  }
  outstanding_ += kRequestCost;
  reply(r.cookie, error, kRequestCost);
  co_return true;
}

void NbdConnection::start(const nbd::Request& r, Buffer image) {
  ++open_requests_;
  outstanding_ += cost_of(r);
  auto self = shared_from_this();
  auto done = [self, r](const Status& s) { self->finish(r, s, {}); };
  switch (static_cast<nbd::Command>(r.type)) {
    case nbd::Command::read:
      export_->target->read(r.offset, r.length, [self, r](const Status& s, std::span<Buffer> d) { self->finish(r, s, d); });
      break;
    case nbd::Command::write: export_->target->write(r.offset, std::move(image), r.length, done); break;
    case nbd::Command::trim: export_->target->trim(r.offset, r.length, done); break;
    default: export_->target->zero(r.offset, r.length, done); break;
  }
}

void NbdConnection::finish(const nbd::Request& r, const Status& s, std::span<Buffer> data) {
  --open_requests_;
  bool is_read = static_cast<nbd::Command>(r.type) == nbd::Command::read;
  NbdStats& stats = export_->stats;
  ++(is_read ? stats.reads : stats.writes);
  if (s.ok()) {
    (is_read ? stats.read_bytes : stats.written_bytes) += r.length;
    reply(r.cookie, nbd::ok, cost_of(r), data);
  } else {
    ++stats.errors;
    logging::error("volume '{}': request at {} length {}: {}", export_->info.name, r.offset, r.length, s.to_string());
    nbd::Error e = s.code() == Code::no_space ? nbd::enospc : s.code() == Code::closed_session ? nbd::eshutdown : nbd::eio;
    reply(r.cookie, e, cost_of(r));
  }
  room_.notify_all();
}

void NbdConnection::reply(std::uint64_t cookie, nbd::Error error, std::uint64_t cost, std::span<Buffer> data) {
  replies_.push_back({nbd::simple_reply(cookie, error), cost, std::vector<Buffer>(data.begin(), data.end())});
  if (replies_.size() == 1) wake_writer_.notify_all();
}

io::Task<void> NbdConnection::writer(std::shared_ptr<NbdConnection> self) {
  struct Done {
    NbdConnection& c;
    ~Done() {
      c.writer_done_ = true;
      c.room_.notify_all();
    }
  } done{*this};
  std::vector<Reply> sending;
  std::vector<Bytes> parts;
  while (true) {
    while (replies_.empty() && !closing_) co_await wake_writer_.wait();
    if (replies_.empty()) break;
    sending.swap(replies_);
    parts.clear();
    std::uint64_t cost = 0;
    for (const Reply& r : sending) {
      cost += r.cost;
      parts.push_back(as_bytes(r.head));
      for (const Buffer& b : r.data) parts.push_back(b.bytes());
    }
    if (!co_await stream_->write_all(parts)) {
      close();
      replies_.clear();
      break;
    }
    sending.clear();
    outstanding_ -= cost;
    room_.notify_all();
  }
}

}  // namespace luge::attach
