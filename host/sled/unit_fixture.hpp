// For tests: sleds of one unit in the simulator, and a client that speaks wire/sled.fbs to them as a head would.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "coding/chunk_header.hpp"
#include "coding/erasure_coder.hpp"
#include "sim/cluster/simulation.hpp"
#include "sled/device_format.hpp"
#include "sled/sled.hpp"
#include "switches/switches.hpp"
#include "wire/channel.hpp"
#include "wire/sled_generated.h"
#include "wire/unit_key.hpp"

namespace luge::sled::testing {

inline constexpr std::uint64_t kUnit = 5;
inline constexpr std::uint64_t kColumnBytes = 1 << 20;
inline constexpr std::uint64_t kDeviceBytes = 16 << 20;
inline constexpr std::uint32_t kChunk = 4 * kBlockBytes;
inline constexpr Layout kLayout{4, 2};
inline constexpr VpId kVp = 0x30001;

inline constexpr NodeId kHead = 10;  // the client: primary of every VP, unless a test says otherwise

/// The unit's control plane, as far as sleds know it.
inline const wire::Signer& signer() {
  static const wire::Signer s(wire::KeyBytes{1, 2, 3});
  return s;
}

inline wire::Designation designation(VpId vp, Epoch epoch, NodeId primary = kHead, std::vector<NodeId> reserves = {}) {
  wire::Designation d;
  d.unit = kUnit;
  d.vp = vp;
  d.epoch = epoch;
  d.revision = epoch;
  d.history = 1;
  d.primary = primary;
  d.reserves = std::move(reserves);
  d.required = {primary};
  d.layout = kLayout;
  d.signature = signer().sign(d);
  return d;
}

inline std::uint32_t slot_bytes(Layout l = kLayout, std::uint32_t chunk = kChunk) { return coding::chunk_header_bytes(l, chunk) + chunk; }
inline fbs::StripeId wire_id(StripeId s) { return fbs::StripeId(s.vp, s.epoch, s.counter); }

/// Breaks a rule while it lives.
class Broken {
 public:
  explicit Broken(Switch s) : switch_(s) { set_broken(s, true); }
  Broken(const Broken&) = delete;
  ~Broken() { set_broken(switch_, false); }

 private:
  Switch switch_;
};

struct SledDaemon {
  SledDaemon(io::World& w, Options o) : sled(w, std::move(o)) { w.spawn("sled", run()); }
  io::Task<void> run() { started = co_await sled.start(); }
  Sled sled;
  std::optional<Status> started;
};

struct Client {
  explicit Client(io::World& w, NodeId id) : world(w), identity{kUnit, id} {}
  wire::Link& link(const std::string& address) {
    auto& l = links[address];
    if (!l) {
      l = std::make_unique<wire::Link>(world, identity, address);
      l->start();
    }
    return *l;
  }
  io::World& world;
  wire::Identity identity;
  std::map<std::string, std::unique_ptr<wire::Link>> links;
};

/// A coded stripe of random blocks, as a head and a gateway make it.
struct Stripe {
  StripeId id;
  Layout layout;
  std::vector<Buffer> chunks;
  std::vector<fbs::BlockIdentity> blocks;
  std::vector<std::uint32_t> parity_crcs;

  Buffer header(std::uint32_t chunk, Generation generation, std::uint64_t unit = kUnit) const {
    auto bytes = static_cast<std::uint32_t>(chunks[0].size());
    return coding::encode_chunk_header({unit, id, layout, bytes, chunk, generation, true}, blocks, parity_crcs);
  }
  std::vector<Bytes> data() const {
    std::vector<Bytes> v;
    for (std::uint32_t i = 0; i < layout.k; ++i) v.push_back(chunks[i].bytes());
    return v;
  }
};

class SledUnit {
 public:
  /// `tweak` changes the options of every sled.
  explicit SledUnit(std::uint32_t sleds, std::uint32_t devices = 1, std::uint64_t seed = 1, std::function<void(Options&)> tweak = {}) : sim(seed) {
    logging::setup("test", "off");
    for (std::uint32_t i = 0; i < sleds; ++i) add_sled(devices, tweak);
    client_node = sim.add_node("client", [this](io::World& w) { return client = std::make_shared<Client>(w, kHead); });
    for (std::uint32_t i = 0; i < sleds; ++i) at_start.push_back(wait_started(i));
  }

