#!/usr/bin/env python3
"""A virtual machine on a Luge volume, copied while it runs: `./demo --vm` starts this. Prints pages by source, passes and pauses.

  tests/vm/demo_vm.py --build build [--dir D]
"""
import argparse
import os
import shutil
import sys
import tempfile
import time

import vm
from replication import Scene, migration_of, qemu_migration_of, resume_elsewhere
from unit import CheckFailed, expect


def passes_of(report):
    rows = [f"    {'paused' if i + 1 == len(report['passes']) else f'pass {i + 1}':8} {p['pages']:6} pages: {p['by_processor']:5} by the processor, {p['by_device']:6} by the disk, "
            f"{p['by_both']:4} by both, {p['disk']:5} of the volume" for i, p in enumerate(report["passes"])]
    return "\n".join(rows) + f"\n    paused {report['pause_ms']} ms, of it {report['device_state_ms']} ms for its devices; {report['records']} DMA write records"


def demo(scene):
    scene.start()
    print("a guest boots on a volume of 128 MiB; it reads into memory, checks what it read, and writes with a flush after each", flush=True)
    disk = scene.vhost()
    guest = scene.guest("host1-guest", disk)
    counts = guest.wait_working()
    print(f"  {counts[1]} reads of 64 KiB, {counts[2]} writes, {counts[4]} bad\nit moves to a second QEMU while it works (QEMU's own live migration)", flush=True)
    guest, disk, info = qemu_migration_of(scene, guest, disk)
    ram = info["ram"]
    print(f"    {ram['dirty-sync-count']} passes, {ram['transferred'] >> 20} MiB sent, paused {info['downtime']} ms", flush=True)
    guest.wait_passes(1)
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks after QEMU's migration")
    print("it moves to a third while it works (luge vm migrate)", flush=True)
    guest, host, disk, report = migration_of(scene, guest, disk)
    print(passes_of(report), flush=True)
    guest.wait_passes(1)
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks after the migration")
    print("it is copied to a second host every 200 ms, memory and volume (luge vm protect)", flush=True)
    address = f"unix:{scene.work}/standby.sock"
    standby = scene.vmstated("standby", listen=address, more=["--no-durable"])
    host.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", address, "--with-disk", "--every", "200ms")
    deadline = time.time() + 120
    while (state := host.run("status")["protected"][0])["checkpoints"] < 20:
        expect(time.time() < deadline, f"20 checkpoints: {state}")
        time.sleep(0.2)
    print(f"  {state['checkpoints']} checkpoints, pause {state['pause_median_ms']} ms in the median; the last:\n{passes_of(state['last'])}", flush=True)
    before = guest.counts()
    guest.kill()
    host.kill()
    scene.unit.run("detach", "disk")
    print("the guest and its luge-vmstated are killed; it goes on at the second host from its last checkpoint (luge vm restore)", flush=True)
    begin = time.time()
    kept, resumed = resume_elsewhere(scene, standby, guest, "disk2")
    resumed.wait_counts(lambda c: c[0] >= 2, "the guest goes on")
    print(f"  checkpoint {kept['checkpoint']} runs {time.time() - begin:.1f} s later", flush=True)
    counts = resumed.wait_counts(lambda c: c[3] >= before[3] + 2 and c[2] > before[2] + 300, "the guest verifies memory and volume", 240)
    expect(counts[4] == 0, f"the guest found {counts[4]} bad blocks")
    print(f"  it has verified all that it had read and written: {counts[1]} reads, {counts[2]} writes, 0 bad", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", required=True)
    p.add_argument("--dir")
    a, _ = p.parse_known_args()  # of ./demo's other options none matters here
    build = os.path.abspath(a.build)
    why = vm.missing(os.path.join(build, "bin"), os.path.join(build, "tests", "guest-check"))
    if why:
        print(f"demo: no guest can be run: {why}", file=sys.stderr)
        return 1
    work = os.path.abspath(a.dir or tempfile.mkdtemp(prefix="luge-vm-", dir="/var/tmp"))
    os.makedirs(work, exist_ok=True)
    scene = Scene(build, work)
    try:
        demo(scene)
    except CheckFailed as e:
        print(f"FAILED {e.name}: {e}\nwhat was left is in {work}", file=sys.stderr)
        return 1
    finally:
        scene.end()
    if not a.dir:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
