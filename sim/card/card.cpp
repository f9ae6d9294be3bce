#include "sim/card/card.hpp"

#include "card_glue.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(card, Pair);

namespace luge::sim {
namespace {

class Rtl : public Card {
 public:
  Rtl() { reset(); }
  ~Rtl() override {
    if (trace_) trace_->close();
    model_->final();
  }
  card::Out cycle(const card::In &in) override {
    card::Out out = card::Out();
    card_glue::drive(*model_, in);
    model_->ap_clk = 0, model_->eval();
    if (trace_) trace_->dump(10 * cycles_);
    card_glue::sample(*model_, out);
    model_->ap_clk = 1, model_->eval();
    if (trace_) trace_->dump(10 * cycles_ + 5);
    if (++cycles_ >= trace_until_ && trace_) trace_->close(), trace_.reset();
    return out;
  }
  using Card::trace;
  void trace(const Trace &wanted) override {
    Verilated::traceEverOn(true);
    trace_ = std::make_unique<VerilatedFstC>();
    hls::attach(*model_, trace_.get());
    if (wanted.ports_only) trace_->dumpvars(1, "TOP");
    trace_->open(wanted.path.c_str());
    trace_until_ = wanted.cycles ? cycles_ + wanted.cycles : ~0ull;
  }
  void reset() override {
    if (trace_) trace_->close(), trace_.reset();  // a trace ends with its model
    model_ = std::make_unique<card_glue::Model>();
    model_->ap_rst_n = 0;
    card_glue::drive(*model_, card::In());
    model_->ap_clk = 0, model_->eval(), model_->ap_clk = 1, model_->eval();
    model_->ap_rst_n = 1;
  }

 private:
  std::unique_ptr<card_glue::Model> model_;
  std::unique_ptr<VerilatedFstC> trace_;
  uint64_t cycles_ = 0, trace_until_ = 0;
};

class Lockstep : public Card {
 public:
  card::Out cycle(const card::In &in) override { return pair_->cycle(in); }
  void reset() override { pair_->reset(); }
  using Card::trace;
  void trace(const Trace &wanted) override { pair_->trace(wanted.path); }

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
