// Test only: a control plane and heads that speak control.fbs and client.fbs and nothing else. The heads share one
// Store, as if replication were perfect, so a test of the client can fail over between them.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "wire/channel.hpp"
#include "wire/client_generated.h"
#include "wire/control_generated.h"

namespace luge::client::testing {

/// What all heads of the fake unit agree on.
struct Store {
  struct Vp {
    Epoch epoch = 1;
    Revision revision = 1;
    NodeId primary = 1;
    std::map<Lba, Buffer> blocks;
    std::uint64_t incarnation = 0;         // open session
    std::set<std::uint64_t> applied;       // sequences of that session
    std::vector<std::uint64_t> order;      // as they were applied
    std::uint64_t duplicates = 0;
    std::uint64_t low = 0;
  };
  std::uint64_t unit = 77;
  VolumeId volume = 5;
  std::uint64_t bytes = 0, vp_bytes = 0;
  std::uint64_t incarnation = 0;  // granted
  NodeId holder = 0;
  std::map<VpId, Vp> vps;
  std::map<NodeId, std::string> addresses;

  Store(std::uint64_t bytes_, std::uint64_t vp_bytes_) : bytes(bytes_), vp_bytes(vp_bytes_) {
    for (std::uint32_t i = 0; i < (bytes + vp_bytes - 1) / vp_bytes; ++i) vps[make_vp(volume, i)];
  }
  void fail_over(NodeId to) {
    for (auto& [id, vp] : vps) {
      vp.primary = to;
      ++vp.epoch;
      ++vp.revision;
    }
  }
};

class FakePrimary {
 public:
  FakePrimary(io::World& world, std::shared_ptr<Store> store, NodeId id, std::string address)
      : store_(std::move(store)), self_{store_->unit, id}, server_(world, self_) {
    store_->addresses[id] = address;
    Status s = server_.listen(address, [this](const Channel& c, wire::Frame f) { on_frame(c, std::move(f)); });
    LUGE_CHECK(s.ok());
  }

  // What a test turns and reads.
  bool silent = false;             ///< takes writes, applies them, answers nothing
  bool deaf = false;               ///< takes nothing at all
  std::uint32_t corrupt_reads = 0; ///< so many read answers come with a wrong byte
  std::uint32_t degraded_reads = 0;
  std::uint32_t wrong_maps = 0;    ///< so many map answers do not add up
  std::uint64_t maps = 0;
  std::uint32_t unavailable_writes = 0;
  std::uint32_t damaged_writes = 0;  ///< so many writes are found not to be what they were summed as
  Epoch answer_as_epoch = 0;       ///< 0: the true one
  std::uint64_t batches = 0, ops = 0, sessions = 0, bad_crcs = 0, largest_window = 0;
  std::vector<fbs::WriteOp> seen;
  void close_connections() {
    for (auto& c : channels_) c->close();
    channels_.clear();
  }

 private:
  using Channel = std::shared_ptr<wire::Channel>;

  Store::Vp* mine(VpId id, Epoch epoch) {
    auto it = store_->vps.find(id);
    bool ours = it != store_->vps.end() && it->second.primary == self_.node && it->second.epoch == epoch;
    return ours ? &it->second : nullptr;
  }
  Epoch epoch_of(VpId id) {
    if (answer_as_epoch != 0) return answer_as_epoch;
    auto it = store_->vps.find(id);
    return it == store_->vps.end() ? 0 : it->second.epoch;
  }

  void on_frame(const Channel& c, wire::Frame f) {
    if (std::find(channels_.begin(), channels_.end(), c) == channels_.end()) channels_.push_back(c);
    if (deaf) return;
    if (f.kind == wire::Kind::open_session) open(c, f, *f.as<fbs::OpenSession>());
    if (f.kind == wire::Kind::write_batch) write(c, *f.as<fbs::WriteBatch>(), f.data());
    if (f.kind == wire::Kind::read_batch) read(c, *f.as<fbs::ReadBatch>());
    if (f.kind == wire::Kind::map_query) map(c, *f.as<fbs::MapQuery>());
  }

  void open(const Channel& c, const wire::Frame& f, const fbs::OpenSession& m) {
    Store::Vp* vp = mine(m.vp(), m.epoch());
    Code code = vp == nullptr ? Code::unavailable : m.incarnation() < vp->incarnation ? Code::closed_session : Code::ok;
    if (code == Code::ok) {
      ++sessions;
      if (m.incarnation() > vp->incarnation) vp->applied.clear();
      vp->incarnation = m.incarnation();
    }
    c->reply(f, wire::make_frame(wire::Kind::session_reply, [&](auto& b) {
               auto text = b.CreateString("");
               return fbs::CreateSessionReply(b, static_cast<std::uint16_t>(code), text, epoch_of(m.vp()));
             }));
  }

