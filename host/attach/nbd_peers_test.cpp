// The NBD server against the clients people use: nbdinfo, nbdcopy, nbdsh, qemu-img, qemu-io, fio, nbdkit's client; over Unix
// sockets, TCP and TLS. Each is skipped where it is not installed.
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
  /// Runs the command while the server serves at `place`; in it @U stands for the server's URI, @D for a directory, @P for
  /// HOST:PORT of a server on TCP.
  Outcome run(std::string command) {
    Outcome outcome;
    auto put_in = [&](const std::string& mark, const std::string& text) {
      for (std::size_t at; (at = command.find(mark)) != std::string::npos;) command.replace(at, mark.size(), text);
    };
    io::testing::run([&](io::World& world) -> io::Task<void> {
      auto server = std::make_shared<MemoryServer>(world, place.empty() ? dir / "nbd.sock" : place, kSize, false, tls);
      server->target.sparse = true;
      std::string host_port = server->address.substr(server->address.find(':') + 1);
      put_in("@U", place.empty() ? "'nbd+unix:///disk?socket=" + (dir / "nbd.sock") + "'" : "nbd://" + host_port + "/disk");
      put_in("@P", host_port);
      put_in("@D", dir.path());
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
  /// An authority, a server and a client that it has signed, and another authority; false without certtool.
  bool make_certificates() {
    std::string script = "set -e; cd " + dir.path() +
                         "; mkdir -p good alien bare; for a in good alien; do certtool --generate-privkey --outfile $a/ca-key.pem; "
                         "printf 'cn=%s\\nca\\ncert_signing_key\\nexpiration_days=2\\n' $a > ca.info; "
                         "certtool --generate-self-signed --load-privkey $a/ca-key.pem --template ca.info --outfile $a/ca-cert.pem; done; "
                         "printf 'cn=localhost\\nip_address=127.0.0.1\\ntls_www_server\\nsigning_key\\nexpiration_days=2\\n' > server.info; "
                         "printf 'cn=client\\ntls_www_client\\nsigning_key\\nexpiration_days=2\\n' > client.info; "
                         "certtool --generate-privkey --outfile server-key.pem; certtool --generate-certificate --load-privkey server-key.pem "
                         "--load-ca-certificate good/ca-cert.pem --load-ca-privkey good/ca-key.pem --template server.info --outfile server-cert.pem; "
                         "for a in good alien; do certtool --generate-privkey --outfile $a/client-key.pem; certtool --generate-certificate --load-privkey $a/client-key.pem "
                         "--load-ca-certificate $a/ca-cert.pem --load-ca-privkey $a/ca-key.pem --template client.info --outfile $a/client-cert.pem; done; "
                         "cp good/ca-cert.pem bare/; cp good/ca-cert.pem alien/right-ca.pem";
    Outcome o = shell(script);
    EXPECT_EQ(o.status, 0) << o.output;
    tls = {dir / "server-cert.pem", dir / "server-key.pem", ""};
    place = "tcp:127.0.0.1:0";
    return o.status == 0;
  }
  std::string place;  // empty: a Unix socket
  TlsFiles tls;
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

TEST_F(Peers, NbdinfoMapsWhatHoldsData) {
  needs("nbdinfo");
  content.resize(kSize);
  std::memset(content.data() + (8 << 20), 'd', 4 << 20);
  Outcome o = run("nbdinfo --map @U && nbdinfo --list @U && nbdinfo --can structured-reply @U && nbdinfo --can multi-conn @U && nbdinfo --can fast-zero @U && nbdinfo --can df @U");
  EXPECT_EQ(o.status, 0) << o.output;
  for (const char* line : {"0     8388608    3  hole,zero", "8388608     4194304    0  data", "12582912    54525952    3  hole,zero"})
    EXPECT_NE(o.output.find(line), std::string::npos) << line << "\n" << o.output;
}

TEST_F(Peers, QemuImgMapsWhatHoldsData) {
  needs("qemu-img");
  content.resize(kSize);
  std::memset(content.data() + (8 << 20), 'd', 4 << 20);
  Outcome o = run("qemu-img map -f raw --output=json @U");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find("\"start\": 8388608, \"length\": 4194304, \"depth\": 0, \"present\": true, \"zero\": false, \"data\": true"), std::string::npos) << o.output;
  EXPECT_NE(o.output.find("\"start\": 12582912, \"length\": 54525952, \"depth\": 0, \"present\": true, \"zero\": true, \"data\": false"), std::string::npos) << o.output;
}

// What nothing was written to is not copied.
TEST_F(Peers, NbdcopyKeepsHolesHoles) {
  needs("nbdcopy");
  content.resize(kSize);
  std::memset(content.data() + (8 << 20), 'd', 1 << 20);
  Outcome o = run("nbdcopy @U @D/out && truncate -s 64M @D/in && du -k @D/out | cut -f1");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_LE(std::atoi(o.output.c_str()), 2048) << o.output;
}

// What nbdsh stands on.
TEST_F(Peers, LibnbdSeesEachReplyAsItShouldBe) {
  const std::string python = "/usr/bin/python3";
  if (shell(python + " -c 'import nbd'").status != 0) GTEST_SKIP() << "python3-libnbd is not installed";
  std::FILE* f = std::fopen((dir / "script.py").c_str(), "w");
  std::fputs(R"(import errno, nbd, sys
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated() and h.can_df() and h.can_meta_context("base:allocation")
assert h.can_multi_conn() and h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_fast_zero()
assert h.get_size() == 64 << 20 and h.get_block_size(0) == 1 and h.get_block_size(1) == 4096
h.pwrite(b"x" * 10000, 3000000)
assert h.pread(10000, 3000000) == bytearray(b"x" * 10000)
seen = []
def piece(data, offset, status, error):
    seen.append((offset, len(data), status))
h.pread_structured(4 << 20, 1 << 20, piece)
assert sum(n for _, n, _ in seen) == 4 << 20, seen
assert {s for _, _, s in seen} == {nbd.READ_DATA, nbd.READ_HOLE}, seen
seen.clear()
h.pread_structured(4 << 20, 1 << 20, piece, nbd.CMD_FLAG_DF)
assert seen == [(1 << 20, 4 << 20, nbd.READ_DATA)], seen
runs = []
h.block_status(8 << 20, 0, lambda c, o, e, err: runs.append((c, o, list(e))))
first = 3000000 // 4096 * 4096
end = (3010000 + 4095) // 4096 * 4096
assert runs == [("base:allocation", 0, [first, 3, end - first, 0, (8 << 20) - end, 3])], runs
runs.clear()
h.block_status(8 << 20, 0, lambda c, o, e, err: runs.append(list(e)), nbd.CMD_FLAG_REQ_ONE)
assert runs == [[first, 3]], runs
h.zero(8192, 0, nbd.CMD_FLAG_FAST_ZERO)
h.set_strict_mode(0)
for bad in (lambda: h.pread(4096, 64 << 20), lambda: h.block_status(4096, 64 << 20, lambda *a: 0), lambda: h.pwrite(b"x" * 4096, (64 << 20) - 1)):
    try:
        bad()
        assert False
    except nbd.Error as e:
        assert e.errnum in (errno.EINVAL, errno.ENOSPC), e
assert h.pread(100, 3000000) == bytearray(b"x" * 100)
print("all as it should be")
)",
             f);
  std::fclose(f);
  Outcome o = run(python + " @D/script.py @U");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find("all as it should be"), std::string::npos) << o.output;
}

