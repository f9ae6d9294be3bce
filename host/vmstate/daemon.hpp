// luge-vmstated: protects machines of this host, and keeps or runs the state of machines of others.
//
// People and `luge vm` speak to it over a unix socket: a line of JSON each way. Other luge-vmstated send their checkpoints to `listen`.
// If it is killed within a pause, the next one lets the machine run; one that was being handed over it holds, for a person to decide.
// Threads: one for each socket that listens, one a connection, one a machine with periodic checkpoints, one at the start for what was left
// paused. start() and drain() from the World.
#pragma once

#include <boost/json.hpp>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "io/daemon.hpp"
#include "vmstate/protection.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

class Daemon {
 public:
  static std::vector<Option> options();
  Daemon(io::World& world, const io::DaemonOptions& options);
  ~Daemon();
  io::Task<Status> start();
  /// Machines go on running, recording ends.
  io::Task<void> drain();

  /// A request of `luge vm`; its answer, with `error` and `code` where it came to nothing.
  boost::json::object answer(const boost::json::object& request);

 private:
  using Handler = std::function<void(int)>;
  struct Connection {
    std::thread thread;
    int fd = -1;
    std::atomic<bool> ended{false};
  };
  Status listen(const std::string& address, Handler handler, std::string& bound);
  void accept(int listener, const Handler& handler);
  void serve_people(int fd);
  void serve_host(int fd);
  Result<std::shared_ptr<void>> claim_live(const std::string& machine);
  Result<boost::json::object> perform(const boost::json::object& request);
  Result<boost::json::object> protect(const boost::json::object& request);
  Result<boost::json::object> checkpoint(const boost::json::object& request);
  Result<boost::json::object> migrate(const boost::json::object& request);
  Result<boost::json::object> release(const boost::json::object& request);
  Result<boost::json::object> release_left(const std::string& name, const Status& unknown);
  Result<boost::json::object> status() const;
  Result<boost::json::object> restore(const boost::json::object& request);
  Result<std::shared_ptr<Protection>> find(const std::string& machine) const;
  // What a luge-vmstated that was killed here has left paused.
  void settle_all();
  Status settle(const PauseNote& note);
  Status settle_of(const std::string& machine, const std::string& qmp);
  Result<std::unique_ptr<Qmp>> monitor_of(const PauseNote& note) const;
  Status let_run(const PauseNote& note);
  Result<std::unique_ptr<Protection>> open(ProtectionOptions options);
  std::string live_directory(const std::string& machine) const { return directory_ + "/live/" + machine; }

  const Settings& settings_;
  const std::string directory_;
  std::string listening_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Protection>> machines_;
  std::set<std::string> arriving_;  // by migration
  std::map<std::string, PauseNote> left_;  // paused by the one before, and neither let run nor ended yet
  std::mutex settling_;
  std::list<Connection> connections_;
  std::vector<int> listeners_;
  std::vector<std::thread> threads_;
  bool ending_ = false;
};

}  // namespace luge::vmstate
