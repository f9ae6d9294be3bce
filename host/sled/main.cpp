// luge-sled: mass storage and the coding gateway of one sled.
#include "card/card.hpp"
#include "io/daemon.hpp"
#include "opencl/opencl_coder.hpp"
#include "sled/sled.hpp"

namespace luge::sled {
namespace {

// PATH or PATH:SIZE. Paths of raw devices may have colons of their own (/dev/disk/by-path), so only what reads as a
// size is taken for one.
Result<DeviceSpec> device_spec(const std::string& text) {
  auto colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return DeviceSpec{text, 0};
  auto bytes = parse_bytes(std::string_view(text).substr(colon + 1));
  if (!bytes.ok() || *bytes == 0) return DeviceSpec{text, 0};
  if (*bytes % kBlockBytes != 0) return Status(Code::invalid, "devices: " + text + ": the size is not a multiple of 4KiB");
  return DeviceSpec{text.substr(0, colon), *bytes};
}

constexpr io::Duration kLimit = std::chrono::milliseconds(1500), kVerilatedLimit = std::chrono::seconds(5);

// What codes, and how it is watched. A card that is there goes before; only one of both can be named.
Status choose_coder(const Settings& s, const std::string& directory, Options& o) {
  const std::string &coding = s.text("coding"), &card = s.text("card"), &verify = s.text("verify");
  if (verify != "all" && verify != "sample") return Status(Code::invalid, "verify is 'all' or 'sample'");
  o.guard.verify_all = verify == "all";
  io::Duration limit = s.duration("card-timeout");
  if (limit == io::Duration{}) limit = card == "rtl" ? kVerilatedLimit : kLimit;
  if (limit < std::chrono::milliseconds(10) || limit > std::chrono::minutes(1)) return Status(Code::invalid, "card-timeout is from 10ms to 1min");
  o.guard.deadline = limit + limit / 5;  // the driver's own limit is met first: it knows more of what happened
  bool opencl = coding == "opencl" || coding.starts_with("opencl:");
  if (coding != "isal" && !opencl) return Status(Code::invalid, "coding is 'isal', 'opencl' or 'opencl:NAME', not '" + coding + "'");
  if (card != "none" && card != "native" && card != "rtl" && card != "hw") return Status(Code::invalid, "card is 'none', 'native', 'rtl' or 'hw', not '" + card + "'");
  if (card != "none" && opencl) return Status(Code::invalid, "either a card or an OpenCL device codes: leave 'card' or 'coding' away");
  if (card == "rtl") o.guard.in_flight = 1;  // seconds a stripe: those behind it are not to wait at the card
  if (card != "none") {
    o.make_coder = [kind = card, limit, xclbin = s.text("card-xclbin"), directory](io::World& w) {
      card::CardOptions c;
      c.kind = kind;
      c.xclbin = xclbin;
      c.directory = directory + "/card";
      c.job_limit = limit;
      return card::make_card_coder(w, c);
    };
  } else if (opencl) {
    std::string device = coding.size() > 7 ? coding.substr(7) : "";
    o.make_coder = [device](io::World& w) { return opencl::make_opencl_coder(w, device); };
  }
  if (o.make_coder) o.verify = verify;
  return Status();
}

class SledDaemon {
 public:
  static std::vector<Option> options() {
    using T = Option::Type;
    return {
        io::listen_option("heads and other sleds"),
        io::control_option(),
        {"devices", T::texts, "", "devices: PATH, or PATH:SIZE to make a file of that size if it is not there", true},
        {"replace-device", T::texts, "",
         "number of a device (0 is the first) that is lost for good: the blank one that stands at its path now, or is made there, takes its place; "
         "without this a known device that is gone, blank or another one is left out"},
        {"unit-key", T::text, "", "public key of the unit, 64 hexadecimal digits (unit.pub in the control plane's data directory), instead of the one that the sled knows; default: what it is told at its first registration"},
        {"column-bytes", T::bytes, "32MiB", "allocation piece of a device; used when a device is formatted"},
        {"io-timeout", T::duration, "15s", "a device whose operation takes longer has failed and is left out"},
        {"verify", T::text, "all",
         "all: compare the parity of every stripe that a card or OpenCL device made with software's before it is written; sample: of every 16th, so that a "
         "faulty one may write parity that rebuilds nothing until it is found out"},
        {"coding", T::text, "isal", "what codes the stripes: isal (this machine's processor), opencl, or opencl:NAME, a device whose name has NAME in it"},
        {"card", T::text, "none", "the card that codes instead: none, native or rtl (simulated), hw"},
        {"card-xclbin", T::text, "", "the xclbin of a card of kind hw"},
        {"card-timeout", T::duration, "0s", "0: 1500ms, for rtl 5s; a card or OpenCL device that has not done a job by then has failed; the processor codes until it passes a self-test"},
    };
  }

  SledDaemon(io::World& world, const io::DaemonOptions& options) : world_(world), options_(options) {}

  io::Task<Status> start() {
    const Settings& s = options_.settings;
    Options o{options_};
    o.column_bytes = s.bytes("column-bytes");
    if (o.column_bytes < (1 << 20) || o.column_bytes % kBlockBytes != 0)
      co_return Status(Code::invalid, "column-bytes is at least 1MiB and a multiple of 4KiB");
    if (!s.text("unit-key").empty()) {
      auto key = wire::parse_hex_key(s.text("unit-key"));
      if (!key.ok()) co_return key.status().with("unit-key");
      o.unit_key = *key;
    }
    o.io_timeout = s.duration("io-timeout");
    if (o.io_timeout < std::chrono::seconds(1)) co_return Status(Code::invalid, "io-timeout is at least 1s");
    if (Status c = choose_coder(s, options_.directory, o); !c.ok()) co_return c;
    for (const std::string& d : s.texts("devices")) {
      auto spec = device_spec(d);
      if (!spec.ok()) co_return spec.status();
      o.devices.push_back(*spec);
    }
    for (const std::string& r : s.texts("replace-device")) {
      auto index = parse_number(r);
      if (!index.ok() || *index >= o.devices.size())
        co_return Status(Code::invalid, "replace-device: '" + r + "' is no device of this sled: give 0 to " + std::to_string(o.devices.size() - 1));
      o.devices[*index].replace = true;
    }
    sled_ = std::make_unique<Sled>(world_, std::move(o));
    co_return co_await sled_->start();
  }

  io::Task<void> drain() { return sled_->drain(); }
  std::string unfinished() const { return sled_->unfinished(); }

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
