// The memory of a machine that waits for its migration: a QEMU started with `-incoming defer` on the file DIR/memory.
//
// begin() makes the file, of the right size; QEMU may be started before or after. commit() gives QEMU the device state and lets it run: from
// then on the machine is here. A second begin() for a machine that runs is refused. Threads: one.
#pragma once

#include <string>

#include "vmstate/qmp.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

class LiveTarget final : public Target {
 public:
  /// `directory` has memory, state and the monitor of the QEMU that waits (qmp.sock) in it.
  explicit LiveTarget(std::string directory) : directory_(std::move(directory)) {}
  ~LiveTarget() override;
  Result<std::uint64_t> newest(const std::string&) override { return std::uint64_t{0}; }
  Status begin(const Begin& begin) override;
  Status put(const PageBatch& batch) override;
  Status commit(const std::string& device_state, const std::string& description) override;
  void abandon() override {}

 private:
  Status run(const std::string& device_state);
  Status meet_qemu(std::chrono::milliseconds patience);
  const std::string directory_;
  Shape shape_;
  std::byte* memory_ = nullptr;
  PageSet have_;
  std::unique_ptr<Qmp> qmp_;  // from begin() on, if QEMU waits already
};

}  // namespace luge::vmstate
