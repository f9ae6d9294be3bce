// M wanted chunks out of k sources: each work item takes 32 bytes of every chunk. A product with a coefficient is the sum of those
// of source * 2^b whose bit b is set in it; 2^b comes by doubling eight bytes at a time, and no table is looked up, so that
// the compiler can use whole vectors.
//
// sources, out: chunks one behind the other, `vectors` of 32 bytes each. rows: M x k coefficients in GF(2^8)/0x11D.

inline ulong4 doubled(ulong4 x) {
  ulong4 carry = (x >> 7) & 0x0101010101010101UL;
  return ((x << 1) & 0xfefefefefefefefeUL) ^ (carry * 0x1dUL);
}

__kernel void code(__global const ulong4* restrict sources, __constant const uchar* restrict rows, __global ulong4* restrict out, uint k,
                   ulong vectors) {
  size_t at = get_global_id(0);
  ulong4 sum[M];
  for (int i = 0; i < M; ++i) sum[i] = (ulong4)(0UL);
  for (uint j = 0; j < k; ++j) {
    ulong4 x = sources[j * vectors + at];
#pragma unroll
    for (uint bit = 0; bit < 8; ++bit) {
#pragma unroll
      for (int i = 0; i < M; ++i) sum[i] ^= x & (ulong4)(0UL - (ulong)((rows[i * k + j] >> bit) & 1));
      x = doubled(x);
    }
  }
  for (int i = 0; i < M; ++i) out[i * vectors + at] = sum[i];
}
