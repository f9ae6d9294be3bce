// Any frames, with CRCs that are right, from a host that isn't friendly: the receiver ends, and hands its target only pages that the machine has.
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/crc32c.hpp"
#include "vmstate/checkpoint_format.hpp"
#include "vmstate/transfer.hpp"

namespace {

using namespace luge;
using namespace luge::vmstate;

struct Checked final : Target {
  Result<std::uint64_t> newest(const std::string&) override { return std::uint64_t{0}; }
  Status begin(const Begin& b) override {
    pages = b.shape.pages();
    return Status();
  }
  Status put(const PageBatch& b) override {
    std::size_t content = 0;
    for (const auto& e : b.entries) {
      LUGE_CHECK(e.page < pages);
      content += e.zero ? 0 : kPage;
    }
    LUGE_CHECK(content == b.content.size());
    return Status();
  }
  Status commit(const std::string&, const std::string&) override { return Status(); }
  void abandon() override {}
  std::uint64_t pages = 0;
};

}  // namespace

// Each frame of the input: kind, length (2), bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 32768) return 0;
  std::vector<std::uint8_t> wire;
  for (std::size_t at = 0; at + 3 <= size;) {
    std::uint16_t length;
    std::memcpy(&length, data + at + 1, 2);
    const std::size_t n = std::min<std::size_t>(length, size - at - 3);
    std::size_t summed = n;
    std::uint64_t count = 0;
    if ((data[at] & 7) == 2 && n >= sizeof count) {
      std::memcpy(&count, data + at + 3, sizeof count);
      summed = count <= (n - sizeof count) / sizeof(PageFrame) ? sizeof count + count * sizeof(PageFrame) : n;
    }
    TransferHeader h;
    h.kind = static_cast<Transfer>(data[at] & 7), h.bytes = static_cast<std::uint32_t>(n);
    h.crc = crc32c({reinterpret_cast<const std::byte*>(data + at + 3), summed});
    wire.insert(wire.end(), reinterpret_cast<std::uint8_t*>(&h), reinterpret_cast<std::uint8_t*>(&h) + sizeof h);
    wire.insert(wire.end(), data + at + 3, data + at + 3 + n);
    at += 3 + n;
  }
  int ends[2];
  LUGE_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  if (wire.size() < 100000 && ::send(ends[0], wire.data(), wire.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(wire.size())) {
    ::shutdown(ends[0], SHUT_WR);
    (void)serve_transfer(ends[1], [](const std::string&, bool) -> Result<std::unique_ptr<Target>> { return std::unique_ptr<Target>(new Checked); });
  }
  ::close(ends[0]), ::close(ends[1]);
  return 0;
}
