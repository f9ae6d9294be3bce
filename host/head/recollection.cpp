#include "head/recollection.hpp"

#include <cstring>

#include "switches/switches.hpp"

namespace luge::head {

using wire::Designation;

namespace {

constexpr const char* kKey = "recollection";
constexpr const char* kLeft = "left/";

io::MetaStore::Change drawn(Context& ctx) {
  const std::uint64_t value = ctx.world.random() | 1;
  return {kKey, std::string(reinterpret_cast<const char*>(&value), sizeof value)};
}

}  // namespace

io::Task<Status> begin_recollection(Context& ctx) {
  for (auto [key, value] : ctx.meta_store->list(kLeft))
    if (auto d = Designation::parse(value); !d.ok()) co_return d.status().with(key);
  if (recollection(*ctx.meta_store) != 0) co_return Status();
  std::vector<io::MetaStore::Change> changes;
  changes.push_back(drawn(ctx));
  co_return co_await ctx.meta_store->put(std::move(changes));
}

std::uint64_t recollection(const io::MetaStore& store) {
  std::uint64_t value = 0;
  if (auto stored = store.get(kKey); stored && stored->size() == sizeof value) std::memcpy(&value, stored->data(), sizeof value);
  return value;
}

std::vector<Designation> left_partitions(const io::MetaStore& store) {
  std::vector<Designation> left;
  for (auto [key, value] : store.list(kLeft))
    if (auto d = Designation::parse(value); d.ok()) left.push_back(std::move(*d));
  return left;
}

io::Task<Status> put_left(Context& ctx, std::vector<io::MetaStore::Change> changes, const Designation& last) {
  if (broken(Switch::left_forgotten)) co_return co_await ctx.meta_store->put(std::move(changes));
  if (ctx.meta_store->list(kLeft).size() < kMostLeft) {
    auto remembered = changes;
    remembered.emplace_back(kLeft + std::to_string(last.vp), last.serialize());
    Status s = co_await ctx.meta_store->put(std::move(remembered), io::MetaStore::Kind::refusable);
    if (s.code() != Code::no_space) co_return s;
  }
  // No room, which must not keep the head from giving its log space back.
  for (auto [key, value] : ctx.meta_store->list(kLeft)) changes.emplace_back(std::string(key), std::nullopt);
  changes.push_back(drawn(ctx));
  co_return co_await ctx.meta_store->put(std::move(changes));
}

}  // namespace luge::head
