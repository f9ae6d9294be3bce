#!/usr/bin/env python3
"""A running guest on a Luge disk, replicated with DMA write records: checkpoints compared by cmp, migration, standby, and the controls that must fail.

  tests/vm/replication.py --build build --dir D [--only NAME[,NAME]] [--checkpoints N] [--migrations N]

checkpoints  N checkpoints under load; each file of memory is that of the paused machine, byte for byte, and a guest resumed from one of them is sound
migration    to another QEMU under load, N times there and back; the guest goes on, nothing is wrong in it
standby      a checkpoint every 200 ms to a second host; the first is killed; the guest resumes there, with the disk as it was then
killed       luge-vmstated is killed within pauses; the next one lets the guest run, but for one that was being handed over
volume       the same as checkpoints, with a Luge volume as the store
overflows    records are lost and the disk says so: every checkpoint is equal all the same
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
from vhost import Daemon
from unit import CheckFailed, Unit, command, expect

SHAPE = ["--heads", "3", "--sleds", "6", "--devices", "1", "--log-bytes", "128MiB", "--device-bytes", "1GiB"]
# Switch, and which program it is built into.
CONTROLS = [
    ("dma-unrecorded", "attach"),
    ("dma-records-lost", "attach"),
    ("dma-range-unrecorded", "attach"),
    ("dma-record-before-data", "attach"),
    ("overflow-ignored", "vmstated"),
    ("records-of-function-lost", "vmstated"),
    ("processor-writes-ignored", "vmstated"),
]


class Scene:
    def __init__(self, build, work, broken_attach=None):
        self.bin, self.work = os.path.join(build, "bin"), work
        self.check = os.path.join(build, "tests", "guest-check")
        self.images = os.path.join(build, "vm-guest")  # not that of tests/e2e/vhost.py
        command([os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest.sh"), self.images, self.check], timeout=600, name="guest")
        self.shm = os.path.join("/dev/shm", f"luge-vm-{os.getpid()}")
        os.makedirs(self.shm, exist_ok=True)
        self.unit = Unit(os.path.join(work, "unit"), self.bin, SHAPE)
        self.broken_attach = broken_attach
        self.daemons, self.things = [], []

    def start(self):
        self.unit.run("unit", "up", "--dir", self.unit.dir, *self.unit.up_args, timeout=300)
        self.unit.run("volume", "create", "disk", "--size", str(vm.DISK), "--layout", "4+2")
        image = os.path.join(self.work, "disk.img")
        vm.make_disk(image, self.check)
        nbd = os.path.join(self.work, "nbd.sock")
        self.unit.run("attach", "disk", "--nbd", f"unix:{nbd}")
        command(["nbdcopy", image, f"nbd+unix:///disk?socket={nbd}"], timeout=120)
        self.unit.run("detach", "disk")

    def daemon(self, broken=None):
        """Another attach daemon: a second host's, or one with a broken rule."""
        name = f"attach-{len(self.daemons) + 2}"
        self.daemons.append(Daemon(self.unit, self.work, name, 950 + len(self.daemons), broken))
        return name

    def vhost(self, volume="disk", node=None, *more):
        """A socket at which the volume is a guest's disk."""
        path = os.path.join(self.work, f"{volume}-{node or 'a'}.vhost")
        if node is None and self.broken_attach:
            node = self.daemon(self.broken_attach)
        self.unit.run("attach", volume, "--vhost-user", f"unix:{path}", *(["--node", node] if node else []), *more)
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
        for d in self.daemons:
            d.end()
        try:
            self.unit.run("unit", "down", "--dir", self.unit.dir, check=False)
        finally:
            shutil.rmtree(self.shm, ignore_errors=True)


