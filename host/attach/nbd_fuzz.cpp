// The bytes of a hostile NBD client: option headers, information requests, requests.
#include "attach/nbd_protocol.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace luge;
  namespace nbd = attach::nbd;
  Bytes in(reinterpret_cast<const std::byte*>(data), size);
  const nbd::ExportInfo disk{"disk", 1 << 20, (size & 1) != 0};
  const nbd::Agreed agreed{(size & 2) != 0, (size & 6) == 6};
  if (auto h = nbd::parse_option_header(in); h.ok()) LUGE_CHECK(h->length <= nbd::kMaxOptionBytes);
  if (auto i = nbd::parse_info(in); i.ok()) {
    LUGE_CHECK(i->name.size() + 2 * i->items.size() + 6 == size);
    LUGE_CHECK(!nbd::info_replies(7, disk, *i, agreed).empty());
  }
  if (auto m = nbd::parse_meta_request(in); m.ok()) LUGE_CHECK(m->queries.size() <= size / 4 && (!nbd::selects_allocation(*m, false) || nbd::selects_allocation(*m, true)));
  while (in.size() >= nbd::kRequestBytes) {
    auto r = nbd::parse_request(in.subspan(0, nbd::kRequestBytes));
    if (!r.ok()) break;
    in = in.subspan(nbd::kRequestBytes);
    auto command = static_cast<nbd::Command>(r->type);
    if (nbd::judge(*r, disk, agreed) == nbd::ok && command != nbd::Command::flush)
      LUGE_CHECK((r->flags & ~0x1f) == 0 && r->offset <= disk.bytes && r->length <= disk.bytes - r->offset);
    if (command == nbd::Command::write) {
      LUGE_CHECK(r->length <= nbd::kMaxRequestBytes);
      in = in.subspan(std::min<std::size_t>(r->length, in.size()));
    }
  }
  return 0;
}