  void write(const Channel& c, const fbs::WriteBatch& m, Buffer payload) {
    ++batches;
    std::vector<fbs::WriteResult> results;
    Store::Vp* vp = mine(m.vp(), m.epoch());
    std::size_t at = 0;
    std::uint32_t crc = 0;
    for (const fbs::WriteOp* op : *m.ops()) {
      ++ops;
      seen.push_back(*op);
      Code code = vp == nullptr ? Code::unavailable : m.incarnation() != vp->incarnation ? Code::closed_session : Code::ok;
      if (code == Code::ok && unavailable_writes != 0) {
        --unavailable_writes;
        code = Code::unavailable;
      }
      if (code == Code::ok && damaged_writes != 0) {
        --damaged_writes;
        code = Code::corrupt;
      }
      std::uint64_t blocks = (op->offset() % kBlockBytes + op->length() + kBlockBytes - 1) / kBlockBytes;
      LUGE_CHECK(op->kind() != fbs::OpKind::write || blocks <= kMaxOpBlocks);
      if (code == Code::ok) {
        largest_window = std::max(largest_window, op->sequence() - m.low() + 1);
        apply(*vp, *op, payload, at, m.crcs(), crc);
        vp->low = m.low();
      }
      if (op->kind() == fbs::OpKind::write) {
        at += blocks * kBlockBytes;
        crc += static_cast<std::uint32_t>(blocks);
      }
      results.emplace_back(op->sequence(), static_cast<std::uint16_t>(code), 0, 0);
    }
    LUGE_CHECK(at == payload.size());
    if (silent) return;
    c->send(wire::make_frame(wire::Kind::write_replies, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(results);
      return fbs::CreateWriteReplies(b, m.vp(), epoch_of(m.vp()), m.attachment(), m.incarnation(), list);
    }));
  }

  void apply(Store::Vp& vp, const fbs::WriteOp& op, const Buffer& payload, std::size_t at,
             const flatbuffers::Vector<std::uint32_t>* crcs, std::uint32_t crc) {
    bool fresh = vp.applied.insert(op.sequence()).second;
    if (!fresh) {
      ++vp.duplicates;
      return;
    }
    vp.order.push_back(op.sequence());
    std::uint64_t from = op.offset(), end = from + op.length(), first = from / kBlockBytes;
    while (from < end) {
      Lba lba = from / kBlockBytes;
      std::uint64_t in = from % kBlockBytes, n = std::min<std::uint64_t>(end - from, kBlockBytes - in);
      Buffer& block = vp.blocks[lba];
      Buffer next = block.empty() ? Buffer::zeros(kBlockBytes) : Buffer::copy_of(block.bytes());
      if (op.kind() == fbs::OpKind::write) {
        Bytes piece = payload.bytes().subspan(at + (lba - first) * kBlockBytes + in, n);
        if (crc32c(piece) != crcs->Get(crc + static_cast<std::uint32_t>(lba - first))) ++bad_crcs;
        std::memcpy(next.data() + in, piece.data(), n);
      } else {
        std::memset(next.data() + in, 0, n);
      }
      block = next;
      from += n;
    }
  }

  void read(const Channel& c, const fbs::ReadBatch& m) {
    Store::Vp* vp = mine(m.vp(), m.epoch());
    std::vector<fbs::ReadResult> results;
    std::vector<std::uint32_t> crcs;
    std::vector<Buffer> payload;
    for (const fbs::ReadOp* op : *m.ops()) {
      Code code = vp == nullptr ? Code::unavailable : Code::ok;
      if (code == Code::ok && degraded_reads != 0) {
        --degraded_reads;
        code = Code::degraded;
      }
      bool zero = true;
      for (std::uint32_t i = 0; vp != nullptr && i < op->blocks(); ++i) zero &= !vp->blocks.contains(op->lba() + i);
      results.emplace_back(op->tag(), op->blocks(), static_cast<std::uint16_t>(code), code == Code::ok && zero, 0);
      for (std::uint32_t i = 0; code == Code::ok && !zero && i < op->blocks(); ++i) {
        auto it = vp->blocks.find(op->lba() + i);
        Buffer block = it == vp->blocks.end() ? Buffer::zeros(kBlockBytes) : Buffer::copy_of(it->second.bytes());
        crcs.push_back(crc32c(block.bytes()));
        if (corrupt_reads != 0) {
          --corrupt_reads;
          block.data()[9] ^= std::byte{1};
        }
        payload.push_back(block);
      }
    }
    if (silent) return;
    wire::Frame f = wire::make_frame(wire::Kind::read_replies, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(results);
      auto crc_list = b.CreateVector(crcs);
      return fbs::CreateReadReplies(b, m.vp(), epoch_of(m.vp()), list, crc_list);
    });
    f.payload = std::move(payload);
    c->send(std::move(f));
  }

  void map(const Channel& c, const fbs::MapQuery& m) {
    Store::Vp* vp = mine(m.vp(), m.epoch());
    Code code = vp == nullptr ? Code::unavailable : Code::ok;
    ++maps;
    LUGE_CHECK(m.blocks() != 0 && m.blocks() <= kMaxMapBlocks);
    std::vector<std::uint32_t> runs{0};
    bool data = false;
    for (std::uint32_t i = 0; vp != nullptr && i < m.blocks(); ++i) {
      if (vp->blocks.contains(m.lba() + i) != data) runs.push_back(0);
      data = vp->blocks.contains(m.lba() + i);
      ++runs.back();
    }
    if (wrong_maps != 0 && code == Code::ok) {
      --wrong_maps;
      ++runs.back();
    }
    if (silent) return;
    c->send(wire::make_frame(wire::Kind::map_reply, [&](auto& b) {
      auto list = b.CreateVector(runs);
      return fbs::CreateMapReply(b, m.vp(), epoch_of(m.vp()), m.tag(), static_cast<std::uint16_t>(code), 0, list);
    }));
  }

  std::shared_ptr<Store> store_;
  wire::Identity self_;
  wire::Server server_;
  std::vector<Channel> channels_;
};

