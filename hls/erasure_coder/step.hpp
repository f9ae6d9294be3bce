// erasure_coder: multiplies k source words by a table of coefficients in GF(2^8)/0x11D and adds them into m destination
// words, 64 bytes a cycle. Encode and decode differ only in the table.
//
// s_axis brings, for each 64-byte column, k words (source 0 first); m_axis gives the column's m words (row 0 first, tlast
// on the last). Words of the next column may follow at once. `job` (k 1..16, rows 1..4, table 0..3) is looked at with every
// word and must be stable from a column's first word to its last; k = 0 or > 16 or rows = 0 or > 4 raises `refused` and
// takes nothing. `load` writes the coefficient of (table, row, source), a plain ISA-L byte; a table must not be written
// while a column uses it.
//
// Invariant: a column enters only when the output queue has room for all its words (`owed` counts words promised or
// queued), so that nothing behind the entrance ever waits and the data registers need no enables. `owed` and `room` are
// registers of their own, so a decision at the entrance doesn't know of what entered in the two cycles before: RESERVE.
// Stages: look up coefficients | expand to 8x8 bit matrices | multiply and add | column | queue | output.
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/mutant.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace erasure_coder {
static const int LANES = 64, ROWS = 4, SOURCES = 16, TABLES = 4;
static const int QUEUE = 32;  // words
static const int RESERVE = 3 * ROWS;  // the column that enters, and one for each of the two cycles that `room` is old

struct Word { ap_uint<8> lane[LANES]; };
struct In {
  struct { bool tvalid; Word tdata; } s_axis;
  struct { bool tready; } m_axis;
  struct { ap_uint<5> k; ap_uint<3> rows; ap_uint<2> select; } job;
  struct { bool valid; ap_uint<2> select; ap_uint<2> row; ap_uint<4> source; ap_uint<8> value; } load;
  HLS_MUTANT_INPUT
};
struct Out {
  struct { bool tready; } s_axis;
  struct { bool tvalid; Word tdata; bool tlast; } m_axis;
  bool refused, idle;
};
struct Matrix { ap_uint<8> times[8]; };  // c * 2^i
struct State {
  // entrance
  ap_uint<4> source = 0;
  bool first = true;  // source == 0
  bool ends;          // the next word is its column's last, unless it is the first
  bool room = true;   // owed <= QUEUE - RESERVE, a cycle old
  ap_uint<6> owed = 0;
  ap_uint<3> entered = 0;  // words of the column that entered in the cycle before
  bool taken = false;      // in the cycle before
  ap_uint<3> hold = 0;     // a one for each cycle in which no column may end: the column register needs `rows` cycles to drain
  // looked up
  bool v1 = false, first1, last1;
  ap_uint<3> rows1;
  Word d1;
  ram<ap_uint<8>, TABLES * SOURCES> coefficients[ROWS];
  // expanded
  bool v2 = false, first2, last2;
  ap_uint<3> rows2;
  Word d2;
  Matrix matrix[ROWS];
  // summed
  bool done3 = false;
  ap_uint<3> rows3;
  Word sum[ROWS];
  // column on its way into the queue
  ap_uint<3> left = 0;
  Word column[ROWS];
  // queue
  rams<ap_uint<64>, QUEUE, 8> queue;
  ram<bool, QUEUE> queue_last;
  ap_uint<5> head = 0, tail = 0;
  ap_uint<6> queued = 0;
  bool some = false;  // queued != 0
  bool fetched = false;
  // output
  bool out_valid = false, out_last;
  Word out_data;
};

static inline ap_uint<8> times2(ap_uint<8> x) { return ap_uint<8>(x << 1) ^ (x[7] ? 0x1d : 0); }

// One byte of the sum: data * c + acc. Grouped so that an output bit is four LUT6 in two levels.
static inline ap_uint<8> multiply_add(const Matrix &c, ap_uint<8> x, ap_uint<8> acc) {
  ap_uint<8> term[8];
  for (int i = 0; i < 8; i++) term[i] = c.times[i] & (x[i] ? 0xff : 0);
  ap_uint<8> a = term[0] ^ term[1] ^ term[2], b = term[3] ^ term[4] ^ term[5], d = term[6] ^ term[7] ^ acc;
  return a ^ b ^ d;
}

static inline void step(State &s, const In &in, Out &out) {
  out.m_axis.tvalid = s.out_valid, out.m_axis.tlast = s.out_last;
  out.m_axis.tdata = s.out_data;
  bool bad = (in.job.k == 0 && !MUTANT(3)) || (in.job.k > SOURCES && !MUTANT(1)) || in.job.rows == 0 || (in.job.rows > ROWS && !MUTANT(2));
  out.refused = bad && in.s_axis.tvalid;
  out.idle = s.owed == 0 && s.entered == 0 && s.first;

  // Output register and queue: a read takes a cycle, `fetched` says that q holds the next word.
  bool taken = s.out_valid && in.m_axis.tready;
  bool free_output = !s.out_valid || in.m_axis.tready;
  bool move = s.fetched && (free_output || MUTANT(17));
  if (move) {
    for (int i = 0; i < LANES; i++) s.out_data.lane[i] = s.queue[i / 8].q >> (8 * (i % 8));
    s.out_last = s.queue_last.q;
  }
  s.out_valid = move || (s.out_valid && !in.m_axis.tready);
  bool fetch = (s.some || MUTANT(18)) && (!s.fetched || move);
  if (fetch) {
    for (int w = 0; w < 8; w++) s.queue[w].read(s.head);
    s.queue_last.read(s.head);
    s.head = s.head + 1;
  }
  s.fetched = fetch || (s.fetched && !move);

  // Column register into the queue, row 0 first.
  bool push = s.left != 0;
  if (push) {
    for (int w = 0; w < 8; w++) {
      ap_uint<64> word = 0;
      for (int i = 0; i < 8; i++) word = word | (ap_uint<64>(s.column[0].lane[8 * w + i]) << (8 * i));
      s.queue[w].write(s.tail, word);
    }
    s.queue_last.write(s.tail, s.left == (MUTANT(4) ? 2 : 1));
    s.tail = s.tail + 1;
  }
  s.some = push || (fetch ? s.queued > 1 : bool(s.some));
  s.queued = s.queued + (push ? 1 : 0) - (fetch ? 1 : 0);
  for (int r = 0; r + 1 < ROWS; r++) s.column[r] = s.column[r + 1];
  if (s.left != 0) s.left = s.left - 1;
  if (s.done3) {
    for (int r = 0; r < ROWS; r++) s.column[r] = s.sum[r];
    s.left = MUTANT(19) ? ap_uint<3>(s.rows3 - 1) : s.rows3;
  }

  // Multiply and add.
  s.done3 = s.v2 && s.last2;
  s.rows3 = MUTANT(8) ? ap_uint<3>(4) : s.rows2;
  if (s.v2)
    for (int r = 0; r < ROWS; r++)
      for (int i = 0; i < LANES; i++) {
        ap_uint<8> acc = s.sum[r].lane[i] & (s.first2 && !MUTANT(7) ? 0 : 0xff);
        s.sum[r].lane[i] = multiply_add(s.matrix[r], s.d2.lane[i == 63 && MUTANT(16) ? 62 : i], acc);
      }

  // Expand.
  s.v2 = s.v1, s.first2 = s.first1, s.last2 = s.last1, s.rows2 = s.rows1;
  s.d2 = s.d1;
  for (int r = 0; r < ROWS; r++) {
    ap_uint<8> c = s.coefficients[r].q;
    for (int i = 0; i < 8; i++) { s.matrix[r].times[i] = c; c = times2(c) ^ (MUTANT(9) && c[7] ? 1 : 0); }
  }

  // Entrance: registers alone decide, apart from the job.
  ap_uint<6> address = (MUTANT(10) ? ap_uint<2>(0) : in.job.select, s.source);
  bool first = s.first, last = first ? in.job.k == (MUTANT(15) ? 2 : 1) : bool(s.ends);
  bool ready = (!first || s.room || MUTANT(5)) && !bad && !(last && s.hold[0] && !MUTANT(6));
  out.s_axis.tready = ready;
  bool accept = (ready || MUTANT(21)) && in.s_axis.tvalid;
  s.room = s.owed <= QUEUE - RESERVE;
  s.owed = s.owed + s.entered - (s.taken && !MUTANT(14) ? 1 : 0);
  s.entered = accept && first ? in.job.rows : ap_uint<3>(0);
  s.taken = taken;
  ap_uint<3> drain = (ap_uint<1>(in.job.rows > 3), (ap_uint<1>(in.job.rows > 2), ap_uint<1>(in.job.rows > 1)));
  s.hold = accept && last ? ap_uint<3>(MUTANT(20) ? drain >> 2 : drain) : ap_uint<3>(s.hold >> 1);
  if (accept) {
    s.first = last;
    s.ends = ap_uint<5>(s.source) + (MUTANT(15) ? 3 : 2) == in.job.k;
    s.source = last ? ap_uint<4>(0) : ap_uint<4>(s.source + 1);
  }
  s.v1 = accept, s.first1 = first, s.last1 = last, s.rows1 = in.job.rows;
  s.d1 = in.s_axis.tdata;
  for (int r = 0; r < ROWS; r++) {
    s.coefficients[r].read(address);
    if (in.load.valid && in.load.row == (MUTANT(11) ? 3 - r : r))
      s.coefficients[r].write((in.load.select, MUTANT(13) ? ap_uint<4>(in.load.source & 7) : in.load.source), MUTANT(12) ? ap_uint<8>(in.load.value & 0x7f) : in.load.value);
  }
}
}  // namespace erasure_coder
