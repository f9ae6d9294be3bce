// The memory of a machine that waits for its migration: a QEMU started with `-incoming defer` on the file DIR/memory.
//
// begin() makes the file, of the right size; QEMU may be started before or after. commit() gives QEMU the device state and lets it run: from
// then on the machine is here. Invariant: no page is written while the QEMU there does anything but wait. Threads: one.
#pragma once

#include <string>

#include "vmstate/qmp.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

class LiveTarget final : public Target {
 public:
  /// `directory` has memory, state and the monitor of the QEMU that waits (qmp.sock) in it. `claim` is let go when this is destroyed.
  explicit LiveTarget(std::string directory, std::shared_ptr<void> claim = nullptr) : directory_(std::move(directory)), claim_(std::move(claim)) {}
  ~LiveTarget() override;
  Result<std::uint64_t> newest(const std::string&) override { return std::uint64_t{0}; }
  Status begin(const Begin& begin) override;
  Status put(const PageBatch& batch) override;
  Status commit(const std::string& device_state, const std::string& description) override;
  void abandon() override {}

 private:
  Status map_memory(const Shape& shape);
  Status run(const std::string& device_state);
  Status meet_qemu(std::chrono::milliseconds patience);
  const std::string directory_;
  const std::shared_ptr<void> claim_;
  Shape shape_;
  std::byte* memory_ = nullptr;
  PageSet have_;
  std::unique_ptr<Qmp> qmp_;  // from begin() on, if QEMU waits already
};

}  // namespace luge::vmstate
