#include "card/write_records.hpp"

#include <gtest/gtest.h>

#include <random>

#include "switches/switches.hpp"

namespace luge::card {
namespace {

// A device's side of the ring.
struct Ring {
  explicit Ring(unsigned log2) : slots(std::size_t{1} << log2), reader(slots.data(), log2) {}
  void write(std::uint64_t address, std::uint32_t length, std::uint8_t kind = luge_card::DMA_WRITTEN) {
    put({address, static_cast<std::uint16_t>(length == 0 ? 0 : length - 1), 0, kind, next});
    ++next;
  }
  void put(dma_record r) { slots[r.sequence % slots.size()] = r; }
  std::vector<dma_record> slots;
  WriteRecordReader reader;
  std::uint32_t next = 1;
  std::vector<dma_record> read;
};

// Requirement: DWR-05
TEST(WriteRecords, RingsOfOneSlotAndMoreTurnOver) {
  for (unsigned log2 : {0u, 1u, 4u, 10u}) {
    Ring r(log2);
    EXPECT_EQ(r.reader.read(r.read, 100), 0u);
    for (std::uint64_t i = 0; i < 5000; ++i) {
      r.write(i * 64, 64);
      EXPECT_EQ(r.reader.read(r.read, 100), 1u);
      EXPECT_EQ(r.reader.examined(), r.next);
    }
    ASSERT_EQ(r.read.size(), 5000u);
    for (std::uint64_t i = 0; i < 5000; ++i) ASSERT_EQ(r.read[i].address, i * 64);
    EXPECT_FALSE(r.reader.gap());
  }
}

// A device that uses a slot as soon as it may.
// Requirement: DWR-20 switch=examined-before-copied
TEST(WriteRecords, WhatWasReadIsACopyBeforeTheSlotIsExamined) {
  for (unsigned log2 : {0u, 2u}) {
    Ring r(log2);
    for (std::uint64_t i = 0; i < 100; ++i) {
      r.write(i * 4096, 64);
      EXPECT_EQ(r.reader.examined(), i + 1) << "a slot that nobody has read";
      EXPECT_EQ(r.reader.read(r.read, 1), 1u);
      EXPECT_EQ(r.reader.examined(), i + 2);
      for (dma_record& slot : r.slots)  // all are examined: whatever is in them now is nothing that the reader needs
        if (slot.sequence != 0) slot.address = ~std::uint64_t{0};
    }
    r.reader.read(r.read, 1);
    ASSERT_EQ(r.read.size(), 100u);
    for (std::uint64_t i = 0; i < 100; ++i) ASSERT_EQ(r.read[i].address, i * 4096);
  }
}

// Requirement: DWR-18 switch=record-gap-ignored
TEST(WriteRecords, AMissingSequenceNumberEndsTheReading) {
  Ring r(3);
  r.write(0, 64);
  ++r.next;  // number 2 is lost, its slot has what belongs a turn later
  r.put({0, 63, 0, luge_card::DMA_WRITTEN, 10});
  r.write(64, 64);
  EXPECT_EQ(r.reader.read(r.read, 100), 1u);
  EXPECT_TRUE(r.reader.gap());
  EXPECT_EQ(r.reader.why(), "slot 2 has record 10 where 2 was expected");
  EXPECT_EQ(r.reader.read(r.read, 100), 0u);
}

// Requirement: DWR-21 switch=record-counts-one-page
TEST(WriteRecords, ARecordIsAllPagesThatItTouches) {
  auto pages = [](std::uint64_t address, std::uint32_t length) {
    return pages_of({address, static_cast<std::uint16_t>(length - 1), 0, luge_card::DMA_WRITTEN, 1});
  };
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const std::uint64_t address = random() % (1u << 20) / 64 * 64;
    const std::uint32_t length = (random() % 1024 + 1) * 64;
    std::uint64_t first = ~0ull, last = 0;
    for (std::uint64_t b = address; b < address + length; b += 64) first = std::min(first, b / 4096), last = std::max(last, b / 4096);
    const PageRange r = pages(address, length);
    ASSERT_EQ(r.first, first);
    ASSERT_EQ(r.count, last - first + 1);
  }
  EXPECT_EQ(pages(~0ull - 63, 65536).count, 1u);  // no turn around the end of the address space
}

TEST(WriteRecords, NumbersTurnOver) {
  Ring r(2);
  WriteRecordReader& reader = r.reader;
  // 2^32 records are too many for a test: the arithmetic at the edge is that of any turn, as `next` counts in 64 bits.
  for (int i = 0; i < 4 * 7 + 3; ++i) {
    r.write(0, 64);
    ASSERT_EQ(reader.read(r.read, 9), 1u);
  }
  EXPECT_EQ(reader.records(), 31u);
}

}  // namespace
}  // namespace luge::card
