#include "card/card.hpp"

#include "base/logging.hpp"
#include "card/coder.hpp"
#include "card/hold.hpp"
#include "card/link.hpp"

namespace luge::card {
namespace {

class LinkCard final : public Card {
 public:
  LinkCard(std::shared_ptr<Link> link, const std::string& kind)
      : link_(std::move(link)), name_("card-" + kind), description_(link_->hello().text), coder_(make_link_coder(link_, name_)) {}
  ~LinkCard() override { link_->close(true); }

  std::string_view name() const override { return name_; }
  std::string describe() const override { return description_; }
  std::shared_ptr<coding::ErasureCoder> coder() override { return coder_; }
  Buffer allocate(std::size_t bytes) override { return coder_->allocate(bytes); }
  io::Task<Status> self_test() override { return self_test_on(link_); }
  io::Task<Result<CardCounters>> counters() override { return link_->ask_counters(); }
  io::Task<Result<FirmwareReport>> firmware(int op, std::span<const std::uint32_t> arguments) override { return link_->ask_firmware(op, arguments); }
  Status status() const override { return link_->status(); }
  Fault fault() const override { return link_->fault(); }
  int process() const override { return link_->pid(); }

 private:
  std::shared_ptr<Link> link_;
  std::string name_, description_;
  std::shared_ptr<coding::ErasureCoder> coder_;
};

// Opens its card anew on reset(). Counts over all the cards it has had.
class ReopeningCoder final : public coding::ErasureCoder, public std::enable_shared_from_this<ReopeningCoder> {
 public:
  ReopeningCoder(io::World& world, CardOptions options) : world_(world), options_(std::move(options)), name_("card-" + options_.kind) {}
  ~ReopeningCoder() override {
    if (link_) link_->close(true);
  }

  io::Task<Status> reset() override {
    drop();
    if (!std::exchange(watching_, true)) world_.spawn("card hold", watch_hold(weak_from_this()));
    if (card_held(options_)) co_return Status(Code::unavailable, "the card is held for maintenance (luge card flash)");
    auto link = std::make_shared<Link>(dynamic_cast<io::RealWorld&>(world_), options_);
    link_ = link;
    ++opened_;
    co_return co_await link->open();
  }
  io::Task<Status> encode(Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override { return encode_for({}, l, data, parity); }
  io::Task<Status> encode_for(coding::Authority who, Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override {
    auto link = link_;
    if (!link) co_return closed();
    co_return co_await encode_on(link, l, data, parity, who);
  }
  io::Task<Status> reconstruct(Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted,
                               std::span<const MutableBytes> out) override {
    auto link = link_;
    if (!link) co_return closed();
    co_return co_await reconstruct_on(link, l, present, wanted, out);
  }
  std::string_view name() const override { return name_; }
  Buffer allocate(std::size_t bytes) override {
    Buffer b = link_ && link_->status().ok() && link_->pool() ? link_->pool()->take(bytes, false) : Buffer();
    return b.empty() ? Buffer::allocate(bytes) : b;
  }
  Figures figures() const override {
    Figures f;
    CardCounters none;
    const CardCounters& c = link_ ? link_->counters() : none;
    for (std::size_t i = 0; i < std::size(kFields); ++i) f.emplace_back(kFields[i].name, before_[i] + c.*kFields[i].value);
    f.emplace_back("opened", opened_);
    return f;
  }

 private:
  struct Field { const char* name; std::uint64_t CardCounters::*value; };
  static constexpr Field kFields[] = {
      {"jobs", &CardCounters::jobs}, {"jobs_failed", &CardCounters::jobs_failed}, {"encode_jobs", &CardCounters::encode_jobs},
      {"decode_jobs", &CardCounters::decode_jobs}, {"tables_loaded", &CardCounters::tables_loaded}, {"source_bytes", &CardCounters::source_bytes},
      {"result_bytes", &CardCounters::result_bytes}, {"copied_bytes", &CardCounters::copied_bytes}, {"to_card_ns", &CardCounters::to_card_ns},
      {"on_card_ns", &CardCounters::on_card_ns}, {"from_card_ns", &CardCounters::from_card_ns}, {"cycles", &CardCounters::cycles},
      {"busy_cycles", &CardCounters::busy_cycles}, {"beats_read", &CardCounters::beats_read}, {"beats_written", &CardCounters::beats_written},
      {"read_stalls", &CardCounters::read_stalls}, {"write_stalls", &CardCounters::write_stalls}};

  // Who holds the card waits for its lock: this host lets go of it within kHoldEvery and what its jobs take. Later calls end `unavailable`, and
  // whoever guards this coder codes by itself until reset() succeeds again.
  static io::Task<void> watch_hold(std::weak_ptr<ReopeningCoder> weak) {
    for (;;) {
      auto self = weak.lock();
      if (!self) co_return;
      io::World& world = self->world_;
      if (self->link_ && card_held(self->options_)) {
        logging::info("{} is held for maintenance: given up when its jobs have ended", self->name_);
        auto link = std::exchange(self->link_, nullptr);
        const io::Time end = world.now() + 2 * self->options_.job_limit;
        while (link->in_flight() != 0 && world.now() < end) co_await world.sleep(std::chrono::milliseconds(10));
        self->link_ = std::move(link);
        self->drop();
      }
      self.reset();
      co_await world.sleep(kHoldEvery);
    }
  }
  static constexpr io::Duration kHoldEvery = std::chrono::milliseconds(300);

  void drop() {
    if (!link_) return;
    link_->close(false);  // while a daemon works
    for (std::size_t i = 0; i < std::size(kFields); ++i) before_[i] += link_->counters().*kFields[i].value;
    link_.reset();
  }
  Status closed() const { return Status(Code::unavailable, "card " + options_.kind + " is not open"); }

  io::World& world_;
  CardOptions options_;
  std::string name_;
  std::shared_ptr<Link> link_;
  std::uint64_t before_[std::size(kFields)] = {};
  std::uint64_t opened_ = 0;
  bool watching_ = false;
};

}  // namespace

std::string_view fault_name(Fault fault) {
  constexpr std::string_view names[] = {"none", "bus_error", "hang", "died", "wrong_version", "not_a_card", "no_runtime", "in_use", "refused"};
  auto i = static_cast<std::size_t>(fault);
  return i < std::size(names) ? names[i] : "unknown";
}

io::Task<Result<std::unique_ptr<Card>>> open_card(io::World& world, CardOptions options) {
  Fault ignored;
  co_return co_await open_card(world, std::move(options), ignored);
}

io::Task<Result<std::unique_ptr<Card>>> open_card(io::World& world, CardOptions options, Fault& fault) {
  auto link = std::make_shared<Link>(dynamic_cast<io::RealWorld&>(world), options);
  Status s = co_await link->open();
  fault = link->fault();
  if (!s.ok()) {
    link->close(false);
    co_return s;
  }
  co_return std::make_unique<LinkCard>(std::move(link), options.kind);
}

std::shared_ptr<coding::ErasureCoder> make_card_coder(io::World& world, CardOptions options) {
  return std::make_shared<ReopeningCoder>(world, std::move(options));
}

}  // namespace luge::card
