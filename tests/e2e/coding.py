#!/usr/bin/env python3
"""Who codes makes no difference: the same input gives the same stripes on the sleds, and a card that hangs, dies or lies under load costs
no client an error.

  tests/e2e/coding.py --bin build/bin --dir D [--only same|faults|rare] [--rtl]

`same`: the processor, the native card, an OpenCL device, the native card through XRT's OpenCL and, with --rtl, the verilated card both ways; chunks are read from the device files and
compared with each other and with the code's definition (docs/formats.md), computed here.
`faults`: fio writes and verifies while flushes go on and the sleds' simulators are stopped, killed, made to lie and to answer with bus errors.
`rare`: one stripe in 1000 comes wrong from a card: found before it is stored with verify = all; with a sample, never read.
"""
import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

from unit import CheckFailed, Unit, command

MIB = 1 << 20
BLOCK = 4096
HEAD = struct.Struct("<IHBBIIQQQQQIHHHHI")  # host/coding/chunk_header.hpp


def gf_tables():
    """table[c]: a byte string that bytes.translate() takes to multiply by c in GF(2^8)/0x11D."""
    def times(a, b):
        r = 0
        while b:
            if b & 1:
                r ^= a
            a = a << 1 ^ (0x11D if a & 0x80 else 0)
            b >>= 1
        return r
    return [bytes(times(c, x) for x in range(256)) for c in range(256)]


GF = gf_tables()
INVERSE = {c: GF[c].index(1) for c in range(1, 256)}


def parity_of(data, k, row):
    total = 0
    for j in range(k):
        total ^= int.from_bytes(data[j].translate(GF[INVERSE[row ^ j]]), "little")
    return total.to_bytes(len(data[0]), "little")


def chunks_of(path):
    """(stripe id, layout, chunk index, bytes) of every written slot of a sled's device."""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        at = MIB
        while at < size:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                return
            head = os.pread(f.fileno(), HEAD.size, at)
            magic, _, state, _, header, _, _, vp, epoch, counter, _, chunk, k, m, index, _, _ = HEAD.unpack(head)
            if magic != 0x4B48434C or state != 1:
                at += BLOCK
                continue
            yield (vp, epoch, counter), (k, m), index, os.pread(f.fileno(), chunk, at + header)
            at += header + chunk


def stripes_of(unit_dir, sleds):
    found = {}
    for s in range(1, sleds + 1):
        folder = os.path.join(unit_dir, f"sled-{s}")
        for name in sorted(os.listdir(folder)):
            if name.startswith("device-"):
                for stripe, layout, index, content in chunks_of(os.path.join(folder, name)):
                    found.setdefault((stripe, layout), {})[index] = content
    return found


def coders(unit):
    return {n["name"]: n["coding"] for n in unit.json("status")["nodes"] if n["role"] == "sled" and "coding" in n}


def wait_open(unit):
    """Until every sled's card or OpenCL device has been opened, well or not."""
    unit.wait("the coders open", lambda: (c := coders(unit)) and all(x["state"] != "opening" for x in c.values()), 60)


def total(unit, key):
    return sum(c[key] for c in coders(unit).values())


