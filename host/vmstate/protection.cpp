#include "vmstate/protection.hpp"

#include <algorithm>

#include "base/config.hpp"
#include "base/logging.hpp"
#include "vmstate/store.hpp"
#include "vmstate/transfer.hpp"
#include "vmstate/volume_store.hpp"

namespace luge::vmstate {
namespace {

namespace json = boost::json;
constexpr std::size_t kPausesKept = 1000;

std::string text(const json::object& o, std::string_view key, std::string fallback = "") {
  const json::value* v = o.if_contains(key);
  return v && v->is_string() ? std::string(v->as_string()) : fallback;
}
bool flag(const json::object& o, std::string_view key, bool fallback) {
  const json::value* v = o.if_contains(key);
  return v && v->is_bool() ? v->as_bool() : fallback;
}

double ms(double seconds) { return std::round(seconds * 1e5) / 1e2; }

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

}  // namespace

Result<std::uint64_t> number_of(const json::object& o, std::string_view key, std::uint64_t fallback, std::uint64_t most) {
  const json::value* v = o.if_contains(key);
  if (v == nullptr || v->is_null()) return fallback;
  boost::system::error_code e;
  const auto n = v->is_number() ? v->to_number<std::uint64_t>(e) : most;
  if (e || !v->is_number() || n > most) return Status(Code::invalid, std::string(key) + " is a whole number from 0 to " + std::to_string(most));
  return n;
}

Result<ProtectionOptions> parse_protection(const json::object& r) {
  ProtectionOptions o;
  o.machine = text(r, "machine"), o.qmp = text(r, "qmp"), o.target = text(r, "to"), o.writes = text(r, "writes", "auto");
  if (Status s = check_machine_name(o.machine); !s.ok()) return s;
  if (o.qmp.empty()) return Status(Code::invalid, "which QEMU? Name the socket of its monitor with --qmp");
  if (const json::value* disks = r.if_contains("disks"); disks && disks->is_array())
    for (const json::value& d : disks->as_array())
      if (d.is_string()) o.disks.emplace_back(d.as_string());
  if (o.disks.empty()) return Status(Code::invalid, "which disks? Name the vhost-user socket of each with --disk");
  if (o.writes != "auto" && o.writes != "pagemap" && o.writes != "compare") return Status(Code::invalid, "--writes is auto, pagemap or compare, not '" + o.writes + "'");
  auto every = number_of(r, "every_ms", 0, 1'000'000'000), keep = number_of(r, "keep", 4, 1'000'000), slots = number_of(r, "slots_log2", o.replication.slots_log2, 20);
  for (const auto* n : {&every, &keep, &slots})
    if (!n->ok()) return n->status();
  o.every = std::chrono::milliseconds(*every);
  o.keep = std::max<std::uint64_t>(1, *keep);
  o.with_disk = flag(r, "with_disk", false);
  if (o.with_disk && o.disks.size() > 1) return Status(Code::invalid, "--with-disk: the machine has more than one disk");
  o.durable = flag(r, "durable", true);
  o.replication.at_scheduling = flag(r, "at_scheduling", false);
  o.replication.slots_log2 = static_cast<unsigned>(*slots);
  o.replication.throttle = flag(r, "throttle", true);
  return o;
}

namespace {
json::array to_json(const std::vector<PassReport>& passes) {
  json::array out;
  for (const PassReport& p : passes)
    out.push_back(json::object{{"pages", p.pages}, {"by_processor", p.by_processor}, {"by_device", p.by_device}, {"by_both", p.by_both}, {"disk", p.disk},
                               {"again", p.again}, {"zero_pages", p.zero_pages}, {"bytes", p.bytes}, {"ms", ms(p.seconds)}});
  return out;
}
}  // namespace

json::object to_json(const Report& r) {
  json::array passes = to_json(r.passes);
  std::uint64_t pages = 0, bytes = 0;
  for (const PassReport& p : r.passes) pages += p.pages, bytes += p.bytes;
  return {{"checkpoint", r.sequence}, {"passes", std::move(passes)}, {"pages", pages}, {"bytes", bytes}, {"records", r.records}, {"pause_ms", ms(r.pause_seconds)}, {"quiet_ms", ms(r.quiet_seconds)},
          {"stop_ms", ms(r.stop_seconds)}, {"device_state_ms", ms(r.state_seconds)}, {"commit_ms", ms(r.commit_seconds)}, {"device_state_bytes", r.state_bytes}, {"throttled_to", r.throttled_to}};
}

Protection::Protection(ProtectionOptions options, std::unique_ptr<Qmp> qmp, const std::string& directory)
    : options_(std::move(options)), qmp_(std::move(qmp)), machine_(*qmp_, options_.machine, directory) {}

Result<std::unique_ptr<Protection>> Protection::open(ProtectionOptions options, const std::string& directory) {
  auto qmp = Qmp::open(options.qmp);
  if (!qmp.ok()) return qmp.status();
  std::unique_ptr<Protection> p(new Protection(std::move(options), std::move(*qmp), directory));
  if (Status s = p->attach(); !s.ok()) return s;
  return p;
}

Status Protection::attach() {
  if (Status s = machine_.prepare(); !s.ok()) return s;
  std::vector<Recorder*> recorders;
  for (const std::string& disk : options_.disks) {
    auto r = VhostRecorder::open(disk + card::kRecorderSuffix);
    if (!r.ok()) return r.status();
    recorders.push_back(r->get());
    recorders_.push_back(std::move(*r));
  }
  auto table = recorders_[0]->memory();
  if (!table.ok()) return table.status();
  auto memory = MachineMemory::make(*table);
  if (!memory.ok()) return memory.status();
  memory_ = std::move(*memory);
  const std::string& to = options_.target;
  if (to.starts_with("dir:")) target_ = std::make_unique<StoreTarget>(to.substr(4), StoreTarget::Options{options_.keep, options_.durable});
  else if (is_nbd(to)) target_ = std::make_unique<VolumeTarget>([to] { return open_nbd(to); }, options_.keep);
  else if (!to.empty()) target_ = std::make_unique<RemoteTarget>(to, false);
  auto begin = [&](std::unique_ptr<ProcessorWrites> writes) {
    replicator_ = std::make_unique<Replicator>(memory_, machine_, std::move(writes), recorders, options_.with_disk ? &recorders_[0]->disk() : nullptr, options_.replication);
    return replicator_->start();
  };
  Status s = begin(options_.writes == "compare" ? compare_writes(memory_) : pagemap_writes(qmp_->pid(), memory_));
  if (s.code() == Code::unavailable && options_.writes == "auto") {
    logging::warn("{}: {}; its memory is compared instead", options_.machine, s.text());
    s = begin(compare_writes(memory_));
  }
  return s;
}

Protection::~Protection() { (void)stop(); }

std::string Protection::description() const {
  json::array files, disks;
  for (const auto& f : memory_->files()) files.push_back(json::object{{"bytes", f.bytes}});
  for (const std::string& d : options_.disks) disks.push_back(json::value(d));
  return json::serialize(json::object{{"machine", options_.machine}, {"memory_files", std::move(files)}, {"disks", std::move(disks)},
                                      {"writes", replicator_->processor_kind()}});
}

Result<Report> Protection::one(Target& target, Replicator::Then then) {
  Begin b;
  b.machine = options_.machine;
  auto newest = target.newest(options_.machine);
  if (!newest.ok()) return newest.status();
  b.parent = parent_ != 0 && parent_ == *newest ? parent_ : 0, b.sequence = *newest + 1;
  under_way_ = true;
  auto r = replicator_->checkpoint(target, b, description(), then);
  under_way_ = false;
  if (r.ok()) parent_ = b.sequence;
  return r;
}

void Protection::note(const Result<Report>& r) {
  std::lock_guard lock(noted_);
  if (!r.ok()) {
    ++failures_, last_error_ = r.status().to_string();
    return;
  }
  ++checkpoints_, last_ = *r, last_error_.clear();
  if (pauses_.size() == kPausesKept) pauses_.erase(pauses_.begin());
  pauses_.push_back(r->pause_seconds);
}

Result<json::object> Protection::checkpoint(bool stay_paused) {
  std::lock_guard lock(working_);
  if (!replicator_) return Status(Code::unavailable, options_.machine + " is not protected any more");
  if (replicator_->undecided()) return undecided(options_.machine);
  if (!target_) return Status(Code::invalid, "where to? Name it with --to");
  auto r = one(*target_, stay_paused ? Replicator::Then::stay_paused : Replicator::Then::resume);
  note(r);
  if (!r.ok()) return r.status();
  return to_json(*r);
}

// Nobody but a person can look at the other host.
Status undecided(const std::string& machine) {
  return Status(Code::conflict, "it isn't known whether " + machine + " runs on the other host: if it does, end the QEMU here; if it surely doesn't, `luge vm release " + machine + "` lets it go on here");
}

Result<json::object> Protection::migrate(const std::string& address) {
  std::lock_guard lock(working_);
  if (!replicator_) return Status(Code::unavailable, options_.machine + " is not protected any more");
  if (options_.with_disk) return Status(Code::invalid, options_.machine + " is protected with its disk, which a migration leaves where it is: release it first");
  {
    std::lock_guard noted(noted_);
    if (replicator_->undecided()) return undecided(options_.machine);
    state_ = "migrating";
  }
  RemoteTarget target(address, true);
  parent_ = 0, under_way_ = true;
  auto r = replicator_->checkpoint(target, {options_.machine, 1, 0, {}}, description(), Replicator::Then::hand_over);
  under_way_ = false;
  note(r);
  std::lock_guard noted(noted_);
  state_ = r.ok() ? "migrated" : replicator_->undecided() ? "unknown" : "protected";
  if (!r.ok()) return r.status();
  // It runs over there. Its recorders go on to record nobody's writes until this one has gone.
  replicator_->moved();
  if (auto quit = qmp_->run("quit"); quit.ok()) machine_.ended();
  else logging::warn("{}: QEMU doesn't end: {}", options_.machine, quit.status().text());
  replicator_.reset();
  return to_json(*r);
}

void Protection::give_up() {
  std::lock_guard lock(noted_);
  if (replicator_) replicator_->give_up();
}

void Protection::run() {
  if (options_.every.count() != 0) thread_ = std::thread([this] { loop(); });
}

void Protection::loop() {
  auto next = std::chrono::steady_clock::now();
  while (true) {
    {
      std::unique_lock lock(sleeping_);
      if (wake_.wait_until(lock, next, [this] { return ending_; })) return;
    }
    auto r = checkpoint();
    if (r.code() == Code::conflict && waits_for_a_person()) return;
    if (!r.ok()) logging::warn("{}: no checkpoint: {}", options_.machine, r.status().to_string());
    next = std::max(next + options_.every, std::chrono::steady_clock::now());
    if (!r.ok()) next += std::chrono::seconds(1);
  }
}

bool Protection::waits_for_a_person() const {
  std::lock_guard lock(noted_);
  return state_ == "unknown";
}

Status Protection::release() {
  const bool decided = waits_for_a_person();  // not of a migration that is under way still
  give_up();
  {
    std::lock_guard lock(working_);
    if (replicator_ && replicator_->undecided()) {
      if (!decided) return undecided(options_.machine);
      replicator_->runs_nowhere_else();
      std::lock_guard noted(noted_);
      state_ = "released";
    }
  }
  return stop();
}

// More than one may end it at a time: a person, the end of the daemon, a migration that went well.
Status Protection::stop() {
  std::lock_guard one(stopping_);
  {
    std::lock_guard lock(sleeping_);
    ending_ = true;
  }
  wake_.notify_all();
  give_up();
  if (thread_.joinable()) thread_.join();
  std::lock_guard lock(working_);
  Status s = replicator_ ? replicator_->stop() : Status();
  machine_.release();
  std::lock_guard noted(noted_);
  replicator_.reset();
  return s;
}

json::object Protection::status() const {
  std::lock_guard lock(noted_);
  json::object o{{"machine", options_.machine}, {"state", state_}, {"to", options_.target}, {"every_ms", options_.every.count()}, {"checkpoints", checkpoints_},
                 {"failures", failures_}, {"pause_median_ms", ms(median(pauses_))},
                 {"pause_worst_ms", ms(pauses_.empty() ? 0 : *std::max_element(pauses_.begin(), pauses_.end()))}};
  if (!last_error_.empty()) o["error"] = last_error_;
  if (checkpoints_ != 0) o["last"] = to_json(last_);
  if (replicator_) {
    const auto c = replicator_->device_counters();
    o["writes"] = replicator_->processor_kind();
    o["memory_bytes"] = replicator_->shape().memory_pages * kPage;
    o["records"] = json::object{{"count", c.records}, {"bytes", c.bytes}, {"overflows", c.overflows}, {"gaps", c.gaps}, {"outside", c.outside}};
    if (under_way_) o["under_way"] = to_json(replicator_->passes());  // of this checkpoint, so far
    o["expected_pause_ms"] = ms(replicator_->expected_pause());
  }
  return o;
}

}  // namespace luge::vmstate
