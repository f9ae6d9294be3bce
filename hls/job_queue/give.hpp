// The middle of the job queue: jobs become rounds and commands for the movers, coefficients for the coder.
#pragma once
#include "hls/job_queue/state.hpp"

namespace job_queue {

static inline ap_uint<13> of_round(ap_uint<25> left) { return left < 4096 ? ap_uint<13>(left) : ap_uint<13>(4096); }
static inline ap_uint<7> columns_of(ap_uint<25> left) { return ap_uint<7>((of_round(left) + 63) >> 6); }

static inline bool can_announce(const Lines &l, bool wanted) { return !l.rounds.full() && (!wanted || l.open < LINES); }
static inline void announce(Lines &l, Job &j, Slot slot, ap_uint<5> count, ap_uint<64> address) {
  Round r;
  r.slot = slot, r.wanted = j.crc, r.count = count, r.address = address;
  l.rounds.put(r);
  if (j.crc) l.open = l.open + 1, j.lines = j.lines + 1;
}

// A coefficient table may not change under a job that uses it.
static inline bool table_in_use(const State &s, Slot reader, ap_uint<2> table) {
  bool used = false;
  for (int i = 0; i < SLOTS; i++)
    if (i != reader && s.job[i].parsed && s.job[i].code && s.job[i].table == table && ap_uint<2>(i - s.retire_slot.to_uint()) < ap_uint<2>(reader - s.retire_slot)) used = true;
  return used;
}

// The place memory has one reader a cycle; writes choose before coefficients.
struct PlaceRead { bool wanted; ap_uint<5> address; };

// Reads: for each round one command a source.
static inline void give_reads(State &s, const In &in, Out &out, PlaceRead &place) {
  if (s.gather_valid && in.gather.ready) s.gather_valid = false;
  if (s.read_valid && in.read_command.ready) s.read_valid = false;
  Job &j = s.job[s.read_slot.to_uint()];
  bool ends = false;
  switch (s.read_phase) {
    case Phase::idle:
      s.read_offset = 0, s.read_left = j.length, s.read_source = 0, s.load_word = 0;
      if (!j.parsed || j.reads_given) break;
      j.started = s.now;
      if (j.code) s.read_phase = Phase::round;
      else if (j.load) s.read_phase = Phase::load_look;
      else ends = true;
      break;
    case Phase::round:
      if (s.gather_valid || !can_announce(s.source_lines, j.crc)) break;
      s.gather_valid = true;
      s.gather_shape.rows = j.sources, s.gather_shape.columns = columns_of(s.read_left), s.gather_shape.user = (j.rows, j.table);
      announce(s.source_lines, j, s.read_slot, j.sources, j.crc_address + (ap_uint<25>(s.read_offset >> 12) << 7));
      s.read_phase = Phase::look;
      break;
    case Phase::look:
      s.source.read((s.read_slot, s.read_source));
      s.read_phase = Phase::give;
      break;
    case Phase::give: {
      if (s.read_valid || s.read_owners.full()) break;
      s.read_valid = true;
      s.read_owners.put(MUTANT(16) ? ap_uint<2>(s.read_slot + 1) : s.read_slot);
      s.read_move.function = 0, s.read_move.address = s.source.q + (MUTANT(10) ? ap_uint<25>(0) : s.read_offset), s.read_move.length = of_round(s.read_left);
      j.reads = j.reads + 1;
      bool last = ap_uint<5>(s.read_source) + 1 == j.sources;
      s.read_source = last ? ap_uint<4>(0) : ap_uint<4>(s.read_source + 1);
      s.read_phase = last ? Phase::round : Phase::look;
      if (!last) break;
      ends = s.read_left <= 4096;
      s.read_offset = s.read_offset + 4096, s.read_left = s.read_left - 4096;
      break;
    }
    case Phase::load_look:
      if (table_in_use(s, s.read_slot, j.table) && !MUTANT(11)) break;
      if (place.wanted) break;
      place.wanted = true, place.address = (s.read_slot, s.load_word);
      s.read_phase = Phase::load_wait;
      break;
    case Phase::load_wait:
      s.load_data = s.place.q, s.load_byte = 0;
      s.read_phase = Phase::load_give;
      break;
    case Phase::load_give:
      out.load.valid = true, out.load.select = j.table, out.load.row = s.load_word >> 1, out.load.source = (ap_uint<1>(s.load_word.test(0)), s.load_byte), out.load.value = s.load_data;
      s.load_data = s.load_data >> 8, s.load_byte = s.load_byte + 1;
      if (s.load_byte != 0) break;
      ends = s.load_word == 7;
      s.load_word = s.load_word + 1, s.read_phase = Phase::load_look;
  }
  if (ends) j.reads_given = true, s.read_slot = s.read_slot + 1, s.read_phase = Phase::idle;
}

// Writes: for each round one command a destination.
static inline void give_writes(State &s, const In &in, PlaceRead &place) {
  if (s.scatter_valid && in.scatter.ready) s.scatter_valid = false;
  if (s.write_valid && in.write_command.ready) s.write_valid = false;
  Job &j = s.job[s.write_slot.to_uint()];
  bool ends = false;
  switch (s.write_phase) {
    case Phase::idle:
      s.write_offset = 0, s.write_left = j.length, s.write_row = 0;
      if (!j.parsed || j.writes_given) break;
      if (j.code) s.write_phase = Phase::round;
      else ends = true;
      break;
    case Phase::round:
      if (s.scatter_valid || !can_announce(s.destination_lines, j.crc)) break;
      s.scatter_valid = true;
      s.scatter_shape.rows = j.rows, s.scatter_shape.columns = columns_of(s.write_left), s.scatter_shape.user = 0;
      announce(s.destination_lines, j, s.write_slot, j.rows, j.crc_address + (ap_uint<25>(s.write_offset >> 12) << 7) + 64);
      s.write_phase = Phase::look;
      break;
    case Phase::look:
      if (s.write_valid || s.write_owners.full()) break;  // what is read is used in the next cycle, so that coefficients never wait for a command
      place.wanted = true, place.address = (s.write_slot, s.write_row);
      s.write_phase = Phase::give;
      break;
    default: {
      s.write_valid = true;
      s.write_owners.put(s.write_slot);
      s.write_move.function = MUTANT(25) ? ap_uint<6>(0) : j.function;
      s.write_move.address = s.place.q + s.write_offset, s.write_move.length = MUTANT(12) ? ap_uint<13>(4096) : of_round(s.write_left);
      j.writes = j.writes + 1;
      bool last = s.write_row + 1 == j.rows;
      s.write_row = last ? ap_uint<3>(0) : ap_uint<3>(s.write_row + 1);
      s.write_phase = last ? Phase::round : Phase::look;
      if (!last) break;
      ends = s.write_left <= 4096;
      s.write_offset = s.write_offset + 4096, s.write_left = s.write_left - 4096;
    }
  }
  if (ends) j.writes_given = true, s.write_slot = s.write_slot + 1, s.write_phase = Phase::idle;
}

}  // namespace job_queue
