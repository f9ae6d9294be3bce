// transposer: turns rounds of `rows` x `columns` 64-byte words. With `to_columns` a round arrives row by row (a block of each chunk
// after the other, as memory gives them) and leaves column by column (as the coder takes them); without, the other way round.
// tlast is on the last word of each row (or column) that leaves; rows, columns and `user` of the round go with its words.
//
// Two banks: one fills while the other leaves. REQUIRES: rows 1..16, columns 1..64, `to_columns` constant.
#pragma once
#include "hls/lib/axi.h"
#include "hls/lib/mutant.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace transposer {
struct Round { ap_uint<5> rows; ap_uint<7> columns; ap_uint<8> user; };
struct In {
  bool to_columns;
  struct { bool valid; Round shape; } round;
  struct { bool tvalid; axi::Words tdata; } s_axis;
  axi::StreamIn m_axis;
  HLS_MUTANT_INPUT
};
struct Out {
  struct { bool ready; } round;
  axi::StreamIn s_axis;
  struct { bool tvalid; axi::Words tdata; bool tlast; Round shape; } m_axis;
  bool idle;
};
struct State {
  rams<ap_uint<64>, 2048, 8> words;  // bank, row, column
  bool full[2] = {false, false};
  Round shape[2];
  bool filling = false;
  ap_uint<1> fill_bank = 0, drain_bank = 0;
  ap_uint<4> fill_row = 0, drain_row = 0;
  ap_uint<6> fill_column = 0, drain_column = 0;
  bool fetched = false, fetched_last;
  Round fetched_shape;
  bool out_valid = false, out_last;
  Round out_shape;
  axi::Words out_data;
};

// The place behind (row, column): along the row or along the column. True at the end of the round.
struct Next { ap_uint<4> row; ap_uint<6> column; bool line_ends, ends; };
static inline Next after(ap_uint<4> row, ap_uint<6> column, const Round &r, bool along_row) {
  bool last_row = ap_uint<5>(row) + 1 == r.rows, last_column = ap_uint<7>(column) + 1 == r.columns;
  Next n;
  n.ends = last_row && last_column, n.line_ends = along_row ? last_column : last_row;
  ap_uint<4> down = row + 1;
  ap_uint<6> right = column + 1;
  if (along_row) n.column = last_column ? ap_uint<6>(0) : right, n.row = n.ends ? ap_uint<4>(0) : last_column ? down : row;
  else n.row = last_row ? ap_uint<4>(0) : down, n.column = n.ends ? ap_uint<6>(0) : last_row ? right : column;
  return n;
}

static inline void step(State &s, const In &in, Out &out) {
  out.m_axis.tvalid = s.out_valid, out.m_axis.tdata = s.out_data, out.m_axis.tlast = s.out_last, out.m_axis.shape = s.out_shape;
  out.idle = !s.filling && !s.full[0] && (!s.full[1] || MUTANT(8)) && !s.fetched && !s.out_valid;

  // Leave: a read takes a cycle, `fetched` says that q holds the next word.
  bool free_output = !s.out_valid || in.m_axis.tready || MUTANT(1);
  bool move = (s.fetched || MUTANT(9)) && free_output;
  if (move) {
    for (int i = 0; i < 8; i++) s.out_data.lane[i] = s.words[i == 7 && MUTANT(11) ? 6 : i].q;
    s.out_last = MUTANT(2) ? !s.fetched_last : s.fetched_last, s.out_shape = MUTANT(10) ? Round(s.shape[0]) : Round(s.fetched_shape);
  }
  s.out_valid = move || (s.out_valid && !in.m_axis.tready && !MUTANT(12));
  ap_uint<1> bank = s.drain_bank;
  Round leaving = bank == 0 && !MUTANT(13) ? Round(s.shape[0]) : Round(s.shape[1]);
  bool ready_bank = bank == 0 ? bool(s.full[0]) : bool(s.full[1]);
  bool fetch = (ready_bank || MUTANT(3)) && (!s.fetched || move || MUTANT(14));
  bool freed = false;
  if (fetch) {
    ap_uint<11> address = (MUTANT(15) ? ap_uint<1>(0) : bank, s.drain_row, s.drain_column);
    for (int i = 0; i < 8; i++) s.words[i].read(address);
    Next n = after(s.drain_row, s.drain_column, leaving, !in.to_columns != MUTANT(4));
    s.drain_row = n.row, s.drain_column = n.column;
    s.fetched_last = n.line_ends, s.fetched_shape = leaving;
    freed = MUTANT(16) ? n.line_ends : n.ends;
  }
  s.fetched = fetch || (s.fetched && !move && !MUTANT(17));

  // Fill.
  out.s_axis.tready = s.filling || MUTANT(18);
  ap_uint<1> fb = s.fill_bank;
  bool taken = s.filling && in.s_axis.tvalid;
  bool filled = false;
  if (taken) {
    ap_uint<11> address = (fb, s.fill_row, MUTANT(19) ? ap_uint<6>(s.fill_column & 31) : s.fill_column);
    for (int i = 0; i < 8; i++) s.words[i].write(address, in.s_axis.tdata.lane[i]);
    Round arriving = fb == 0 ? Round(s.shape[0]) : Round(s.shape[1]);
    Next n = after(s.fill_row, s.fill_column, arriving, in.to_columns != MUTANT(20));
    s.fill_row = n.row, s.fill_column = n.column;
    filled = n.ends;
  }
  bool fill_full = fb == 0 ? bool(s.full[0]) : bool(s.full[1]);
  out.round.ready = (!s.filling || MUTANT(21)) && (!fill_full || MUTANT(5));
  if (out.round.ready && in.round.valid) {
    s.filling = true;
    if (fb == 0) s.shape[0] = in.round.shape; else s.shape[1] = in.round.shape;
  }
  if (filled) {
    s.filling = false;
    if (fb == 0 || MUTANT(22)) s.full[0] = true; else s.full[1] = true;
    s.fill_bank = fb ^ (MUTANT(6) ? 0 : 1);
  }
  if (freed && !MUTANT(7)) {
    if (bank == 0) s.full[0] = false; else s.full[1] = false;
    s.drain_bank = bank ^ 1;
  }
}
}  // namespace transposer
