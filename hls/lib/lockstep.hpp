// A kernel twice, native step() and Verilated module, fed with the same inputs and compared every cycle.
//
//   HLS_LOCKSTEP(scale, Pair);      // after including the generated glue header
//   Pair pair;  pair.reset();  Out out = pair.cycle(in);
//
// cycle() gives the native outputs; at the first difference it prints the output, the cycle and every register that differs, and
// ends the process with 1: nothing after a difference means anything.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include <verilated_fst_c.h>

#include "hls/lib/glue.hpp"

namespace hls {
// A model with mutants is built without waveforms.
template <class M> void attach(M &model, VerilatedFstC *trace) {
  if constexpr (requires { model.trace(trace, 99); }) model.trace(trace, 99);
}
}  // namespace hls

#define HLS_LOCKSTEP(kernel, Name)                                                                             \
  class Name {                                                                                                 \
   public:                                                                                                     \
    kernel::State state = kernel::State();                                                                     \
    unsigned long long cycles = 0;                                                                             \
    bool rtl = true; /* false: native alone */                                                                 \
    Name() : model_(std::make_unique<kernel##_glue::Model>()) { reset(); }                                     \
    ~Name() { if (trace_) trace_->close(); model_->final(); }                                                  \
    /* Waveforms of the RTL from here on; the file is complete when the object is gone. */                     \
    void trace(const std::string &path) {                                                                      \
      Verilated::traceEverOn(true);                                                                            \
      trace_ = std::make_unique<VerilatedFstC>();                                                       \
      hls::attach(*model_, trace_.get()), trace_->open(path.c_str());                                          \
    }                                                                                                          \
    void reset() {                                                                                             \
      kernel::State fresh = kernel::State();                                                                   \
      state = fresh;                                                                                           \
      if (trace_) trace_->close(), trace_.reset(); /* a trace ends with its model */                           \
      model_ = std::make_unique<kernel##_glue::Model>();                                                       \
      model_->ap_rst_n = 0;                                                                                    \
      kernel##_glue::drive(*model_, kernel::In());                                                             \
      edge();                                                                                                  \
      model_->ap_rst_n = 1;                                                                                    \
    }                                                                                                          \
    kernel::Out cycle(const kernel::In &in) {                                                                  \
      kernel::Out out = kernel::Out(), seen = kernel::Out();                                                   \
      if (rtl) {                                                                                               \
        kernel##_glue::drive(*model_, in);                                                                     \
        model_->ap_clk = 0, model_->eval();                                                                    \
        if (trace_) trace_->dump((uint64_t)(10 * cycles));                                                                 \
        kernel##_glue::sample(*model_, seen);                                                                  \
        kernel::State before = state;                                                                          \
        kernel::step(state, in, out);                                                                          \
        if (const char *port = kernel##_glue::differs(out, seen)) report(port, before);                        \
        model_->ap_clk = 1, model_->eval();                                                                    \
        if (trace_) trace_->dump((uint64_t)(10 * cycles + 5));                                                             \
      } else {                                                                                                 \
        kernel::step(state, in, out);                                                                          \
      }                                                                                                        \
      cycles++;                                                                                                \
      return out;                                                                                              \
    }                                                                                                          \
                                                                                                               \
   private:                                                                                                    \
    std::unique_ptr<kernel##_glue::Model> model_;                                                              \
    std::unique_ptr<VerilatedFstC> trace_;                                                                     \
    void edge() { model_->ap_clk = 0, model_->eval(), model_->ap_clk = 1, model_->eval(); }                    \
    [[noreturn]] void report(const char *port, const kernel::State &s) {                                       \
      std::fprintf(stderr, "%s: output %s differs at cycle %llu; registers that differ (native, RTL):\n", kernel##_glue::name, port, cycles); \
      kernel##_glue::registers(*model_, s, [](const char *n, const std::string &a, const std::string &b) {     \
        if (a != b) std::fprintf(stderr, "  %-40s %s %s\n", n, a.c_str(), b.c_str());                          \
      });                                                                                                      \
      std::exit(1);                                                                                            \
    }                                                                                                          \
  }
