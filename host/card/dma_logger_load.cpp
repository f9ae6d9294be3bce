#include <dlfcn.h>

#include "card/card.hpp"
#include "card/dma_logger.hpp"
#include "card/environment.hpp"

namespace luge::card {

Result<std::unique_ptr<DmaLogger>> make_dma_logger(const std::string& kind, const std::string& tree) {
  if (kind == "native") return make_native_dma_logger();
  if (kind == "hw")
    return Status(Code::invalid, "card hw: a guest's memory is written by a card only through a shell that addresses pinned guest pages (a virtual function or "
                                 "QDMA with VFIO), which the boards here have not; use native or rtl");
  if (kind != "rtl") return Status(Code::invalid, "card '" + kind + "' is not known: native, rtl or hw");
  CardOptions o;
  o.tree = tree;
  const std::string file = card_tree(o) + "/dma_write_log_rtl.so";
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Status(Code::not_found, std::string("card rtl: ") + ::dlerror() + " (it is built with -DLUGE_HLS=ON)");
  auto make = reinterpret_cast<DmaLogger* (*)()>(::dlsym(library, "luge_make_dma_logger_2"));
  if (make == nullptr) return Status(Code::wrong_version, file + " is not a DMA write log of this version");
  return std::unique_ptr<DmaLogger>(make());
}

}  // namespace luge::card
