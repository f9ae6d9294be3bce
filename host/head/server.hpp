// Everything that reaches a head from outside, dispatched to the partition it is for: attaches, other heads, the control
// plane. Also the head's housekeeping that is not of one VP (memory, metadata cleaning).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "head/partition.hpp"
#include "wire/channel.hpp"
#include "wire/client_generated.h"

namespace luge::head {

class HeadServer {
 public:
  explicit HeadServer(Context& ctx);
  ~HeadServer();
  io::Task<Status> start(std::function<std::string()> report);
  void stop();
  std::string address() const { return server_.address(); }

 private:
  using ChannelPtr = std::shared_ptr<wire::Channel>;
  void on_request(const ChannelPtr& channel, wire::Frame frame);
  void on_client(const ChannelPtr& channel, wire::Frame frame);
  void on_replicate(const ChannelPtr& channel, const wire::Frame& frame);
  void on_confirm(const ChannelPtr& channel, const wire::Frame& frame);
  io::Task<void> answer_peer(ChannelPtr channel, wire::Frame frame);
  void on_peer_frame(NodeId peer, wire::Frame frame);
  void on_control(const ChannelPtr& channel, wire::Frame frame);
  io::Task<void> move_vp(ChannelPtr channel, wire::Frame frame, VpId vp, NodeId from, NodeId to);
  std::shared_ptr<Primary> primary_of(VpId vp);
  io::Task<void> grow_vp(ChannelPtr channel, wire::Frame frame, VpId vp, std::uint64_t blocks);
  io::Task<void> flush_vp(ChannelPtr channel, wire::Frame frame, VpId vp);
  wire::Frame held() const;
  io::Task<void> give_columns_back(NodeId sled, const Designation& d);
  io::Task<void> drop_vp(ChannelPtr channel, wire::Frame frame, VpId vp, std::optional<Designation> stored);
  io::Task<void> designate(Designation d, std::vector<fbs::SandboxColumn> sandbox);
  // leaving.cpp
  io::Task<Status> forget(Partition& p, std::string why, bool removed);
  io::Task<void> leave_partitions();
  io::Task<Code> ask_about(VpId vp);
  io::Task<void> housekeeping();
  void bound_memory();
  std::uint32_t worth_an_image() const;
  std::uint64_t image_bytes() const;
  void keep_room_for_images();
  bool metadata_to_clean() const;
  io::Task<void> clean_metadata();
  enum class Images { of_what_changed, all };
  io::Task<void> write_images(Images which);
  Partition& make_partition(VpId vp);
  bool primary_of_another(VpId vp) const;
  void on_log_durable(const std::vector<RecordPtr>& records);
  void want_ack(VpId vp, const ChannelPtr& channel);
  void send_acks();
  void start_control(std::function<std::string()> report);

  Context& ctx_;
  wire::Server server_;
  struct AckTarget {
    std::weak_ptr<wire::Channel> channel;
    bool due = false;
    Epoch epoch = 0;        // that the sender claimed
    std::uint64_t granted = 0;  // AckState::granted
    Code code = Code::ok;   // of its last message
  };
  std::map<VpId, AckTarget> acks_;
  bool acks_posted_ = false;
  struct Gathered {
    std::uint64_t appended;  // to the metadata log by then
    io::Time at;
  };
  std::optional<Gathered> gathered_;  // the last time that all images were written anew
  io::Time ask_again_{};  // how things stand with what this head has been replaced for
};

}  // namespace luge::head
