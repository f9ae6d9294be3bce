#include "attach/nbd_connection.hpp"

#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::attach {
namespace {

constexpr std::size_t kReceiveBytes = 256 << 10;
constexpr std::uint64_t kOutstanding = 64u << 20;
constexpr std::uint64_t kRequestCost = 4096;  // of one without payload

// Trims and zeroes carry no bytes and are one record whatever their length.
std::uint64_t cost_of(const nbd::Request& r) {
  auto command = static_cast<nbd::Command>(r.type);
  if (command == nbd::Command::block_status) return kRequestCost + 8 * touched_blocks(r.offset, r.length);
  bool payload = command == nbd::Command::read || command == nbd::Command::write;
  return kRequestCost + (payload ? r.length : 0);
}

}  // namespace

std::shared_ptr<NbdExport> NbdPortal::find(std::string_view name) const {
  if (name.empty()) return exports.size() == 1 ? exports.begin()->second : nullptr;
  auto it = exports.find(std::string(name));
  return it == exports.end() ? nullptr : it->second;
}

NbdConnection::NbdConnection(io::World& world, std::unique_ptr<io::Stream> stream, std::shared_ptr<NbdPortal> portal)
    : world_(world), stream_(std::move(stream)), portal_(std::move(portal)), wake_writer_(world), room_(world) {}

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
  ++portal_->connections;
  struct Leave {
    NbdConnection& c;
    ~Leave() {
      --c.portal_->connections;
      if (c.export_) --c.export_->stats.connections;
    }
  } leave{*this};
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
  auto& waiting = portal_->negotiating;
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
  logging::info("nbd client of {} has not finished the handshake within {} s; connection closed", called(), kNegotiationTime / std::chrono::seconds(1));
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
    logging::warn("nbd client of {} sets unknown handshake flags; connection closed", called());
    co_return false;
  }
  bool no_zeroes = (flags[3] & std::byte{2}) != std::byte{0};
  while (!closing_) {
    if (!co_await fill(nbd::kOptionHeaderBytes)) co_return false;
    auto h = nbd::parse_option_header(rx_.bytes().subspan(begin_, nbd::kOptionHeaderBytes));
    if (!h.ok()) {
      logging::warn("nbd client of {}: {}; connection closed", called(), h.status().text());
      co_return false;
    }
    begin_ += nbd::kOptionHeaderBytes;
    if (!co_await fill(h->length)) co_return false;
    std::string body(reinterpret_cast<const char*>(rx_.data() + begin_), h->length);
    begin_ += h->length;
    if (!co_await option(*h, as_bytes(body), no_zeroes)) co_return false;
    if (export_) co_return true;
  }
  co_return false;
}

const std::string& NbdConnection::called() const { return export_ ? export_->info.name : portal_->address; }

io::Task<bool> NbdConnection::answer_option(std::uint32_t option, std::uint32_t type, std::string_view text) {
  return send_now(nbd::option_reply(option, type, text));
}

void NbdConnection::begin_transmission(std::shared_ptr<NbdExport> e) {
  export_ = std::move(e);
  ++export_->stats.connections;
  if (context_of_ != export_->info.name) agreed_.allocation = false;
}

// False: the connection ends. With export_ set transmission begins.
io::Task<bool> NbdConnection::option(const nbd::OptionHeader& h, Bytes body, bool no_zeroes) {
  auto which = static_cast<nbd::Option>(h.option);
  if (which == nbd::Option::abort) {
    co_await answer_option(h.option, nbd::kAck);
    co_return false;
  }
  if (which == nbd::Option::starttls) co_return co_await start_tls(h);
  if (portal_->tls && !encrypted_ && !broken(Switch::no_tls_demand)) {
    if (which == nbd::Option::export_name) co_return false;  // the protocol has no other answer here
    co_return co_await answer_option(h.option, nbd::kErrTlsRequired, "this address is served over TLS only");
  }
  switch (which) {
    case nbd::Option::export_name: co_return co_await export_name(std::string(reinterpret_cast<const char*>(body.data()), body.size()), no_zeroes);
    case nbd::Option::list: {
      if (h.length != 0) co_return co_await answer_option(h.option, nbd::kErrInvalid, "LIST has no data");
      std::vector<nbd::ExportInfo> all;
      for (const auto& [name, e] : portal_->exports) all.push_back(e->info);
      co_return co_await send_now(nbd::list_replies(all));
    }
    case nbd::Option::info:
    case nbd::Option::go: co_return co_await info_or_go(h, body);
    case nbd::Option::structured_reply:
      if (h.length != 0) co_return co_await answer_option(h.option, nbd::kErrInvalid, "STRUCTURED_REPLY has no data");
      agreed_.structured = true;
      co_return co_await answer_option(h.option, nbd::kAck);
    case nbd::Option::list_meta_context:
    case nbd::Option::set_meta_context: co_return co_await meta_context(h, body);
    default: co_return co_await answer_option(h.option, nbd::kErrUnsupported);
  }
}

