// luge-vmstated: the state of virtual machines, copied to where it is needed.
#include "vmstate/daemon.hpp"

int main(int argc, char** argv) {
  return luge::io::daemon_main<luge::vmstate::Daemon>(
      argc, argv, {"luge-vmstated", "vmstated", "Replicates the state of virtual machines: checkpoints, standby, migration.", true, false});
}
