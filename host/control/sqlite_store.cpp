#include "control/sqlite_store.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/crc32c.hpp"
#include "base/logging.hpp"

namespace luge::control {
namespace {

constexpr int kApplicationId = 0x4c554745;  // "LUGE": tells our file from any other SQLite database

constexpr const char* kSchema = R"(
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE volumes (id INTEGER PRIMARY KEY, name TEXT NOT NULL, bytes INTEGER NOT NULL, vp_bytes INTEGER NOT NULL,
  k INTEGER NOT NULL, m INTEGER NOT NULL, copies INTEGER NOT NULL, removing INTEGER NOT NULL);
CREATE TABLE designations (vp INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE attachments (volume INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, holder INTEGER NOT NULL);
CREATE TABLE exports (volume INTEGER PRIMARY KEY, node INTEGER NOT NULL, nbd TEXT NOT NULL, read_only INTEGER NOT NULL);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, address TEXT NOT NULL);
CREATE TABLE removals (vp INTEGER, node INTEGER, epoch INTEGER, PRIMARY KEY (vp, node, epoch)) WITHOUT ROWID;
CREATE TABLE doubted (vp INTEGER PRIMARY KEY);
CREATE TABLE sandboxes (vp INTEGER, sled INTEGER, device INTEGER, col INTEGER, PRIMARY KEY (vp, sled, device, col))
  WITHOUT ROWID;
)";

// Tables that came later, and are empty in a store that was made before.
constexpr const char* kLaterTables =
    "CREATE TABLE IF NOT EXISTS incoming (volume INTEGER PRIMARY KEY, node INTEGER NOT NULL, nbd TEXT NOT NULL, read_only INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS recollections (node INTEGER PRIMARY KEY, value INTEGER NOT NULL)";

// One prepared statement, bound in order. SQLite's integers are signed: our u64 ids travel bit for bit.
class Statement {
 public:
  Statement(sqlite3* db, const char* sql) {
    if (sqlite3_prepare_v2(db, sql, -1, &s_, nullptr) != SQLITE_OK) failed_ = true;
  }
  ~Statement() { sqlite3_finalize(s_); }
  Statement(const Statement&) = delete;

  Statement& bind(std::uint64_t v) {
    if (s_) sqlite3_bind_int64(s_, ++at_, static_cast<sqlite3_int64>(v));
    return *this;
  }
  Statement& bind(const std::string& v) {
    if (s_) sqlite3_bind_text(s_, ++at_, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT);
    return *this;
  }
  Statement& bind_blob(const std::string& v) {
    if (s_) sqlite3_bind_blob(s_, ++at_, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT);
    return *this;
  }
  /// True: a row is there.
  bool step() {
    if (!s_) return false;
    int rc = sqlite3_step(s_);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) failed_ = true;
    return rc == SQLITE_ROW;
  }
  std::uint64_t number(int column) const { return static_cast<std::uint64_t>(sqlite3_column_int64(s_, column)); }
  std::string text(int column) const {
    const void* p = sqlite3_column_blob(s_, column);
    return p ? std::string(static_cast<const char*>(p), sqlite3_column_bytes(s_, column)) : std::string();
  }
  bool failed() const { return failed_; }

 private:
  sqlite3_stmt* s_ = nullptr;
  int at_ = 0;
  bool failed_ = false;
};

std::optional<std::string> pragma(sqlite3* db, const char* sql) {
  Statement s(db, sql);
  if (!s.step()) return {};
  return s.text(0);
}

}  // namespace

Result<std::unique_ptr<Store>> SqliteStore::open(const std::string& path, Fresh fresh, std::uint64_t unit) {
  std::unique_ptr<SqliteStore> store(new SqliteStore);
  if (Status s = store->open_file(path); !s.ok()) return s;
  std::string id = pragma(store->db_, "PRAGMA application_id").value_or("");
  bool blank = id == "0" && pragma(store->db_, "SELECT count(*) FROM sqlite_master").value_or("") == "0";
  if (blank) {
    if (Status s = store->make_schema(fresh); !s.ok()) return s;
  } else if (id != std::to_string(kApplicationId)) {
    return Status(Code::corrupt, path + ": this is no configuration store of Luge");
  }
  std::string version = pragma(store->db_, "PRAGMA user_version").value_or("");
  if (version != std::to_string(kSchemaVersion))
    return Status(Code::wrong_version, path + ": store format " + version + ", this program knows format " +
                                           std::to_string(kSchemaVersion) + ": start the version that made it");
  if (Status s = store->load(); !s.ok()) return s;
  if (Status s = store->open_mark(blank, fresh.incarnation); !s.ok()) return s;
  if (unit != 0 && store->image_.unit != unit)
    return Status(Code::wrong_unit, path + ": belongs to unit " + std::to_string(store->image_.unit) + ", not " +
                                        std::to_string(unit));
  return std::unique_ptr<Store>(std::move(store));
}

