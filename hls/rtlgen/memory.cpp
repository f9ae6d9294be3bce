#include "memory.hpp"

#include <algorithm>

namespace rtlgen {
namespace {
size_t find(const Object &o, int64_t offset) {
  auto it = std::upper_bound(o.pieces.begin(), o.pieces.end(), offset, [](int64_t v, const Piece &p) { return v < p.offset; });
  return (size_t)(it - o.pieces.begin()) - 1;
}
// A piece of a RAM's content has no width and is never split.
Id part(Dag &dag, const Piece &p, int64_t offset, int64_t size) {
  if (dag[p.value].width == 0) return p.value;
  return dag.slice(p.value, (unsigned)(offset - p.offset), (unsigned)size);
}
void store_one(Dag &dag, Object &o, int64_t offset, int64_t size, Id value) {
  size_t first = find(o, offset), last = find(o, offset + size - 1);
  std::vector<Piece> now;
  const Piece a = o.pieces[first], b = o.pieces[last];
  if (a.offset < offset) now.push_back({a.offset, offset - a.offset, part(dag, a, a.offset, offset - a.offset)});
  now.push_back({offset, size, value});
  if (int64_t end = offset + size, bend = b.offset + b.size; bend > end) now.push_back({end, bend - end, part(dag, b, end, bend - end)});
  if (now.size() == last - first + 1) {
    std::copy(now.begin(), now.end(), o.pieces.begin() + (long)first);
  } else {
    o.pieces.erase(o.pieces.begin() + (long)first, o.pieces.begin() + (long)last + 1);
    o.pieces.insert(o.pieces.begin() + (long)first, now.begin(), now.end());
  }
}
}  // namespace

Id load(Dag &dag, const Object &o, int64_t offset, int64_t size) {
  std::vector<Id> parts;
  for (size_t i = find(o, offset); i < o.pieces.size() && o.pieces[i].offset < offset + size; i++) {
    const Piece &p = o.pieces[i];
    int64_t from = std::max(offset, p.offset), to = std::min(offset + size, p.offset + p.size);
    parts.push_back(part(dag, p, from, to - from));
  }
  if (parts.size() == 1) return parts[0];
  std::reverse(parts.begin(), parts.end());
  return dag.cat(parts);
}

void store(Dag &dag, Object &o, int64_t offset, Id value) {
  unsigned width = dag[value].width;
  if (width == 0) {  // a RAM's content replaces the whole piece
    o.pieces[find(o, offset)].value = value;
    return;
  }
  if (dag[value].op != Op::Cat) return store_one(dag, o, offset, width, value);
  // A concatenation goes in as its byte-aligned parts, so that fields stay apart.
  std::vector<Id> parts = dag[value].args;
  unsigned start = 0, at = 0;
  for (auto it = parts.rbegin(); it != parts.rend(); ++it) {
    at += dag[*it].width;
    if (at % 8 == 0) {
      store_one(dag, o, offset + start, at - start, dag.slice(value, start, at - start));
      start = at;
    }
  }
  if (start < width) store_one(dag, o, offset + start, width - start, dag.slice(value, start, width - start));
}

std::shared_ptr<const Object> merge(Dag &dag, const std::vector<Id> &conditions, const std::vector<std::shared_ptr<const Object>> &objects) {
  std::vector<int64_t> cuts;
  for (auto &o : objects)
    for (auto &p : o->pieces) cuts.push_back(p.offset + p.size);
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  auto out = std::make_shared<Object>();
  std::vector<size_t> at(objects.size(), 0);
  int64_t begin = 0;
  for (int64_t end : cuts) {
    Id value = -1;
    for (size_t i = objects.size(); i-- > 0;) {
      while (objects[i]->pieces[at[i]].offset + objects[i]->pieces[at[i]].size <= begin) at[i]++;
      Id v = part(dag, objects[i]->pieces[at[i]], begin, end - begin);
      value = value < 0 ? v : dag.mux(conditions[i], v, value);
    }
    out->pieces.push_back({begin, end - begin, value});
    begin = end;
  }
  return out;
}
}  // namespace rtlgen
