// The DMA write log's RTL under Verilator, for `luge-attach --card=rtl`: a library that host/card loads (dma_logger_load.cpp).
#include <memory>

#include "dma_write_log_glue.hpp"
#include "host/card/dma_logger_kernel.hpp"

namespace luge::card {
namespace {

constexpr int kIdleCycles = 512 + 128 + 16;  // until an open record and the line that it is put into have left

class Rtl final : public DmaLogger {
 public:
  Rtl() : model_(std::make_unique<dma_write_log_glue::Model>()) {
    model_->ap_rst_n = 0;
    dma_write_log_glue::drive(*model_, in_);
    for (int i = 0; i < 4; ++i) {
      model_->ap_clk = 0, model_->eval();
      model_->ap_clk = 1, model_->eval();
    }
    model_->ap_rst_n = 1;
  }
  ~Rtl() override { model_->final(); }
  const char* kind() const override { return "rtl"; }

  void cycle(const In& in, Out& out) override {
    to_kernel(in, in_);
    dma_write_log_glue::drive(*model_, in_);
    model_->ap_clk = 0, model_->eval();
    dma_write_log_glue::sample(*model_, out_);
    from_kernel(in, out_, out);
    model_->ap_clk = 1, model_->eval();
  }

  int idle_cycles() const override { return kIdleCycles; }

 private:
  std::unique_ptr<dma_write_log_glue::Model> model_;
  dma_write_log::In in_ = dma_write_log::In();
  dma_write_log::Out out_ = dma_write_log::Out();
};

}  // namespace
}  // namespace luge::card

extern "C" luge::card::DmaLogger* luge_make_dma_logger_2() { return new luge::card::Rtl(); }
