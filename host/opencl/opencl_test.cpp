// The OpenCL coder against ISA-L, on whatever device the ICD has; and what is said when it has none.
#include "opencl/opencl_coder.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/logging.hpp"
#include "io/real_world.hpp"
#include "opencl/device.hpp"

namespace luge::opencl {
namespace {

class OpenClTest : public ::testing::Test {
 public:
  OpenClTest() { logging::setup("test", "off"); }
  std::vector<Buffer> random_chunks(std::uint32_t n, std::size_t bytes) {
    std::vector<Buffer> out;
    for (std::uint32_t i = 0; i < n; ++i) {
      out.push_back(Buffer::allocate(bytes));
      for (std::size_t j = 0; j < bytes; ++j) out.back().data()[j] = static_cast<std::byte>(random());
    }
    return out;
  }
  std::mt19937_64 random{7};
};

io::Task<Status> encode(coding::ErasureCoder& coder, Layout l, const std::vector<Buffer>& data, std::vector<Buffer>& parity) {
  std::vector<Bytes> from;
  std::vector<MutableBytes> to;
  for (const Buffer& b : data) from.push_back(b.bytes());
  parity.clear();
  for (std::uint32_t i = 0; i < l.m; ++i) parity.push_back(Buffer::zeros(data[0].size()));
  for (Buffer& b : parity) to.push_back(b.mutable_bytes());
  Status s = co_await coder.encode(l, from, to);
  co_return s;
}

bool same(const Buffer& a, const Buffer& b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0; }

io::Task<int> compare_all(io::RealWorld& world, OpenClTest& test) {
  auto coder = make_opencl_coder(world, "");
  auto software = coding::make_isal_coder();
  std::vector<Buffer> parity, expected;
  auto data = test.random_chunks(4, 4096);
  EXPECT_EQ((co_await encode(*coder, {4, 2}, data, parity)).code(), Code::unavailable) << "not opened yet";
  Status opened = co_await coder->reset();
  EXPECT_TRUE(opened.ok()) << opened.to_string();
  if (!opened.ok()) co_return 1;
  for (Layout l : {Layout{4, 2}, Layout{1, 1}, Layout{8, 3}, Layout{16, 4}, Layout{5, 4}})
    for (std::size_t bytes : {64u, 4096u, 131072u, 4096u + 64u}) {
      data = test.random_chunks(l.k, bytes);
      Status s = co_await encode(*coder, l, data, parity);
      EXPECT_TRUE(s.ok()) << s.to_string();
      EXPECT_TRUE((co_await encode(*software, l, data, expected)).ok());
      for (std::uint32_t i = 0; i < l.m; ++i) EXPECT_TRUE(same(parity[i], expected[i])) << to_string(l) << " " << bytes << " parity " << i;
      // All that can be lost at once: the first m chunks.
      std::vector<Bytes> present;
      std::vector<std::uint32_t> wanted;
      std::vector<Buffer> out;
      std::vector<MutableBytes> to;
      for (std::uint32_t i = 0; i < l.width(); ++i) present.push_back(i < l.m ? Bytes() : i < l.k ? data[i].bytes() : parity[i - l.k].bytes());
      for (std::uint32_t i = 0; i < std::min(l.m, l.k); ++i) wanted.push_back(i), out.push_back(Buffer::zeros(bytes));
      for (Buffer& b : out) to.push_back(b.mutable_bytes());
      s = co_await coder->reconstruct(l, present, wanted, to);
      EXPECT_TRUE(s.ok()) << s.to_string();
      for (std::size_t i = 0; i < out.size(); ++i) EXPECT_TRUE(same(out[i], data[i])) << to_string(l) << " " << bytes << " chunk " << i;
    }
  EXPECT_TRUE((co_await coder->reset()).ok()) << "opened anew";
  EXPECT_TRUE((co_await encode(*coder, {4, 2}, test.random_chunks(4, 4096), parity)).ok());
  co_return 0;
}

// Requirement: FL-19
TEST_F(OpenClTest, GivesTheBytesThatIsalGives) {
  io::RealWorld world;
  EXPECT_EQ(io::run_main(world, compare_all(world, *this)), 0);
}

TEST_F(OpenClTest, SaysWhichDevicesThereAreWhenNoneFits) {
  auto d = open_device("no such card");
  ASSERT_FALSE(d.ok());
  EXPECT_EQ(d.code(), Code::not_found);
  EXPECT_NE(d.status().text().find("'no such card'"), std::string::npos);
  EXPECT_NE(d.status().text().find("Portable Computing Language"), std::string::npos) << d.status().text();
  EXPECT_NE(d.status().text().find("another name"), std::string::npos) << d.status().text();
}

TEST_F(OpenClTest, AnyPartOfTheNameWillDo) {
  auto d = open_device("PTHREAD");
  ASSERT_TRUE(d.ok()) << d.status().to_string();
  EXPECT_NE((*d)->name().find("pthread"), std::string::npos);
}

// Where there is no card the same is true of a device that has a compiler.
TEST_F(OpenClTest, ACardNeedsItsFile) {
  const char* file = std::getenv("LUGE_CARD_XCLBIN");
  std::string path = file ? file : "";
  ::unsetenv("LUGE_CARD_XCLBIN");
  auto without = open_device("luge_emulation");
  ::setenv("LUGE_CARD_XCLBIN", "/nonexistent", 1);
  auto with_none = open_device("luge_emulation");
  path.empty() ? ::unsetenv("LUGE_CARD_XCLBIN") : ::setenv("LUGE_CARD_XCLBIN", path.c_str(), 1);
  EXPECT_EQ(without.code(), Code::not_found);
  EXPECT_EQ(with_none.code(), Code::not_found);
  if (path.empty()) GTEST_SKIP() << "no emulated card: run by on_card.sh";
  EXPECT_NE(without.status().text().find("LUGE_CARD_XCLBIN names no xclbin"), std::string::npos) << without.status().text();
  EXPECT_NE(with_none.status().text().find("cannot read the xclbin /nonexistent"), std::string::npos) << with_none.status().text();
}

// The loader looks for drivers once per process, so this has one of its own.
TEST(OpenClDeathTest, NoDriverIsSaidInWords) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::setenv("OCL_ICD_VENDORS", "/nonexistent", 1);
        auto d = open_device("");
        std::fprintf(stderr, "%s\n", d.status().to_string().c_str());
        std::_Exit(d.code() == Code::not_found ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "finds no driver");
}

TEST(OpenClDeathTest, ADriverWithoutADeviceIsSaidInWords) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::setenv("OCL_ICD_VENDORS", EMPTY_DRIVER, 1);
        auto d = open_device("");
        std::fprintf(stderr, "%s\n", d.status().to_string().c_str());
        std::_Exit(d.code() == Code::not_found ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "there are 1 drivers and no device");
}

}  // namespace
}  // namespace luge::opencl