  void add_sled(std::uint32_t devices, const std::function<void(Options&)>& tweak) {
    auto i = static_cast<std::uint32_t>(nodes.size());
    Options o;
    o.id = id(i);
    o.name = "sled-" + std::to_string(i);
    o.listen = address(i);
    o.unit = kUnit;
    o.column_bytes = kColumnBytes;
    o.unit_key = signer().public_key();
    for (std::uint32_t d = 0; d < devices; ++d) o.devices.push_back({"/dev/disk" + std::to_string(d)});
    if (tweak) tweak(o);
    options.push_back(o);
    daemons.emplace_back();
    auto node = static_cast<sim::Node>(sim.nodes());
    auto first = std::make_shared<bool>(true);
    nodes.push_back(sim.add_node(o.name, [this, i, node, first](io::World& w) {
      if (std::exchange(*first, false))
        for (const DeviceSpec& d : options[i].devices)
          if (d.create_bytes == 0) sim.disk(node).make_file(d.path, kDeviceBytes);
      return daemons[i] = std::make_shared<SledDaemon>(w, options[i]);
    }));
  }

  static NodeId id(std::uint32_t i) { return 41 + i; }
  static std::string address(std::uint32_t i) { return "tcp:sled-" + std::to_string(i) + ":1"; }

  Status wait_started(std::uint32_t i) {
    if (!sim.run_until([&] { return daemons[i]->started.has_value(); }, std::chrono::seconds(60))) return Status(Code::timed_out, "sled does not start");
    return *daemons[i]->started;
  }
  void crash(std::uint32_t i, sim::Crash kind = sim::Crash::power) {
    daemons[i].reset();
    sim.crash(nodes[i], kind);
    if (client) client->links.erase(address(i));  // else a call might go into the connection that has just died
  }
  Status restart(std::uint32_t i) {
    sim.restart(nodes[i]);
    return wait_started(i);
  }
  Status bounce(std::uint32_t i, sim::Crash kind = sim::Crash::power) {
    crash(i, kind);
    return restart(i);
  }
  sim::Disk& disk(std::uint32_t i) { return sim.disk(nodes[i]); }

  /// Begins a call and returns at once; the result comes while the simulation runs.
  using Pending = std::shared_ptr<std::optional<Result<wire::Frame>>>;
  Pending begin(std::uint32_t sled, wire::Frame f) {
    Pending p = std::make_shared<std::optional<Result<wire::Frame>>>();
    sim.world(client_node).spawn("call", [](Client& c, std::string to, wire::Frame f, Pending p) -> io::Task<void> {
      auto r = co_await c.link(to).call(std::move(f), std::chrono::seconds(30));
      p->emplace(std::move(r));
    }(*client, address(sled), std::move(f), p));
    return p;
  }
  Result<wire::Frame> end(const Pending& p) {
    if (!sim.run_until([&] { return p->has_value(); }, std::chrono::seconds(60))) return Status(Code::timed_out, "no answer");
    return **p;
  }
  Result<wire::Frame> call(std::uint32_t sled, wire::Frame f) { return end(begin(sled, std::move(f))); }
  static Status plain(const Result<wire::Frame>& r) { return r.ok() ? wire::status_of(*r) : r.status(); }

  static wire::Frame fence_frame(VpId vp, Epoch epoch) { return fence_frame(designation(vp, epoch)); }
  static wire::Frame fence_frame(const wire::Designation& d) {
    return wire::make_frame(wire::Kind::fence, [&](auto& b) {
      auto presented = d.to(b);
      return fbs::CreateFence(b, d.vp, d.epoch, presented);
    });
  }
  static Status fence_status(const Result<wire::Frame>& r, Epoch* held = nullptr) {
    if (!r.ok() || r->kind == wire::Kind::reply) return plain(r);
    const auto* m = r->kind == wire::Kind::fence_reply ? r->as<fbs::FenceReply>() : nullptr;
    if (!m) return Status(Code::internal, "no fence reply");
    if (held) *held = m->epoch();
    return wire::make_status(m->code(), m->text());
  }
  Status fence(std::uint32_t sled, VpId vp, Epoch epoch, Epoch* held = nullptr) { return fence_status(call(sled, fence_frame(vp, epoch)), held); }
  void fence_all(VpId vp, Epoch epoch) {
    for (std::uint32_t i = 0; i < nodes.size(); ++i) ASSERT_EQ(fence(i, vp, epoch).to_string(), Status().to_string());
  }