// nbdkit's own client in between: asks for everything that it could hand on.
TEST_F(Peers, NbdkitHandsItOn) {
  needs("nbdkit");
  Outcome o = run("dd if=/dev/urandom of=@D/in bs=1M count=12 status=none && truncate -s 64M @D/in && "
                  "nbdkit -U - nbd @U --run 'nbdcopy @D/in \\$uri && nbdcopy \\$uri @D/out && nbdinfo --map --totals \\$uri' && cmp @D/in @D/out");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_EQ(errors, 0u);
}

TEST_F(Peers, TcpServesTheSame) {
  needs("nbdcopy");
  place = "tcp:127.0.0.1:0";
  Outcome o = run("dd if=/dev/urandom of=@D/in bs=1M count=40 status=none && truncate -s 64M @D/in && nbdcopy --connections=4 @D/in @U && nbdcopy @U @D/out && cmp @D/in @D/out && nbdinfo @U");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find("protocol: newstyle-fixed without TLS, using structured packets"), std::string::npos) << o.output;
}

TEST_F(Peers, TlsServesTheSame) {
  needs("nbdcopy");
  needs("certtool");
  if (IsSkipped() || !make_certificates()) return;
  Outcome o = run("u='nbds://@P/disk?tls-certificates=@D/bare'; dd if=/dev/urandom of=@D/in bs=1M count=40 status=none && truncate -s 64M @D/in && "
                  "nbdcopy --connections=4 @D/in \\\"\\$u\\\" && nbdcopy \\\"\\$u\\\" @D/out && cmp @D/in @D/out && nbdinfo \\\"\\$u\\\"");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find("with TLS, using structured packets"), std::string::npos) << o.output;
  EXPECT_EQ(errors, 0u);
}

TEST_F(Peers, TlsRefusesWhoSpeaksInTheClearOrTrustsAnother) {
  needs("nbdinfo");
  needs("certtool");
  if (IsSkipped() || !make_certificates()) return;
  EXPECT_NE(run("nbdinfo nbd://@P/disk").status, 0);
  EXPECT_NE(run("nbdinfo --list nbd://@P").status, 0);
  Outcome other = run("nbdinfo 'nbds://@P/disk?tls-certificates=@D/alien'");
  EXPECT_NE(other.status, 0) << other.output;
}

TEST_F(Peers, TlsAsksForTheClientsCertificate) {
  needs("nbdinfo");
  needs("certtool");
  if (IsSkipped() || !make_certificates()) return;
  tls.ca = dir / "good/ca-cert.pem";
  Outcome known = run("nbdinfo 'nbds://@P/disk?tls-certificates=@D/good'");
  EXPECT_EQ(known.status, 0) << known.output;
  EXPECT_NE(run("nbdinfo --size 'nbds://@P/disk?tls-certificates=@D/bare'").status, 0) << "it shows none";
  // It trusts the server, and its own was signed by nobody the server knows.
  Outcome alien = run("cp @D/alien/right-ca.pem @D/alien/ca-cert.pem && nbdinfo --size 'nbds://@P/disk?tls-certificates=@D/alien'");
  EXPECT_NE(alien.status, 0) << alien.output;
}

}  // namespace
}  // namespace luge::attach
