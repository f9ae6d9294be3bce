// What State, In and Out hold, read from the debug information: bit offsets for loads and stores, names for RTL.
//
// Invariant: cells are sorted by offset and do not overlap; a cell's `vector` is the name of the register or port that
// holds it, in which it takes bits [vector_lo + width - 1 : vector_lo].
#pragma once
#include <llvm/IR/DebugInfoMetadata.h>

#include <cstdint>
#include <string>
#include <vector>

namespace rtlgen {

struct Cell {
  std::string path;  // C++ access path: s_axis.tdata.lane[3]
  std::string vector;
  unsigned vector_lo = 0;
  int64_t offset = 0;      // bits in the struct
  unsigned storage = 0;    // bits in the struct
  unsigned width = 0;      // bits that count
  bool is_signed = false;
  unsigned line = 0;
};
struct Vector {
  std::string name;
  unsigned width;
};
struct Ram {
  std::string name, path;
  int64_t offset = 0;
  unsigned storage = 0, width = 0, count = 0;
  bool is_signed = false;
};
struct Array {  // for variable indices: `count` elements `stride` bits apart
  int64_t offset, stride;
  uint64_t count;
};
struct Layout {
  int64_t size = 0;  // bits
  std::vector<Cell> cells;
  std::vector<Vector> vectors;
  std::vector<Ram> rams;
  std::vector<Array> arrays;
};

// Names are the member path joined by '_'. Throws Error for members that can't be hardware.
Layout make_layout(llvm::DIType *type, bool ports);

}  // namespace rtlgen
