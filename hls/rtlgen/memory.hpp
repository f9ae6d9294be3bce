// What the step function can load from and store to: State, In, Out, locals, constant tables. Each is a list of pieces
// that cover it without gaps; a store splits pieces, a load joins them, so any offset and width works.
#pragma once
#include <memory>
#include <vector>

#include "dag.hpp"
#include "layout.hpp"

namespace rtlgen {
struct Piece {
  int64_t offset, size;
  Id value;
};
struct Object {
  std::vector<Piece> pieces;
};
// Copy on write: blocks share what they don't change.
using Memory = std::vector<std::shared_ptr<const Object>>;

Id load(Dag &dag, const Object &object, int64_t offset, int64_t size);
void store(Dag &dag, Object &object, int64_t offset, Id value);
// Chosen object per condition: conditions[i] selects objects[i]; the last is the default.
std::shared_ptr<const Object> merge(Dag &dag, const std::vector<Id> &conditions, const std::vector<std::shared_ptr<const Object>> &objects);
}  // namespace rtlgen
