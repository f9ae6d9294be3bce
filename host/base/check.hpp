// Assertions that stay on in release builds: a store that goes on after a broken invariant writes wrong bytes.
#pragma once

namespace luge {
[[noreturn]] void check_failed(const char* file, int line, const char* expression);
}

#define LUGE_CHECK(expr) \
  (__builtin_expect(static_cast<bool>(expr), 1) ? void(0) : ::luge::check_failed(__FILE__, __LINE__, #expr))
