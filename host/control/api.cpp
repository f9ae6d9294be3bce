#include "control/api.hpp"

#include <boost/json.hpp>
#include <charconv>

#include "control/status.hpp"

namespace luge::control {
namespace {

namespace json = boost::json;

constexpr io::Duration kRemoveWait = std::chrono::seconds(15);
constexpr std::int64_t kFlushTimeoutMs = 60'000, kMaxTimeoutMs = 3'600'000;

unsigned http_status(Code code) {
  switch (code) {
    case Code::ok: return 200;
    case Code::invalid: return 400;
    case Code::not_found: return 404;
    case Code::exists:
    case Code::conflict:
    case Code::fenced:
    case Code::stale:
    case Code::closed_session: return 409;
    case Code::forged:
    case Code::not_permitted:
    case Code::expired: return 403;
    case Code::unavailable:
    case Code::degraded: return 503;
    case Code::timed_out: return 504;
    case Code::no_space: return 507;
    default: return 500;
  }
}

// Reads members of a request; remembers the first that is of the wrong kind, and refuses those it was not asked for.
class Fields {
 public:
  explicit Fields(const json::object& o) : o_(o) {}
  std::string text(std::string_view key) {
    const json::value* v = get(key);
    if (v && !v->is_string()) wrong(key, "a string");
    return v && v->is_string() ? std::string(v->get_string()) : std::string();
  }
  bool flag(std::string_view key) {
    const json::value* v = get(key);
    if (v && !v->is_bool()) wrong(key, "true or false");
    return v && v->is_bool() && v->get_bool();
  }
  std::uint64_t number(std::string_view key, std::uint64_t otherwise) {
    const json::value* v = get(key);
    if (v == nullptr) return otherwise;
    boost::system::error_code error;
    std::uint64_t n = v->is_number() && !v->is_double() ? v->to_number<std::uint64_t>(error) : 0;
    if (!v->is_number() || v->is_double() || error) wrong(key, "a whole number that is not negative");
    return n;
  }
  Status status() const {
    if (!status_.ok()) return status_;
    for (const auto& member : o_)
      if (std::find(asked_.begin(), asked_.end(), member.key()) == asked_.end())
        return Status(Code::invalid, "unknown member '" + std::string(member.key().substr(0, 64)) + "'");
    return Status();
  }

