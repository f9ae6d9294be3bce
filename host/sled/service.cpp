// A sled's life: its unit, its devices, its registration, its report.
#include "sled/service.hpp"

#include <spdlog/fmt/fmt.h>

#include "base/json_text.hpp"
#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::sled {

using namespace std::chrono_literals;

Service::Service(io::World& world, Options options)
    : world_(world), options_(std::move(options)), identity_{options_.unit, options_.id}, server_(world, identity_),
      work_done_(world), coder_(world, options_.make_coder ? options_.make_coder(world) : nullptr, options_.guard), peers_(world, identity_) {}
Service::~Service() = default;

io::Task<Status> Service::start() {
  if (options_.devices.empty()) co_return Status(Code::invalid, "a sled needs at least one device");
  if (options_.devices.size() > 256) co_return Status(Code::invalid, "a sled has at most 256 devices");
  if (identity_.unit == 0 && options_.control.empty()) co_return Status(Code::invalid, "neither the storage unit nor a control plane that knows it is given");
  Status s = server_.listen(options_.listen, [this](const ChannelPtr& c, wire::Frame f) {
    world_.spawn("request", answer(c, std::move(f)));
  }, [this](const ChannelPtr& c) {
    c->receive_into([this](wire::Kind kind, std::size_t bytes) { return kind == wire::Kind::write_stripe ? coder_.allocate(bytes) : Buffer::allocate(bytes); });
  });
  if (!s.ok()) co_return s;
  if (!options_.control.empty()) make_control_link();
  if (identity_.unit == 0) s = co_await learn_unit();
  if (s.ok()) s = co_await open_devices();
  if (s.ok()) s = check_devices();
  if (s.ok()) s = co_await take_in();
  if (s.ok()) s = co_await take_secret();
  if (!s.ok()) co_return s;
  // Nobody waits for a device that opens slowly, or not at all.
  if (coder_.has_device()) world_.spawn("coder opens", open_coder());
  make_gateway();
  if (control_) {
    control_->stop();  // registers once more, now with the devices
    control_->start();
  }
  co_return Status();
}

io::Task<void> Service::open_coder() {
  if (Status s = co_await coder_.start(); !s.ok()) logging::error("the sled begins without coder {}: {}", coder_.device_name(), s.to_string());
}

void Service::make_gateway() {
  rebuilder_ = std::make_unique<Rebuilder>(world_, identity_, options_, counters_, coder_, peers_, [this](const fbs::ReadChunk& m) { return read_chunk(m); });
  gateway_ = std::make_unique<Gateway>(
      world_, identity_, options_, counters_, coder_, peers_,
      [this](VpId vp, Epoch epoch, std::span<const fbs::ChunkPlace> places, std::span<const fbs::Credential> credentials) { return check_stripe(vp, epoch, places, credentials); },
      [this](const fbs::ChunkPlace& place, Epoch epoch, const fbs::Credential* credential, Buffer header_area, Buffer chunk) {
        return store_chunk(place, epoch, credential, header_area, chunk);
      });
}

// A device is marked with its unit when it is formatted, so the unit must be known first.
io::Task<Status> Service::learn_unit() {
  control_->start();
  while (identity_.unit == 0) {
    if (!control_->refused().ok()) co_return control_->refused();
    bool known = co_await control_->wait_registered(10s);
    if (!known && control_->refused().ok()) logging::warn("waiting for the control plane at {} to name the storage unit", options_.control);
  }
  co_return options_.remember_unit ? options_.remember_unit(identity_.unit) : Status();
}

// All at once: one that hangs holds up none of the others.
io::Task<Status> Service::open_devices() {
  auto meta = co_await SledMeta::open(world_, options_.io_timeout);
  if (!meta.ok()) co_return meta.status();
  meta_ = std::move(*meta);
  DeviceOptions o{identity_.unit, options_.id, options_.column_bytes, options_.io_timeout, options_.device_memory};
  std::vector<Device::Expected> expected;
  for (std::size_t i = 0; i < options_.devices.size(); ++i) {
    auto index = static_cast<std::uint16_t>(i);
    devices_.push_back(std::make_unique<Device>(world_, options_.devices[i], index, o));
    expected.push_back({meta_->device(index), {}});
    if (!options_.devices[i].replace) continue;
    auto id = co_await meta_->replacement(index);
    if (!id.ok()) co_return id.status().with("the sled's data directory");
    expected.back().replacement = *id;
  }
  io::TaskGroup group(world_);
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    group.spawn("open device", [](Device& d, Device::Expected e) -> io::Task<void> {
      Status s = co_await d.open(e);
      if (!s.ok()) logging::error("{}; device {} is left out", s.to_string(), d.index());
    }(*devices_[i], expected[i]));
  }
  co_await group.join();
  co_return Status();
}

