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
#include <cstring>
#include <memory>
#include <random>

#include <verilated_fst_c.h>

#include "hls/lib/glue.hpp"
#include "hls/lib/last_words.hpp"

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
    /* Powered up with zeros everywhere, then reset. */                                                        \
    Name() : model_(std::make_unique<kernel##_glue::Model>()) {                                                \
      std::memset((void *)&state, 0, sizeof state);                                                            \
      reset(), cycles = 0;                                                                                     \
    }                                                                                                          \
    ~Name() {                                                                                                  \
      if (trace_) hls::say_last_words();                                                                       \
      model_->final();                                                                                         \
    }                                                                                                          \
    /* Waveforms of the RTL from here on, resets included; the file is complete when the object is gone or the bench has failed. */\
    void trace(const std::string &path) {                                                                      \
      Verilated::traceEverOn(true);                                                                            \
      trace_ = std::make_unique<VerilatedFstC>();                                                              \
      hls::attach(*model_, trace_.get()), trace_->open(path.c_str());                                          \
      hls::last_words() = [t = trace_.get()] { t->close(); };                                                  \
    }                                                                                                          \
    /* A cycle with ap_rst_n low, at which registers without a reset value keep on and memories keep their content. */\
    void reset() {                                                                                             \
      kernel::In quiet = kernel::In();                                                                         \
      kernel::Out out = kernel::Out();                                                                         \
      kernel::step(state, quiet, out), kernel##_glue::reset(state);                                            \
      model_->ap_rst_n = 0;                                                                                    \
      kernel##_glue::drive(*model_, quiet);                                                                    \
      model_->ap_clk = 0, model_->eval(), dump(0);                                                             \
      model_->ap_clk = 1, model_->eval(), dump(5);                                                             \
      model_->ap_rst_n = 1, cycles++;                                                                          \
    }                                                                                                          \
    kernel::Out cycle(const kernel::In &in) {                                                                  \
      kernel::Out out = kernel::Out(), seen = kernel::Out();                                                   \
      if (rtl) {                                                                                               \
        kernel##_glue::drive(*model_, in);                                                                     \
        model_->ap_clk = 0, model_->eval();                                                                    \
        dump(0);                                                                                               \
        kernel##_glue::sample(*model_, seen);                                                                  \
        kernel::State before = state;                                                                          \
        kernel::step(state, in, out);                                                                          \
        if (const char *port = kernel##_glue::differs(out, seen)) report(port, before);                        \
        model_->ap_clk = 1, model_->eval();                                                                    \
        dump(5);                                                                                               \
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
    void dump(unsigned at) { if (trace_) trace_->dump((uint64_t)(10 * cycles + at)); }                         \
    [[noreturn]] void report(const char *port, const kernel::State &s) {                                       \
      hls::say_last_words();                                                                                   \
      std::fprintf(stderr, "%s: output %s differs at cycle %llu; registers that differ (native, RTL):\n", kernel##_glue::name, port, cycles); \
      kernel##_glue::registers(*model_, s, [](const char *n, const std::string &a, const std::string &b) {     \
        if (a != b) std::fprintf(stderr, "  %-40s %s %s\n", n, a.c_str(), b.c_str());                          \
      });                                                                                                      \
      std::exit(1);                                                                                            \
    }                                                                                                          \
  }
