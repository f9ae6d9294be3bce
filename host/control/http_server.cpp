#include "control/http_server.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/json.hpp>

#include "base/logging.hpp"

namespace luge::control {
namespace {

namespace http = boost::beast::http;

constexpr std::uint32_t kMaxHeader = 8 << 10;
constexpr std::size_t kReadBytes = 16 << 10;

std::string_view reason(unsigned status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 409: return "Conflict";
    case 413: return "Payload Too Large";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 507: return "Insufficient Storage";
    default: return "Internal Server Error";
  }
}

Answer refuse(unsigned status, const std::string& text) {
  Answer a = error_answer(Status(Code::invalid, text));
  a.status = status;
  return a;
}

}  // namespace

struct HttpServer::Request {
  std::string method, target, body;
  bool keep_alive = false;
  std::optional<Answer> refused;  // not to be handled: this is the answer, and the end of the connection
};

Status HttpServer::listen(const std::string& address) {
  auto listener = world_.network().listen(address);
  if (!listener.ok()) return listener.status();
  listener_ = std::move(*listener);
  world_.spawn("http accept", accept_loop());
  world_.spawn("http sweep", sweep());
  return Status();
}

void HttpServer::close() {
  closed_ = true;
  if (listener_) listener_->close();
  for (auto& c : connections_)
    if (!c->busy) c->stream->close();
}

io::Task<void> HttpServer::accept_loop() {
  while (!closed_) {
    auto stream = co_await listener_->accept();
    if (stream == nullptr) break;
    if (connections_.size() >= options_.connections) {
      logging::warn("http: {} connections are open, one more is refused", connections_.size());
      stream->close();
      continue;
    }
    auto c = std::make_shared<Connection>(std::move(stream));
    c->deadline = world_.now() + options_.request_time;
    connections_.push_back(c);
    world_.spawn("http connection", serve(c));
  }
}

// Ends connections that have been too slow.
io::Task<void> HttpServer::sweep() {
  while (!closed_) {
    co_await world_.sleep(std::chrono::seconds(1));
    for (auto& c : connections_)
      if (!c->busy && world_.now() >= c->deadline) c->stream->close();
  }
}

io::Task<void> HttpServer::serve(std::shared_ptr<Connection> c) {
  struct Leave {
    HttpServer& server;
    std::shared_ptr<Connection> c;
    ~Leave() {
      c->stream->close();
      server.connections_.remove(c);
    }
  } leave{*this, c};
  while (!closed_) {
    Request r;
    if (!co_await read_request(c, r)) break;
    c->busy = true;
    Answer answer;
    if (r.refused)
      answer = std::move(*r.refused);
    else
      answer = co_await api_.handle(r.method, r.target, r.body);
    bool keep = r.keep_alive && !r.refused && !closed_;
    bool sent = co_await respond(c, std::move(answer), keep);
    c->deadline = world_.now() + options_.idle_time;
    c->busy = false;
    if (!keep || !sent) break;
  }
}

// False: the peer is gone or too slow.
io::Task<bool> HttpServer::read_request(std::shared_ptr<Connection> c, Request& out) {
  http::request_parser<http::string_body> parser;
  parser.eager(true);
  parser.header_limit(kMaxHeader);
  parser.body_limit(ControlApi::kMaxBody);
  std::byte chunk[4096];
  while (!parser.is_done()) {
    boost::system::error_code error;
    std::size_t used = c->received.empty() ? 0 : parser.put(boost::asio::buffer(c->received), error);
    c->received.erase(0, used);
    if (error && error != http::error::need_more) {
      if (error == http::error::body_limit)
        out.refused = refuse(413, "the body is too long");
      else if (error == http::error::header_limit)
        out.refused = refuse(431, "the header is too long");
      else
        out.refused = refuse(400, "this is not HTTP: " + error.message());
      co_return true;
    }
    if (parser.is_done()) break;
    if (c->received.size() > kReadBytes + kMaxHeader) {
      out.refused = refuse(431, "the header is too long");
      co_return true;
    }
    if (used != 0 && !c->received.empty()) continue;
    std::size_t n = co_await c->stream->read_some(chunk);
    if (n == 0) co_return false;
    if (c->received.empty() && !parser.got_some()) c->deadline = world_.now() + options_.request_time;
    c->received.append(reinterpret_cast<const char*>(chunk), n);
  }
  const auto& m = parser.get();
  out.method = std::string(m.method_string());
  out.target = std::string(m.target());
  out.body = m.body();
  out.keep_alive = m.keep_alive();
  if (m.find(http::field::origin) != m.end()) out.refused = refuse(403, "requests from web pages are not answered");
  co_return true;
}

io::Task<bool> HttpServer::respond(std::shared_ptr<Connection> c, Answer answer, bool keep_alive) {
  std::string body = boost::json::serialize(answer.body) + "\n";
  std::string head = "HTTP/1.1 " + std::to_string(answer.status) + " " + std::string(reason(answer.status)) +
                     "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
                     "\r\nConnection: " + (keep_alive ? "keep-alive" : "close") + "\r\n\r\n";
  const Bytes parts[] = {as_bytes(head), as_bytes(body)};
  co_return co_await c->stream->write_all(parts);
}

}  // namespace luge::control
