// luge card list, info, selftest, flash, rollback, telemetry, reset, log: what a person does with the cards of a unit, or with one by itself.
//
// A card is named by its sled (--sled, of the unit) or by its directory (--dir). One that a sled uses is held first: the sled lets its jobs end and codes by
// itself; when the hold goes, which it does with this process at the latest, the sled opens and tests the card and uses it again.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/logging.hpp"
#include "card/card.hpp"
#include "card/hold.hpp"
#include "card/inquiry.hpp"
#include "card/firmware_text.hpp"
#include "cli/commands.hpp"
#include "cli/format.hpp"
#include "hls/registers/card.h"
#include "image/card_store.hpp"
#include "image/tools.hpp"
#include "io/real_world.hpp"

namespace luge::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using image::CardStore;

constexpr std::chrono::seconds kDrainLimit{30}, kInquiryLimit{10};

struct CardPlace {
  std::string sled, directory, kind, xclbin, pci, board, golden, file;
  unsigned device = 0, revision = 1;
  bool yes = false, dry_run = false, downgrade = false;
};

struct Named {
  std::string name;
  card::CardOptions options;
};

card::CardOptions options_of(const CardPlace& p, const std::string& kind, const std::string& directory) {
  card::CardOptions o;
  o.kind = kind.empty() ? "native" : kind, o.directory = directory, o.device = p.device, o.xclbin = p.xclbin;
  if (o.kind == "rtl") o.job_limit = std::chrono::seconds(10);
  return o;
}

// The card of a sled, or the one in a directory.
Result<Named> find_card(const Context& context, const CardPlace& p) {
  if (!p.directory.empty()) return Named{p.directory, options_of(p, p.kind, fs::absolute(p.directory))};
  if (p.sled.empty()) return Status(Code::invalid, "name the card: --sled NAME of a unit, or --dir DIR");
  if (context.unit.empty()) return Status(Code::invalid, "--sled needs the unit: --unit DIR or LUGE_UNIT");
  auto unit = Unit::open(context.unit);
  if (!unit.ok()) return unit.status();
  if (!unit->find(p.sled) || unit->find(p.sled)->role != "sled") return Status(Code::not_found, "the unit has no sled '" + p.sled + "'");
  return Named{p.sled, options_of(p, p.kind.empty() ? unit->shape().card : p.kind, unit->directory() + "/" + p.sled + "/data/card")};
}

std::string state_of(const card::CardOptions& o) { return card::card_held(o) ? "held" : card::card_in_use(o) ? "in use" : "free"; }

json::object slots_json(CardStore& store) {
  json::object slots;
  for (const CardStore::Slot& s : store.slots())
    slots[image::slot_name(s.slot)] = json::object{{"version", s.version ? json::value(image::version_text(s.version)) : json::value(nullptr)}, {"current", s.current}, {"good", s.good}, {"attempts", s.attempts}};
  return slots;
}

std::string slots_text(CardStore& store) {
  std::string text;
  for (const CardStore::Slot& s : store.slots())
    text += (text.empty() ? "" : ", ") + std::string(image::slot_name(s.slot)) + " " + (s.version ? image::version_text(s.version) : "empty") + (s.current ? s.good ? " (boots)" : " (on trial)" : "");
  return text;
}

int list(const Context& context, const CardPlace& p) {
  std::vector<Named> cards;
  if (!p.directory.empty()) {
    cards.push_back({p.directory, options_of(p, p.kind, fs::absolute(p.directory))});
  } else {
    if (context.unit.empty()) return complain(Status(Code::invalid, "name a unit (--unit DIR or LUGE_UNIT) or a card's directory (--dir)"));
    auto unit = Unit::open(context.unit);
    if (!unit.ok()) return complain(unit.status());
    if (unit->shape().card != "none")
      for (const Daemon& d : unit->of_role("sled")) cards.push_back({d.name, options_of(p, unit->shape().card, unit->directory() + "/" + d.name + "/data/card")});
  }
  Table table({"card", "kind", "state", "board", "slots"});
  json::array out;
  for (const Named& c : cards) {
    auto store = CardStore::open(c.options.directory, c.options.device);
    if (!store.ok() && store.code() != Code::not_found) return complain(store.status());
    const std::string board = store.ok() ? store->board().name : "-";
    table.add({c.name, c.options.kind, state_of(c.options), board, store.ok() ? slots_text(*store) : "none"});
    json::object o{{"name", c.name}, {"kind", c.options.kind}, {"state", state_of(c.options)}, {"directory", c.options.directory}};
    if (store.ok()) o["board"] = board, o["revision"] = store->revision(), o["slots"] = slots_json(*store);
    out.push_back(std::move(o));
  }
  if (context.json) print_json(json::object{{"cards", out}});
  else std::printf("%s", table.empty() ? "no cards\n" : table.render().c_str());
  return kOk;
}

