// Requests to the HTTP API, as any client may send them: each gets an answer with a status that HTTP knows, and the store
// stays one that heads can be told.
#include "base/logging.hpp"
#include "control/api.hpp"
#include "sim/cluster/simulation.hpp"

namespace {

using namespace luge;
using namespace luge::control;

struct Daemon {
  Daemon(io::World& w) : control(w, options(), std::make_unique<MemoryStore>(MemoryStore::make_image(5))), api(control) { w.spawn("control", run()); }
  static Options options() {
    Options o;
    o.listen = "tcp:control:1";
    return o;
  }
  io::Task<void> run() {
    Status s = co_await control.start();
    LUGE_CHECK(s.ok());
  }
  Control control;
  ControlApi api;
};

class Words {
 public:
  Words(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  std::uint8_t byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  std::string text() {
    std::size_t n = std::min<std::size_t>(byte(), size_);
    std::string s(reinterpret_cast<const char*>(data_), n);
    data_ += n;
    size_ -= n;
    return s;
  }
  /// One of the words that the API knows, or anything.
  template <std::size_t N>
  std::string one_of(const char* const (&known)[N]) {
    std::size_t i = byte() % (N + 1);
    return i == N ? text() : known[i];
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

constexpr const char* kMethods[] = {"GET", "POST", "DELETE", "PUT"};
constexpr const char* kTargets[] = {"/v1/status", "/v1/events", "/v1/volumes", "/v1/volumes/a", "/v1/volumes/a/flush",
                                    "/v1/volumes/a/attach", "/v1/volumes/a/detach", "/v1/volumes/a?force=true", "/v1/volumes/"};
constexpr const char* kBodies[] = {"", "{\"name\":\"a\",\"size\":1048576,\"layout\":\"2+1\"}", "{\"wait\":true,\"timeout_ms\":10}",
                                   "{\"nbd\":\"unix:/x\",\"node\":\"n\",\"take_over\":true}", "{\"size\":-1}", "[[[[[[[[[]]]]]]]]]"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = logging::setup("fuzz", "off");
  (void)quiet;
  Words in(data, size);
  sim::Simulation sim(1);
  std::shared_ptr<Daemon> daemon;
  sim::Node node = sim.add_node("control", [&](io::World& w) { return daemon = std::make_shared<Daemon>(w); });
  sim.run_for(std::chrono::milliseconds(10));
  for (int n = 0; n < 4 && !in.empty(); ++n) {
    auto ask = [](ControlApi& api, std::string method, std::string target, std::string body) -> io::Task<void> {
      Answer a = co_await api.handle(std::move(method), std::move(target), std::move(body));
      LUGE_CHECK(a.status >= 200 && a.status < 600 && a.body.is_object());
    };
    std::string method = in.one_of(kMethods), target = in.one_of(kTargets), body = in.one_of(kBodies);
    sim.run(node, ask(daemon->api, method, target, body));
    for (const auto& [vp, d] : daemon->control.store().image().designations) LUGE_CHECK(d.well_formed().ok());
  }
  daemon.reset();
  return 0;
}
