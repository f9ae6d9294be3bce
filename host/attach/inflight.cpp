#include "attach/inflight.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

namespace luge::attach {
namespace {

constexpr std::uint64_t kAlign = 64;
constexpr std::uint16_t kVersion = 1;

std::uint64_t stride(std::uint32_t entries) { return (16 + 16ull * entries + kAlign - 1) / kAlign * kAlign; }

// Another process may go on from here: what comes before is in memory before what comes after.
void barrier() { std::atomic_thread_fence(std::memory_order_seq_cst); }

}  // namespace

std::uint64_t Inflight::bytes_for(std::size_t queues, std::uint32_t entries) { return stride(entries) * queues; }

Result<std::shared_ptr<Inflight>> Inflight::create(std::size_t queues, std::uint32_t entries) {
  int fd = ::memfd_create("luge-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  std::uint64_t bytes = bytes_for(queues, entries);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0 || ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    Status s(Code::no_space, std::string("no inflight area: ") + std::strerror(errno));
    if (fd >= 0) ::close(fd);
    return s;
  }
  auto area = map(fd, 0, bytes, queues, entries);
  ::close(fd);
  return area;
}

Result<std::shared_ptr<Inflight>> Inflight::map(int fd, std::uint64_t offset, std::uint64_t bytes, std::size_t queues, std::uint32_t entries) {
  struct stat st {};
  if (queues == 0 || queues > 1024 || entries == 0 || entries > 32768 || bytes < bytes_for(queues, entries) || bytes > 1u << 30 || offset > 1ull << 40)
    return Status(Code::invalid, "an inflight area of " + std::to_string(bytes) + " bytes for " + std::to_string(queues) + " queues of " + std::to_string(entries));
  // A file that could shrink under us would end the process.
  int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return Status(Code::invalid, "the inflight area is not in a sealed memfd");
  if (::fstat(fd, &st) != 0 || static_cast<std::uint64_t>(st.st_size) < offset + bytes) return Status(Code::invalid, "the inflight area reaches beyond its file");
  std::shared_ptr<Inflight> a(new Inflight());
  a->mapped_bytes_ = offset + bytes, a->bytes_ = bytes, a->queues_ = queues, a->entries_ = entries, a->stride_ = stride(entries);
  void* p = ::mmap(nullptr, a->mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return Status(Code::invalid, std::string("the inflight area cannot be mapped: ") + std::strerror(errno));
  a->mapped_ = p, a->base_ = static_cast<std::byte*>(p) + offset;
  a->fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return a;
}

Inflight::~Inflight() {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
  if (fd_ >= 0) ::close(fd_);
}

bool Inflight::fresh(std::size_t index) const { return queue(index).version != kVersion; }

std::vector<std::uint16_t> Inflight::recover(std::size_t index, std::uint16_t used) {
  Queue& q = queue(index);
  if (q.version != kVersion) {  // new
    q.version = kVersion, q.entries = static_cast<std::uint16_t>(entries_), q.used = used, q.last_batch_head = 0;
    return {};
  }
  std::uint16_t head = q.last_batch_head;
  for (std::uint16_t n = static_cast<std::uint16_t>(used - q.used); n != 0 && head < entries_ && n <= entries_; --n) {
    q.entry[head].inflight = 0;
    head = q.entry[head].next;
  }
  barrier();
  q.used = used;
  std::vector<std::pair<std::uint64_t, std::uint16_t>> found;
  for (std::uint32_t i = 0; i < entries_; ++i)
    if (q.entry[i].inflight == 1) found.emplace_back(q.entry[i].counter, static_cast<std::uint16_t>(i));
  std::sort(found.begin(), found.end());
  std::vector<std::uint16_t> heads;
  for (auto& [counter, h] : found) {
    heads.push_back(h);
    counter_ = std::max(counter_, counter + 1);
  }
  return heads;
}

void Inflight::taken(std::size_t index, std::uint16_t head) {
  if (!inside(index, head)) return;
  Queue& q = queue(index);
  q.entry[head].counter = counter_++;
  barrier();
  q.entry[head].inflight = 1;
  barrier();
}

void Inflight::ending(std::size_t index, const std::vector<std::uint16_t>& heads) {
  if (index >= queues_) return;
  Queue& q = queue(index);
  for (std::uint16_t h : heads) {
    if (!inside(index, h)) continue;
    q.entry[h].next = q.last_batch_head;
    barrier();
    q.last_batch_head = h;
  }
  barrier();
}

void Inflight::ended(std::size_t index, const std::vector<std::uint16_t>& heads, std::uint16_t used) {
  if (index >= queues_) return;
  Queue& q = queue(index);
  barrier();
  for (std::uint16_t h : heads)
    if (inside(index, h)) q.entry[h].inflight = 0;
  barrier();
  q.used = used;
}

}  // namespace luge::attach
