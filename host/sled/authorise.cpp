// Who may change what on this sled: designations that are presented, credentials that are carried (sled/credentials.hpp).
#include <spdlog/fmt/fmt.h>

#include "base/json_text.hpp"
#include "base/logging.hpp"
#include "sled/service.hpp"
#include "switches/switches.hpp"

namespace luge::sled {

// Counted here and not with the answers: a gateway's chunks and its own check are refusals like any other.
Status Service::refused(Status s) {
  if (s.ok() || s.code() == Code::unavailable || s.code() == Code::invalid) return s;
  refusals_.count(s.code());
  last_refusal_ = s.to_string();
  return s;
}

// A signature takes 150 us to verify: the last good one of a VP is remembered, and presented again with every list and claim.
Status Service::check_presented(const fbs::Designation* presented, NodeId holder, VpId vp, Epoch epoch, NodeId role) {
  if (vp == 0 || epoch == 0) return Status(Code::invalid, "neither volume partition nor epoch is ever 0");
  if (!unit_key_) return Status(Code::unavailable, "this sled has not heard the unit's key yet: it changes nothing before it can tell who may");
  if (!presented) return refused(Status(Code::forged, "no designation is presented"));
  wire::Designation d = wire::Designation::from(*presented);
  if (d.vp != vp || d.epoch != epoch) return refused(Status(Code::not_permitted, "the designation that is presented is of another volume partition or epoch"));
  auto known = verified_.find(vp);
  if (known == verified_.end() || known->second != d) {
    Status s = broken(Switch::signatures_unchecked) ? Status() : unit_key_->check(identity_.unit, d);
    if (!s.ok()) return refused(s);
    verified_[vp] = d;
  }
  return refused(check_role(d, holder, role));
}

fbs::Credential Service::credential_for(const Device& d, std::uint32_t column, NodeId holder, VpId vp, Epoch epoch) {
  ++issued_;
  const ColumnRow& row = d.row(column);
  return credentials_->issue(holder, {vp, epoch, row.generation, column, d.index(), row.role});
}

Status Service::check_credential(const fbs::Credential* c, const Device& d, std::uint32_t column, VpId vp, Epoch epoch) {
  if (column >= d.columns()) return Status(Code::invalid, "the device has " + std::to_string(d.columns()) + " columns");
  const ColumnRow& row = d.row(column);
  return refused(credentials_->check(c, {vp, epoch, row.generation, column, d.index(), row.role}));
}

// Before a stripe is coded. The other sleds check theirs.
Status Service::check_stripe(VpId vp, Epoch epoch, std::span<const fbs::ChunkPlace> places, std::span<const fbs::Credential> credentials) {
  if (epoch < held(vp))
    if (Status s = check_epoch(vp, epoch); !s.ok()) return s;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (places[i].sled() != options_.id) continue;
    auto d = device(options_.id, places[i].device());
    if (!d.ok()) return d.status();
    if (Status s = check_credential(&credentials[i], **d, places[i].column(), vp, epoch); !s.ok()) return s;
  }
  return Status();
}

io::Task<Status> Service::take_secret() {
  auto secret = co_await meta_->secret();
  if (!secret.ok()) co_return secret.status().with("the sled's data directory");
  credentials_ = std::make_unique<Credentials>(identity_.unit, options_.id, *secret);
  if (options_.unit_key) co_return co_await take_key(*options_.unit_key);
  if (auto key = meta_->unit_key()) {
    auto verifier = wire::Verifier::make(*key);
    if (!verifier.ok()) co_return verifier.status().with("the unit's key in the sled's data directory");
    unit_key_ = *verifier;
  }
  co_return Status();
}

io::Task<Status> Service::take_key(wire::KeyBytes key) {
  auto verifier = wire::Verifier::make(key);
  if (!verifier.ok()) co_return verifier.status().with("the unit's key");
  if (meta_->unit_key() != key)
    if (Status s = co_await meta_->remember_unit_key(key); !s.ok()) co_return s.with("the sled's data directory");
  unit_key_ = *verifier;
  verified_.clear();
  co_return Status();
}

// The first key that is heard is this unit's for good. Another one is an operator's to bring: whoever can make a control plane of this unit
// appear at its address must not become master of what is stored here.
io::Task<void> Service::learn_key() {
  auto key = control_ ? control_->unit_key() : std::nullopt;
  if (!key || !meta_ || !credentials_) co_return;
  other_key_.clear();
  if (!unit_key_) {
    if (Status s = co_await take_key(*key); !s.ok()) logging::error("{}", s.to_string());
    co_return;
  }
  if (unit_key_->key() == *key) co_return;
  other_key_ = wire::to_hex(*key);
  logging::error("the control plane shows another key than this sled knows ({}): its designations are refused; if it is the unit's new key, start the "
                 "sled once with --unit-key {}", wire::to_hex(unit_key_->key()), other_key_);
}

std::string Service::credentials_json() const {
  const Refusals& r = refusals_;
  return fmt::format(R"({{"unit_key":"{}","other_key":"{}","issued":{},"forged":{},"replayed":{},"expired":{},"other_unit":{},"not_permitted":{},"last_refusal":"{}"}})",
                     unit_key_ ? wire::to_hex(unit_key_->key()) : "", other_key_, issued_, r.forged, r.replayed, r.expired, r.other_unit, r.not_permitted,
                     json_text(last_refusal_));
}

}  // namespace luge::sled
