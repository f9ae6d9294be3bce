// What the frame of every daemon costs: durable appends to a pre-written file at queue depth 1, and calls over a unix
// socket. io_bench [DIRECTORY]; the directory should be on the disk that matters.
#include <algorithm>
#include <cstdio>

#include "io/files.hpp"
#include "io/real_world.hpp"
#include "wire/channel.hpp"

namespace {

using namespace luge;
using namespace std::chrono_literals;
using io::Task;

constexpr io::Duration kEach = 2s;

double seconds(io::Duration d) { return std::chrono::duration<double>(d).count(); }

Task<void> appends(io::World& world, io::BlockFile& file, std::size_t bytes) {
  Buffer b = Buffer::zeros(bytes);
  Bytes part = b.bytes();
  std::vector<io::Duration> times;
  io::Time begin = world.now(), last = begin;
  for (std::uint64_t at = 0; last - begin < kEach; at = (at + bytes) % (file.size() - bytes) / bytes * bytes) {
    Status s = co_await file.write(at, {&part, 1}, io::Durability::durable);
    if (!s.ok()) co_return void(std::printf("  %s\n", s.to_string().c_str()));
    io::Time now = world.now();
    times.push_back(now - last);
    last = now;
  }
  std::sort(times.begin(), times.end());
  std::printf("  durable append %3zu KiB, qd 1: %7.0f /s   median %4.0f us   p99 %5.0f us\n", bytes >> 10,
              static_cast<double>(times.size()) / seconds(last - begin), seconds(times[times.size() / 2]) * 1e6,
              seconds(times[times.size() * 99 / 100]) * 1e6);
}

void echo(const std::shared_ptr<wire::Channel>& channel, wire::Frame f) {
  channel->reply(f, wire::reply_frame(Status()));
}

Task<void> caller(io::World& world, std::shared_ptr<wire::Channel> channel, io::Time end, Buffer payload,
                  std::uint64_t& calls) {
  while (world.now() < end) {
    wire::Frame f = wire::reply_frame(Status());
    f.kind = wire::Kind::ping;
    if (!payload.empty()) f.payload.push_back(payload);
    auto answer = co_await channel->call(std::move(f), 5s);
    if (!answer.ok()) co_return;
    ++calls;
  }
}

Task<void> round_trips(io::World& world, std::string address, unsigned depth, std::size_t payload) {
  wire::Identity client{1, 2};
  auto stream = co_await world.network().connect(address, 1s);
  if (!stream.ok()) co_return void(std::printf("  %s\n", stream.status().to_string().c_str()));
  auto channel = std::make_shared<wire::Channel>(world, std::move(*stream), client, true);
  channel->start({});
  std::uint64_t calls = 0;
  io::Time begin = world.now();
  io::TaskGroup group(world);
  for (unsigned i = 0; i < depth; ++i)
    group.spawn("caller", caller(world, channel, begin + kEach, Buffer::zeros(payload), calls));
  co_await group.join();
  std::printf("  calls with %2zu KiB, %2u at once: %7.0f /s (client and server on one thread)\n", payload >> 10, depth,
              static_cast<double>(calls) / seconds(world.now() - begin));
  channel->close();
  co_await world.sleep(10ms);
}

Task<int> run(io::RealWorld& world, wire::Server& server, std::string directory) {
  std::printf("%s, %s\n", directory.c_str(), world.options().io_uring ? "io_uring" : "threads");
  auto file = co_await world.files().open("io_bench.data", {.create = true, .size = 64 << 20, .prewrite = true});
  if (!file.ok()) co_return std::printf("%s\n", file.status().to_string().c_str()), 1;
  for (std::size_t bytes : {4096, 65536}) co_await appends(world, **file, bytes);
  Status removed = co_await world.files().remove("io_bench.data");
  std::string address = "unix:" + directory + "/io_bench.socket";
  Status s = server.listen(address, echo);
  if (!s.ok() || !removed.ok()) co_return std::printf("%s\n", s.to_string().c_str()), 1;
  for (std::size_t payload : {0, 4096})
    for (unsigned depth : {1, 32}) co_await round_trips(world, address, depth, payload);
  server.close();
  co_return 0;
}

int run_with(std::string directory, bool io_uring) {
  io::RealWorld world({.directory = directory, .io_uring = io_uring});
  wire::Identity identity{1, 1};
  wire::Server server(world, identity);
  return io::run_main(world, run(world, server, directory));
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory = argc > 1 ? argv[1] : ".";
  int code = run_with(directory, true);
  return code != 0 ? code : run_with(directory, false);
}
