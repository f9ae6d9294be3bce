#include "sim/cluster/workload.hpp"

#include <algorithm>

namespace luge::sim {

void Workload::attach(io::World& world, Target& target) {
  for (std::uint32_t c = 1; c <= clients_; ++c) history_.fence(c, sim_.now());
  client_ = ++clients_;
  for (std::uint32_t i = 0; i < options_.workers; ++i) world.spawn("workload", worker(world, target, client_));
  // Of their own: workers may all wait for writes that a primary of the past cannot commit.
  if (options_.linger)
    for (int i = 0; i < 5; ++i) world.spawn("reader", reader(world, target, client_));
}

void Workload::go_on(io::World& world, Target& target, std::uint64_t requests) {
  stopped_ = false;
  options_.requests = started_ + requests;
  for (std::uint32_t i = 0; i < options_.workers; ++i) world.spawn("workload", worker(world, target, client_));
}

// One that has been replaced may read (that needs no session), and what it reads must be true all the same.
io::Task<void> Workload::reader(io::World& world, Target& target, std::uint32_t client) {
  std::uint64_t attachment = target.attachment();
  while (!stopped_ && target.attachment() == attachment) {
    co_await read(target, client, random_.below(options_.hot_blocks) * kBlockBytes, kBlockBytes);
    co_await world.sleep(Duration(random_.below(600'000'000)));  // a read of a block that is being written may end it
  }
}

io::Task<void> Workload::worker(io::World& world, Target& target, std::uint32_t client) {
  while (!stopped_ && started_ < options_.requests && client == client_) {
    if (options_.rest != Duration(0) && sim_.now() % (options_.rest + 300ms) > 300ms) {
      co_await world.sleep(50ms);
      continue;
    }
    ++started_;
    co_await request(target, client);
    co_await world.sleep(Duration(random_.below(static_cast<std::uint64_t>(options_.pause.count()))));
  }
}

void Workload::answer(History::Op op, const Status& s, Bytes read) {
  if (!s.ok()) {
    // Whether it happened is unknown. A newer attachment has taken over: expected; anything else is not.
    if (history_.kind(op) == History::Kind::read) history_.failed(op);
    if (s.code() != Code::closed_session && error_.empty()) error_ = history_.describe(op) + ": " + s.to_string();
    return;
  }
  if (read.empty())
    history_.complete(op, sim_.now());
  else
    history_.complete_read(op, sim_.now(), read);
}

io::Task<void> Workload::read(Target& target, std::uint32_t client, std::uint64_t offset, std::uint64_t bytes) {
  Buffer into = Buffer::allocate(bytes);
  auto op = history_.invoke_read(client, sim_.now(), offset, bytes);
  Status s = co_await target.read(offset, into.mutable_bytes());
  answer(op, s, into.bytes());
}

Workload::Range Workload::near_or_far() {
  std::uint64_t blocks = options_.volume_bytes / kBlockBytes;
  std::uint64_t near = random_.chance(0.85) ? std::min(options_.hot_blocks, blocks) : blocks;
  std::uint64_t count = random_.chance(0.6) ? 1 : random_.between(1, std::min<std::uint64_t>(options_.longest, near));
  std::uint64_t offset = random_.below(near - count + 1) * kBlockBytes, bytes = count * kBlockBytes;
  return {offset, bytes};
}

// Ends of partitions, and within those of pages of the index; a third of these requests begin or end within a block.
Workload::Range Workload::wide() {
  constexpr std::uint64_t kPage = 512 * kBlockBytes;
  const std::uint64_t bytes = options_.volume_bytes, partition = options_.partition_bytes;
  std::uint64_t length = random_.spread(2, options_.widest) * kBlockBytes, offset = random_.below((bytes - length) / kBlockBytes + 1) * kBlockBytes;
  std::uint64_t edge = random_.below(bytes / partition) * partition + random_.below((partition + kPage - 1) / kPage) * kPage;
  if (random_.chance(0.5) && edge != 0) {
    std::uint64_t before = std::min(edge, random_.between(1, length / kBlockBytes - 1) * kBlockBytes);
    offset = std::min(edge - before, bytes - length);
  }
  if (random_.chance(0.33)) {
    std::uint64_t cut = random_.between(0, History::kSectors - 1) * History::kSector;
    offset += cut;
    length -= cut + random_.between(0, History::kSectors - 1) * History::kSector;
  }
  return {offset, length};
}

io::Task<void> Workload::request(Target& target, std::uint32_t client) {
  const bool is_wide = random_.chance(options_.wide);
  auto [offset, bytes] = is_wide ? wide() : near_or_far();
  double kind = random_.unit();
  if (random_.chance(options_.sub_block) && !is_wide) {
    // Some sectors, perhaps across a block boundary.
    std::uint64_t sectors = bytes / History::kSector, first = random_.below(sectors);
    offset += first * History::kSector;
    bytes = random_.between(1, std::min<std::uint64_t>(sectors - first, 12)) * History::kSector;
  }
  if ((kind -= options_.reads) < 0) {
    co_await read(target, client, offset, bytes);
  } else if ((kind -= options_.trims) < 0) {
    auto op = history_.invoke_zero(client, sim_.now(), offset, bytes);
    Status s = co_await target.trim(offset, bytes);
    answer(op, s);
  } else if ((kind -= options_.zeroes) < 0) {
    auto op = history_.invoke_zero(client, sim_.now(), offset, bytes);
    Status s = co_await target.zero(offset, bytes);
    answer(op, s);
  } else {
    Buffer data = Buffer::allocate(bytes);
    auto op = history_.invoke_write(client, sim_.now(), offset, bytes);
    history_.fill(op, data.mutable_bytes());
    Status s = co_await target.write(offset, data.bytes());
    answer(op, s);
  }
}

io::Task<void> Workload::read_back(io::World& world, Target& target) {
  constexpr std::uint64_t kPiece = 64 * kBlockBytes;
  io::TaskGroup group(world);
  for (std::uint64_t at = 0; at < options_.volume_bytes; at += kPiece)
    group.spawn("read back", read(target, client_, at, std::min(kPiece, options_.volume_bytes - at)));
  co_await group.join();
}

}  // namespace luge::sim
