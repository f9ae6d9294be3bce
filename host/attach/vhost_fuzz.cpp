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

// Good requests of all kinds; rings and tables lie close together, where changes of the input hit them.
void fill(Driver& d) {
  d.put<std::uint64_t>(Driver::kData, 8), d.put<std::uint32_t>(Driver::kData + 8, 8), d.put<std::uint32_t>(Driver::kData + 12, 0);
  d.submit(1, 8, {{Driver::kData, 4096}}, false, false);
  d.submit(0, 8, {{Driver::kData, 4096}, {Driver::kData + 8000, 512}}, true, true);
  d.submit(11, 0, {{Driver::kData, 16}}, false, true);
  d.submit(8, 0, {{Driver::kData, 20}}, true, true);
  d.submit(13, 0, {{Driver::kData, 16}}, false, true);
  d.submit(4, 0, {}, false, true);
}

// Where a change goes: the descriptor table, the available ring, a header, an indirect table, anywhere.
std::uint64_t place(const Driver& d, std::uint8_t which, std::uint8_t offset) {
  switch (which % 5) {
    case 0: return d.place.descriptors + offset;
    case 1: return d.place.available + offset % 40;
    case 2: return Driver::kHeaders + 64ull * (which / 5 % 16) + offset % 24;
    case 3: return Driver::kTables + 0x1000ull * (which / 5 % 16) + offset;
    default: return (static_cast<std::uint64_t>(which) << 8 | offset) * 61 % Driver::kMemory;
  }
}

// The input changes bytes of good rings, three bytes a change; between every few the device looks.
io::Task<int> rings(io::World& world, Bytes input) {
  Owner o(world);
  Driver d(16);
  fill(d);
  auto change = [&] {
    for (int i = 0; i < 8 && input.size() >= 3; ++i, input = input.subspan(3))
      *d.at(place(d, static_cast<std::uint8_t>(input[0]), static_cast<std::uint8_t>(input[1]))) = input[2];
  };
  change();
  o.dma->set_memory(d.memory);
  o.blk.set_features((1ull << 32 | 1ull << 28) | (input.size() % 2 ? 1ull << 29 : 0));
  o.blk.set_target(&o.disk);
  if (o.blk.start(0, d.place, 0).ok()) {
    o.blk.enable(0, true);
    for (int i = 0; i < 4 || input.size() >= 3; ++i) {
      co_await world.yield();
      change();
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
  auto session = std::make_shared<VhostSession>(world, o, io::Descriptor(pair[1]));
  session->start();
  testing::FrontEnd f(pair[0]);
  io::Descriptor event(::eventfd(0, EFD_CLOEXEC)), null(::open("/dev/null", O_RDWR | O_CLOEXEC)), zero(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  auto area = Inflight::create(2, 16);
  const int kinds[] = {d.fd, event.get(), null.get(), zero.get(), (*area)->fd()};
  ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
  if (input.size() % 2) {
    fill(d);
    f.say_start(d, 1ull << 32 | 1ull << 28, 0);
    for (int i = 0; i < 30; ++i) co_await world.yield();
    f.notify();
  }
  while (input.size() >= 3 && !session->ended()) {
    const unsigned kind = static_cast<std::uint8_t>(input[0]) % 40, many = static_cast<std::uint8_t>(input[1]), size = static_cast<std::uint8_t>(input[2]);
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
