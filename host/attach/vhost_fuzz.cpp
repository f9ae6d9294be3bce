// A guest's rings full of a hostile guest's bytes, and a front end's messages with descriptors of all kinds. What must hold: nothing outside guest
// memory and the disk is touched (the sanitizer looks), everything ends, and the device that is stopped says why.
#include <fcntl.h>

#include <algorithm>

#include "attach/vhost_front_end.hpp"
#include "attach/vhost_session.hpp"
#include "base/logging.hpp"
#include "io/real_world.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using testing::Driver;
using testing::MemoryDisk;

constexpr std::uint64_t kDisk = 1 << 20;

struct Owner final : VhostOwner {
  explicit Owner(io::World& w) : disk(w, kDisk), dma(std::make_shared<card::DmaPath>(w, card::make_native_dma_logger(), 0)), blk(w, dma, "fuzz", 2) {
    blk.set_size(kDisk);
  }
  VirtioBlk& device() override { return blk; }
  card::DmaPath& dma_path() override { return *dma; }
  const std::string& called() const override { return name; }
  void rings_started() override { blk.set_target(&disk); }
  io::Task<void> rings_stopped() override {
    blk.set_target(nullptr);
    co_return;
  }
  void memory_changed() override {}
  MemoryDisk disk;
  std::shared_ptr<card::DmaPath> dma;
  VirtioBlk blk;
  std::string name = "fuzz";
};

// The input is the guest's memory from the descriptor table on: table, available ring, then whatever descriptors name.
io::Task<int> rings(io::World& world, Bytes input) {
  Owner o(world);
  Driver d(16);
  d.place = {16, 0, 256, 512};
  std::memcpy(d.at(0), input.data(), std::min<std::size_t>(input.size(), 1 << 16));
  o.dma->set_memory(d.memory);
  o.blk.set_features((1ull << 32 | 1ull << 28) | (input.size() % 2 ? 1ull << 29 : 0));
  o.blk.set_target(&o.disk);
  if (o.blk.start(0, d.place, 0).ok()) {
    o.blk.enable(0, true);
    for (int i = 0; i < 4; ++i) {
      co_await world.yield();
      o.blk.kick(0);
    }
    co_await o.blk.drain(0);
  }
  LUGE_CHECK(o.blk.in_flight() == 0 && o.dma->stats().outside == 0);
  co_await world.yield();
  co_return 0;
}

// Messages: a byte of kind, a byte of how many descriptors and which, a byte of size, then the payload; numbers are small on purpose.
io::Task<int> messages(io::RealWorld& world, Bytes input) {
  Owner o(world);
  Driver d(16);
  std::memset(d.at(0), 0, 4096);
  int pair[2];
  LUGE_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  auto session = std::make_shared<VhostSession>(world, o, Descriptor(pair[1]));
  session->start();
  testing::FrontEnd f(pair[0]);
  Descriptor event(::eventfd(0, EFD_CLOEXEC)), null(::open("/dev/null", O_RDWR | O_CLOEXEC)), zero(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  auto area = Inflight::create(2, 16);
  const int kinds[] = {d.fd, event.get(), null.get(), zero.get(), (*area)->fd()};
  ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
  while (input.size() >= 3 && !session->ended()) {
    const auto kind = static_cast<std::uint8_t>(input[0]) % 40, many = static_cast<std::uint8_t>(input[1]), size = static_cast<std::uint8_t>(input[2]);
    input = input.subspan(3);
    const std::size_t n = std::min<std::size_t>(size, input.size());
    std::vector<int> fds(many % 4, kinds[many / 4 % 5]);
    f.send(static_cast<vhost::Message>(kind), input.data(), n, fds, vhost::kVersion | (many & 128 ? vhost::kNeedReply : 0));
    input = input.subspan(n);
    char answer[4096];
    for (int i = 0; i < 3; ++i) {
      co_await world.yield();
      while (::recv(pair[0], answer, sizeof answer, MSG_DONTWAIT) > 0) {}
    }
  }
  session->close();
  while (!session->ended()) co_await world.sleep(1ms);
  LUGE_CHECK(o.blk.in_flight() == 0);
  for (int i = 0; i < 3; ++i) co_await world.yield();
  co_return 0;
}

}  // namespace
}  // namespace luge::attach

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace luge;
  static bool quiet = logging::setup("fuzz", "off");
  (void)quiet;
  if (size == 0) return 0;
  Bytes input(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  io::RealWorld world({.io_uring = false});
  std::ignore = io::run_main(world, data[0] % 2 ? attach::rings(world, input) : attach::messages(world, input));
  return 0;
}