io::Task<bool> NbdConnection::export_name(std::string name, bool no_zeroes) {
  auto e = portal_->find(name);
  if (!e) co_return false;
  begin_transmission(e);
  co_return co_await send_now(nbd::export_name_answer(e->info, no_zeroes, agreed_));
}

io::Task<bool> NbdConnection::info_or_go(const nbd::OptionHeader& h, Bytes body) {
  auto asked = nbd::parse_info(body);
  if (!asked.ok()) co_return co_await answer_option(h.option, nbd::kErrInvalid, asked.status().text());
  auto e = portal_->find(asked->name);
  if (!e) co_return co_await answer_option(h.option, nbd::kErrUnknown, "there is no export of that name here");
  if (static_cast<nbd::Option>(h.option) == nbd::Option::go) begin_transmission(e);
  co_return co_await send_now(nbd::info_replies(h.option, e->info, *asked, agreed_));
}

io::Task<bool> NbdConnection::meta_context(const nbd::OptionHeader& h, Bytes body) {
  bool set = static_cast<nbd::Option>(h.option) == nbd::Option::set_meta_context;
  if (set) agreed_.allocation = false;  // what was agreed before is void, whatever becomes of this
  if (!agreed_.structured) co_return co_await answer_option(h.option, nbd::kErrInvalid, "metadata contexts need structured replies");
  auto asked = nbd::parse_meta_request(body);
  if (!asked.ok()) co_return co_await answer_option(h.option, nbd::kErrInvalid, asked.status().text());
  auto e = portal_->find(asked->name);
  if (!e) co_return co_await answer_option(h.option, nbd::kErrUnknown, "there is no export of that name here");
  bool allocation = nbd::selects_allocation(*asked, !set);
  if (set) {
    agreed_.allocation = allocation;
    context_of_ = e->info.name;
  }
  co_return co_await send_now(nbd::meta_replies(h.option, allocation));
}

// What was agreed or sent in the clear counts for nothing afterwards: it may have been slipped in by somebody between.
io::Task<bool> NbdConnection::start_tls(const nbd::OptionHeader& h) {
  if (!portal_->tls) co_return co_await answer_option(h.option, nbd::kErrUnsupported);
  if (encrypted_ || h.length != 0) co_return co_await answer_option(h.option, nbd::kErrInvalid, encrypted_ ? "TLS is on already" : "STARTTLS has no data");
  if (!co_await answer_option(h.option, nbd::kAck) || begin_ != end_) co_return false;
  agreed_ = {};
  context_of_.clear();
  auto tls = std::make_unique<TlsStream>(world_, std::move(stream_), portal_->tls);
  TlsStream& speaking = *tls;
  stream_ = std::move(tls);
  encrypted_ = true;
  Status s = co_await speaking.handshake();
  if (!s.ok()) logging::info("nbd client of {}: {}; connection closed", called(), s.text());
  co_return s.ok();
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
    logging::warn("nbd client of {}: {}; connection closed", called(), r.status().text());
    co_return false;
  }
  begin_ += nbd::kRequestBytes;
  auto command = static_cast<nbd::Command>(r->type);
  if (command == nbd::Command::disconnect) co_return false;
  if (command == nbd::Command::write) co_return co_await take_write(*r);
  nbd::Error error = nbd::judge(*r, export_->info, agreed_);
  bool nothing_to_do = command == nbd::Command::flush || command == nbd::Command::cache || r->length == 0;
  if (error == nbd::ok && !nothing_to_do) {
    start(*r, {});
    co_return true;
  }
  outstanding_ += kRequestCost;
  if (error != nbd::ok) refuse(*r, error, "", kRequestCost);
  else if (command == nbd::Command::read) reply_read(*r, {});
  else reply(nbd::simple_reply(r->cookie, nbd::ok), kRequestCost);
  co_return true;
}

