#!/usr/bin/env python3
"""The controllers of a unit's cards are reset, hang and lose their power while clients write and read: no byte is wrong, no write is lost, every card is back.

  tests/e2e/controllers.py --build build --dir D [--resets N] [--controller rv32|native] [--within N] [--twin] [--report FILE]

resets:    every controller is reset before a random instruction, again and again. Jobs of the ring do not pass it: no card may miss one.
hang:      every controller stops until its watchdog resets it, and says so.
brown-out: controllers lose their power, and their cards with them: the sleds code meanwhile, and open the cards anew.

All the while luge-recorder writes and reads a volume, and its history must be linearizable block by block; fio writes to the same volume and verifies;
another volume is read again and again with a sled dead, so that its blocks are decoded with tables that the firmware makes, and compared.
--twin: firmware that does not see that a host has the ring tests the card under its jobs: then a check must fail, and its name is said.
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from coding import coders, wait_open
from unit import CheckFailed, Unit, command

SLEDS, DEAD = 7, "sled-7"
MIB = 1 << 20
COLD_BYTES, RECORDED_FROM = 16 * MIB, 96 * MIB


class Controllers:
    def __init__(self, options):
        self.options = options
        self.work = os.path.join(options.dir, "controllers")
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        self.unit = Unit(self.path("u"), options.bin, ["--heads", "3", "--sleds", str(SLEDS), "--devices", "1", "--card", "native"])
        self.unit.env.update(LUGE_CARD_FAULTS=self.path("faults"), LUGE_CARD_CONTROLLER=options.controller)
        if options.twin:
            self.unit.env["LUGE_CARD_OWNER_HIDDEN"] = "1"
        self.set_faults("")
        self.fio = self.recorder = None
        self.seen, self.resets, self.reads, self.lines = {}, 0, 0, []

    def path(self, name):
        return os.path.join(self.work, name)

    def uri(self, volume):
        return f"nbd+unix:///{volume}?socket={self.path(volume)}.s"

    def set_faults(self, words):
        with open(self.path("faults.new"), "w") as f:
            f.write(words)
        os.rename(self.path("faults.new"), self.path("faults"))

    def say(self, line):
        self.lines.append(line)
        print(f"controllers: {line}", flush=True)

    # ---- what is seen of the cards

    def coders(self):
        return {name: c for name, c in coders(self.unit).items() if name != DEAD}

    def total(self, *keys):
        return sum(c[k] for c in self.coders().values() for k in keys)

    def firmware(self, sled):
        """What the controller says of itself, or None while the card is being opened."""
        done = subprocess.run([self.unit.luge, "--json", "card", "info", "--sled", sled], env=self.unit.env, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def count_resets(self):
        for i in range(1, SLEDS):
            said = self.firmware(f"sled-{i}")
            if said is None:
                continue
            before, now = self.seen.get(i, said["starts"]), said["starts"]
            self.resets += now - before if now >= before else now
            self.seen[i] = now
        return self.resets

    # ---- load

    def prepare(self):
        self.unit.run("unit", "up", *self.unit.up_args, timeout=300)
        for volume, size in (("hot", "128MiB"), ("cold", f"{COLD_BYTES // MIB}MiB")):
            self.unit.run("volume", "create", volume, "--size", size, "--layout", "4+2")
            self.unit.wait(f"{volume} opens", lambda: self.unit.volume(volume)["state"] == "open", 60)
            self.unit.run("attach", volume, "--nbd", f"unix:{self.path(volume)}.s")
        wait_open(self.unit)
        if {c["state"] for c in coders(self.unit).values()} != {"healthy"}:
            raise CheckFailed("coders", f"not healthy at the start: {coders(self.unit)}")
        self.image = random.Random(8).randbytes(COLD_BYTES)
        with open(self.path("image"), "wb") as f:
            f.write(self.image)
        command(["nbdcopy", self.path("image"), self.uri("cold")], timeout=120)
        self.unit.run("volume", "flush", "cold", "--wait", timeout=120)
        self.unit.kill(DEAD)
        time.sleep(1)

    def start_load(self):
        self.fio = subprocess.Popen(["fio", "--name=controllers", "--ioengine=nbd", f"--uri={self.uri('hot')}", "--rw=randwrite", "--bs=16k", "--iodepth=8", "--size=64m",
                                     "--rate=2m", "--io_size=64g", "--runtime=3600", "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--randseed=5"],
                                    cwd=self.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.recorder = subprocess.Popen([os.path.join(self.options.build, "tests", "luge-recorder"), "--uri", self.uri("hot"), "--for", "3600s", "--patience", "60s", "--first-block",
                                          str(RECORDED_FROM // 4096), "--blocks", "64", "--pause-us", "20000", "--seed", "6"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def alive(self):
        for name, p in (("fio", self.fio), ("recorder", self.recorder)):
            if p.poll() is not None:
                raise CheckFailed(name, f"{name} ended with {p.returncode}: {p.stderr.read()[-400:]}")

    def turn(self):
        """Encodes what was written, decodes what lies on the dead sled. Not --wait: a writer that goes on always leaves something."""
        self.unit.run("volume", "flush", "hot", timeout=120)
        self.read_cold()
        self.alive()

    def read_cold(self):
        command(["nbdcopy", self.uri("cold"), self.path("read")], timeout=120)
        with open(self.path("read"), "rb") as f:
            if f.read() != self.image:
                raise CheckFailed("wrong-bytes", "other bytes were read with a sled dead than were written")
        self.reads += 1

    def in_service(self, name):
        """Every card codes again, and its firmware is ready."""
        self.unit.wait(f"{name}: all cards in service", lambda: all(c["state"] in ("healthy", "suspect") for c in self.coders().values()), 120)
        self.unit.wait(f"{name}: the firmware of all cards is ready", lambda: all((f := self.firmware(f"sled-{i}")) and f["state"] == "ready" for i in range(1, SLEDS)), 60)
        jobs = self.total("device_jobs")
        self.unit.wait(f"{name}: the cards code", lambda: self.turn() or self.total("device_jobs") > jobs, 60)
        if self.total("wrong"):
            raise CheckFailed("wrong-parity", f"{name}: a card's parity was wrong: {self.coders()}")

    # ---- phases

    def reset_all(self):
        self.count_resets()
        before = self.total("hung", "refused", "software_jobs")
        tables = sum(self.telemetry("tables_made"))
        begin = time.time()
        self.set_faults(f"controller-reset {self.options.within}")
        while self.count_resets() < self.options.resets or time.time() - begin < 20:
            self.turn()
            if time.time() - begin > 60 + 3 * self.options.resets:
                raise CheckFailed("resets", f"only {self.resets} resets in {time.time() - begin:.0f} s")
        self.set_faults("")
        time.sleep(1.5)  # reports come with the pings
        missed = self.total("hung", "refused", "software_jobs") - before
        if missed:
            raise CheckFailed("missed", f"a card whose controller is reset missed {missed} jobs: {[(n, c['state'], c['last_fault']) for n, c in self.coders().items()]}")
        self.in_service("resets")
        self.say(f"{self.resets} resets of 6 controllers ({self.options.controller}) before random instructions in {time.time() - begin:.0f} s of fio, recorder and {self.reads} reads with a sled dead: "
                 f"{self.total('device_jobs')} jobs by cards, none missed, no byte wrong")

    def telemetry(self, name):
        return [json.loads(self.unit.run("--json", "card", "telemetry", "--sled", f"sled-{i}"))[name] for i in range(1, SLEDS)]

    def hang_all(self):
        self.set_faults("controller-hang")
        begin = time.time()
        while time.time() - begin < 5:  # a simulator looks several times a second, if it has work
            self.turn()
        self.set_faults("")

        def reset_by_watchdog():
            self.turn()
            return all((f := self.firmware(f"sled-{i}")) and f["last_fault"].startswith("watchdog") for i in range(1, SLEDS))
        self.unit.wait("every watchdog has reset its controller", reset_by_watchdog, 120)
        self.in_service("hang")
        self.say("every controller hung and was reset by its watchdog, which is its last fault; no byte wrong")

    def brown_out(self):
        before = self.total("hung", "refused")
        self.set_faults(f"controller-brown-out {self.options.within}")
        begin = time.time()
        while self.total("hung", "refused") - before < 6:
            self.turn()
            if time.time() - begin > 180:
                raise CheckFailed("noticed", f"no sled has noticed that its card lost its power: {self.coders()}")
        self.set_faults("")
        self.in_service("brown-out")
        self.say(f"cards lost their power: noticed {self.total('hung', 'refused') - before} times, opened anew, in service again; no byte wrong")

    def end_load(self):
        """What the clients say, and every byte again, cold."""
        self.alive()
        self.fio.send_signal(signal.SIGINT)
        self.recorder.send_signal(signal.SIGTERM)
        out, err = self.recorder.communicate(timeout=120)
        if self.recorder.returncode != 0:
            raise CheckFailed("lost-writes", f"luge-recorder: code {self.recorder.returncode}: {out[-300:]}{err[-600:]}")
        self.fio.wait(timeout=60)
        if self.fio.returncode not in (0, 128):  # 128: interrupted, without an error before
            raise CheckFailed("fio", f"fio ended with {self.fio.returncode}: {self.fio.stderr.read()[-300:]}")
        self.unit.run("volume", "flush", "hot", "--wait", timeout=120)
        self.unit.run("unit", "restart", "--role", "head", timeout=120)
        self.unit.wait("open again", lambda: all(self.unit.volume(v)["state"] == "open" for v in ("hot", "cold")), 60)
        self.read_cold()
        # Reports come with the pings. Not within this: the sled that is dead held nothing.
        self.unit.wait("what the dead sled held is decoded", lambda: self.unit.volume("cold")["read_bytes"]["reconstructed"], 10)
        rebuilt = self.unit.volume("cold")["read_bytes"]["reconstructed"]
        recorded = json.loads(out)
        self.say(f"recorder: {recorded['answered']} reads and writes linearizable, 0 lost; fio: 0 errors; {rebuilt} bytes rebuilt in the last read")

    # Requirement: CF-09, P-8.7
    def run(self):
        try:
            self.prepare()
            self.start_load()
            self.reset_all()
            self.hang_all()
            self.brown_out()
            self.end_load()
        finally:
            for p in (self.fio, self.recorder):
                if p is not None and p.poll() is None:
                    p.kill()
            self.set_faults("")
            self.unit.run("unit", "down", check=False)
        shutil.rmtree(self.work)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--resets", type=int, default=60, help="of all controllers together")
    parser.add_argument("--within", type=int, default=1500000, help="a controller is reset before one of so many instructions after its last reset")
    parser.add_argument("--controller", choices=("rv32", "native"), default="rv32")
    parser.add_argument("--twin", action="store_true")
    parser.add_argument("--report", help="file that the result is written to as JSON")
    options = parser.parse_args()
    options.build, options.dir = os.path.abspath(options.build), os.path.abspath(options.dir)
    options.bin = os.path.join(options.build, "bin")
    begin, failed, bench = time.time(), None, Controllers(options)
    try:
        bench.run()
    except CheckFailed as e:
        failed = e
        print(f"controllers: FAILED: check '{e.name}': {e}")
    if options.report:
        with open(options.report, "w") as f:
            json.dump({"ok": failed is None, "failed_check": failed and failed.name, "lines": bench.lines, "seconds": round(time.time() - begin, 1)}, f, indent=2)
    if options.twin:
        print(f"controllers: the twin is {'caught by ' + failed.name if failed else 'NOT caught'}")
        return 0 if failed else 1
    if failed:
        return 1
    print(f"controllers: all held, {time.time() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
