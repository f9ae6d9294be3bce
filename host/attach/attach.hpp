// The attach daemon: volumes as NBD exports, or as disks of guests over vhost-user. Many volumes a process; volumes that are given the same
// NBD address share a portal, where clients choose by name. Uses nothing but its World; one event loop.
// Addresses: unix:PATH, tcp:HOST:PORT (loopback unless the World allows more), tls:HOST:PORT (TLS only, any address); vhost-user:PATH
// (needs a RealWorld; the volume is attached only while the guest's rings run).
//
// Invariant: the control plane alone says what is exported. Nothing of it is kept here: whenever this daemon registers, it
// asks, opens what it is to export and does not, and closes what it exports and is not to. So an export outlives a restart
// of the daemon, and one that was detached or given to another while the daemon was away, or cut off, does not.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "attach/nbd_connection.hpp"
#include "attach/vhost_disk.hpp"
#include "client/volume.hpp"
#include "io/node_options.hpp"
#include "wire/control_link.hpp"

namespace luge::attach {

/// `fail` is called when the control plane will never have this daemon, or what it says cannot be remembered.
struct Options : io::NodeOptions {
  TlsFiles tls;  ///< for tls: addresses; read when the first export of such an address opens
  std::string card = "native";  ///< whose DMA write log stands before the memory of guests (vhost-user): "native", "rtl"
};

class Attach {
 public:
  Attach(io::World& world, Options options);
  ~Attach();
  io::Task<Status> start();
  /// Stops taking requests; open ones are answered. The attachments stay.
  io::Task<void> drain();
  std::string unfinished() const;  ///< what drain() waits for
  std::string report() const;  ///< JSON object (docs/formats.md, "reports")
  std::size_t kept() const { return ended_.size(); }  ///< exports that have been closed, at most some of which are still used

 private:
  struct Export {
    std::string volume_name, nbd;
    std::unique_ptr<client::Volume> volume;
    std::shared_ptr<NbdExport> served;  // null: a disk
    std::shared_ptr<VhostDisk> disk;    // null: over NBD
    bool read_only = false;
    std::uint64_t taken = 0;  // how often, of a disk's volume
  };
  // Closed, and kept while a connection or the disk's last requests may still use it.
  struct Ended {
    std::shared_ptr<Export> closed;
    std::vector<std::weak_ptr<NbdConnection>> connections;
    bool in_use() const;
  };
  // An address while it has exports.
  struct Portal {
    std::shared_ptr<NbdPortal> served;
    std::unique_ptr<io::Listener> listener;
    std::vector<std::weak_ptr<NbdConnection>> connections;
  };
  using PortalPtr = std::shared_ptr<Portal>;
  struct Wanted {
    std::string nbd;
    bool read_only = false;
    std::uint64_t bytes = 0;
  };
  using ExportPtr = std::shared_ptr<Export>;
  void on_control(const std::shared_ptr<wire::Channel>& channel, wire::Frame frame);
  io::Task<void> export_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name, std::string nbd, bool take_over, bool read_only, std::uint64_t bytes);
  io::Task<void> unexport_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name);
  io::Task<Status> open_export(std::string name, std::string nbd, bool take_over, bool read_only, std::uint64_t bytes);
  Status open_disk(const std::string& name, const std::string& address, bool take_over, bool read_only, std::uint64_t bytes);
  io::Task<Result<client::BlockTarget*>> take_volume(std::shared_ptr<Export> e, bool take_over);
  std::string report_disk(const Export& e) const;
  io::Task<Status> close_export(std::string name, bool detach);
  Status resize_export(const std::string& name, std::uint64_t bytes);
  Result<PortalPtr> portal_at(const std::string& nbd);
  void leave_portal(const std::string& nbd, const Export* e);
  bool crowded() const;
  io::Task<void> accept_loop(PortalPtr p);
  std::vector<std::shared_ptr<NbdConnection>> connections_of(const Export& e) const;
  io::Task<void> join_unit();
  io::Task<void> follow_control();
  io::Task<bool> settle();
  io::Task<Status> ask_wanted();
  void complain(const std::string& name, const Status& status);

  io::World& world_;
  Options options_;
  wire::Identity identity_;
  std::unique_ptr<wire::ControlLink> control_;
  std::map<std::string, ExportPtr> exports_;
  std::map<std::string, PortalPtr> portals_;  // by address, as it was given
  std::vector<Ended> ended_;
  io::Mutex changing_;
  bool draining_ = false;
  std::uint64_t registrations_ = 0;
  io::Event registered_;
  std::map<std::string, Wanted> wanted_;           // as last listed, less what has been withdrawn since
  std::map<std::string, std::string> complaints_;  // by volume: said once
};

}  // namespace luge::attach
