// The card through the real XRT in both emulation modes: the kind is the test's parameter, and the verilated card is tried where it has been
// built (-DLUGE_HLS=ON, or LUGE_XRT names a tree that has it). Every expectation of bytes is ISA-L's.
#include "card/card.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "base/ids.hpp"
#include "io/testing.hpp"

namespace luge::card {
namespace {

namespace fs = std::filesystem;

fs::path here() { return fs::read_symlink("/proc/self/exe").parent_path(); }
fs::path tree() {
  const char* t = std::getenv("LUGE_XRT");
  return t && *t ? fs::path(t) : (here() / "../xrt").lexically_normal();
}

std::string text_of(const fs::path& p) {
  std::ifstream f(p);
  std::ostringstream s;
  s << f.rdbuf();  // throws nothing when a process ends while its file is read
  return s.str();
}

// Of the card process's group, the simulator.
pid_t simulator_of(int card) {
  for (const auto& e : fs::directory_iterator("/proc")) {
    std::string name = e.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string stat = text_of(e.path() / "stat");
    std::size_t end = stat.rfind(')');
    int parent = 0, group = 0;
    char state = 0;
    if (end == std::string::npos || std::sscanf(stat.c_str() + end + 1, " %c %d %d", &state, &parent, &group) != 3) continue;
    if (group == card && stat.find("(luge-card-") != std::string::npos) return std::stoi(name);
  }
  return 0;
}

// Gone, or a zombie that nobody has waited for.
bool runs(pid_t pid) {
  std::string stat = text_of("/proc/" + std::to_string(pid) + "/stat");
  std::size_t end = stat.rfind(')');
  return end != std::string::npos && end + 2 < stat.size() && stat[end + 2] != 'Z' && stat[end + 2] != 'X';
}

struct Stripe {
  Layout layout;
  std::vector<Buffer> chunks;
  std::vector<Bytes> data() const {
    std::vector<Bytes> v;
    for (std::uint32_t i = 0; i < layout.k; ++i) v.push_back(chunks[i].bytes());
    return v;
  }
  std::vector<MutableBytes> parity() {
    std::vector<MutableBytes> v;
    for (std::uint32_t i = layout.k; i < layout.width(); ++i) v.push_back(chunks[i].mutable_bytes());
    return v;
  }
};

template <class Allocate>
Stripe random_stripe(Layout l, std::size_t bytes, std::mt19937_64& rng, Allocate allocate) {
  Stripe s{l, {}};
  for (std::uint32_t i = 0; i < l.width(); ++i) {
    Buffer b = allocate(bytes);
    for (std::size_t j = 0; j + 8 <= bytes; j += 8) {
      std::uint64_t v = i < l.k ? rng() : 0;
      std::memcpy(b.data() + j, &v, 8);
    }
    s.chunks.push_back(std::move(b));
  }
  return s;
}

class CardTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!fs::exists(tree() / (std::string(GetParam()) + ".env"))) GTEST_SKIP() << GetParam() << " is not built";
  }
  CardOptions options() {
    CardOptions o;
    o.kind = GetParam();
    o.tree = tree();
    o.start_limit = std::chrono::seconds(60);
    // A verilated card on a busy machine takes long; what must be quick is tried with the native one.
    o.job_limit = rtl() ? std::chrono::seconds(30) : std::chrono::milliseconds(1500);
    return o;
  }
  bool rtl() const { return std::string(GetParam()) == "rtl"; }
  std::mt19937_64 rng{7};
  io::testing::TemporaryDirectory directory;
};

io::Task<std::unique_ptr<Card>> open_ok(io::World& world, CardOptions o) {
  auto c = co_await open_card(world, std::move(o));
  EXPECT_TRUE(c.ok()) << c.status().to_string();
  co_return c.ok() ? std::move(*c) : nullptr;
}

