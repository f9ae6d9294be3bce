#!/usr/bin/env python3
"""A running guest on a Luge disk, replicated with DMA write records: checkpoints compared by cmp, migration, standby, and the controls that must fail.

  tests/vm/replication.py --build build --dir D [--only NAME[,NAME]] [--checkpoints N]

checkpoints  N checkpoints under load; each file of memory is that of the paused machine, byte for byte, and a guest resumed from one of them is sound
migration    to another QEMU under load; the guest goes on, nothing is wrong in it
standby      a checkpoint every 200 ms to a second host; the first is killed; the guest resumes there, with the disk as it was then
controls     with one rule broken each, the comparison must find wrong pages
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import time

import vm
from unit import CheckFailed, Unit, command, expect

SHAPE = ["--heads", "3", "--sleds", "6", "--devices", "1", "--log-bytes", "128MiB", "--device-bytes", "1GiB"]
# Switch, which programs it is built into, which pages may differ.
CONTROLS = [
    ("dma-unrecorded", "attach"),
    ("dma-records-lost", "attach"),
    ("dma-range-unrecorded", "attach"),
    ("records-of-function-lost", "vmstated"),
    ("processor-writes-ignored", "vmstated"),
]


class Scene:
    def __init__(self, build, work, broken_attach=None):
        self.bin, self.work = os.path.join(build, "bin"), work
        self.check = os.path.join(build, "tests", "guest-check")
        self.images = os.path.join(build, "guest")
        command([os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest.sh"), self.images, self.check], timeout=600, name="guest")
        self.shm = os.path.join("/dev/shm", f"luge-vm-{os.getpid()}")
        os.makedirs(self.shm, exist_ok=True)
        self.unit = Unit(os.path.join(work, "unit"), self.bin, SHAPE, broken_attach)
        self.things = []
        self.disks = 0

    def start(self):
        self.unit.run("unit", "up", "--dir", self.unit.dir, *self.unit.up_args, timeout=300)
        self.unit.run("volume", "create", "disk", "--size", str(vm.DISK), "--layout", "4+2")
        image = os.path.join(self.work, "disk.img")
        vm.make_disk(image, self.check)
        nbd = os.path.join(self.work, "nbd.sock")
        self.unit.run("attach", "disk", "--nbd", f"unix:{nbd}")
        command(["nbdcopy", image, f"nbd+unix:///disk?socket={nbd}"], timeout=120)
        self.unit.run("detach", "disk")

    def vhost(self):
        """A socket at which the volume is a guest's disk."""
        path = os.path.join(self.work, "disk.vhost")
        self.unit.run("attach", "disk", "--vhost-user", f"unix:{path}")
        return path

    def guest(self, name, disk, **options):
        g = vm.Guest(os.path.join(self.work, name), self.bin, self.images, disk, options.pop("memory", os.path.join(self.shm, name)), **options)
        self.things.append(g)
        return g

    def vmstated(self, name, **options):
        v = vm.Vmstated(os.path.join(self.work, name), self.bin, **options)
        self.things.append(v)
        return v

    def end(self):
        for t in reversed(self.things):
            t.kill()
        try:
            self.unit.run("unit", "down", "--dir", self.unit.dir, check=False)
        finally:
            shutil.rmtree(self.shm, ignore_errors=True)


def one_compared(host, guest, scene, name="vm"):
    """A checkpoint that leaves the machine paused; (report, pages that differ between it and the paused machine)."""
    report = host.run("checkpoint", name, "--stay-paused")
    to = os.path.join(scene.shm, "restored")
    host.run("restore", name, "--from", os.path.join(scene.work, "store"), "--to", to)
    pages = vm.differing_pages(guest.memory, os.path.join(to, "memory"))
    guest.monitor.run("cont")
    return report, pages


def describe(report):
    passes = "; ".join(f"{p['pages']} pages ({p['by_processor']} processor, {p['by_device']} device, {p['by_both']} both)" for p in report["passes"])
    return f"checkpoint {report['checkpoint']}: {passes}; {report['records']} records; paused {report['pause_ms']} ms, of it {report['device_state_ms']} devices"


