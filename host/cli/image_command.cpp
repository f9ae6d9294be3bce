// luge image: keys, and the signed files that cards are flashed with.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <memory>

#include "cli/commands.hpp"
#include "image/keys.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;
using namespace luge::image;

struct BuildOptions {
  Manifest manifest;
  std::string version, firmware, xclbin, bitstream, kernels, out;
  std::vector<std::string> add, revoke;
  bool keys = false;
};

// A key given as hexadecimal digits or as the file that keygen made.
Result<std::string> public_key(const std::string& given) {
  std::string text = given;
  if (auto f = read_file(given); f.ok()) text.assign(f->begin(), f->end());
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  auto raw = from_hex(text);
  if (!raw.ok() || raw->size() != kKeyBytes) return Status(Code::invalid, "'" + given + "' is no public key: 64 hexadecimal digits, or a file with them");
  return text;
}

int keygen(const Context& context, const std::string& name) {
  auto key = PrivateKey::generate();
  if (!key.ok()) return complain(key.status());
  if (Status s = key->save(name + ".key"); !s.ok()) return complain(s);
  const std::string line = key->public_hex() + "\n";
  if (Status s = write_file(name + ".pub", {reinterpret_cast<const std::uint8_t*>(line.data()), line.size()}); !s.ok()) return complain(s);
  if (context.json) print_json(json::object{{"private", name + ".key"}, {"public", name + ".pub"}, {"key", key->public_hex()}});
  else std::printf("%s.key is the private key: whoever has it can sign for your cards\n%s.pub  %s\n", name.c_str(), name.c_str(), key->public_hex().c_str());
  return kOk;
}

int build(const Context& context, BuildOptions o) {
  Manifest& m = o.manifest;
  m.registers_sha256 = LUGE_REGISTERS_SHA256;
  if (!o.keys && o.version.empty()) return complain(Status(Code::invalid, "--version is missing"));
  if (!o.version.empty()) {
    auto v = parse_version(o.version);
    if (!v.ok()) return complain(v.status());
    m.version = *v;
  }
  for (auto [from, to] : {std::pair{&o.add, &m.add}, {&o.revoke, &m.revoke}})
    for (const std::string& k : *from) {
      auto key = public_key(k);
      if (!key.ok()) return complain(key.status());
      to->push_back(*key);
    }
  if (o.keys) m.kind = "keys";
  std::vector<ByteVector> parts;
  for (auto [name, path] : {std::pair{"firmware", &o.firmware}, {"xclbin", &o.xclbin}, {"bitstream", &o.bitstream}}) {
    if (path->empty()) continue;
    auto bytes = read_file(*path);
    if (!bytes.ok()) return complain(bytes.status());
    m.parts.push_back({name, 0, ""});
    parts.push_back(std::move(*bytes));
  }
  if (o.keys && (!parts.empty() || (m.add.empty() && m.revoke.empty()))) return complain(Status(Code::invalid, "an image of keys has --add or --revoke, and no parts"));
  if (!o.keys && parts.empty()) return complain(Status(Code::invalid, "there is nothing in the image: name --firmware, --xclbin or --bitstream"));
  if (!o.kernels.empty()) {
    auto bytes = read_file(o.kernels);
    if (!bytes.ok()) return complain(bytes.status());
    m.kernels_sha256 = sha256_hex(*bytes);
  }
  auto file = build_file(m, parts);
  if (!file.ok()) return complain(file.status());
  if (Status s = write_file(o.out, *file); !s.ok()) return complain(s);
  if (context.json) print_json(json::object{{"file", o.out}, {"bytes", file->size()}, {"signed", false}});
  else std::printf("%s: %zu bytes, not signed yet (luge image sign)\n", o.out.c_str(), file->size());
  return kOk;
}

int sign(const Context& context, const std::string& path, const std::string& key_path, bool development) {
  if (development == !key_path.empty()) return complain(Status(Code::invalid, "name --key FILE, or --development"));
  auto key = development ? Result<PrivateKey>(PrivateKey::development()) : PrivateKey::load(key_path);
  if (!key.ok()) return complain(key.status());
  auto file = read_file(path);
  if (!file.ok()) return complain(file.status());
  if (Status s = key->sign(*file); !s.ok()) return complain(s);
  if (Status s = write_file(path, *file); !s.ok()) return complain(s);
  if (context.json) print_json(json::object{{"file", path}, {"key", key->public_hex()}, {"signed", true}});
  else std::printf("%s: signed with %s%s\n", path.c_str(), key->public_hex().c_str(), development ? " (the development key: everybody has it)" : "");
  return kOk;
}