io::Task<void> compare_with_isal(Card& card, std::mt19937_64& rng, int rounds, std::size_t longest, bool pool) {
  auto isal = coding::make_isal_coder();
  auto coder = card.coder();
  for (int round = 0; round < rounds; ++round) {
    Layout l{static_cast<std::uint32_t>(1 + rng() % 16), static_cast<std::uint32_t>(1 + rng() % 4)};
    std::size_t bytes = 64 * (1 + rng() % (longest / 64));
    Stripe s = random_stripe(l, bytes, rng, [&](std::size_t n) { return pool ? card.allocate(n) : Buffer::allocate(n); });
    Stripe right{l, {}};
    for (Buffer& b : s.chunks) right.chunks.push_back(Buffer::copy_of(b.bytes()));
    EXPECT_TRUE((co_await isal->encode(l, right.data(), right.parity())).ok());
    Status st = co_await coder->encode(l, s.data(), s.parity());
    EXPECT_TRUE(st.ok()) << st.to_string();
    for (std::uint32_t i = 0; i < l.width(); ++i) EXPECT_EQ(std::memcmp(s.chunks[i].data(), right.chunks[i].data(), bytes), 0) << to_string(l) << " chunk " << i << " of " << bytes;
    // Lose up to m, want any of all chunks.
    std::vector<Bytes> present;
    for (Buffer& b : right.chunks) present.push_back(b.bytes());
    for (std::uint32_t lost = 0; lost < l.m; ++lost) present[rng() % l.width()] = {};
    std::vector<std::uint32_t> wanted;
    std::vector<Buffer> out;
    std::vector<MutableBytes> to;
    for (std::uint32_t i = 0; i < l.width(); ++i) {
      if (!present[i].empty() && rng() % 4 != 0) continue;
      wanted.push_back(i);
      out.push_back(pool ? card.allocate(bytes) : Buffer::allocate(bytes));
      to.push_back(out.back().mutable_bytes());
    }
    if (wanted.empty()) continue;
    st = co_await coder->reconstruct(l, present, wanted, to);
    EXPECT_TRUE(st.ok()) << st.to_string();
    for (std::size_t w = 0; w < wanted.size(); ++w) EXPECT_EQ(std::memcmp(out[w].data(), right.chunks[wanted[w]].data(), bytes), 0) << to_string(l) << " rebuilt " << wanted[w];
  }
}

TEST_P(CardTest, CodesAsIsalDoes) {
  for (const char* memory : {"mapped", "copied"})
    io::testing::run([&](io::World& world) -> io::Task<void> {
      CardOptions o = options();
      o.memory = memory;
      auto card = co_await open_ok(world, o);
      if (!card) co_return;
      EXPECT_EQ(card->name(), std::string("card-") + GetParam());
      EXPECT_NE(card->describe().find(memory), std::string::npos) << card->describe();
      co_await compare_with_isal(*card, rng, rtl() ? 6 : 30, rtl() ? 8192 : 100000, true);
      auto before = co_await card->counters();
      EXPECT_TRUE(before.ok());
      co_await compare_with_isal(*card, rng, rtl() ? 3 : 10, rtl() ? 8192 : 100000, false);
      auto c = co_await card->counters();
      EXPECT_TRUE(c.ok());
      if (!c.ok()) co_return;
      EXPECT_GT(c->copied_bytes, before->copied_bytes);
      EXPECT_EQ(c->jobs, c->encode_jobs + c->decode_jobs);
      EXPECT_EQ(c->jobs + c->tables_loaded, c->completed);
      EXPECT_EQ(c->jobs_failed, 0u);
      EXPECT_EQ(c->failed, 0u);
      EXPECT_GE(c->beats_read * 64, c->source_bytes);
      EXPECT_GE(c->beats_written * 64, c->result_bytes);
      EXPECT_EQ(c->to_card_ns == 0, std::string(memory) == "mapped");
      EXPECT_TRUE(card->status().ok());
    });
}

TEST_P(CardTest, PassesItsSelfTest) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    auto card = co_await open_ok(world, options());
    if (!card) co_return;
    Status s = co_await card->self_test();
    EXPECT_TRUE(s.ok()) << s.to_string();
  });
}

io::Task<void> encode_into(coding::ErasureCoder& coder, Stripe& s, Status& result) { result = co_await coder.encode(s.layout, s.data(), s.parity()); }

