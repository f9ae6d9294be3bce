// Any bytes as the region of a metadata store: open() answers, and what it accepts can be used.
#include <algorithm>
#include <cstring>

#include "base/logging.hpp"
#include "io/meta_store.hpp"
#include "io/real_world.hpp"

namespace {

using namespace luge;
using namespace luge::io;

constexpr std::uint64_t kRegion = 64 << 10;

class BytesFile final : public BlockFile {
 public:
  BytesFile(const std::uint8_t* data, std::size_t size) : content_(Buffer::zeros(kRegion)) {
    std::memcpy(content_.data(), data, std::min<std::size_t>(size, kRegion));
  }
  std::uint64_t size() const override { return content_.size(); }
  Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    std::memcpy(into.data(), content_.data() + offset, into.size());
    co_return Status();
  }
  Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, Durability) override {
    for (Bytes p : parts) {
      std::memcpy(content_.data() + offset, p.data(), p.size());
      offset += p.size();
    }
    co_return Status();
  }
  Task<Status> sync() override { co_return Status(); }

 private:
  Buffer content_;
};

Task<int> use(World& world, BytesFile& file) {
  auto store = co_await MetaStore::open(world, file, 0, kRegion);
  if (!store.ok()) co_return 0;
  Status s = co_await (*store)->put("key", "value");
  if (!s.ok()) co_return 0;
  auto again = co_await MetaStore::open(world, file, 0, kRegion);
  LUGE_CHECK(again.ok() && (*again)->get("key") == "value");
  LUGE_CHECK((*again)->list("") == (*store)->list(""));
  co_return 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = logging::setup("fuzz", "off");
  (void)quiet;
  RealWorld world;
  BytesFile file(data, size);
  return run_main(world, use(world, file));
}
