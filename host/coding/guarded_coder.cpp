#include "coding/guarded_coder.hpp"

#include <algorithm>

#include "base/logging.hpp"
#include "io/within.hpp"
#include "switches/switches.hpp"

namespace luge::coding {
namespace {

constexpr std::size_t kTurnBytes = 256 << 10;  // coded in software before others get their turn on the loop

std::string_view fault_name(GuardedCoder::Fault f) {
  switch (f) {
    case GuardedCoder::Fault::wrong: return "gave wrong bytes";
    case GuardedCoder::Fault::hung: return "did not answer in time";
    default: return "answered with an error";
  }
}

bool same(const std::vector<Buffer>& a, const std::vector<Buffer>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].size() != b[i].size() || std::memcmp(a[i].data(), b[i].data(), a[i].size()) != 0) return false;
  return true;
}

}  // namespace

std::string_view state_name(GuardedCoder::State s) {
  switch (s) {
    case GuardedCoder::State::opening: return "opening";
    case GuardedCoder::State::healthy: return "healthy";
    case GuardedCoder::State::suspect: return "suspect";
    default: return "out";
  }
}

// Owns the memory of what it is about, so that a device that is late still writes into nobody else's.
struct GuardedCoder::Job {
  Layout layout;
  std::vector<Buffer> from;             // encode: k; reconstruct: k + m, empty where there is none
  std::vector<std::uint32_t> wanted;    // empty: encode
  Authority who;
  std::vector<Buffer> out;
  std::uint64_t outage = 0;
  Fault fault = Fault::refused;         // why by_device() failed, and its words
  std::string words;
  Status fenced;                        // by the device: not ok

  bool decodes() const { return !wanted.empty(); }
  std::size_t chunk_bytes() const {
    for (const Buffer& b : from)
      if (!b.empty()) return b.size();
    return 0;
  }
  std::uint64_t source_bytes() const { return std::uint64_t{layout.k} * chunk_bytes(); }
  std::size_t results() const { return decodes() ? wanted.size() : layout.m; }
  io::Task<Status> run(ErasureCoder& coder, std::span<Buffer> to, std::size_t at, std::size_t bytes) const {
    std::vector<Bytes> sources;
    std::vector<MutableBytes> targets;
    for (const Buffer& b : from) sources.push_back(b.empty() ? Bytes() : b.bytes().subspan(at, bytes));
    for (Buffer& b : to) targets.push_back(b.mutable_bytes().subspan(at, bytes));
    Status s = decodes() ? co_await coder.reconstruct(layout, sources, wanted, targets) : co_await coder.encode_for(who, layout, sources, targets);
    co_return s;
  }
};

GuardedCoder::GuardedCoder(io::World& world, std::shared_ptr<ErasureCoder> device, Options options)
    : world_(world), options_(options), device_(std::move(device)), software_(make_isal_coder()), pause_(options.first_pause), room_(world) {}
GuardedCoder::~GuardedCoder() = default;

io::Task<Status> GuardedCoder::start() {
  if (!device_) co_return Status();
  Status s = co_await device_->reset();
  if (s.ok()) s = co_await self_test();
  if (s.ok()) {
    ++counters_.tests_passed;
    state_ = State::healthy;
    co_return s;
  }
  ++counters_.tests_failed;
  fault(Fault::refused, s.text());
  co_return s;
}

std::shared_ptr<GuardedCoder::Job> GuardedCoder::make_job(Layout layout, std::vector<Buffer> from, std::vector<std::uint32_t> wanted) {
  auto job = std::make_shared<Job>();
  job->layout = layout;
  job->from = std::move(from);
  job->wanted = std::move(wanted);
  return job;
}

io::Task<Result<GuardedCoder::Coded>> GuardedCoder::encode(Layout layout, std::vector<Buffer> data, Authority who) {
  if (data.size() != layout.k || layout.k == 0) co_return Status(Code::invalid, "chunk count is not that of the layout");
  if (layout.m == 0) co_return Coded{};
  std::shared_ptr<Job> job = make_job(layout, std::move(data), {});
  job->who = who;
  const bool made = co_await by_device(job);
  if (!job->fenced.ok()) co_return job->fenced;
  if (!made) co_return co_await by_software(*job);
  if (compare_due() || job->outage != outage_) co_return co_await compared(job);
  co_return taken_from_device(*job);
}

