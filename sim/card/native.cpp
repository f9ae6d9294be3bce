#include "sim/card/card.hpp"

namespace luge::sim {
namespace {

class Native : public Card {
 public:
  Native() { reset(); }
  card::Out cycle(const card::In &in) override {
    card::Out out = card::Out();
    card::step(*state_, in, out);
    return out;
  }
  void reset() override { state_ = std::make_unique<card::State>(); }

 private:
  std::unique_ptr<card::State> state_;
};

}  // namespace

std::unique_ptr<Card> make_native_card() { return std::make_unique<Native>(); }

}  // namespace luge::sim
