#include <isa-l/erasure_code.h>

#include <algorithm>
#include <map>
#include <vector>

#include "coding/erasure_coder.hpp"
#include "coding/matrix.hpp"

namespace luge::coding {
namespace {

constexpr std::size_t kTableBytes = 32;    // ISA-L: 32 bytes per coefficient
constexpr std::size_t kCachedTables = 256; // erasure patterns worth keeping; 4+2 has 15, 8+3 has 165
constexpr std::size_t kMaxBytes = 1u << 30;   // ISA-L counts in int

unsigned char* raw(Bytes b) { return reinterpret_cast<unsigned char*>(const_cast<std::byte*>(b.data())); }

class IsalCoder final : public ErasureCoder {
 public:
  io::Task<Status> encode(Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override {
    if (Status s = check_layout(l); !s.ok()) co_return s;
    if (data.size() != l.k || parity.size() != l.m) co_return Status(Code::invalid, "chunk count is not that of the layout");
    std::size_t bytes = data[0].size();
    std::vector<unsigned char*> from, to;
    for (Bytes b : data) {
      if (b.size() != bytes) co_return Status(Code::invalid, "chunks differ in size");
      from.push_back(raw(b));
    }
    for (MutableBytes b : parity) {
      if (b.size() != bytes) co_return Status(Code::invalid, "chunks differ in size");
      to.push_back(raw(b));
    }
    if (bytes % 64 != 0 || bytes > kMaxBytes) co_return Status(Code::invalid, "chunk size is not a multiple of 64");
    if (l.m == 0 || bytes == 0) co_return Status();
    ec_encode_data(static_cast<int>(bytes), static_cast<int>(l.k), static_cast<int>(l.m), encode_tables(l).data(), from.data(), to.data());
    co_return Status();
  }

  io::Task<Status> reconstruct(Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted,
                               std::span<const MutableBytes> out) override {
    if (Status s = check_layout(l); !s.ok()) co_return s;
    if (present.size() != l.width() || wanted.size() != out.size() || wanted.empty() || wanted.size() > l.width())
      co_return Status(Code::invalid, "chunk count is not that of the layout");
    auto chosen = choose_sources(l, present);
    if (!chosen.ok()) co_return chosen.status();
    const std::vector<std::uint32_t>& survivors = *chosen;
    std::vector<unsigned char*> from;
    for (std::uint32_t i : survivors) from.push_back(raw(present[i]));
    std::size_t bytes = present[survivors[0]].size();
    if (bytes % 64 != 0 || bytes > kMaxBytes) co_return Status(Code::invalid, "chunk size is not a multiple of 64");
    std::vector<unsigned char*> to;
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (wanted[i] >= l.width()) co_return Status(Code::invalid, "no chunk " + std::to_string(wanted[i]) + " in " + to_string(l));
      if (out[i].size() != bytes) co_return Status(Code::invalid, "chunks differ in size");
      to.push_back(raw(out[i]));
    }
    const std::vector<unsigned char>* tables = decode_tables(l, survivors, wanted);
    if (tables == nullptr) co_return Status(Code::internal, "survivor matrix is singular");
    ec_encode_data(static_cast<int>(bytes), static_cast<int>(l.k), static_cast<int>(wanted.size()),
                   const_cast<unsigned char*>(tables->data()), from.data(), to.data());
    co_return Status();
  }

  std::string_view name() const override { return "isal"; }

 private:
  static std::vector<unsigned char> matrix(Layout l) {
    std::vector<unsigned char> a(l.width() * l.k);
    gf_gen_cauchy1_matrix(a.data(), static_cast<int>(l.width()), static_cast<int>(l.k));
    return a;
  }

  std::vector<unsigned char>& encode_tables(Layout l) {
    auto& t = encode_[{l.k, l.m}];
    if (t.empty()) {
      std::vector<unsigned char> a = matrix(l);
      t.resize(kTableBytes * l.k * l.m);
      ec_init_tables(static_cast<int>(l.k), static_cast<int>(l.m), a.data() + l.k * l.k, t.data());
    }
    return t;
  }

  const std::vector<unsigned char>* decode_tables(Layout l, const std::vector<std::uint32_t>& survivors, std::span<const std::uint32_t> wanted) {
    std::vector<std::uint32_t> key{l.k, l.m};
    key.insert(key.end(), survivors.begin(), survivors.end());
    key.insert(key.end(), wanted.begin(), wanted.end());
    if (auto it = decode_.find(key); it != decode_.end()) return &it->second;
    auto rows = coefficients(l, survivors, wanted);
    if (!rows.ok()) return nullptr;
    if (decode_.size() >= kCachedTables) decode_.clear();
    std::vector<unsigned char>& t = decode_[key];
    t.resize(kTableBytes * l.k * wanted.size());
    ec_init_tables(static_cast<int>(l.k), static_cast<int>(wanted.size()), rows->data(), t.data());
    return &t;
  }

  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<unsigned char>> encode_;
  std::map<std::vector<std::uint32_t>, std::vector<unsigned char>> decode_;
};

}  // namespace

std::unique_ptr<ErasureCoder> make_isal_coder() { return std::make_unique<IsalCoder>(); }

}  // namespace luge::coding
