"""What the scripts with virtual machines share: a QEMU on a Luge disk, a luge-vmstated, and comparisons made with cmp(1)."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from unit import CheckFailed, command, expect  # noqa: E402

# A multiple of 8 KiB, but not of 256 KiB: QEMU 7.2's TCG loses processor writes of its own migration else (docs/vm-replication.md).
MEMORY_KIB = 196616
READ_AREA = 64 << 20
DISK = 128 << 20
POOL_MIB = 48
QEMU = "qemu-system-x86_64"


def missing(bin_dir, guest_check):
    """Why no guest can be run here; None: it can."""
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed (Debian package qemu-system-x86)"
    for path in (os.path.join(bin_dir, "luge-vmstated"), os.path.join(bin_dir, "luge-dirty-shim.so"), guest_check):
        if not os.path.exists(path):
            return f"{path} is not built"
    if not os.path.exists("/bin/busybox"):
        return "/bin/busybox is not installed (Debian package busybox-static)"
    return None


class Monitor:
    """QEMU's monitor, a second one beside luge-vmstated's."""

    def __init__(self, path, seconds=20):
        deadline = time.time() + seconds
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
                if time.time() > deadline:
                    raise CheckFailed("qemu", f"{path}: QEMU's monitor isn't there")
                time.sleep(0.05)
        self.socket.settimeout(30)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.run("qmp_capabilities")

    def run(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise CheckFailed("qemu", f"{name}: QEMU has gone")
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise CheckFailed("qemu", f"{name}: {answer['error']['desc']}")


class Guest:
    """A QEMU with the checking guest. `memory`: file of its memory; `waits`: for a migration or a restored checkpoint."""

    def __init__(self, directory, bin_dir, images, disk, memory, waits=False, shim=True):
        os.makedirs(directory, exist_ok=True)
        self.dir, self.memory, self.disk = directory, memory, disk
        self.qmp, self.own_qmp, self.console = (os.path.join(directory, n) for n in ("qmp.sock", "test-qmp.sock", "console"))
        env = dict(os.environ)
        env.pop("LUGE_BREAK", None)
        if shim:
            env["LD_PRELOAD"] = os.path.join(bin_dir, "luge-dirty-shim.so")
        args = [QEMU, "-accel", "tcg", "-m", f"{MEMORY_KIB}K", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,memory-backend=m",
                "-object", f"memory-backend-file,id=m,size={MEMORY_KIB}K,mem-path={memory},share=on", "-chardev", f"socket,id=c,path={disk},reconnect=1",
                "-device", "vhost-user-blk-pci,chardev=c,num-queues=1", "-kernel", os.path.join(images, "vmlinuz"), "-initrd", os.path.join(images, "initrd.gz"),
                "-append", f"console=ttyS0 quiet no_timer_check area={READ_AREA} pool={POOL_MIB}", "-serial", f"file:{self.console}",
                "-qmp", f"unix:{self.qmp},server=on,wait=off", "-qmp", f"unix:{self.own_qmp},server=on,wait=off"]
        if waits:
            args += ["-incoming", "defer"]
        self.log = open(os.path.join(directory, "qemu.log"), "ab")
        self.process = subprocess.Popen(args, env=env, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self._monitor = None

    @property
    def monitor(self):
        if self._monitor is None:
            self._monitor = Monitor(self.own_qmp)
        return self._monitor

    def lines(self):
        try:
            with open(self.console, errors="replace") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def counts(self):
        """(lines, reads, writes, passes, bad) as the guest said last."""
        said = [re.match(r"check (\d+) reads (\d+) writes (\d+) passes (\d+) bad (\d+)", line) for line in self.lines()]
        said = [m for m in said if m]
        return (len(said), *(int(g) for g in said[-1].groups()[1:])) if said else (0, 0, 0, 0, 0)

    def alive(self):
        return self.process.poll() is None

    def wait_counts(self, predicate, what, seconds=120):
        deadline = time.time() + seconds
        while not predicate(self.counts()):
            if not self.alive():
                raise CheckFailed("guest", f"{what}: QEMU ended with {self.process.returncode}: {self.tail()}")
            if any("Kernel panic" in line for line in self.lines()[-5:]):
                raise CheckFailed("guest", f"{what}: its kernel has ended: {self.lines()[-3:]}")
            if time.time() > deadline:
                raise CheckFailed("guest", f"{what}: not within {seconds} s; the guest said last: {self.lines()[-3:]}")
            time.sleep(0.1)
        return self.counts()

    def wait_working(self, seconds=400):
        """Until the pool is full of what the disk wrote, and more."""
        return self.wait_counts(lambda c: c[1] > 1500 and c[2] > 150, "the guest reads and writes", seconds)

    def wait_passes(self, more=2, seconds=400):
        """Until it has looked at all of its memory `more` times from now on."""
        begin = self.counts()[3]
        return self.wait_counts(lambda c: c[3] >= begin + more, "the guest verifies its memory", seconds)

    def tail(self):
        with open(os.path.join(self.dir, "qemu.log"), errors="replace") as f:
            return f.read()[-400:]

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        self.log.close()


class Vmstated:
    """The luge-vmstated of one host."""

    def __init__(self, directory, bin_dir, listen=None, broken=None, keep=4, more=()):
        self.dir, self.luge = directory, os.path.join(bin_dir, "luge")
        os.makedirs(directory, exist_ok=True)
        env = dict(os.environ)
        program = os.path.join(bin_dir, "luge-vmstated")
        if broken:
            env["LUGE_BREAK"] = broken
            program = os.path.join(os.path.dirname(bin_dir), "sabotage", "luge-vmstated")
        self.socket = os.path.join(directory, "control.sock")
        self.log = open(os.path.join(directory, "vmstated.log"), "ab")
        args = [program, "--dir", directory, "--keep", str(keep), *more]
        if listen:
            args += ["--listen", listen]
        self.process = subprocess.Popen(args, env=env, stdout=self.log, stderr=self.log)
        deadline = time.time() + 30
        while True:
            try:
                self.run("status")
                return
            except CheckFailed:
                if self.process.poll() is not None or time.time() > deadline:
                    raise
                time.sleep(0.1)

    def run(self, *args, timeout=300):
        return json.loads(command([self.luge, "--json", "vm", *args, "--vmstated", self.socket], timeout=timeout, name="luge-vm"))

    def kill(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()
        self.log.close()


def differing_pages(a, b):
    """Numbers of the 4 KiB pages in which two files differ, found by cmp(1)."""
    expect(os.path.getsize(a) == os.path.getsize(b), f"{a} and {b} have different sizes")
    done = subprocess.run(["cmp", "-l", a, b], stdout=subprocess.PIPE, text=True)
    expect(done.returncode in (0, 1), f"cmp {a} {b}: exit code {done.returncode}")
    pages = set()
    for line in done.stdout.splitlines():
        pages.add((int(line.split(None, 1)[0]) - 1) // 4096)
    return sorted(pages)


def make_disk(path, guest_check):
    command([guest_check, "fill", path, str(READ_AREA)])
    os.truncate(path, DISK)
