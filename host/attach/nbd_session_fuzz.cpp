// A whole NBD connection fed with a hostile client's bytes, handshake and requests alike. What must hold: it ends when the
// bytes do, nothing of it stays, and no byte outside the disk is touched (the sanitizer looks).
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "attach/nbd_connection.hpp"
#include "base/logging.hpp"
#include "io/real_world.hpp"

namespace luge::attach {
namespace {

constexpr std::size_t kDisk = 256 << 10;

// The first byte says how much the stream gives at a time.
class Script final : public io::Stream {
 public:
  explicit Script(Bytes bytes) : left_(bytes), piece_(bytes.empty() ? 1 : 1 + (static_cast<std::size_t>(bytes[0]) << 4)) {}
  io::Task<std::size_t> read_some(MutableBytes into) override {
    std::size_t n = open_ ? std::min({into.size(), left_.size(), piece_}) : 0;
    std::copy_n(left_.begin(), n, into.begin());
    left_ = left_.subspan(n);
    co_return n;
  }
  io::Task<bool> write_all(std::span<const Bytes> parts) override {
    for (Bytes p : parts)
      for (std::byte b : p) sum_ += static_cast<unsigned>(b);  // every byte is read: the sanitizer sees it
    co_return open_ && sum_ != ~0ull;
  }
  void close() override { open_ = false; }
  std::string peer() const override { return "script"; }

 private:
  Bytes left_;
  std::size_t piece_;
  bool open_ = true;
  std::uint64_t sum_ = 0;
};

class Disk final : public client::BlockTarget {
 public:
  explicit Disk(io::World& w) : world_(w), bytes_(kDisk) {}
  std::uint64_t size_bytes() const override { return kDisk; }
  void write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) override {
    std::memcpy(at(offset, length), image.data() + offset % kBlockBytes, length);
    world_.post([done] { done(Status()); });
  }
  void read(std::uint64_t offset, std::uint32_t length, ReadDone done) override {
    Buffer b = Buffer::copy_of({at(offset, length), length});
    world_.post([done, b] {
      Buffer parts[1] = {b};
      done(Status(), parts);
    });
  }
  void trim(std::uint64_t offset, std::uint32_t length, Done done) override { zero(offset, length, std::move(done)); }
  void zero(std::uint64_t offset, std::uint32_t length, Done done) override {
    std::memset(at(offset, length), 0, length);
    world_.post([done] { done(Status()); });
  }
  void map(std::uint64_t offset, std::uint32_t length, MapDone done) override {
    at(offset, length);
    world_.post([done, length] {
      MapRun run{length, true};
      done(Status(), {&run, 1});
    });
  }

 private:
  std::byte* at(std::uint64_t offset, std::uint32_t length) {
    LUGE_CHECK(offset <= kDisk && length <= kDisk - offset);
    return bytes_.data() + offset;
  }
  io::World& world_;
  std::vector<std::byte> bytes_;
};

io::Task<int> converse(io::World& world, Bytes script) {
  Disk disk(world);
  auto portal = std::make_shared<NbdPortal>();
  for (const char* name : {"disk", "other"}) {
    auto e = std::make_shared<NbdExport>();
    e->info = {name, kDisk, name[0] == 'o'};
    e->target = &disk;
    portal->exports[name] = e;
  }
  auto c = std::make_shared<NbdConnection>(world, std::make_unique<Script>(script), portal);
  co_await c->serve(c);
  LUGE_CHECK(portal->connections == 0 && portal->negotiating.empty());
  co_return 0;
}

}  // namespace
}  // namespace luge::attach

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace luge;
  static bool quiet = logging::setup("fuzz", "off");
  (void)quiet;
  // Handshakes are found by no mutation: a second script begins behind a good one.
  static const unsigned char kGood[] = {0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 8, 0, 0, 0, 0,
                                        'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 10, 0, 0, 0, 31, 0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0, 0, 1, 0, 0, 0, 15,
                                        'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n',
                                        'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0, 0, 0, 10, 0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0};
  std::vector<std::byte> script;
  if (size % 2 == 0)
    for (unsigned char c : kGood) script.push_back(static_cast<std::byte>(c));
  for (std::size_t i = 0; i < size; ++i) script.push_back(static_cast<std::byte>(data[i]));
  io::RealWorld world({.io_uring = false});
  std::ignore = io::run_main(world, attach::converse(world, script));
  return 0;
}
