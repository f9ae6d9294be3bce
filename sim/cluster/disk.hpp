// One node's files in memory, with what a power cut would leave of them. Invariant: `blocks` is what a read sees;
// `durable` keeps, for each 4 KiB block with writes that are not on the medium yet, what the medium holds. A power cut
// decides for each 512-byte sector of those, and of each write in flight, whether it is old or new.
#pragma once

#include <array>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "io/files.hpp"
#include "sim/cluster/random.hpp"

namespace luge::sim {

class Simulation;
class SimWorld;

inline constexpr std::size_t kSectorBytes = 512;

struct DiskFaults {
  // Each is the probability for one call.
  double read_error = 0;
  double write_error = 0;  ///< the range is left old, new or torn
  double sync_error = 0;   ///< what was not durable stays so
  double lost_write = 0;       ///< answered ok, never happened
  double misdirected_write = 0;  ///< lands 4 KiB x (1..64) away from where it should
  double rot = 0;          ///< a write is stored with one bit flipped
  double stall = 0.001;    ///< takes 5 to 50 ms
  double slow = 1.0;       ///< factor on every latency
  std::uint64_t capacity = ~std::uint64_t{0};  ///< bytes of files; beyond, creation answers no_space
};

/// What a file holds; outlives daemons.
class FileState {
 public:
  using Block = std::array<std::byte, 4096>;
  explicit FileState(std::uint64_t size) : size(size) {}
  void read(std::uint64_t offset, MutableBytes into) const;
  /// The same of what a power cut leaves in any case.
  void read_durable(std::uint64_t offset, MutableBytes into) const;
  /// Sectors for which `keep` is true are written. REQUIRES: offset and bytes are sector multiples.
  template <class Keep>
  void write(std::uint64_t offset, Bytes bytes, bool durably, Keep keep);
  void write(std::uint64_t offset, Bytes bytes, bool durably);

  /// False: the 4 KiB block at `offset` is zeros because nothing was ever written there.
  bool written(std::uint64_t offset) const { return find(offset / 4096) != nullptr; }

  struct InFlight {
    std::uint64_t offset;
    std::vector<std::byte> bytes;
    bool durable;
  };

  std::uint64_t size;
  bool hung = false;  ///< an operation that begins or is in progress does not return before this is false again
  std::list<InFlight> in_flight;
  std::map<std::uint64_t, std::unique_ptr<Block>> durable;  // by block number
  void* locked_by = nullptr;

 private:
  const Block* find(std::uint64_t number) const { return number < blocks_.size() ? blocks_[number].get() : nullptr; }
  Block& block(std::uint64_t number);
  std::vector<std::unique_ptr<Block>> blocks_;  // by number; null or beyond the end: zeros
};

class Disk {
 public:
  explicit Disk(Random random) : random_(random) {}
  DiskFaults faults;
  /// Instead of `faults`, for single files; `slow` and `capacity` are always those of the whole disk.
  std::map<std::string, DiskFaults> faults_of;

  /// For devices (absolute paths), which no daemon creates.
  void make_file(const std::string& path, std::uint64_t size);
  bool exists(const std::string& path) const { return files_.count(path) != 0; }
  std::vector<std::string> paths() const;
  /// Null if there is none.
  FileState* file(const std::string& path);
  /// It is gone, or comes back as what it was: a device pulled out and put in somewhere. REQUIRES: nobody has it open.
  std::shared_ptr<FileState> take_out(const std::string& path);
  void put_in(const std::string& path, std::shared_ptr<FileState> file) { files_[path] = std::move(file); }
  /// Flips one bit on the medium and in what reads see.
  void rot(const std::string& path, std::uint64_t offset);
  /// Puts `bytes` there, on the medium and in what reads see. REQUIRES: sector multiples inside the file.
  void overwrite(const std::string& path, std::uint64_t offset, Bytes bytes);
  void wipe() { files_.clear(); directories_.clear(); }
  std::uint64_t bytes_used() const;
  /// Writes that were lost, misdirected or spoilt, and operations that failed or did not return, since the disk was made.
  std::uint64_t lies() const { return lies_; }
  std::uint64_t errors() const { return errors_; }
  /// A write is in flight.
  bool writing() const;

  /// What a crash leaves. `power`: un-synced content goes too.
  void crash(bool power);

 private:
  friend class SimFiles;
  friend class SimFile;
  const DiskFaults& faults_for(const std::string& path) const {
    auto it = faults_of.find(path);
    return it == faults_of.end() ? faults : it->second;
  }
  std::map<std::string, std::shared_ptr<FileState>> files_;
  std::set<std::string> directories_;
  std::uint64_t lies_ = 0, errors_ = 0;
  Random random_;
};

/// Files of one incarnation of a node.
class SimFiles final : public io::Files {
 public:
  SimFiles(io::World& world, Disk& disk) : world_(world), disk_(disk) {}
  io::Task<Result<std::unique_ptr<io::BlockFile>>> open(std::string path, io::OpenOptions options) override;
  io::Task<Status> remove(std::string path) override;
  io::Task<Status> rename(std::string from, std::string to) override;
  io::Task<Result<std::vector<std::string>>> list(std::string directory) override;
  io::Task<Status> make_directory(std::string path) override;

 private:
  Status check_parent(const std::string& path) const;
  io::World& world_;
  Disk& disk_;
};

}  // namespace luge::sim
