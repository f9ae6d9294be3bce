#include "client/volume.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "client/volume_state.hpp"
#include "switches/switches.hpp"

namespace luge::client {
namespace {

constexpr io::Duration kControlTimeout = std::chrono::seconds(10);
constexpr io::Duration kGiveBackRetry = std::chrono::seconds(1), kGiveBackRetryMost = std::chrono::seconds(15);
constexpr io::Duration kDrainTime = std::chrono::seconds(2);
constexpr std::uint64_t kMaxVps = 65536;

}  // namespace

std::vector<std::uint32_t> Part::checksums() const {
  std::vector<std::uint32_t> sums;
  for (std::uint64_t at = offset % kBlockBytes, end = at + length; at < end;) {
    std::uint64_t stop = std::min<std::uint64_t>(end, (at / kBlockBytes + 1) * kBlockBytes);
    sums.push_back(crc32c({image.data() + at, static_cast<std::size_t>(stop - at)}));
    at = stop;
  }
  return sums;
}

Status VolumeState::accept(const fbs::VolumeView& view) {
  auto wrong = [&](const char* what) {
    return Status(Code::corrupt, "the control plane describes volume '" + name + "' wrongly: " + what);
  };
  id = view.volume();
  bytes = view.bytes();
  vp_bytes = view.vp_bytes();
  attachment = view.attachment();
  incarnation = view.incarnation();
  if (bytes == 0 || bytes % kBlockBytes != 0) return wrong("its size is not a multiple of 4096");
  if (vp_bytes == 0 || vp_bytes % kBlockBytes != 0) return wrong("its partition size is not a multiple of 4096");
  if (incarnation == 0) return wrong("the attachment has no incarnation");
  std::uint64_t count = bytes / vp_bytes + (bytes % vp_bytes != 0);
  if (count > kMaxVps || view.vps() == nullptr || view.vps()->size() != count)
    return wrong("its partitions do not add up to its size");
  for (std::uint32_t i = 0; i < count; ++i) {
    VpId vp = make_vp(id, i);
    const fbs::VpView* v = view.vps()->Get(i);
    if (v->designation() != nullptr && v->designation()->vp() != vp) return wrong("a partition has another's id");
    sessions.push_back(std::make_unique<VpSession>(*this, vp));
    sessions.back()->learn(v);
  }
  return Status();
}

Status VolumeState::check(std::uint64_t offset, std::uint64_t length) const {
  if (!failed.ok()) return failed;
  if (closing) return Status(Code::closed_session, "volume '" + name + "' is being detached");
  if (offset > bytes || length > bytes - offset)
    return Status(Code::invalid, "volume '" + name + "' ends at byte " + std::to_string(bytes) + "; " +
                                     std::to_string(length) + " bytes at " + std::to_string(offset) + " lie beyond");
  return Status();
}

void VolumeState::submit_write(fbs::OpKind kind, std::uint64_t offset, Buffer image, std::uint32_t length,
                               BlockTarget::Done done) {
  Status s = check(offset, length);
  if (s.ok() && kind == fbs::OpKind::write && image.size() < touched_blocks(offset, length) * kBlockBytes)
    s = Status(Code::invalid, "a write's image is shorter than the blocks it touches");
  if (!s.ok() || length == 0) return world.post([done = std::move(done), s] { done(s); });
  Request* r = requests.take();
  r->done = std::move(done);
  ++open_requests;
  std::uint64_t at = offset, end = offset + length, first_block = offset / kBlockBytes;
  while (at < end) {
    std::uint64_t in = at % vp_bytes;
    std::uint64_t limit = vp_bytes;  // a trim is one record whatever its length (protocol 2.5)
    if (kind == fbs::OpKind::write) limit = std::min(limit, (in / kBlockBytes + kMaxOpBlocks) * kBlockBytes);
    std::uint64_t stop = std::min(end, at - in + limit);
    Part* p = parts.take();
    p->request = r;
    p->is_read = p->is_map = false;
    p->kind = kind;
    p->offset = in;
    p->length = static_cast<std::uint32_t>(stop - at);
    if (kind == fbs::OpKind::write) {
      p->image = image.slice((at / kBlockBytes - first_block) * kBlockBytes, p->blocks() * std::size_t{kBlockBytes});
      p->crcs = p->checksums();
    }
    ++r->left;
    sessions[at / vp_bytes]->submit(p);
    at = stop;
    if (at % vp_bytes == 0 && broken(Switch::far_parts_forgotten)) break;
  }
}

void VolumeState::submit_read(std::uint64_t offset, std::uint32_t length, BlockTarget::ReadDone done) {
  Status s = check(offset, length);
  if (!s.ok() || length == 0) return world.post([done = std::move(done), s] { done(s, {}); });
  Request* r = requests.take();
  r->read_done = std::move(done);
  ++open_requests;
  std::uint64_t at = offset, end = offset + length;
  while (at < end) {
    std::uint64_t in = at % vp_bytes;
    std::uint64_t limit = std::min<std::uint64_t>((in / kBlockBytes + kMaxOpBlocks) * kBlockBytes, vp_bytes);
    std::uint64_t stop = std::min(end, at - in + limit);
    Part* p = parts.take();
    p->request = r;
    p->is_read = true;
    p->is_map = false;
    p->index = r->left++;
    p->offset = in;
    p->length = static_cast<std::uint32_t>(stop - at);
    r->data.emplace_back();
    sessions[at / vp_bytes]->submit(p);
    at = stop;
  }
}

void VolumeState::submit_map(std::uint64_t offset, std::uint32_t length, BlockTarget::MapDone done) {
  Status s = check(offset, length);
  if (!s.ok() || length == 0) return world.post([done = std::move(done), s] { done(s, {}); });
  Request* r = requests.take();
  r->map_done = std::move(done);
  ++open_requests;
  for (std::uint64_t at = offset, end = offset + length; at < end;) {
    std::uint64_t in = at % vp_bytes;
    std::uint64_t limit = std::min<std::uint64_t>((in / kBlockBytes + kMaxMapBlocks) * kBlockBytes, vp_bytes);
    std::uint64_t stop = std::min(end, at - in + limit);
    Part* p = parts.take();
    p->request = r;
    p->is_read = p->is_map = true;
    p->index = r->left++;
    p->offset = in;
    p->length = static_cast<std::uint32_t>(stop - at);
    r->runs.emplace_back();
    sessions[at / vp_bytes]->submit(p);
    at = stop;
  }
}

void VolumeState::finish(Part* part, const Status& status) {
  Request* r = part->request;
  if (!status.ok() && r->status.ok()) r->status = status;
  if (status.ok() && !part->is_map) (part->is_read ? stats.read_bytes : stats.written_bytes) += part->length;
  bool is_read = part->is_read, is_map = part->is_map;
  parts.give(part);
  if (--r->left != 0) return;
  if (!is_map) ++(is_read ? stats.reads : stats.writes);
  if (--open_requests == 0) idle.notify_all();
  if (is_map) {
    std::vector<BlockTarget::MapRun> runs;
    for (std::size_t i = 0; r->status.ok() && i < r->runs.size(); ++i)
      for (const BlockTarget::MapRun& run : r->runs[i]) {
        if (!runs.empty() && runs.back().data == run.data) runs.back().bytes += run.bytes;
        else runs.push_back(run);
      }
    r->map_done(r->status, runs);
  } else if (is_read) {
    if (!r->status.ok()) r->data.clear();
    r->read_done(r->status, r->data);
  } else {
    r->done(r->status);
  }
  requests.give(r);
}

void VolumeState::mark_dirty(VpSession& s) {
  if (std::exchange(s.dirty, true)) return;
  dirty.push_back(&s);
  if (dirty.size() != 1) return;
  // Everything that is submitted before this runs goes into the same messages.
  world.post([self = shared_from_this()] {
    self->sending.swap(self->dirty);
    for (VpSession* s : self->sending) {
      s->dirty = false;
      s->send();
    }
    self->sending.clear();
  });
}

void VolumeState::fail(const Status& status) {
  if (!failed.ok()) return;
  failed = status;
  std::vector<Part*> open;
  for (auto& s : sessions) s->abandon(open);
  for (auto& [address, link] : links) link->stop();
  links.clear();
  world.post([self = shared_from_this(), open = std::move(open)] {
    if (self->down) return;
    for (Part* p : open) self->finish(p, self->failed);
    if (auto f = std::exchange(self->lost, {})) f(self->failed);
  });
}

void VolumeState::shut_down() {
  down = true;
  lost = nullptr;
  std::vector<Part*> dropped;
  for (auto& s : sessions) s->abandon(dropped);
  for (auto& [address, link] : links) link->stop();
  links.clear();
}

std::shared_ptr<wire::Link> VolumeState::link_to(const std::string& address, bool fresh, bool& is_new) {
  drop_unused_links(address);
  auto& link = links[address];
  if (link && fresh && !link->connected()) link.reset();
  is_new = !link;
  if (link) return link;
  std::weak_ptr<VolumeState> weak = weak_from_this();
  link = std::make_shared<wire::Link>(world, self, address,
                                      [weak](const std::shared_ptr<wire::Channel>& channel, wire::Frame f) {
                                        if (auto v = weak.lock()) v->on_frame(channel, f);
                                      });
  link->on_disconnect([weak, address] {
    auto v = weak.lock();
    if (!v) return;
    for (auto& s : v->sessions)
      if (s->address() == address) s->wake();
  });
  link->start();
  return link;
}

void VolumeState::drop_unused_links(const std::string& keep) {
  std::erase_if(links, [&](const auto& l) {
    return l.first != keep && std::none_of(sessions.begin(), sessions.end(),
                                           [&](const auto& s) { return s->address() == l.first; });
  });
}

VpSession* VolumeState::session_of(VpId vp) {
  return volume_of(vp) == id && index_of(vp) < sessions.size() ? sessions[index_of(vp)].get() : nullptr;
}

void VolumeState::on_frame(const std::shared_ptr<wire::Channel>& channel, const wire::Frame& frame) {
  if (ended()) return;
  bool sound = false;
  if (frame.kind == wire::Kind::write_replies) {
    if (const auto* r = frame.as<fbs::WriteReplies>()) {
      sound = true;
      VpSession* s = session_of(r->vp());
      if (s != nullptr && r->attachment() == attachment && r->incarnation() == incarnation) s->on_write_replies(*r);
    }
  } else if (frame.kind == wire::Kind::read_replies) {
    if (const auto* r = frame.as<fbs::ReadReplies>()) {
      VpSession* s = session_of(r->vp());
      sound = s == nullptr || s->on_read_replies(*r, frame.data());
    }
  } else if (frame.kind == wire::Kind::map_reply) {
    if (const auto* r = frame.as<fbs::MapReply>()) {
      VpSession* s = session_of(r->vp());
      sound = s == nullptr || s->on_map_reply(*r);
    }
  } else {
    logging::warn("volume {}: {} sent an unexpected '{}'; ignored", name, channel->peer(), wire::kind_name(frame.kind));
    return;
  }
  if (sound) return;
  logging::warn("volume {}: {} sent a '{}' that does not hold together; connection closed", name, channel->peer(),
                wire::kind_name(frame.kind));
  channel->close();
}

Volume::Volume(std::shared_ptr<VolumeState> state) : state_(std::move(state)) {}

Volume::~Volume() { state_->shut_down(); }

io::Task<Result<std::unique_ptr<Volume>>> Volume::attach(io::World& world, wire::Identity& self,
                                                         wire::ControlLink& control, std::string name, NodeId holder,
                                                         bool take_over) {
  auto request = wire::make_frame(wire::Kind::attach_volume, [&](auto& b) {
    auto n = b.CreateString(name);
    return fbs::CreateAttachVolume(b, n, holder, take_over);
  });
  auto answer = co_await control.call(std::move(request), kControlTimeout);
  if (!answer.ok()) co_return answer.status().with("attaching volume '" + name + "'");
  if (answer->kind != wire::Kind::volume_view) {
    Status s = wire::status_of(*answer);
    if (s.ok()) s = Status(Code::corrupt, "the control plane answered with no volume");
    co_return s;
  }
  const auto* view = answer->as<fbs::VolumeView>();
  if (view == nullptr) co_return Status(Code::corrupt, "the control plane's answer to the attach does not verify");
  if (Status s = wire::make_status(view->code(), view->text()); !s.ok()) co_return s;
  auto state = std::make_shared<VolumeState>(world, self, control);
  state->name = name;
  if (Status s = state->accept(*view); !s.ok()) co_return s;
  logging::info("volume {}: attached, {} bytes in {} partitions, incarnation {}", name, state->bytes,
                state->sessions.size(), state->incarnation);
  co_return std::unique_ptr<Volume>(new Volume(std::move(state)));
}

io::Task<Status> Volume::detach() {
  auto state = state_;
  state->closing = true;
  io::Time deadline = state->world.now() + kDrainTime;
  while (state->open_requests != 0 && state->failed.ok())
    if (!co_await state->idle.wait_until(deadline)) break;
  const bool lost = !state->detached && state->failed.code() == Code::closed_session;
  state->detached = !lost;
  state->fail(Status(Code::closed_session, "volume '" + state->name + "' has been detached"));
  co_await state->world.yield();  // the callbacks of what was open have run when this returns
  if (lost) co_return Status();
  auto request = wire::make_frame(wire::Kind::detach_volume, [&](auto& b) {
    return fbs::CreateDetachVolume(b, state->id, state->attachment, state->incarnation);
  });
  auto answer = co_await state->control.call(std::move(request), kControlTimeout);
  if (!answer.ok()) co_return answer.status().with("detaching volume '" + state->name + "'");
  co_return wire::status_of(*answer);
}

io::Task<void> Volume::give_back(io::World& world, std::shared_ptr<Volume> volume, std::function<bool()> over) {
  for (io::Duration wait = kGiveBackRetry; !over(); wait = std::min(2 * wait, kGiveBackRetryMost)) {
    Status s = co_await volume->detach();
    // The last two: it has been attached anew since, or is no more.
    if (s.ok() || s.code() == Code::closed_session || s.code() == Code::not_found) co_return;
    co_await world.sleep(wait);
  }
}

void Volume::close() {
  state_->lost = nullptr;
  state_->fail(Status(Code::closed_session, "volume '" + state_->name + "' has been closed"));
}

void Volume::on_lost(std::function<void(const Status&)> f) { state_->lost = std::move(f); }

void Volume::write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) {
  state_->submit_write(fbs::OpKind::write, offset, std::move(image), length, std::move(done));
}
void Volume::read(std::uint64_t offset, std::uint32_t length, ReadDone done) {
  state_->submit_read(offset, length, std::move(done));
}
void Volume::trim(std::uint64_t offset, std::uint32_t length, Done done) {
  state_->submit_write(fbs::OpKind::trim, offset, Buffer(), length, std::move(done));
}
void Volume::zero(std::uint64_t offset, std::uint32_t length, Done done) {
  state_->submit_write(fbs::OpKind::zero, offset, Buffer(), length, std::move(done));
}