SqliteStore::~SqliteStore() {
  sqlite3_close(db_);
  if (mark_ >= 0) ::close(mark_);
}

namespace {

// Two slots written in turn: a power cut spoils at most the newer.
struct MarkSlot {
  std::uint64_t incarnation = 0, sequence = 0;
  std::uint32_t crc = 0, reserved = 0;
  std::uint32_t sum() const { return crc32c(Bytes(reinterpret_cast<const std::byte*>(this), 16)); }
};
constexpr off_t kSlotBytes = 512;
constexpr int kMarkReads = 5;
constexpr std::chrono::milliseconds kMarkPause{200};  // before the second, and twice as long before each further one

// The newer slot; nothing is taken for a mark that could not be read.
Result<StoreMark> read_mark(int file) {
  StoreMark newest;
  for (off_t slot : {0, 1}) {
    MarkSlot m;
    ssize_t n = ::pread(file, &m, sizeof m, slot * kSlotBytes);
    if (n < 0) return Status(Code::io_error, std::strerror(errno));
    if (n != sizeof m || m.crc != m.sum()) continue;
    if (m.sequence >= newest.sequence) newest = {m.incarnation, m.sequence};
  }
  return newest;
}

}  // namespace

// Without a mark this is a copy of the database that came here alone.
Status SqliteStore::open_mark(bool fresh, std::uint64_t next_incarnation) {
  auto newest = find_mark();
  for (int tried = 1; !newest.ok() && tried < kMarkReads; ++tried) {
    logging::warn("{}; reading it again", newest.status().to_string());
    std::this_thread::sleep_for(kMarkPause * (1 << (tried - 1)));  // nothing else runs yet
    newest = find_mark();
  }
  if (!newest.ok()) return newest.status().with("without it nobody knows whether the database is the newest");
  // What may lie there tells of a database that is gone.
  if (fresh && ::ftruncate(mark_, 0) != 0) return Status(Code::io_error, path_ + ".mark: " + std::strerror(errno));
  if (fresh) return remember({image_.incarnation, image_.sequence});
  if (behind(*newest)) return doubt_everything(next_incarnation, *newest, false);
  return Status();
}

Result<StoreMark> SqliteStore::find_mark() {
  const std::string path = path_ + ".mark";
  if (mark_ >= 0) ::close(mark_);
  mark_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  auto found = mark_ < 0 ? Result<StoreMark>(Status(Code::io_error, std::strerror(errno))) : read_mark(mark_);
  if (!found.ok()) return Status(Code::io_error, path + ": " + found.status().text());
  return found;
}

Status SqliteStore::remember(const StoreMark& mark) {
  MarkSlot m{mark.incarnation, mark.sequence, 0, 0};
  m.crc = m.sum();
  bool ok = ::pwrite(mark_, &m, sizeof m, static_cast<off_t>(mark.sequence % 2) * kSlotBytes) == sizeof m && ::fdatasync(mark_) == 0;
  if (ok) return Status();
  failed_ = Status(Code::io_error, path_ + ".mark: " + std::strerror(errno) + "; the store takes no change until the control plane is restarted");
  return failed_;
}

