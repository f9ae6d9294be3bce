// `luge` as a script sees it: exit codes, one sentence on standard error, JSON on standard output; and units on disk
// with real daemons as processes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/crc32c.hpp"
#include "cli/exit_codes.hpp"
#include "cli/process.hpp"
#include "cli/unit.hpp"
#include "coding/chunk_header.hpp"
#include "wire/frame.hpp"

namespace luge::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using namespace std::chrono_literals;

std::string bin() { return (fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "bin").string(); }

class CliTest : public testing::Test {
 protected:
  CliTest() {
    std::string pattern = (fs::temp_directory_path() / "luge-cli-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    dir_ = root_ + "/u";
    ::unsetenv("LUGE_UNIT");
    ::unsetenv("LUGE_API");
  }
  ~CliTest() override {
    if (fs::exists(dir_ + "/unit.json")) luge("unit down --dir " + dir_);
    fs::remove_all(root_);
  }

  struct Ran {
    int code;
    std::string out, err;
    json::value json() const { return boost::json::parse(out); }
  };
  Ran luge(const std::string& arguments) {
    std::string command = "exec '" + bin() + "/luge' " + arguments + " >" + root_ + "/out 2>" + root_ + "/err </dev/null";
    int rc = std::system(command.c_str());
    return {WIFEXITED(rc) ? WEXITSTATUS(rc) : -1, slurp(root_ + "/out"), slurp(root_ + "/err")};
  }
  static std::string slurp(const std::string& path) {
    std::ifstream in(path);
    std::stringstream s;
    s << in.rdbuf();
    return s.str();
  }
  void expect(const std::string& arguments, int code, const std::string& sentence) {
    Ran r = luge(arguments);
    EXPECT_EQ(r.code, code) << arguments << "\n" << r.out << r.err;
    EXPECT_NE(r.err.find(sentence), std::string::npos) << arguments << "\n" << r.err;
  }
  std::string root_, dir_;
};

TEST_F(CliTest, HelpTeaches) {
  Ran r = luge("--help");
  EXPECT_EQ(r.code, 0);
  for (const char* word : {"luge unit up", "volume create", "--nbd unix:", "Exit codes", "LUGE_UNIT"})
    EXPECT_NE(r.out.find(word), std::string::npos) << word;
  for (const char* sub : {"unit", "unit up", "volume", "volume create", "attach", "detach", "status", "debug chunk", "debug log"})
    EXPECT_EQ(luge(std::string(sub) + " --help").code, 0) << sub;
  EXPECT_NE(luge("--version").out.find("luge "), std::string::npos);
}

TEST_F(CliTest, WrongUsageIsCode2) {
  expect("", 2, "subcommand");
  expect("volum ls", 2, "did you mean 'volume'");
  expect("volume creat x", 2, "did you mean 'create'");
  expect("volume create", 2, "NAME");
  expect("volume create v --size 1GiB", 2, "layout");
  expect("volume create v --size many --layout 4+2 --unit " + dir_, 2, "--size");
  expect("volume create ../v --size 1GiB --layout 4+2 --unit " + dir_, 2, "no volume's name");
  expect("volume create v --size 1GiB --layout 4+2 --copies 9", 2, "copies");
  expect("status", 2, "which unit");
  expect("status --frobnicate --unit " + dir_, 2, "frobnicate");
  expect("unit up --heads 0 --dir " + dir_, 2, "heads");
  expect("unit up --device-bytes 5 --dir " + dir_, 2, "multiple of 4096");
  expect("unit up", 2, "which unit");
  EXPECT_FALSE(fs::exists(dir_)) << "nothing is left behind";
}

// The benches of the card are built only on demand.
TEST_F(CliTest, CosimSaysWhatIsMissing) {
  Ran r = luge("cosim no-such-kernel");
  if (r.err.find("no bench for 'no-such-kernel'; kernels:") != std::string::npos) {
    EXPECT_EQ(r.code, 4) << r.err;
  } else {
    EXPECT_EQ(r.code, 6) << r.err;
    EXPECT_NE(r.err.find("-DLUGE_HLS=ON"), std::string::npos) << r.err;
  }
  EXPECT_EQ(luge("cosim --help").code, 0);
}

TEST_F(CliTest, NoUnitNoControlPlane) {
  expect("status --unit " + dir_, 4, "no such directory");
  expect("status --api unix:" + root_ + "/none", 6, "does not answer");
  expect("status --api tcp:127.0.0.1:1", 6, "does not answer");
  expect("status --api x", 2, "no address");
}

TEST_F(CliTest, RefusesDirectoriesThatAreNotAUnits) {
  fs::create_directories(dir_);
  std::ofstream(dir_ + "/precious") << "x";
  expect("unit up --dir " + dir_, 5, "not empty");
  EXPECT_FALSE(fs::exists(dir_ + "/lock"));
  expect("unit down --dir " + dir_, 2, "no unit.json");
  std::ofstream(dir_ + "/unit.json") << R"({"format":2})";
  expect("unit up --dir " + dir_, 5, "format 2");
  std::ofstream(dir_ + "/unit.json") << "{";
  expect("unit status --dir " + dir_, 1, "damaged");
  fs::remove(dir_ + "/unit.json");
  expect("unit up --dir " + dir_ + "/precious", 5, "not a directory");
  expect("unit up --dir " + root_ + "/" + std::string(120, 'l'), 2, "too long");
}

TEST_F(CliTest, MissingProgramsAreNamedBeforeAnythingStarts) {
  expect("unit up --bin " + root_ + " --dir " + dir_, 1, "no such program");
  EXPECT_EQ(luge("unit status --dir " + dir_).code, 6);
}

TEST_F(CliTest, AForeignProcessIsNeverSignalled) {
  auto unit = Unit::create(dir_, UnitShape{1, 1, 1}, bin());
  ASSERT_TRUE(unit.ok()) << unit.status().to_string();
  pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const Daemon& d = unit->daemons().front();
  std::string pid_file = dir_ + "/" + d.name + "/pid";
  // The pid lives, but the program is another; then also the start time is another's.
  ASSERT_TRUE(write_pid_file(pid_file, {child, *start_time_of(child)}).ok());
  EXPECT_EQ(unit->pid_of(d), 0);
  ASSERT_TRUE(write_pid_file(pid_file, {child, 1}).ok());
  EXPECT_EQ(unit->pid_of(d), 0);
  EXPECT_FALSE(runs({child, 1}, "/proc/self/exe"));
  std::ofstream(pid_file) << "{\"pid\":-1,\"start_time\":1}";
  EXPECT_EQ(unit->pid_of(d), 0);
  std::ofstream(pid_file) << "garbage";
  EXPECT_EQ(unit->pid_of(d), 0);
  ASSERT_TRUE(unit->stop(unit->daemons(), 100ms).ok());
  EXPECT_EQ(::kill(child, 0), 0);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(start_time_of(child).has_value());
}

TEST_F(CliTest, OneUnitCommandAtATime) {
  ASSERT_TRUE(Unit::create(dir_, UnitShape{1, 1, 1}, bin()).ok());
  auto lock = Unit::lock(dir_);
  ASSERT_TRUE(lock.ok());
  expect("unit down --dir " + dir_, 5, "at work");
  expect("unit up --dir " + dir_, 5, "at work");
}

TEST_F(CliTest, DebugPrintsFramesAndChunks) {
  std::string file = root_ + "/f";
  wire::Frame frame = wire::reply_frame(Status(Code::stale, "text"));
  wire::FrameHeader h;
  h.kind = static_cast<std::uint16_t>(frame.kind);
  h.body_bytes = static_cast<std::uint32_t>(frame.body.size());
  h.crc = wire::frame_crc(h, frame.body);
  std::string bytes(reinterpret_cast<const char*>(&h), sizeof h);
  bytes.append(reinterpret_cast<const char*>(frame.body.data()), frame.body.size());
  std::ofstream(file) << bytes << bytes;
  Ran r = luge("debug frame " + file);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("reply"), std::string::npos);
  EXPECT_NE(r.out.find("checksum good"), std::string::npos);
  std::ofstream(file) << bytes << bytes.substr(0, 45);
  expect("debug frame " + file, 1, "cut short");

