// One connection between two daemons: frames both ways, requests matched with their replies.
//
// Batching: send() only queues; one writer task puts everything queued meanwhile into one gathered write, and one
// read takes in as many frames as the socket holds.
// Life: a Channel is shared; its two tasks keep it alive until the connection ends. After that every call() fails
// with unavailable and send() does nothing. Frames that do not verify end the connection and are logged.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <functional>
#include <memory>
#include <string>

#include "io/network.hpp"
#include "wire/frame.hpp"

namespace luge::wire {

/// Who we are to peers. unit 0 (tools, first contact): accepts and is accepted by any.
struct Identity {
  std::uint64_t unit = 0;
  NodeId node = 0;
};

class Channel : public std::enable_shared_from_this<Channel> {
 public:
  /// Called on the loop for each frame that is not the reply to a call(). Must not block; spawns what takes time.
  using Handler = std::function<void(const std::shared_ptr<Channel>&, Frame)>;

  /// `initiator`: the side that connected; decides which request ids are ours.
  Channel(io::World& world, std::unique_ptr<io::Stream> stream, const Identity& self, bool initiator);
  ~Channel();

  /// Starts reading and writing. `closed` runs once, from the loop, when the connection has ended.
  void start(Handler handler, std::function<void()> closed = {});
  /// Where payloads of frames of a kind are received; default: ordinary memory. A card codes from its own without a copy.
  using PayloadMemory = std::function<Buffer(Kind, std::size_t bytes)>;
  void receive_into(PayloadMemory memory) { memory_ = std::move(memory); }

  void send(Frame frame);
  /// Sends `frame` as the answer to `request`.
  void reply(const Frame& request, Frame frame);
  /// unavailable: the connection ended before the answer; timed_out: no answer in time. In both cases it is not
  /// known whether the peer did it.
  io::Task<Result<Frame>> call(Frame request, io::Duration timeout);

  void close();
  bool open() const { return open_; }
  /// Bytes queued and not yet handed to the kernel: what a sender that can wait looks at.
  std::size_t queued_bytes() const { return queued_bytes_; }
  NodeId peer_node() const { return peer_node_; }
  const std::string& peer() const { return peer_; }

 private:
  struct Pending;
  io::Task<void> read_loop(std::shared_ptr<Channel> self);
  io::Task<void> write_loop(std::shared_ptr<Channel> self);
  io::Task<bool> fill(std::size_t want);
  io::Task<bool> read_frame(Frame& frame);
  void dispatch(Frame frame);
  void end();

  io::World& world_;
  std::unique_ptr<io::Stream> stream_;
  const Identity& self_;
  std::string peer_;
  Handler handler_;
  std::function<void()> closed_;
  PayloadMemory memory_;
  bool open_ = true;
  NodeId peer_node_ = 0;
  std::uint64_t next_id_;
  absl::flat_hash_map<std::uint64_t, Pending*> pending_;
  std::vector<Frame> queue_;
  std::size_t queued_bytes_ = 0;
  io::Event writable_;
  Buffer rx_;  // bytes [rx_begin_, rx_end_) are received and not consumed
  std::size_t rx_begin_ = 0, rx_end_ = 0;
};

/// Accepts connections and starts a Channel on each.
class Server {
 public:
  using Accepted = std::function<void(const std::shared_ptr<Channel>&)>;
  Server(io::World& world, const Identity& self) : world_(world), self_(self) {}
  /// `accepted` may be empty; `closed` gets the channel when it has ended.
  Status listen(const std::string& address, Channel::Handler handler, Accepted accepted = {}, Accepted closed = {});
  std::string address() const { return listener_ ? listener_->address() : std::string(); }
  void close() { if (listener_) listener_->close(); }

 private:
  io::Task<void> accept_loop(Channel::Handler handler, Accepted accepted, Accepted closed);
  io::World& world_;
  const Identity& self_;
  std::unique_ptr<io::Listener> listener_;
};

/// A connection to one peer that is made again whenever it ends, with back-off (10 ms doubling to 1 s) and jitter.
class Link {
 public:
  Link(io::World& world, const Identity& self, std::string address, Channel::Handler handler = {});
  ~Link();
  /// Runs in a task of its own after each (re)connect, before waiters see the link as connected. False: try again.
  void on_connect(std::function<io::Task<bool>(std::shared_ptr<Channel>)> f) { on_connect_ = std::move(f); }
  void on_disconnect(std::function<void()> f) { on_disconnect_ = std::move(f); }
  void start();
  void stop();
  /// Moves to another address: ends the present connection if the address differs.
  void set_address(const std::string& address);
  const std::string& address() const;
  bool connected() const;
  std::shared_ptr<Channel> channel() const;  ///< null when not connected
  /// Waits for a connection within `timeout`, then calls.
  io::Task<Result<Frame>> call(Frame request, io::Duration timeout);
  bool send(Frame frame);  ///< false: not connected, dropped
  io::Task<bool> wait_connected(io::Duration timeout);

 private:
  struct State;
  static io::Task<void> run(std::shared_ptr<State> state, std::uint64_t turn);
  static io::Task<void> serve(std::shared_ptr<State> state, std::uint64_t turn, std::shared_ptr<Channel> channel);
  std::shared_ptr<State> state_;
  std::function<io::Task<bool>(std::shared_ptr<Channel>)> on_connect_;
  std::function<void()> on_disconnect_;
};

}  // namespace luge::wire
