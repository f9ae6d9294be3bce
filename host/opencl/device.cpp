#include "opencl/device.hpp"

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_ext.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "opencl/gf256.cl.hpp"

namespace luge::opencl {
namespace {

constexpr std::size_t kVectorBytes = 32;           // of one work item, per chunk
constexpr std::size_t kMaxResults = 4;
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

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

// Why it cannot be used for `wanted`; empty: it can.
std::string why_not(const Found& f, const std::string& wanted) {
  if (lower(f.name).find(lower(wanted)) == std::string::npos) return "another name";
  if (!number_of<cl_bool>(f.device, CL_DEVICE_AVAILABLE)) return "not available";
  if (!number_of<cl_bool>(f.device, CL_DEVICE_COMPILER_AVAILABLE)) return "has no compiler, and the kernel comes as source";
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
    Status s = kernel_for(results);
    if (s.ok()) s = room(sources_, sources_bytes_, CL_MEM_READ_ONLY, sources.size() * bytes);
    if (s.ok()) s = room(results_, results_bytes_, CL_MEM_WRITE_ONLY, results * bytes);
    if (s.ok()) s = room(rows_, rows_bytes_, CL_MEM_READ_ONLY, rows.size());
    if (s.ok()) s = enqueue(rows, sources, out);
    // Also after an error: what was enqueued refers to the caller's memory.
    if (cl_int code = clFinish(queue_.get()); code != CL_SUCCESS && s.ok()) s = failed("clFinish", code);
    return s;
  }

 private:
  explicit ClDevice(Found f) : device_(f.device), platform_(f.platform), name_(std::move(f.name)) {}

  Status start() {
    cl_int code = CL_SUCCESS;
    cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, reinterpret_cast<cl_context_properties>(platform_), 0};
    context_ = Context(clCreateContext(properties, 1, &device_, nullptr, nullptr, &code));
    if (code != CL_SUCCESS) return failed("clCreateContext", code);
    queue_ = Queue(clCreateCommandQueue(context_.get(), device_, 0, &code));
    if (code != CL_SUCCESS) return failed("clCreateCommandQueue", code);
    return kernel_for(2);  // what is wrong with the compiler shows now
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

  Status enqueue(std::span<const std::uint8_t> rows, std::span<const Bytes> sources, std::span<const MutableBytes> out) {
    std::size_t bytes = sources[0].size(), work = bytes / kVectorBytes;
    auto write = [&](Memory& to, std::size_t at, Bytes from) {
      return clEnqueueWriteBuffer(queue_.get(), to.get(), CL_FALSE, at, from.size(), from.data(), 0, nullptr, nullptr);
    };
    if (cl_int code = write(rows_, 0, std::as_bytes(rows)); code != CL_SUCCESS) return failed("clEnqueueWriteBuffer", code);
    for (std::size_t j = 0; j < sources.size(); ++j)
      if (cl_int code = write(sources_, j * bytes, sources[j]); code != CL_SUCCESS) return failed("clEnqueueWriteBuffer", code);
    cl_kernel kernel = kernels_[out.size()].get();
    cl_mem from = sources_.get(), coefficients = rows_.get(), to = results_.get();
    auto k = static_cast<cl_uint>(sources.size());
    cl_ulong vectors = work;
    cl_int code = clSetKernelArg(kernel, 0, sizeof from, &from) | clSetKernelArg(kernel, 1, sizeof coefficients, &coefficients) |
                  clSetKernelArg(kernel, 2, sizeof to, &to) | clSetKernelArg(kernel, 3, sizeof k, &k) | clSetKernelArg(kernel, 4, sizeof vectors, &vectors);
    if (code != CL_SUCCESS) return failed("clSetKernelArg", code);
    if (code = clEnqueueNDRangeKernel(queue_.get(), kernel, 1, nullptr, &work, nullptr, 0, nullptr, nullptr); code != CL_SUCCESS)
      return failed("clEnqueueNDRangeKernel", code);
    for (std::size_t i = 0; i < out.size(); ++i)
      if (code = clEnqueueReadBuffer(queue_.get(), to, CL_FALSE, i * bytes, bytes, out[i].data(), 0, nullptr, nullptr); code != CL_SUCCESS)
        return failed("clEnqueueReadBuffer", code);
    return Status();
  }

  cl_device_id device_;
  cl_platform_id platform_;
  std::string name_;
  Context context_;
  Queue queue_;
  std::array<Kernel, kMaxResults + 1> kernels_;
  Memory sources_, results_, rows_;
  std::size_t sources_bytes_ = 0, results_bytes_ = 0, rows_bytes_ = 0;
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