int create(const Context& context, const CardPlace& p) {
  auto c = find_card(context, p);
  if (!c.ok()) return complain(c.status());
  auto board = image::load_board(p.board);
  if (!board.ok()) return complain(board.status());
  auto golden = image::read_file(p.golden);
  if (!golden.ok()) return complain(golden.status());
  std::error_code e;
  fs::create_directories(c->options.directory, e);
  auto store = CardStore::create(c->options.directory, p.device, *board, p.revision, *golden);
  if (!store.ok()) return complain(store.status());
  if (context.json) print_json(json::object{{"card", c->name}, {"board", board->name}, {"slots", slots_json(*store)}});
  else std::printf("%s: board %s, revision %u; slots: %s\n", c->name.c_str(), board->name.c_str(), p.revision, slots_text(*store).c_str());
  return kOk;
}

// A firmware's words as people and programs read them.
json::object report_json(const card::FirmwareReport& r) {
  using namespace luge_card;
  auto word = [&](std::uint32_t offset) { return r.words[(offset - SHARED_MAGIC) / 4]; };
  json::object o{{"controller", r.there != 0}};
  if (r.there == 0) return o;
  o["firmware_version"] = card::firmware_version_text(word(SHARED_FIRMWARE_VERSION));
  o["processor"] = word(SHARED_PROCESSOR) == 1 ? "controller (RV32)" : "host process";
  o["state"] = card::firmware_state_text(word(SHARED_STATE)), o["starts"] = word(SHARED_BOOTS);
  o["slot"] = image::slot_name(static_cast<fw::Slot>(word(SHARED_SLOT)));
  o["last_fault"] = card::fault_text(r.last_fault);
  return o;
}

json::object telemetry_json(const card::FirmwareReport& r) {
  static constexpr const char* names[] = {"core_millivolts", "auxiliary_millivolts", "jobs_completed", "jobs_failed", "tables_made", "tables_cached", "fenced",
                                          "self_tests_passed", "self_tests_failed", "faults"};
  json::object o{{"celsius", static_cast<std::int32_t>(r.telemetry[0]) / 1000.0}};
  for (std::size_t i = 0; i < std::size(names); ++i) o[names[i]] = r.telemetry[i + 1];
  return o;
}

json::array log_json(const card::FirmwareReport& r) {
  std::vector<std::array<std::uint32_t, 4>> entries;
  for (std::size_t i = 0; i < std::size(r.log); i += 4)
    if (r.log[i] != 0) entries.push_back({r.log[i], r.log[i + 1], r.log[i + 2], r.log[i + 3]});
  std::sort(entries.begin(), entries.end());
  json::array out;
  for (const auto& e : entries) out.push_back(json::object{{"number", e[0]}, {"event", card::event_text(e[1])}, {"detail", json::array{e[2], e[3]}}});
  return out;
}

void print_object(const json::object& o) {
  for (const auto& [k, v] : o) {
    std::string name(k);
    for (char& c : name)
      if (c == '_') c = ' ';
    if (v.is_double()) std::printf("%-22s %g\n", name.c_str(), v.as_double());
    else std::printf("%-22s %s\n", name.c_str(), v.is_string() ? v.as_string().c_str() : json::serialize(v).c_str());
  }
}

