// The recorder of one vhost disk: the socket at which a VMC switches recording of DMA writes on and off and quiesces the disk
// (card/recorder_messages.hpp).
//
// Invariant: a recording, a quiesced disk and a throttle belong to one connection and end with it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "card/dma_path.hpp"
#include "card/recorder_messages.hpp"
#include "io/real_world.hpp"

namespace luge::attach {

/// What the recorder needs of the disk.
class RecordedDisk {
 public:
  virtual ~RecordedDisk() = default;
  virtual card::DmaPath& dma() = 0;
  /// Takes no more descriptors; ends when all that were taken are done and recorded. False: resumed meanwhile.
  /// `stays`: the guest goes on here, so its volume is kept while its rings are stopped, until a second after resume().
  virtual io::Task<bool> quiesce(bool stays) = 0;
  virtual void resume() = 0;
  virtual std::uint32_t recorder_flags() const = 0;
  virtual std::uint32_t memory_generation() const = 0;
  virtual void describe(card::RecorderReply& reply) const = 0;
  /// Notes which blocks the guest writes, in a bitmap whose descriptor is the caller's (written_blocks.hpp).
  virtual Result<int> track_writes() = 0;
  virtual void untrack_writes() = 0;
  /// DMA writes are not recorded any more.
  virtual void recording_stopped() = 0;
  virtual io::Task<Result<Buffer>> read_volume(std::uint64_t offset, std::uint32_t bytes) = 0;
};

class Recorder : public std::enable_shared_from_this<Recorder> {
 public:
  /// Listens at `path`, only for the user of this process. The disk outlives close().
  static Result<std::shared_ptr<Recorder>> listen(io::RealWorld& world, std::string path, RecordedDisk& disk);
  ~Recorder();
  void close();

 private:
  struct Connection;
  using ConnectionPtr = std::shared_ptr<Connection>;
  Recorder(io::RealWorld& world, std::string path, RecordedDisk& disk);
  void accept();
  void hear(ConnectionPtr c);
  bool hear_one(const ConnectionPtr& c);
  io::Task<void> serve(ConnectionPtr c, card::RecorderRequest request);
  io::Task<Status> perform(Connection& c, const card::RecorderRequest& request, card::RecorderReply& reply, std::vector<int>& descriptors);
  Status start(Connection& c, const card::RecorderRequest& request, card::RecorderReply& reply, std::vector<int>& descriptors);
  void stop();
  static io::Task<void> accept_later(std::weak_ptr<Recorder> weak);
  void wait_doorbell();
  Status track(Connection& c, bool on, std::vector<int>& descriptors);
  io::Task<Status> read(Connection& c, std::uint64_t offset, std::uint32_t bytes);
  void list_memory(card::RecorderReply& reply, std::vector<int>& descriptors);
  void end(const ConnectionPtr& c);

  io::RealWorld& world_;
  std::string path_;
  RecordedDisk* disk_;
  struct Sockets;
  std::unique_ptr<Sockets> sockets_;
  std::vector<ConnectionPtr> connections_;
  Connection* recording_ = nullptr;  // whose the recording is
  Connection* quiesced_ = nullptr;
  bool quiet_ = false;  // and all of it has ended
  Connection* throttled_ = nullptr;
  Connection* tracking_ = nullptr;
};

}  // namespace luge::attach
