// One NBD client. Reads requests in bulk, hands them to the target without waiting, answers in whatever order they
// complete; one writer puts all that is ready into one gathered write.
// A connection belongs to an export from the end of its handshake on; before that to a portal, which has several.
// A connection that does not finish its handshake within kNegotiationTime ends; of those that are in it, one more than
// kMaxNegotiating ends the oldest, so that silent ones never keep an honest one out.
// Memory: nothing but this object until the client sends something. At most kOutstanding bytes for requests that are
// open and answers that are not yet in the socket; beyond that its socket is not read.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "attach/nbd_protocol.hpp"
#include "attach/tls_stream.hpp"
#include "client/block_target.hpp"
#include "io/network.hpp"

namespace luge::attach {

struct NbdStats {
  std::uint64_t connections = 0, reads = 0, writes = 0, read_bytes = 0, written_bytes = 0, errors = 0;
};

inline constexpr io::Duration kNegotiationTime = std::chrono::seconds(10);
inline constexpr std::size_t kMaxNegotiating = 64;  // of a portal

class NbdConnection;

/// A volume as NBD clients see it. `target` outlives the connections.
struct NbdExport {
  nbd::ExportInfo info;
  client::BlockTarget* target = nullptr;
  NbdStats stats;
};

/// What one address serves.
struct NbdPortal {
  std::string address;
  std::map<std::string, std::shared_ptr<NbdExport>> exports;  ///< by name
  std::shared_ptr<TlsContext> tls;                            ///< set: nothing but STARTTLS is answered without it
  std::size_t connections = 0;                                ///< in their handshake or beyond
  std::deque<std::weak_ptr<NbdConnection>> negotiating;       ///< in their handshake, oldest first
  /// An empty name means the only one there is. Null: there is none of that name.
  std::shared_ptr<NbdExport> find(std::string_view name) const;
};

class NbdConnection : public std::enable_shared_from_this<NbdConnection> {
 public:
  NbdConnection(io::World& world, std::unique_ptr<io::Stream> stream, std::shared_ptr<NbdPortal> portal);
  /// Runs to the end of the connection and of all its requests.
  io::Task<void> serve(std::shared_ptr<NbdConnection> self);
  void close();
  /// Takes no further request, waits until all that were taken have been answered and the answers are in the socket, and
  /// closes. What the client has sent beyond that is not done, and it sees as much.
  io::Task<void> drain(std::shared_ptr<NbdConnection> self);
  std::size_t unanswered() const { return open_requests_; }
  /// Null while it is in its handshake.
  const NbdExport* served() const { return export_.get(); }

 private:
  struct Reply {
    std::string head;
    std::uint64_t cost = 0;
    std::vector<Buffer> data;
  };
  io::Task<bool> negotiate_in_time(std::shared_ptr<NbdConnection> self);
  io::Task<void> watch_negotiation(std::shared_ptr<NbdConnection> self);
  io::Task<bool> negotiate();
  io::Task<bool> option(const nbd::OptionHeader& h, Bytes body, bool no_zeroes);
  io::Task<bool> export_name(std::string name, bool no_zeroes);
  io::Task<bool> info_or_go(const nbd::OptionHeader& h, Bytes body);
  io::Task<bool> meta_context(const nbd::OptionHeader& h, Bytes body);
  io::Task<bool> start_tls(const nbd::OptionHeader& h);
  io::Task<bool> answer_option(std::uint32_t option, std::uint32_t type, std::string_view text = {});
  void begin_transmission(std::shared_ptr<NbdExport> e);
  const std::string& called() const;
  io::Task<void> requests();
  io::Task<bool> one_request();
  io::Task<bool> take_write(const nbd::Request& r);
  void start(const nbd::Request& r, Buffer image);
  void finish(const nbd::Request& r, const Status& s, std::span<Buffer> data);
  void refuse(const nbd::Request& r, nbd::Error error, std::string_view text, std::uint64_t cost);
  void reply(std::string head, std::uint64_t cost, std::span<Buffer> data = {});
  void reply_read(const nbd::Request& r, std::span<Buffer> data);
  void finish_status(const nbd::Request& r, const Status& s, std::span<const client::BlockTarget::MapRun> runs);
  void count_error(const nbd::Request& r, const Status& s);
  io::Task<void> writer(std::shared_ptr<NbdConnection> self);
  io::Task<bool> fill(std::size_t want);
  io::Task<bool> take(std::byte* to, std::size_t bytes);
  io::Task<bool> send_now(std::string bytes);

  io::World& world_;
  std::unique_ptr<io::Stream> stream_;
  std::shared_ptr<NbdPortal> portal_;
  std::shared_ptr<NbdExport> export_;
  nbd::Agreed agreed_;
  std::string context_of_;  // the export whose metadata context was asked for
  bool encrypted_ = false;
  Buffer rx_;
  std::size_t begin_ = 0, end_ = 0;
  std::vector<Reply> replies_;
  bool negotiated_ = false, draining_ = false, closing_ = false, writer_done_ = true;
  std::size_t open_requests_ = 0;
  std::uint64_t outstanding_ = 0;  // bytes that requests cost, until their answers are written
  io::Event wake_writer_, room_;
};

}  // namespace luge::attach
