// luge card: an emulated or real card on its own, without a unit.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

#include "card/card.hpp"
#include "card/environment.hpp"
#include "cli/commands.hpp"
#include "io/real_world.hpp"

namespace luge::cli {
namespace {

constexpr std::size_t kChunk = 128u << 10;
constexpr Layout kLayout{4, 2};  // 512 KiB of data a stripe

struct TestOptions {
  card::CardOptions card;
  double seconds = 2;
  unsigned in_flight = 2;
};

int print_environment(const card::CardOptions& o) {
  auto env = card::card_environment(o);
  if (!env.ok()) return complain(env.status());
  for (auto& [k, v] : *env) std::printf("export %s='%s'\n", k.c_str(), v.c_str());
  return kOk;
}

double process_cpu_seconds(int pid) {
  std::ifstream f("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(f, line);
  std::size_t end = line.rfind(')');
  unsigned long long user = 0, system = 0;
  if (end == std::string::npos) return 0;
  std::sscanf(line.c_str() + end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
  return double(user + system) / double(::sysconf(_SC_CLK_TCK));
}

double own_cpu_seconds() {
  timespec t;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + double(t.tv_nsec) / 1e9;
}

struct Rate {
  std::uint64_t stripes = 0;
  Status failure;
};

// Encodes its own stripe over and over.
io::Task<void> code_for(io::World& world, card::Card& card, io::Time end, Rate& rate) {
  auto coder = card.coder();
  std::vector<Buffer> chunks;
  std::vector<Bytes> data;
  std::vector<MutableBytes> parity;
  for (std::uint32_t i = 0; i < kLayout.width(); ++i) {
    Buffer b = card.allocate(kChunk);
    for (std::size_t at = 0; at < kChunk; at += 8) {
      std::uint64_t v = world.random();
      std::memcpy(b.data() + at, &v, 8);
    }
    if (i < kLayout.k) data.push_back(b.bytes());
    else parity.push_back(b.mutable_bytes());
    chunks.push_back(std::move(b));
  }
  while (world.now() < end && rate.failure.ok()) {
    Status s = co_await coder->encode(kLayout, data, parity);
    if (!s.ok()) rate.failure = s;
    else ++rate.stripes;
  }
}

double seconds_of(io::Duration d) { return std::chrono::duration<double>(d).count(); }

io::Task<int> test_card(io::World& world, const Context& context, TestOptions o) {
  io::Time begin = world.now();
  auto opened = co_await card::open_card(world, o.card);
  if (!opened.ok()) co_return complain(opened.status());
  card::Card& card = **opened;
  double open_seconds = seconds_of(world.now() - begin);
  if (!context.json) std::printf("%s: %s; open after %.2f s\n", std::string(card.name()).c_str(), card.describe().c_str(), open_seconds);
  begin = world.now();
  if (Status s = co_await card.self_test(); !s.ok()) co_return complain(s);
  double test_seconds = seconds_of(world.now() - begin);
  if (!context.json) std::printf("self-test passed, %.2f s\n", test_seconds);

  auto before = co_await card.counters();
  if (!before.ok()) co_return complain(before.status());
  double own = own_cpu_seconds(), process = process_cpu_seconds(card.process());
  begin = world.now();
  Rate rate;
  io::TaskGroup group(world);
  io::Time end = begin + std::chrono::milliseconds(static_cast<std::int64_t>(o.seconds * 1000));
  for (unsigned i = 0; i < o.in_flight; ++i) group.spawn("rate", code_for(world, card, end, rate));
  co_await group.join();
  if (!rate.failure.ok()) co_return complain(rate.failure);
  double seconds = seconds_of(world.now() - begin);
  own = own_cpu_seconds() - own, process = process_cpu_seconds(card.process()) - process;
  auto after = co_await card.counters();
  if (!after.ok()) co_return complain(after.status());
  double bytes = double(rate.stripes) * kLayout.k * kChunk, mib = std::max(bytes, 1.0) / double(1 << 20);
  double to = double(after->to_card_ns - before->to_card_ns) / 1e9, from = double(after->from_card_ns - before->from_card_ns) / 1e9;
  double on = double(after->on_card_ns - before->on_card_ns) / 1e9;
  if (context.json) {
    print_json(boost::json::object{{"name", std::string(card.name())}, {"description", card.describe()}, {"open_seconds", open_seconds},
                                   {"self_test_seconds", test_seconds}, {"stripes", rate.stripes}, {"bytes_per_second", bytes / seconds},
                                   {"to_card_share", to / seconds}, {"from_card_share", from / seconds}, {"on_card_share", on / seconds},
                                   {"daemon_cpu_us_per_mib", own * 1e6 / mib}, {"card_process_cpu_us_per_mib", process * 1e6 / mib},
                                   {"cycles_per_second", double(after->cycles - before->cycles) / seconds}});
    co_return kOk;
  }
  std::printf("%.1f MB/s of source data, %u stripes of 512 KiB (4+2) at once; of the time H2D %.1f %%, D2H %.1f %%, on the card %.1f %%\n", bytes / seconds / 1e6,
              o.in_flight, 100 * to / seconds, 100 * from / seconds, 100 * on / seconds);
  std::printf("card %.3f MHz; processor per MiB: this process %.0f us, card process %.0f us\n", double(after->cycles - before->cycles) / seconds / 1e6,
              own * 1e6 / mib, process * 1e6 / mib);
  co_return kOk;
}

}  // namespace

void add_card_commands(CLI::App& app, Context& context) {
  auto* card = app.add_subcommand("card", "an emulated or real card by itself");
  card->require_subcommand(1);

  auto o = std::make_shared<TestOptions>();
  auto* env = card->add_subcommand("env", "print the environment in which XRT finds an emulated card, for a shell: eval \"$(luge card env native)\"");
  env->add_option("KIND", o->card.kind, "native or rtl")->required();
  env->callback([o, &context] { context.run = [o] { return print_environment(o->card); }; });

  auto* test = card->add_subcommand("test", "open a card through XRT, run its self-test, measure how fast it codes");
  test->add_option("KIND", o->card.kind, "native, rtl or hw")->required();
  test->add_option("--xclbin", o->card.xclbin, "what to load; needed for hw");
  test->add_option("--device", o->card.device, "which of the devices that XRT shows");
  test->add_option("--memory", o->card.memory, "mapped or copied");
  test->add_option("--seconds", o->seconds, "how long to measure")->check(CLI::Range(0.1, 3600.0));
  test->add_option("--in-flight", o->in_flight, "stripes at once")->check(CLI::Range(1u, 32u));
  test->callback([o, &context] {
    context.run = [o, &context] {
      io::RealWorld world;
      if (o->card.kind == "rtl") o->card.job_limit = std::chrono::seconds(10);
      return io::run_main(world, test_card(world, context, *o));
    };
  });
  add_card_maintenance(*card, context);
}

}  // namespace luge::cli
