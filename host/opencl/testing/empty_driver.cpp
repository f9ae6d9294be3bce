// An OpenCL driver that has a platform and no device on it, for a test: what the loader finds where a driver is installed and its hardware is not there.
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <CL/cl_icd.h>

#include <cstring>

extern "C" {

struct _cl_platform_id {
  cl_icd_dispatch* dispatch;
};

static cl_int CL_API_CALL platform_info(cl_platform_id, cl_platform_info what, size_t room, void* value, size_t* size) {
  const char* text = what == CL_PLATFORM_EXTENSIONS ? "cl_khr_icd" : what == CL_PLATFORM_ICD_SUFFIX_KHR ? "EMPTY" : what == CL_PLATFORM_NAME ? "Empty" : "1.2";
  size_t bytes = std::strlen(text) + 1;
  if (size != nullptr) *size = bytes;
  if (value != nullptr && room < bytes) return CL_INVALID_VALUE;
  if (value != nullptr) std::memcpy(value, text, bytes);
  return CL_SUCCESS;
}
static cl_int CL_API_CALL device_ids(cl_platform_id, cl_device_type, cl_uint, cl_device_id*, cl_uint* count) {
  if (count != nullptr) *count = 0;
  return CL_DEVICE_NOT_FOUND;
}
static _cl_platform_id* platform() {
  static cl_icd_dispatch table;
  static _cl_platform_id it{&table};
  table.clGetPlatformInfo = platform_info, table.clGetDeviceIDs = device_ids;
  return &it;
}
static cl_int CL_API_CALL platform_ids(cl_uint room, cl_platform_id* ids, cl_uint* count) {
  if (count != nullptr) *count = 1;
  if (ids != nullptr && room > 0) *ids = platform();
  return CL_SUCCESS;
}
__attribute__((visibility("default"))) void* CL_API_CALL clGetExtensionFunctionAddress(const char* name) {
  if (std::strcmp(name, "clIcdGetPlatformIDsKHR") == 0) return reinterpret_cast<void*>(platform_ids);
  if (std::strcmp(name, "clGetPlatformInfo") == 0) return reinterpret_cast<void*>(platform_info);
  return nullptr;
}
__attribute__((visibility("default"))) cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id* ids, cl_uint* count) { return platform_ids(room, ids, count); }
}