# Requirement: DWR-01, DWR-17
def checkpoints(scene, count):
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_working()
    host = scene.vmstated("host1")
    store = os.path.join(scene.work, "store")
    host.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", store, "--keep", "3", "--not-durable")
    reports = []
    for i in range(count):
        report, pages = one_compared(host, guest, scene)
        print(describe(report) + f"; {len(pages)} pages differ", flush=True)
        expect(not pages, f"checkpoint {report['checkpoint']} differs from the machine in pages {pages[:10]}")
        reports.append(report)
        time.sleep(0.3)
    later = reports[1:]
    copied = sum(p["pages"] for r in later for p in r["passes"])
    united = sum(p["by_processor"] + p["by_device"] - p["by_both"] for r in later for p in r["passes"])
    print(f"{count} checkpoints, all equal; {sum(r['passes'][0]['pages'] for r in reports[:1])} pages in the full copy; then {copied} pages copied, "
          f"{united} dirty by records and processor; pause median {statistics.median(r['pause_ms'] for r in later):.1f} ms, of it devices' state "
          f"{statistics.median(r['device_state_ms'] for r in later):.1f} ms", flush=True)
    expect(copied <= 1.1 * united, f"{copied} pages copied, {united} were dirty")
    guest.wait_passes(1)
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks: {guest.lines()[-3:]}")
    host.run("release", "vm")


# Requirement: DWR-25
def migration(scene):
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_working()
    host1, host2 = scene.vmstated("host1"), scene.vmstated("host2", listen=f"unix:{scene.work}/host2.sock")
    live = os.path.join(host2.dir, "live", "vm")
    target = scene.guest(os.path.join("host2", "live", "vm"), disk, memory=os.path.join(live, "memory"), waits=True)
    report = host1.run("migrate", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", f"unix:{scene.work}/host2.sock")
    print("migrated: " + describe(report), flush=True)
    counts = target.wait_counts(lambda c: c[0] >= 2, "the guest goes on")
    target.wait_passes(2)
    expect(target.counts()[4] == 0, f"the guest found {target.counts()[4]} bad blocks: {target.lines()[-3:]}")
    print(f"the guest runs over there: {target.counts()[1]} reads, {target.counts()[2]} writes, none bad (at its arrival {counts[1]})", flush=True)


def control(scene, switch, where):
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_working()
    host = scene.vmstated("host1", broken=switch if where == "vmstated" else None)
    host.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", os.path.join(scene.work, "store"), "--keep", "3", "--not-durable")
    wrong = set()
    for _ in range(6):
        _, pages = one_compared(host, guest, scene)
        wrong |= set(pages)
        if wrong:
            break
        time.sleep(0.5)
    expect(wrong, f"with {switch} no page differs in 6 checkpoints: the comparison can't fail")
    print(f"{switch}: {len(wrong)} pages differ, as they must", flush=True)
    if switch == "dma-range-unrecorded":
        blocks = {p // 16 for p in wrong}
        expect(len(blocks) == 1, f"pages of {len(blocks)} ranges of 64 KiB differ, not of one: {sorted(wrong)[:20]}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", required=True)
    p.add_argument("--dir", required=True)
    p.add_argument("--only", default="checkpoints,migration,controls")
    p.add_argument("--checkpoints", type=int, default=6)
    p.add_argument("--switch", help="of controls: only this")
    a = p.parse_args()
    build, work = os.path.abspath(a.build), os.path.abspath(a.dir)
    why = vm.missing(os.path.join(build, "bin"), os.path.join(build, "tests", "guest-check"))
    if why:
        print(f"no guest can be run: {why}", file=sys.stderr)
        return 1
    runs = []
    for name in a.only.split(","):
        if name == "controls":
            runs += [(f"control {s}", lambda scene, s=s, w=w: control(scene, s, w), s if w == "attach" else None) for s, w in CONTROLS if a.switch in (None, s)]
        else:
            runs.append((name, {"checkpoints": lambda scene: checkpoints(scene, a.checkpoints), "migration": migration}[name], None))
    failed = []
    for name, run, broken in runs:
        folder = os.path.join(work, name.replace(" ", "-"))
        os.makedirs(folder, exist_ok=True)
        scene = Scene(build, folder, broken)
        begin = time.time()
        print(f"== {name}", flush=True)
        try:
            scene.start()
            run(scene)
        except CheckFailed as e:
            failed.append(name)
            print(f"FAILED {name}: {e.name}: {e}", flush=True)
        finally:
            scene.end()
        print(f"   {time.time() - begin:.0f} s", flush=True)
        if name not in failed:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
