#include "card/bus.hpp"

#include <cstdio>

#include "switches/switches.hpp"

namespace luge::card {
namespace {

// Also as it would be printed: no other length, no capital letters, no device above 31 and no function above 7.
bool is_pci_address(const std::string& address) {
  unsigned domain, bus, device, function;
  char again[32];
  if (std::sscanf(address.c_str(), "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4 || bus > 255 || device > 31 || function > 7) return false;
  std::snprintf(again, sizeof again, "%04x:%02x:%02x.%x", domain, bus, device, function);
  return address == again;
}

std::string hex(std::uint32_t v) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", v);
  return text;
}

}  // namespace

Status check_on_bus(const std::string& address, std::uint32_t identity, std::uint32_t expected) {
  if (broken(Switch::card_bus_unchecked)) return Status();
  if (!is_pci_address(address)) return Status(Code::invalid, "the card is not on PCI or PCI Express: its address is '" + address + "'");
  if (identity == 0xffffffff) return Status(Code::invalid, "the card's registers read as all ones: it does not answer on its bus");
  if (identity != expected) return Status(Code::invalid, "not a Luge card: its identity is " + hex(identity) + " instead of " + hex(expected));
  return Status();
}

}  // namespace luge::card
