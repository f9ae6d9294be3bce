#include "head/report.hpp"

#include <spdlog/fmt/fmt.h>

#include "base/json_text.hpp"
#include "head/checkpoint.hpp"
#include "head/partition.hpp"
#include "head/primary.hpp"

namespace luge::head {
namespace {

std::string state_of(const Partition& p) {
  if (p.primary) return p.primary->open() ? (p.waits.text().empty() ? "open" : "waiting") : "opening";
  if (p.replica.suspect) return "suspect";
  if (p.designation().primary == p.ctx.options.id) return "closed";
  return p.synced_epoch == p.designation().epoch ? "live" : "catching_up";
}

std::string reason_of(const Partition& p) {
  if (std::string why = p.waits.text(); !why.empty()) return why;
  if (p.primary && p.primary->state_text() != "open") return p.primary->state_text();
  if (p.primary) return p.primary->slow_members();
  return p.replica.suspect ? p.replica.suspect_reason : "";
}

// Where the VP's flushed data lies.
std::string sleds_report(const Replica& replica) {
  std::string s;
  for (const auto& [sled, share] : replica.sled_shares())
    s += fmt::format(R"({}{{"sled":{},"live_bytes":{},"chunks":{}}})", s.empty() ? "" : ",", sled, share.live_blocks * kBlockBytes, share.chunks);
  return s;
}

std::string vp_report(const Partition& p) {
  const Designation& d = p.designation();
  bool mine = d.primary == p.ctx.options.id;
  std::string s = fmt::format(
      R"({{"vp":{},"role":"{}","state":"{}","reason":"{}","epoch":{},"revision":{},"lsn":{},"durable":{},"commit":{},)"
      R"("digest":"{:016x}","unflushed_bytes":{},"stripes":{},"index_pages":{},"copies":{})",
      p.replica.vp(), mine ? "primary" : "reserve", state_of(p), json_text(reason_of(p)), d.epoch, d.revision,
      p.replica.last().lsn, p.replica.durable(), p.replica.commit(), p.replica.index().digest(), p.replica.unflushed_blocks() * kBlockBytes, p.replica.stripes().size(),
      p.replica.index().page_count(), d.required.size());
  s += fmt::format(R"(,"checkpoint":{},"put_together_from":{{"checkpoint":{},"metadata":{},"index_pages":{},"unflushed":{},"author":{},"lsn":{},"records":{}}})",
                   p.checkpoints->report(), p.sources.checkpoint, p.sources.metadata, p.sources.index_pages, p.sources.unflushed, p.sources.author, p.sources.lsn, p.sources.records);
  if (p.primary) {
    const Primary::Counters& c = p.primary->counters();
    const Columns::Counters& claims = p.primary->column_counters();
    s += fmt::format(
        R"(,"degraded_stripes":{},"read_bytes":{{"memory":{},"log":{},"sled":{},"reconstructed":{}}},)"
        R"("written_bytes":{{"user":{},"log":{},"data_chunks":{},"parity_chunks":{}}},"duplicates":{},"merges":{},"sandbox":{{"columns":{},"requests":{},"outside_space":{},"outside_domain":{}}},"sleds":[{}],"members":[{}],"replacements":[{}])",
        p.primary->degraded_stripes(), c.read_memory, c.read_log, c.read_sled, c.read_reconstructed, c.written_user,
        c.written_log, c.data_chunks, c.parity_chunks, c.duplicates, c.merges, p.sandbox.size(), claims.requests, claims.outside_space, claims.outside_domain, sleds_report(p.replica),
        p.primary->members_report(), p.primary->replacements_report());
  }
  return s + "}";
}

}  // namespace

std::string make_report(Context& ctx) {
  std::string s = R"({"vps":[)";
  bool first = true;
  for (const auto& [vp, p] : ctx.partitions) {
    if (p->dropped) continue;
    if (!std::exchange(first, false)) s += ',';
    s += vp_report(*p);
  }
  s += fmt::format(R"(],"log":{{"data_used":{},"data_bytes":{},"meta_used":{},"meta_bytes":{},"meta_cannot_grow":"{}","appended_bytes":{},"batches":{},"failed":{}}},"coded_bytes":{}}})",
                   ctx.data_log->used_bytes(), ctx.data_log->bytes(), ctx.meta_log->used_bytes(), ctx.meta_log->bytes(), json_text(ctx.meta_log->cannot_grow()),
                   ctx.data_log->appended_bytes() + ctx.meta_log->appended_bytes(),
                   ctx.data_log->batches() + ctx.meta_log->batches(), ctx.failed(), ctx.coded_bytes);
  return s;
}

}  // namespace luge::head