// More calls at once than the card process takes, more tables than the card has: all answered, all right.
TEST_P(CardTest, ManyAtOnce) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    auto card = co_await open_ok(world, options());
    if (!card) co_return;
    auto coder = card->coder();
    auto isal = coding::make_isal_coder();
    std::deque<Stripe> stripes;
    std::deque<Status> results;
    io::TaskGroup group(world);
    for (int i = 0; i < (rtl() ? 24 : 200); ++i) {
      stripes.push_back(random_stripe({2 + static_cast<std::uint32_t>(rng() % 9), 1 + static_cast<std::uint32_t>(rng() % 4)}, 4096, rng,
                                      [&](std::size_t n) { return i % 3 == 0 ? Buffer::allocate(n) : card->allocate(n); }));
      group.spawn("encode", encode_into(*coder, stripes.back(), results.emplace_back(Code::internal, "did not run")));
    }
    co_await group.join();
    for (std::size_t i = 0; i < stripes.size(); ++i) {
      EXPECT_TRUE(results[i].ok()) << results[i].to_string();
      std::vector<Buffer> right;
      std::vector<MutableBytes> to;
      for (std::uint32_t p = 0; p < stripes[i].layout.m; ++p) right.push_back(Buffer::allocate(4096)), to.push_back(right.back().mutable_bytes());
      EXPECT_TRUE((co_await isal->encode(stripes[i].layout, stripes[i].data(), to)).ok());
      for (std::uint32_t p = 0; p < stripes[i].layout.m; ++p) EXPECT_EQ(std::memcmp(right[p].data(), stripes[i].chunks[stripes[i].layout.k + p].data(), 4096), 0) << i;
    }
  });
}

TEST_P(CardTest, RefusesWhatCannotBe) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    auto card = co_await open_ok(world, options());
    if (!card) co_return;
    auto coder = card->coder();
    Stripe s = random_stripe({4, 2}, 128, rng, [](std::size_t n) { return Buffer::allocate(n); });
    EXPECT_EQ((co_await coder->encode({17, 2}, s.data(), s.parity())).code(), Code::invalid);
    EXPECT_EQ((co_await coder->encode({4, 1}, s.data(), s.parity())).code(), Code::invalid);
    std::vector<Bytes> present(6);
    for (int i = 0; i < 3; ++i) present[i] = s.chunks[i].bytes();
    std::uint32_t wanted[1] = {3};
    MutableBytes to[1] = {s.chunks[3].mutable_bytes()};
    EXPECT_EQ((co_await coder->reconstruct({4, 2}, present, wanted, to)).code(), Code::degraded);
    present[4] = s.chunks[4].bytes().first(64);
    EXPECT_EQ((co_await coder->reconstruct({4, 2}, present, wanted, to)).code(), Code::invalid);
    EXPECT_TRUE(card->status().ok());
  });
}

