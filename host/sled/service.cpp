#include "sled/service.hpp"

#include <spdlog/fmt/fmt.h>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::sled {

using namespace std::chrono_literals;

Service::Service(io::World& world, Options options)
    : world_(world), options_(std::move(options)), identity_{options_.unit, options_.id}, server_(world, identity_) {}
Service::~Service() = default;

io::Task<Status> Service::start() {
  if (options_.devices.empty()) co_return Status(Code::invalid, "a sled needs at least one device");
  Status s = server_.listen(options_.listen, [this](const ChannelPtr& c, wire::Frame f) {
    world_.spawn("request", answer(c, std::move(f)));
  });
  if (!s.ok()) co_return s;
  if (identity_.unit == 0) {
    // A device is marked with its unit when it is formatted, so the unit must be known first.
    start_control();
    while (identity_.unit == 0) {
      if (!control_->refused().ok()) co_return control_->refused();
      bool known = co_await control_->wait_registered(10s);
      if (!known) logging::warn("waiting for the control plane at {} to name the storage unit", options_.control);
    }
  }
  if (Status o = co_await open_devices(); !o.ok()) co_return o;
  gateway_ = std::make_unique<Gateway>(world_, identity_, options_, counters_,
      [this](const fbs::ChunkPlace& place, Epoch epoch, Bytes header_area, Bytes chunk) { return store_chunk(place, epoch, header_area, chunk); });
  if (control_) control_->stop();
  start_control();
  co_return Status();
}

io::Task<Status> Service::open_devices() {
  Status last;
  bool any = false;
  for (std::uint16_t i = 0; i < options_.devices.size(); ++i) {
    auto d = std::make_unique<Device>(world_, options_.devices[i], i, identity_.unit, options_.id, options_.column_bytes);
    Status s = co_await d->open();
    if (s.code() == Code::io_error) {
      logging::error("{}; the device is left out", s.to_string());
      last = s;
      devices_.push_back(nullptr);
      continue;
    }
    if (!s.ok()) co_return s;  // in use, of somebody else, too small: a person must look
    for (auto [vp, epoch] : d->fences()) epochs_[vp] = std::max(epochs_[vp], epoch);
    devices_.push_back(std::move(d));
    any = true;
  }
  if (!any) co_return last.with("no device can be used");
  co_return Status();
}

void Service::start_control() {
  wire::ControlLink::Self self{options_.id, options_.name, "sled", server_.address(), world_.random() | 1};
  wire::ControlLink::Callbacks callbacks;
  callbacks.report = [this] { return report(); };
  callbacks.registration = [this](flatbuffers::FlatBufferBuilder& b, const wire::ControlLink::Self& s) {
    std::vector<flatbuffers::Offset<fbs::Device>> rows;
    for (const auto& d : devices_) {
      if (!d) continue;
      auto state = b.CreateString(d->failed() ? "failed" : "ok");
      rows.push_back(fbs::CreateDevice(b, d->index(), d->bytes(), d->column_bytes(), d->columns(), d->free_columns(), state));
    }
    auto name = b.CreateString(s.name), role = b.CreateString(s.role), address = b.CreateString(s.address), version = b.CreateString(LUGE_VERSION);
    auto devices = b.CreateVector(rows);
    fbs::RegisterNodeBuilder r(b);
    r.add_id(s.id);
    r.add_name(name);
    r.add_role(role);
    r.add_address(address);
    r.add_pid(static_cast<std::uint32_t>(options_.pid));
    r.add_incarnation(s.incarnation);
    r.add_version(version);
    r.add_devices(devices);
    return r.Finish();
  };
  control_ = std::make_unique<wire::ControlLink>(world_, identity_, options_.control, std::move(self), std::move(callbacks));
  control_->start();
}

void Service::stop() {
  server_.close();
  if (control_) control_->stop();
}

Device* Service::device(std::uint16_t index) { return index < devices_.size() ? devices_[index].get() : nullptr; }

void Service::count(const Status& s) {
  if (s.code() == Code::fenced) ++counters_.fenced;
  if (s.code() == Code::stale) ++counters_.stale;
  if (s.code() == Code::corrupt) ++counters_.corrupt;
  if (s.code() == Code::io_error) ++counters_.io_errors;
}

