#!/usr/bin/env python3
"""A head that is lost for good: another takes its place, while the volume serves, on real daemons.

  tests/e2e/replacement.py --bin build/bin [--dir D]

Five heads, three copies. The primary is killed for good, twice; each time another head holds everything soon after. What was
flushed does not move. A head that comes back afterwards gives its replica up. Run by ./check.
"""
import hashlib
import os
import subprocess
import sys
import time

from unit import command, expect, run_against_unit

MIB = 1 << 20
FLUSHED, FRESH = 48 * MIB, 4 * MIB
METADATA_ROOM = 64 << 10  # bytes that an image tells beside what has changed
PADDING = 8 * (32 << 10)  # so small a volume's checkpoints end in stripes that are mostly empty: a chain of eight at most


def random_file(path, size):
    with open(path, "wb") as f:
        f.write(os.urandom(size))
    return path


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def log_used(unit, name):
    return next(n["log"]["data_used"] for n in unit.json("status")["nodes"] if n["name"] == name)


def lose_the_primary(unit):
    """Seconds until three heads hold everything again; who came for it."""
    before = unit.volume("v")
    lost = before["primary"]
    unit.kill(lost)
    begin = time.time()

    def whole():
        now = unit.volume("v")
        return now["primary"] != lost and lost not in now["reserves"] and now["copies"] == 3

    unit.wait(f"another head holds what {lost} held", whole, 60)
    now = unit.volume("v")
    came = [h for h in [now["primary"], *now["reserves"]] if h not in [lost, *before["reserves"]]]
    expect(len(came) == 1, f"{came} came for {lost}")
    return lost, came[0], time.time() - begin


def judge_sources(unit, came, mapped):
    """What the newcomer was built from: the index from a checkpoint, from another head only what is newer and what is unflushed."""
    time.sleep(0.7)  # reports come with the pings
    row = unit.members("v")[came]["put_together_from"]
    print(f"  {row['checkpoint']} bytes of a checkpoint of {row['author']} to LSN {row['lsn']}; from another head {row['metadata']} of metadata for {row['records']} of records behind it, {row['unflushed']} unflushed")
    expect(row["checkpoint"] > 0 and row["index_pages"] == 0, f"{came} was built from {row} by {unit.volume('v')['primary']}")
    expect(row["checkpoint"] <= 0.003 * mapped + PADDING, f"{row['checkpoint']} bytes of checkpoints were read for {mapped} mapped")
    expect(row["metadata"] <= row["records"] + METADATA_ROOM, f"{row['metadata']} bytes of metadata came from another head for {row['records']} of records")


# Requirement: MC-08, MC-09, MC-11, MC-14, MC-20, MC-21, MC-22, FO-02, FO-05
def replace(unit, work):
    unit.configure_heads('checkpoint-growth = "64KiB"\n')
    unit.run("volume", "create", "v", "--size", "64MiB", "--layout", "2+1")
    socket = os.path.join(work, "v.sock")
    unit.run("attach", "v", "--nbd", "unix:" + socket)
    uri = f"nbd+unix:///v?socket={socket}"
    whole = random_file(os.path.join(work, "image"), FLUSHED)
    command(["nbdcopy", whole, uri])
    unit.run("volume", "flush", "v", "--wait")
    # Over its beginning something that only the logs have.
    unit.wait("checkpoints of all replicas", lambda: all(m.get("checkpoint", {}).get("lsn") for m in unit.members("v").values()), 30)
    fresh = random_file(os.path.join(work, "fresh"), FRESH)
    command(["nbdcopy", fresh, uri])
    with open(whole, "r+b") as f, open(fresh, "rb") as g:
        f.write(g.read())

    gone = []
    for _ in range(2):
        lost, came, seconds = lose_the_primary(unit)
        gone.append(lost)
        moved = log_used(unit, came)
        print(f"{came} holds what {lost} held after {seconds:.1f} s; its log has {moved / MIB:.1f} MiB")
        expect(moved < FLUSHED / 4, f"{came} has {moved} bytes in its log: flushed data has moved")
        judge_sources(unit, came, FLUSHED)
    back = os.path.join(work, "back")
    command(["nbdcopy", uri, back])
    with open(back, "r+b") as f:
        f.truncate(FLUSHED)
    expect(digest(back) == digest(whole), "what is read is not what was written")

    unit.run("unit", "start", gone[0])
    log = os.path.join(unit.dir, gone[0], "log")
    unit.wait(f"{gone[0]} gives its replica up", lambda: "this replica is given up" in open(log, errors="replace").read(), 30)
    # And is a spare again: the third loss needs it, for two of five are gone.
    lose_the_primary(unit)
    command(["nbdcopy", uri, back])
    with open(back, "r+b") as f:
        f.truncate(FLUSHED)
    expect(digest(back) == digest(whole), "what is read after the third loss is not what was written")


if __name__ == "__main__":
    sys.exit(run_against_unit(__doc__, ["--heads", "5", "--sleds", "3"], replace, "three heads were lost one after the other, and nothing with them: ok"))