// What may happen to a card that codes: the call ends in time, with its fault; a new card codes again.
class Trouble : public CardTest {
 protected:
  enum class Way { stopped, killed, card_killed, hang_file, lost_file };
  void try_it(Way way, Code code, Fault fault) {
    io::testing::run([&](io::World& world) -> io::Task<void> {
      std::string faults = directory / "faults";
      std::ofstream(faults) << "";
      ::setenv("LUGE_CARD_FAULTS", faults.c_str(), 1);
      CardOptions o = options();
      o.job_limit = std::chrono::milliseconds(1500);
      auto coder = make_card_coder(world, o);
      Status s = co_await coder->reset();
      EXPECT_TRUE(s.ok()) << s.to_string();
      auto card = co_await open_ok(world, o);
      if (!card) co_return;
      // Enough for seconds of work, of which some is done.
      Stripe stripe = random_stripe({16, 4}, 6u << 20, rng, [](std::size_t n) { return Buffer::allocate(n); });
      Status result(Code::internal, "did not run");
      io::TaskGroup group(world);
      auto device = card->coder();
      group.spawn("encode", encode_into(*device, stripe, result));
      co_await world.sleep(std::chrono::milliseconds(50));
      pid_t simulator = simulator_of(card->process());
      EXPECT_NE(simulator, 0);
      const io::Time begin = world.now();
      switch (way) {
        case Way::stopped: ::kill(simulator, SIGSTOP); break;
        case Way::killed: ::kill(simulator, SIGKILL); break;
        case Way::card_killed: ::kill(card->process(), SIGKILL); break;
        case Way::hang_file: std::ofstream(faults) << "hang"; break;
        case Way::lost_file: std::ofstream(faults) << "lost"; break;
      }
      co_await group.join();
      auto took = world.now() - begin;
      EXPECT_EQ(result.code(), code) << result.to_string();
      EXPECT_EQ(card->fault(), fault) << fault_name(card->fault());
      EXPECT_LT(took, std::chrono::milliseconds(2000)) << result.to_string();
      EXPECT_FALSE(card->status().ok());
      EXPECT_EQ(card->process(), 0);
      for (int i = 0; i < 100 && runs(simulator); ++i) co_await world.sleep(std::chrono::milliseconds(10));
      EXPECT_FALSE(runs(simulator)) << "the simulator is left behind";
      const io::Time again = world.now();
      EXPECT_FALSE((co_await device->encode(stripe.layout, stripe.data(), stripe.parity())).ok());
      EXPECT_LT(world.now() - again, std::chrono::milliseconds(100)) << "a lost card answers at once";
      std::ofstream(faults) << "";
      s = co_await coder->reset();
      EXPECT_TRUE(s.ok()) << s.to_string();
      Stripe small = random_stripe({4, 2}, 4096, rng, [&](std::size_t n) { return coder->allocate(n); });
      s = co_await coder->encode(small.layout, small.data(), small.parity());
      EXPECT_TRUE(s.ok()) << s.to_string();
    });
    ::unsetenv("LUGE_CARD_FAULTS");
  }
};

TEST_P(Trouble, SimulatorStopped) { try_it(Way::stopped, Code::timed_out, Fault::hang); }
TEST_P(Trouble, SimulatorKilled) { try_it(Way::killed, Code::unavailable, Fault::died); }
TEST_P(Trouble, CardProcessKilled) { try_it(Way::card_killed, Code::unavailable, Fault::died); }
TEST_P(Trouble, SimulatorHangs) { try_it(Way::hang_file, Code::timed_out, Fault::hang); }
TEST_P(Trouble, MemoryDoesNotAnswer) { try_it(Way::lost_file, Code::timed_out, Fault::hang); }

// The twin of SimulatorStopped: it is the limit that ends the call, nothing else does.
TEST_P(Trouble, OnlyTheLimitEndsAHang) {
  if (rtl()) GTEST_SKIP() << "the native card shows it";
  io::testing::run([&](io::World& world) -> io::Task<void> {
    CardOptions o = options();
    o.job_limit = std::chrono::milliseconds(4000);
    auto card = co_await open_ok(world, o);
    if (!card) co_return;
    Stripe stripe = random_stripe({4, 2}, 4096, rng, [](std::size_t n) { return Buffer::allocate(n); });
    ::kill(simulator_of(card->process()), SIGSTOP);
    const io::Time begin = world.now();
    Status s = co_await card->coder()->encode(stripe.layout, stripe.data(), stripe.parity());
    EXPECT_EQ(s.code(), Code::timed_out) << s.to_string();
    EXPECT_GE(world.now() - begin, std::chrono::milliseconds(3900));
  });
}

// An idle card that dies is noticed without a job.
TEST_P(Trouble, DiesIdle) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    auto card = co_await open_ok(world, options());
    if (!card) co_return;
    ::kill(simulator_of(card->process()), SIGKILL);
    for (int i = 0; i < 200 && card->status().ok(); ++i) co_await world.sleep(std::chrono::milliseconds(10));
    EXPECT_EQ(card->status().code(), Code::unavailable) << card->status().to_string();
    EXPECT_EQ(card->fault(), Fault::died);
  });
}