 private:
  const json::value* get(std::string_view key) {
    asked_.push_back(key);
    return o_.if_contains(key);
  }
  void wrong(std::string_view key, const char* kind) {
    if (status_.ok()) status_ = Status(Code::invalid, "'" + std::string(key) + "' must be " + kind);
  }
  const json::object& o_;
  std::vector<std::string_view> asked_;
  Status status_;
};

Result<Layout> parse_layout(const std::string& s) {
  Layout l{0, 0};
  const char* end = s.data() + s.size();
  auto k = std::from_chars(s.data(), end, l.k);
  if (k.ec == std::errc() && k.ptr != end && *k.ptr == '+') {
    auto m = std::from_chars(k.ptr + 1, end, l.m);
    if (m.ec == std::errc() && m.ptr == end) return l;
  }
  return Status(Code::invalid, "layout '" + s.substr(0, 32) + "': give K+M, as in 4+2");
}

Result<json::object> parse_body(const std::string& body) {
  if (body.empty()) return json::object();
  boost::system::error_code error;
  json::parse_options options;
  options.max_depth = 8;
  json::value v = json::parse(body, error, {}, options);
  if (error) return Status(Code::invalid, "the body is not JSON: " + error.message());
  if (!v.is_object()) return Status(Code::invalid, "the body must be a JSON object");
  return v.get_object();
}

Answer wrong_method(const std::string& allowed) {
  Answer a = error_answer(Status(Code::invalid, "this path takes " + allowed));
  a.status = 405;
  return a;
}

}  // namespace

Answer error_answer(const Status& status) {
  return {http_status(status.code()),
          json::object{{"error", json::object{{"code", code_name(status.code())}, {"text", status.text()}}}}};
}

io::Task<Answer> ControlApi::handle(std::string method, std::string target, std::string body) {
  if (body.size() > kMaxBody) co_return Answer{413, error_answer(Status(Code::invalid, "the body is too long")).body};
  auto parsed = parse_body(body);
  if (!parsed.ok()) co_return error_answer(parsed.status());
  std::string path = target.substr(0, target.find('?'));
  std::string query = path.size() < target.size() ? target.substr(path.size() + 1) : std::string();
  if (!query.empty() && query != "force=true" && query != "force=false")
    co_return error_answer(Status(Code::invalid, "unknown query '" + query.substr(0, 64) + "'"));

  if (path == "/v1/status") {
    if (method != "GET") co_return wrong_method("GET");
    co_return Answer{200, status_json(control_)};
  }
  if (path == "/v1/events") {
    if (method != "GET") co_return wrong_method("GET");
    co_return Answer{200, json::object{{"events", events_json(control_)}}};
  }
  if (path == "/v1/volumes") {
    if (method == "GET") co_return Answer{200, json::object{{"volumes", status_json(control_)["volumes"]}}};
    if (method == "POST") co_return create(*parsed);
    co_return wrong_method("GET, POST");
  }
  if (path == "/v1/rebuild") {
    if (method != "POST") co_return wrong_method("POST");
    co_return co_await rebuild(std::move(*parsed));
  }
  constexpr std::string_view kVolume = "/v1/volumes/";
  if (path.starts_with(kVolume)) {
    std::string rest = path.substr(kVolume.size());
    std::string name = rest.substr(0, rest.find('/'));
    std::string action = name.size() < rest.size() ? rest.substr(name.size() + 1) : std::string();
    if (Status s = check_name(name); !s.ok()) co_return error_answer(s.with("volume"));
    co_return co_await volume(std::move(method), std::move(name), std::move(action), query == "force=true",
                              std::move(*parsed));
  }
  co_return error_answer(Status(Code::not_found, "no such path: see /v1/status, /v1/events, /v1/volumes, /v1/rebuild"));
}

io::Task<Answer> ControlApi::volume(std::string method, std::string name, std::string action, bool force,
                                    json::object body) {
  if (action.empty() && method == "GET") {
    const Volume* v = control_.store().image().find_volume(name);
    if (v == nullptr) co_return error_answer(Status(Code::not_found, "there is no volume " + name));
    co_return Answer{200, volume_json(control_, *v, true)};
  }
  if (action.empty() && method == "DELETE") {
    auto removed = co_await control_.volumes().remove(name, force, kRemoveWait);
    if (!removed.ok()) co_return error_answer(removed.status());
    // 202: the name is free, but a member that is down has yet to be told.
    co_return Answer{*removed ? 200u : 202u, json::object{{"name", name}, {"complete", *removed}}};
  }
  if (action.empty()) co_return wrong_method("GET, DELETE");
  if (action != "flush" && action != "attach" && action != "detach" && action != "recover" && action != "resize" && action != "move")
    co_return error_answer(Status(Code::not_found, "a volume knows flush, attach, detach, resize, move and recover"));
  if (method != "POST") co_return wrong_method("POST");
  if (action == "flush") co_return co_await flush(std::move(name), std::move(body));
  if (action == "resize") co_return co_await resize(std::move(name), std::move(body));
  if (action == "move") co_return co_await move(std::move(name), std::move(body));
  if (action == "recover") co_return co_await recover(std::move(name), std::move(body));
  if (action == "attach") co_return co_await attach(std::move(name), std::move(body));
  Status s = co_await control_.volumes().detach(name);
  if (!s.ok()) co_return error_answer(s);
  co_return Answer{200, json::object{{"name", name}}};
}

io::Task<Answer> ControlApi::rebuild(json::object body) {
  Fields f(body);
  bool accept_loss = f.flag("accept_loss"), other_key = f.flag("other_key");
  if (Status s = f.status(); !s.ok()) co_return error_answer(s);
  auto done = co_await control_.volumes().rebuild(accept_loss, other_key);
  if (!done.ok()) co_return error_answer(done.status());
  json::array left(done->left.begin(), done->left.end());
  co_return Answer{200, json::object{{"volumes", done->volumes}, {"partitions", done->vps}, {"doubted", done->doubted}, {"left", std::move(left)}}};
}

Answer ControlApi::create(const json::object& body) {
  Fields f(body);
  Volumes::Create r;
  r.name = f.text("name");
  r.bytes = f.number("size", 0);
  std::string layout = f.text("layout");
  std::uint64_t copies = f.number("copies", 0);
  if (Status s = f.status(); !s.ok()) return error_answer(s);
  auto l = parse_layout(layout);
  if (!l.ok()) return error_answer(l.status());
  r.layout = *l;
  r.copies = static_cast<std::uint32_t>(std::min<std::uint64_t>(copies, 1000));
  auto v = control_.volumes().create(r);
  if (!v.ok()) return error_answer(v.status());
  return {201, volume_json(control_, *v, true)};
}

io::Task<Answer> ControlApi::resize(std::string name, json::object body) {
  Fields f(body);
  std::uint64_t bytes = f.number("size", 0);
  if (Status s = f.status(); !s.ok()) co_return error_answer(s);
  auto v = co_await control_.volumes().resize(std::move(name), bytes);
  if (!v.ok()) co_return error_answer(v.status());
  co_return Answer{200, volume_json(control_, *v, true)};
}

io::Task<Answer> ControlApi::flush(std::string name, json::object body) {
  Fields f(body);
  std::uint64_t ms = f.number("timeout_ms", kFlushTimeoutMs);
  bool wait = f.flag("wait");
  if (Status s = f.status(); !s.ok()) co_return error_answer(s);
  io::Duration timeout = std::chrono::milliseconds(std::min<std::uint64_t>(ms, kMaxTimeoutMs));
  io::Time deadline = control_.world().now() + timeout;
  while (true) {
    auto left = co_await control_.volumes().flush(name, deadline - control_.world().now());
    if (!left.ok()) co_return error_answer(left.status());
    if (!wait || *left == 0) co_return Answer{200, json::object{{"name", name}, {"unflushed_bytes", *left}}};
    if (control_.world().now() >= deadline)
      co_return error_answer(Status(Code::timed_out, std::to_string(*left) + " bytes are not flushed yet"));
    co_await control_.world().sleep(std::chrono::milliseconds(50));
  }
}

io::Task<Answer> ControlApi::move(std::string name, json::object body) {
  Fields f(body);
  std::string from = f.text("from"), to = f.text("to");
  std::uint64_t ms = f.number("timeout_ms", kFlushTimeoutMs);
  bool wait = f.flag("wait");
  if (Status s = f.status(); !s.ok()) co_return error_answer(s);
  if (from.empty()) co_return error_answer(Status(Code::invalid, "'from' must name the head that is to be without a copy"));
  auto vps = co_await control_.volumes().move(name, from, to, wait, std::chrono::milliseconds(std::min<std::uint64_t>(ms, kMaxTimeoutMs)));
  if (!vps.ok()) co_return error_answer(vps.status());
  co_return Answer{200, json::object{{"name", name}, {"from", from}, {"vps", *vps}}};
}

io::Task<Answer> ControlApi::recover(std::string name, json::object body) {
  Fields f(body);
  std::string head = f.text("accept_loss");
  bool force = f.flag("force");
  if (Status s = f.status(); !s.ok()) co_return error_answer(s);
  if (head.empty()) co_return error_answer(Status(Code::invalid, "'accept_loss' must name the head whose replica becomes the truth"));
  co_await control_.volumes().fresh_reports();
  auto vps = control_.volumes().accept_loss(name, head, force);
  if (!vps.ok()) co_return error_answer(vps.status());
  co_return Answer{200, json::object{{"name", name}, {"head", head}, {"vps", *vps}}};
}

io::Task<Answer> ControlApi::attach(std::string name, json::object body) {
  Fields f(body);
  Volumes::Attach r;
  r.name = name;
  r.nbd = f.text("nbd");
  r.node = f.text("node");
  r.take_over = f.flag("take_over");
  r.read_only = f.flag("read_only");
  r.incoming = f.flag("incoming");
  if (Status s = f.status(); !s.ok()) co_return error_answer(s);
  std::string nbd = r.nbd;
  auto node = co_await control_.volumes().attach(std::move(r));
  if (!node.ok()) co_return error_answer(node.status());
  co_return Answer{200, json::object{{"name", name}, {"node", *node}, {"nbd", nbd}}};
}

}  // namespace luge::control
