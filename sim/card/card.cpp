#include "sim/card/card.hpp"

#include "card_glue.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(card, Pair);

namespace luge::sim {
namespace {

class Rtl : public Card {
 public:
  Rtl() { reset(); }
  ~Rtl() override { model_->final(); }
  card::Out cycle(const card::In &in) override {
    card::Out out = card::Out();
    card_glue::drive(*model_, in);
    model_->ap_clk = 0, model_->eval();
    card_glue::sample(*model_, out);
    model_->ap_clk = 1, model_->eval();
    return out;
  }
  void reset() override {
    model_ = std::make_unique<card_glue::Model>();
    model_->ap_rst_n = 0;
    card_glue::drive(*model_, card::In());
    model_->ap_clk = 0, model_->eval(), model_->ap_clk = 1, model_->eval();
    model_->ap_rst_n = 1;
  }

 private:
  std::unique_ptr<card_glue::Model> model_;
};

class Lockstep : public Card {
 public:
  card::Out cycle(const card::In &in) override { return pair_->cycle(in); }
  void reset() override { pair_->reset(); }
  void trace(const std::string &path) override { pair_->trace(path); }

 private:
  std::unique_ptr<Pair> pair_ = std::make_unique<Pair>();
};

}  // namespace

std::unique_ptr<Card> make_card(CardKind kind) {
  switch (kind) {
    case CardKind::native: return make_native_card();
    case CardKind::rtl: return std::make_unique<Rtl>();
    case CardKind::lockstep: break;
  }
  return std::make_unique<Lockstep>();
}

}  // namespace luge::sim
