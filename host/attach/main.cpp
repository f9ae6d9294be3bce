// luge-attach: volumes of a storage unit as NBD exports and as disks of guests on this machine.
#include "attach/attach.hpp"
#include "io/daemon.hpp"

namespace luge::attach {
namespace {

class AttachDaemon {
 public:
  static std::vector<Option> options() {
    using T = Option::Type;
    return {
        {"listen", T::text, "", "not used: an attach daemon is reached over its own connection to the control plane"},
        io::control_option(),
        {"tls-certificate", T::text, "", "PEM file of this daemon's certificate, and those that vouch for it; for exports at tls: addresses"},
        {"tls-key", T::text, "", "PEM file of its private key"},
        {"card", T::text, "native", "whose DMA write log stands before the memory of guests (vhost-user): native, or rtl, which is simulated and slow"},
        {"tls-ca", T::text, "", "PEM file of certificates: NBD clients must show one that these have signed"},
    };
  }
  AttachDaemon(io::World& world, const io::DaemonOptions& o)
      : attach_(world, {o, {o.settings.text("tls-certificate"), o.settings.text("tls-key"), o.settings.text("tls-ca")}, o.settings.text("card")}) {}
  io::Task<Status> start() { return attach_.start(); }
  io::Task<void> drain() { return attach_.drain(); }
  std::string unfinished() const { return attach_.unfinished(); }

 private:
  Attach attach_;
};

}  // namespace
}  // namespace luge::attach

int main(int argc, char** argv) {
  return luge::io::daemon_main<luge::attach::AttachDaemon>(
      argc, argv, {"luge-attach", "attach", "Serves volumes of a Luge storage unit over NBD and vhost-user."});
}
