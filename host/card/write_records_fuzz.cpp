// Any bytes as a ring of records, changed at any moment: the reader ends, hands out no more than was asked for, and only records in their order.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.hpp"
#include "card/write_records.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace luge;
  if (size < 1) return 0;
  const unsigned log2 = data[0] % 7;
  std::vector<card::dma_record> ring(std::size_t{1} << log2);
  card::WriteRecordReader reader(ring.data(), log2);
  std::uint32_t expected = 1;
  // Each step of 16 bytes is one record, put where its sequence says, or at its first byte when that is odd.
  for (std::size_t at = 1; at + 16 <= size; at += 16) {
    card::dma_record r;
    std::memcpy(&r, data + at, sizeof r);
    const std::size_t slot = r.address & 1 ? r.address / 2 : r.sequence;
    if ((r.kind & 0x80) == 0) r.sequence = expected + (r.sequence & 1);  // else nothing ever fits
    ring[(r.kind & 0x80 ? slot : r.sequence) % ring.size()] = r;
    std::vector<card::dma_record> out;
    const std::size_t most = data[at] % 5;
    const std::size_t n = reader.read(out, most);
    LUGE_CHECK(n == out.size() && n <= most);
    for (const auto& got : out) {
      LUGE_CHECK(got.sequence == expected++);
      const card::PageRange pages = card::pages_of(got);
      LUGE_CHECK(pages.count >= 1 && pages.count <= 17 && pages.first + pages.count - 1 <= ~std::uint64_t{0} / 4096);
    }
    LUGE_CHECK(reader.examined() == expected && (n == 0 || !reader.gap() || !out.empty()));
  }
  return 0;
}
