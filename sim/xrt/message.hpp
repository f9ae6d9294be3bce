// Bodies of the messages between XRT's emulation shim and a simulator: fields of protocol-buffers version 2, as far as they are
// used. Integers are varints; strings and bytes are a length and what follows. Field order is free, unknown fields are skipped.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace luge::xrt_sim {

/// What the other side sent makes no sense: the connection is worth nothing any more.
struct BadMessage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Writer {
 public:
  Writer& number(unsigned field, std::uint64_t value) {
    varint(field << 3);
    varint(value);
    return *this;
  }
  Writer& bytes(unsigned field, std::string_view value) {
    std::memcpy(room(field, value.size()), value.data(), value.size());
    return *this;
  }
  /// Where `size` bytes of the field are to be written.
  char* room(unsigned field, std::size_t size) {
    varint(field << 3 | 2);
    varint(size);
    std::size_t at = out_.size();
    out_.resize(at + size);
    return out_.data() + at;
  }
  const std::string& text() const { return out_; }
  void clear() { out_.clear(); }

 private:
  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) out_.push_back(static_cast<char>(v | 0x80));
    out_.push_back(static_cast<char>(v));
  }
  std::string out_;
};

/// Fields one by one: while (r.next()) switch (r.field()) { case 1: address = r.number(); break; }
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  bool next() {
    if (in_.empty()) return false;
    std::uint64_t key = varint();
    field_ = static_cast<unsigned>(key >> 3);
    number_ = 0;
    bytes_ = {};
    switch (key & 7) {
      case 0: number_ = varint(); break;
      case 1: bytes_ = take(8); break;
      case 2: bytes_ = take(varint()); break;
      case 5: bytes_ = take(4); break;
      default: throw BadMessage("a field of an unknown kind");
    }
    return true;
  }
  unsigned field() const { return field_; }
  std::uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }

 private:
  std::uint64_t varint() {
    std::uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (in_.empty()) throw BadMessage("a message ends within a number");
      auto b = static_cast<unsigned char>(in_[0]);
      in_.remove_prefix(1);
      v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
      if (b < 0x80) return v;
    }
    throw BadMessage("a number of more than 64 bits");
  }
  std::string_view take(std::uint64_t n) {
    if (n > in_.size()) throw BadMessage("a message ends within a field");
    std::string_view r = in_.substr(0, n);
    in_.remove_prefix(n);
    return r;
  }
  std::string_view in_, bytes_;
  unsigned field_ = 0;
  std::uint64_t number_ = 0;
};

}  // namespace luge::xrt_sim
