#include <boost/json.hpp>
#include <iostream>

#include "cli/commands.hpp"
#include "cli/format.hpp"
#include "cli/http_client.hpp"

namespace luge::cli {

namespace json = boost::json;

Result<std::string> Context::address() const {
  if (!api.empty()) return api;
  if (unit.empty())
    return Status(Code::invalid, "which unit? Give --unit DIR, or set LUGE_UNIT to its directory");
  auto u = Unit::open(unit);
  if (!u.ok()) return u.status();
  return u->http();
}

Result<json::value> Context::get(const std::string& target) const {
  auto a = address();
  if (!a.ok()) return a.status();
  return http_request(*a, "GET", target, nullptr, std::chrono::seconds(20));
}

Result<json::value> Context::request(const std::string& method, const std::string& target, const json::value& body,
                                     int timeout_seconds, unsigned* http_status) const {
  auto a = address();
  if (!a.ok()) return a.status();
  return http_request(*a, method, target, &body, std::chrono::seconds(timeout_seconds), http_status);
}

std::string text_of(const json::value& v, std::string_view key) {
  const json::value* s = v.is_object() ? v.get_object().if_contains(key) : nullptr;
  return s && s->is_string() ? std::string(s->get_string()) : std::string();
}

std::uint64_t number_of(const json::value& v, std::string_view key) {
  const json::value* n = v.is_object() ? v.get_object().if_contains(key) : nullptr;
  boost::system::error_code error;
  std::uint64_t value = n && n->is_number() ? n->to_number<std::uint64_t>(error) : 0;
  return error ? 0 : value;
}

const json::array& array_of(const json::value& v, std::string_view key) {
  static const json::array none;
  const json::value* a = v.is_object() ? v.get_object().if_contains(key) : nullptr;
  return a && a->is_array() ? a->get_array() : none;
}

std::string joined(const json::array& names) {
  std::string out;
  for (const json::value& n : names)
    if (n.is_string()) out += (out.empty() ? "" : " ") + std::string(n.get_string());
  return out;
}

std::string figure(const json::value& v, std::string_view key, bool bytes) {
  const json::value* n = v.is_object() ? v.get_object().if_contains(key) : nullptr;
  if (n == nullptr || !n->is_number()) return "?";
  return bytes ? human_bytes(number_of(v, key)) : std::to_string(number_of(v, key));
}

void print_json(const json::value& value) { std::cout << json::serialize(value) << std::endl; }

}  // namespace luge::cli
