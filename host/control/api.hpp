// The HTTP API without HTTP: method, target and body in, status and JSON out (API.md). What speaks sockets is
// http/http_server.hpp; tests and the simulator call this.
#pragma once

#include <boost/json/value.hpp>
#include <string>

#include "control/control.hpp"

namespace luge::control {

struct Answer {
  unsigned status = 200;  ///< of HTTP
  boost::json::value body;
};

class ControlApi {
 public:
  static constexpr std::size_t kMaxBody = 64 << 10;
  explicit ControlApi(Control& control) : control_(control) {}
  /// Never fails: what is wrong with a request is in the answer, {"error": {"code", "text"}}.
  io::Task<Answer> handle(std::string method, std::string target, std::string body);

 private:
  io::Task<Answer> volume(std::string method, std::string name, std::string action, bool force, boost::json::object body);
  io::Task<Answer> move(std::string name, boost::json::object body);
  io::Task<Answer> recover(std::string name, boost::json::object body);
  io::Task<Answer> rebuild(boost::json::object body);
  Answer create(const boost::json::object& body);
  io::Task<Answer> resize(std::string name, boost::json::object body);
  io::Task<Answer> flush(std::string name, boost::json::object body);
  io::Task<Answer> attach(std::string name, boost::json::object body);
  Control& control_;
};

/// {"error": ...} with the HTTP status that fits the code.
Answer error_answer(const Status& status);

}  // namespace luge::control