// May the sled serve with the devices that are usable?
Status Service::check_devices() const {
  const Device* out = nullptr;     // the first that is left out
  const Device* unsure = nullptr;  // may know fences that nothing else knows
  bool any = false, adopted = false;
  for (const auto& d : devices_) {
    any = any || d->usable();
    adopted = adopted || (d->usable() && !d->formatted());
    if (!d->usable() && !out) out = d.get();
    bool given_up = !d->usable() && d->spec().replace;
    if (!unsure && !given_up && !d->knows_all_fences()) unsure = d.get();
  }
  if (!any) return out->failure().with("no device can be used");
  // A sled that remembers its fences needs no device for them; and what is blank has nothing that an old primary could harm.
  if (meta_->complete() || !adopted || !unsure) return Status();
  return Status(Code::invalid, "the data directory is new, but the devices are not: until all of them have told which epochs they were fenced in, an old "
                               "primary might be let in; missing is device " + std::to_string(unsure->index()) + " (" +
                                   (unsure->usable() ? unsure->spec().path + ": its metadata region had no room for all fences" : unsure->failure().text()) +
                                   "); put it or the old data directory back" +
                                   (unsure->usable() ? "" : ", or give it up with --replace-device " + std::to_string(unsure->index())));
}

// Devices and fences become the sled's own before anything is done with them; and every device learns all fences.
io::Task<Status> Service::take_in() {
  if (!broken(Switch::sled_forgets_fences)) epochs_ = meta_->fences();
  for (const auto& d : devices_) {
    if (!d->usable()) continue;
    for (auto [vp, epoch] : d->fences()) epochs_[vp] = std::max(epochs_[vp], epoch);
    if (Status s = co_await meta_->remember(d->index(), d->id()); !s.ok()) co_return s.with("the sled's data directory");
  }
  if (Status s = co_await meta_->raise(epochs_); !s.ok()) co_return s.with("the sled's data directory");
  if (Status s = co_await meta_->set_complete(); !s.ok()) co_return s.with("the sled's data directory");
  for (auto& d : devices_) {
    if (!d->usable()) continue;
    if (Status s = co_await d->raise(epochs_); !s.ok()) logging::warn("{}", s.to_string());
  }
  co_return Status();
}

std::vector<flatbuffers::Offset<fbs::Device>> Service::device_rows(flatbuffers::FlatBufferBuilder& b) const {
  std::vector<flatbuffers::Offset<fbs::Device>> rows;
  for (const auto& d : devices_) {
    auto state = b.CreateString(std::string(d->state_name())), reason = b.CreateString(d->failure().text());
    rows.push_back(fbs::CreateDevice(b, d->index(), d->bytes(), d->column_bytes(), d->columns(), d->free_columns(), state, reason));
  }
  return rows;
}

void Service::make_control_link() {
  std::uint64_t incarnation = options_.incarnation != 0 ? options_.incarnation : world_.random() | 1;
  wire::ControlLink::Self self{options_.id, options_.name, "sled", server_.address(), incarnation, options_.pid};
  wire::ControlLink::Callbacks callbacks;
  callbacks.report = [this] { return report(); };
  callbacks.devices = [this](flatbuffers::FlatBufferBuilder& b) { return device_rows(b); };
  callbacks.request = [this](const ChannelPtr& channel, wire::Frame f) { on_control(channel, f); };
  callbacks.registered = [this] { world_.spawn("learn key", learn_key()); };
  control_ = std::make_unique<wire::ControlLink>(world_, identity_, options_.control, std::move(self), std::move(callbacks));
}

// Whose the columns are, for a control plane whose store was lost.
wire::Frame Service::held_columns(const fbs::ListHeld& m) const {
  std::vector<fbs::HeldColumn> out;
  std::pair<std::uint16_t, std::uint32_t> next{m.device(), m.column()};
  bool more = false;
  for (std::size_t i = next.first; i < devices_.size() && !more; ++i) {
    const Device& d = *devices_[i];
    for (std::uint32_t n = i == next.first ? next.second : 0; d.usable() && n < d.columns() && !more; ++n) {
      if (d.row(n).owner == 0) continue;
      more = out.size() * sizeof(fbs::HeldColumn) >= options_.list_bytes;
      if (more) next = {d.index(), n};
      else out.emplace_back(d.row(n).owner, n, d.index(), 0);
    }
  }
  return wire::make_frame(wire::Kind::held, [&](flatbuffers::FlatBufferBuilder& b) {
    auto columns = b.CreateVectorOfStructs(out);
    return fbs::CreateHeld(b, 0, 0, 0, columns, more, next.first, next.second);
  });
}