Status Service::check_epoch(VpId vp, Epoch epoch) {
  if (broken(Switch::no_sled_fence)) return Status();
  Epoch held = epochs_[vp];
  if (epoch < held) return Status(Code::fenced, "you have been fenced off: epoch " + std::to_string(held) + " has begun");
  if (epoch > held) return Status(Code::unavailable, "this sled has not been fenced in epoch " + std::to_string(epoch) + " yet: fence first");
  return Status();
}

io::Task<wire::Frame> Service::fence(const fbs::Fence& m) {
  Status s;
  VpId vp = m.vp();
  Epoch epoch = m.epoch();
  if (epoch < epochs_[vp]) {
    s = Status(Code::fenced, "you have been fenced off: epoch " + std::to_string(epochs_[vp]) + " has begun");
  } else {
    bool durable = false;
    for (auto& d : devices_)
      if (d && !d->failed() && (co_await d->fence(vp, epoch)).ok()) durable = true;
    if (durable) epochs_[vp] = std::max(epochs_[vp], epoch);
    else s = Status(Code::io_error, "no device can keep the epoch");
  }
  co_return wire::make_frame(wire::Kind::fence_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    return fbs::CreateFenceReply(b, static_cast<std::uint16_t>(s.code()), text, epochs_[vp]);
  });
}

namespace {

flatbuffers::Offset<fbs::Column> column_row(flatbuffers::FlatBufferBuilder& b, const Device& d, std::uint32_t n, const std::vector<Device::Slot>& slots) {
  std::vector<fbs::SlotState> states;
  for (std::uint32_t s = 0; s < slots.size(); ++s)
    states.emplace_back(slots[s].generation, fbs::StripeId(slots[s].stripe.vp, slots[s].stripe.epoch, slots[s].stripe.counter), s,
                        static_cast<std::uint8_t>(slots[s].state), 0, 0);
  auto list = b.CreateVectorOfStructs(states);
  const ColumnRow& row = *d.column(n);
  return fbs::CreateColumn(b, d.index(), n, row.generation, row.slot_bytes, static_cast<std::uint32_t>(slots.size()), list);
}

}  // namespace

io::Task<wire::Frame> Service::list(const fbs::ListColumns& m) {
  flatbuffers::FlatBufferBuilder b;
  std::vector<flatbuffers::Offset<fbs::Column>> rows;
  Status s = check_epoch(m.vp(), m.epoch());
  for (auto& d : devices_) {
    if (!s.ok() || !d || d->failed()) continue;
    for (std::uint32_t n : d->owned_by(m.vp())) {
      auto table = co_await d->slot_table(n);
      if (table.ok()) rows.push_back(column_row(b, *d, n, **table));
    }
  }
  count(s);
  auto text = b.CreateString(s.text());
  auto list = b.CreateVector(rows);
  b.Finish(fbs::CreateColumns(b, static_cast<std::uint16_t>(s.code()), text, list));
  co_return wire::finish_frame(wire::Kind::columns, b);
}

io::Task<wire::Frame> Service::claim(const fbs::ClaimColumn& m) {
  flatbuffers::FlatBufferBuilder b;
  flatbuffers::Offset<fbs::Column> row;
  VpId vp = m.vp();
  std::uint32_t n = m.column();
  Status s = check_epoch(vp, m.epoch());
  Device* d = device(m.device());
  if (s.ok() && (!d || d->failed())) s = Status(Code::io_error, "the device has failed or is not there");
  if (s.ok()) s = co_await d->claim(vp, n, m.slot_bytes());
  if (s.ok()) {
    auto table = co_await d->slot_table(n);
    if (table.ok()) row = column_row(b, *d, n, **table);
    else s = table.status();
  }
  count(s);
  auto text = b.CreateString(s.text());
  b.Finish(fbs::CreateClaimReply(b, static_cast<std::uint16_t>(s.code()), text, row));
  co_return wire::finish_frame(wire::Kind::claim_reply, b);
}

io::Task<Status> Service::release(const fbs::ReleaseColumns& m) {
  VpId vp = m.vp();
  Status s = check_epoch(vp, m.epoch());
  for (auto& d : devices_)
    if (s.ok() && d && !d->failed()) s = co_await d->release(vp);
  co_return s;
}