TEST_P(Trouble, BusErrorsFailTheirJobsOnly) {
  for (const char* kind : {"read-error", "write-error"})
    io::testing::run([&](io::World& world) -> io::Task<void> {
      std::string faults = directory / "faults";
      std::ofstream(faults) << "";
      ::setenv("LUGE_CARD_FAULTS", faults.c_str(), 1);
      auto card = co_await open_ok(world, options());
      if (!card) co_return;
      auto coder = card->coder();
      Stripe s = random_stripe({4, 2}, 8192, rng, [&](std::size_t n) { return card->allocate(n); });
      EXPECT_TRUE((co_await coder->encode(s.layout, s.data(), s.parity())).ok());
      std::ofstream(faults) << kind;
      co_await world.sleep(std::chrono::milliseconds(100));
      Status st = co_await coder->encode(s.layout, s.data(), s.parity());
      EXPECT_EQ(st.code(), Code::io_error) << st.to_string();
      EXPECT_EQ(card->fault(), Fault::bus_error);
      EXPECT_TRUE(card->status().ok());
      EXPECT_EQ((co_await card->self_test()).code(), Code::io_error);
      std::ofstream(faults) << "";
      co_await world.sleep(std::chrono::milliseconds(100));
      st = co_await card->self_test();
      EXPECT_TRUE(st.ok()) << st.to_string();
      auto c = co_await card->counters();
      EXPECT_TRUE(c.ok() && c->jobs_failed >= 2 && c->failed >= 2);
      ::unsetenv("LUGE_CARD_FAULTS");
    });
}

TEST_P(Trouble, WrongParityFailsTheSelfTest) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    std::string faults = directory / "faults";
    ::setenv("LUGE_CARD_FAULTS", faults.c_str(), 1);
    auto card = co_await open_ok(world, options());
    if (!card) co_return;
    std::ofstream(faults) << "flip 100";
    co_await world.sleep(std::chrono::milliseconds(100));
    Status s = co_await card->self_test();
    EXPECT_EQ(s.code(), Code::corrupt) << s.to_string();
    ::unsetenv("LUGE_CARD_FAULTS");
  });
}

// The card's own firmware tests the kernels before anybody uses them.
TEST_P(Trouble, TheFirmwareKeepsACardThatCodesWronglyFromBeingOpened) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    std::string faults = directory / "faults";
    std::ofstream(faults) << "flip 20";
    ::setenv("LUGE_CARD_FAULTS", faults.c_str(), 1);
    Fault fault;
    auto card = co_await open_card(world, options(), fault);
    ::unsetenv("LUGE_CARD_FAULTS");
    EXPECT_FALSE(card.ok());
    if (card.ok()) co_return;
    EXPECT_EQ(card.status().code(), Code::unavailable);
    EXPECT_EQ(fault, Fault::died);
    EXPECT_NE(card.status().to_string().find("self-test failed: coding"), std::string::npos) << card.status().to_string();
  });
}

io::Task<void> code_on_own_card(io::World& world, CardOptions o, std::uint64_t seed, int& done) {
  auto card = co_await open_ok(world, o);
  if (!card) co_return;
  std::mt19937_64 rng(seed);
  co_await compare_with_isal(*card, rng, o.kind == "rtl" ? 2 : 10, 8192, true);
  auto c = co_await card->counters();
  EXPECT_TRUE(c.ok() && c->jobs != 0 && c->jobs + c->tables_loaded == c->completed) << "the counters are this card's";
  ++done;
}

TEST_P(CardTest, SeveralCardsAtOnce) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    io::TaskGroup group(world);
    int done = 0;
    for (unsigned i = 0; i < 3; ++i) {
      CardOptions o = options();
      o.device = i % 2;  // the third is another host's
      group.spawn("card", code_on_own_card(world, o, i, done));
    }
    co_await group.join();
    EXPECT_EQ(done, 3);
  });
}

