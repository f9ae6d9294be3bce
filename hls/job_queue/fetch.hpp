// The front of the job queue: descriptors out of the ring, checked, into slots.
#pragma once
#include "hls/job_queue/state.hpp"

namespace job_queue {

// Counted from the completions that have left, answered or not: the host may see one, and use its entry, before the card hears.
static inline void doorbell(State &s, const In &in) {
  s.bad_doorbell = false;
  if (!in.submitted.valid) return;
  ap_uint<32> ahead = in.submitted.value - s.retired, before = s.submitted - s.retired;
  if ((ahead <= entries(in.ring_size) || MUTANT(1)) && ahead >= before) s.submitted = in.submitted.value;
  else s.bad_doorbell = true;
}

// The first thing wrong with a header, or ok. What is wrong with addresses shows later.
static inline ap_uint<8> check_header(const State &s, const In &in, const axi::Words &w) {
  ap_uint<64> a = w.lane[0], length = w.lane[1], crc = w.lane[3];
  ap_uint<8> version = a, op = a >> 8, sources = a >> 16, rows = a >> 24, table = a >> 32, flags = a >> 40;
  bool code = op == Op::code, load = op == Op::load_table;
  bool with_crc = code && flags[0];
  if (version != 1) return JobStatus::bad_version;
  if ((!code && !load && op != Op::nothing) || (flags & (code ? 0xfe : 0xff)) != 0) return MUTANT(2) ? JobStatus::ok : JobStatus::bad_op;
  if ((ap_uint<8>(a >> 48) & 0xc0) != 0) return JobStatus::bad_function;
  if (code && (ap_uint<8>(a >> 56) & 0xc0) != 0) return JobStatus::bad_fence;
  if (code && (sources == 0 || sources > SOURCES)) return JobStatus::bad_sources;
  if (code && (rows == 0 || rows > (MUTANT(3) ? 8 : ROWS))) return JobStatus::bad_rows;
  if ((code || load) && (table >= TABLES || (code && !s.tables[table.to_uint() & 3] && !MUTANT(4)))) return JobStatus::bad_table;
  ap_uint<32> n = length;
  if (code && (n == 0 || n > luge_card::MAX_LENGTH || (with_crc && (n & 63) != 0))) return JobStatus::bad_length;
  if (with_crc && (crc & 127) != 0) return JobStatus::misaligned;
  ap_uint<65> end = ap_uint<65>(crc) + ((n + 4095) >> 12 << 7);
  if (with_crc && (crc < in.window_base || end > in.window_end)) return JobStatus::outside;
  return JobStatus::ok;
}

// One address of a job: inside the window, and clear of all destinations before it.
static inline void check_address(State &s, const In &in, ap_uint<64> a, ap_uint<25> length) {
  ap_uint<65> end = ap_uint<65>(a) + length;
  if ((a < in.window_base && !MUTANT(5)) || (end > in.window_end && !MUTANT(6))) s.outside = true;
  for (int r = 0; r < ROWS; r++)
    if (s.destination_set[r] && a < s.destination_end[r] && s.destination[r] < end && !MUTANT(7)) s.overlap = true;
}

static inline void unpack(State &s, const In &in) {
  Job &j = s.job[s.fetch_slot.to_uint()];
  ap_uint<64> word = s.words.lane[s.unpack_word.to_uint()];
  bool done = s.unpack_word == 7;
  if (s.unpack_beat == 0) {  // the whole header at once
    done = true;
    ap_uint<64> a = s.words.lane[0];
    ap_uint<8> op = a >> 8, flags = a >> 40;
    j.code = op == Op::code, j.load = op == Op::load_table, j.crc = op == Op::code && flags[0];
    j.sources = a >> 16, j.rows = a >> 24, j.table = a >> 32, j.function = a >> 48;
    j.length = s.words.lane[1], j.cookie = s.words.lane[2], j.crc_address = s.words.lane[3];
    j.index = s.fetch_index, j.arrived = s.now;
    s.found = check_header(s, in, s.words);
    s.outside = s.overlap = false;
    ap_uint<6> fence = a >> 56;
    s.fenced = fence != 0, s.epoch = s.words.lane[4];
    s.fences.read(fence);
    for (int r = 0; r < ROWS; r++) s.destination_set[r] = false;
  } else if (s.unpack_beat == 1) {
    s.place.write((s.fetch_slot, s.unpack_word), word);
    if (s.unpack_word < j.rows && s.unpack_word < ROWS) {
      check_address(s, in, word, j.length);
      ap_uint<2> r = s.unpack_word;
      s.destination[r.to_uint()] = word, s.destination_end[r.to_uint()] = word + j.length, s.destination_set[r.to_uint()] = true;
    }
  } else {
    ap_uint<4> n = (ap_uint<1>(s.unpack_beat.test(0)), s.unpack_word);
    s.source.write((s.fetch_slot, n), word);
    if (n < j.sources) check_address(s, in, word, j.length);
  }
  s.unpack_word = done ? ap_uint<3>(0) : ap_uint<3>(s.unpack_word + 1);
  if (!done) return;
  s.unpacking = false;
  if (s.unpack_beat != 3) return;
  ap_uint<8> status = s.found;
  if (status == JobStatus::ok && j.code) status = s.outside ? JobStatus::outside : s.overlap ? JobStatus::overlap : s.fenced && s.epoch < s.fences.q && !MUTANT(26) ? JobStatus::fenced : JobStatus::ok;
  if (s.fetch_failed && !MUTANT(8)) status = JobStatus::fetch_error, j.cookie = 0;
  if (status == JobStatus::ok && j.load) s.tables[j.table.to_uint()] = true;
  if (status != JobStatus::ok) j.code = j.load = j.crc = false;
  j.status = status, j.parsed = true;
  s.fetch_failed = false;
  s.fetch_slot = s.fetch_slot + 1, s.fetch_index = s.fetch_index + 1;
}

// `arrived`: a beat is taken in this cycle.
static inline void fetch(State &s, const In &in, bool arrived) {
  if (s.unpacking) unpack(s, in);
  if (arrived && !s.stopped) {
    s.words = in.m_axi_r.rdata;
    s.unpacking = true, s.unpack_beat = s.beat;
    if (in.m_axi_r.rresp != axi::OKAY || in.m_axi_r.rlast != (s.beat == 3)) s.fetch_failed = true;
    s.beat = s.beat + 1;
  }
  bool taken = s.ar_valid && in.m_axi_r.arready;
  bool issue = (!s.ar_valid || taken) && in.run && !in.drain && !s.stopped && s.fetched != s.submitted && s.reserved < SLOTS;
  if (taken) s.ar_valid = false;
  if (issue) {
    ap_uint<12> entry = s.fetched & (entries(in.ring_size) - 1);
    s.ar_valid = true;
    s.ar_address = (in.ring_base & ~ap_uint<64>(4095)) + (ap_uint<20>(entry) << (MUTANT(9) ? 7 : 8));
    s.fetched = s.fetched + 1;
    s.reserved = s.reserved + 1;
  }
  s.owed = s.owed + (issue ? 4 : 0) - (arrived ? 1 : 0);
}

}  // namespace job_queue
