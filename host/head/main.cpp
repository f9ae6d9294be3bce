// luge-head: log, replicas and primaries of one head node.
#include <unistd.h>

#include "head/head.hpp"
#include "io/daemon.hpp"

namespace luge::head {
namespace {

using namespace std::chrono_literals;

class HeadDaemon {
 public:
  static std::vector<Option> options() {
    using T = Option::Type;
    return {
        {"listen", T::text, "", "address for attaches and other heads: unix:PATH or tcp:HOST:PORT", true},
        {"control", T::text, "", "address of the control plane", true},
        {"log-bytes", T::bytes, "1GiB", "volume-data portion of the log; pre-written at the first start"},
        {"meta-bytes", T::bytes, "128MiB", "metadata portion of the log, at first"},
        {"meta-bytes-most", T::bytes, "8GiB", "... and the size to which it may grow: four times the metadata of all volumes, some 1 % of what they map"},
        {"segment-bytes", T::bytes, "16MiB", "one segment of the volume-data portion"},
        {"chunk-bytes", T::bytes, "128KiB", "one chunk of new stripes"},
        {"coding", T::text, "gateway", "who codes new stripes: gateway, a sled of the stripe with its card or processor, or head, this head's processor"},
        {"memory-bytes", T::bytes, "256MiB", "payloads kept in memory until they are flushed"},
        {"reads", T::text, "lease", "lease: reads are answered while no other head can have become primary (rates of CLOCK_BOOTTIME differ by less than 1 %); confirmed: after a round to the reserves, which rests on no clock"},
        {"flush-bytes", T::bytes, "64MiB", "a flush starts at this much unflushed data of a VP"},
        {"flush-age", T::duration, "20s", "... or when data has waited this long"},
        {"flush-idle", T::duration, "3s", "... or when nothing was written for this long"},
        {"replace-after", T::duration, "5s", "another head takes the place of one that has been given up for this long"},
        {"checkpoints", T::text, "all", "all: every replica writes checkpoints of its metadata to the sleds; primary: a VP's primary alone; none: nobody, and none are used to rebuild a replica"},
        {"checkpoint-growth", T::bytes, "1MiB", "a checkpoint is due after this much of metadata records of a VP"},
        {"checkpoint-age", T::duration, "60s", "... or when the last is this old and anything has changed"},
        {"checkpoint-pages", T::number, "2048", "... or when this number of index pages (2 MiB of the volume each) has changed"},
        {"slow-factor", T::number, "4", "writes do not wait for a reserve whose median latency is this many times that of the primary's own log; a primary that is so much slower than every reserve hands over; 0: never"},
        {"slow-floor", T::duration, "20ms", "... and is longer than it by at least this"},
        {"slow-back", T::number, "2", "they wait for it again below this many times, or when it is longer by less than half of slow-floor"},
        {"io-timeout", T::duration, "30s", "a log whose disk takes longer for one operation has failed, and this head with it; at least 1s. A primary hands over after 10s"},
        {"slow-gap", T::duration, "10s", "least time between two such changes of a partition; at least 1s"},
    };
  }

  HeadDaemon(io::World& world, const io::DaemonOptions& options) : world_(world), options_(options) {}

  io::Task<Status> start() {
    const Settings& s = options_.settings;
    Options o;
    o.id = options_.id;
    o.name = options_.name;
    o.unit = options_.unit;
    o.pid = static_cast<std::uint32_t>(::getpid());
    o.listen = s.text("listen");
    o.control = s.text("control");
    o.log_bytes = s.bytes("log-bytes");
    o.meta_bytes = s.bytes("meta-bytes");
    o.meta_bytes_most = s.bytes("meta-bytes-most");
    if (o.meta_bytes_most > (64ull << 30)) co_return Status(Code::invalid, "meta-bytes-most is at most 64GiB");
    o.segment_bytes = s.bytes("segment-bytes");
    o.chunk_bytes = static_cast<std::uint32_t>(s.bytes("chunk-bytes"));
    o.memory_bytes = s.bytes("memory-bytes");
    o.flush_bytes = s.bytes("flush-bytes");
    o.flush_age = s.duration("flush-age");
    o.replace_after = s.duration("replace-after");
    o.flush_idle = s.duration("flush-idle");
    o.latency.factor = s.number("slow-factor");
    o.latency.floor = s.duration("slow-floor");
    o.latency.back = s.number("slow-back");
    o.latency.gap = s.duration("slow-gap");
    o.io_timeout = s.duration("io-timeout");
    if (o.io_timeout < 1s) co_return Status(Code::invalid, "io-timeout is at least 1s");
    if (o.latency.factor > 1000 || (o.latency.factor != 0 && (o.latency.factor < 2 || o.latency.back < 1 || o.latency.back > o.latency.factor)))
      co_return Status(Code::invalid, "slow-factor is 0 or 2 to 1000, slow-back is 1 to slow-factor");
    if (o.latency.floor < 1ms || o.latency.gap < 1s) co_return Status(Code::invalid, "slow-floor is at least 1ms, slow-gap at least 1s");
    if (s.text("reads") != "lease" && s.text("reads") != "confirmed") co_return Status(Code::invalid, "reads is lease or confirmed");
    if (s.text("coding") != "gateway" && s.text("coding") != "head") co_return Status(Code::invalid, "coding is gateway or head");
    o.codes_itself = s.text("coding") == "head";
    o.lease_reads = s.text("reads") == "lease";
    if (Status c = checkpoint_options(s, o); !c.ok()) co_return c;
    if (o.segment_bytes < (4 << 20)) co_return Status(Code::invalid, "segment-bytes is at least 4MiB");
    if (o.chunk_bytes < kBlockBytes || o.chunk_bytes > (4 << 20) || o.chunk_bytes % kBlockBytes != 0)
      co_return Status(Code::invalid, "chunk-bytes is a multiple of 4KiB, at most 4MiB");
    head_ = std::make_unique<Head>(world_, std::move(o));
    co_return co_await head_->start();
  }

  io::Task<void> drain() { co_await head_->drain(); }

 private:
  static Status checkpoint_options(const Settings& s, Options& o) {
    using Checkpoints = Options::Checkpoints;
    std::string mode = s.text("checkpoints");
    if (mode != "all" && mode != "primary" && mode != "none") return Status(Code::invalid, "checkpoints is all, primary or none");
    o.checkpoints = mode == "all" ? Checkpoints::all : mode == "primary" ? Checkpoints::primary : Checkpoints::none;
    o.checkpoint_growth = s.bytes("checkpoint-growth");
    o.checkpoint_age = s.duration("checkpoint-age");
    o.checkpoint_pages = static_cast<std::uint32_t>(std::min<std::uint64_t>(s.number("checkpoint-pages"), ~std::uint32_t{0}));
    return Status();
  }

  io::World& world_;
  const io::DaemonOptions& options_;
  std::unique_ptr<Head> head_;
};

}  // namespace
}  // namespace luge::head

int main(int argc, char** argv) {
  return luge::io::daemon_main<luge::head::HeadDaemon>(
      argc, argv, {"luge-head", "head", "One head node of a Luge storage unit: log, replicas, primaries."});
}
