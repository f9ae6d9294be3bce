#!/usr/bin/env python3
"""A real guest (QEMU, Debian's kernel, emulated processor) on a volume over vhost-user-blk: it checks every block that it reads, while
its attach daemon is killed again and again; and QEMU's own live migration between two attach daemons.

  tests/e2e/vhost.py --bin build/bin [--dir D] [--guest D] [--kills N] [--only NAME ...]
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest"))
import build as guest_build  # noqa: E402
from unit import CheckFailed, Unit, expect  # noqa: E402

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
                "-append", f"console=ttyS0 quiet panic=-1 load={load}", "-serial", f"file:{self.log}", "-no-reboot",
                "-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        if incoming:
            args += ["-incoming", f"unix:{incoming}"]
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
            unit.run("unit", "start", name)
            deadline = time.time() + 90
            while guest.writes() < before + 50:
                if time.time() > deadline or guest.process.poll() is not None:
                    raise CheckFailed("reconnect", f"after kill {i + 1} the guest stands still: {guest.text()[-300:]} {open(guest.errors).read()[-300:]}")
                time.sleep(0.2)
        reads, writes = guest.finish(seconds + 240)
        with open(os.path.join(unit.dir, name, "log")) as log:
            replayed = sum(map(int, re.findall(r"(\d+) requests of before are done again", log.read())))
        print(f"kill -9 of the attach daemon {a.kills} times under load: {reads} reads and {writes} writes of the guest, none wrong"
              f" ({replayed} requests done again)", flush=True)
    finally:
        guest.kill()
        unit.run("detach", "vm", check=False)


def second_daemon(unit, work):
    """another attach daemon of the unit, as on another host: the process"""
    config = open(os.path.join(unit.dir, "attach-1", "config.toml")).read()
    number = re.search(r"unit = (\d+)", config).group(1)
    control = re.search(r'control = "([^"]+)"', config).group(1)
    program = os.path.join(os.path.dirname(unit.luge) if "LUGE_BREAK" not in unit.env else os.path.join(os.path.dirname(os.path.dirname(unit.luge)), "sabotage"), "luge-attach")
    log = open(os.path.join(work, "attach-2.log"), "a")
    return subprocess.Popen([program, "--name", "attach-2", "--id", "950", "--dir", os.path.join(work, "attach-2"), "--unit", number, "--control", control],
                            stdout=log, stderr=log, env=unit.env)


def migrate(source, target_socket, seconds):
    """QEMU's own live migration to its end: passes, downtime in ms, MiB sent"""
    source.qmp("migrate-set-parameters", **{"max-bandwidth": 400 * MIB, "downtime-limit": 100})
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
    daemon = second_daemon(unit, work)
    unit.run("volume", "create", "mv", "--size", "64MiB", "--layout", "2+1")
    sockets = {n: os.path.join(work, f"mv-{n}.sock") for n in ("attach-1", "attach-2")}
    here, there = "attach-1", "attach-2"
    guest, figures = None, []
    try:
        unit.wait("the second daemon", lambda: any(n["name"] == "attach-2" for n in unit.json("status")["nodes"]), 30)
        unit.run("attach", "mv", "--vhost-user", f"unix:{sockets[here]}", "--node", here)
        seconds = 20 + 10 * a.migrations
        load = f"{32 * MIB},{seconds},4"
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
        print(f"{len(figures)} live migrations under load: {reads} reads and {writes} writes, none wrong; downtime {downtime[len(downtime) // 2]} ms in the median,"
              f" {downtime[-1]} ms at most; passes {[f[0] for f in figures]}, {sum(f[2] for f in figures) / len(figures):.0f} MiB each", flush=True)
    finally:
        if guest:
            guest.kill()
        unit.run("detach", "mv", check=False)
        daemon.terminate()
        daemon.wait(30)


SCENARIOS = {"kills": kills, "migration": migration}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir")
    parser.add_argument("--guest", help="where the guest's kernel and initrd are, or are made; default: in --dir")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--migrations", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS))
    a = parser.parse_args()
    work = os.path.abspath(a.dir or tempfile.mkdtemp(prefix="luge-vhost-"))
    os.makedirs(work, exist_ok=True)
    a.guest = os.path.abspath(a.guest or os.path.join(work, "guest"))
    guest_build.build(a.guest)
    unit = Unit(os.path.join(work, "unit"), os.path.abspath(a.bin), SHAPE)
    try:
        unit.run("unit", "up", "--dir", unit.dir, *unit.up_args)
        for name in a.only or SCENARIOS:
            SCENARIOS[name](unit, work, a)
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
