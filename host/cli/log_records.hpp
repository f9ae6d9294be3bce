// What a record of a head's log and a pair of its metadata store say, in words and as JSON. Takes any bytes: a body is
// verified against its schema before a field of it is used.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "head/batch_format.hpp"

namespace luge::cli {

struct Described {
  std::string text;            ///< one line
  boost::json::object fields;  ///< the same, complete
  std::string damage;          ///< why it is not to be trusted; empty: every checksum is right
};

Described describe_record(const head::RecordView& record);
/// Of the keys that a head knows (docs/formats.md, "Metadata store"); other values are printed as their bytes.
Described describe_pair(std::string_view key, std::string_view value);

}  // namespace luge::cli
