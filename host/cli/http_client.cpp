#include "cli/http_client.hpp"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>

#include "cli/exit_codes.hpp"

namespace luge::cli {
namespace {

namespace http = boost::beast::http;
namespace json = boost::json;

constexpr std::size_t kMaxAnswer = 64 << 20;

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { if (fd_ >= 0) ::close(fd_); }
  Socket(Socket&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  int fd() const { return fd_; }

 private:
  int fd_;
};

Status not_reached(const std::string& address) {
  return Status(Code::unavailable, "the control plane does not answer at " + address + " (" + std::strerror(errno) +
                                       "): is the unit up? `luge unit status` tells");
}

Result<Socket> connect_unix(const std::string& address) {
  std::string path = address.substr(5);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof a.sun_path) return Status(Code::invalid, "'" + path + "' is no path for a socket");
  std::memcpy(a.sun_path, path.data(), path.size());
  Socket s(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (s.fd() < 0 || ::connect(s.fd(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) return not_reached(address);
  return s;
}

Result<Socket> connect_tcp(const std::string& address) {
  std::size_t colon = address.rfind(':');
  if (colon <= 4) return Status(Code::invalid, "'" + address + "': give tcp:HOST:PORT");
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  std::string host = address.substr(4, colon - 4), port = address.substr(colon + 1);
  if (int rc = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list); rc != 0)
    return Status(Code::unavailable, address + ": " + ::gai_strerror(rc));
  Status last;
  for (addrinfo* a = list; a != nullptr; a = a->ai_next) {
    Socket s(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    if (s.fd() >= 0 && ::connect(s.fd(), a->ai_addr, a->ai_addrlen) == 0) {
      ::freeaddrinfo(list);
      return s;
    }
    last = not_reached(address);
  }
  ::freeaddrinfo(list);
  return last.ok() ? not_reached(address) : last;
}

Status send_all(int fd, const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    ssize_t n = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::unavailable, std::string("the control plane hung up: ") + std::strerror(errno));
    done += static_cast<std::size_t>(n);
  }
  return Status();
}

Result<http::response<http::string_body>> receive(int fd) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswer);
  parser.eager(true);
  std::string received;
  char chunk[16384];
  while (!parser.is_done()) {
    ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      return Status(Code::timed_out, "the control plane took too long to answer");
    if (n <= 0) return Status(Code::unavailable, "the control plane hung up");
    received.append(chunk, static_cast<std::size_t>(n));
    boost::system::error_code error;
    std::size_t used = 0;
    do {
      used = parser.put(boost::asio::buffer(received), error);
      received.erase(0, used);
    } while (!error && used != 0 && !received.empty() && !parser.is_done());
    if (error && error != http::error::need_more)
      return Status(Code::corrupt, "the answer is not HTTP: " + error.message());
  }
  return parser.release();
}

}  // namespace

Result<json::value> http_request(const std::string& address, const std::string& method, const std::string& target,
                                 const json::value* body, std::chrono::seconds timeout, unsigned* http_status) {
  bool is_unix = address.starts_with("unix:");
  if (!is_unix && !address.starts_with("tcp:"))
    return Status(Code::invalid, "'" + address + "' is no address: give unix:PATH or tcp:HOST:PORT");
  auto socket = is_unix ? connect_unix(address) : connect_tcp(address);
  if (!socket.ok()) return socket.status();
  timeval limit{static_cast<time_t>(timeout.count()), 0};
  ::setsockopt(socket->fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(socket->fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  std::string content = body ? json::serialize(*body) : std::string();
  Status sent = send_all(socket->fd(), method + " " + target + " HTTP/1.1\r\nHost: luge\r\nConnection: close\r\n" +
                                           "Content-Type: application/json\r\nContent-Length: " +
                                           std::to_string(content.size()) + "\r\n\r\n" + content);
  if (!sent.ok()) return sent;
  auto answer = receive(socket->fd());
  if (!answer.ok()) return answer.status();
  if (http_status) *http_status = answer->result_int();
  boost::system::error_code error;
  json::value v = json::parse(answer->body(), error);
  if (error) return Status(Code::corrupt, "the control plane's answer is not JSON");
  if (answer->result_int() < 400) return v;
  const json::object* e = v.is_object() && v.get_object().contains("error") ? v.at("error").if_object() : nullptr;
  auto text = [&](const char* key) {
    const json::value* s = e ? e->if_contains(key) : nullptr;
    return s && s->is_string() ? std::string(s->get_string()) : std::string();
  };
  return Status(code_of_name(text("code")), text("text"));
}

}  // namespace luge::cli
