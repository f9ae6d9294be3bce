// Any bytes from a peer into a Channel: it hands out frames or ends the connection, and whatever table a receiver takes
// a frame's body for, it gets null or one that can be walked. Half of the inputs go in as they are; the others are cut
// into frames with right headers and checksums, which no fuzzer would find.
#include <algorithm>
#include <cstring>
#include <string>

#include "base/logging.hpp"
#include "sim/cluster/simulation.hpp"
#include "wire/channel.hpp"
#include "wire/client_generated.h"
#include "wire/control_generated.h"
#include "wire/log_generated.h"
#include "wire/replica_generated.h"
#include "wire/sled_generated.h"

namespace {

using namespace luge;

class BytesStream final : public io::Stream {
 public:
  BytesStream(std::string bytes, std::size_t piece) : bytes_(std::move(bytes)), piece_(piece) {}
  io::Task<std::size_t> read_some(MutableBytes into) override {
    LUGE_CHECK(!into.empty());
    std::size_t n = closed_ ? 0 : std::min({into.size(), bytes_.size() - at_, piece_});
    std::memcpy(into.data(), bytes_.data() + at_, n);
    at_ += n;
    co_return n;
  }
  io::Task<std::size_t> read_some(MutableBytes into, MutableBytes then) override {
    std::size_t n = co_await read_some(into);
    if (n == into.size() && at_ < bytes_.size()) n += co_await read_some(then);
    co_return n;
  }
  io::Task<bool> write_all(std::span<const Bytes>) override { co_return !closed_; }
  void close() override { closed_ = true; }
  std::string peer() const override { return "fuzz"; }

 private:
  std::string bytes_;
  std::size_t piece_, at_ = 0;
  bool closed_ = false;
};

// Frames of (kind, id, length, length bytes of body).
std::string sealed(std::string_view in) {
  std::string out;
  while (in.size() >= 4) {
    wire::FrameHeader h;
    h.kind = static_cast<std::uint8_t>(in[0]);
    h.id = static_cast<std::uint8_t>(in[1]);
    std::size_t length = static_cast<std::uint8_t>(in[2]) | std::size_t{static_cast<std::uint8_t>(in[3])} << 8;
    in.remove_prefix(4);
    std::string_view body = in.substr(0, length);
    in.remove_prefix(body.size());
    h.body_bytes = static_cast<std::uint32_t>(body.size());
    h.crc = wire::frame_crc(h, as_bytes(body));
    out.append(reinterpret_cast<const char*>(&h), sizeof h);
    out += body;
  }
  return out;
}

std::uint64_t sum = 0;  // so that what is read is not optimised away
void touch(const flatbuffers::String* s) {
  if (s) sum += s->str().size() + static_cast<std::uint8_t>(s->c_str()[s->size()]);
}
template <class V>
void touch_all(const V* v) {
  if (!v) return;
  auto bytes = v->size() * sizeof(*v->data());
  for (std::size_t i = 0; i < bytes; ++i) sum += reinterpret_cast<const std::uint8_t*>(v->data())[i];
}

template <class... Tables>
void verify(const wire::Frame& f) {
  ((sum += f.as<Tables>() != nullptr), ...);
}

void receive(const wire::Frame& f) {
  LUGE_CHECK(f.payload.size() <= 1);
  Status s = wire::status_of(f);
  sum += s.text().size() + wire::kind_name(f.kind).size();
  verify<fbs::OpenSession, fbs::SessionReply, fbs::WriteBatch, fbs::WriteReplies, fbs::ReadBatch, fbs::ReadReplies>(f);
  verify<fbs::Replicate, fbs::ReplicateAck, fbs::Confirm, fbs::Collect, fbs::CollectReply, fbs::Tail, fbs::SyncPart, fbs::AliveReply>(f);
  verify<fbs::RegisterNode, fbs::RegisterReply, fbs::Directory, fbs::Designate, fbs::Propose, fbs::Sandbox, fbs::VolumeView>(f);
  verify<fbs::Fence, fbs::ListColumns, fbs::ClaimColumn, fbs::ReleaseColumns, fbs::WriteChunk, fbs::FreeSlot, fbs::ListHeld, fbs::Held, fbs::DropVp>(f);
  verify<fbs::IndexRecord, fbs::ImageBegin, fbs::ImagePart>(f);
  if (const auto* m = f.as<fbs::WriteStripe>()) {
    touch_all(m->blocks());
    touch_all(m->places());
    touch_all(m->credentials());
    if (m->addresses())
      for (const auto* a : *m->addresses()) touch(a);
  }
  if (const auto* m = f.as<fbs::Columns>()) {
    touch(m->text());
    if (m->columns())
      for (const auto* c : *m->columns()) touch_all(c->states());
  }
  if (const auto* m = f.as<fbs::Chunk>()) touch_all(m->identities());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = logging::setup("fuzz", "off");
  (void)quiet;
  if (size < 2) return 0;
  std::string_view in(reinterpret_cast<const char*>(data) + 2, size - 2);
  std::string bytes = data[0] % 2 == 0 ? std::string(in) : sealed(in);
  sim::Simulation sim(1);
  io::World& world = sim.world(sim.add_node("receiver"));
  wire::Identity self{data[0] % 4 < 2 ? std::uint64_t{7} : 0, 1};
  bool closed = false;
  auto channel = std::make_shared<wire::Channel>(world, std::make_unique<BytesStream>(std::move(bytes), 1 + data[1] * 16), self, data[0] % 8 < 4);
  channel->start([](const std::shared_ptr<wire::Channel>& c, wire::Frame f) {
    receive(f);
    c->reply(f, wire::reply_frame(Status()));
  }, [&] { closed = true; });
  LUGE_CHECK(sim.run_until([&] { return closed && world.tasks() == 0; }, std::chrono::seconds(10)));
  return 0;
}