io::Task<Status> Service::write_chunk(const wire::Frame& frame, const fbs::WriteChunk& m) {
  Buffer data = frame.data();
  if (!m.stripe() || !m.place() || m.header_bytes() == 0 || m.header_bytes() > data.size()) co_return Status(Code::invalid, "chunk message does not parse");
  fbs::ChunkPlace place = *m.place();
  if (place.sled() != options_.id) co_return Status(Code::invalid, "the chunk is for sled " + std::to_string(place.sled()));
  Bytes all = data.bytes();
  co_return co_await store_chunk(place, m.epoch(), all.first(m.header_bytes()), all.subspan(m.header_bytes()));
}

// Everything that makes a chunk acceptable, whoever sent it (RD-04 does not apply: this is a write).
io::Task<Status> Service::store_chunk(fbs::ChunkPlace place, Epoch epoch, Bytes header_area, Bytes chunk) {
  auto header = coding::parse_chunk_header(header_area);
  if (!header.ok()) co_return header.status();
  const coding::ChunkHeaderFields& f = header->fields();
  if (Status s = check_epoch(f.stripe.vp, epoch); !s.ok()) co_return s;
  if (f.unit != identity_.unit) co_return Status(Code::wrong_unit, "the chunk belongs to another storage unit");
  if (!f.written || f.stripe.epoch != epoch || f.generation != place.generation() || f.chunk_bytes != chunk.size() || header->header_bytes() != header_area.size())
    co_return Status(Code::invalid, "the chunk's header does not fit its message");
  for (std::uint32_t i = 0; i < header->blocks_per_chunk(); ++i)
    if (crc32c(chunk.subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) != header->block_crc(f.chunk_index, i))
      co_return Status(Code::corrupt, "block " + std::to_string(i) + " of the chunk does not match its CRC");
  Device* d = device(place.device());
  if (!d) co_return Status(Code::io_error, "the device is not there");
  Status s = co_await d->write_chunk(place, *header, header_area, chunk);
  // An epoch that began while the write was on its way wins: the writer must not count it.
  if (s.ok()) s = check_epoch(f.stripe.vp, epoch);
  co_return s;
}

io::Task<wire::Frame> Service::read_chunk(const fbs::ReadChunk& m) {
  Status s;
  Device::ReadResult got;
  bool want_header = m.want_header();
  std::uint32_t first = m.first_block(), blocks = m.blocks(), chunk = m.chunk_index();
  if (!m.stripe() || !m.place() || m.place()->sled() != options_.id) {
    s = Status(Code::invalid, "not a chunk of this sled");
  } else if (Device* d = device(m.place()->device())) {
    fbs::ChunkPlace place = *m.place();
    StripeId stripe{m.stripe()->vp(), m.stripe()->epoch(), m.stripe()->counter()};
    auto r = co_await d->read_chunk(place, stripe, chunk, first, blocks);
    if (r.ok()) got = std::move(*r);
    else s = r.status();
  } else {
    s = Status(Code::io_error, "the device is not there");
  }
  count(s);
  std::vector<fbs::BlockIdentity> identities;
  if (s.ok())
    for (std::uint32_t i = 0; i < blocks; ++i) identities.push_back(got.header.identity(chunk, first + i));
  std::uint32_t header_bytes = s.ok() && want_header ? got.header.header_bytes() : 0;
  wire::Frame f = wire::make_frame(wire::Kind::chunk, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto list = b.CreateVectorOfStructs(identities);
    return fbs::CreateChunk(b, static_cast<std::uint16_t>(s.code()), text, list, header_bytes);
  });
  if (s.ok() && want_header) f.payload.push_back(got.header_area.slice(0, header_bytes));
  if (s.ok() && !got.blocks.empty()) f.payload.push_back(got.blocks);
  co_return f;
}

