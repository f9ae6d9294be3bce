// The one way rtlgen refuses a kernel: a place, what is wrong, how the code came to be there, what to write instead.
#pragma once
#include <string>
#include <vector>

namespace rtlgen {
struct Place {
  std::string file;
  unsigned line = 0, column = 0;
};
struct Error {
  std::vector<Place> places;  // innermost first; the rest is the inlining chain
  std::string what, advice;
};
std::string to_string(const Error &error);
}  // namespace rtlgen
