#include "wire/unit_key.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace luge::wire {
namespace {

Designation example() {
  Designation d;
  d.unit = 5;
  d.vp = 0x30001;
  d.epoch = 7;
  d.revision = 9;
  d.history = 11;
  d.primary = 10;
  d.reserves = {11, 12};
  d.required = {10, 12};
  d.layout = {4, 2};
  d.blocks = 1 << 20;
  d.volume = "v";
  d.vp_bytes = 1ull << 36;
  return d;
}

class UnitKeyTest : public testing::Test {
 protected:
  UnitKeyTest() : verifier_(*Verifier::make(signer_.public_key())), signed_(example()) { signed_.signature = signer_.sign(signed_); }
  Signer signer_{KeyBytes{1}};
  Verifier verifier_;
  Designation signed_;
};

// Requirement: FN-03
TEST_F(UnitKeyTest, WhatWasSignedIsGenuineAfterATripThroughAMessage) {
  auto d = Designation::parse(signed_.serialize());
  ASSERT_TRUE(d.ok());
  EXPECT_EQ(*d, signed_);
  EXPECT_TRUE(verifier_.check(5, *d).ok());
}

// Requirement: FN-03
TEST_F(UnitKeyTest, AChangeOfAnyFieldIsAForgery) {
  std::vector<std::function<void(Designation&)>> changes = {
      [](Designation& d) { ++d.vp; },           [](Designation& d) { ++d.epoch; },        [](Designation& d) { ++d.revision; },
      [](Designation& d) { ++d.history; },      [](Designation& d) { ++d.primary; },      [](Designation& d) { d.reserves.push_back(13); },
      [](Designation& d) { d.reserves = {12, 11}; }, [](Designation& d) { d.required.pop_back(); }, [](Designation& d) { ++d.layout.k; },
      [](Designation& d) { ++d.layout.m; },     [](Designation& d) { ++d.min_copies; },   [](Designation& d) { ++d.blocks; },
      [](Designation& d) { d.volume = "w"; },   [](Designation& d) { ++d.vp_bytes; },     [](Designation& d) { d.signature[17] ^= 1; },
      [](Designation& d) { d.signature.pop_back(); }, [](Designation& d) { d.signature.clear(); }};
  for (std::size_t i = 0; i < changes.size(); ++i) {
    Designation d = signed_;
    changes[i](d);
    EXPECT_EQ(verifier_.check(5, d).code(), Code::forged) << "change " << i;
  }
}

// A member more in one list and one less in the other is another text, too.
TEST_F(UnitKeyTest, ListsDoNotRunIntoEachOther) {
  Designation d = signed_;
  d.reserves = {11, 12, 10};
  d.required = {12};
  EXPECT_NE(d.signed_bytes(), signed_.signed_bytes());
}

TEST_F(UnitKeyTest, AnotherUnitsAndAnotherKeysAreRefused) {
  EXPECT_EQ(verifier_.check(6, signed_).code(), Code::wrong_unit);
  Signer other(KeyBytes{2});
  Designation d = signed_;
  d.signature = other.sign(d);
  EXPECT_EQ(verifier_.check(5, d).code(), Code::forged);
}

TEST_F(UnitKeyTest, KeysAreReadAsTheyAreWritten) {
  auto key = parse_hex_key(to_hex(signer_.public_key()) + "\n");
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(*key, signer_.public_key());
  for (const char* bad : {"", "00", "zz"}) EXPECT_EQ(parse_hex_key(bad).code(), Code::invalid) << bad;
  EXPECT_EQ(parse_hex_key(to_hex(*key) + "00").code(), Code::invalid);
  EXPECT_EQ(parse_hex_key(std::string(64, 'g')).code(), Code::invalid);
}

}  // namespace
}  // namespace luge::wire
