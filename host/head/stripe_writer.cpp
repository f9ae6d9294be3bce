#include "head/stripe_writer.hpp"

#include "head/stripe_coder.hpp"
#include "switches/paths.hpp"
#include "wire/sled_generated.h"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

wire::Frame stripe_frame(Context& ctx, StripeWrite& s) {
  fbs::StripeId id(s.id.vp, s.id.epoch, s.id.counter);
  wire::Frame f = wire::make_frame(wire::Kind::write_stripe, [&](auto& b) {
    std::vector<flatbuffers::Offset<flatbuffers::String>> addresses;
    for (const fbs::ChunkPlace& p : s.places) {
      const wire::NodeRecord* n = p.sled() ? ctx.control->node(p.sled()) : nullptr;
      addresses.push_back(b.CreateString(n ? n->address : std::string()));
    }
    auto blocks = b.CreateVectorOfStructs(s.identities);
    auto places = b.CreateVectorOfStructs(s.places);
    auto address_list = b.CreateVector(addresses);
    auto credentials = b.CreateVectorOfStructs(s.credentials);
    return fbs::CreateWriteStripe(b, s.vp, s.epoch, &id, static_cast<std::uint16_t>(s.layout.k), static_cast<std::uint16_t>(s.layout.m),
                                  s.chunk_bytes, blocks, places, address_list, s.widen, credentials);
  });
  f.payload = std::move(s.payload);
  return f;
}

}  // namespace

io::Task<Status> write_stripe(Context& ctx, StripeWrite& stripe, NodeId gateway) {
  if (ctx.options.codes_itself) co_return co_await code_and_send_stripe(ctx, stripe);
  std::string who = "gateway sled " + std::to_string(gateway);
  auto answer = co_await ctx.connections->call(gateway, stripe_frame(ctx, stripe), 10s);
  if (!answer.ok()) {
    reached(Path::attempt_of_unknown_end);
    co_return answer.status().with(who);
  }
  const auto* r = answer->as<fbs::StripeReply>();
  if (answer->kind != wire::Kind::stripe_reply || !r) co_return Status(Code::corrupt, who + ": answer does not parse");
  Status s = wire::make_status(r->code(), r->text());
  if (s.ok() || !r->results()) co_return s;
  for (std::uint32_t i = 0; i < r->results()->size() && i < stripe.places.size(); ++i)
    if (r->results()->Get(i) != 0 && stripe.places[i].sled() != 0) s = s.with("sled " + std::to_string(stripe.places[i].sled()));
  co_return s;
}

}  // namespace luge::head
