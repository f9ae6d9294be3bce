#include "control/key_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "io/testing.hpp"

namespace luge::control {
namespace {

class KeyFileTest : public testing::Test {
 protected:
  std::string path(const char* name) { return directory_ / name; }
  Result<std::shared_ptr<const wire::Signer>> open(std::uint8_t fresh, bool signed_before = false, bool new_key = false) {
    return open_unit_key(directory_.path(), {wire::KeyBytes{fresh}, signed_before, new_key});
  }
  io::testing::TemporaryDirectory directory_;
};

TEST_F(KeyFileTest, MakesAPairOnceAndKeepsIt) {
  auto first = open(1);
  ASSERT_TRUE(first.ok()) << first.status().to_string();
  struct stat s {};
  ASSERT_EQ(::stat(path("unit.key").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777, 0600u);
  auto again = open(2, true);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ((*again)->public_key(), (*first)->public_key());
  std::ifstream pub(path("unit.pub"));
  std::string line;
  std::getline(pub, line);
  EXPECT_EQ(line, wire::to_hex((*first)->public_key()));
}

// Requirement: FN-06
TEST_F(KeyFileTest, ALostKeyIsNotReplacedUnasked) {
  auto first = open(1);
  ASSERT_TRUE(first.ok());
  std::filesystem::remove(path("unit.key"));
  auto lost = open(2);
  ASSERT_EQ(lost.code(), Code::not_found);
  for (const char* word : {"unit.key is lost", "backup", "--new-key", "--unit-key"}) EXPECT_NE(lost.status().text().find(word), std::string::npos) << word;
  std::filesystem::remove(path("unit.pub"));
  EXPECT_EQ(open(2, true).code(), Code::not_found) << "the store says that there was one";
  auto made = open(2, true, true);
  ASSERT_TRUE(made.ok());
  EXPECT_NE((*made)->public_key(), (*first)->public_key());
}

TEST_F(KeyFileTest, ANewKeyKeepsTheOldOnesFile) {
  auto first = open(1);
  ASSERT_TRUE(first.ok() && open(2, true, true).ok());
  std::ifstream old(path("unit.key.old"));
  std::string line;
  std::getline(old, line);
  EXPECT_EQ(line, wire::to_hex(wire::KeyBytes{1}));
}

// Requirement: FN-06
TEST_F(KeyFileTest, ADamagedKeyAndOneThatOthersCanReadAreRefused) {
  ASSERT_TRUE(open(1).ok());
  std::filesystem::permissions(path("unit.key"), std::filesystem::perms::group_read, std::filesystem::perm_options::add);
  EXPECT_EQ(open(1).code(), Code::invalid);
  std::filesystem::permissions(path("unit.key"), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  ASSERT_TRUE(open(1).ok());
  for (const char* text : {"", "abc", "zz"}) {
    std::ofstream(path("unit.key")) << text;
    EXPECT_EQ(open(1).code(), Code::invalid) << text;
  }
}

}  // namespace
}  // namespace luge::control
