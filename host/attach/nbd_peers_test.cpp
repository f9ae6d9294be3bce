// The NBD server against the clients people use: nbdinfo, nbdcopy, qemu-img, qemu-io, fio. Each is skipped where it is
// not installed.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "attach/nbd_testing.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using testing::MemoryServer;

constexpr std::size_t kSize = 64 << 20;

struct Outcome {
  int status = -1;
  std::string output;
};

Outcome shell(const std::string& command) {
  Outcome o;
  FILE* p = ::popen((command + " 2>&1").c_str(), "r");
  if (p == nullptr) return o;
  char buffer[4096];
  while (std::size_t n = std::fread(buffer, 1, sizeof buffer, p)) o.output.append(buffer, n);
  o.status = ::pclose(p);
  return o;
}

bool installed(const std::string& tool) { return shell("command -v " + tool).status == 0; }

class Peers : public ::testing::Test {
 protected:
  /// Runs the command while the server serves; U in it stands for the server's nbd+unix URI, D for a directory.
  Outcome run(std::string command) {
    Outcome outcome;
    std::string uri = "'nbd+unix:///disk?socket=" + (dir / "nbd.sock") + "'";
    for (std::size_t at; (at = command.find("@U")) != std::string::npos;) command.replace(at, 2, uri);
    for (std::size_t at; (at = command.find("@D")) != std::string::npos;) command.replace(at, 2, dir.path());
    io::testing::run([&](io::World& world) -> io::Task<void> {
      auto server = std::make_shared<MemoryServer>(world, dir / "nbd.sock", kSize);
      if (!content.empty()) server->target.bytes() = content;
      std::atomic<bool> done = false;
      std::thread tool([&] {
        outcome = shell("timeout 120 sh -c \"" + command + "\"");
        done = true;
      });
      while (!done) co_await world.sleep(5ms);
      tool.join();
      server->listener->close();
      for (auto& w : server->connections)
        if (auto c = w.lock()) c->close();
      for (int i = 0; i < 200 && world.tasks() > 1; ++i) co_await world.sleep(5ms);
      content = server->target.bytes();
      errors = server->served->stats.errors;
    });
    return outcome;
  }
  void needs(const std::string& tool) {
    if (!installed(tool)) GTEST_SKIP() << tool << " is not installed";
  }
  io::testing::TemporaryDirectory dir;
  std::vector<std::byte> content;  // of the disk, kept from one run to the next
  std::uint64_t errors = 0;
};

TEST_F(Peers, NbdinfoSeesWhatIsOffered) {
  needs("nbdinfo");
  Outcome o = run("nbdinfo @U && nbdinfo --list @U && nbdinfo --can multi-conn @U && nbdinfo --can fua @U && nbdinfo --can trim @U && nbdinfo --can zero @U && nbdinfo --can flush @U");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find(std::to_string(kSize)), std::string::npos) << o.output;
}

TEST_F(Peers, NbdcopyGoesInAndOut) {
  needs("nbdcopy");
  Outcome o = run("dd if=/dev/urandom of=@D/in bs=1M count=40 status=none && truncate -s 64M @D/in && nbdcopy @D/in @U && nbdcopy @U @D/out && cmp @D/in @D/out");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(errors, 0u);
}

TEST_F(Peers, QemuImgConvertsAndCompares) {
  needs("qemu-img");
  Outcome o = run("dd if=/dev/urandom of=@D/in bs=1M count=20 status=none && truncate -s 64M @D/in && qemu-img info @U && "
                  "qemu-img convert -n -f raw -O raw -W -m 8 @D/in @U && qemu-img compare -f raw -F raw @D/in @U");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find("Images are identical"), std::string::npos) << o.output;
}

TEST_F(Peers, QemuIoWritesOddRanges) {
  needs("qemu-io");
  Outcome o = run("qemu-io -f raw -c 'write -P 7 1000 70000' -c 'read -P 7 1000 70000' -c 'write -z 4096 8192' -c 'read -P 0 4096 8192' "
                  "-c 'discard 20480 4096' -c 'read -P 0 20480 4096' -c 'flush' -c 'write -f -P 9 0 512' -c 'read -P 9 0 512' @U");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(o.output.find("failed"), std::string::npos) << o.output;
}

TEST_F(Peers, FioVerifiesWhatItWrote) {
  needs("fio");
  if (shell("fio --enghelp=nbd").status != 0) GTEST_SKIP() << "fio without its nbd engine";
  Outcome o = run("fio --name=v --ioengine=nbd --uri=@U --rw=randrw --bsrange=512-64k --blockalign=512 --iodepth=32 --size=32m "
                  "--verify=crc32c --verify_state_save=0 --do_verify=1 --output-format=terse");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(errors, 0u);
}

}  // namespace
}  // namespace luge::attach