// A card that comes and goes, kindly or not, leaves nothing: descriptors, processes, files.
TEST_P(CardTest, NothingIsLeftBehind) {
  auto count = [](const fs::path& p) { return std::distance(fs::directory_iterator(p), fs::directory_iterator()); };
  ::setenv("TMPDIR", directory.path().c_str(), 1);
  io::testing::run([&](io::World& world) -> io::Task<void> {
    auto coder = make_card_coder(world, options());
    std::ptrdiff_t descriptors = 0;
    for (int i = 0; i < 4; ++i) {
      Status s = co_await coder->reset();
      EXPECT_TRUE(s.ok()) << s.to_string();
      Stripe stripe = random_stripe({4, 2}, 4096, rng, [&](std::size_t n) { return coder->allocate(n); });
      EXPECT_TRUE((co_await coder->encode(stripe.layout, stripe.data(), stripe.parity())).ok());
      if (i == 0) descriptors = count("/proc/self/fd");
      else EXPECT_EQ(count("/proc/self/fd"), descriptors);
      EXPECT_EQ(count(directory.path()), 1) << "one card, one folder";
    }
    for (const auto& [name, value] : coder->figures())
      if (name == "opened") EXPECT_EQ(value, 4u);
  });
  EXPECT_EQ(count(directory.path()), 0);
  ::unsetenv("TMPDIR");
}

TEST_P(CardTest, MemoryBesideThePoolIsCodedToo) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    CardOptions o = options();
    o.pool_bytes = 16u << 20;
    auto card = co_await open_ok(world, o);
    if (!card) co_return;
    {
      std::vector<Buffer> all;
      for (int i = 0; i < 8; ++i) all.push_back(card->allocate(1u << 20));
      std::byte* first = all[0].data();
      all[0] = {};
      Buffer again = card->allocate(1u << 20);
      EXPECT_EQ(again.data(), first) << "a piece that is free is given out again";
      // The pool is full but for the reserve: ordinary memory, which is coded all the same.
      Stripe s = random_stripe({4, 2}, 1u << 16, rng, [&](std::size_t n) { return card->allocate(n); });
      Status st = co_await card->coder()->encode(s.layout, s.data(), s.parity());
      EXPECT_TRUE(st.ok()) << st.to_string();
      auto c = co_await card->counters();
      EXPECT_TRUE(c.ok() && c->copied_bytes == 6u << 16) << c->copied_bytes;
    }
    Buffer survivor = card->allocate(4096);
    std::memset(survivor.data(), 1, 4096);
    card.reset();
    std::memset(survivor.data(), 2, 4096);  // outlives its card
    EXPECT_EQ(survivor.data()[4095], std::byte{2});
  });
}

