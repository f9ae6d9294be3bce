// The real Files: O_DIRECT files and block devices. Private to host/io.
#pragma once

#include <memory>

#include "io/files.hpp"
#include "io/real_world.hpp"

namespace luge::io {
std::unique_ptr<Files> make_real_files(RealWorld& world);
}