io::Task<bool> NbdConnection::take_write(const nbd::Request& request) {
  nbd::Request r = request;
  nbd::Error error = nbd::judge(r, export_->info, agreed_);
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
  reply(nbd::simple_reply(r.cookie, error), kRequestCost);
  co_return true;
}

void NbdConnection::start(const nbd::Request& request, Buffer image) {
  nbd::Request r = request;
  if (static_cast<nbd::Command>(r.type) == nbd::Command::block_status) r.length = std::min(r.length, nbd::kMaxStatusBytes);
  ++open_requests_;
  outstanding_ += cost_of(r);
  auto self = shared_from_this();
  auto done = [self, r](const Status& s) { self->finish(r, s, {}); };
  switch (static_cast<nbd::Command>(r.type)) {
    case nbd::Command::read:
      export_->target->read(r.offset, r.length, [self, r](const Status& s, std::span<Buffer> d) { self->finish(r, s, d); });
      break;
    case nbd::Command::write: export_->target->write(r.offset, std::move(image), r.length, done); break;
    case nbd::Command::block_status:
      export_->target->map(r.offset, r.length, [self, r](const Status& s, std::span<const client::BlockTarget::MapRun> runs) { self->finish_status(r, s, runs); });
      break;
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
    if (is_read) reply_read(r, data);
    else reply(nbd::simple_reply(r.cookie, nbd::ok), cost_of(r));
  } else {
    count_error(r, s);
  }
  room_.notify_all();
}

void NbdConnection::count_error(const nbd::Request& r, const Status& s) {
  ++export_->stats.errors;
  logging::error("volume '{}': request at {} length {}: {}", export_->info.name, r.offset, r.length, s.to_string());
  nbd::Error e = s.code() == Code::no_space ? nbd::enospc : s.code() == Code::closed_session ? nbd::eshutdown : nbd::eio;
  refuse(r, e, s.text(), cost_of(r));
}

// Of these two commands the answer of a client that knows structured replies is always one.
void NbdConnection::refuse(const nbd::Request& r, nbd::Error error, std::string_view text, std::uint64_t cost) {
  auto command = static_cast<nbd::Command>(r.type);
  bool structured = agreed_.structured && (command == nbd::Command::read || command == nbd::Command::block_status);
  reply(structured ? nbd::error_chunk(r.cookie, error, text) : nbd::simple_reply(r.cookie, error), cost);
}

void NbdConnection::reply(std::string head, std::uint64_t cost, std::span<Buffer> data) {
  replies_.push_back({std::move(head), cost, std::vector<Buffer>(data.begin(), data.end())});
  if (replies_.size() == 1) wake_writer_.notify_all();
}

// Stretches without data are told, not sent. A client that wants one piece gets data, zeros included.
void NbdConnection::reply_read(const nbd::Request& r, std::span<Buffer> data) {
  std::uint64_t cost = cost_of(r);
  if (!agreed_.structured) return reply(nbd::simple_reply(r.cookie, nbd::ok), cost, data);
  if (r.length == 0) return reply(nbd::none_chunk(r.cookie), cost);
  bool whole = (r.flags & nbd::flag_dont_fragment) != 0;
  std::uint64_t offset = r.offset;
  while (!data.empty()) {
    bool hole = client::is_shared_zeros(data[0]);
    std::size_t n = 0;
    std::uint32_t bytes = 0;
    for (; n < data.size() && (whole || client::is_shared_zeros(data[n]) == hole); ++n) bytes += static_cast<std::uint32_t>(data[n].size());
    bool last = n == data.size();
    std::uint64_t share = last ? cost : 0;
    if (hole && !whole) reply(nbd::hole_chunk(r.cookie, offset, bytes, last), share);
    else reply(nbd::data_chunk(r.cookie, offset, bytes, last), share, data.first(n));
    offset += bytes;
    data = data.subspan(n);
  }
}

void NbdConnection::finish_status(const nbd::Request& r, const Status& s, std::span<const client::BlockTarget::MapRun> runs) {
  --open_requests_;
  if (s.ok()) {
    std::vector<nbd::StatusRun> told;
    for (const client::BlockTarget::MapRun& run : runs) {
      told.push_back({static_cast<std::uint32_t>(run.bytes), run.data});
      if ((r.flags & nbd::flag_request_one) != 0) break;
    }
    reply(nbd::status_chunk(r.cookie, told), cost_of(r));
  } else {
    count_error(r, s);
  }
  room_.notify_all();
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
