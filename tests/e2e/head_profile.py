#!/usr/bin/env python3
"""Where a head's processor is while its volume is flushed, by `perf`: nowhere in the erasure code if sleds code, and there if it codes itself.

  tests/e2e/head_profile.py --bin build/bin --dir D

The second run is what shows that the first could have failed. Needs perf (package linux-perf) and the right to use it; without, exit code 77.
"""
import argparse
import os
import random
import re
import shutil
import sys
import tempfile

from unit import CheckFailed, Unit, command

MIB = 1 << 20
BYTES = 96 * MIB
CODING = re.compile(r"\b(ec_encode_data|ec_init_tables|gf_\w*(vect|mul|inv)|_?gf_\d?vect)\w*|[Ii]salCoder")


def usable():
    with tempfile.TemporaryDirectory() as d:
        try:
            command(["perf", "record", "-q", "-e", "cpu-clock", "-o", os.path.join(d, "p"), "--", "true"], timeout=30)
        except (CheckFailed, FileNotFoundError):
            return False
    return True


def profile(options, coding):
    """(samples of all heads during a flush, those of them in the erasure code, bytes that the heads say they coded)."""
    work = os.path.join(options.dir, coding)
    os.makedirs(work)
    unit = Unit(os.path.join(work, "u"), options.bin, ["--heads", "3", "--sleds", "6", "--devices", "1", "--device-bytes", "512MiB", "--coding", coding])
    image = os.path.join(work, "image")
    with open(image, "wb") as f:
        f.write(random.Random(6).randbytes(BYTES))
    try:
        unit.run("unit", "up", *unit.up_args, timeout=300)
        unit.run("volume", "create", "v", "--size", f"{BYTES // MIB}MiB", "--layout", "4+2")
        unit.wait("the volume opens", lambda: unit.volume("v")["state"] == "open", 60)
        unit.run("attach", "v", "--nbd", f"unix:{work}/v.s")
        heads = [n["pid"] for n in unit.json("status")["nodes"] if n["role"] == "head"]
        data = os.path.join(work, "perf.data")
        inner = f"nbdcopy {image} 'nbd+unix:///v?socket={work}/v.s' && {unit.luge} volume flush v --wait"
        command(["perf", "record", "-q", "-e", "cpu-clock", "-F", "5000", "-o", data, "-p", ",".join(map(str, heads)), "--", "sh", "-c", inner], env=unit.env, timeout=300)
        report = command(["perf", "report", "-i", data, "--stdio", "-F", "sample,dso,symbol", "--percent-limit", "0"], timeout=120)
        coded = sum(n.get("coded_bytes", 0) for n in unit.json("status")["nodes"] if n["role"] == "head")
    finally:
        unit.run("unit", "down", check=False)
    lines = [line for line in report.splitlines() if line and line[0] != "#"]
    count = lambda some: sum(int(line.split()[0]) for line in some)
    found = [line for line in lines if CODING.search(line)]
    for line in found[:4]:
        print(f"  {coding}: {' '.join(line.split())}")
    shutil.rmtree(work)
    return count(lines), count(found), coded


# Requirement: FL-19
def check(options):
    samples, in_code, coded = profile(options, "isal")
    print(f"sleds code: {samples} samples of the heads, {in_code} in the erasure code; {coded} bytes coded by heads")
    if in_code or coded or samples < 100:
        raise CheckFailed("profile", "a head codes, or was not seen at work")
    samples, in_code, coded = profile(options, "head")
    print(f"heads code: {samples} samples of the heads, {in_code} in the erasure code; {coded} bytes coded by heads")
    if not in_code or not coded:
        raise CheckFailed("profile", "what a head codes itself does not show in its profile")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", required=True)
    options = parser.parse_args()
    options.bin, options.dir = os.path.abspath(options.bin), os.path.abspath(options.dir)
    if not usable():
        print("head_profile: skipped: perf cannot record here")
        return 77
    try:
        check(options)
    except CheckFailed as e:
        print(f"head_profile: FAILED: check '{e.name}': {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
