#include "card/xrt/firmware.hpp"

#include <unistd.h>

#include <cstring>
#include <exception>
#include <thread>

#include "hls/registers/card.h"

namespace luge::card {

using namespace luge_card;
using Clock = std::chrono::steady_clock;

namespace {
constexpr auto kPiece = std::chrono::microseconds(200);
constexpr auto kTableLimit = std::chrono::milliseconds(400);
constexpr int kTries = 3;
constexpr auto kRest = std::chrono::seconds(10);  // before one that did not answer is asked again
}  // namespace

// Behind the registers of a card without a controller there is nothing: its bus may answer with an error.
bool Firmware::look() {
  try {
    return there_ = read_(SHARED_MAGIC) == SHARED_MAGIC_VALUE;
  } catch (const std::exception&) {
    return there_ = false;
  }
}

// The owner's word first, then the state: whichever of host and firmware comes second sees the other.
bool Firmware::claim(std::chrono::milliseconds limit) {
  given_up_until_ = {}, why_.clear();
  if (!look()) {
    std::this_thread::sleep_for(kPiece);  // powered up a moment ago: the magic is its first word
    if (!look()) return true;
  }
  write_(SHARED_OWNER, 1);
  for (auto end = Clock::now() + limit; Clock::now() < end; std::this_thread::sleep_for(kPiece)) {
    const std::uint32_t state = read_(SHARED_STATE);
    if (state == static_cast<std::uint32_t>(FirmwareState::ready)) return true;
    if (state != static_cast<std::uint32_t>(FirmwareState::failed)) continue;
    const auto record = words(SHARED_LAST_FAULT, SHARED_LAST_FAULT_WORDS);
    why_ = "the firmware's self-test failed: " + fault_text(record);
    return false;
  }
  why_ = "the firmware does not come to rest: state " + std::to_string(read_(SHARED_STATE));
  return false;
}

void Firmware::release() {
  if (there_) write_(SHARED_OWNER, 0);
}

std::string Firmware::describe() {
  if (!there_) return "no controller";
  static constexpr const char* slots[] = {"golden", "A", "B", "none"};
  const std::uint32_t processor = read_(SHARED_PROCESSOR), slot = read_(SHARED_SLOT);
  return "firmware " + firmware_version_text(read_(SHARED_FIRMWARE_VERSION)) + (processor == 1 ? " on its controller (RV32)" : " in a host process") +
         (slot < 3 ? std::string(", slot ") + slots[slot] : "");
}

std::vector<std::uint32_t> Firmware::words(std::uint32_t offset, std::uint32_t count) {
  std::vector<std::uint32_t> w(count);
  for (std::uint32_t i = 0; i < count; ++i) w[i] = read_(offset + 4 * i);
  return w;
}

std::optional<Firmware::Answer> Firmware::command(int op, std::span<const std::uint32_t> arguments, std::chrono::milliseconds limit) {
  if (!there_ || Clock::now() < given_up_until_) return std::nullopt;
  for (int tries = 0; tries < kTries; ++tries) {
    const std::uint32_t boots = read_(SHARED_BOOTS), number = read_(SHARED_COMMAND) + 1;
    for (std::size_t i = 0; i < arguments.size() && i < SHARED_ARGUMENT_WORDS; ++i) write_(SHARED_ARGUMENT + 4 * static_cast<std::uint32_t>(i), arguments[i]);
    write_(SHARED_OP, static_cast<std::uint32_t>(op));
    write_(SHARED_COMMAND, number);
    auto end = Clock::now() + limit;
    if (op == Command::restart) {  // its answer is that it has started
      while (read_(SHARED_BOOTS) == boots && Clock::now() < end) std::this_thread::sleep_for(kPiece);
      if (read_(SHARED_BOOTS) != boots) return Answer{};
      break;
    }
    while (read_(SHARED_ANSWERED) != number && Clock::now() < end) std::this_thread::sleep_for(kPiece);
    Answer a;
    const bool answered = read_(SHARED_ANSWERED) == number;
    a.status = read_(SHARED_ANSWER_STATUS);
    for (std::uint32_t i = 0; i < SHARED_ANSWER_WORDS; ++i) a.words[i] = read_(SHARED_ANSWER + 4 * i);
    if (read_(SHARED_BOOTS) != boots) continue;  // lost, or answered by a firmware that has forgotten it
    if (answered) return a;
    break;
  }
  given_up_until_ = Clock::now() + kRest;
  return std::nullopt;
}

std::optional<std::array<std::uint8_t, 64>> Firmware::table(std::uint32_t k, std::uint32_t m, std::uint32_t present, std::uint32_t wanted) {
  const std::uint32_t arguments[] = {k, m, present, wanted, 0, 0, 0, 0};
  auto a = command(Command::table, arguments, kTableLimit);
  if (!a || a->status != static_cast<std::uint32_t>(AnswerStatus::ok)) return std::nullopt;
  std::array<std::uint8_t, 64> t;
  std::memcpy(t.data(), a->words.data(), t.size());
  return t;
}

}  // namespace luge::card
