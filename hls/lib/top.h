// HLS_TOP(kernel): names the namespace that is one hardware module. It must hold struct State, In, Out and
// `static inline void step(State &, const In &, Out &)`, one call of which is one clock cycle. Outputs start each cycle as 0.
#pragma once
// Compiled to run, and not to become hardware: what is spelled bit by bit for the sake of LUTs may be said in one operation.
// Benches in lock-step hold it to the RTL. Mutants sit in the spelled form, so their builds keep it.
#if !defined(HLS_RTL) && !defined(HLS_XILINX_AP_INT) && !defined(HLS_MUTANTS)
#define HLS_NATIVE
#endif
#ifdef HLS_RTL
inline void *operator new(__SIZE_TYPE__, void *p) noexcept { return p; }
#define HLS_TOP(kernel)                                                                                              \
  extern "C" void hls_step__##kernel(kernel::State &s, const kernel::In &in, kernel::Out &out) { kernel::step(s, in, out); } \
  extern "C" void hls_reset__##kernel(kernel::State &s) { new (&s) kernel::State; }
#else
#define HLS_TOP(kernel) static_assert(sizeof(kernel::State) > 0, "")
#endif
