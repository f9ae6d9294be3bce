// What the oracle of quiet seeds sees of requests that have no answer.
#include "sim/cluster/quiet.hpp"

#include "sim/cluster/tenant.hpp"
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class QuietTest : public UnitTest {
 protected:
  QuietTest() {
    tenant_.name = "v";
    tenant_.partition_bytes = kBlocks * kBlockBytes;
    tenant_.rivals = true;  // takes the volume from the fixture's client
    tenant_.fail = [](const std::string& why) { ADD_FAILURE() << why; };
    tenant_.load = std::make_unique<Workload>(sim_, Workload::Options{.volume_bytes = kBlocks * kBlockBytes, .hot_blocks = 16, .workers = 4});
    add_client(sim_, tenant_, kFirstClient + 1, false);
    EXPECT_TRUE(sim_.run_until([this] { return tenant_.present != nullptr; }, 20s));
    sim_.run_for(2s);
  }
  ~QuietTest() override {
    for (Node n : tenant_.clients) sim_.crash(n, Crash::power);
  }
  std::string disturbance() {
    Quiet q;
    q.waited("v", tenant_.waited());
    return q.disturbance();
  }
  Tenant tenant_;
};

TEST_F(QuietTest, ARequestThatHangsHasWaited) {
  EXPECT_EQ(disturbance(), "");
  EXPECT_GT(tenant_.load->answered(), 100u);
  for (Node n : unit_->head_nodes()) sim_.pause(n);
  sim_.run_for(2 * Quiet::kLongestWait);
  EXPECT_LT(tenant_.longest_wait, Quiet::kLongestWait) << "nothing has been answered";
  EXPECT_EQ(tenant_.open.size(), 4u) << "one of each worker";
  EXPECT_NE(disturbance(), "");
  for (Node n : unit_->head_nodes()) sim_.resume(n);
  tenant_.load->stop();
  EXPECT_TRUE(sim_.run_until([this] { return tenant_.load->open() == 0; }, 60s));
  EXPECT_TRUE(tenant_.open.empty());
  EXPECT_GT(tenant_.longest_wait, Quiet::kLongestWait);
}

}  // namespace
}  // namespace luge::sim