def one_compared(host, guest, scene, store=None):
    """A checkpoint that leaves the machine paused; (report, pages that differ between it and the paused machine)."""
    report = host.run("checkpoint", "vm", "--stay-paused")
    to = os.path.join(scene.shm, "restored")
    host.run("restore", "vm", "--from", store or os.path.join(scene.work, "store"), "--to", to)
    pages = vm.differing_pages(guest.memory, os.path.join(to, "memory"))
    guest.monitor.run("cont")
    return report, pages


FIGURES = {}  # what --json writes


def describe(report):
    passes = "; ".join(f"{p['pages']} pages ({p['by_processor']} processor, {p['by_device']} device, {p['by_both']} both)" for p in report["passes"])
    return f"checkpoint {report['checkpoint']}: {passes}; {report['records']} records; paused {report['pause_ms']} ms, of it {report['stop_ms']} to stop, {report['device_state_ms']} devices, {report['passes'][-1]['ms']} the last pass"


# Requirement: DWR-01, DWR-17
def checkpoints(scene, count, store=None):
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_working()
    host = scene.vmstated("host1")
    store = store or os.path.join(scene.work, "store")
    host.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", store, "--keep", "3", "--not-durable")
    reports = []
    for i in range(count):
        report, pages = one_compared(host, guest, scene, store)
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
    FIGURES["checkpoints"] = {"count": count, "copied_to_dirty": copied / max(united, 1), "pause_ms": statistics.median(r["pause_ms"] for r in later),
                              "pause_without_state_ms": statistics.median(r["pause_ms"] - r["device_state_ms"] for r in later)}
    expect(copied <= 1.1 * united, f"{copied} pages copied, {united} were dirty")
    guest.wait_passes(1)
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks: {guest.lines()[-3:]}")
    host.run("release", "vm")


# Requirement: DWR-32
def volume(scene, count):
    """The same with another Luge volume as the store; the checkpoints are there after luge-vmstated has been killed, and the oldest is whole, too."""
    scene.unit.run("volume", "create", "ckpt", "--size", "1GiB", "--layout", "4+2")
    nbd = os.path.join(scene.work, "ckpt.sock")
    scene.unit.run("attach", "ckpt", "--nbd", f"unix:{nbd}")
    store = f"nbd+unix:///ckpt?socket={nbd}"
    checkpoints(scene, count, store)
    scene.things[-1].kill()
    reader = scene.vmstated("reader")
    to = os.path.join(scene.shm, "restored")
    for n in range(count - 2, count + 1):
        kept = reader.run("restore", "vm", "--from", store, "--checkpoint", str(n), "--to", to)
        expect(kept["checkpoint"] == n, f"checkpoint {n} was asked for: {kept}")
    print(f"checkpoints {count - 2} to {count} are on the volume, each restored with the sums of its pages", flush=True)


def qemu_migration_of(scene, guest, disk):
    """(guest, disk) over there, and QEMU's own report: by its live migration, whose dirty log the disk's records feed."""
    there = scene.vhost("disk", scene.daemon(), "--incoming")
    target = scene.guest("qemu-target", there, waits=True)
    wire = os.path.join(scene.work, "qemu.migrate")
    target.monitor.run("migrate-incoming", uri=f"unix:{wire}")
    guest.monitor.run("migrate-set-parameters", **{"max-bandwidth": 400 << 20, "downtime-limit": 40})
    guest.monitor.run("migrate", uri=f"unix:{wire}")
    deadline = time.time() + 120
    while (info := guest.monitor.run("query-migrate"))["status"] != "completed":
        expect(info["status"] not in ("failed", "cancelled") and time.time() < deadline, f"QEMU's migration: {info}")
        time.sleep(0.05)
    guest.kill()
    target.wait_counts(lambda c: c[0] >= 2, "the guest goes on")
    return target, there, info