class FakeControl {
 public:
  FakeControl(io::World& world, std::shared_ptr<Store> store, const std::string& address)
      : store_(std::move(store)), self_{store_->unit, 900}, server_(world, self_) {
    Status s = server_.listen(address, [this](const std::shared_ptr<wire::Channel>& c, wire::Frame f) { on_frame(c, f); });
    LUGE_CHECK(s.ok());
  }
  std::uint64_t lookups = 0, detaches = 0;

 private:
  flatbuffers::Offset<fbs::VpView> view(flatbuffers::FlatBufferBuilder& b, VpId id) {
    const Store::Vp& vp = store_->vps.at(id);
    std::vector<std::uint32_t> reserves;
    for (const auto& [node, address] : store_->addresses)
      if (node != vp.primary) reserves.push_back(node);
    auto r = b.CreateVector(reserves);
    auto address = b.CreateString(store_->addresses.at(vp.primary));
    fbs::DesignationBuilder d(b);
    d.add_vp(id);
    d.add_epoch(vp.epoch);
    d.add_revision(vp.revision);
    d.add_primary(vp.primary);
    d.add_reserves(r);
    d.add_blocks(store_->vp_bytes / kBlockBytes);
    auto designation = d.Finish();
    return fbs::CreateVpView(b, 0, 0, designation, address);
  }

  void on_frame(const std::shared_ptr<wire::Channel>& c, const wire::Frame& f) {
    if (f.kind == wire::Kind::register_node) {
      c->reply(f, wire::make_frame(wire::Kind::register_reply, [&](auto& b) {
                 std::vector<flatbuffers::Offset<fbs::NodeInfo>> nodes;
                 for (const auto& [id, address] : store_->addresses) {
                   auto name = b.CreateString("head-" + std::to_string(id));
                   auto role = b.CreateString("head");
                   auto a = b.CreateString(address);
                   nodes.push_back(fbs::CreateNodeInfo(b, id, name, role, a, 0, true, 1));
                 }
                 auto list = b.CreateVector(nodes);
                 return fbs::CreateRegisterReply(b, 0, 0, store_->unit, list);
               }));
    } else if (f.kind == wire::Kind::attach_volume) {
      const auto* m = f.as<fbs::AttachVolume>();
      bool held = store_->holder != 0 && store_->holder != m->holder() && !m->take_over();
      c->reply(f, wire::make_frame(wire::Kind::volume_view, [&](auto& b) {
                 if (held) {
                   auto text = b.CreateString("held by node " + std::to_string(store_->holder));
                   return fbs::CreateVolumeView(b, static_cast<std::uint16_t>(Code::exists), text);
                 }
                 store_->holder = m->holder();
                 auto name = b.CreateString(m->name()->str());
                 std::vector<flatbuffers::Offset<fbs::VpView>> vps;
                 for (const auto& [id, vp] : store_->vps) vps.push_back(view(b, id));
                 auto list = b.CreateVector(vps);
                 return fbs::CreateVolumeView(b, 0, 0, name, store_->volume, store_->bytes, store_->vp_bytes, 4, 2,
                                              store_->volume, ++store_->incarnation, list);
               }));
    } else if (f.kind == wire::Kind::lookup_vp) {
      ++lookups;
      VpId vp = f.as<fbs::LookupVp>()->vp();
      c->reply(f, wire::make_frame(wire::Kind::vp_view, [&](auto& b) { return view(b, vp); }));
    } else if (f.kind == wire::Kind::detach_volume) {
      ++detaches;
      store_->holder = 0;
      c->reply(f, wire::reply_frame(Status()));
    }
  }

  std::shared_ptr<Store> store_;
  wire::Identity self_;
  wire::Server server_;
};

}  // namespace luge::client::testing