// What a card says: by its host, if it has one, else opened for the purpose.
io::Task<Result<card::Said>> heard(io::World& world, const card::CardOptions& o) {
  if (card::card_in_use(o)) co_return card::inquire(o, kInquiryLimit);
  auto opened = co_await card::open_card(world, o);
  if (!opened.ok()) co_return opened.status();
  auto report = co_await (*opened)->firmware(0, {});
  if (!report.ok()) co_return report.status();
  card::Said said;
  said.firmware = *report;
  std::snprintf(said.hello.text, sizeof said.hello.text, "%s", (*opened)->describe().c_str());
  co_return said;
}

enum class Ask { info, telemetry, log };

void print_log(const json::array& log) {
  for (const json::value& e : log)
    std::printf("%5llu  %-18s %s\n", static_cast<unsigned long long>(number_of(e, "number")), text_of(e, "event").c_str(), json::serialize(e.at("detail")).c_str());
}

io::Task<int> ask(io::World& world, const Context& context, Named c, Ask what) {
  const std::string use = state_of(c.options);
  auto said = co_await heard(world, c.options);
  if (!said.ok()) co_return complain(said.status());
  const card::FirmwareReport& r = said->firmware;
  if (r.there == 0 && what != Ask::info) co_return complain(Status(Code::not_found, "the card has no controller"));
  if (what == Ask::log) {
    const json::array log = log_json(r);
    context.json ? print_json(json::object{{"log", log}}) : print_log(log);
    co_return kOk;
  }
  json::object o;
  if (what == Ask::telemetry) {
    o = telemetry_json(r);
  } else {
    o = json::object{{"card", c.name}, {"kind", c.options.kind}, {"use", use}, {"description", said->hello.text}};
    for (auto& [k, v] : report_json(r)) o[k] = v;
    auto store = CardStore::open(c.options.directory, c.options.device);
    if (store.ok()) o["board"] = store->board().name, o["revision"] = store->revision(), o["slots"] = slots_json(*store);
  }
  context.json ? print_json(o) : print_object(o);
  co_return kOk;
}

// Opens, has the firmware test the card, and tests it from here.
io::Task<Status> tested(io::World& world, const card::CardOptions& o, std::string& description) {
  auto opened = co_await card::open_card(world, o);
  if (!opened.ok()) co_return opened.status();
  description = (*opened)->describe();
  auto r = co_await (*opened)->firmware(luge_card::Command::self_test, {});
  if (!r.ok()) co_return r.status();
  if (r->there != 0 && (r->answered == 0 || r->status != static_cast<std::uint32_t>(luge_card::AnswerStatus::ok)))
    co_return Status(Code::corrupt, "the firmware's self-test failed: " + card::fault_text(r->last_fault));
  co_return co_await (*opened)->self_test();
}

io::Task<int> selftest(io::World& world, const Context& context, Named c) {
  auto hold = co_await card::Hold::take(world, c.options, kDrainLimit);
  if (!hold.ok()) co_return complain(hold.status());
  std::string description;
  if (Status s = co_await tested(world, c.options, description); !s.ok()) co_return complain(s);
  if (context.json) print_json(json::object{{"card", c.name}, {"description", description}, {"passed", true}, {"drained", (*hold)->drained()}});
  else std::printf("%s\nself-test passed: firmware, kernels, known layouts%s\n", description.c_str(), (*hold)->drained() ? "; the sled takes the card back" : "");
  co_return kOk;
}

io::Task<int> reset(io::World& world, const Context& context, Named c) {
  auto hold = co_await card::Hold::take(world, c.options, kDrainLimit);
  if (!hold.ok()) co_return complain(hold.status());
  auto opened = co_await card::open_card(world, c.options);
  if (!opened.ok()) co_return complain(opened.status());
  auto before = co_await (*opened)->firmware(0, {});
  auto after = co_await (*opened)->firmware(luge_card::Command::restart, {});
  if (!before.ok() || !after.ok()) co_return complain(before.ok() ? after.status() : before.status());
  if (after->there == 0) co_return complain(Status(Code::not_found, "the card has no controller to reset"));
  if (after->answered == 0) co_return complain(Status(Code::timed_out, "the controller did not start again"));
  if (context.json) print_json(json::object{{"card", c.name}, {"starts", report_json(*after)["starts"]}});
  else std::printf("the controller of %s has started again\n", c.name.c_str());
  co_return kOk;
}

