// The daemons of a storage unit on simulated nodes: one control plane, heads, sleds. Boots them, finds them by node or
// id, and keeps what outlives them: disks, and the control plane's store with its past.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "control/control.hpp"
#include "control/store.hpp"
#include "head/head.hpp"
#include "sim/cluster/simulation.hpp"
#include "sled/sled.hpp"

namespace luge::sim {

inline constexpr std::uint64_t kUnit = 0x10c6e;
inline constexpr const char* kControlAddress = "tcp:control:1";
inline constexpr NodeId kFirstHead = 10, kFirstSled = 40, kFirstClient = 80;

class Unit {
 public:
  struct Shape {
    std::uint32_t heads = 3, sleds = 6, devices = 1;
    std::uint64_t vp_bytes = 1 << 20;
    head::Options head;  ///< id, name and addresses are filled in
    std::uint64_t device_bytes = 64 << 20;
    std::uint64_t column_bytes = 2 << 20;
    bool cards_fail = true;  ///< about one of 60 jobs of a sled's card goes wrong in one of its ways
  };
  /// A daemon could not start. Whether that is allowed is the owner's business. Not called from a node's handler.
  using Failed = std::function<void(Node, const std::string& who, const Status&)>;

  Unit(Simulation& sim, Shape shape, Failed failed);
  /// Adds all nodes. Heads in `full` meet a full disk at their first start.
  void start(const std::vector<std::size_t>& full = {});

  const Shape& shape() const { return shape_; }
  Node control_node() const { return control_node_; }
  const std::vector<Node>& head_nodes() const { return head_nodes_; }
  const std::vector<Node>& sled_nodes() const { return sled_nodes_; }
  bool is_head(Node n) const;
  bool is_sled(Node n) const;
  Node node_of_head(NodeId id) const { return head_nodes_.at(id - kFirstHead); }
  Node node_of_sled(NodeId id) const { return sled_nodes_.at(id - kFirstSled); }
  static std::string device_path(std::size_t device) { return "/dev/disk" + std::to_string(device); }

  // The present objects; null while their node is down or starting.
  control::Control* control() const { return control_; }
  head::Head* head(NodeId id) const { return heads_.at(id - kFirstHead); }
  const std::vector<head::Head*>& heads() const { return heads_; }
  const std::vector<sled::Sled*>& sleds() const { return sleds_; }
  /// Two nodes that have something to say to each other. `clients` are nodes beyond the unit's.
  std::pair<Node, Node> talking(Random& random, const std::vector<Node>& clients) const;
  /// What the control plane knows, or would know when it starts.
  const control::Image& store() const { return control_ ? control_->store().image() : *image_; }

  /// The disk is replaced by an empty one. REQUIRES: the node is down.
  void replace_disk(Node n);
  /// Keeps a copy of the store as it is on its disk now.
  void remember_store();
  /// An old copy of the store is put in its place: what restoring a backup does. REQUIRES: the control plane is down.
  void set_store_back(Random& random);
  control::Image copy_of_store() const { return *image_; }
  /// `mark`: what lies beside it is set back as well, as when the whole directory is.
  void restore_store(const control::Image& copy, bool mark = false);
  /// The store is gone, and a new one is made in its place. REQUIRES: the control plane is down.
  void lose_store();
  /// How often an old copy has been put in place.
  std::uint64_t set_backs() const { return set_backs_; }

 private:
  struct ControlDaemon;
  struct HeadDaemon;
  struct SledDaemon;
  void failed(Node n, const std::string& who, const Status& s);
  void add_head(std::size_t i);
  void add_sled(std::size_t i);

  Simulation& sim_;
  Shape shape_;
  Failed failed_;
  std::shared_ptr<control::Image> image_;
  std::shared_ptr<control::StoreMark> mark_;  // beside the store: an old copy does not take it along
  std::deque<control::Image> past_;
  std::uint64_t set_backs_ = 0;
  Node control_node_ = 0;
  std::vector<Node> head_nodes_, sled_nodes_;
  control::Control* control_ = nullptr;
  std::vector<head::Head*> heads_;
  std::vector<sled::Sled*> sleds_;
};

}  // namespace luge::sim