void Volume::map(std::uint64_t offset, std::uint32_t length, MapDone done) { state_->submit_map(offset, length, std::move(done)); }

void Volume::grow(std::uint64_t bytes) {
  VolumeState& v = *state_;
  if (bytes <= v.bytes || bytes % kBlockBytes != 0 || (bytes - 1) / v.vp_bytes >= kMaxVps) return;
  v.bytes = bytes;
  while (v.sessions.size() * v.vp_bytes < bytes) {
    v.sessions.push_back(std::make_unique<VpSession>(v, make_vp(v.id, static_cast<std::uint32_t>(v.sessions.size()))));
    v.sessions.back()->learn(nullptr);  // looks its primary up when it is first used
  }
}

std::uint64_t Volume::size_bytes() const { return state_->bytes; }
const std::string& Volume::name() const { return state_->name; }
VolumeId Volume::id() const { return state_->id; }
std::uint64_t Volume::incarnation() const { return state_->incarnation; }
const Volume::Stats& Volume::stats() const { return state_->stats; }
std::size_t Volume::open_requests() const { return state_->open_requests; }

bool Volume::paused() const {
  io::Time now = state_->world.now();
  return std::any_of(state_->sessions.begin(), state_->sessions.end(), [&](const auto& s) { return s->paused(now); });
}

std::string Volume::pause_reason() const {
  io::Time now = state_->world.now();
  for (const auto& s : state_->sessions)
    if (s->paused(now)) return s->reason();
  return {};
}

}  // namespace luge::client
