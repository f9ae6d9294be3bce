// What the job queue keeps: its ports, the jobs in flight and the places of its parts. step.hpp says what it does.
#pragma once
#include "hls/lib/axi.h"
#include "hls/lib/fifo.h"
#include "hls/lib/mutant.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
#include "hls/registers/card.h"
#include "hls/transposer/step.hpp"

namespace job_queue {
using luge_card::JobStatus;
using luge_card::Op;
static const int SLOTS = 4;         // jobs in flight
static const int SOURCES = 16, ROWS = 4, TABLES = 4;
static const int PLACES = 8;        // destinations in a descriptor, and words of coefficients
static const int OWNERS = 32;       // commands given and not ended, at most
static const int LINES = 4;         // lines of CRCs on their way
static const int FENCES = 64;       // entry 0: none
typedef ap_uint<2> Slot;

struct Move { ap_uint<64> address; ap_uint<24> length; ap_uint<6> function; };
struct In {
  // registers
  bool run, drain, clear;
  ap_uint<64> ring_base, completion_base, window_base, window_end;
  ap_uint<4> ring_size;
  ap_uint<24> timeout;
  struct { bool valid; ap_uint<32> value; } submitted;
  struct { bool valid; ap_uint<6> entry; ap_uint<64> epoch; } fence;  // from now on
  // the queue's own memory port
  axi::ReadInOf<axi::Words> m_axi_r;
  axi::WriteIn m_axi_w;
  // the movers
  struct { bool ready; } read_command, write_command, gather, scatter;
  struct { bool valid; ap_uint<3> fail; } read_done, write_done;
  struct { bool valid; ap_uint<32> value; } source_crc, destination_crc;
  HLS_MUTANT_INPUT
};
struct Out {
  axi::ReadOut m_axi_r;
  axi::WriteOutOf<axi::Words> m_axi_w;
  struct { bool valid; Move move; } read_command, write_command;
  struct { bool valid; transposer::Round shape; } gather, scatter;  // rounds of the sources and of the destinations
  struct { bool valid; ap_uint<2> select; ap_uint<2> row; ap_uint<4> source; ap_uint<8> value; } load;
  ap_uint<32> submitted_now, completed, jobs_failed;
  ap_uint<6> set_fault;
  bool completion, idle, stopped;
};

// CRCs of one side, gathered into lines of 16. A round announces itself before its CRCs come.
struct Round { Slot slot; bool wanted; ap_uint<5> count; ap_uint<64> address; };
struct Target { Slot slot; ap_uint<64> address; };
struct Lines {
  fifo<Round, 8> rounds;
  ap_uint<32> line[16];
  ap_uint<5> have = 0;
  bool complete = false;  // `line` holds a line to keep
  ap_uint<5> complete_count;
  Target complete_target;
  rams<ap_uint<64>, LINES, 8> kept;
  fifo<Target, LINES> targets;
  ap_uint<2> head = 0, tail = 0;
  bool fetched = false;
  ap_uint<3> open = 0;  // wanted rounds announced whose line has not left
};

struct Job {
  bool parsed = false, reads_given = false, writes_given = false;
  bool code, load, crc;
  ap_uint<5> sources;
  ap_uint<3> rows;
  ap_uint<2> table;
  ap_uint<25> length;
  ap_uint<6> function;
  ap_uint<64> cookie, crc_address;
  ap_uint<8> status;
  ap_uint<32> index, arrived, started;
  ap_uint<8> reads = 0, writes = 0, lines = 0;  // given and not ended
};
enum class Phase { idle, round, look, give, load_look, load_wait, load_give };
enum class Kind { completion, source_line, destination_line };
struct Pending { Kind kind; Slot slot; };

struct State {
  Job job[SLOTS];
  ram<ap_uint<64>, SLOTS * SOURCES> source;
  ram<ap_uint<64>, SLOTS * PLACES> place;
  ap_uint<4> tables = 0;  // loaded
  ap_uint<32> now = 0;
  // doorbell
  ap_uint<32> submitted = 0, fetched = 0, retired = 0, completed = 0, failed = 0;
  bool bad_doorbell = false;
  // fetch and check
  bool ar_valid = false;
  ap_uint<64> ar_address;
  ap_uint<3> reserved = 0;   // slots taken
  ap_uint<5> owed = 0;       // beats
  Slot fetch_slot = 0;
  ap_uint<32> fetch_index = 0;  // of the descriptor that arrives next
  ap_uint<2> beat = 0;
  bool unpacking = false, fetch_failed = false;
  ap_uint<2> unpack_beat;
  ap_uint<3> unpack_word = 0;
  axi::Words words;
  bool outside, overlap, fenced;
  ap_uint<8> found;             // status of the header
  ap_uint<64> epoch;            // of the header
  ram<ap_uint<64>, FENCES> fences;  // lowest epochs
  ap_uint<64> destination[ROWS], destination_end[ROWS];
  bool destination_set[ROWS];
  // reads
  Phase read_phase = Phase::idle;
  Slot read_slot = 0;
  fifo<Slot, OWNERS> read_owners;  // of the commands given and not ended
  ap_uint<25> read_offset, read_left;
  ap_uint<4> read_source;
  bool gather_valid = false, read_valid = false;
  transposer::Round gather_shape;
  Move read_move;
  // coefficients
  ap_uint<3> load_word;
  ap_uint<3> load_byte;
  ap_uint<64> load_data;
  // writes
  Phase write_phase = Phase::idle;
  Slot write_slot = 0;
  fifo<Slot, OWNERS> write_owners;
  ap_uint<25> write_offset, write_left;
  ap_uint<3> write_row;
  bool scatter_valid = false, write_valid = false;
  transposer::Round scatter_shape;
  Move write_move;
  // CRCs, completions
  Lines source_lines, destination_lines;
  Slot retire_slot = 0;
  fifo<Pending, 8> pending;
  bool aw_valid = false, w_valid = false;
  ap_uint<64> aw_address;
  axi::Words w_data;
  bool completion = false, completion_error = false, job_failed = false;
  // stop
  bool stopped = false, clear_wanted = false;
  ap_uint<24> waited = 0;
};

static inline ap_uint<13> entries(ap_uint<4> ring_size) { return ap_uint<13>(1) << (ring_size > 12 ? ap_uint<4>(12) : ap_uint<4>(ring_size)); }

}  // namespace job_queue
