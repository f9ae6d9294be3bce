// Mutants: faults seeded into a kernel to show that its bench notices them. All of a kernel's mutants are in one model (built with
// HLS_MUTANTS) and an input chooses one; 0 is none. In the product MUTANT(n) is false and there is no such input.
//
//   struct In { ...; HLS_MUTANT_INPUT };     and in step():  bool last = MUTANT(3) ? s.left == 2 : s.left == 1;
#pragma once
#include "hls/lib/ap_int.h"
#ifdef HLS_MUTANTS
#define HLS_MUTANT_INPUT ap_uint<6> mutant;
#define MUTANT(n) (in.mutant == (n))
#else
#define HLS_MUTANT_INPUT
#define MUTANT(n) false
#endif
#ifdef HLS_MUTANTS
#define HLS_SET_MUTANT(in, n) ((in).mutant = (n))  // for benches
#else
#define HLS_SET_MUTANT(in, n) ((void)(n))
#endif
