#include <array>

#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge {

std::string_view switch_name(Switch s) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Switch::count_)> names = {
      "lost-ack", "wrong-parity", "stale-read", "skip-flush",
      "diverged-unchecked", "read-at-append", "free-at-append", "no-session-fence", "no-duplicate-table",
      "merge-without-block-lock", "left-forgotten", "other-disk-believed", "older-size-is-final", "merge-trusts-memory", "ack-before-shrink", "join-before-acks", "acknowledges-one-copy", "union-forgotten", "places-change-hands-for-ever", "control-pause-stays", "replacement-joins-at-once",
      "last-copy-moves", "moves-unconfirmed", "latency-not-relative", "latency-floor-ignored", "slow-without-revision", "slow-never-restored", "slow-below-min-copies", "slow-member-cut-off", "slow-primary-kept", "anybody-stands",
      "longest-log-by-length",
      "blank-promoted", "newcomers-prove-emptiness", "first-opening-unrecorded", "only-required-asked", "truncate-not-durable", "open-before-all-hold-tail", "restarted-primary-keeps-epoch", "old-epoch-taken", "heard-primary-denied", "writes-wait-for-flush", "flush-triggers-ignored", "silent-while-asking", "log-never-grows", "full-store-fails-log", "failed-read-is-loss", "failed-log-answers", "half-a-log-counts", "truncated-opening-counts", "frozen-member-awaited", "answers-checksummed-anew", "bad-memory-trusted", "refused-op-brings-nothing", "unread-answers-pile-up", "failed-member-kept", "failed-member-awaited", "stuck-log-kept", "stuck-member-awaited", "unheard-counts-as-heard", "taken-over-disk-returns", "attachments-unbounded", "grown-size-told-early", "incarnations-given-out-again", "older-store-makes-partitions", "union-not-asked", "bad-sector-fails-device", "nothing-is-an-answer", "rebuild-not-noted", "made-anew-taken", "images-wait-in-line", "images-get-a-share", "idle-images-stay", "sync-waits-for-space", "late-sync-taken", "history-unchecked", "reads-unconfirmed", "lease-from-receipt", "lease-of-any-one",
      "lease-forgotten-at-restart",
      "unconditional-index-record", "retry-on-same-slots", "free-without-generation", "no-sled-fence", "sled-forgets-fences",
      "segment-generation-unchecked", "suspect-promoted", "torn-end-forgotten", "reuse-before-image", "index-without-reserve",
      "store-loses-last-transaction", "restored-store-promotes", "checkpoint-covers-uncommitted", "checkpoint-of-another-history", "checkpoint-not-read-back",
      "signatures-unchecked", "credentials-unchecked", "roles-unchecked", "epoch-not-raised", "sleds-word-ignored", "sandbox-is-a-limit", "flush-asks-for-space", "sandbox-not-sent",
      "metadata-trimmed-to-newest-checkpoint",
      "checkpoints-never-due", "reserves-write-no-checkpoint", "checkpoints-unasked", "checkpoint-waits-for-flush", "checkpoint-not-asked-for", "checkpoint-needs-author",
      "unflushed-left-out", "flushed-data-moves", "no-survivor-stands", "no-spare-chosen", "silent-head-unnoticed", "survivors-not-told", "designations-not-kept", "one-role-per-head", "only-the-primary-asked",
      "flush-holds-writes", "clear-stops-at-page", "far-parts-forgotten", "parity-never-written", "log-tail-unwritten", "chunk-denied",
      "no-tls-demand", "card-parity-unverified", "hung-card-waited-for", "head-decodes", "card-back-untested",
      "dma-unrecorded", "dma-records-lost", "dma-function-unrecorded", "dma-range-unrecorded", "dma-record-before-data", "dma-overflow-ignored", "dma-reads-recorded", "log-all-ignored", "card-bus-unchecked",
      "record-gap-ignored", "examined-before-copied", "examiner-pauses", "record-counts-one-page", "records-ignored", "records-dropped", "records-of-function-lost", "records-of-range-dropped",
      "overflow-ignored", "processor-writes-ignored", "copied-at-scheduling", "bits-cleared-after-copy", "record-outside-ignored",
      "recording-after-first-pass", "one-pass-only", "final-drain-left-out", "recording-left-on", "device-never-slowed", "other-function-recorded",
      "page-checksums-unchecked", "written-blocks-ignored", "checkpoint-half-kept", "store-space-reused-early",
      "abandoned-requests-forgotten", "taken-pages-forgotten", "paused-machine-let-run", "memory-restored-in-place", "senders-share-a-part",
      "flip-before-verify", "attempts-not-counted", "torn-image-booted", "image-signature-unchecked", "revoked-key-taken", "image-target-unchecked", "image-digests-unchecked",
      "failed-card-ready", "ring-owner-ignored", "card-fence-ignored", "card-fence-forgotten", "card-fault-forgotten", "card-waits-long"};
  return names[static_cast<std::size_t>(s)];
}

std::string_view path_name(Path p) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Path::count_)> names = {
      "diverged-refused", "reader-waits-for-commit", "late-write-of-old-session", "retry-over-promotion",
      "write-waits-for-merge", "proposal-answer-lost", "reserve-fuller-than-primary", "swaps-collide",
      "newer-than-store", "second-promotion-during-tail", "longer-tail-dropped", "index-record-dropped",
      "trim-during-flush", "sled-back-after-epochs", "decode-with-another-set",
      "image-rebuild", "suspect-after-replay", "repaired-from-member", "narrow-stripe", "stranger", "blank-waits", "restarted-inside-lease", "late-sync-refused", "log-grown", "metadata-gathered", "sync-without-room", "member-replaced", "replaced-came-back", "replacement-learned", "left-for-good", "volume-grown", "copy-moved", "attempt-of-unknown-end",
      "epoch-start-appended", "truncate-logged", "proposal-sent", "image-sent", "index-record-appended",
      "segment-begun", "stripe-spread", "fence-persisted", "member-joined", "member-left", "primary-opened", "flush-gathered", "slow-left", "slow-back", "handed-over", "store-doubted",
      "tail-dropped", "store-rebuilt",
      "checkpoint-asked-for", "checkpoint-refused", "fall-back-checkpoint", "checkpoint-written", "checkpoint-loaded", "checkpoint-slot-freed"};
  return names[static_cast<std::size_t>(p)];
}

}  // namespace luge
