// A program of a user's own on XRT: opens the card, has it XOR four chunks (a row of ones), compares. Nothing in it is of the
// emulation; docs/xrt.md builds and runs it.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include <experimental/xrt_ip.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>

#include "hls/registers/card.h"

using namespace luge_card;

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: example XCLBIN\n"), 2;
  constexpr unsigned sources = 4, length = 65536, ring_log2 = 3;
  xrt::device device(0);
  xrt::uuid uuid = device.load_xclbin(argv[1]);
  xrt::ip card(device, uuid, "luge_card");
  if (card.read_register(REG_ID) != ID_VALUE) return std::fprintf(stderr, "no Luge card\n"), 1;
  // The card's firmware, where there is one, tests itself on the same ring when it starts: say who owns the ring, then wait until it is ready.
  for (unsigned look = 0; look < 5 && card.read_register(SHARED_MAGIC) != SHARED_MAGIC_VALUE; look++) std::this_thread::sleep_for(std::chrono::microseconds(200));
  if (card.read_register(SHARED_MAGIC) == SHARED_MAGIC_VALUE) {
    card.write_register(SHARED_OWNER, 1);
    for (uint32_t state = 0; state != uint32_t(FirmwareState::ready); std::this_thread::sleep_for(std::chrono::microseconds(200))) {
      state = card.read_register(SHARED_STATE);
      if (state == uint32_t(FirmwareState::failed)) return std::fprintf(stderr, "the card's self-test has failed\n"), 1;
    }
  }
  auto write64 = [&](uint32_t offset, uint64_t v) { card.write_register(offset, uint32_t(v)), card.write_register(offset + 4, uint32_t(v >> 32)); };

  // A ring of descriptors with its completions behind, and memory for chunks: four sources and the result.
  xrt::bo ring(device, (1 << ring_log2) * 256 + 4096, 0), chunks(device, (sources + 1) * length, 0);
  auto* descriptors = ring.map<Descriptor*>();
  auto* data = chunks.map<unsigned char*>();
  std::memset((void*)descriptors, 0, ring.size());
  for (unsigned i = 0; i < sources * length; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
  write64(REG_RING_BASE, ring.address()), write64(REG_COMPLETION_BASE, ring.address() + 4096);
  card.write_register(REG_RING_SIZE, ring_log2);
  write64(REG_WINDOW_BASE, chunks.address()), write64(REG_WINDOW_END, chunks.address() + chunks.size());
  card.write_register(REG_CONTROL, CONTROL_RUN);

  // One job loads a table of ones, the next multiplies by it. Jobs are counted from the card's power-up: others were before.
  const uint32_t first = card.read_register(REG_SUBMITTED), load = first % (1 << ring_log2), code = (first + 1) % (1 << ring_log2);
  descriptors[load].version = 1, descriptors[load].op = Op::load_table;
  std::memset((unsigned char*)&descriptors[load] + 64, 1, sources);
  descriptors[code].version = 1, descriptors[code].op = Op::code, descriptors[code].sources = sources, descriptors[code].rows = 1, descriptors[code].length = length;
  for (unsigned i = 0; i < sources; i++) descriptors[code].source[i] = chunks.address() + i * length;
  descriptors[code].destination[0] = chunks.address() + sources * length;
  ring.sync(XCL_BO_SYNC_BO_TO_DEVICE), chunks.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  card.write_register(REG_SUBMITTED, first + 2);
  while (card.read_register(REG_COMPLETED) != first + 2) std::this_thread::sleep_for(std::chrono::microseconds(200));

  ring.sync(XCL_BO_SYNC_BO_FROM_DEVICE), chunks.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
  auto* done = (const Completion*)((unsigned char*)descriptors + 4096);
  unsigned wrong = 0;
  for (unsigned i = 0; i < length; i++) wrong += data[sources * length + i] != (data[i] ^ data[length + i] ^ data[2 * length + i] ^ data[3 * length + i]);
  std::printf("status %u and %u, %u cycles, %u beats read, %u bytes wrong\n", done[load].status, done[code].status, done[code].cycles, card.read_register(REG_BEATS_READ), wrong);
  return done[load].status == 0 && done[code].status == 0 && wrong == 0 ? 0 : 1;
}