  struct Column {
    std::uint16_t device = 0;
    std::uint32_t number = 0;
    Generation generation = 0;
    std::uint32_t slot_bytes = 0;
    std::vector<fbs::SlotState> slots;
    fbs::Credential credential;
  };
  Column column_of(const fbs::Column& c) {
    Column out{c.device(), c.column(), c.generation(), c.slot_bytes(), {}, {}};
    if (c.credential()) out.credential = *c.credential();
    credentials[{out.credential.sled(), c.device(), c.column()}] = out.credential;
    if (c.states())
      for (const auto* s : *c.states()) out.slots.push_back(*s);
    return out;
  }
  static wire::Frame claim_frame(VpId vp, Epoch epoch, std::uint16_t device, std::uint32_t column, std::uint32_t bytes, NodeId role = 0) {
    return claim_frame(designation(vp, epoch), device, column, bytes, role);
  }
  static wire::Frame claim_frame(const wire::Designation& d, std::uint16_t device, std::uint32_t column, std::uint32_t bytes = testing::slot_bytes(), NodeId role = 0) {
    return wire::make_frame(wire::Kind::claim_column, [&](auto& b) {
      auto presented = d.to(b);
      return fbs::CreateClaimColumn(b, d.vp, d.epoch, device, column, bytes, role, presented);
    });
  }
  Result<Column> claimed(const Result<wire::Frame>& r) {
    if (!r.ok()) return r.status();
    const auto* m = r->kind == wire::Kind::claim_reply ? r->as<fbs::ClaimReply>() : nullptr;
    if (!m) return Status(Code::internal, "no claim reply");
    if (m->code() != 0) return wire::make_status(m->code(), m->text());
    if (!m->column()) return Status(Code::internal, "ok without a column");
    return column_of(*m->column());
  }
  Result<Column> claim(std::uint32_t sled, VpId vp, Epoch epoch, std::uint32_t column = 0, std::uint32_t bytes = testing::slot_bytes(), std::uint16_t device = 0) {
    return claimed(call(sled, claim_frame(vp, epoch, device, column, bytes)));
  }
  static wire::Frame list_frame(const wire::Designation& d, std::uint16_t device = 0, std::uint32_t column = 0, NodeId role = 0) {
    return wire::make_frame(wire::Kind::list_columns, [&](auto& b) {
      auto presented = d.to(b);
      return fbs::CreateListColumns(b, d.vp, d.epoch, device, column, role, presented);
    });
  }
  /// pages: bytes of each answer.
  Result<std::vector<Column>> list(std::uint32_t sled, VpId vp, Epoch epoch, std::vector<std::size_t>* pages = nullptr) {
    std::vector<Column> out;
    std::uint16_t device = 0;
    std::uint32_t column = 0;
    while (true) {
      auto r = call(sled, list_frame(designation(vp, epoch), device, column));
      if (!r.ok()) return r.status();
      const auto* m = r->kind == wire::Kind::columns ? r->as<fbs::Columns>() : nullptr;
      if (!m) return Status(Code::internal, "no columns");
      if (m->code() != 0) return wire::make_status(m->code(), m->text());
      for (const auto* c : *m->columns()) out.push_back(column_of(*c));
      if (pages) pages->push_back(r->body.size());
      if (!m->more()) return out;
      device = m->next_device();
      column = m->next_column();
    }
  }
  Status release(std::uint32_t sled, VpId vp, Epoch epoch) {
    return plain(call(sled, release_frame(designation(vp, epoch))));
  }
  static wire::Frame release_frame(const wire::Designation& d) {
    return wire::make_frame(wire::Kind::release_columns, [&](auto& b) {
      auto presented = d.to(b);
      return fbs::CreateReleaseColumns(b, d.vp, d.epoch, presented);
    });
  }
  /// Of the place's column; asks the sled if the last one seen is of another epoch. Zeros: there is none.
  fbs::Credential credential(const fbs::ChunkPlace& p, VpId vp, Epoch epoch) {
    if (p.sled() < id(0) || p.sled() - id(0) >= nodes.size()) return {};
    fbs::Credential& known = credentials[{p.sled(), p.device(), p.column()}];
    if ((known.vp() != vp || known.epoch() != epoch) && sim.up(nodes[p.sled() - id(0)])) (void)list(p.sled() - id(0), vp, epoch);
    return known;
  }

  static fbs::ChunkPlace place(std::uint32_t sled, std::uint32_t column, std::uint32_t slot, Generation g, std::uint16_t device = 0) {
    return fbs::ChunkPlace(id(sled), column, slot, device, 0, g);
  }

