#include "vmstate/live_target.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "io/descriptor.hpp"
#include "vmstate/qmp.hpp"

namespace luge::vmstate {

LiveTarget::~LiveTarget() {
  if (memory_ != nullptr) ::munmap(memory_, shape_.memory_pages * kPage);
}

Status LiveTarget::begin(const Begin& b) {
  if (b.parent != 0) return Status(Code::invalid, "a migration begins with everything");
  if (b.shape.disk_pages != 0) return Status(Code::invalid, "a migration takes no disk along: both hosts have the volume");
  std::error_code e;
  std::filesystem::create_directories(directory_, e);
  // A QEMU that finds its memory to be a symbolic link to nothing tries to make the file without end, and its monitor is silent until then.
  if (const std::string path = directory_ + "/memory"; ::access(path.c_str(), F_OK) != 0) io::Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  // Before the memory is touched: it may be that of a machine which has arrived, and whose sender never heard so.
  if (Status s = meet_qemu(std::chrono::milliseconds(0)); !s.ok() && s.code() != Code::not_found) return s;
  return map_memory(b.shape);
}

Status LiveTarget::map_memory(const Shape& shape) {
  const std::string path = directory_ + "/memory";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct stat st {};
  if (fd < 0 || ::fstat(fd, &st) != 0) return Status(Code::io_error, path + ": " + std::strerror(errno));
  const std::uint64_t bytes = shape.memory_pages * kPage;
  Status s;
  if (st.st_size != 0 && static_cast<std::uint64_t>(st.st_size) != bytes)
    s = Status(Code::conflict, path + " has " + std::to_string(st.st_size) + " bytes, the machine " + std::to_string(bytes) + ": start the QEMU that waits with as much memory");
  else if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) s = Status(Code::no_space, path + ": " + std::strerror(errno));
  if (s.ok()) {
    if (memory_ != nullptr) ::munmap(memory_, shape_.memory_pages * kPage);
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memory_ = p == MAP_FAILED ? nullptr : static_cast<std::byte*>(p);
    if (memory_ == nullptr) s = Status(Code::io_error, path + ": " + std::strerror(errno));
  }
  ::close(fd);
  shape_ = shape, have_ = PageSet(shape_.memory_pages);
  return s;
}

// not_found: none is there. Whatever else it is but one that waits may run, also one that doesn't answer (another has its monitor): conflict.
Status LiveTarget::meet_qemu(std::chrono::milliseconds patience) {
  qmp_ = nullptr;
  auto qmp = Qmp::open(directory_ + "/qmp.sock", patience);
  if (qmp.code() == Code::not_found) return qmp.status();
  Status s = qmp.status();
  std::string is;
  if (s.ok()) {
    auto now = qemu_status(**qmp);
    s = now.status();
    if (now.ok()) is = *now;
  }
  if (!s.ok() || is != "inmigrate")
    return Status(Code::conflict, "the QEMU at " + directory_ + "/qmp.sock doesn't wait for a migration: " + (s.ok() ? "it is '" + is + "'" : s.text()) + "; start one with -incoming defer");
  qmp_ = std::move(*qmp);
  return Status();
}

Status LiveTarget::put(const PageBatch& batch) {
  if (memory_ == nullptr) return Status(Code::invalid, "no migration has begun");
  const std::byte* from = batch.content.data();
  for (const auto& e : batch.entries) {
    std::byte* to = memory_ + e.page * kPage;
    if (e.zero && !all_zero({to, kPage})) std::memset(to, 0, kPage);
    if (!e.zero) std::memcpy(to, from, kPage), from += kPage;
    have_.add(e.page);
  }
  return Status();
}

Status LiveTarget::commit(const std::string& device_state, const std::string& description) {
  if (have_.count() != shape_.memory_pages) return Status(Code::invalid, "pages are missing");
  Status s = run(device_state);
  // For people, and if they have to try again: not before, since the machine stands still.
  std::ofstream(directory_ + "/state", std::ios::binary | std::ios::trunc).write(device_state.data(), static_cast<std::streamsize>(device_state.size()));
  std::ofstream(directory_ + "/description.json", std::ios::trunc) << description;
  return s;
}

Status LiveTarget::run(const std::string& device_state) {
  if (!qmp_)
    if (Status s = meet_qemu(std::chrono::seconds(5)); !s.ok()) return s;
  if (Status s = QemuMachine::load(*qmp_, device_state, directory_); !s.ok()) return s;
  return qmp_->run("cont").status();
}

}  // namespace luge::vmstate