int inspect(const Context& context, const std::string& path, const std::vector<std::string>& keys) {
  auto bytes = read_file(path);
  if (!bytes.ok()) return complain(bytes.status());
  auto f = parse_file(*bytes);
  if (!f.ok()) return complain(f.status());
  Keyring ring;
  for (const std::string& k : keys) {
    auto key = public_key(k);
    if (!key.ok()) return complain(key.status());
    ring.trusted.push_back(*key);
  }
  const Manifest& m = f->manifest;
  const Status trusted = check_signature(*f, ring, true);
  if (context.json) {
    json::object o = json::parse(to_text(m)).as_object();
    o["version"] = version_text(m.version), o["key_id"] = hex(f->key_id), o["trusted"] = trusted.ok(), o["why"] = trusted.text();
    print_json(o);
  } else {
    std::string revisions;
    for (std::uint32_t r : m.revisions) revisions += " " + std::to_string(r);
    std::printf("kind       %s\nboard      %s, revisions%s\nversion    %s\nregisters  %s\nkernels    %s\nplatform   %s\nkey id     %s\nsignature  %s\n", m.kind.c_str(), m.board.c_str(),
                revisions.c_str(), version_text(m.version).c_str(), m.registers_sha256.c_str(), m.kernels_sha256.empty() ? "-" : m.kernels_sha256.c_str(),
                m.platform.empty() ? "-" : m.platform.c_str(), hex(f->key_id).c_str(), trusted.ok() ? "right" : trusted.text().c_str());
    for (const Part& p : m.parts) std::printf("part       %s, %u bytes, %s\n", p.name.c_str(), p.bytes, p.sha256.c_str());
    for (const std::string& k : m.add) std::printf("trusts     %s\n", k.c_str());
    for (const std::string& k : m.revoke) std::printf("revokes    %s\n", k.c_str());
  }
  return trusted.ok() ? kOk : kRefused;
}

}  // namespace

void add_image_commands(CLI::App& app, Context& context) {
  auto* image = app.add_subcommand("image", "keys, and the signed images that cards are flashed with");
  image->require_subcommand(1);

  auto name = std::make_shared<std::string>(), key = std::make_shared<std::string>();
  auto* g = image->add_subcommand("keygen", "make a key pair: NAME.key (private, Ed25519, PEM) and NAME.pub");
  g->add_option("NAME", *name)->required();
  g->callback([name, &context] { context.run = [name, &context] { return keygen(context, *name); }; });

  auto o = std::make_shared<BuildOptions>();
  o->manifest.revisions = {1};
  auto* b = image->add_subcommand("build", "put an image together, unsigned");
  b->add_option("--out", o->out, "the file to write")->required();
  b->add_option("--board", o->manifest.board, "board that it is for")->required();
  b->add_option("--revisions", o->manifest.revisions, "of the hardware that it is for; default: 1")->delimiter(',');
  b->add_option("--version", o->version, "1.2.3: cards refuse an older one");
  b->add_option("--firmware", o->firmware, "firmware.bin");
  b->add_option("--xclbin", o->xclbin, "for a board with `update = xclbin`");
  b->add_option("--bitstream", o->bitstream, "for a board with `update = qspi`");
  b->add_option("--kernels", o->kernels, "card.sv that the bitstream was built of: its SHA-256 goes into the manifest");
  b->add_option("--platform", o->manifest.platform, "UUID of the platform that the xclbin was linked for");
  b->add_flag("--keys", o->keys, "an image that changes the keys that a card trusts, instead of one for a slot");
  b->add_option("--add", o->add, "public key to trust: with --keys, or of a golden image");
  b->add_option("--revoke", o->revoke, "with --keys: public key that is not trusted any more, for good");
  b->callback([o, &context] { context.run = [o, &context] { return build(context, *o); }; });

  auto development = std::make_shared<bool>(false);
  auto* s = image->add_subcommand("sign", "sign an image");
  s->add_option("FILE", *name)->required();
  s->add_option("--key", *key, "private key, from keygen");
  s->add_flag("--development", *development, "with the key that everybody has: only boards for development take it");
  s->callback([name, key, development, &context] { context.run = [=, &context] { return sign(context, *name, *key, *development); }; });

  auto keys = std::make_shared<std::vector<std::string>>();
  auto* i = image->add_subcommand("inspect", "print what an image says of itself; ends with 5 unless a key given, or the development key, has signed it");
  i->add_option("FILE", *name)->required();
  i->add_option("--key", *keys, "public key that is trusted");
  i->callback([name, keys, &context] { context.run = [=, &context] { return inspect(context, *name, *keys); }; });
}

}  // namespace luge::cli
