// The HTTP server over a real socket, against clients that behave badly.
#include "control/http_server.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <thread>

#include "io/real_world.hpp"

namespace luge::control {
namespace {

using namespace std::chrono_literals;

class HttpTest : public testing::Test {
 protected:
  HttpTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "luge-http-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ + "/s";
    std::promise<void> ready;
    thread_ = std::thread([this, &ready] { run(ready); });
    ready.get_future().get();
  }
  ~HttpTest() override {
    io::RealWorld* w = world_;
    w->post([w] { w->stop(); });
    thread_.join();
    std::filesystem::remove_all(directory_);
  }
  void run(std::promise<void>& ready) {
    io::RealWorld world;
    Options o;
    o.listen = "unix:" + directory_ + "/c";
    Control control(world, o, std::make_unique<MemoryStore>(MemoryStore::make_image(42)));
    ControlApi api(control);
    HttpServer::Options limits;
    limits.request_time = 500ms;
    limits.idle_time = 1s;
    limits.connections = 4;
    HttpServer server(world, api, limits);
    EXPECT_TRUE(server.listen("unix:" + path_).ok());
    world_ = &world;
    world.post([&ready] { ready.set_value(); });
    EXPECT_TRUE(world.run());
  }

  class Client {
   public:
    explicit Client(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
      sockaddr_un a{};
      a.sun_family = AF_UNIX;
      std::strncpy(a.sun_path, path.c_str(), sizeof a.sun_path - 1);
      EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
      timeval limit{10, 0};
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    ~Client() { ::close(fd_); }
    bool send(const std::string& s) {
      for (std::size_t done = 0; done < s.size();) {
        ssize_t n = ::send(fd_, s.data() + done, s.size() - done, MSG_NOSIGNAL);
        if (n <= 0) return false;
        done += static_cast<std::size_t>(n);
      }
      return true;
    }
    /// Until the server closes, or `want` has been seen.
    std::string receive(const std::string& want = "\n\n\n\n") {
      std::string all;
      char chunk[4096];
      while (all.find(want) == std::string::npos) {
        ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
        if (n <= 0) break;
        all.append(chunk, static_cast<std::size_t>(n));
      }
      return all;
    }

   private:
    int fd_;
  };
  std::string ask(const std::string& request) {
    Client c(path_);
    c.send(request);
    return c.receive();
  }
  static bool status_is(const std::string& answer, int status) {
    return answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
  }

  std::string directory_, path_;
  io::RealWorld* world_ = nullptr;
  std::thread thread_;
};

const std::string kClose = "Host: x\r\nConnection: close\r\n";

TEST_F(HttpTest, Answers) {
  std::string a = ask("GET /v1/status HTTP/1.1\r\n" + kClose + "\r\n");
  EXPECT_TRUE(status_is(a, 200)) << a;
  EXPECT_NE(a.find("\"unit\":42"), std::string::npos) << a;
}

TEST_F(HttpTest, ServesSeveralRequestsOnOneConnection) {
  Client c(path_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(c.send("GET /v1/volumes HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT_TRUE(status_is(c.receive("]}"), 200));
  }
  ASSERT_TRUE(c.send("GET /v1/volumes HTTP/1.1\r\nHost: x\r\n\r\nGET /zzz HTTP/1.1\r\n" + kClose + "\r\n"));
  std::string both = c.receive();
  EXPECT_NE(both.find("HTTP/1.1 404"), std::string::npos) << both;
}

TEST_F(HttpTest, TakesABodyInPieces) {
  Client c(path_);
  c.send("POST /v1/volumes HTTP/1.1\r\n" + kClose + "Content-Length: 42\r\n\r\n{\"name\":");
  std::this_thread::sleep_for(50ms);
  c.send("\"v\",\"size\":4096,\"layout\":\"4+2\"}     ");
  std::string a = c.receive();
  EXPECT_TRUE(status_is(a, 503)) << a;  // no sleds here; the body was understood
}

TEST_F(HttpTest, RefusesWhatIsNotHttpOrTooLarge) {
  EXPECT_TRUE(status_is(ask("\x16\x03\x01 hello\r\n\r\n"), 400));
  EXPECT_TRUE(status_is(ask("GET /v1/status HTTP/1.1\r\n" + kClose + "X: " + std::string(20'000, 'x') + "\r\n\r\n"), 431));
  EXPECT_TRUE(status_is(ask("POST /v1/volumes HTTP/1.1\r\n" + kClose + "Content-Length: 99999999999\r\n\r\n"), 413));
  EXPECT_TRUE(status_is(ask("POST /v1/volumes HTTP/1.1\r\n" + kClose + "Content-Length: -1\r\n\r\n"), 400));
  EXPECT_TRUE(status_is(ask("POST /v1/volumes HTTP/1.1\r\n" + kClose + "Transfer-Encoding: chunked\r\n\r\nffffff\r\n" +
                            std::string(200'000, 'x')), 413));
  EXPECT_TRUE(status_is(ask("POST /v1/volumes HTTP/1.1\r\n" + kClose + "Content-Length: 4\r\n\r\n{{{{"), 400));
  EXPECT_TRUE(status_is(ask("GET /v1/status HTTP/1.1\r\nOrigin: http://evil\r\n" + kClose + "\r\n"), 403));
  EXPECT_TRUE(status_is(ask("GET /nowhere HTTP/1.1\r\n" + kClose + "\r\n"), 404));
  EXPECT_TRUE(status_is(ask("GET /v1/status HTTP/1.1\r\n" + kClose + "\r\n"), 200)) << "and still serves";
}

TEST_F(HttpTest, ClosesOnSlowRequestsAndServesOthersMeanwhile) {
  Client slow(path_), half(path_);
  slow.send("GET /v1/sta");
  half.send("POST /v1/volumes HTTP/1.1\r\n" + kClose + "Content-Length: 50\r\n\r\n{");
  EXPECT_TRUE(status_is(ask("GET /v1/status HTTP/1.1\r\n" + kClose + "\r\n"), 200));
  auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(slow.receive(), "");
  EXPECT_EQ(half.receive(), "");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 8s);
}

TEST_F(HttpTest, BoundsItsConnections) {
  {
    std::vector<std::unique_ptr<Client>> many;
    for (int i = 0; i < 8; ++i) many.push_back(std::make_unique<Client>(path_));
    EXPECT_EQ(many.back()->receive(), "") << "one too many";
  }
  std::string a;
  for (int i = 0; i < 50 && !status_is(a, 200); ++i) {
    std::this_thread::sleep_for(20ms);
    a = ask("GET /v1/status HTTP/1.1\r\n" + kClose + "\r\n");
  }
  EXPECT_TRUE(status_is(a, 200));
}

}  // namespace
}  // namespace luge::control
