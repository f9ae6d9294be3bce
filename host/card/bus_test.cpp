#include "card/bus.hpp"

#include <gtest/gtest.h>

namespace luge::card {
namespace {

constexpr std::uint32_t kIdentity = 0x4c554745;

// Requirement: DWR-14 switch=card-bus-unchecked
TEST(Bus, ACardThatDoesNotAnswerThereIsNotTaken) {
  EXPECT_TRUE(check_on_bus("0000:3b:00.1", kIdentity, kIdentity).ok());
  EXPECT_NE(check_on_bus("0000:3b:00.1", 0xffffffff, kIdentity).text().find("does not answer on its bus"), std::string::npos);
  EXPECT_NE(check_on_bus("0000:3b:00.1", 0, kIdentity).text().find("0x00000000"), std::string::npos);
}

// Requirement: DWR-15 switch=card-bus-unchecked
TEST(Bus, ACardThatIsNotOnPciIsNotTaken) {
  for (const char* address : {"0000:00:00.0", "0000:3b:1f.7", "10000:e1:00.0"}) EXPECT_TRUE(check_on_bus(address, kIdentity, kIdentity).ok()) << address;
  for (const char* address : {"", "usb1-1.4", "3b:00.1", "0000:3b:20.0", "0000:3b:00.8", "0000:3b:00.1 ", "0000:3B:00.1", "0000:100:00.0", "eth0", "0000:3b:00"})
    EXPECT_EQ(check_on_bus(address, kIdentity, kIdentity).code(), Code::invalid) << address;
}

}  // namespace
}  // namespace luge::card
