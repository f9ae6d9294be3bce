// luge-control: the control plane of one storage unit.
#include "base/logging.hpp"
#include "control/control.hpp"
#include "control/http_server.hpp"
#include "control/key_file.hpp"
#include "control/sqlite_store.hpp"
#include "io/daemon.hpp"

namespace luge::control {
namespace {

constexpr std::uint64_t kUnitMask = (1ull << 53) - 1;  // a number that configuration files and JSON readers can hold

class ControlDaemon {
 public:
  static std::vector<Option> options() {
    using T = Option::Type;
    return {
        io::listen_option("the daemons of the unit"),
        {"http", T::text, "", "address of the HTTP API: unix:PATH or tcp:HOST:PORT; default: none"},
        {"heartbeat", T::duration, "100ms", "time between two pings of a node"},
        {"suspicion", T::duration, "500ms", "a node whose pings are unanswered for this long has failed"},
        {"vp-bytes", T::bytes, "64GiB", "size of a volume partition of new volumes"},
        {"copies", T::number, "3", "replicas of new volumes, on as many heads"},
        {"new-key", T::flag, "", "make a new key pair for the unit, the old private key being lost or known to others; each sled must then be started once with the --unit-key that is logged"},
    };
  }

  ControlDaemon(io::World& world, const io::DaemonOptions& options) : world_(world), options_(options) {}

  io::Task<Status> start() {
    const Settings& s = options_.settings;
    Options o{options_};
    o.heartbeat = s.duration("heartbeat");
    o.suspicion = s.duration("suspicion");
    o.vp_bytes = s.bytes("vp-bytes");
    o.copies = static_cast<std::uint32_t>(s.number("copies"));
    if (o.vp_bytes == 0 || o.vp_bytes % kBlockBytes != 0)
      co_return Status(Code::invalid, "vp-bytes must be a multiple of 4096 and not 0");
    if (o.copies < 2 || o.copies > 8) co_return Status(Code::invalid, "copies is 2 to 8");
    if (o.heartbeat < std::chrono::milliseconds(10) || o.suspicion < 2 * o.heartbeat)
      co_return Status(Code::invalid, "heartbeat is at least 10ms, suspicion at least two heartbeats");

    std::uint64_t unit = options_.unit != 0 ? options_.unit : (world_.random() & kUnitMask) | 1;
    auto store = SqliteStore::open(options_.directory + "/control.db",
                                   {unit, (world_.random() & kUnitMask) | 1}, options_.unit);
    if (!store.ok()) co_return store.status();
    if (Status r = options_.remember_unit((*store)->image().unit); !r.ok()) co_return r;
    bool signed_before = false;
    for (const auto& [vp, d] : (*store)->image().designations) signed_before = signed_before || !d.signature.empty();
    auto signer = open_unit_key(options_.directory, {world_.secret(), signed_before, s.flag("new-key")});
    if (!signer.ok()) co_return signer.status();
    if (s.flag("new-key")) logging::warn("the unit has a new key; start each sled once with --unit-key {}", wire::to_hex((*signer)->public_key()));
    o.signer = *signer;
    control_ = std::make_unique<Control>(world_, o, std::move(*store));
    Status started = co_await control_->start();
    if (!started.ok()) co_return started;
    if (s.text("http").empty()) co_return Status();
    api_ = std::make_unique<ControlApi>(*control_);
    http_ = std::make_unique<HttpServer>(world_, *api_);
    co_return http_->listen(s.text("http"));
  }

  io::Task<void> drain() {
    if (http_) http_->close();
    if (control_) co_await control_->drain();
  }

 private:
  io::World& world_;
  const io::DaemonOptions& options_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<ControlApi> api_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace
}  // namespace luge::control

int main(int argc, char** argv) {
  return luge::io::daemon_main<luge::control::ControlDaemon>(
      argc, argv, {"luge-control", "control", "Control plane of a Luge storage unit: volumes, designations, failure agent."});
}
