#!/usr/bin/env python3
"""A real guest (QEMU, Debian's kernel, emulated processor) on a volume over vhost-user-blk: it checks every block that it reads, while
its attach daemon is killed again and again; and QEMU's own live migration between two attach daemons.

  tests/e2e/vhost.py --bin build/bin [--dir D] [--guest D] [--kills N] [--only NAME ...]
"""
import argparse
import json
import mmap
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest"))
import build as guest_build  # noqa: E402
from unit import CheckFailed, Unit, command, expect  # noqa: E402

MIB = 1 << 20
# Not 192 MiB: with memory of a multiple of 256 KiB QEMU 7.2 loses writes of an emulated processor in a migration.
MEMORY = 196616
QEMU = "qemu-system-x86_64"
SHAPE = ["--heads", "3", "--sleds", "3", "--devices", "1", "--device-bytes", "1GiB", "--log-bytes", "128MiB"]


class Guest:
    """One QEMU with the checker as its whole system."""

    def __init__(self, work, guest, name, vhost, load, incoming=None, queues=2):
        self.log = os.path.join(work, f"{name}.console")
        self.qmp_path = os.path.join(work, f"{name}.qmp")
        args = [QEMU, "-accel", "tcg", "-m", f"{MEMORY}K", "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none",
                "-machine", "q35,memory-backend=m", "-object", f"memory-backend-memfd,id=m,size={MEMORY}K,share=on",
                "-chardev", f"socket,id=c,path={vhost},reconnect=1", "-device", f"vhost-user-blk-pci,chardev=c,num-queues={queues}",
                "-kernel", os.path.join(guest, "vmlinuz"), "-initrd", os.path.join(guest, "initrd.gz"),
                "-append", f"console=ttyS0 quiet no_timer_check panic=-1 load={load}", "-serial", f"file:{self.log}", "-no-reboot",
                "-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        if incoming:
            args += ["-incoming", f"unix:{incoming}"]
        if os.path.exists(self.log):
            os.unlink(self.log)  # of a guest before, in a directory that was kept
        self.errors = os.path.join(work, f"{name}.stderr")
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(args, stdout=errors, stderr=errors)
        self.qmp_file = None

    def text(self):
        try:
            with open(self.log, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def wait(self, pattern, seconds):
        """the last match of the pattern on the console, as soon as there is one"""
        deadline = time.time() + seconds
        while True:
            found = re.findall(pattern, self.text())
            if found:
                return found[-1]
            if self.process.poll() is not None or time.time() > deadline:
                raise CheckFailed("guest", f"no '{pattern}' on the console within {seconds} s: ...{self.text()[-500:]} {open(self.errors).read()[-300:]}")
            time.sleep(0.1)

    def writes(self):
        found = re.findall(r"LOAD reads=\d+ writes=(\d+)", self.text())
        return int(found[-1]) if found else 0

    def qmp(self, execute, **arguments):
        if self.qmp_file is None:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(60)
            s.connect(self.qmp_path)
            self.qmp_file = s.makefile("rw")
            self.qmp_file.readline()
            self.qmp("qmp_capabilities")
        self.qmp_file.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self.qmp_file.flush()
        while True:
            answer = json.loads(self.qmp_file.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise CheckFailed("qmp", f"{execute}: {answer['error']['desc']}")

    def finish(self, seconds):
        """waits for the guest's own end, and says what it found"""
        result = self.wait(r"RESULT reads=(\d+) writes=(\d+) bad=(\d+) errors=(\d+)", seconds)
        self.wait(r"GUEST end", 120)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise CheckFailed("guest", "does not power off")
        reads, writes, bad, errors = map(int, result)
        expect(bad == 0 and errors == 0, f"the guest found {bad} wrong blocks and {errors} errors: {self.text()[-600:]}")
        expect("DISCARDED nonzero=0" in self.text(), f"a discarded range is not zeros: {self.text()[-300:]}")
        return reads, writes

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def attach_daemon(unit):
    """name and pid of the (first) attach daemon"""
    return next((n["name"], n["pid"]) for n in unit.json("status")["nodes"] if n["name"].startswith("attach"))


def kills(unit, work, a):
    """the guest's disk survives kill -9 of its attach daemon: no block lost, none written twice"""
    sock = os.path.join(work, "vm.sock")
    unit.run("volume", "create", "vm", "--size", "64MiB", "--layout", "2+1")
    unit.run("attach", "vm", "--vhost-user", f"unix:{sock}")
    seconds = 15 + 4 * a.kills
    guest = Guest(work, a.guest, "kills", sock, f"{32 * MIB},{seconds},8")
    try:
        print(f"guest: {guest.wait(r'GUEST (disk .*)', 120).strip()}", flush=True)
        guest.wait(r"LOAD reads=[1-9]", 60)
        for i in range(a.kills):
            before = guest.writes()
            name, pid = attach_daemon(unit)
            os.kill(pid, signal.SIGKILL)
            unit.wait("the daemon's end", lambda: not os.path.exists(f"/proc/{pid}"), 30)
            unit.run("unit", "start", name)
            deadline = time.time() + 90
            while guest.writes() < before + 50:
                if time.time() > deadline or guest.process.poll() is not None:
                    raise CheckFailed("reconnect", f"after kill {i + 1} the guest stands still: {guest.text()[-300:]} {open(guest.errors).read()[-300:]}")
                time.sleep(0.2)
        reads, writes = guest.finish(seconds + 240)
        with open(os.path.join(unit.dir, name, "log")) as log:
            replayed = sum(map(int, re.findall(r"(\d+) requests of before are done again", log.read())))
        FIGURES["kills"] = {"count": a.kills, "wrong": 0}  # else finish() had failed
        print(f"kill -9 of the attach daemon {a.kills} times under load: {reads} reads and {writes} writes of the guest, none wrong"
              f" ({replayed} requests done again)", flush=True)
    finally:
        guest.kill()
        unit.run("detach", "vm", check=False)


class Daemon:
    """another attach daemon of the unit, as on another host; with `broken`, one that breaks a rule on purpose"""

    def __init__(self, unit, work, name, number, broken=None, card="native"):
        config = open(os.path.join(unit.dir, "attach-1", "config.toml")).read()
        self.name = name
        program = os.path.join(os.path.dirname(unit.luge), "luge-attach")
        if broken:
            program = os.path.join(os.path.dirname(os.path.dirname(unit.luge)), "sabotage", "luge-attach")
        log = open(os.path.join(work, f"{name}.log"), "a")
        self.process = subprocess.Popen([program, "--name", name, "--id", str(number), "--dir", os.path.join(work, name), "--unit", re.search(r"unit = (\d+)", config).group(1),
                                         "--control", re.search(r'control = "([^"]+)"', config).group(1), "--card", card], stdout=log, stderr=log, env=dict(unit.env, LUGE_BREAK=broken or ""))
        unit.wait(f"the daemon {name}", lambda: any(n["name"] == name for n in unit.json("status")["nodes"]), 30)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def migrate(source, target_socket, seconds):
    """QEMU's own live migration to its end: passes, downtime in ms, MiB sent"""
    source.qmp("migrate-set-parameters", **{"max-bandwidth": 400 * MIB, "downtime-limit": 40})
    source.qmp("migrate", uri=f"unix:{target_socket}")
    deadline = time.time() + seconds
    while True:
        info = source.qmp("query-migrate")
        if info["status"] == "completed":
            return info["ram"]["dirty-sync-count"], info["downtime"], info["ram"]["transferred"] / MIB
        if info["status"] in ("failed", "cancelled") or time.time() > deadline:
            raise CheckFailed("migration", f"{info['status']}: {info.get('error-desc', '')}")
        time.sleep(0.1)


def attached_by(unit, volume):
    return unit.volume(volume)["attached_by"]


def migration(unit, work, a):
    """a guest under load moves between two attach daemons, there and back, with its disk; the volume has one holder at any time"""
    daemon = Daemon(unit, work, "attach-2", 950, card=a.card)
    unit.run("volume", "create", "mv", "--size", "64MiB", "--layout", "2+1")
    sockets = {n: os.path.join(work, f"mv-{n}.sock") for n in ("attach-1", "attach-2")}
    here, there = "attach-1", "attach-2"
    guest, figures = None, []
    try:
        unit.run("attach", "mv", "--vhost-user", f"unix:{sockets[here]}", "--node", here)
        seconds = 20 + 10 * a.migrations
        load = f"{8 * MIB},{seconds},8"
        guest = Guest(work, a.guest, "mv0", sockets[here], load)
        guest.wait(r"LOAD reads=[1-9]", 120)
        for i in range(a.migrations):
            unit.run("attach", "mv", "--vhost-user", f"unix:{sockets[there]}", "--node", there, "--incoming")
            expect(attached_by(unit, "mv") == here, "the target's end has the volume before the guest has moved")
            wire = os.path.join(work, f"mv{i}.migrate")
            target = Guest(work, a.guest, f"mv{i + 1}", sockets[there], load, incoming=wire)
            unit.wait("the target QEMU", lambda: os.path.exists(wire), 30)
            time.sleep(1)
            figures.append(migrate(guest, wire, 120))
            guest.kill()
            guest = target
            before = guest.writes()
            unit.wait("the guest's writes at the target", lambda: guest.writes() > before + 50 or "RESULT" in guest.text(), 90)
            expect(attached_by(unit, "mv") == there, f"the volume is attached by {attached_by(unit, 'mv')}, not where the guest is")
            here, there = there, here
        reads, writes = guest.finish(seconds + 240)
        downtime = sorted(f[1] for f in figures)
        FIGURES["migrations"] = {"count": len(figures), "wrong": 0, "downtime_ms": downtime[len(downtime) // 2]}
        print(f"{len(figures)} live migrations under load: {reads} reads and {writes} writes, none wrong; downtime {downtime[len(downtime) // 2]} ms in the median,"
              f" {downtime[-1]} ms at most; passes {[f[0] for f in figures]}, {sum(f[2] for f in figures) / len(figures):.0f} MiB each", flush=True)
    finally:
        if guest:
            guest.kill()
        unit.run("detach", "mv", check=False)
        daemon.end()


def controls(unit, work, a):
    """with a rule of the DMA write log broken where the guest comes from, a migration damages it, and the guest finds out"""
    for i, broken in enumerate(a.controls):
        volume, daemon, guests = f"ctl{i}", Daemon(unit, work, f"attach-{i + 3}", 960 + i, broken), []
        unit.run("volume", "create", volume, "--size", "64MiB", "--layout", "2+1")
        try:
            ends = [os.path.join(work, f"{volume}-{e}.sock") for e in "ab"]
            unit.run("attach", volume, "--vhost-user", f"unix:{ends[0]}", "--node", daemon.name)
            load = f"{8 * MIB},40,8"
            guests.append(Guest(work, a.guest, f"{volume}a", ends[0], load))
            guests[0].wait(r"LOAD reads=[1-9]\d{4}", 120)
            unit.run("attach", volume, "--vhost-user", f"unix:{ends[1]}", "--node", "attach-1", "--incoming")
            wire = os.path.join(work, f"{volume}.migrate")
            guests.append(Guest(work, a.guest, f"{volume}b", ends[1], load, incoming=wire))
            unit.wait("the target QEMU", lambda: os.path.exists(wire), 30)
            time.sleep(1)
            migrate(guests[0], wire, 120)
            guests[0].kill()
            try:
                result = guests[1].wait(r"RESULT reads=\d+ writes=\d+ bad=(\d+)", 200)
                harm = f"{result} wrong blocks"
                expect(int(result) > 0, f"with {broken} the guest found nothing wrong after its migration: this test cannot fail")
            except CheckFailed as e:
                if e.name != "guest":
                    raise
                harm = "the guest did not live"
            print(f"control {broken}: {harm}", flush=True)
        finally:
            for g in guests:
                g.kill()
            unit.run("detach", volume, check=False)
            daemon.end()


def processor_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Recording:
    """a VMC that does nothing but examine: records of a disk, thrown away"""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path + ".recorder")
        self.socket.send(struct.pack("<IHHIIIIQ", 0x4352474c, 1, 1, 1, 0, 16, 0, 0))
        data, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 80)
        expect(struct.unpack_from("<H", data, 12)[0] == 0, f"the recorder refuses: {data[168:360]}")
        self.ring = mmap.mmap(descriptors[0], 0)
        for d in descriptors:
            os.close(d)
        self.on, self.first = True, 0
        self.thread = threading.Thread(target=self.examine)
        self.thread.start()

    def tail(self):
        return struct.unpack_from("<I", self.ring, 128)[0]

    def examine(self):
        while self.on:
            struct.pack_into("<I", self.ring, 64, self.tail())
            time.sleep(0.02)  # 65 536 slots are half a second at the least

    def end(self):
        self.on = False
        self.thread.join()
        state, holds = struct.unpack_from("<I", self.ring, 132)[0], struct.unpack_from("<Q", self.ring, 160)[0]
        records = self.tail() - 1
        self.socket.close()
        expect(state & 4 == 0 and holds == 0, f"the reader was too slow: {holds} writes were held back, state {state}")  # 4: overflow
        return records


def figures(unit, work, a):
    """vhost-user against NBD in turns: random 4 KiB at depth 32, requests a second and the attach daemon's processor time a request"""
    seconds, size, turns = 2, 64 * MIB, 16
    bench = os.path.join(os.path.dirname(os.path.dirname(unit.luge)), "tests", "vhost-bench")
    unit.run("volume", "create", "fig", "--size", str(size), "--layout", "2+1")

    def one(front, kind, where, pid):
        if front == "nbd":
            args = ["fio", "--name=f", "--ioengine=nbd", f"--uri=nbd+unix:///fig?socket={where}", f"--rw=rand{kind}", "--bs=4k", "--iodepth=32", f"--size={size}",
                    "--time_based", f"--runtime={seconds}", "--output-format=json"]
        else:
            args = [bench, where, kind, str(seconds), "32", str(size)]
        before = processor_seconds(pid)
        said = command(args, timeout=120)
        out = json.loads(said[said.index("{"):])
        used = processor_seconds(pid) - before
        n = out["jobs"][0][kind]["total_ios"] if front == "nbd" else out["requests"]
        return n / seconds, used / n * 1e6

    seen = {(front, kind): [] for front in ("vhost", "nbd") for kind in ("write", "read")}
    for turn in range(turns):
        front = ("vhost", "nbd", "nbd", "vhost")[turn % 4]  # a drift of the machine meets both alike
        where = os.path.join(work, f"fig-{turn}.sock")
        unit.run("attach", "fig", *(["--vhost-user", f"unix:{where}"] if front == "vhost" else ["--nbd", f"unix:{where}"]))
        for kind in ("write", "read"):
            seen[front, kind].append(one(front, kind, where, unit.pid("attach-1")))
            unit.run("volume", "flush", "fig")  # what one turn has written is not flushed beside the next
        unit.run("detach", "fig")
    for kind in ("write", "read"):
        (v, vc), (n, nc) = ([statistics.median(column) for column in zip(*seen[front, kind])] for front in ("vhost", "nbd"))
        FIGURES[f"{kind}s"] = {"against_nbd": v / n, "processor_time": vc / nc}
        print(f"{kind}s at depth 32, medians of {turns // 2} turns: vhost-user {v:.0f}/s and {vc:.1f} us of attach each, NBD {n:.0f}/s and {nc:.1f} us: "
              f"{v / n:.2f}x the requests, {vc / nc:.2f}x the processor time", flush=True)


def recording(unit, work, a):
    """what a guest's reads lose while its device's writes are recorded: 4 KiB at depth 32, recording on and off in turns"""
    seconds, turns, size = 3, 32, 64 * MIB
    where = os.path.join(work, "rec.sock")
    unit.run("volume", "create", "rec", "--size", str(size), "--layout", "2+1")
    unit.run("attach", "rec", "--vhost-user", f"unix:{where}")
    bench = os.path.join(os.path.dirname(os.path.dirname(unit.luge)), "tests", "vhost-bench")
    command([bench, where, "write", "4", "32", str(size)], timeout=60)
    guest = Guest(work, a.guest, "recording", where, f"{size},{turns * (seconds + 2) + 20},32,1")
    counts, records, spent = {False: 0, True: 0}, 0, {False: 0, True: 0}
    pid = unit.pid("attach-1")

    def lines():
        return [int(n) for n in re.findall(r"LOAD reads=(\d+)", guest.text())]

    def reads(after):
        """the guest's count when its clock has gone on by so many seconds"""
        want, deadline = len(lines()) + after, time.time() + after + 60
        while len(lines()) < want:
            expect(time.time() < deadline and guest.process.poll() is None, f"the guest stands still: {guest.text()[-300:]}")
            time.sleep(0.05)
        return lines()[want - 1]

    guest.wait(r"LOAD reads=[1-9]\d*", 240)
    for turn in range(turns):
        on = turn % 4 in (1, 2)  # a drift of the machine meets both alike
        recorder = Recording(where) if on else None
        begin, before, recorded = reads(1), processor_seconds(pid), recorder.tail() if on else 0
        done = reads(seconds) - begin
        spent[on] += processor_seconds(pid) - before
        expect(done > 0, f"the guest's disk stands still with recording {'on' if on else 'off'}: {open(guest.errors).read()[-300:]}")
        counts[on] += done
        if on:
            records += recorder.tail() - recorded
            recorder.end()
    guest.finish(240)
    expect(records > counts[True], f"{records} records of {counts[True]} reads: nothing was recorded")
    FIGURES["guest_recording"] = {"ratio": counts[True] / counts[False], "reads_per_second": counts[False] / (turns / 2 * seconds), "records_per_read": records / counts[True]}
    cost = {on: spent[on] / counts[on] * 1e6 for on in counts}
    print(f"a guest's reads with recording on: {counts[True] / counts[False]:.3f}x those with it off, {counts[False] / (turns / 2 * seconds):.0f} a second; "
          f"of the attach daemon {cost[True]:.1f} us and {cost[False]:.1f} us a read; {records / counts[True]:.2f} records a read", flush=True)


FIGURES = {}  # what --json writes
SCENARIOS = {"kills": kills, "migration": migration, "controls": controls, "figures": figures, "recording": recording}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir")
    parser.add_argument("--guest", help="where the guest's kernel and initrd are, or are made; default: in --dir")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--migrations", type=int, default=2)
    parser.add_argument("--card", default="native", help="of one of the two attach daemons in the migrations: native, or rtl (LUGE_XRT names the tree)")
    parser.add_argument("--controls", nargs="*", default=["dma-unrecorded"], help="switches that are each to be found")
    parser.add_argument("--json", help="a file for the figures")
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS))
    a = parser.parse_args()
    work = os.path.abspath(a.dir or tempfile.mkdtemp(prefix="luge-vhost-"))
    os.makedirs(work, exist_ok=True)
    a.guest = os.path.abspath(a.guest or os.path.join(work, "guest"))
    guest_build.build(a.guest)
    unit = Unit(os.path.join(work, "unit"), os.path.abspath(a.bin), SHAPE)
    try:
        unit.run("unit", "up", "--dir", unit.dir, *unit.up_args)
        for name in a.only or [n for n in SCENARIOS if n not in ("figures", "recording")]:
            SCENARIOS[name](unit, work, a)
        if a.json:
            with open(a.json, "w") as f:
                json.dump(FIGURES, f)
        return 0
    except CheckFailed as e:
        print(f"failed check: {e.name}: {e}")
        return 1
    finally:
        subprocess.run([unit.luge, "unit", "down", "--dir", unit.dir], capture_output=True)
        if not a.dir:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