class Same:
    SLEDS, BYTES = 6, 12 * MIB

    def __init__(self, options):
        self.options = options

    def card_environment(self, kind):
        """In which a sled's OpenCL loader finds the emulated card, by XRT's own OpenCL."""
        text = command([os.path.join(self.options.bin, "luge"), "card", "env", kind])
        return dict(re.findall(r"^export (\w+)='(.*)'$", text, re.M), SDACCEL_EM_RUN_DIR=self.options.dir)

    def one(self, name, arguments, environment):
        """Writes the same bytes in the same order, flushes, and returns {hash of a stripe's data: hashes of its parity}."""
        work = os.path.join(self.options.dir, name)
        os.makedirs(work)
        unit = Unit(os.path.join(work, "u"), self.options.bin, ["--heads", "3", "--sleds", str(self.SLEDS), "--devices", "1", "--device-bytes", "256MiB",
                                                               "--log-bytes", "64MiB", *arguments])
        unit.env.update(environment)
        image = os.path.join(work, "image")
        with open(image, "wb") as f:
            f.write(random.Random(5).randbytes(self.BYTES))
        try:
            unit.run("unit", "up", *unit.up_args, timeout=300)
            unit.run("volume", "create", "v", "--size", "64MiB", "--layout", "4+2")
            unit.wait("the volume opens", lambda: unit.volume("v")["state"] == "open", 60)
            unit.run("attach", "v", "--nbd", f"unix:{work}/v.s")
            device = name not in ("none", "head")
            if device:
                wait_open(unit)
            # Six verilated cards test themselves at once: one that is late on a slow machine is out, and tested again.
            wanted = {"healthy", "suspect"} if "rtl" in name else {"healthy"}
            if "rtl" in name:
                unit.wait("all cards are in service", lambda: {c["state"] for c in coders(unit).values()} <= wanted, 120)
            states = {c["state"] for c in coders(unit).values()}
            if device and not states <= wanted:
                raise CheckFailed("coders", f"{name}: {coders(unit)}")
            command(["nbdcopy", "--connections=1", "--requests=1", "--request-size=65536", image, f"nbd+unix:///v?socket={work}/v.s"], timeout=120)
            unit.run("volume", "flush", "v", "--wait", timeout=300)
            time.sleep(1.5)  # reports come with the pings
            seen = coders(unit)
            heads = sum(n.get("coded_bytes", 0) for n in unit.json("status")["nodes"] if n["role"] == "head")
        finally:
            unit.run("unit", "down", check=False)
        stripes = stripes_of(unit.dir, self.SLEDS)
        self.judge_counters(name, seen, len(stripes))
        by_heads = sum(k * len(c[0]) for (_, (k, _)), c in stripes.items()) if name == "head" else 0
        if heads != by_heads:
            raise CheckFailed("counters", f"{name}: the heads say that they coded {heads} bytes, the sleds have {by_heads} that they must have coded")
        result = {}
        for (stripe, (k, m)), chunks in stripes.items():
            if sorted(chunks) != list(range(k + m)):
                raise CheckFailed("stripes", f"{name}: stripe {stripe} has chunks {sorted(chunks)} on the sleds")
            data = [chunks[i] for i in range(k)]
            for row in range(k, k + m):
                if chunks[row] != parity_of(data, k, row):
                    raise CheckFailed("parity", f"{name}: chunk {row} of stripe {stripe} is not what the code says")
            result[hashlib.sha256(b"".join(data)).hexdigest()] = [hashlib.sha256(chunks[i]).hexdigest() for i in range(k, k + m)]
        shutil.rmtree(work)
        return result

    @staticmethod
    def judge_counters(name, seen, stripes):
        jobs = sum(c["device_jobs"] for c in seen.values())
        software = sum(c["software_jobs"] for c in seen.values())
        wanted = {"none": (0, stripes), "head": (0, 0)}.get(name, (stripes, 0))
        if (jobs, software) != wanted or stripes < Same.BYTES // (512 << 10):
            raise CheckFailed("counters", f"{name}: {stripes} stripes on the sleds, {jobs} coded by the device, {software} by software: {seen}")

    # Requirement: FL-19
    def run(self):
        on_card = ["--coding", "opencl:luge_emulation"]
        kinds = {"none": ([], {}), "native": (["--card", "native"], {}), "opencl": (["--coding", "opencl"], {}), "opencl-native": (on_card, self.card_environment("native"))}
        kinds["head"] = (["--coding", "head"], {})
        if self.options.rtl:
            kinds["rtl"] = (["--card", "rtl"], {})
        if self.options.opencl_rtl:
            kinds["opencl-rtl"] = (on_card, self.card_environment("rtl"))
        results = {name: self.one(name, arguments, environment) for name, (arguments, environment) in kinds.items()}
        for name, result in results.items():
            if result != results["none"]:
                raise CheckFailed("identical", f"what {name} left on the sleds is not what the processor did: {len(result)} stripes, "
                                               f"{sum(result.get(k) == v for k, v in results['none'].items())} of {len(results['none'])} the same")
        print(f"same: {', '.join(results)}: {len(results['none'])} stripes, byte-identical, parity as the code says, no fall-back")