  coding::ChunkHeaderFields f;
  f.unit = 7;
  f.stripe = {65536, 3, 9};
  f.layout = {1, 1};
  f.chunk_bytes = 4096;
  f.generation = 5;
  std::string block(4096, 'b');
  fbs::BlockIdentity id(17, 33, crc32c(as_bytes(block)), 0);
  std::uint32_t parity = 1;
  Buffer header = coding::encode_chunk_header(f, std::span(&id, 1), std::span(&parity, 1));
  std::ofstream(file) << std::string(reinterpret_cast<const char*>(header.data()), header.size()) << block;
  r = luge("debug chunk " + file);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("lba 17, lsn 33"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("good"), std::string::npos) << r.out;
  expect("debug chunk " + root_ + "/none", 4, "cannot be read");
}

class UnitTest : public CliTest {};

// A whole small unit, each daemon its own process.
TEST_F(UnitTest, UpDownUpKeepsVolumes) {
  Ran up = luge("unit up --json --timeout 120 --heads 3 --sleds 3 --devices 1 --log-bytes 64MiB --meta-bytes 32MiB --device-bytes 128MiB --dir " + dir_);
  ASSERT_EQ(up.code, 0) << up.err;
  EXPECT_EQ(up.json().at("daemons").as_array().size(), 8u);
  EXPECT_TRUE(up.json().at("running").as_bool());
  ::setenv("LUGE_UNIT", dir_.c_str(), 1);
  Ran made = luge("volume create v --size 16MiB --layout 2+1 --json");
  ASSERT_EQ(made.code, 0) << made.err;
  expect("volume create v --size 16MiB --layout 2+1", 5, "already");
  expect("volume show w", 4, "no volume w");
  expect("volume create w --size 16MiB --layout 4+2", 6, "needs 6 sleds");

  json::value status = luge("status --json").json();
  EXPECT_EQ(status.at("nodes").as_array().size(), 8u);
  for (const json::value& n : status.at("nodes").as_array()) {
    EXPECT_EQ(n.at("state"), "up") << n;
    EXPECT_GT(n.at("pid").to_number<int>(), 1) << n;
  }
  const json::object& v = status.at("volumes").at(0).as_object();
  for (const char* key : {"name", "size", "layout", "epoch", "revision", "primary", "reserves", "required", "copies",
                          "unflushed_bytes", "degraded_stripes"})
    EXPECT_TRUE(v.contains(key)) << key;
  json::value shown = luge("volume show v --json").json();
  for (const char* key : {"memory", "log", "sled", "reconstructed"}) EXPECT_TRUE(shown.at("read_bytes").as_object().contains(key)) << key;
  for (const char* key : {"user", "log", "data_chunks", "parity_chunks"}) EXPECT_TRUE(shown.at("written_bytes").as_object().contains(key)) << key;
  EXPECT_TRUE(shown.at("placement").is_array());
  EXPECT_LT(luge("status").out.find("head-1"), std::string::npos);

  // The logs of a head that runs.
  Ran metadata = luge("debug log " + dir_ + "/head-1/data/meta");
  EXPECT_EQ(metadata.code, 0) << metadata.err;
  EXPECT_NE(metadata.out.find("designation/65536: VP 65536, epoch 1"), std::string::npos) << metadata.out;
  EXPECT_EQ(luge("debug log " + dir_ + "/head-1/data/log-data --segment 1 --segment-bytes 16MiB").code, 0);
  expect("debug log " + dir_ + "/head-1/config.toml", 1, "neither a log nor a metadata store");
  expect("debug log " + dir_ + "/none", 4, "cannot be read");
  expect("debug log " + dir_, 2, "no regular file");
  expect("debug log " + dir_ + "/head-1/data/meta --from 5", 2, "multiples of 4096");

  // `up` starts what was killed, and only that.
  pid_t head_2 = status.at("nodes").as_array().at(2).at("pid").to_number<pid_t>();
  ASSERT_EQ(luge("unit kill head-1").code, 0);
  ASSERT_EQ(luge("unit up --dir " + dir_).code, 0);
  json::value again = luge("status --json").json();
  EXPECT_EQ(again.at("nodes").as_array().at(2).at("pid").to_number<pid_t>(), head_2);

  ASSERT_EQ(luge("unit down").code, 0);
  EXPECT_EQ(luge("unit status").code, 6);
  expect("status", 6, "does not answer");
  ASSERT_EQ(luge("unit up --dir " + dir_).code, 0);
  EXPECT_EQ(luge("volume ls --json").json().at("volumes").at(0).at("name"), "v");
  ASSERT_EQ(luge("volume rm v").code, 0);
}

}  // namespace
}  // namespace luge::cli