io::Task<void> Service::answer(ChannelPtr channel, wire::Frame frame) {
  if (!gateway_) co_return channel->reply(frame, wire::reply_frame(Status(Code::unavailable, "the sled is starting")));
  wire::Frame out;
  Status s(Code::invalid, "a sled does not answer '" + std::string(wire::kind_name(frame.kind)) + "'");
  switch (frame.kind) {
    case wire::Kind::fence:
      if (const auto* m = frame.as<fbs::Fence>()) out = co_await fence(*m);
      break;
    case wire::Kind::list_columns:
      if (const auto* m = frame.as<fbs::ListColumns>()) out = co_await list(*m);
      break;
    case wire::Kind::claim_column:
      if (const auto* m = frame.as<fbs::ClaimColumn>()) out = co_await claim(*m);
      break;
    case wire::Kind::release_columns:
      if (const auto* m = frame.as<fbs::ReleaseColumns>()) s = co_await release(*m);
      break;
    case wire::Kind::write_stripe: {
      wire::Frame request = std::move(frame);
      frame.id = request.id;
      out = co_await gateway_->write_stripe(std::move(request));
      break;
    }
    case wire::Kind::write_chunk:
      if (const auto* m = frame.as<fbs::WriteChunk>()) s = co_await write_chunk(frame, *m);
      break;
    case wire::Kind::read_chunk:
      if (const auto* m = frame.as<fbs::ReadChunk>()) out = co_await read_chunk(*m);
      break;
    case wire::Kind::free_slot:
      if (const auto* m = frame.as<fbs::FreeSlot>(); m && m->stripe() && m->place()) {
        s = check_epoch(m->vp(), m->epoch());
        Device* d = device(m->place()->device());
        if (s.ok() && !d) s = Status(Code::io_error, "the device is not there");
        fbs::ChunkPlace place = *m->place();
        StripeId stripe{m->stripe()->vp(), m->stripe()->epoch(), m->stripe()->counter()};
        if (s.ok()) s = co_await d->free_slot(place, stripe);
      }
      break;
    default: break;
  }
  if (out.kind == wire::Kind::none) {
    count(s);
    out = wire::reply_frame(s);
  }
  channel->reply(frame, std::move(out));
}

std::string Service::report() const {
  auto escaped = [](const std::string& s) {
    std::string out;
    for (char c : s) {
      if (c == '"' || c == '\\') out += '\\';
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return out;
  };
  std::string s = R"({"devices":[)";
  std::uint64_t chunks = 0, bytes = 0, reads = 0, read_bytes = 0;
  for (std::size_t i = 0; i < options_.devices.size(); ++i) {
    const Device* d = i < devices_.size() ? devices_[i].get() : nullptr;
    if (i != 0) s += ',';
    bool failed = !d || d->failed();
    s += fmt::format(R"({{"path":"{}","state":"{}","reason":"{}","bytes":{},"column_bytes":{},"columns":{},"free_columns":{},"errors":{}}})",
                     escaped(options_.devices[i].path), failed ? "failed" : "ok", escaped(d ? d->failure().text() : "not open"), d ? d->bytes() : 0,
                     d ? d->column_bytes() : 0, d ? d->columns() : 0, d ? d->free_columns() : 0, d ? d->counters().errors : 0);
    if (!d) continue;
    chunks += d->counters().chunks_written;
    bytes += d->counters().bytes_written;
    reads += d->counters().chunks_read;
    read_bytes += d->counters().bytes_read;
  }
  const Counters& c = counters_;
  s += fmt::format(
      R"(],"counters":{{"chunks_written":{},"chunk_bytes_written":{},"chunks_read":{},"bytes_read":{},"stripes_coded":{},"source_bytes_coded":{},)"
      R"("verify_failures":{},"fenced":{},"stale":{},"corrupt":{},"io_errors":{}}},"coder":"{}"}})",
      chunks, bytes, reads, read_bytes, c.stripes_coded, c.source_bytes_coded, c.verify_failures, c.fenced, c.stale, c.corrupt, c.io_errors,
      gateway_ ? gateway_->coder() : "none");
  return s;
}

Sled::Sled(io::World& world, Options options) : service_(std::make_unique<Service>(world, std::move(options))) {}
Sled::~Sled() = default;
io::Task<Status> Sled::start() { return service_->start(); }
io::Task<void> Sled::drain() {
  service_->stop();
  co_return;
}
std::string Sled::address() const { return service_->address(); }
std::string Sled::report() const { return service_->report(); }

}  // namespace luge::sled
