// What XRT loads for an emulation mode, in front of the distribution's own shim, which it loads in turn. It only sets options, before
// anything reads them, each of which avoids a defect or a wait of the shim as Debian ships it (docs/xrt.md, "What the front does").
// Options of the user's own xrt.ini are still read; these win.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <experimental/xrt_ini.h>

extern "C" {
// The forwarding jumps (forward.S) go through this table; forward.inc has the names, in its order.
extern const char* const luge_xcl_names[];
extern void* luge_xcl_table[];
extern const unsigned long luge_xcl_count;
}

namespace {

[[noreturn]] void refuse(const char* what, const char* detail) {
  std::fprintf(stderr, "luge emulation: %s%s%s\n", what, *detail ? ": " : "", detail);
  std::_Exit(69);
}

void set(const char* key, const char* value) {
  if (xrtIniStringSet(key, value) != 0) refuse("an XRT option is fixed already", key);
}

// The runtime's version is in the name of its file: libxrt_coreutil.so.2.13.0.
std::string runtime_file() {
  Dl_info info;
  if (!::dladdr(reinterpret_cast<void*>(&xrtIniStringSet), &info) || !info.dli_fname) refuse("the XRT runtime cannot be found", "");
  char* real = ::realpath(info.dli_fname, nullptr);
  std::string path = real ? real : info.dli_fname;
  std::free(real);
  return path;
}

// The first wait of a process is ten times as long as the others: have it here, for nothing.
void shorten_first_wait(void* shim) {
  auto probe = reinterpret_cast<unsigned (*)()>(::dlsym(shim, "xclProbe"));
  auto open = reinterpret_cast<void* (*)(unsigned, const char*, int)>(::dlsym(shim, "xclOpen"));
  auto wait = reinterpret_cast<int (*)(void*, int)>(::dlsym(shim, "xclExecWait"));
  auto close = reinterpret_cast<void (*)(void*)>(::dlsym(shim, "xclClose"));
  if (!probe || !open || !wait || !close) refuse("XRT's emulation library lacks what is needed", "");
  if (probe() == 0) return;
  void* device = open(0, nullptr, 0);
  if (!device) return;
  wait(device, 0);
  close(device);
}

__attribute__((constructor)) void begin() {
  std::string runtime = runtime_file();
  if (runtime.find(".so." LUGE_XRT_VERSION ".") == std::string::npos)
    refuse("this emulation is made for XRT " LUGE_XRT_VERSION ", Debian's libxrt1 202210.2.13; the runtime here is", runtime.c_str());
  // The scheduler of libxrt_coreutil instead of the shim's, whose first wait sleeps for 10 s.
  set("Runtime.kds", "false");
  set("Runtime.polling_throttle", "50");
  // The message thread sleeps for 10 s and is waited for at close.
  set("Emulation.system_dpa", "false");
  // The shim's message buffer must never grow: growing it corrupts the heap. The first message carries all options, so a long one
  // makes the buffer larger than any packet will be.
  set("Emulation.packet_size", "0x100000");
  set("Debug.reserve", std::string(1200000, '.').c_str());
  set("Emulation.suppress_infos", "true");
  set("Emulation.keep_run_dir", "false");
  if (!std::getenv("USER")) {  // the socket's folder is named after it; without it all share one socket
    std::string user = "uid" + std::to_string(::getuid());
    ::setenv("USER", user.c_str(), 0);
  }
  // One shim for both modes: the other one has the same defect without a cure.
  std::string shim = runtime.substr(0, runtime.rfind('/')) + "/libxrt_hwemu.so.2";
  void* handle = ::dlopen(shim.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!handle) refuse("XRT's emulation library cannot be loaded", ::dlerror());
  for (unsigned long i = 0; i < luge_xcl_count; ++i) luge_xcl_table[i] = ::dlsym(handle, luge_xcl_names[i]);
  shorten_first_wait(handle);
}

}  // namespace