io::Task<Result<GuardedCoder::Coded>> GuardedCoder::reconstruct(Layout layout, std::vector<Buffer> present, std::vector<std::uint32_t> wanted, Right right) {
  if (present.size() != layout.width() || wanted.empty()) co_return Status(Code::invalid, "chunk count is not that of the layout");
  std::shared_ptr<Job> job = make_job(layout, std::move(present), std::move(wanted));
  if (!co_await by_device(job)) co_return co_await by_software(*job);
  if (!right(job->out)) co_return co_await compared(job);
  co_return taken_from_device(*job);
}

io::Task<Status> GuardedCoder::attempt(std::shared_ptr<ErasureCoder> device, std::shared_ptr<Job> job) {
  Status s = co_await job->run(*device, job->out, 0, job->chunk_bytes());
  co_return s;
}

// True: the device says that job->out is done.
io::Task<bool> GuardedCoder::by_device(std::shared_ptr<Job> job) {
  while (usable() && in_flight_ >= options_.in_flight) co_await room_.wait();
  if (!usable()) co_return false;
  for (std::size_t i = 0; i < job->results(); ++i) job->out.push_back(device_->allocate(job->chunk_bytes()));
  job->outage = outage_;
  struct Place {
    GuardedCoder& g;
    explicit Place(GuardedCoder& guard) : g(guard) { ++g.in_flight_; }
    ~Place() {
      --g.in_flight_;
      g.room_.notify_one();
    }
  } place(*this);
  io::Duration deadline = broken(Switch::hung_card_waited_for) ? std::chrono::minutes(10) : options_.deadline;
  // The attempt has its own hold on the job, and this one lets go of it after a fault: what is late is dropped with it.
  io::Time begin = world_.now();
  std::optional<Status> ended = co_await io::within(world_, deadline, attempt(device_, job));
  if (ended && ended->ok()) co_return true;
  if (ended && ended->code() == Code::fenced && job->who.epoch != 0 && !broken(Switch::card_fence_ignored)) {
    job->fenced = *ended;
    co_return false;
  }
  counters_.longest_wait = std::max(counters_.longest_wait, world_.now() - begin);
  if (job->outage == outage_) {
    if (!ended) fault(Fault::hung, "no answer within " + std::to_string(options_.deadline / std::chrono::milliseconds(1)) + " ms");
    else fault(Fault::refused, ended->to_string());
  }
  co_return false;
}

// In slices across all chunks, so that a large stripe does not hold the loop.
io::Task<Status> GuardedCoder::run_software(const Job& job, std::vector<Buffer>& out) {
  std::size_t bytes = job.chunk_bytes();
  for (std::size_t i = 0; i < job.results(); ++i) out.push_back(Buffer::allocate(bytes));
  std::size_t slice = std::max<std::size_t>(kBlockBytes, kTurnBytes / job.layout.k / kBlockBytes * kBlockBytes);
  for (std::size_t at = 0; at < bytes; at += slice) {
    if (at != 0) co_await world_.yield();
    if (Status s = co_await job.run(*software_, out, at, std::min(slice, bytes - at)); !s.ok()) co_return s;
  }
  co_return Status();
}

io::Task<Result<GuardedCoder::Coded>> GuardedCoder::by_software(const Job& job) {
  Coded coded;
  if (Status s = co_await run_software(job, coded.chunks); !s.ok()) co_return s;
  count_software(job);
  co_return coded;
}

void GuardedCoder::count_software(const Job& job) {
  ++counters_.software.jobs;
  counters_.software.source_bytes += job.source_bytes();
  counters_.fallbacks += device_ != nullptr;
}

GuardedCoder::Coded GuardedCoder::taken_from_device(Job& job) {
  ++counters_.device.jobs;
  counters_.device.source_bytes += job.source_bytes();
  return Coded{std::move(job.out), true};
}

