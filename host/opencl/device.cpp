#include "opencl/device.hpp"

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_ext.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "hls/registers/card.h"
#include "opencl/gf256.cl.hpp"

namespace luge::opencl {
namespace {

constexpr std::size_t kVectorBytes = 32;           // of one work item, per chunk
constexpr std::size_t kMaxResults = 4;
constexpr std::size_t kCardSources = 16;
constexpr const char* kCardKernel = "luge_code";
constexpr std::size_t kNeededBytes = 80u << 20;    // sources and results of the largest stripe: 20 chunks of 4 MiB

Status failed(const char* call, cl_int code) { return Status(Code::io_error, std::string("OpenCL: ") + call + " answers " + std::to_string(code)); }

// Releases what OpenCL gave.
template <class T, cl_int (*Release)(T)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T t) : t_(t) {}
  Handle(Handle&& o) noexcept : t_(std::exchange(o.t_, nullptr)) {}
  Handle& operator=(Handle&& o) noexcept {
    std::swap(t_, o.t_);
    return *this;
  }
  ~Handle() {
    if (t_ != nullptr) Release(t_);
  }
  T get() const { return t_; }

 private:
  T t_ = nullptr;
};
using Context = Handle<cl_context, clReleaseContext>;
using Queue = Handle<cl_command_queue, clReleaseCommandQueue>;
using Program = Handle<cl_program, clReleaseProgram>;
using Kernel = Handle<cl_kernel, clReleaseKernel>;
using Memory = Handle<cl_mem, clReleaseMemObject>;

std::string text_of(cl_platform_id p, cl_platform_info what) {
  std::array<char, 512> text{};
  return clGetPlatformInfo(p, what, text.size() - 1, text.data(), nullptr) == CL_SUCCESS ? text.data() : "?";
}
std::string text_of(cl_device_id d, cl_device_info what) {
  std::array<char, 512> text{};
  return clGetDeviceInfo(d, what, text.size() - 1, text.data(), nullptr) == CL_SUCCESS ? text.data() : "?";
}
template <class T>
T number_of(cl_device_id d, cl_device_info what) {
  T n{};
  return clGetDeviceInfo(d, what, sizeof n, &n, nullptr) == CL_SUCCESS ? n : T{};
}

struct Found {
  cl_platform_id platform;
  cl_device_id device;
  std::string name;
};

Result<std::vector<Found>> all_devices() {
  cl_uint count = 0;
  cl_int code = clGetPlatformIDs(0, nullptr, &count);
  if (code == CL_PLATFORM_NOT_FOUND_KHR || (code == CL_SUCCESS && count == 0))
    return Status(Code::not_found, "OpenCL: the ICD loader finds no driver: install one (pocl-opencl-icd codes on the processor), or see OCL_ICD_VENDORS");
  if (code != CL_SUCCESS) return failed("clGetPlatformIDs", code);
  std::vector<cl_platform_id> platforms(count);
  if (code = clGetPlatformIDs(count, platforms.data(), nullptr); code != CL_SUCCESS) return failed("clGetPlatformIDs", code);
  std::vector<Found> found;
  for (cl_platform_id p : platforms) {
    cl_uint n = 0;
    if (clGetDeviceIDs(p, CL_DEVICE_TYPE_ALL, 0, nullptr, &n) != CL_SUCCESS || n == 0) continue;
    std::vector<cl_device_id> devices(n);
    if (clGetDeviceIDs(p, CL_DEVICE_TYPE_ALL, n, devices.data(), nullptr) != CL_SUCCESS) continue;
    for (cl_device_id d : devices) found.push_back({p, d, text_of(p, CL_PLATFORM_NAME) + ": " + text_of(d, CL_DEVICE_NAME)});
  }
  if (found.empty()) return Status(Code::not_found, "OpenCL: there are " + std::to_string(count) + " drivers and no device");
  return found;
}

// Devices without a compiler are cards: their kernels come as a file, which the environment names (luge card env).
bool is_card(const Found& f) { return !number_of<cl_bool>(f.device, CL_DEVICE_COMPILER_AVAILABLE); }
std::string card_file() {
  const char* path = std::getenv("LUGE_CARD_XCLBIN");
  return path ? path : "";
}

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

// Why it cannot be used for `wanted`; empty: it can.
std::string why_not(const Found& f, const std::string& wanted) {
  if (lower(f.name).find(lower(wanted)) == std::string::npos) return "another name";
  if (!is_card(f) && !number_of<cl_bool>(f.device, CL_DEVICE_AVAILABLE)) return "not available";  // XRT says so of every card that has no program yet
  if (is_card(f) && card_file().empty()) return "has no compiler, and LUGE_CARD_XCLBIN names no xclbin";
  if (!number_of<cl_bool>(f.device, CL_DEVICE_ENDIAN_LITTLE)) return "big-endian";
  if (number_of<cl_ulong>(f.device, CL_DEVICE_MAX_MEM_ALLOC_SIZE) < kNeededBytes) return "too little memory in one piece";
  return "";
}

class ClDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> open(Found f) {
    auto d = std::unique_ptr<ClDevice>(new ClDevice(std::move(f)));
    if (Status s = d->start(); !s.ok()) return s.with(d->name_);
    return std::unique_ptr<Device>(std::move(d));
  }
  const std::string& name() const override { return name_; }

  Status multiply(std::span<const std::uint8_t> rows, std::span<const Bytes> sources, std::span<const MutableBytes> out) override {
    std::size_t bytes = sources[0].size(), results = out.size();
    if (results == 0 || results > kMaxResults || bytes == 0 || bytes % 64 != 0 || rows.size() != sources.size() * results)
      return Status(Code::invalid, "OpenCL: sizes that cannot be");
    Status s = card_ ? Status() : kernel_for(results);
    if (card_ && sources.size() > kCardSources) return Status(Code::invalid, "OpenCL: more sources than a card takes");
    if (s.ok()) s = room(sources_, sources_bytes_, CL_MEM_READ_ONLY, sources.size() * bytes);
    if (s.ok()) s = room(results_, results_bytes_, CL_MEM_WRITE_ONLY, results * bytes);
    if (s.ok()) s = room(rows_, rows_bytes_, CL_MEM_READ_ONLY, rows.size());
    if (s.ok() && card_) s = room(completion_, completion_bytes_, CL_MEM_READ_WRITE, sizeof(luge_card::Completion));
    luge_card::Completion completion;
    if (s.ok()) s = enqueue(rows, sources, out, &completion);
    // Also after an error: what was enqueued refers to the caller's memory.
    if (cl_int code = clFinish(queue_.get()); code != CL_SUCCESS && s.ok()) s = failed("clFinish", code);
    if (s.ok() && card_ && completion.status != luge_card::JobStatus::ok)
      s = Status(Code::io_error, name_ + ": the card answers with status " + std::to_string(completion.status) + " (docs/registers.md, JobStatus)");
    return s;
  }

 private:
  explicit ClDevice(Found f) : card_(is_card(f)), device_(f.device), platform_(f.platform), name_(std::move(f.name)) {}

  Status start() {
    cl_int code = CL_SUCCESS;
    cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, reinterpret_cast<cl_context_properties>(platform_), 0};
    context_ = Context(clCreateContext(properties, 1, &device_, nullptr, nullptr, &code));
    if (code != CL_SUCCESS) return failed("clCreateContext", code);
    queue_ = Queue(clCreateCommandQueue(context_.get(), device_, 0, &code));
    if (code != CL_SUCCESS) return failed("clCreateCommandQueue", code);
    return card_ ? load_card() : kernel_for(2);  // what is wrong with the compiler shows now
  }

  Status load_card() {
    std::ifstream file(card_file(), std::ios::binary);
    std::string binary{std::istreambuf_iterator<char>(file), {}};
    if (binary.empty()) return Status(Code::not_found, "OpenCL: cannot read the xclbin " + card_file());
    cl_int code = CL_SUCCESS, loaded = CL_SUCCESS;
    std::size_t bytes = binary.size();
    auto* data = reinterpret_cast<const unsigned char*>(binary.data());
    Program program(clCreateProgramWithBinary(context_.get(), 1, &device_, &bytes, &data, &loaded, &code));
    if (code != CL_SUCCESS) return failed("clCreateProgramWithBinary", code);
    if (code = clBuildProgram(program.get(), 1, &device_, "", nullptr, nullptr); code != CL_SUCCESS) return failed("clBuildProgram", code);
    card_kernel_ = Kernel(clCreateKernel(program.get(), kCardKernel, &code));
    return code == CL_SUCCESS ? Status() : failed("clCreateKernel", code);
  }

  // The number of results is a constant of the kernel, so that its sums stay in registers.
  Status kernel_for(std::size_t results) {
    if (kernels_[results].get() != nullptr) return Status();
    cl_int code = CL_SUCCESS;
    const char* source = kKernelSource;
    Program program(clCreateProgramWithSource(context_.get(), 1, &source, nullptr, &code));
    if (code != CL_SUCCESS) return failed("clCreateProgramWithSource", code);
    std::string options = "-DM=" + std::to_string(results);
    if (code = clBuildProgram(program.get(), 1, &device_, options.c_str(), nullptr, nullptr); code != CL_SUCCESS) {
      std::string log(16 << 10, '\0');
      std::size_t used = 0;
      if (clGetProgramBuildInfo(program.get(), device_, CL_PROGRAM_BUILD_LOG, log.size(), log.data(), &used) != CL_SUCCESS) used = 0;
      return Status(Code::io_error, failed("clBuildProgram", code).text() + ": " + log.substr(0, std::min<std::size_t>(used, 2000)));
    }
    kernels_[results] = Kernel(clCreateKernel(program.get(), "code", &code));
    return code == CL_SUCCESS ? Status() : failed("clCreateKernel", code);
  }

  // Memory on the device is kept and grows.
  Status room(Memory& memory, std::size_t& have, cl_mem_flags flags, std::size_t bytes) {
    if (have >= bytes) return Status();
    cl_int code = CL_SUCCESS;
    memory = Memory(clCreateBuffer(context_.get(), flags, bytes, nullptr, &code));
    have = code == CL_SUCCESS ? bytes : 0;
    return code == CL_SUCCESS ? Status() : failed("clCreateBuffer", code);
  }

  // One start of the kernel for all: a card is not one of many work items (sim/xrt/front_kernel.hpp).
  Status start_card(cl_uint k, cl_uint results, cl_uint bytes) {
    cl_kernel kernel = card_kernel_.get();
    cl_mem memory[] = {sources_.get(), rows_.get(), results_.get(), completion_.get()};
    cl_uint numbers[] = {k, results, bytes}, at = 0;
    cl_int code = CL_SUCCESS;
    for (cl_mem& m : memory) code |= clSetKernelArg(kernel, at++, sizeof m, &m);
    for (cl_uint& n : numbers) code |= clSetKernelArg(kernel, at++, sizeof n, &n);
    if (code != CL_SUCCESS) return failed("clSetKernelArg", code);
    code = clEnqueueTask(queue_.get(), kernel, 0, nullptr, nullptr);
    return code == CL_SUCCESS ? Status() : failed("clEnqueueTask", code);
  }

  Status start_work_items(std::size_t results, cl_uint k, std::size_t bytes) {
    cl_kernel kernel = kernels_[results].get();
    cl_mem from = sources_.get(), coefficients = rows_.get(), to = results_.get();
    std::size_t work = bytes / kVectorBytes;
    cl_ulong vectors = work;
    cl_int code = clSetKernelArg(kernel, 0, sizeof from, &from) | clSetKernelArg(kernel, 1, sizeof coefficients, &coefficients) |
                  clSetKernelArg(kernel, 2, sizeof to, &to) | clSetKernelArg(kernel, 3, sizeof k, &k) | clSetKernelArg(kernel, 4, sizeof vectors, &vectors);
    if (code != CL_SUCCESS) return failed("clSetKernelArg", code);
    code = clEnqueueNDRangeKernel(queue_.get(), kernel, 1, nullptr, &work, nullptr, 0, nullptr, nullptr);
    return code == CL_SUCCESS ? Status() : failed("clEnqueueNDRangeKernel", code);
  }

  Status enqueue(std::span<const std::uint8_t> rows, std::span<const Bytes> sources, std::span<const MutableBytes> out, luge_card::Completion* completion) {
    std::size_t bytes = sources[0].size();
    auto write = [&](Memory& to, std::size_t at, Bytes from) {
      return clEnqueueWriteBuffer(queue_.get(), to.get(), CL_FALSE, at, from.size(), from.data(), 0, nullptr, nullptr);
    };
    if (cl_int code = write(rows_, 0, std::as_bytes(rows)); code != CL_SUCCESS) return failed("clEnqueueWriteBuffer", code);
    for (std::size_t j = 0; j < sources.size(); ++j)
      if (cl_int code = write(sources_, j * bytes, sources[j]); code != CL_SUCCESS) return failed("clEnqueueWriteBuffer", code);
    auto k = static_cast<cl_uint>(sources.size());
    Status s = card_ ? start_card(k, static_cast<cl_uint>(out.size()), static_cast<cl_uint>(bytes)) : start_work_items(out.size(), k, bytes);
    if (!s.ok()) return s;
    auto read = [&](Memory& from, std::size_t at, std::size_t n, void* to) { return clEnqueueReadBuffer(queue_.get(), from.get(), CL_FALSE, at, n, to, 0, nullptr, nullptr); };
    for (std::size_t i = 0; i < out.size(); ++i)
      if (cl_int code = read(results_, i * bytes, bytes, out[i].data()); code != CL_SUCCESS) return failed("clEnqueueReadBuffer", code);
    if (cl_int code = card_ ? read(completion_, 0, sizeof *completion, completion) : CL_SUCCESS; code != CL_SUCCESS) return failed("clEnqueueReadBuffer", code);
    return Status();
  }

  bool card_;
  cl_device_id device_;
  cl_platform_id platform_;
  std::string name_;
  Context context_;
  Queue queue_;
  std::array<Kernel, kMaxResults + 1> kernels_;
  Kernel card_kernel_;
  Memory sources_, results_, rows_, completion_;
  std::size_t sources_bytes_ = 0, results_bytes_ = 0, rows_bytes_ = 0, completion_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<Device>> open_device(const std::string& wanted) {
  auto found = all_devices();
  if (!found.ok()) return found.status();
  std::string reasons;
  for (const Found& f : *found) {
    std::string why = why_not(f, wanted);
    if (why.empty()) return ClDevice::open(f);
    reasons += (reasons.empty() ? "'" : "; '") + f.name + "': " + why;
  }
  return Status(Code::not_found, "OpenCL: no device for '" + wanted + "': there are " + reasons);
}

}  // namespace luge::opencl