  Stripe stripe(std::uint64_t counter, Epoch epoch = 1, VpId vp = kVp, Layout l = kLayout, std::uint32_t chunk = kChunk) {
    Stripe s{{vp, epoch, counter}, l, {}, {}, {}};
    for (std::uint32_t i = 0; i < l.width(); ++i) {
      s.chunks.push_back(Buffer::allocate(chunk));
      auto* words = reinterpret_cast<std::uint64_t*>(s.chunks.back().data());
      for (std::size_t w = 0; w < chunk / 8; ++w) words[w] = sim.random().below(~std::uint64_t{0});
      std::vector<std::uint32_t> crcs;
      if (i < l.k) {
        crc32c_blocks(s.chunks[i].bytes(), crcs);
        for (std::uint32_t c : crcs) s.blocks.emplace_back(s.blocks.size(), counter * 1000 + s.blocks.size(), c, 0);
      }
    }
    std::vector<MutableBytes> parity;
    for (std::uint32_t i = l.k; i < l.width(); ++i) parity.push_back(s.chunks[i].mutable_bytes());
    auto coder = coding::make_isal_coder();
    encode(*coder, s, parity);
    for (std::uint32_t i = l.k; i < l.width(); ++i) {
      std::vector<std::uint32_t> crcs;
      crc32c_blocks(s.chunks[i].bytes(), crcs);
      s.parity_crcs.insert(s.parity_crcs.end(), crcs.begin(), crcs.end());
    }
    return s;
  }
  void encode(coding::ErasureCoder& coder, const Stripe& s, std::span<const MutableBytes> parity) {
    sim.run(client_node, [](coding::ErasureCoder& coder, const Stripe& s, std::span<const MutableBytes> parity) -> io::Task<void> {
      std::vector<Bytes> data = s.data();
      Status status = co_await coder.encode(s.layout, data, parity);
      EXPECT_TRUE(status.ok()) << status.to_string();
    }(coder, s, parity));
  }

  wire::Frame write_frame(const Stripe& s, std::uint32_t chunk, const fbs::ChunkPlace& p, std::optional<Epoch> epoch = {}) {
    return write_frame(s, chunk, p, credential(p, s.id.vp, epoch.value_or(s.id.epoch)), epoch);
  }
  static wire::Frame write_frame(const Stripe& s, std::uint32_t chunk, const fbs::ChunkPlace& p, const fbs::Credential& c, std::optional<Epoch> epoch = {}) {
    Buffer header = s.header(chunk, p.generation());
    fbs::StripeId sid = wire_id(s.id);
    wire::Frame f = wire::make_frame(wire::Kind::write_chunk, [&](auto& b) {
      return fbs::CreateWriteChunk(b, s.id.vp, epoch.value_or(s.id.epoch), &sid, &p, static_cast<std::uint16_t>(chunk), static_cast<std::uint32_t>(header.size()), &c);
    });
    f.payload = {header, s.chunks[chunk]};
    return f;
  }
  Status write(std::uint32_t sled, const Stripe& s, std::uint32_t chunk, const fbs::ChunkPlace& p, std::optional<Epoch> epoch = {}) {
    return plain(call(sled, write_frame(s, chunk, p, epoch)));
  }

  struct Read {
    std::vector<fbs::BlockIdentity> identities;
    Buffer header, blocks;
  };
  Result<Read> read(std::uint32_t sled, StripeId stripe, std::uint32_t chunk, const fbs::ChunkPlace& p, std::uint32_t first = 0,
                    std::uint32_t blocks = kChunk / kBlockBytes, bool header = true) {
    fbs::StripeId sid = wire_id(stripe);
    auto r = call(sled, wire::make_frame(wire::Kind::read_chunk, [&](auto& b) {
      return fbs::CreateReadChunk(b, &sid, &p, static_cast<std::uint16_t>(chunk), first, blocks, header);
    }));
    if (!r.ok()) return r.status();
    const auto* m = r->kind == wire::Kind::chunk ? r->as<fbs::Chunk>() : nullptr;
    if (!m) return Status(Code::internal, "no chunk");
    if (m->code() != 0) return wire::make_status(m->code(), m->text());
    Read out;
    for (const auto* i : *m->identities()) out.identities.push_back(*i);
    Buffer data = r->data();
    out.header = data.slice(0, m->header_bytes());
    out.blocks = data.slice(m->header_bytes(), data.size() - m->header_bytes());
    return out;
  }
  wire::Frame free_frame(StripeId stripe, const fbs::ChunkPlace& p, Epoch epoch, std::optional<VpId> vp = {}) {
    return free_frame(stripe, p, credential(p, vp.value_or(stripe.vp), epoch), epoch, vp);
  }
  static wire::Frame free_frame(StripeId stripe, const fbs::ChunkPlace& p, const fbs::Credential& c, Epoch epoch, std::optional<VpId> vp = {}) {
    fbs::StripeId sid = wire_id(stripe);
    return wire::make_frame(wire::Kind::free_slot, [&](auto& b) { return fbs::CreateFreeSlot(b, vp.value_or(stripe.vp), epoch, &sid, &p, &c); });
  }
  Status free(std::uint32_t sled, StripeId stripe, const fbs::ChunkPlace& p, Epoch epoch, std::optional<VpId> vp = {}) {
    return plain(call(sled, free_frame(stripe, p, epoch, vp)));
  }

