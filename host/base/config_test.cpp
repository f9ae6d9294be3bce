#include "base/config.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace luge {
namespace {

using T = Option::Type;

const std::vector<Option> kTable = {
    {"listen", T::text, "unix:here", "where to listen", false},
    {"segment", T::bytes, "64MiB", "size of a segment", false},
    {"heartbeat", T::duration, "100ms", "between two messages", false},
    {"device", T::texts, "", "devices", false},
    {"copies", T::number, "3", "copies", false},
    {"verify", T::flag, "true", "verify parity", false},
};

CommandLine parse(std::vector<const char*> args, const std::vector<Option>& table = kTable) {
  args.insert(args.begin(), "luge-test");
  return parse_command_line(static_cast<int>(args.size()), args.data(), "luge-test", "Tests.", table);
}

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) {
    path_ = ::testing::TempDir() + "/luge_config_test.toml";
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { std::remove(path_.c_str()); }
  const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
};

TEST(Config, DefaultsThenFileThenFlags) {
  ConfigFile file("segment = \"1MiB\"\nheartbeat = \"2s\"\ncopies = 2\nverify = false\ndevice = [\"a\", \"b\"]\n");
  CommandLine c = parse({"--config", file.path(), "--heartbeat", "250ms"});
  ASSERT_FALSE(c.exit_code) << c.output;
  const Settings& s = c.settings;
  EXPECT_EQ(s.text("listen"), "unix:here");
  EXPECT_FALSE(s.given("listen"));
  EXPECT_EQ(s.bytes("segment"), 1u << 20);
  EXPECT_EQ(s.duration("heartbeat"), std::chrono::milliseconds(250));
  EXPECT_EQ(s.number("copies"), 2u);
  EXPECT_FALSE(s.flag("verify"));
  EXPECT_EQ(s.texts("device"), (std::vector<std::string>{"a", "b"}));
}

TEST(Config, FlagsThatRepeatAndNegate) {
  CommandLine c = parse({"--device", "x", "--device", "y", "--no-verify", "--copies=7"});
  ASSERT_FALSE(c.exit_code) << c.output;
  EXPECT_EQ(c.settings.texts("device"), (std::vector<std::string>{"x", "y"}));
  EXPECT_FALSE(c.settings.flag("verify"));
  EXPECT_EQ(c.settings.number("copies"), 7u);
  EXPECT_TRUE(parse({}).settings.texts("device").empty());
}

// Requirement: B-03
TEST(Config, AnUnknownKeyIsNamedWithItsLine) {
  ConfigFile file("copies = 2\n\nsegmnet = \"1MiB\"\n");
  CommandLine c = parse({"--config", file.path()});
  EXPECT_EQ(c.exit_code, 2);
  EXPECT_NE(c.output.find("luge_config_test.toml:3: unknown key 'segmnet'; did you mean 'segment'?"),
            std::string::npos)
      << c.output;
}

// Requirement: B-03
TEST(Config, BadValuesAreExplained) {
  for (const char* text : {"segment = \"12 parsecs\"", "copies = -1", "verify = \"maybe\"", "heartbeat = 3",
                           "copies = 1.5", "listen = [\"a\"]", "[segment]\nx = 1", "copies = = 2", "device = [1.5]"}) {
    ConfigFile file(text);
    CommandLine c = parse({"--config", file.path()});
    EXPECT_EQ(c.exit_code, 2) << text;
    EXPECT_NE(c.output.find("luge_config_test.toml"), std::string::npos) << c.output;
  }
  EXPECT_EQ(parse({"--copies", "x"}).exit_code, 2);
  EXPECT_EQ(parse({"--config", "/does/not/exist"}).exit_code, 2);
  EXPECT_EQ(parse({"word"}).exit_code, 2);
  CommandLine c = parse({"--segmnt", "1"});
  EXPECT_EQ(c.exit_code, 2);
  EXPECT_NE(c.output.find("did you mean --segment?"), std::string::npos) << c.output;
}

TEST(Config, HelpAndVersion) {
  CommandLine c = parse({"--help"});
  EXPECT_EQ(c.exit_code, 0);
  for (const char* word : {"--segment", "size of a segment", "64MiB", "--config"})
    EXPECT_NE(c.output.find(word), std::string::npos) << c.output;
  c = parse({"--version"});
  EXPECT_EQ(c.exit_code, 0);
  EXPECT_EQ(c.output, "luge-test " LUGE_VERSION "\n");
}

TEST(Config, WhatIsRequiredMustBeGiven) {
  std::vector<Option> table = kTable;
  table.push_back({"id", T::number, "", "node", true});
  CommandLine c = parse({}, table);
  EXPECT_EQ(c.exit_code, 2);
  EXPECT_NE(c.output.find("'id' is missing"), std::string::npos) << c.output;
  EXPECT_FALSE(parse({"--id", "5"}, table).exit_code);
}

TEST(Config, SizesAndDurations) {
  EXPECT_EQ(*parse_bytes("4096"), 4096u);
  EXPECT_EQ(*parse_bytes("2G"), 2ull << 30);
  EXPECT_EQ(*parse_bytes("1 TiB"), 1ull << 40);
  for (const char* bad : {"", "G", "-1", "1.5G", "1X", "9999999999999T", "99999999999999999999"})
    EXPECT_FALSE(parse_bytes(bad).ok()) << bad;
  EXPECT_EQ(*parse_duration("1h"), std::chrono::hours(1));
  for (const char* bad : {"", "3", "ms", "1d", "999999999999h"}) EXPECT_FALSE(parse_duration(bad).ok()) << bad;
}

}  // namespace
}  // namespace luge
