#include "io/files.hpp"

namespace luge::io {

Task<Status> BlockFile::read(std::uint64_t offset, Buffer into) { co_return co_await read(offset, into.mutable_bytes()); }

Task<Status> BlockFile::grow(std::uint64_t) { co_return Status(Code::invalid, "it has a fixed size"); }

}  // namespace luge::io
