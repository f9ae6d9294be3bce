#include "card/dma_logger_kernel.hpp"

namespace luge::card {
namespace {

class Native final : public DmaLogger {
 public:
  const char* kind() const override { return "native"; }

  void cycle(const In& in, Out& out) override {
    to_kernel(in, in_);
    dma_write_log::step(state_, in_, out_);
    from_kernel(in, out_, out);
  }

  // The two counters of idle time, at their ends: nothing else happens in cycles without a write.
  int idle_cycles() const override { return 16; }
  int settle_cycles() const override { return 256; }  // its queue holds 56 records
  void skip_idle() override {
    if (state_.open) state_.idle = 512;
    if (state_.line_any && !comes()) state_.linger = 128;
  }
  bool settled() const override {
    return !comes() && !state_.line_any && !state_.line_due && !state_.leaving_valid && state_.no_line_flying && !state_.marked && !state_.marker_push &&
           !state_.unannounced && !state_.snapshot && !state_.overflowing;
  }

 private:
  // Records on their way to the line.
  bool comes() const { return state_.open || state_.f1 || state_.f2 || state_.queued != 0 || state_.fetched || state_.h; }

  dma_write_log::State state_;
  dma_write_log::In in_ = dma_write_log::In();
  dma_write_log::Out out_ = dma_write_log::Out();
};

}  // namespace

std::unique_ptr<DmaLogger> make_native_dma_logger() { return std::make_unique<Native>(); }

}  // namespace luge::card
