// The firmware's image in Unicorn. Local memory and the scratch are plain memory to it; everything else of the map is a call of load() or store().
#include <unicorn/unicorn.h>

#include <cstring>
#include <stdexcept>

#include "sim/controller/controller.hpp"

namespace luge::sim {
namespace {

using namespace luge_card;

constexpr std::uint32_t kImageMagic = 0x4957464C;  // "LFWI", behind the first instruction (firmware/hal/card/start.S)
constexpr std::uint32_t kPeripherals = MAP_REGISTERS, kPeripheralBytes = 0x50000;
constexpr std::uint32_t kLoadFault = 5, kStoreFault = 7, kIllegal = 2;

class Rv32 final : public Controller {
 public:
  Rv32(CardBus& bus, ControllerSettings settings) : Controller(bus, std::move(settings)) {
    const auto& image = settings_.image;
    std::uint32_t header[5];
    if (image.size() < sizeof header) throw std::runtime_error("the firmware is not there, or cut");
    std::memcpy(header, image.data(), sizeof header);
    if (header[1] != kImageMagic || header[3] != image.size() || image.size() > MAP_LOCAL_BYTES) throw std::runtime_error("not a firmware of the controller's, or cut");
    sleep_ = header[4];
    must(uc_open(UC_ARCH_RISCV, UC_MODE_RISCV32, &uc_));
    must(uc_mem_map(uc_, MAP_LOCAL, MAP_LOCAL_BYTES, UC_PROT_ALL));
    must(uc_mem_map_ptr(uc_, MAP_SCRATCH, MAP_SCRATCH_BYTES, UC_PROT_READ | UC_PROT_WRITE, settings_.scratch));
    must(uc_mmio_map(uc_, kPeripherals, kPeripheralBytes, on_read, this, on_write, this));
    uc_hook hook;
    must(uc_hook_add(uc_, &hook, UC_HOOK_CODE, reinterpret_cast<void*>(on_instruction), this, 1, 0));
  }
  ~Rv32() override { uc_close(uc_); }

 private:
  static void must(uc_err e) {
    if (e != UC_ERR_OK) throw std::runtime_error(std::string("unicorn: ") + uc_strerror(e));
  }
  static std::uint64_t on_read(uc_engine*, std::uint64_t offset, unsigned, void* self) { return static_cast<Rv32*>(self)->load(kPeripherals + static_cast<std::uint32_t>(offset)); }
  static void on_write(uc_engine*, std::uint64_t offset, unsigned, std::uint64_t value, void* self) {
    static_cast<Rv32*>(self)->store(kPeripherals + static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(value));
  }
  static void on_instruction(uc_engine* uc, std::uint64_t address, std::uint32_t, void* self) {
    Rv32& c = *static_cast<Rv32*>(self);
    c.at_ = static_cast<std::uint32_t>(address);
    if (c.cut() || c.retired_ >= c.until_) uc_emu_stop(uc);
    else ++c.retired_;
  }

  void start() override { pc_ = MAP_LOCAL; }
  void lose_memory() override {
    std::vector<std::uint8_t> local(MAP_LOCAL_BYTES);
    std::memcpy(local.data(), settings_.image.data(), settings_.image.size());
    must(uc_mem_write(uc_, MAP_LOCAL, local.data(), local.size()));
  }
  bool execute(std::uint64_t until) override {
    until_ = until;
    while (retired_ < until_ && !cut()) {
      const uc_err e = uc_emu_start(uc_, pc_, sleep_, 0, 0);
      must(uc_reg_read(uc_, UC_RISCV_REG_PC, &pc_));
      if (e != UC_ERR_OK) trap(e);
      else if (pc_ == sleep_) {
        pc_ += 4;  // behind the wfi
        return false;
      }
    }
    return true;
  }
  // An access that no memory answers for, or no instruction: the processor goes to its trap vector.
  void trap(uc_err e) {
    std::uint32_t cause = e == UC_ERR_READ_UNMAPPED || e == UC_ERR_READ_PROT ? kLoadFault : e == UC_ERR_WRITE_UNMAPPED || e == UC_ERR_WRITE_PROT ? kStoreFault : kIllegal;
    std::uint32_t vector = 0;
    must(uc_reg_write(uc_, UC_RISCV_REG_MCAUSE, &cause));
    must(uc_reg_write(uc_, UC_RISCV_REG_MEPC, &at_));
    must(uc_reg_read(uc_, UC_RISCV_REG_MTVEC, &vector));
    pc_ = vector;
  }

  uc_engine* uc_ = nullptr;
  std::uint32_t pc_ = 0, sleep_ = 0;
  std::uint32_t at_ = 0;  // of the instruction under way
  std::uint64_t until_ = 0;
};

}  // namespace

std::unique_ptr<Controller> make_rv32_controller(CardBus& bus, ControllerSettings settings) {
  auto c = std::make_unique<Rv32>(bus, std::move(settings));
  c->power_on();
  return c;
}

}  // namespace luge::sim
