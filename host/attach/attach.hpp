// The attach daemon: volumes as NBD exports. Many volumes a process, one listener per volume, exports that survive a
// restart. Uses nothing but its World; one event loop.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "attach/nbd_connection.hpp"
#include "client/volume.hpp"
#include "io/files.hpp"
#include "io/meta_store.hpp"
#include "wire/control_link.hpp"

namespace luge::attach {

struct Options {
  NodeId id = 0;
  std::string name;
  std::string control;
  std::uint64_t unit = 0;
  std::uint32_t pid = 0;
};

class Attach {
 public:
  Attach(io::World& world, Options options);
  ~Attach();
  io::Task<Status> start();
  /// Stops taking requests; open ones are answered.
  io::Task<void> drain();
  std::string report() const;  ///< JSON object (docs/formats.md, "reports")

 private:
  struct Export {
    std::string volume_name, nbd;
    std::unique_ptr<client::Volume> volume;
    std::shared_ptr<NbdExport> served;
    std::unique_ptr<io::Listener> listener;
    std::vector<std::weak_ptr<NbdConnection>> connections;
    bool closing = false;
  };
  using ExportPtr = std::shared_ptr<Export>;
  void on_control(const std::shared_ptr<wire::Channel>& channel, wire::Frame frame);
  io::Task<void> export_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name, std::string nbd, bool take_over, bool read_only);
  io::Task<void> unexport_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name);
  io::Task<Status> open_export(std::string name, std::string nbd, bool take_over, bool read_only);
  io::Task<Status> close_export(std::string name, bool detach);
  io::Task<void> accept_loop(ExportPtr e);
  io::Task<void> restore();

  io::World& world_;
  Options options_;
  wire::Identity identity_;
  std::unique_ptr<wire::ControlLink> control_;
  std::unique_ptr<io::BlockFile> file_;
  std::unique_ptr<io::MetaStore> store_;
  std::map<std::string, ExportPtr> exports_;
  std::vector<ExportPtr> ended_;  // their connections may still run
  io::Mutex changing_;
};

}  // namespace luge::attach