Status SqliteStore::open_file(const std::string& path) {
  path_ = path;
  if (sqlite3_open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr) != SQLITE_OK)
    return Status(Code::io_error, path + ": cannot be opened: " + (db_ ? sqlite3_errmsg(db_) : "out of memory"));
  sqlite3_extended_result_codes(db_, 1);
  sqlite3_busy_timeout(db_, 0);
  if (Status s = run("PRAGMA locking_mode=EXCLUSIVE"); !s.ok()) return s;
  auto mode = pragma(db_, "PRAGMA journal_mode=WAL");
  int rc = sqlite3_errcode(db_) & 0xff;
  if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
    return Status(Code::exists, path + ": another control plane has this store open: stop it, or give this one its own "
                                       "data directory");
  if (rc == SQLITE_NOTADB || rc == SQLITE_CORRUPT)
    return Status(Code::corrupt, path + ": not a database, or damaged: " + sqlite3_errmsg(db_));
  if (!mode || *mode != "wal")
    return Status(Code::io_error, path + ": this file system does not carry SQLite's WAL mode");
  if (Status s = run("PRAGMA synchronous=FULL"); !s.ok()) return s;
  if (pragma(db_, "PRAGMA synchronous").value_or("") != "2")
    return Status(Code::internal, path + ": synchronous=FULL is not in force; designations would not be durable");
  // Takes the lock now: the first transaction is too late to hear of another owner.
  if (Status s = run("BEGIN IMMEDIATE"); !s.ok()) return s;
  return run("COMMIT");
}

Status SqliteStore::run(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return Status();
  return fail(sql);
}

// The status for SQLite's last error.
Status SqliteStore::fail(const std::string& what) {
  std::string text = path_ + ": " + sqlite3_errmsg(db_) + " (" + what.substr(0, 40) + ")";
  switch (sqlite3_errcode(db_) & 0xff) {
    case SQLITE_FULL: return Status(Code::no_space, text + ": make space on this file system");
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return Status(Code::exists, text + ": another process has this store open");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return Status(Code::corrupt, text);
    default: return Status(Code::io_error, text);
  }
}

Status SqliteStore::make_schema(Fresh fresh) {
  LUGE_CHECK(fresh.unit != 0 && fresh.incarnation != 0);
  std::string sql = "BEGIN;" + std::string(kSchema) + "PRAGMA application_id=" + std::to_string(kApplicationId) +
                    ";PRAGMA user_version=" + std::to_string(kSchemaVersion) + ";";
  auto counter = [&](const char* name, std::uint64_t v) {
    sql += std::string("INSERT INTO counters VALUES('") + name + "'," +
           std::to_string(static_cast<std::int64_t>(v)) + ");";
  };
  counter("unit", fresh.unit);
  counter("incarnation", fresh.incarnation);
  counter("sequence", 0);
  counter("next_volume", 1);
  return run((sql + "COMMIT;").c_str());
}

Status SqliteStore::load() {
  if (Status s = run(kLaterTables); !s.ok()) return s;
  bool failed = false;
  auto each = [&](const char* sql, auto row) {
    Statement s(db_, sql);
    while (s.step()) row(s);
    failed |= s.failed();
  };
  Status damaged;
  each("SELECT name, value FROM counters", [&](Statement& s) {
    if (s.text(0) == "unit") image_.unit = s.number(1);
    if (s.text(0) == "incarnation") image_.incarnation = s.number(1);
    if (s.text(0) == "sequence") image_.sequence = s.number(1);
    if (s.text(0) == "next_volume") image_.next_volume = s.number(1);
    if (s.text(0) == "lost") image_.lost = s.number(1) != 0;
    if (s.text(0) == "older") image_.older = s.number(1) != 0;
    if (s.text(0) == "forgotten_from") image_.forgotten_from = s.number(1);
    if (s.text(0) == "rebuilt_below") image_.rebuilt_below = s.number(1);
    if (s.text(0) == "incarnations_above") image_.incarnations_above = s.number(1);
  });
  each("SELECT id, name, bytes, vp_bytes, k, m, copies, removing FROM volumes", [&](Statement& s) {
    Volume v{s.number(0), s.text(1), s.number(2), s.number(3),
             {static_cast<std::uint32_t>(s.number(4)), static_cast<std::uint32_t>(s.number(5))},
             static_cast<std::uint32_t>(s.number(6)), s.number(7) != 0};
    if (v.bytes == 0 || v.vp_bytes == 0) damaged = Status(Code::corrupt, path_ + ": a volume of size 0");
    image_.volumes[v.id] = v;
  });
  each("SELECT vp, revision, body FROM designations", [&](Statement& s) {
    auto d = Designation::parse(s.text(2));
    if (!d.ok() || d->vp != s.number(0) || d->revision != s.number(1))
      damaged = Status(Code::corrupt, path_ + ": the designation of VP " + std::to_string(s.number(0)) + " is damaged");
    else
      image_.designations[d->vp] = *d;
  });
  each("SELECT volume, incarnation, holder FROM attachments", [&](Statement& s) {
    image_.attachments[s.number(0)] = {s.number(0), s.number(1), static_cast<NodeId>(s.number(2))};
  });
  each("SELECT volume, node, nbd, read_only FROM exports", [&](Statement& s) {
    image_.exports[s.number(0)] = {s.number(0), static_cast<NodeId>(s.number(1)), s.text(2), s.number(3) != 0};
  });
  each("SELECT volume, node, nbd, read_only FROM incoming", [&](Statement& s) {
    image_.incoming[s.number(0)] = {s.number(0), static_cast<NodeId>(s.number(1)), s.text(2), s.number(3) != 0};
  });
  each("SELECT id, name, role, address FROM nodes", [&](Statement& s) {
    NodeRow n{static_cast<NodeId>(s.number(0)), s.text(1), s.text(2), s.text(3)};
    image_.nodes[n.id] = n;
  });
  each("SELECT node, value FROM recollections", [&](Statement& s) { image_.recollections[static_cast<NodeId>(s.number(0))] = s.number(1); });
  each("SELECT vp, node, epoch FROM removals", [&](Statement& s) {
    image_.removals.insert({s.number(0), static_cast<NodeId>(s.number(1)), s.number(2)});
  });
  each("SELECT vp, sled, device, col FROM sandboxes", [&](Statement& s) {
    image_.sandboxes.insert({s.number(0), static_cast<NodeId>(s.number(1)), static_cast<std::uint16_t>(s.number(2)),
                             static_cast<std::uint32_t>(s.number(3))});
  });
  each("SELECT vp FROM doubted", [&](Statement& s) { image_.doubted.insert(s.number(0)); });
  if (failed) return fail("reading the store");
  if (damaged.ok() && (image_.unit == 0 || image_.incarnation == 0))
    damaged = Status(Code::corrupt, path_ + ": the store names no unit");
  return damaged;
}

