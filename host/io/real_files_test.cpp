// Every test runs with io_uring and with threads.
#include "io/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "base/ids.hpp"
#include "io/testing.hpp"

namespace luge::io {
namespace {

class RealFiles : public ::testing::TestWithParam<bool> {
 protected:
  template <class Body>
  void run(Body body) {
    RealWorld::Options options;
    options.directory = directory_.path();
    options.io_uring = GetParam();
    testing::run(std::move(options), std::move(body));
  }
  testing::TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Engines, RealFiles, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "uring" : "threads"; });

Buffer pattern(std::size_t bytes, unsigned seed) {
  Buffer b = Buffer::allocate(bytes);
  for (std::size_t i = 0; i < bytes; ++i) b.data()[i] = static_cast<std::byte>((i * 7 + seed) ^ (i >> 9));
  return b;
}

OpenOptions create(std::uint64_t size, bool prewrite = false, bool lock = false) {
  return {.create = true, .size = size, .prewrite = prewrite, .lock = lock};
}

Task<std::unique_ptr<BlockFile>> open_ok(World& world, std::string path, OpenOptions o) {
  auto f = co_await world.files().open(path, o);
  EXPECT_TRUE(f.ok()) << f.status().to_string();
  co_return f.ok() ? std::move(*f) : nullptr;
}

TEST_P(RealFiles, ReadsBackWhatWasWritten) {
  run([&](World& world) -> Task<void> {
    auto f = co_await open_ok(world, "f", create(8 << 20));
    EXPECT_EQ(f->size(), 8u << 20);
    std::vector<Buffer> buffers;
    std::vector<Bytes> parts;
    for (unsigned i = 0; i < 1500; ++i) parts.push_back(buffers.emplace_back(pattern(4096, i)).bytes());
    for (Durability d : {Durability::cached, Durability::durable}) {
      Status s = co_await f->write(d == Durability::durable ? 8192 : 0, parts, d);
      EXPECT_TRUE(s.ok()) << s.to_string();
    }
    Status s = co_await f->sync();
    EXPECT_TRUE(s.ok());
    Buffer in = Buffer::allocate(1500 * 4096);
    s = co_await f->read(8192, in.mutable_bytes());
    EXPECT_TRUE(s.ok()) << s.to_string();
    for (unsigned i = 0; i < 1500; ++i) EXPECT_EQ(std::memcmp(in.data() + i * 4096, buffers[i].data(), 4096), 0) << i;
  });
}

Task<void> write_one(BlockFile& f, std::uint64_t block, int& ok) {
  Buffer b = pattern(4096, static_cast<unsigned>(block));
  Bytes part = b.bytes();
  Status s = co_await f.write(block * 4096, {&part, 1}, Durability::cached);
  if (s.ok()) ++ok;
}

TEST_P(RealFiles, ManyAtOnce) {
  run([&](World& world) -> Task<void> {
    auto f = co_await open_ok(world, "f", create(4096 * 2000));
    int ok = 0;
    TaskGroup group(world);
    for (unsigned i = 0; i < 2000; ++i) group.spawn("write", write_one(*f, i, ok));
    co_await group.join();
    EXPECT_EQ(ok, 2000);
    Buffer in = Buffer::allocate(4096);
    for (unsigned i = 0; i < 2000; i += 123) {
      Status s = co_await f->read(i * 4096, in.mutable_bytes());
      EXPECT_TRUE(s.ok());
      EXPECT_EQ(std::memcmp(in.data(), pattern(4096, i).data(), 4096), 0) << i;
    }
  });
}

TEST_P(RealFiles, RefusesWhatIsMisalignedOrOutOfRange) {
  run([&](World& world) -> Task<void> {
    auto f = co_await open_ok(world, "f", create(64 << 10));
    Buffer b = Buffer::zeros(128 << 10);
    struct Case { std::uint64_t offset; Bytes part; };
    for (const Case& c : std::vector<Case>{{1, b.slice(0, 4096).bytes()},
                                           {0, b.slice(0, 4095).bytes()},
                                           {0, b.slice(512, 4096).bytes()},
                                           {64 << 10, b.slice(0, 4096).bytes()},
                                           {60 << 10, b.slice(0, 8192).bytes()},
                                           {~std::uint64_t{4095}, b.slice(0, 8192).bytes()},
                                           {0, b.bytes()}}) {
      Status s = co_await f->write(c.offset, {&c.part, 1}, Durability::cached);
      EXPECT_EQ(s.code(), Code::invalid) << c.offset << " " << c.part.size();
      s = co_await f->read(c.offset, {const_cast<std::byte*>(c.part.data()), c.part.size()});
      EXPECT_EQ(s.code(), Code::invalid) << c.offset << " " << c.part.size();
    }
    ::truncate((directory_ / "f").c_str(), 8192);  // under our feet
    Status s = co_await f->read(0, b.slice(0, 16384).mutable_bytes());
    EXPECT_EQ(s.code(), Code::io_error) << s.to_string();
  });
}

TEST_P(RealFiles, GrowsAndKeepsWhatWasThere) {
  run([&](World& world) -> Task<void> {
    auto f = co_await open_ok(world, "f", create(64 << 10));
    Buffer b = pattern(64 << 10, 3), in = Buffer::allocate(64 << 10);
    const Bytes part[] = {b.bytes()};
    Status s = co_await f->write(0, part, Durability::durable);
    EXPECT_TRUE(s.ok());
    EXPECT_EQ((co_await f->grow(100)).code(), Code::invalid);
    EXPECT_EQ((co_await f->grow(60 << 10)).code(), Code::invalid) << "never shorter";
    s = co_await f->grow(3 << 20);
    EXPECT_TRUE(s.ok()) << s.to_string();
    EXPECT_EQ(f->size(), 3u << 20);
    struct stat st;
    EXPECT_EQ(::stat((directory_ / "f").c_str(), &st), 0);
    EXPECT_EQ(st.st_size, 3 << 20);
    EXPECT_GE(st.st_blocks * 512, 3 << 20) << "written, not a hole";
    s = co_await f->read(0, in.mutable_bytes());
    EXPECT_TRUE(s.ok() && std::memcmp(in.data(), b.data(), in.size()) == 0);
    s = co_await f->read((3 << 20) - (64 << 10), in.mutable_bytes());
    EXPECT_TRUE(s.ok() && all_zero(in.bytes()));
    s = co_await f->write((3 << 20) - (64 << 10), part, Durability::durable);
    EXPECT_TRUE(s.ok()) << s.to_string();
  });
}

TEST_P(RealFiles, MakesFilesWholeOrNotAtAll) {
  run([&](World& world) -> Task<void> {
    std::ofstream(directory_ / "f.making") << "left by a crash";
    auto f = co_await open_ok(world, "f", create(3 << 20, true));
    struct stat s;
    EXPECT_EQ(::stat((directory_ / "f").c_str(), &s), 0);
    EXPECT_EQ(s.st_size, 3 << 20);
    EXPECT_GE(s.st_blocks * 512, 3 << 20) << "prewritten";
    auto sparse = co_await open_ok(world, "sparse", create(1 << 30));
    EXPECT_EQ(::stat((directory_ / "sparse").c_str(), &s), 0);
    EXPECT_LT(s.st_blocks * 512, 1 << 20);
    auto again = co_await open_ok(world, "f", create(1 << 20));
    EXPECT_EQ(again->size(), 3u << 20) << "never truncated";
    auto names = co_await world.files().list("");
    EXPECT_EQ(*names, (std::vector<std::string>{"f", "sparse"}));
    auto none = co_await world.files().open("missing", {});
    EXPECT_EQ(none.code(), Code::not_found);
    none = co_await world.files().open("bad", create(4095));
    EXPECT_EQ(none.code(), Code::invalid);
    none = co_await world.files().open("bad", create(std::uint64_t{1} << 60));
    EXPECT_FALSE(none.ok());
    none = co_await world.files().open("", {});
    EXPECT_FALSE(none.ok());
    names = co_await world.files().list("");
    EXPECT_EQ(names->size(), 2u) << "a failed create leaves nothing";
  });
}

TEST_P(RealFiles, LocksOutOthers) {
  run([&](World& world) -> Task<void> {
    auto f = co_await open_ok(world, "f", create(8192, false, true));
    auto second = co_await world.files().open("f", {.lock = true});
    EXPECT_EQ(second.code(), Code::exists);
    EXPECT_NE(second.status().text().find("in use by another process"), std::string::npos);
    f.reset();
    second = co_await world.files().open("f", {.lock = true});
    EXPECT_TRUE(second.ok());
  });
}

TEST_P(RealFiles, Directories) {
  run([&](World& world) -> Task<void> {
    Files& files = world.files();
    Status s = co_await files.make_directory("d");
    EXPECT_TRUE(s.ok()) << s.to_string();
    s = co_await files.make_directory("d");
    EXPECT_TRUE(s.ok()) << "already there";
    for (const char* name : {"d/c", "d/a", "d/b"}) co_await open_ok(world, name, create(4096));
    auto names = co_await files.list("d");
    EXPECT_EQ(*names, (std::vector<std::string>{"a", "b", "c"}));
    s = co_await files.rename("d/a", "d/b");
    EXPECT_TRUE(s.ok());
    s = co_await files.remove("d/c");
    EXPECT_TRUE(s.ok());
    names = co_await files.list("d");
    EXPECT_EQ(*names, (std::vector<std::string>{"b"}));
    s = co_await files.remove("d/none");
    EXPECT_EQ(s.code(), Code::not_found);
    names = co_await files.list("none");
    EXPECT_EQ(names.code(), Code::not_found);
  });
}

TEST_P(RealFiles, FileSystemsWithoutDirectIo) {
  if (::access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no tmpfs";
  testing::TemporaryDirectory shm("/dev/shm");
  run([&](World& world) -> Task<void> {
    auto f = co_await open_ok(world, shm / "f", create(1 << 20));
    Buffer b = pattern(8192, 3);
    Bytes part = b.bytes();
    Status s = co_await f->write(4096, {&part, 1}, Durability::durable);
    EXPECT_TRUE(s.ok()) << s.to_string();
    Buffer in = Buffer::allocate(8192);
    s = co_await f->read(4096, in.mutable_bytes());
    EXPECT_TRUE(s.ok());
    EXPECT_EQ(std::memcmp(in.data(), b.data(), 8192), 0);
  });
}

// Stop while writes are in the kernel: they are awaited to their end.
TEST_P(RealFiles, StopWaitsForIoInFlight) {
  RealWorld::Options options;
  options.directory = directory_.path();
  options.io_uring = GetParam();
  RealWorld world(options);
  std::unique_ptr<BlockFile> f;
  int ok = 0;
  auto body = [&]() -> Task<int> {
    f = co_await open_ok(world, "f", create(4096 * 300));
    for (unsigned i = 0; i < 300; ++i) world.spawn("write", write_one(*f, i, ok));
    co_await world.yield();
    co_return 0;
  };
  EXPECT_EQ(run_main(world, body()), 0);
  EXPECT_EQ(world.tasks(), 0u);
  EXPECT_EQ(ok, 300);
}

}  // namespace
}  // namespace luge::io