// The device's result if it is software's too; else software's, and the device is out.
io::Task<Result<GuardedCoder::Coded>> GuardedCoder::compared(std::shared_ptr<Job> job) {
  ++counters_.compared;
  std::vector<Buffer> check;
  if (Status s = co_await run_software(*job, check); !s.ok()) co_return s;
  if (!same(job->out, check) && !broken(Switch::card_parity_unverified)) {
    fault(Fault::wrong, job->decodes() ? "what it decoded is not what software decodes" : "its parity is not software's");
    count_software(*job);
    co_return Coded{std::move(check), false};
  }
  if (state_ == State::suspect && job->outage == outage_ && ++good_ >= options_.probation) {
    state_ = State::healthy;
    pause_ = options_.first_pause;
    logging::info("coder {} is healthy again: {} jobs in a row were right", device_->name(), good_);
  }
  co_return taken_from_device(*job);
}

bool GuardedCoder::compare_due() { return options_.verify_all || state_ != State::healthy || sampled_++ % options_.sample == 0; }

void GuardedCoder::fault(Fault kind, const std::string& text) {
  (kind == Fault::wrong ? counters_.wrong : kind == Fault::hung ? counters_.hung : counters_.refused) += 1;
  last_fault_ = std::string(fault_name(kind)) + ": " + text;
  logging::error("coder {} {}; {} codes instead", device_->name(), last_fault_, software_->name());
  state_ = State::out;
  ++outage_;
  good_ = 0;
  room_.notify_all();
  if (std::exchange(bringing_back_, true)) return;
  world_.spawn("coder comes back", bring_back());
}

io::Task<void> GuardedCoder::bring_back() {
  while (true) {
    co_await world_.sleep(pause_);
    pause_ = std::min(2 * pause_, options_.longest_pause);
    std::uint64_t outage = outage_;
    Status s = co_await device_->reset();
    if (s.ok() && !broken(Switch::card_back_untested)) s = co_await self_test();
    if (s.ok() && outage == outage_) break;
    ++counters_.tests_failed;
    if (!s.ok()) last_fault_ = "self-test: " + s.to_string();
    logging::warn("coder {} stays out: {}; tried again in {} ms", device_->name(), last_fault_, pause_ / std::chrono::milliseconds(1));
  }
  ++counters_.tests_passed;
  bringing_back_ = false;
  state_ = State::suspect;
  logging::info("coder {} has passed its self-test and codes again", device_->name());
}

// Encode, and decode with the first data and the first parity chunk lost, of bytes that are others each time.
io::Task<Status> GuardedCoder::test_layout(Layout layout, std::size_t bytes) {
  std::vector<Buffer> data, expected;
  for (std::uint32_t i = 0; i < layout.k; ++i) {
    data.push_back(device_->allocate(bytes));
    for (std::size_t at = 0; at < bytes; at += 8) {
      test_pattern_ = test_pattern_ * 6364136223846793005u + 1442695040888963407u;
      std::memcpy(data.back().data() + at, &test_pattern_, 8);
    }
  }
  auto tested = [&](std::shared_ptr<Job> job, const char* what) -> io::Task<Status> {
    for (std::size_t i = 0; i < job->results(); ++i) job->out.push_back(device_->allocate(bytes));
    for (Buffer& b : job->out) std::memset(b.data(), 0xa5, bytes);  // a device that writes nothing
    auto ended = co_await io::within(world_, options_.deadline, attempt(device_, job));
    if (!ended) co_return Status(Code::timed_out, std::string(what) + ": no answer within the deadline");
    if (!ended->ok()) co_return ended->with(what);
    expected.clear();
    if (Status s = co_await run_software(*job, expected); !s.ok()) co_return s.with(what);
    co_return same(job->out, expected) ? Status() : Status(Code::corrupt, std::string(what) + " of " + to_string(job->layout) + " gave wrong bytes");
  };
  std::shared_ptr<Job> encode = make_job(layout, data, {});
  if (Status s = co_await tested(encode, "encode"); !s.ok()) co_return s;
  std::vector<Buffer> present = data;
  present.insert(present.end(), encode->out.begin(), encode->out.end());
  present[0] = present[layout.k] = Buffer();
  co_return co_await tested(make_job(layout, present, {0, layout.k}), "decode");
}

io::Task<Status> GuardedCoder::self_test() {
  for (auto [layout, bytes] : {std::pair(Layout{4, 2}, 16 << 10), std::pair(Layout{10, 4}, 4 << 10), std::pair(Layout{2, 2}, 12 << 10)})
    if (Status s = co_await test_layout(layout, static_cast<std::size_t>(bytes)); !s.ok()) co_return s;
  co_return Status();
}

}  // namespace luge::coding