Status SqliteStore::check_swaps(const Change& change) {
  for (const Change::Swap& w : change.swaps) {
    Statement s(db_, "SELECT revision FROM designations WHERE vp = ?");
    Revision stored = s.bind(w.vp).step() ? s.number(0) : 0;
    if (s.failed()) return fail("reading a revision");
    if (stored != w.expected)
      return Status(Code::conflict, "VP " + std::to_string(w.vp) + " is at revision " + std::to_string(stored));
  }
  return Status();
}

Status SqliteStore::write(const Change& c) {
  bool failed = false;
  auto exec = [&](const char* sql, auto bind) {
    if (failed) return;
    Statement s(db_, sql);
    bind(s);
    s.step();
    failed |= s.failed();
  };
  if (c.next_volume)
    exec("UPDATE counters SET value = ? WHERE name = 'next_volume'", [&](Statement& s) { s.bind(*c.next_volume); });
  if (c.incarnation)
    exec("UPDATE counters SET value = ? WHERE name = 'incarnation'", [&](Statement& s) { s.bind(*c.incarnation); });
  if (c.sequence)
    exec("UPDATE counters SET value = ? WHERE name = 'sequence'", [&](Statement& s) { s.bind(*c.sequence); });
  // Not there in a store that was never lost.
  auto keep = [&](const char* name, auto value) {
    if (value) exec("INSERT OR REPLACE INTO counters VALUES(?, ?)", [&](Statement& s) { s.bind(name), s.bind(std::uint64_t{*value}); });
  };
  keep("lost", c.lost);
  keep("older", c.older);
  keep("forgotten_from", c.forgotten_from);
  keep("rebuilt_below", c.rebuilt_below);
  keep("incarnations_above", c.incarnations_above);
  for (VpId vp : c.doubts) exec("INSERT OR REPLACE INTO doubted VALUES(?)", [&](Statement& s) { s.bind(vp); });
  for (const auto* gone : {&c.erase_doubts, &c.erase_designations})
    for (VpId vp : *gone) exec("DELETE FROM doubted WHERE vp = ?", [&](Statement& s) { s.bind(vp); });
  for (const Volume& v : c.volumes)
    exec("INSERT OR REPLACE INTO volumes VALUES(?,?,?,?,?,?,?,?)", [&](Statement& s) {
      s.bind(v.id).bind(v.name).bind(v.bytes).bind(v.vp_bytes).bind(v.layout.k).bind(v.layout.m).bind(v.copies)
          .bind(v.removing);
    });
  for (VolumeId id : c.erase_volumes) {
    exec("DELETE FROM volumes WHERE id = ?", [&](Statement& s) { s.bind(id); });
    exec("DELETE FROM attachments WHERE volume = ?", [&](Statement& s) { s.bind(id); });
    exec("DELETE FROM exports WHERE volume = ?", [&](Statement& s) { s.bind(id); });
    exec("DELETE FROM incoming WHERE volume = ?", [&](Statement& s) { s.bind(id); });
  }
  for (const Designation& d : c.designations)
    exec("INSERT OR REPLACE INTO designations VALUES(?,?,?,?)",
         [&](Statement& s) { s.bind(d.vp).bind(d.epoch).bind(d.revision).bind_blob(d.serialize()); });
  for (VpId vp : c.erase_designations)
    exec("DELETE FROM designations WHERE vp = ?", [&](Statement& s) { s.bind(vp); });
  for (const Attachment& a : c.attachments)
    exec("INSERT OR REPLACE INTO attachments VALUES(?,?,?)",
         [&](Statement& s) { s.bind(a.volume).bind(a.incarnation).bind(std::uint64_t{a.holder}); });
  for (const Export& e : c.exports)
    exec("INSERT OR REPLACE INTO exports VALUES(?,?,?,?)",
         [&](Statement& s) { s.bind(e.volume).bind(std::uint64_t{e.node}).bind(e.nbd).bind(e.read_only); });
  for (const Export& e : c.incoming)
    exec("INSERT OR REPLACE INTO incoming VALUES(?,?,?,?)",
         [&](Statement& s) { s.bind(e.volume).bind(std::uint64_t{e.node}).bind(e.nbd).bind(e.read_only); });
  for (VolumeId id : c.erase_exports) {
    exec("DELETE FROM exports WHERE volume = ?", [&](Statement& s) { s.bind(id); });
    exec("DELETE FROM incoming WHERE volume = ?", [&](Statement& s) { s.bind(id); });
  }
  for (VolumeId id : c.erase_incoming)
    exec("DELETE FROM incoming WHERE volume = ?", [&](Statement& s) { s.bind(id); });
  for (const NodeRow& n : c.nodes)
    exec("INSERT OR REPLACE INTO nodes VALUES(?,?,?,?)",
         [&](Statement& s) { s.bind(std::uint64_t{n.id}).bind(n.name).bind(n.role).bind(n.address); });
  for (const auto& [node, r] : c.recollections)
    exec("INSERT OR REPLACE INTO recollections VALUES(?,?)", [&](Statement& s) { s.bind(std::uint64_t{node}).bind(r); });
  for (const Removal& r : c.removals)
    exec("INSERT OR REPLACE INTO removals VALUES(?,?,?)",
         [&](Statement& s) { s.bind(r.vp).bind(std::uint64_t{r.node}).bind(r.epoch); });
  for (const Removal& r : c.erase_removals)
    exec("DELETE FROM removals WHERE vp = ? AND node = ? AND epoch = ?",
         [&](Statement& s) { s.bind(r.vp).bind(std::uint64_t{r.node}).bind(r.epoch); });
  for (const SandboxRow& r : c.sandboxes)
    exec("INSERT OR REPLACE INTO sandboxes VALUES(?,?,?,?)", [&](Statement& s) {
      s.bind(r.vp).bind(std::uint64_t{r.sled}).bind(std::uint64_t{r.device}).bind(std::uint64_t{r.column});
    });
  for (VpId vp : c.erase_sandboxes)
    exec("DELETE FROM sandboxes WHERE vp = ?", [&](Statement& s) { s.bind(vp); });
  return failed ? fail("writing") : Status();
}

Status SqliteStore::persist(const Change& change) {
  if (!failed_.ok()) return failed_;
  Status s = run("BEGIN IMMEDIATE");
  if (s.ok()) s = check_swaps(change);
  if (s.ok()) s = write(change);
  if (s.ok()) s = run("COMMIT");
  if (s.ok()) return s;
  bool open = sqlite3_get_autocommit(db_) == 0;
  bool rolled_back = !open || sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr) == SQLITE_OK;
  // After an I/O error nobody knows what is on the disk; only a fresh open() reads what is.
  if (s.code() == Code::io_error || s.code() == Code::corrupt || !rolled_back)
    failed_ = Status(Code::io_error, s.text() + "; the store takes no change until the control plane is restarted");
  return s;
}

}  // namespace luge::control
