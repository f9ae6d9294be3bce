// HTTP/1.1 in front of ControlApi, over any address that io::Network can listen on. The bytes are parsed by
// Boost.Beast; sockets, time and limits come from the World.
//
// Limits: 8 KiB of header, ControlApi::kMaxBody of body, 64 connections, 10 s to send a request, 60 s between two.
// Requests that carry an Origin (a browser's page speaking to a local port) are refused.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "control/api.hpp"
#include "io/network.hpp"

namespace luge::control {

class HttpServer {
 public:
  struct Options {
    io::Duration request_time = std::chrono::seconds(10);
    io::Duration idle_time = std::chrono::seconds(60);
    std::size_t connections = 64;
  };
  HttpServer(io::World& world, ControlApi& api, Options options) : world_(world), api_(api), options_(options) {}
  HttpServer(io::World& world, ControlApi& api) : HttpServer(world, api, Options()) {}

  Status listen(const std::string& address);
  std::string address() const { return listener_ ? listener_->address() : std::string(); }
  /// Ends the listener and all connections that are not busy with a request.
  void close();

 private:
  struct Connection {
    explicit Connection(std::unique_ptr<io::Stream> s) : stream(std::move(s)) {}
    std::unique_ptr<io::Stream> stream;
    std::string received;  // and not yet consumed
    io::Time deadline;     // for the bytes that are awaited
    bool busy = false;     // a request is being handled: no deadline
    bool done = false;
  };
  struct Request;
  io::Task<void> accept_loop();
  io::Task<void> sweep();
  io::Task<void> serve(std::shared_ptr<Connection> c);
  io::Task<bool> read_request(std::shared_ptr<Connection> c, Request& out);
  io::Task<bool> respond(std::shared_ptr<Connection> c, Answer answer, bool keep_alive);

  io::World& world_;
  ControlApi& api_;
  Options options_;
  std::unique_ptr<io::Listener> listener_;
  std::list<std::shared_ptr<Connection>> connections_;
  bool closed_ = false;
};

}  // namespace luge::control
