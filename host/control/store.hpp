// What the control plane must never forget: volumes, who serves them, who is attached, which columns it has
// recommended. One transaction per change; the image in memory is changed only after the transaction is durable.
//
// Calls are synchronous, on the loop. That is fine here: no client I/O waits for the control plane, changes are rare
// (a swap, a new volume), a commit takes milliseconds, and the failure agent does not count the time for which its own
// loop stood still (registry.hpp).
//
// One process owns a store. Swaps compare with the stored revision inside the transaction all the same.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "control/sandboxes.hpp"
#include "wire/designation.hpp"
#include "wire/unit_key.hpp"

namespace luge::control {

using wire::Designation;

struct Volume {
  VolumeId id = 0;
  std::string name;
  std::uint64_t bytes = 0, vp_bytes = 0;
  Layout layout;
  std::uint32_t copies = 3;
  bool removing = false;  ///< its name is free again; its VPs are not all dropped yet
  bool operator==(const Volume&) const = default;

  /// Blocks of the partition with this index.
  std::uint64_t blocks_of(std::uint32_t index) const { return std::min(vp_bytes, bytes - index * vp_bytes) / kBlockBytes; }
  std::uint32_t vps() const { return static_cast<std::uint32_t>((bytes + vp_bytes - 1) / vp_bytes); }
};

/// The one writer attachment of a volume. It is never forgotten while the volume lives: incarnations only rise.
struct Attachment {
  VolumeId volume = 0;
  std::uint64_t incarnation = 0;
  NodeId holder = 0;  ///< 0: nobody
  bool operator==(const Attachment&) const = default;
};

/// What an attach daemon is to export. The one place that says so: the daemon asks for it whenever it registers.
struct Export {
  VolumeId volume = 0;
  NodeId node = 0;
  std::string nbd;
  bool read_only = false;
  bool operator==(const Export&) const = default;
};

struct NodeRow {
  NodeId id = 0;
  std::string name, role, address;
  bool operator==(const NodeRow&) const = default;
};

/// A member that has not yet confirmed that it dropped a removed VP.
struct Removal {
  VpId vp = 0;
  NodeId node = 0;
  Epoch epoch = 0;
  auto operator<=>(const Removal&) const = default;
};

struct Image {
  std::uint64_t unit = 0;         ///< random, made with the store; every frame of the unit carries it
  std::uint64_t incarnation = 0;  ///< random, made with the store and again when an older copy was restored (protocol 5.2)
  std::uint64_t sequence = 0;     ///< counts changes of designations and attachments; never falls, over all incarnations
  VolumeId next_volume = 1;       ///< ids are never reused
  std::map<VolumeId, Volume> volumes;
  std::map<VpId, Designation> designations;
  std::map<VolumeId, Attachment> attachments;
  std::map<VolumeId, Export> exports;
  std::map<VolumeId, Export> incoming;  ///< where a guest's disk is being moved to; it becomes the export when the volume is attached there
  std::map<NodeId, NodeRow> nodes;
  std::map<NodeId, std::uint64_t> recollections;  ///< of heads, as of when nothing was doubted last: with the same one a head has forgotten nothing since
  std::set<Removal> removals;
  Sandboxes sandboxes;
  bool lost = false;              ///< heads hold volumes that this store has never known: it stands in the place of one that is gone (rebuild.hpp)
  bool older = false;             ///< a copy was put in the place of a later one: volumes may have partitions that it has not heard of
  VolumeId forgotten_from = 0;    ///< a volume from this on and
  VolumeId rebuilt_below = 0;     ///< below this that is not here may be one that nobody has told of yet, not one that was removed
  std::uint64_t incarnations_above = 0;  ///< attachments get greater ones: those up to this a later store may have given out
  std::set<VpId> doubted;         ///< an older copy may have forgotten who serves them: nothing is proposed for them

