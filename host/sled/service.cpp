// A sled's life: its unit, its devices, its registration, its report.
#include "sled/service.hpp"

#include <spdlog/fmt/fmt.h>

#include "base/json_text.hpp"
#include "base/logging.hpp"

namespace luge::sled {

using namespace std::chrono_literals;

Service::Service(io::World& world, Options options)
    : world_(world), options_(std::move(options)), identity_{options_.unit, options_.id}, server_(world, identity_),
      work_done_(world), reads_(world, options_.read_memory) {}
Service::~Service() = default;

io::Task<Status> Service::start() {
  if (options_.devices.empty()) co_return Status(Code::invalid, "a sled needs at least one device");
  if (options_.devices.size() > 256) co_return Status(Code::invalid, "a sled has at most 256 devices");
  if (identity_.unit == 0 && options_.control.empty()) co_return Status(Code::invalid, "neither the storage unit nor a control plane that knows it is given");
  Status s = server_.listen(options_.listen, [this](const ChannelPtr& c, wire::Frame f) {
    world_.spawn("request", answer(c, std::move(f)));
  });
  if (!s.ok()) co_return s;
  if (!options_.control.empty()) make_control_link();
  if (identity_.unit == 0) s = co_await learn_unit();
  if (s.ok()) s = co_await open_devices();
  if (!s.ok()) co_return s;
  co_await spread_fences();
  gateway_ = std::make_unique<Gateway>(
      world_, identity_, options_, counters_, [this](VpId vp, Epoch epoch) { return epoch < held(vp) ? check_epoch(vp, epoch) : Status(); },
      [this](const fbs::ChunkPlace& place, Epoch epoch, Bytes header_area, Bytes chunk) { return store_chunk(place, epoch, header_area, chunk); });
  if (control_) {
    control_->stop();  // registers once more, now with the devices
    control_->start();
  }
  co_return Status();
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

io::Task<Status> Service::open_devices() {
  Status last;
  bool any = false;
  for (std::size_t i = 0; i < options_.devices.size(); ++i) {
    devices_.push_back(std::make_unique<Device>(world_, options_.devices[i], static_cast<std::uint16_t>(i), identity_.unit, options_.id,
                                                options_.column_bytes));
    Device& d = *devices_.back();
    Status s = co_await d.open();
    if (s.code() == Code::wrong_unit || s.code() == Code::wrong_version || s.code() == Code::invalid) co_return s;
    if (!s.ok()) {
      logging::error("{}; the device is left out", s.to_string());
      last = s;
      continue;
    }
    for (auto [vp, epoch] : d.fences()) epochs_[vp] = std::max(epochs_[vp], epoch);
    any = true;
  }
  co_return any ? Status() : last.with("no device can be used");
}

// A device that was away when an epoch began learns of it now, so that any one of them is enough to remember it.
io::Task<void> Service::spread_fences() {
  for (auto& d : devices_) {
    if (d->state() != Device::State::ok) continue;
    for (auto [vp, epoch] : epochs_) {
      Status s = co_await d->fence(vp, epoch);
      if (s.ok()) continue;
      logging::warn("{}", s.to_string());
      break;
    }
  }
}

std::vector<flatbuffers::Offset<fbs::Device>> Service::device_rows(flatbuffers::FlatBufferBuilder& b) const {
  std::vector<flatbuffers::Offset<fbs::Device>> rows;
  for (const auto& d : devices_) {
    auto state = b.CreateString(std::string(d->state_name()));
    rows.push_back(fbs::CreateDevice(b, d->index(), d->bytes(), d->column_bytes(), d->columns(), d->free_columns(), state));
  }
  return rows;
}

void Service::make_control_link() {
  std::uint64_t incarnation = options_.incarnation != 0 ? options_.incarnation : world_.random() | 1;
  wire::ControlLink::Self self{options_.id, options_.name, "sled", server_.address(), incarnation, options_.pid};
  wire::ControlLink::Callbacks callbacks;
  callbacks.report = [this] { return report(); };
  callbacks.devices = [this](flatbuffers::FlatBufferBuilder& b) { return device_rows(b); };
  control_ = std::make_unique<wire::ControlLink>(world_, identity_, options_.control, std::move(self), std::move(callbacks));
}

io::Task<void> Service::drain() {
  draining_ = true;
  server_.close();
  if (control_) control_->stop();
  io::Time deadline = world_.now() + 10s;
  while (requests_ != 0 && co_await work_done_.wait_until(deadline)) {
  }
  if (requests_ != 0) logging::warn("{} requests are still in progress after 10 s; leaving them", requests_);
  co_await world_.sleep(10ms);  // the last answers leave
  if (gateway_) gateway_->stop();
}

namespace {

std::string device_json(const Device& d) {
  return fmt::format(
      R"({{"path":"{}","state":"{}","reason":"{}","bytes":{},"column_bytes":{},"columns":{},"free_columns":{},"errors":{}}})",
      json_text(d.spec().path), d.state_name(), json_text(d.failure().text()), d.bytes(), d.column_bytes(), d.columns(), d.free_columns(),
      d.counters().errors);
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
      R"("source_bytes_coded":{},"verify_failures":{},"fenced":{},"stale":{},"corrupt":{},"io_errors":{}}},"coder":"{}","coder_suspect":{}}})",
      devices, sum.chunks_written, sum.chunk_bytes, sum.chunks_read, sum.read_bytes, c.stripes_coded, c.source_bytes_coded, c.verify_failures,
      c.fenced, c.stale, c.corrupt, c.io_errors, gateway_ ? gateway_->coder() : "none", gateway_ && gateway_->suspect());
}

Sled::Sled(io::World& world, Options options) : service_(std::make_unique<Service>(world, std::move(options))) {}
Sled::~Sled() = default;
io::Task<Status> Sled::start() { return service_->start(); }
io::Task<void> Sled::drain() { return service_->drain(); }
std::string Sled::address() const { return service_->address(); }
std::string Sled::report() const { return service_->report(); }

}  // namespace luge::sled
