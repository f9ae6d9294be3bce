#include "opencl/opencl_coder.hpp"

#include "base/check.hpp"
#include "base/logging.hpp"
#include "coding/matrix.hpp"
#include "io/blocking_calls.hpp"
#include "opencl/device.hpp"

namespace luge::opencl {
namespace {

constexpr std::size_t kMaxAtOnce = 4;  // results of one kernel

class OpenClCoder final : public coding::ErasureCoder {
 public:
  OpenClCoder(io::RealWorld& world, std::string wanted) : world_(world), wanted_(std::move(wanted)) {}
  ~OpenClCoder() override { let_go(); }

  io::Task<Status> encode(Layout l, std::span<const Bytes> data, std::span<const MutableBytes> parity) override {
    if (Status s = coding::check_layout(l); !s.ok()) co_return s;
    if (data.size() != l.k || parity.size() != l.m) co_return Status(Code::invalid, "chunk count is not that of the layout");
    std::vector<std::uint32_t> wanted;
    for (std::uint32_t i = 0; i < l.m; ++i) wanted.push_back(l.k + i);
    Status s = co_await run(l, data, wanted, parity);
    co_return s;
  }

  io::Task<Status> reconstruct(Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted, std::span<const MutableBytes> out) override {
    if (Status s = coding::check_layout(l); !s.ok()) co_return s;
    if (present.size() != l.width() || wanted.size() != out.size() || wanted.empty()) co_return Status(Code::invalid, "chunk count is not that of the layout");
    for (std::uint32_t w : wanted)
      if (w >= l.width()) co_return Status(Code::invalid, "no chunk " + std::to_string(w) + " in " + to_string(l));
    Status s = co_await run(l, present, wanted, out);
    co_return s;
  }

  std::string_view name() const override { return "opencl"; }
  coding::ErasureCoder::Figures figures() const override { return {{"jobs", jobs_}, {"source_bytes", source_bytes_}, {"opened", opened_}}; }

  io::Task<Status> reset() override {
    let_go();
    session_ = std::make_shared<Session>();
    session_->calls = io::make_blocking_calls(world_, 1);
    std::shared_ptr<Session> s = session_;
    Status opened(Code::internal, "was not opened");
    ++s->busy;
    co_await s->calls->run([&] {
      auto device = open_device(wanted_);
      opened = device.status();
      if (device.ok()) s->device = std::move(*device);
      return 0;
    });
    --s->busy;
    if (opened.ok() && opened_++ == 0) logging::info("coding on OpenCL device {}", s->device->name());
    co_return opened;
  }

 private:
  struct Session {
    std::unique_ptr<io::BlockingCalls> calls;
    std::unique_ptr<Device> device;
    int busy = 0;
  };

  // A thread that is in a call that may never return can be neither ended nor waited for: it and what it uses stay for good.
  void let_go() {
    if (session_ && session_->busy != 0) {
      logging::error("an OpenCL call does not return; its thread is given up");
      new std::shared_ptr<Session>(session_);
    }
    session_.reset();
  }

  io::Task<Status> run(Layout l, std::span<const Bytes> present, std::span<const std::uint32_t> wanted, std::span<const MutableBytes> out) {
    std::shared_ptr<Session> session = session_;
    if (!session || !session->device) co_return Status(Code::unavailable, "the OpenCL device is not open");
    auto sources = coding::choose_sources(l, present);
    if (!sources.ok()) co_return sources.status();
    auto rows = coding::coefficients(l, *sources, wanted);
    if (!rows.ok()) co_return rows.status();
    std::vector<Bytes> from;
    for (std::uint32_t i : *sources) from.push_back(present[i]);
    for (MutableBytes b : out)
      if (b.size() != from[0].size()) co_return Status(Code::invalid, "chunks differ in size");
    if (from[0].size() % 64 != 0) co_return Status(Code::invalid, "chunk size is not a multiple of 64");
    if (from[0].empty() || out.empty()) co_return Status();
    Status s;
    ++session->busy;
    co_await session->calls->run([&] {
      for (std::size_t at = 0; at < out.size() && s.ok(); at += kMaxAtOnce) {
        std::size_t n = std::min(kMaxAtOnce, out.size() - at);
        s = session->device->multiply(std::span(*rows).subspan(at * l.k, n * l.k), from, out.subspan(at, n));
      }
      return 0;
    });
    --session->busy;
    ++jobs_;
    source_bytes_ += std::uint64_t{l.k} * from[0].size();
    co_return s;
  }

  io::RealWorld& world_;
  std::string wanted_;
  std::shared_ptr<Session> session_;
  std::uint64_t jobs_ = 0, source_bytes_ = 0, opened_ = 0;
};

}  // namespace

std::shared_ptr<coding::ErasureCoder> make_opencl_coder(io::World& world, std::string device) {
  auto* real = dynamic_cast<io::RealWorld*>(&world);
  LUGE_CHECK(real != nullptr);
  return std::make_shared<OpenClCoder>(*real, std::move(device));
}

}  // namespace luge::opencl