  /// Was there such a volume, and is it gone for good? Else nobody knows.
  bool removed(VolumeId id) const {
    return !lost && id < next_volume && (id < forgotten_from || id >= rebuilt_below) && !volumes.contains(id);
  }
  /// May there be such a partition, although there is no designation of it? Whoever holds it must not forget it.
  bool unheard_of(VpId vp) const {
    if (auto r = removals.lower_bound(Removal{vp, 0, 0}); r != removals.end() && r->vp == vp) return false;
    auto v = volumes.find(volume_of(vp));
    return v == volumes.end() ? !removed(volume_of(vp)) : !v->second.removing && index_of(vp) >= v->second.vps();
  }
  const Volume* find_volume(const std::string& name) const;  ///< not those being removed
};

/// All of it or none. Erasing a volume erases its attachment and exports too; erasing an export, the incoming one too.
struct Change {
  struct Swap {
    VpId vp;
    Revision expected;  ///< 0: the VP must be new
  };
  std::vector<Swap> swaps;  ///< preconditions
  std::optional<VolumeId> next_volume;
  std::vector<Volume> volumes;
  std::vector<VolumeId> erase_volumes;
  std::vector<Designation> designations;
  std::vector<VpId> erase_designations;
  std::vector<Attachment> attachments;
  std::vector<Export> exports, incoming;
  std::vector<VolumeId> erase_exports, erase_incoming;
  std::vector<NodeRow> nodes;
  std::vector<std::pair<NodeId, std::uint64_t>> recollections;  ///< 0: not known
  std::vector<Removal> removals, erase_removals;
  std::vector<SandboxRow> sandboxes;
  std::vector<VpId> erase_sandboxes;
  std::optional<std::uint64_t> incarnation;  ///< a new one
  std::optional<std::uint64_t> sequence;     ///< Store::commit goes on behind it
  std::vector<VpId> doubts, erase_doubts;
  std::optional<bool> lost;
  std::optional<bool> older;
  std::optional<VolumeId> forgotten_from, rebuilt_below;
  std::optional<std::uint64_t> incarnations_above;
};

/// Kept beside the store and not with it, so that an old copy of the store is known for what it is.
struct StoreMark {
  std::uint64_t incarnation = 0, sequence = 0;
};

void apply(Image& image, const Change& change);

struct SwapAnswer {
  Status status;
  std::optional<Designation> current;  ///< what is stored now, whenever the VP is known
};

class Store {
 public:
  virtual ~Store() = default;
  const Image& image() const { return image_; }

  /// conflict: a precondition does not hold, nothing was changed. Other errors: nothing was changed, or (io_error)
  /// it is unknown, and the store refuses every later change until it is opened again.
  Status commit(const Change& change);
  Result<VolumeId> take_volume_id();
  /// For the next attachment of a volume: greater than any before.
  std::uint64_t next_incarnation(const Attachment& before, std::uint64_t random) const;

  /// Compare-and-swap of a designation, as `source` proposes it. conflict: the stored revision is not `expected`.
  /// invalid: check_proposal() refuses it.
  SwapAnswer propose(NodeId source, Revision expected, const Designation& proposed);
  /// This is an older copy: `newest` is later than what it holds, or of another incarnation. From now on it is another store, with
  /// the incarnation `next`, every VP is doubted until clear_doubt() (protocol 5.2), and it is `older`: ids of volumes and incarnations
  /// of attachments that the later one may have given out are left out.
  bool behind(const StoreMark& newest) const { return newest.incarnation != image_.incarnation || newest.sequence > image_.sequence; }
  /// late: heads may have registered since it was put in place.
  Status doubt_everything(std::uint64_t next, const StoreMark& newest, bool late);
  bool doubted(VpId vp) const { return image_.doubted.contains(vp); }
  /// From now on every designation is stored signed by this key, those that are stored already included. Without it they are not
  /// signed, and no sled obeys. Call before any other change.
  Status sign_with(std::shared_ptr<const wire::Signer> signer);
  const wire::Signer* signer() const { return signer_.get(); }
  /// Every member of the greatest designation has said what it knows.
  Status clear_doubt(VpId vp);
  /// A member knows a greater (epoch, revision) than the store: it is taken over (protocol 4.1). forged, wrong_unit: nothing that
  /// this control plane has signed.
  Status adopt(const Designation& found);

 protected:
  virtual Status persist(const Change& change) = 0;
  /// Makes the mark beside the store durable.
  virtual Status remember(const StoreMark& mark) = 0;
  Image image_;

 private:
  bool size_fits(const Designation& found, const Designation& stored, Change& c) const;
  std::uint64_t unused_incarnations(const StoreMark& newest) const;
  void sign(Designation& d, const Change& change) const;
  std::shared_ptr<const wire::Signer> signer_;
};

/// May `source` replace `stored` by `proposed`? Within an epoch only its primary proposes, and only a revision. An
/// epoch begins with a primary out of the stored `required`, and with no required member beyond those: what is not
/// required now may lack acknowledged writes. Layout, size and history stay;
/// a size may grow within an epoch (Store::propose says how far).
Status check_proposal(const Designation& stored, const Designation& proposed, NodeId source);

/// In memory. `durable` plays the disk: hand the same one to the next incarnation.
class MemoryStore final : public Store {
 public:
  /// `mark`: what was kept beside it; null: its own.
  explicit MemoryStore(std::shared_ptr<Image> durable, std::shared_ptr<StoreMark> mark = nullptr);
  /// A new image with the given unit id.
  static std::shared_ptr<Image> make_image(std::uint64_t unit, std::uint64_t incarnation = 1);

 protected:
  Status persist(const Change& change) override;
  Status remember(const StoreMark& mark) override;

 private:
  std::shared_ptr<Image> durable_;
  std::shared_ptr<StoreMark> mark_;
  std::optional<Change> withheld_;  // Switch::store_loses_last_transaction
};

}  // namespace luge::control