class BadInput : public CardTest {
 protected:
  void expect(CardOptions o, Code code, Fault fault, const std::string& text) {
    io::testing::run([&](io::World& world) -> io::Task<void> {
      Fault got = Fault::none;
      const io::Time begin = world.now();
      auto c = co_await open_card(world, o, got);
      EXPECT_FALSE(c.ok());
      if (c.ok()) co_return;
      EXPECT_EQ(c.code(), code) << c.status().to_string();
      EXPECT_EQ(got, fault) << fault_name(got) << ": " << c.status().to_string();
      EXPECT_NE(c.status().text().find(text), std::string::npos) << c.status().to_string();
      EXPECT_LT(world.now() - begin, std::chrono::seconds(20)) << "said only by the time limit";
    });
  }
  std::string write(const std::string& name, const std::string& content) {
    std::string path = directory / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  CardOptions with_xclbin(const std::string& path) {
    CardOptions o = options();
    o.xclbin = path;
    return o;
  }
};

TEST_P(BadInput, XclbinIsNone) {
  expect(with_xclbin(write("x", "#!/bin/sh\necho no\n")), Code::invalid, Fault::not_a_card, "is not an xclbin");
  expect(with_xclbin(write("empty", "")), Code::invalid, Fault::not_a_card, "is not an xclbin");
  expect(with_xclbin(directory / "absent"), Code::not_found, Fault::no_runtime, "cannot read");
}

TEST_P(BadInput, XclbinIsCut) {
  std::string whole = text_of(tree() / (std::string(GetParam()) + ".xclbin"));
  ASSERT_GT(whole.size(), 1000u);
  for (std::size_t n : {std::size_t{9}, std::size_t{400}, std::size_t{600}, whole.size() / 2, whole.size() - 1})
    expect(with_xclbin(write("cut", whole.substr(0, n))), Code::invalid, Fault::not_a_card, "is cut");
}

// Sections that lie outside the file, a magic that is right: nothing but an error.
TEST_P(BadInput, XclbinIsDamaged) {
  std::string whole = text_of(tree() / (std::string(GetParam()) + ".xclbin"));
  std::string bad = whole;
  bad.replace(whole.find("luge_card"), 9, "luge_cart");  // the metadata's kernel
  for (std::size_t at = whole.find("luge_card", 456); at != std::string::npos; at = whole.find("luge_card", at + 1)) bad.replace(at, 9, "other_ker");
  expect(with_xclbin(write("other", bad)), Code::invalid, Fault::not_a_card, "does not make the device a card of ours");
}

TEST_P(BadInput, XclbinOfAnotherVersion) {
  fs::path other = tree() / (std::string(GetParam()) + "-version-2.xclbin");
  ASSERT_TRUE(fs::exists(other));
  expect(with_xclbin(other), Code::wrong_version, Fault::wrong_version, "version 2.1, this driver knows 0.x");
}

TEST_P(BadInput, AllOnes) {
  ::setenv("LUGE_CARD_FAULTS", write("faults", "all-ones").c_str(), 1);
  expect(options(), Code::invalid, Fault::not_a_card, "all ones");
  ::unsetenv("LUGE_CARD_FAULTS");
}

TEST_P(BadInput, NoSuchKind) {
  CardOptions o = options();
  o.kind = "paper";
  expect(o, Code::not_found, Fault::no_runtime, "paper.env");
  o.kind = "hw";
  expect(o, Code::invalid, Fault::none, "name the xclbin");
}

TEST_P(BadInput, TwoHostsOnOneCard) {
  io::testing::run([&](io::World& world) -> io::Task<void> {
    CardOptions o = options();
    o.directory = directory.path();
    auto one = co_await open_ok(world, o);
    Fault fault;
    auto two = co_await open_card(world, o, fault);
    EXPECT_EQ(two.code(), Code::exists) << two.status().to_string();
    EXPECT_EQ(fault, Fault::in_use);
    if (!one) co_return;
    Stripe s = random_stripe({4, 2}, 4096, rng, [&](std::size_t n) { return one->allocate(n); });
    EXPECT_TRUE((co_await one->coder()->encode(s.layout, s.data(), s.parity())).ok()) << "the first is not disturbed";
    o.device = 1;
    auto other = co_await open_ok(world, o);
    EXPECT_TRUE(other != nullptr);
    if (other) EXPECT_TRUE((co_await other->self_test()).ok());
    one.reset();
    o.device = 0;
    EXPECT_TRUE((co_await open_ok(world, o)) != nullptr) << "it is free again";
  });
}

// The loader's own message, and the front's, reach the daemon.
TEST_P(BadInput, XrtMissingOrOfAnotherVersion) {
  fs::path broken = directory / "broken", other = directory / "other";
  fs::create_directory(broken);
  fs::create_directory(other);
  std::ofstream(broken / "libxrt_coreutil.so.2") << "";
  ::setenv("LD_LIBRARY_PATH", broken.c_str(), 1);
  expect(options(), Code::not_found, Fault::no_runtime, "libxrt_coreutil.so.2");
  fs::copy_file(fs::canonical("/usr/lib/x86_64-linux-gnu/libxrt_coreutil.so.2"), other / "libxrt_coreutil.so.2.99.0");
  fs::create_symlink("libxrt_coreutil.so.2.99.0", other / "libxrt_coreutil.so.2");
  ::setenv("LD_LIBRARY_PATH", other.c_str(), 1);
  expect(options(), Code::wrong_version, Fault::wrong_version, "made for XRT 2.13");
  ::unsetenv("LD_LIBRARY_PATH");
}

const auto kinds = ::testing::Values("native", "rtl");
const auto name_of = [](const auto& info) { return std::string(info.param); };
INSTANTIATE_TEST_SUITE_P(Kinds, CardTest, kinds, name_of);
INSTANTIATE_TEST_SUITE_P(Kinds, Trouble, kinds, name_of);
INSTANTIATE_TEST_SUITE_P(Kinds, BadInput, kinds, name_of);

}  // namespace
}  // namespace luge::card