// Asks on a terminal; else only --yes is a yes.
bool agreed(const CardPlace& p) {
  if (p.yes) return true;
  if (!::isatty(0)) {
    std::fprintf(stderr, "luge: nothing was changed: say --yes\n");
    return false;
  }
  std::fprintf(stderr, "Go on? [y/N] ");
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

// Percent and time left, on standard error: over itself on a terminal, in quarters elsewhere.
class Progress {
 public:
  void tell(std::uint32_t done, std::uint32_t total) {
    const double share = total ? double(done) / total : 1, passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const int percent = static_cast<int>(100 * share), step = ::isatty(2) ? 1 : 25;
    if (percent / step == last_) return;
    last_ = percent / step;
    std::fprintf(stderr, "%s%3d %%, about %.0f s left%s", ::isatty(2) ? "\r" : "", percent, share > 0 ? passed * (1 - share) / share : 0.0, ::isatty(2) && percent < 100 ? "" : "\n");
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  int last_ = -1;
};

bool has_tool(const image::Board& b) { return b.tool != "none"; }
std::string scratch_folder() {
  std::string f = fs::temp_directory_path() / "luge-flash-XXXXXX";
  return ::mkdtemp(f.data()) ? f : "";
}

struct Plan {
  std::vector<std::string> steps;
  std::vector<std::string> commands;
};

Plan plan_flash(CardStore& store, const CardPlace& p, const image::File& f, std::uint32_t bytes, const std::string& folder) {
  Plan plan;
  const image::Board& b = store.board();
  const std::string what = "version " + image::version_text(f.manifest.version);
  if (f.manifest.kind == "keys") {
    plan.steps.push_back("change the keys that the card trusts: " + std::to_string(f.manifest.add.size()) + " added, " + std::to_string(f.manifest.revoke.size()) + " revoked");
    return plan;
  }
  plan.steps.push_back("take the card out of use, if a sled uses it; the sled's processor codes meanwhile");
  if (b.update == "xclbin" && has_tool(b)) {
    plan.steps.push_back("check that the card has the platform " + b.platform);
    plan.commands.push_back(image::to_line(image::examine_command(p.pci.empty() ? "<PCI address>" : p.pci, folder + "/platform.json")));
  }
  const fw::Slot to = store.next_slot();
  plan.steps.push_back("write " + what + " to slot " + std::string(image::slot_name(to)) + ", read it back, compare, and only then let it boot");
  if (b.update == "qspi" && has_tool(b))
    for (const image::Command& c : image::ToolFlash(b, folder).plan(to, bytes)) plan.commands.push_back(image::to_line(c));
  plan.steps.push_back("start the card with it and test it; after " + std::to_string(fw::kAttempts) + " starts without a passed self-test the image before boots again");
  if (!b.after_flash.empty()) plan.steps.push_back("afterwards: " + b.after_flash);
  return plan;
}

io::Task<int> flash(io::World& world, const Context& context, Named c, CardPlace p) {
  auto bytes = image::read_file(p.file);
  if (!bytes.ok()) co_return complain(bytes.status());
  auto store = CardStore::open(c.options.directory, c.options.device);
  if (!store.ok()) co_return complain(store.status());
  auto target = store->target();
  if (!target.ok()) co_return complain(target.status());
  target->allow_downgrade = p.downgrade;
  auto file = image::admit(*bytes, *target);
  if (!file.ok()) {
    complain(file.status());
    co_return kRefused;
  }
  const std::string folder = has_tool(store->board()) ? scratch_folder() : "";
  auto remove = [](const std::string* f) { std::error_code e; if (!f->empty()) fs::remove_all(*f, e); };
  std::unique_ptr<const std::string, decltype(remove)> scratch(&folder, remove);
  const Plan plan = plan_flash(*store, p, *file, static_cast<std::uint32_t>(bytes->size()), folder);
  if (!context.json || p.dry_run) {
    if (!context.json) std::printf("%s: board %s, revision %u, slots: %s\n", c.name.c_str(), store->board().name.c_str(), store->revision(), slots_text(*store).c_str());
    for (std::size_t i = 0; !context.json && i < plan.steps.size(); ++i) std::printf("  %zu. %s\n", i + 1, plan.steps[i].c_str());
    for (const std::string& line : plan.commands)
      if (!context.json) std::printf("     %s\n", line.c_str());
  }
  if (p.dry_run) {
    if (context.json) print_json(json::object{{"card", c.name}, {"steps", json::array(plan.steps.begin(), plan.steps.end())}, {"commands", json::array(plan.commands.begin(), plan.commands.end())}});
    co_return kOk;
  }
  std::fflush(stdout);
  if (!agreed(p)) co_return kRefused;
  if (file->manifest.kind == "keys") {
    if (Status s = store->apply_keys(*bytes, *file); !s.ok()) co_return complain(s);
    if (context.json) print_json(json::object{{"card", c.name}, {"keys", "changed"}});
    else std::printf("the card's keys have been changed\n");
    co_return kOk;
  }
  auto hold = co_await card::Hold::take(world, c.options, kDrainLimit);
  if (!hold.ok()) co_return complain(hold.status());
  const image::Board& board = store->board();
  if (board.update == "xclbin" && has_tool(board)) {
    if (p.pci.empty()) co_return complain(Status(Code::invalid, "--pci is missing: the card's PCI address, as xbmgmt examine lists it"));
    if (Status s = image::check_platform(board, p.pci, folder); !s.ok()) {
      complain(s);
      co_return s.code() == Code::fenced ? kRefused : kFailed;
    }
  }
  Progress progress;
  auto tell = [&](std::uint32_t done, std::uint32_t total) { progress.tell(done, total); };
  Status written = board.update == "qspi" && has_tool(board) ? image::ToolFlash(board, folder).update(*bytes, file->manifest.version, tell) : store->update(*bytes, *file, tell);
  if (!written.ok()) co_return complain(written);
  const std::string version = image::version_text(file->manifest.version);
  if (has_tool(board) && board.update == "qspi") {  // the card has not been restarted yet
    if (context.json) print_json(json::object{{"card", c.name}, {"version", version}, {"tested", false}, {"after", board.after_flash}});
    else std::printf("version %s is written and named; it has not run yet\n%s\n", version.c_str(), board.after_flash.c_str());
    co_return kOk;
  }
  std::string description;
  Status s = co_await tested(world, c.options, description);
  for (unsigned tries = 1; !s.ok() && tries < fw::kAttempts; ++tries) {
    std::fprintf(stderr, "luge: start %u of version %s: %s\n", tries, version.c_str(), s.to_string().c_str());
    s = co_await tested(world, c.options, description);
  }
  if (!s.ok()) {
    std::fprintf(stderr, "luge: version %s does not pass its self-test: %s\n", version.c_str(), s.to_string().c_str());
    Status before = co_await tested(world, c.options, description);
    std::string runs;
    for (const CardStore::Slot& slot : store->slots())
      if (slot.current) runs = std::string(image::slot_name(slot.slot)) + ", version " + image::version_text(slot.version);
    std::fprintf(stderr, "luge: the card has fallen back to slot %s, which %s\n", runs.c_str(), before.ok() ? "passes its self-test" : ("does not pass it either: " + before.to_string()).c_str());
    co_return kFailed;
  }
  if (context.json) print_json(json::object{{"card", c.name}, {"version", version}, {"tested", true}, {"drained", (*hold)->drained()}, {"slots", slots_json(*store)}, {"after", board.after_flash}});
  else std::printf("version %s runs and has passed its self-test%s\n%s%s", version.c_str(), (*hold)->drained() ? "; the sled takes the card back" : "", board.after_flash.c_str(),
                   board.after_flash.empty() ? "" : "\n");
  co_return kOk;
}

io::Task<int> rollback(io::World& world, const Context& context, Named c, CardPlace p) {
  auto store = CardStore::open(c.options.directory, c.options.device);
  if (!store.ok()) co_return complain(store.status());
  if (has_tool(store->board()) && store->board().update == "qspi")
    co_return complain(Status(Code::invalid, "not possible from here: a card of this board goes back by itself after three starts without a passed self-test; or flash the older image with --downgrade"));
  if (!context.json) std::printf("%s: slots: %s\n  boot the image before the one that boots now\n", c.name.c_str(), slots_text(*store).c_str());
  std::fflush(stdout);
  if (p.dry_run) co_return kOk;
  if (!agreed(p)) co_return kRefused;
  auto hold = co_await card::Hold::take(world, c.options, kDrainLimit);
  if (!hold.ok()) co_return complain(hold.status());
  if (Status s = store->roll_back(); !s.ok()) co_return complain(s);
  std::string description;
  if (Status s = co_await tested(world, c.options, description); !s.ok()) co_return complain(s);
  if (context.json) print_json(json::object{{"card", c.name}, {"slots", slots_json(*store)}});
  else std::printf("slots: %s; self-test passed\n", slots_text(*store).c_str());
  co_return kOk;
}

// A command whose body is a coroutine on a card that exists.
template <class F>
std::function<int()> on_card(const Context& context, std::shared_ptr<CardPlace> p, F body) {
  return [&context, p, body] {
    auto c = find_card(context, *p);
    if (!c.ok()) return complain(c.status());
    logging::setup("luge", "warn");  // standard output is for what was asked
    io::RealWorld world;
    return io::run_main(world, body(world, *c));
  };
}

}  // namespace

void add_card_maintenance(CLI::App& card, Context& context) {
  auto p = std::make_shared<CardPlace>();
  auto command = [&](const char* name, const char* text) {
    auto* c = card.add_subcommand(name, text);
    c->add_option("--sled", p->sled, "the card of this sled of the unit");
    c->add_option("--dir", p->directory, "the card's directory, of a card that is no sled's");
    c->add_option("--device", p->device, "which of the devices that XRT shows; default: 0");
    c->add_option("--kind", p->kind, "native, rtl or hw; default: the unit's, or native");
    c->add_option("--xclbin", p->xclbin, "what to load on a card without slots; needed for hw");
    return c;
  };
  auto changes = [&](CLI::App* c) {
    c->add_flag("--yes", p->yes, "do not ask");
    c->add_flag("--dry-run", p->dry_run, "say what would be done, and the exact commands, and do nothing");
  };
  command("list", "the cards of a unit: state, board, slots")->callback([p, &context] { context.run = [p, &context] { return list(context, *p); }; });
  auto* made = command("create", "give a card slots, with a golden image in the first: as a factory does it");
  made->add_option("--board", p->board, "one of boards/")->required();
  made->add_option("--revision", p->revision, "of the hardware; default: 1");
  made->add_option("--golden", p->golden, "signed image; the keys that it adds are those that the card trusts")->required();
  made->callback([p, &context] { context.run = [p, &context] { return create(context, *p); }; });
  for (auto [name, text, what] : {std::tuple{"info", "what a card is, its firmware and slots", Ask::info}, {"telemetry", "temperature, voltages, counts", Ask::telemetry},
                                  {"log", "the events that the firmware has noted", Ask::log}})
    command(name, text)->callback([p, what, &context] { context.run = on_card(context, p, [&context, what](io::World& w, Named c) { return ask(w, context, c, what); }); });
  command("selftest", "take a card out of use, test it, put it back")->callback([p, &context] {
    context.run = on_card(context, p, [&context](io::World& w, Named c) { return selftest(w, context, c); });
  });
  command("reset", "start a card's controller anew")->callback([p, &context] { context.run = on_card(context, p, [&context](io::World& w, Named c) { return reset(w, context, c); }); });
  auto* f = command("flash", "put an image on a card: check, write, verify, start, test; else the image before boots again");
  f->add_option("IMAGE", p->file, "signed image (luge image)")->required();
  f->add_option("--pci", p->pci, "the card's PCI address, of a board with an XRT platform");
  f->add_flag("--downgrade", p->downgrade, "also an older version than the card has");
  changes(f);
  f->callback([p, &context] { context.run = on_card(context, p, [&context, p](io::World& w, Named c) { return flash(w, context, c, *p); }); });
  auto* r = command("rollback", "boot the image before the one that boots now");
  changes(r);
  r->callback([p, &context] { context.run = on_card(context, p, [&context, p](io::World& w, Named c) { return rollback(w, context, c, *p); }); });
}

}  // namespace luge::cli