def migration_of(scene, guest, disk):
    """(guest, luge-vmstated, disk) over there, and the report: `guest` moves to a QEMU behind another attach daemon."""
    address = f"unix:{scene.work}/host2.sock"
    host1, host2 = scene.vmstated("host1"), scene.vmstated("host2", listen=address)
    live = os.path.join(host2.dir, "live", "vm")
    there = scene.vhost("disk", scene.daemon(), "--incoming")
    # The target's memory is a file that luge-vmstated of that host fills: on tmpfs, as the source's.
    os.makedirs(live)
    os.symlink(os.path.join(scene.shm, "target"), os.path.join(live, "memory"))
    target = scene.guest(os.path.join("host2", "live", "vm"), there, memory=os.path.join(live, "memory"), waits=True)
    report = host1.run("migrate", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", address)
    target.wait_counts(lambda c: c[0] >= 2, "the guest goes on")
    return target, host2, there, report


# Requirement: DWR-25
def migration(scene, count):
    """There and back, `count` times, between two luge-vmstated and two attach daemons."""
    nodes = ["attach-1", scene.daemon()]
    addresses = [f"unix:{scene.work}/to-host{i}.sock" for i in (1, 2)]
    hosts = [scene.vmstated(f"host{i + 1}", listen=address) for i, address in enumerate(addresses)]
    disk = scene.vhost("disk", nodes[0])
    guest = scene.guest("source", disk)
    guest.wait_working()
    reports = []
    for i in range(count):
        here, there = i % 2, 1 - i % 2
        live, memory = os.path.join(hosts[there].dir, "live", "vm"), os.path.join(scene.shm, f"target{i}")
        shutil.rmtree(live, ignore_errors=True)
        os.makedirs(live)
        os.symlink(memory, os.path.join(live, "memory"))
        disk_there = scene.vhost("disk", nodes[there], "--incoming")
        target = scene.guest(os.path.join(f"host{there + 1}", "live", "vm"), disk_there, memory=os.path.join(live, "memory"), waits=True)
        report = hosts[here].run("migrate", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", addresses[there])
        print("migrated: " + describe(report), flush=True)
        reports.append(report)
        guest.kill()
        os.unlink(guest.memory if not os.path.islink(guest.memory) else os.readlink(guest.memory))
        guest, disk = target, disk_there
        guest.wait_counts(lambda c: c[0] >= 2, "the guest goes on")
    guest.wait_passes(2)
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks: {guest.lines()[-3:]}")
    downtime = [r["pause_ms"] for r in reports]
    FIGURES["migrations"] = {"count": count, "bad": guest.counts()[4], "downtime_ms": statistics.median(downtime)}
    print(f"{count} migrations: {guest.counts()[1]} reads, {guest.counts()[2]} writes, none bad; downtime {statistics.median(downtime):.1f} ms in the median, "
          f"{max(downtime):.1f} at most; of it devices' state {statistics.median(r['device_state_ms'] for r in reports):.1f}, to run over there "
          f"{statistics.median(r['commit_ms'] for r in reports):.1f}", flush=True)


def resume_elsewhere(scene, host2, guest, volume):
    """The newest checkpoint that host2 has of `vm`, as a guest that runs there on a volume of its own."""
    to = os.path.join(scene.shm, "resumed")
    kept = host2.run("restore", "vm", "--to", to)
    scene.unit.run("volume", "create", volume, "--size", str(vm.DISK), "--layout", "4+2")
    nbd = os.path.join(scene.work, "nbd2.sock")
    scene.unit.run("attach", volume, "--nbd", f"unix:{nbd}")
    command(["nbdcopy", os.path.join(to, "disk"), f"nbd+unix:///{volume}?socket={nbd}"], timeout=120)
    scene.unit.run("detach", volume)
    path = scene.vhost(volume, "attach-1")
    resumed = scene.guest("resumed", path, memory=os.path.join(to, "memory"), waits=True)
    host2.run("restore", "vm", "--to", to, "--qmp", resumed.qmp)
    return kept, resumed


# Requirement: DWR-32
def standby(scene, expect_bad=False):
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_working()
    address = f"unix:{scene.work}/host2.sock"
    host1, host2 = scene.vmstated("host1"), scene.vmstated("host2", listen=address, more=["--no-durable"])
    host1.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", address, "--with-disk", "--every", "200ms")
    deadline = time.time() + 120
    while (state := host1.run("status")["protected"][0])["checkpoints"] < 25:
        expect(time.time() < deadline and not state["failures"], f"25 checkpoints: {state}")
        time.sleep(0.2)
    last = state["last"]
    print(f"{state['checkpoints']} checkpoints, pause median {state['pause_median_ms']} ms, worst {state['pause_worst_ms']} ms; the last: {last['pages']} pages, "
          f"{sum(p['disk'] for p in last['passes'])} of the disk", flush=True)
    before = guest.counts()
    guest.kill()
    host1.kill()
    scene.unit.run("detach", "disk")
    begin = time.time()
    kept, resumed = resume_elsewhere(scene, host2, guest, "disk2")
    resumed.wait_counts(lambda c: c[0] >= 2, "the guest goes on")
    print(f"the first host was killed; checkpoint {kept['checkpoint']} runs on the second after {time.time() - begin:.1f} s", flush=True)
    counts = resumed.wait_counts(lambda c: c[3] >= before[3] + 2 and c[2] > before[2] + 600, "the guest verifies memory and disk", 240)
    if expect_bad:
        expect(counts[4] > 0, "the guest found nothing wrong: it can't see a disk that doesn't match")
        print(f"{counts[4]} blocks of the disk don't match memory, as it must be", flush=True)
    else:
        expect(counts[4] == 0, f"the guest found {counts[4]} bad blocks: {[line for line in resumed.lines() if line.startswith('bad')][:5]}")
        print(f"the guest goes on there: {counts[1]} reads, {counts[2]} writes, none bad", flush=True)


def overflows(scene, rounds=3):
    """Nobody looks at a small ring between checkpoints: the disk waits, then writes without records and says so; that is enough."""
    host, guest, _ = overflowing(scene, None)
    for _ in range(rounds):
        wait_overflow(scene)
        report, pages = one_compared(host, guest, scene)
        expect(not pages, f"checkpoint {report['checkpoint']} differs from the machine in pages {pages[:10]}")
    said = host.run("status")["protected"][0]["records"]
    print(f"{said['overflows']} overflows in {rounds + 1} checkpoints, all equal", flush=True)
    expect(said["overflows"] > 0, f"the ring never overflowed: {said}")
    guest.wait_passes(1)
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks: {guest.lines()[-3:]}")


def wait_overflow(scene):
    """Until the disk has waited for its ring as long as it does, once more, and has written without records for a while."""
    log = os.path.join(scene.unit.dir, "attach-1", "log")

    def seen():
        with open(log, errors="replace") as f:
            return f.read().count("writes pass unrecorded")
    before = seen()
    scene.unit.wait("an overflow of the ring", lambda: seen() > before, 120)
    time.sleep(1)


def overflowing(scene, switch):
    """(host, guest, pages that differ already): a protected machine whose ring overflows between two checkpoints."""
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_counts(lambda c: c[1] > 200, "the guest reads", 400)
    host = scene.vmstated("host1", broken=",".join(["examiner-pauses"] + ([switch] if switch else [])))
    host.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", os.path.join(scene.work, "store"), "--keep", "3", "--not-durable", "--slots", "16")
    return host, guest, set(one_compared(host, guest, scene)[1])


def control(scene, switch, where):
    if switch == "overflow-ignored":
        host, guest, wrong = overflowing(scene, switch)
    else:
        disk = scene.vhost()
        guest = scene.guest("source", disk)
        guest.wait_working()
        host = scene.vmstated("host1", broken=switch if where == "vmstated" else None)
        host.run("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", os.path.join(scene.work, "store"), "--keep", "3", "--not-durable")
        wrong = set()
    for _ in range(20):
        if wrong:
            break
        if switch == "overflow-ignored":
            wait_overflow(scene)
        else:
            time.sleep(0.5)
        wrong |= set(one_compared(host, guest, scene)[1])
    expect(wrong, f"with {switch} no page differs in 20 checkpoints: the comparison can't fail")
    print(f"{switch}: {len(wrong)} pages differ, as they must", flush=True)
    if switch == "dma-range-unrecorded":
        blocks = {p // 16 for p in wrong}
        expect(len(blocks) == 1, f"pages of {len(blocks)} ranges of 64 KiB differ, not of one: {sorted(wrong)[:20]}")


def killed(scene, count=5):
    """luge-vmstated is killed within pauses: the next one lets the guest run; what was being handed over it holds until somebody decides."""
    disk = scene.vhost()
    guest = scene.guest("source", disk)
    guest.wait_working()
    note = os.path.join(scene.work, "host1", "paused", "vm.json")
    protect = ("protect", "vm", "--qmp", guest.qmp, "--disk", disk, "--to", os.path.join(scene.work, "store"), "--not-durable")
    within = 0
    for i in range(count):
        host = scene.vmstated("host1")
        host.run(*protect, "--every", "100ms")
        deadline = time.time() + 60
        while not os.path.exists(note):
            expect(time.time() < deadline, "a checkpoint pauses the guest")
        time.sleep(0.004 * i)
        host.kill()
        within += os.path.exists(note)
    expect(within, f"one of {count} kills within a pause")
    guest.monitor.run("stop")
    with open(f"/proc/{guest.process.pid}/stat") as f:
        started = int(f.read().rpartition(")")[2].split()[19])
    with open(note, "w") as f:
        json.dump({"qmp": guest.qmp, "process": guest.process.pid, "started": started, "state": "handing over"}, f)
    host = scene.vmstated("host1")
    here = host.run("status")["protected"]
    expect([m["state"] for m in here] == ["unknown"], f"it is held: {here}")
    try:
        host.run(*protect)
        expect(False, "a guest that may run elsewhere is protected")
    except CheckFailed as e:
        expect("release" in str(e), f"it says what to do: {e}")
    expect(not guest.monitor.run("query-status")["running"], "it stands still")
    host.run("release", "vm")
    passes = guest.counts()[0]
    guest.wait_counts(lambda c: c[0] > passes, "the guest goes on")
    host.run(*protect)
    host.run("checkpoint", "vm")
    expect(guest.counts()[4] == 0, f"the guest found {guest.counts()[4]} bad blocks")
    print(f"{count} kills, {within} within a pause: the guest went on after each; one that was being handed over stood still until its release", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", required=True)
    p.add_argument("--dir", required=True)
    p.add_argument("--only", default="checkpoints,migration,killed,controls")
    p.add_argument("--checkpoints", type=int, default=6)
    p.add_argument("--migrations", type=int, default=2)
    p.add_argument("--json", help="a file for the figures")
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
            if a.switch in (None, "written-blocks-ignored"):
                runs.append(("control written-blocks-ignored", lambda scene: standby(scene, True), "written-blocks-ignored"))
            runs += [(f"control {s}", lambda scene, s=s, w=w: control(scene, s, w), s if w == "attach" else None) for s, w in CONTROLS if a.switch in (None, s)]
        else:
            runs.append((name, {"checkpoints": lambda scene: checkpoints(scene, a.checkpoints), "migration": lambda scene: migration(scene, a.migrations), "standby": standby, "killed": killed, "overflows": overflows, "volume": lambda scene: volume(scene, max(a.checkpoints, 5))}[name], None))
    failed = []
    for name, run, broken in runs:
        folder = os.path.join(work, name.replace(" ", "-"))
        shutil.rmtree(folder, ignore_errors=True)
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
    if a.json:
        with open(a.json, "w") as f:
            json.dump(FIGURES, f)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
