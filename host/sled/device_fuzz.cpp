// Any bytes as the superblocks and the metadata region of a device, half of them under checksums that are right: open()
// answers, and a device that it accepts can be used and opened again.
#include <cstring>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "io/meta_format.hpp"
#include "sim/cluster/simulation.hpp"
#include "sled/device.hpp"
#include "sled/device_format.hpp"

namespace {

using namespace luge;
using namespace luge::sled;

constexpr std::uint64_t kDevice = 16 << 20, kColumn = 1 << 20;

void put(sim::FileState& file, std::uint64_t at, Bytes bytes) {
  std::vector<std::byte> sectors(bytes.begin(), bytes.end());
  sectors.resize((sectors.size() + 511) / 512 * 512);
  file.write(at, sectors, true);
}

Superblock superblock(const std::uint8_t*& data, std::size_t& size) {
  Superblock s;
  s.unit = 5;
  s.sled = 41;
  s.column_bytes = kColumn;
  s.columns = 11;
  s.meta_mib = 4;
  s.id = 9;
  for (int n = size != 0 ? data[0] % 4 : 0; n > 0 && size >= 3; --n, data += 2, size -= 2)
    reinterpret_cast<std::uint8_t*>(&s)[data[1] % sizeof s] = data[2];
  s.crc = 0;
  s.crc = crc32c(Bytes(reinterpret_cast<const std::byte*>(&s), sizeof s));
  return s;
}

// One batch of the metadata region, whose pairs are the input.
std::vector<std::byte> batch(const std::uint8_t* data, std::size_t size) {
  io::MetaBatchHeader h;
  h.kind = io::kMetaSnapshot;
  h.sequence = 1;
  h.bytes = static_cast<std::uint32_t>(size);
  h.previous_crc = 0;
  Bytes pairs(reinterpret_cast<const std::byte*>(data), size);
  h.crc = io::meta_batch_crc(h, pairs);
  std::vector<std::byte> out(sizeof h);
  std::memcpy(out.data(), &h, sizeof h);
  out.insert(out.end(), pairs.begin(), pairs.end());
  return out;
}

// Pairs of (kind, number, value) as tables have them.
std::string rows(const std::uint8_t* data, std::size_t size) {
  std::string out;
  while (size >= 3) {
    static constexpr const char* kKeys[] = {"column/", "fence/", "missed-fences", "other"};
    std::string key = kKeys[data[0] % 4];
    if (data[0] % 4 < 2) key += std::to_string(data[1] % 16);
    std::size_t n = std::min<std::size_t>(data[2] % 48, size - 3);
    io::MetaPairHeader p{static_cast<std::uint32_t>(key.size()), static_cast<std::uint32_t>(n)};
    out.append(reinterpret_cast<const char*>(&p), sizeof p);
    out += key;
    out.append(reinterpret_cast<const char*>(data + 3), n);
    data += 3 + n;
    size -= 3 + n;
  }
  return out;
}

Status open(sim::Simulation& sim, sim::Node node, std::unique_ptr<Device>& device) {
  device = std::make_unique<Device>(sim.world(node), DeviceSpec{"/d"}, 0, DeviceOptions{.unit = 5, .sled = 41, .column_bytes = kColumn});
  Status out;
  auto task = [](Device& d, Status& out) -> io::Task<void> { out = co_await d.open({}); };
  sim.run(node, task(*device, out));
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = logging::setup("fuzz", "off");
  (void)quiet;
  if (size < 2) return 0;
  sim::Simulation sim(1);
  sim::Node node = sim.add_node("n");
  sim.disk(node).make_file("/d", kDevice);
  sim::FileState& file = *sim.disk(node).file("/d");
  std::uint8_t how = data[0];
  ++data, --size;
  if (how % 4 == 0) {
    put(file, 0, Bytes(reinterpret_cast<const std::byte*>(data), std::min<std::size_t>(size, 4096)));
    put(file, kMetaOffset, Bytes(reinterpret_cast<const std::byte*>(data), size));
  } else {
    Superblock s = superblock(data, size);
    Bytes raw(reinterpret_cast<const std::byte*>(&s), sizeof s);
    put(file, 0, raw);
    put(file, kSecondSuperblock, raw);
    std::string pairs = how % 4 == 1 ? std::string(reinterpret_cast<const char*>(data), size) : rows(data, size);
    put(file, kMetaOffset, batch(reinterpret_cast<const std::uint8_t*>(pairs.data()), pairs.size()));
  }
  std::unique_ptr<Device> device;
  bool good = open(sim, node, device).ok();
  if (good) {
    Status fenced;
    auto task = [](Device& d, Status& out) -> io::Task<void> { out = co_await d.raise({{3, 4}}); };
    sim.run(node, task(*device, fenced));
    LUGE_CHECK(device->free_columns() <= device->columns());
    device.reset();
    LUGE_CHECK(open(sim, node, device).ok());
    if (fenced.ok()) LUGE_CHECK(device->fences().at(3) >= 4);
  }
  device.reset();
  return 0;
}