void Service::on_control(const ChannelPtr& channel, const wire::Frame& frame) {
  const auto* m = frame.kind == wire::Kind::list_held ? frame.as<fbs::ListHeld>() : nullptr;
  if (m) return channel->reply(frame, held_columns(*m));
  channel->reply(frame, wire::reply_frame(Status(Code::invalid, "a sled does not answer '" + std::string(wire::kind_name(frame.kind)) + "' of the control plane")));
}

io::Task<void> Service::drain() {
  draining_ = true;
  server_.close();
  if (control_) control_->stop();
  while (requests_ != 0) co_await work_done_.wait();
  co_await world_.sleep(10ms);  // the last answers leave
  peers_.stop();
}

std::string Service::unfinished() const { return std::to_string(requests_) + " requests in progress"; }

namespace {

std::string device_json(const Device& d) {
  return fmt::format(
      R"({{"path":"{}","state":"{}","reason":"{}","id":"{}","bytes":{},"column_bytes":{},"columns":{},"free_columns":{},"errors":{}}})",
      json_text(d.spec().path), d.state_name(), json_text(d.failure().text()), d.id() != 0 ? to_string_id(d.id()) : "", d.bytes(), d.column_bytes(),
      d.columns(), d.free_columns(), d.counters().errors);
}

// Who coded how much, and how the device does (docs/formats.md, "reports").
std::string coding_json(const coding::GuardedCoder& coder, const std::string& verify) {
  const coding::GuardedCoder::Counters& c = coder.counters();
  std::string figures;
  for (const auto& [name, value] : coder.figures()) figures += fmt::format(R"({}"{}":{})", figures.empty() ? "" : ",", name, value);
  return fmt::format(
      R"({{"device":"{}","state":"{}","last_fault":"{}","verify":"{}","device_jobs":{},"device_bytes":{},"software_jobs":{},"software_bytes":{},)"
      R"("fallbacks":{},"compared":{},"wrong":{},"hung":{},"refused":{},"tests_passed":{},"tests_failed":{},"longest_wait_ms":{},"card":{{{}}}}})",
      coder.has_device() ? coder.device_name() : "none", coder.has_device() ? state_name(coder.state()) : "none", json_text(coder.last_fault()), verify,
      c.device.jobs, c.device.source_bytes, c.software.jobs, c.software.source_bytes, c.fallbacks, c.compared, c.wrong, c.hung, c.refused,
      c.tests_passed, c.tests_failed, c.longest_wait / std::chrono::milliseconds(1), figures);
}

}  // namespace

std::string Service::report() const {
  std::string devices;
  Device::Counters sum;
  for (const auto& d : devices_) {
    devices += (devices.empty() ? "" : ",") + device_json(*d);
    const Device::Counters& c = d->counters();
    sum.chunks_written += c.chunks_written;
    sum.chunk_bytes += c.chunk_bytes;
    sum.chunks_read += c.chunks_read;
    sum.read_bytes += c.read_bytes;
  }
  const Counters& c = counters_;
  return fmt::format(
      R"({{"devices":[{}],"counters":{{"chunks_written":{},"chunk_bytes_written":{},"chunks_read":{},"bytes_read":{},"stripes_coded":{},)"
      R"("source_bytes_coded":{},"blocks_rebuilt":{},"fenced":{},"stale":{},"corrupt":{},"io_errors":{}}},"credentials":{},"coder":"{}","coding":{}}})",
      devices, sum.chunks_written, sum.chunk_bytes, sum.chunks_read, sum.read_bytes, c.stripes_coded, c.source_bytes_coded, c.blocks_rebuilt,
      c.fenced, c.stale, c.corrupt, c.io_errors, credentials_json(), coder_.name(), coding_json(coder_, options_.verify));
}

Sled::Sled(io::World& world, Options options) : service_(std::make_unique<Service>(world, std::move(options))) {}
Sled::~Sled() = default;
io::Task<Status> Sled::start() { return service_->start(); }
io::Task<void> Sled::drain() { return service_->drain(); }
std::string Sled::unfinished() const { return service_->unfinished(); }
std::string Sled::address() const { return service_->address(); }
std::string Sled::report() const { return service_->report(); }

}  // namespace luge::sled
