#include "sim/cluster/tenant.hpp"

#include <algorithm>

#include "client/volume.hpp"

namespace luge::sim {
namespace {

using io::Task;

// Attaches the volume, works, attaches again when it has been taken away.
class ClientDaemon final : public Target {
 public:
  ClientDaemon(io::World& w, Tenant& t, Node node, NodeId id, bool rival)
      : world_(w), tenant_(t), node_(node), id_(id), rival_(rival), changed_(w),
        control_(w, identity_, kControlAddress,
                 {.id = id, .name = "client-" + std::to_string(id), .role = "attach",
                  .address = "tcp:client-" + std::to_string(id) + ":1", .incarnation = w.random()}, {}) {
    identity_.node = id;
    control_.start();
    w.spawn("client", run());
  }
  ~ClientDaemon() override { forget(); }

  Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    Waiting waiting(*this);
    auto r = co_await client::read(world_, *volume_, offset, static_cast<std::uint32_t>(into.size()));
    if (!r.ok()) co_return r.status();
    if (r->size() != into.size()) co_return Status(Code::internal, "a read returned another length than asked");
    std::memcpy(into.data(), r->data(), into.size());
    co_return Status();
  }
  Task<Status> write(std::uint64_t offset, Bytes bytes) override {
    Waiting waiting(*this);
    co_return co_await client::write(world_, *volume_, offset, Buffer::copy_of(bytes));
  }
  Task<Status> trim(std::uint64_t offset, std::uint64_t bytes) override {
    Waiting waiting(*this);
    co_return co_await client::trim(world_, *volume_, offset, static_cast<std::uint32_t>(bytes));
  }
  Task<Status> zero(std::uint64_t offset, std::uint64_t bytes) override {
    Waiting waiting(*this);
    co_return co_await client::zero(world_, *volume_, offset, static_cast<std::uint32_t>(bytes));
  }

  std::uint64_t attachment() const override { return lost_ ? 0 : attachment_; }
  std::string waiting() const override {
    return std::to_string(volume_->open_requests()) + " requests open" + (volume_->paused() ? ", paused: " + volume_->pause_reason() : "");
  }

 private:
  struct Waiting {
    explicit Waiting(ClientDaemon& c) : tenant(c.tenant_), open(tenant.open.insert(tenant.open.end(), {&c.world_, c.world_.now()})) {}
    ~Waiting() {
      tenant.longest_wait = std::max(tenant.longest_wait, open->client->now() - open->since);
      tenant.open.erase(open);
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
    Tenant& tenant;
    std::list<Tenant::Open>::iterator open;
  };

  void forget() {
    if (tenant_.present != this) return;
    tenant_.present = nullptr;
    tenant_.volume = nullptr;
    tenant_.load->detached();
  }

  Task<void> run() {
    while (true) {
      if (rival_) {
        co_await world_.sleep(Duration(world_.random_below(4'000'000'000)));
        if (!tenant_.rivalry()) continue;
      }
      lost_ = false;
      ++attachment_;
      Status s = co_await attach();
      if (!s.ok()) {
        if (s.code() == Code::invalid || s.code() == Code::corrupt) tenant_.fail("attach: " + s.to_string());
        co_await world_.sleep(100ms);
        continue;
      }
      // One that has no requests learns of the loss from nobody; when the other is gone too, somebody must come back.
      auto orphaned = [this] { return tenant_.present == nullptr && volume_->incarnation() < tenant_.incarnation; };
      while (!lost_ && !orphaned()) co_await changed_.wait_for(1s);
      forget();
      co_await world_.sleep(Duration(world_.random_below(1'500'000'000)));
    }
  }

  Task<Status> attach() {
    auto v = co_await client::Volume::attach(world_, identity_, control_, tenant_.name, id_, tenant_.rivals);
    if (!v.ok()) co_return v.status();
    if (volume_) retired_.push_back(std::move(volume_));
    volume_ = std::move(*v);
    volume_->on_lost([this](const Status&) {
      lost_ = true;
      changed_.notify_all();
    });
    // A session must be open everywhere before older attachments are fenced for certain: a read of each partition, of the last one from its end.
    std::vector<std::uint64_t> from{0};
    while (from.back() + 2 * tenant_.partition_bytes < volume_->size_bytes()) from.push_back(from.back() + tenant_.partition_bytes);
    from.push_back(volume_->size_bytes() - kBlockBytes);
    for (std::uint64_t at : from) {
      auto r = co_await client::read(world_, *volume_, at, kBlockBytes);
      if (!r.ok()) co_return r.status();
    }
    // Reads need no session, so one that was overtaken meanwhile can get here.
    if (lost_ || volume_->incarnation() < tenant_.incarnation) co_return Status(Code::closed_session, "lost at once");
    tenant_.incarnation = volume_->incarnation();
    tenant_.present = this;
    tenant_.volume = volume_.get();
    tenant_.present_node = node_;
    tenant_.load->attach(world_, *this);
    co_return Status();
  }

  io::World& world_;
  Tenant& tenant_;
  Node node_;
  NodeId id_;
  bool rival_;
  bool lost_ = false;
  std::uint64_t attachment_ = 0;
  io::Event changed_;
  wire::Identity identity_;
  wire::ControlLink control_;
  std::unique_ptr<client::Volume> volume_;
  std::vector<std::unique_ptr<client::Volume>> retired_;  // requests may still be open on them
};

}  // namespace

Duration Tenant::waited() const {
  Duration longest = longest_wait;
  for (const Open& o : open) longest = std::max(longest, o.client->now() - o.since);
  return longest;
}

void add_client(Simulation& sim, Tenant& tenant, NodeId id, bool rival) {
  Node node = static_cast<Node>(sim.nodes());
  tenant.clients.push_back(node);
  sim.add_node("client-" + std::to_string(id), [&tenant, node, id, rival](io::World& w) {
    return std::make_shared<ClientDaemon>(w, tenant, node, id, rival);
  });
}

}  // namespace luge::sim