  wire::Frame stripe_frame(const Stripe& s, const std::vector<fbs::ChunkPlace>& places) {
    std::vector<fbs::Credential> opened;
    for (const fbs::ChunkPlace& p : places) opened.push_back(p.sled() ? credential(p, s.id.vp, s.id.epoch) : fbs::Credential());
    return stripe_frame(s, places, opened);
  }
  static wire::Frame stripe_frame(const Stripe& s, const std::vector<fbs::ChunkPlace>& places, const std::vector<fbs::Credential>& credentials) {
    fbs::StripeId sid = wire_id(s.id);
    wire::Frame f = wire::make_frame(wire::Kind::write_stripe, [&](auto& b) {
      std::vector<flatbuffers::Offset<flatbuffers::String>> addresses;
      for (const fbs::ChunkPlace& p : places) addresses.push_back(b.CreateString(p.sled() ? address(p.sled() - id(0)) : std::string()));
      auto blocks = b.CreateVectorOfStructs(s.blocks);
      auto list = b.CreateVectorOfStructs(places);
      auto to = b.CreateVector(addresses);
      auto opened = b.CreateVectorOfStructs(credentials);
      return fbs::CreateWriteStripe(b, s.id.vp, s.id.epoch, &sid, static_cast<std::uint16_t>(s.layout.k), static_cast<std::uint16_t>(s.layout.m),
                                    static_cast<std::uint32_t>(s.chunks[0].size()), blocks, list, to, false, opened);
    });
    for (std::uint32_t i = 0; i < s.layout.k; ++i) f.payload.push_back(s.chunks[i]);
    return f;
  }
  struct StripeAnswer {
    Status status;
    std::vector<Code> results;
    std::string coder;
  };
  static StripeAnswer stripe_answer(const Result<wire::Frame>& r) {
    if (!r.ok()) return {r.status(), {}, {}};
    const auto* m = r->kind == wire::Kind::stripe_reply ? r->as<fbs::StripeReply>() : nullptr;
    if (!m) return {Status(Code::internal, "no stripe reply"), {}, {}};
    StripeAnswer a{wire::make_status(m->code(), m->text()), {}, m->coder()->str()};
    for (std::uint16_t c : *m->results()) a.results.push_back(static_cast<Code>(c));
    return a;
  }
  StripeAnswer write_stripe(std::uint32_t gateway, const Stripe& s, const std::vector<fbs::ChunkPlace>& places) {
    return stripe_answer(call(gateway, stripe_frame(s, places)));
  }

  std::string report(std::uint32_t i) { return daemons[i]->sled.report(); }
  /// The number behind "NAME": in a sled's report, its first occurrence.
  std::uint64_t reported(std::uint32_t i, const std::string& name) {
    std::string r = report(i), key = "\"" + name + "\":";
    auto at = r.find(key);
    if (at == std::string::npos) ADD_FAILURE() << name << " is not in " << r;
    return at == std::string::npos ? 0 : std::stoull(r.substr(at + key.size()));
  }
  /// Where a slot stands on its device.
  static std::uint64_t slot_at(std::uint32_t column, std::uint32_t slot, std::uint32_t bytes = testing::slot_bytes()) {
    return kMetaOffset + meta_mib_for(kDeviceBytes / kColumnBytes) * kMiB + column * kColumnBytes + std::uint64_t{slot} * bytes;
  }

  sim::Simulation sim;
  std::vector<Status> at_start;  // what each sled said when it was started first
  std::vector<Options> options;  // of each sled, from its next start on
  std::vector<sim::Node> nodes;
  std::vector<std::shared_ptr<SledDaemon>> daemons;
  std::map<std::tuple<NodeId, std::uint16_t, std::uint32_t>, fbs::Credential> credentials;  // the last one seen of each column
  sim::Node client_node = 0;
  std::shared_ptr<Client> client;
};

}  // namespace luge::sled::testing