class Faults:
    """fio all the time; flushes all the time; the cards of all sleds are hurt, one way after the other."""
    SLEDS = 6

    def __init__(self, options):
        self.options = options
        self.work = os.path.join(options.dir, "faults")
        os.makedirs(self.work)
        self.faults = os.path.join(self.work, "card-faults")
        self.set_faults("")
        self.unit = Unit(os.path.join(self.work, "u"), options.bin, ["--heads", "3", "--sleds", str(self.SLEDS), "--devices", "1", "--card", options.card,
                                                                    "--verify", options.verify])
        self.unit.env["LUGE_CARD_FAULTS"] = self.faults
        self.fio = None

    def set_faults(self, words):
        with open(self.faults + ".new", "w") as f:
            f.write(words)
        os.rename(self.faults + ".new", self.faults)

    def simulators(self):
        """Pids of the simulators below this unit's sleds: in the process groups that their card processes lead."""
        sleds = {n["pid"] for n in self.unit.json("status")["nodes"] if n["role"] == "sled"}
        table = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as f:
                        text = f.read()
                except OSError:
                    continue
                comm, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
                table[int(name)] = (comm, int(rest[1]), int(rest[2]))
        cards = {pid for pid, (_, parent, _) in table.items() if parent in sleds}
        return [pid for pid, (comm, _, group) in table.items() if group in cards and comm.startswith("luge-card-")]

    def flush(self):
        begin = time.time()
        self.unit.run("volume", "flush", "v", "--wait", timeout=120)
        return time.time() - begin

    def healthy(self):
        return all(c["state"] != "out" for c in coders(self.unit).values())

    def hurt(self, name, hurt, heal, fault):
        """`fault`: the counter of which at least one sled must have counted one more."""
        before, software = sum(total(self.unit, f) for f in fault), total(self.unit, "software_jobs")
        hurt()
        longest, deadline = 0, time.time() + 60
        while sum(total(self.unit, f) for f in fault) == before:
            if time.time() > deadline:
                raise CheckFailed("noticed", f"{name}: no sled has noticed: {coders(self.unit)}")
            longest = max(longest, self.flush())
            self.alive()
            time.sleep(0.2)
        longest = max(longest, self.flush())
        heal()
        self.unit.wait(f"{name}: all cards code again", self.healthy, 120)
        jobs = total(self.unit, "device_jobs")
        deadline = time.time() + 60
        while total(self.unit, "device_jobs") == jobs:
            if time.time() > deadline:
                raise CheckFailed("back", f"{name}: no card has coded since it came back: {coders(self.unit)}")
            self.flush()
            time.sleep(0.2)
        self.alive()
        wait = max(c["longest_wait_ms"] for c in coders(self.unit).values())
        if wait > 3000:  # 1.8 s by the sleds' clocks; a loaded machine lets them wake late
            raise CheckFailed("fall-back", f"{name}: a job waited {wait} ms for its card")
        print(f"faults: {name}: {sum(total(self.unit, f) for f in fault) - before} noticed, {total(self.unit, 'software_jobs') - software} jobs by software, "
              f"at the card for {wait} ms at most, longest flush {longest:.1f} s, back on the cards", flush=True)

    def alive(self):
        if self.fio.poll() is not None:
            raise CheckFailed("fio", f"fio ended with {self.fio.returncode}: {self.fio.stderr.read()[-300:]}")

    def each_simulator(self, number):
        for pid in self.simulators():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    # Requirement: P-8.7
    def run(self):
        self.unit.run("unit", "up", *self.unit.up_args, timeout=300)
        try:
            self.unit.run("volume", "create", "v", "--size", "256MiB", "--layout", "4+2")
            self.unit.wait("the volume opens", lambda: self.unit.volume("v")["state"] == "open", 60)
            self.unit.run("attach", "v", "--nbd", f"unix:{self.work}/v.s")
            wait_open(self.unit)
            if {c["state"] for c in coders(self.unit).values()} != {"healthy"}:
                raise CheckFailed("coders", f"not healthy at the start: {coders(self.unit)}")
            self.fio = subprocess.Popen(["fio", "--name=faults", "--ioengine=nbd", f"--uri=nbd+unix:///v?socket={self.work}/v.s", "--rw=randwrite", "--bs=16k",
                                         "--iodepth=8", "--size=64m", "--rate=8m", "--io_size=16g", "--runtime=600", "--verify=crc32c", "--verify_backlog=256",
                                         "--verify_fatal=1", "--randseed=3"], cwd=self.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(2)
            self.flush()
            self.hurt("stopped", lambda: self.each_simulator(signal.SIGSTOP), lambda: self.each_simulator(signal.SIGCONT), ["hung", "refused"])
            self.hurt("killed", lambda: self.each_simulator(signal.SIGKILL), lambda: None, ["hung", "refused"])
            self.hurt("wrong parity, every stripe", lambda: self.set_faults("flip 1"), lambda: self.set_faults(""), ["wrong"])
            self.hurt("bus errors", lambda: self.set_faults("read-error"), lambda: self.set_faults(""), ["refused"])
            self.alive()
            self.fio.send_signal(signal.SIGINT)
            self.fio.wait(timeout=60)
            self.read_all_back()
        finally:
            if self.fio is not None and self.fio.poll() is None:
                self.fio.kill()
            self.set_faults("")
            self.unit.run("unit", "down", check=False)
        shutil.rmtree(self.work)

    def read_all_back(self):
        """Cold, and with two sleds dead: what was coded through all of it decodes."""
        uri = f"nbd+unix:///v?socket={self.work}/v.s"
        self.flush()
        before = os.path.join(self.work, "before")
        command(["nbdcopy", uri, before], timeout=120)
        self.unit.run("unit", "restart", "--role", "head", timeout=120)
        self.unit.wait("open again", lambda: self.unit.volume("v")["state"] == "open", 60)
        for sled in ("sled-2", "sled-5"):
            self.unit.kill(sled)
        time.sleep(1)
        after = os.path.join(self.work, "after")
        command(["nbdcopy", uri, after], timeout=300)
        with open(before, "rb") as a, open(after, "rb") as b:
            if hashlib.sha256(a.read()).digest() != hashlib.sha256(b.read()).digest():
                raise CheckFailed("read-back", "with two sleds dead other bytes were read")
        heads = sum(n.get("coded_bytes", 0) for n in self.unit.json("status")["nodes"] if n["role"] == "head")
        print(f"faults: read back with two sleds dead: the same bytes; coded by heads: {heads} bytes")


class Rare:
    """One stripe in a thousand comes wrong from its card. Stripes of 16 KiB, so that there are thousands of them."""
    SLEDS, BYTES, CHUNK, STRIPES_EACH = 6, 112 * MIB, 4096, 1000

    def __init__(self, options, verify):
        self.options, self.verify = options, verify
        self.work = os.path.join(options.dir, f"rare-{verify}")
        os.makedirs(self.work)
        self.unit = Unit(os.path.join(self.work, "u"), options.bin, ["--heads", "3", "--sleds", str(self.SLEDS), "--devices", "1", "--device-bytes", "512MiB",
                                                                    "--log-bytes", "256MiB", "--card", options.card, "--verify", verify])
        self.faults = os.path.join(self.work, "faults")
        with open(self.faults, "w") as f:
            f.write(f"flip-each {self.STRIPES_EACH * 2 * self.CHUNK // 64}")  # two rows of parity
        self.unit.env["LUGE_CARD_FAULTS"] = self.faults
        self.image = os.path.join(self.work, "image")

    def uri(self):
        return f"nbd+unix:///v?socket={self.work}/v.s"

    def start(self):
        self.unit.run("unit", "up", *self.unit.up_args, timeout=300)
        for head in ("head-1", "head-2", "head-3"):
            with open(os.path.join(self.unit.dir, head, "config.toml"), "a") as f:
                f.write(f'chunk-bytes = "{self.CHUNK // 1024}KiB"\n')
        self.unit.run("unit", "restart", "--role", "head", timeout=120)
        self.unit.run("volume", "create", "v", "--size", f"{self.BYTES // MIB}MiB", "--layout", "4+2")
        self.unit.wait("the volume opens", lambda: self.unit.volume("v")["state"] == "open", 60)
        self.unit.run("attach", "v", "--nbd", f"unix:{self.work}/v.s")
        wait_open(self.unit)
        with open(self.image, "wb") as f:
            f.write(random.Random(9).randbytes(self.BYTES))

    def flipped(self):
        try:
            with open(self.faults + ".flipped") as f:
                return len(f.readlines())
        except FileNotFoundError:
            return 0

    def wrong_on_sleds(self):
        """[(sleds with data chunks, row)] of each stored parity chunk that is not what the code says; and how many stripes there are."""
        found, homes = {}, {}
        for s in range(1, self.SLEDS + 1):
            for stripe, layout, index, content in chunks_of(os.path.join(self.unit.dir, f"sled-{s}", "device-0")):
                found.setdefault((stripe, layout), {})[index] = content
                homes.setdefault((stripe, layout), {})[index] = f"sled-{s}"
        wrong = []
        for (stripe, (k, m)), chunks in found.items():
            data = [chunks[i] for i in range(k)]
            wrong += [([homes[(stripe, (k, m))][i] for i in range(k)], row) for row in range(k, k + m) if chunks[row] != parity_of(data, k, row)]
        return wrong, len(found)

    # Requirement: P-8.7
    def run(self):
        try:
            self.start()
            # A card that was wrong is tested before it codes again, and a slow machine takes its time for that: as often as it needs.
            for _ in range(5):
                command(["nbdcopy", self.image, self.uri()], timeout=300)
                self.unit.run("volume", "flush", "v", check=False)
                self.unit.wait("flushed", lambda: self.unit.volume("v")["unflushed_bytes"] == 0, 400)
                if self.flipped() >= 3:
                    break
            time.sleep(1.5)  # reports come with the pings
            seen, flipped = coders(self.unit), self.flipped()
            wrong, stripes = self.wrong_on_sleds()
            told = {key: sum(c[key] for c in seen.values()) for key in ("device_jobs", "software_jobs", "compared", "wrong", "tests_failed", "hung", "refused")}
            what = f"{flipped} stripes of {stripes} came wrong from a card; {told}; wrong on the sleds: {len(wrong)}"
            if flipped < 3:
                raise CheckFailed("rare", f"too little was coded on the cards to say anything: {what}")
            if self.verify == "all":
                self.judge_all(wrong, flipped, told, what)
            else:
                self.judge_sample(wrong, what)
        finally:
            self.unit.run("unit", "down", check=False)
        shutil.rmtree(self.work)

    def judge_all(self, wrong, flipped, told, what):
        """Log space is freed when all chunks of a stripe are durable, and what was found wrong never became one."""
        if wrong or told["wrong"] + told["tests_failed"] + told["hung"] < flipped:
            raise CheckFailed("rare", f"not every one was found before it was stored: {what}")
        print(f"rare, verify = all: {what}", flush=True)

    def judge_sample(self, wrong, what):
        """Wrong parity may be stored. With a sled gone whose blocks would be rebuilt from it, no wrong byte is read."""
        if not wrong:
            raise CheckFailed("rare", f"with a sample nothing wrong was stored, so that nothing is shown: {what}")
        homes = [sled for sleds, _ in sorted(wrong, key=lambda w: w[1])[:1] for sled in sleds]
        self.unit.run("unit", "restart", "--role", "head", timeout=120)
        self.unit.wait("open again", lambda: self.unit.volume("v")["state"] == "open", 60)
        self.unit.kill(homes[0])
        time.sleep(1)
        after = os.path.join(self.work, "after")
        command(["nbdcopy", self.uri(), after], timeout=500)
        with open(self.image, "rb") as a, open(after, "rb") as b:
            if hashlib.sha256(a.read()).digest() != hashlib.sha256(b.read()).digest():
                raise CheckFailed("rare", f"other bytes were read with {homes[0]} dead: {what}")
        rebuilt = self.unit.volume("v")["read_bytes"]["reconstructed"]
        if rebuilt < self.BYTES // 20:
            raise CheckFailed("rare", f"only {rebuilt} bytes were rebuilt")
        print(f"rare, verify = sample: {what}; {rebuilt} bytes rebuilt with {homes[0]} dead, every byte right", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--only", choices=["same", "faults", "rare"])
    parser.add_argument("--rtl", action="store_true", help="also the verilated card")
    parser.add_argument("--opencl-rtl", action="store_true", help="also the verilated card through OpenCL")
    parser.add_argument("--card", default="native", help="of the faults")
    parser.add_argument("--verify", default="all", help="of the faults")
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    options.dir = os.path.abspath(options.dir)
    os.makedirs(options.dir, exist_ok=True)
    begin = time.time()
    try:
        if options.only in (None, "same"):
            Same(options).run()
        if options.only in (None, "faults"):
            Faults(options).run()
        if options.only in (None, "rare"):
            for verify in ("all", "sample"):
                Rare(options, verify).run()
    except CheckFailed as e:
        print(f"coding: FAILED: check '{e.name}': {e}")
        return 1
    print(f"coding: all held, {time.time() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
