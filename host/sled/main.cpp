// luge-sled: mass storage and the coding gateway of one sled.
#include <unistd.h>

#include "io/daemon.hpp"
#include "sled/sled.hpp"

namespace luge::sled {
namespace {

class SledDaemon {
 public:
  static std::vector<Option> options() {
    using T = Option::Type;
    return {
        {"listen", T::text, "", "address for heads and other sleds: unix:PATH or tcp:HOST:PORT", true},
        {"control", T::text, "", "address of the control plane", true},
        {"devices", T::texts, "", "devices: PATH, or PATH:SIZE to make a file of that size if it is not there", true},
        {"column-bytes", T::bytes, "32MiB", "allocation piece of a device; used when a device is formatted"},
        {"verify", T::text, "all", "all: compare the parity of every stripe with software's before it is written; sample: trust the coder"},
    };
  }

  SledDaemon(io::World& world, const io::DaemonOptions& options) : world_(world), options_(options) {}

  io::Task<Status> start() {
    const Settings& s = options_.settings;
    Options o;
    o.id = options_.id;
    o.name = options_.name;
    o.unit = options_.unit;
    o.pid = static_cast<std::uint32_t>(::getpid());
    o.listen = s.text("listen");
    o.control = s.text("control");
    o.column_bytes = s.bytes("column-bytes");
    if (o.column_bytes < (1 << 20) || o.column_bytes % kBlockBytes != 0)
      co_return Status(Code::invalid, "column-bytes is at least 1MiB and a multiple of 4KiB");
    if (s.text("verify") != "all" && s.text("verify") != "sample") co_return Status(Code::invalid, "verify is 'all' or 'sample'");
    o.verify_all = s.text("verify") == "all";
    for (const std::string& d : s.texts("devices")) {
      auto colon = d.rfind(':');
      DeviceSpec spec{d.substr(0, colon), 0};
      if (colon != std::string::npos) {
        auto bytes = parse_bytes(d.substr(colon + 1));
        if (!bytes.ok()) co_return bytes.status().with("devices: " + d);
        spec.create_bytes = *bytes / kBlockBytes * kBlockBytes;
      }
      o.devices.push_back(std::move(spec));
    }
    sled_ = std::make_unique<Sled>(world_, std::move(o));
    co_return co_await sled_->start();
  }

  io::Task<void> drain() { co_await sled_->drain(); }

 private:
  io::World& world_;
  const io::DaemonOptions& options_;
  std::unique_ptr<Sled> sled_;
};

}  // namespace
}  // namespace luge::sled

int main(int argc, char** argv) {
  return luge::io::daemon_main<luge::sled::SledDaemon>(
      argc, argv, {"luge-sled", "sled", "One sled of a Luge storage unit: devices, chunk slots, coding gateway."});
}
