#include "head/head.hpp"

#include "base/logging.hpp"
#include "head/outbox.hpp"
#include "head/partition.hpp"
#include "head/primary.hpp"
#include "head/recovery.hpp"
#include "head/report.hpp"
#include "head/server.hpp"

namespace luge::head {

namespace {
constexpr std::uint64_t kReadMemory = 256 << 20;
}

using namespace std::chrono_literals;

std::shared_ptr<Reader> Context::reader_of(const wire::Channel& channel) {
  if (auto known = readers[&channel].lock()) return known;
  if (readers.size() > 1024) absl::erase_if(readers, [](const auto& r) { return r.second.expired(); });
  auto made = std::make_shared<Reader>(world);
  readers[&channel] = made;
  return made;
}

Context::Context(io::World& w, Options o) : world(w), options(std::move(o)), identity{options.unit, options.id}, started(w.now()), read_memory(w, kReadMemory) {}
Context::~Context() = default;

Head::Head(io::World& world, Options options) : ctx_(std::make_unique<Context>(world, std::move(options))) {}
Head::~Head() = default;

io::Task<Status> Head::start() {
  Context& ctx = *ctx_;
  ctx.coder = coding::make_isal_coder();
  if (Status s = co_await recover(ctx); !s.ok()) co_return s;
  server_ = std::make_unique<HeadServer>(ctx);
  if (Status s = co_await server_->start([this] { return report(); }); !s.ok()) co_return s;
  co_return Status();
}

io::Task<void> Head::drain() {
  ctx_->draining = true;
  // What was appended gets its answer if it can; nothing depends on it.
  for (int i = 0; i < 20; ++i) {
    bool busy = ctx_->data_log->queued_bytes() != 0 || ctx_->meta_log->queued_bytes() != 0;
    if (!busy) break;
    co_await ctx_->world.sleep(10ms);
  }
  if (server_) server_->stop();
}

std::string Head::address() const { return server_ ? server_->address() : std::string(); }
std::string Head::report() const { return make_report(*ctx_); }

std::optional<Head::Digest> Head::digest(VpId vp) const {
  Partition* p = ctx_->partition(vp);
  if (!p) return std::nullopt;
  return Digest{p->replica.commit(), p->replica.index().digest(), p->designation().epoch, p->is_primary(), p->replica.suspect,
                p->is_primary() && p->primary->lease_holds()};
}

std::uint64_t Head::narrow_stripes() const {
  std::uint64_t n = 0;
  for (const auto& [vp, p] : ctx_->partitions)
    if (p->is_primary()) n += p->replica.narrow_stripes().size();
  return n;
}

const Replica* Head::replica(VpId vp) const {
  Partition* p = ctx_->partition(vp);
  return p ? &p->replica : nullptr;
}

}  // namespace luge::head
