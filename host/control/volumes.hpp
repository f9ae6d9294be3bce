// Volumes and who serves them: creation, removal, designations, sandboxes, attachments, exports, flushes.
//
// Invariant: whatever is told to a daemon is in the store first.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/placement.hpp"
#include "control/rebuild.hpp"
#include "control/registry.hpp"
#include "control/store.hpp"

namespace luge::control {

class Volumes {
 public:
  struct Options {
    std::uint64_t vp_bytes = 64ull << 30;  ///< size of a volume partition
    std::uint32_t copies = 3;              ///< replicas unless the request says otherwise
  };
  struct Create {
    std::string name;
    std::uint64_t bytes = 0;
    Layout layout;
    std::uint32_t copies = 0;  ///< 0: the default
  };
  struct Attach {
    std::string name, nbd, node;  ///< node: name of the attach daemon, empty: any
    bool take_over = false, read_only = false;
    bool incoming = false;  ///< beside the disk that a guest has: where that guest is about to be moved to (vhost-user)
  };

  Volumes(io::World& world, Store& store, Registry& registry, Events& events, Options options);
  void start();
  void stop();

  Result<Volume> create(const Create& request);
  /// Makes a volume larger: new partitions and a larger last one first, then whoever exports it. What fails in between can be
  /// asked for again. invalid: it is smaller than the volume is.
  io::Task<Result<Volume>> resize(std::string name, std::uint64_t bytes);
  /// Marks the volume removed (its name is free then) and waits up to `wait` for the members to drop it.
  /// True: all have. exists: it is attached, and not `force`.
  io::Task<Result<bool>> remove(std::string name, bool force, io::Duration wait);
  /// Asks each VP's primary to write everything committed to the sleds, following moves. The bytes left unflushed.
  io::Task<Result<std::uint64_t>> flush(std::string name, io::Duration timeout);
  /// Has all heads that are up say what they hold now.
  io::Task<void> fresh_reports();
  /// Heads whose word is waited for before anything is proposed for the VP (protocol 5.2); empty: it is not doubted.
  std::vector<NodeId> doubting(VpId vp) const;
  /// Makes the replica of head `head` the truth for every VP of the volume that no complete member can open (loss.hpp); those
  /// that are served stay as they are. Returns how many. conflict: there is none, or loss is not needed.
  Result<std::uint32_t> accept_loss(const std::string& name, const std::string& head, bool force);
  /// Has an attach daemon export the volume. The name of the daemon.
  struct Rebuilt {
    std::uint32_t volumes = 0, vps = 0, doubted = 0;
    std::vector<std::string> left;  ///< what was not taken up, and why
  };
  /// Takes up what the heads and sleds that are up hold and the store does not know (rebuild.hpp), and tells them. accept_loss: of members
  /// that do not answer nothing is waited for. other_key: designations that another key has signed count as well.
  io::Task<Result<Rebuilt>> rebuild(bool accept_loss, bool other_key);
  /// Another head, `to` or one that each primary chooses (empty), takes over what `from` holds of the volume. The number of partitions
  /// that were moved; with `wait` only when the newcomers have caught up. conflict: too few copies would be left (moving.cpp); those
  /// moved before stay moved, and asking again goes on with the others.
  io::Task<Result<std::uint32_t>> move(std::string name, std::string from, std::string to, bool wait, io::Duration timeout);
  io::Task<Result<std::string>> attach(Attach request);
  io::Task<Status> detach(std::string name);

  // Requests of daemons. `from` is the registered node that asks.
  wire::Frame propose(const Node& from, const wire::Frame& request);
  wire::Frame get_sandbox(const Node& from, const wire::Frame& request);
  wire::Frame lookup_vp(const Node& from, const wire::Frame& request);
  wire::Frame attach_volume(const Node& from, const wire::Frame& request);
  wire::Frame detach_volume(const Node& from, const wire::Frame& request);
  wire::Frame list_exports(const Node& from) const;

  /// A node has registered: adopt greater designations that it knows, tell it those it takes part in and the removals it
  /// missed. What an attach daemon is to export it asks itself (list_exports).
  void joined(const Node& node, const fbs::RegisterNode& r);

 private:
  Status check(const Create& request) const;
  Status check_size(std::uint64_t bytes) const;
  Status check_room(std::uint64_t bytes, Layout layout) const;
  void place(const Volume& v, std::uint32_t first, Change& c);
  io::Task<Status> grow_vp(VpId vp, std::uint64_t blocks, io::Time deadline);
  io::Task<Status> move_vp(VpId vp, NodeId from, NodeId to, io::Time deadline);
  bool has_copy(VpId vp, NodeId n) const;
  std::uint64_t usable_bytes(Layout layout) const;
  void push(VpId vp);
  bool is_told(NodeId member, VpId vp) const;
  wire::Frame designate(const Designation& d) const;
  void adopt(const Node& node, const fbs::Designation& found);
  void look_at_store_of(const Node& node, const fbs::RegisterNode& r);
  /// `named`: the partitions of which it has said that it holds them.
  void answered(const Node& node, const std::set<VpId>& named, bool registers);
  flatbuffers::Offset<fbs::VpView> view(flatbuffers::FlatBufferBuilder& b, VpId vp) const;
  bool gone(VolumeId id) const;
  void note_lost(const std::string& why);
  bool forgets_nothing(const Node& head) const;
  void note_recollections();

  io::Task<void> removals();
  io::Task<void> drop_all();
  io::Task<bool> drop(VpId vp, NodeId node, Epoch epoch);
  io::Task<void> flush_vp(VpId vp, io::Time deadline, Result<std::uint64_t>* out);
  std::uint64_t served_bytes(const Volume& v) const;
  Status may_attach(const Volume& v, NodeId asker) const;
  io::Task<Result<std::string>> attach_at(Attach request, VolumeId id, NodeId node);
  void have_it_ask(NodeId daemon);
  io::Task<std::vector<NodeId>> shut_out(std::string name, VolumeId id);
  static wire::Frame export_volume(const Attach& request, std::uint64_t bytes);
  io::Task<Result<std::string>> attach_incoming(Attach request, Export from, const Node& to);
  io::Task<void> end_moved(std::string name, Export old, std::string to);
  io::Task<Status> unexport(NodeId node, std::string name, io::Duration timeout);
  io::Task<Status> ask(NodeId node, wire::Frame request, io::Duration timeout);

  io::World& world_;
  Store& store_;
  Registry& registry_;
  Events& events_;
  Options options_;
  std::map<VpId, std::set<NodeId>> answered_;  // of doubted VPs: who has said what it holds of it since our start
  std::map<std::pair<VpId, NodeId>, Designation> unheard_;  // what that node knew and the store could not take
  std::map<VolumeId, NodeId> arriving_;  // who is being asked to export it; the store does not know yet
  io::Event removal_;  // something to remove, or something was
  bool running_ = true;
};

}  // namespace luge::control
