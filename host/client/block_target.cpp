#include "client/block_target.hpp"

namespace luge::client {
namespace {

// Shared: a World that stops ends the waiting coroutine while the target may still hold the callback.
struct Waiting {
  explicit Waiting(io::World& world) : event(world) {}
  io::Event event;
  bool done = false;
  Status status;
  Buffer data;
  void finish(const Status& s) {
    status = s;
    done = true;
    event.notify_all();
  }
};

Buffer join(std::span<Buffer> parts) {
  if (parts.size() == 1) return parts.front();
  std::size_t bytes = 0;
  for (const Buffer& p : parts) bytes += p.size();
  Buffer all = Buffer::allocate(bytes);
  std::size_t at = 0;
  for (const Buffer& p : parts) {
    std::memcpy(all.data() + at, p.data(), p.size());
    at += p.size();
  }
  return all;
}

}  // namespace

namespace {

const Buffer& all_zeros() {
  static const Buffer all = Buffer::zeros(std::size_t{kMaxOpBlocks} * kBlockBytes);
  return all;
}

}  // namespace

Buffer shared_zeros(std::size_t length) { return all_zeros().slice(0, length); }

bool is_shared_zeros(const Buffer& b) {
  const Buffer& all = all_zeros();
  return b.data() >= all.data() && b.data() < all.data() + all.size();
}

Buffer allocate_image(std::uint64_t offset, std::uint32_t length) {
  std::size_t bytes = touched_blocks(offset, length) * kBlockBytes;
  Buffer image = Buffer::allocate(bytes);
  std::size_t before = offset % kBlockBytes;
  if (length == 0) return image;
  if (before != 0) std::memset(image.data(), 0, before);
  if (std::size_t end = before + length; end != bytes) std::memset(image.data() + end, 0, bytes - end);
  return image;
}

io::Task<Status> write(io::World& world, BlockTarget& target, std::uint64_t offset, Buffer bytes) {
  auto w = std::make_shared<Waiting>(world);
  Buffer image = bytes;
  auto length = static_cast<std::uint32_t>(bytes.size());
  if (offset % kBlockBytes != 0 || length % kBlockBytes != 0) {
    image = allocate_image(offset, length);
    std::memcpy(image.data() + offset % kBlockBytes, bytes.data(), length);
  }
  target.write(offset, image, length, [w](const Status& s) { w->finish(s); });
  while (!w->done) co_await w->event.wait();
  co_return w->status;
}

io::Task<Result<Buffer>> read(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length) {
  auto w = std::make_shared<Waiting>(world);
  target.read(offset, length, [w](const Status& s, std::span<Buffer> parts) {
    if (s.ok()) w->data = join(parts);
    w->finish(s);
  });
  while (!w->done) co_await w->event.wait();
  if (!w->status.ok()) co_return w->status;
  co_return std::move(w->data);
}

io::Task<Status> trim(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length) {
  auto w = std::make_shared<Waiting>(world);
  target.trim(offset, length, [w](const Status& s) { w->finish(s); });
  while (!w->done) co_await w->event.wait();
  co_return w->status;
}

io::Task<Status> zero(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length) {
  auto w = std::make_shared<Waiting>(world);
  target.zero(offset, length, [w](const Status& s) { w->finish(s); });
  while (!w->done) co_await w->event.wait();
  co_return w->status;
}

io::Task<Result<std::vector<BlockTarget::MapRun>>> map(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length) {
  auto w = std::make_shared<Waiting>(world);
  auto runs = std::make_shared<std::vector<BlockTarget::MapRun>>();
  target.map(offset, length, [w, runs](const Status& s, std::span<const BlockTarget::MapRun> r) {
    runs->assign(r.begin(), r.end());
    w->finish(s);
  });
  while (!w->done) co_await w->event.wait();
  if (!w->status.ok()) co_return w->status;
  co_return std::move(*runs);
}

}  // namespace luge::client
