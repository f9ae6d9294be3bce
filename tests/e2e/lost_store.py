#!/usr/bin/env python3
"""The control plane's store is lost while the unit serves, on real daemons: `luge control rebuild`, and a failover after it. Then the unit's
key is lost.

  tests/e2e/lost_store.py --bin build/bin [--dir D]

Run by ./check.
"""
import glob
import os
import stat
import subprocess
import sys

from unit import command, expect, run_against_unit

MIB = 1 << 20


def image(path, size):
    with open(path, "wb") as f:
        f.write(os.urandom(size))
    return path


def same(uri, work, expected, what):
    back = os.path.join(work, "back")
    command(["nbdcopy", uri, back])
    with open(back, "rb") as f, open(expected, "rb") as g:
        want = g.read()
        expect(f.read(len(want)) == want, what)


def overwrite(uri, work, whole, size):
    part = image(os.path.join(work, "part"), size)
    command(["nbdcopy", part, uri])
    with open(whole, "r+b") as f, open(part, "rb") as g:
        f.write(g.read())


def alarms(unit):
    return unit.json("status")["alarms"]


def lose(unit):
    """The store, and all that lies beside it but the key and whose directory it is."""
    unit.kill("control-1")
    data = os.path.join(unit.dir, "control-1", "data")
    for path in glob.glob(os.path.join(data, "control.db*")):
        os.remove(path)
    unit.run("unit", "start", "control-1")
    return data


def ended_with(unit, daemon, words):
    """It was started, ended by itself, and its log says why."""
    log = os.path.join(unit.dir, daemon, "log")
    unit.wait(f"{daemon} says {words[0]}", lambda: all(w in open(log, errors="replace").read() for w in words), 30)


# Requirement: P-5.2
def rebuild(unit, work):
    unit.run("volume", "create", "v", "--size", "32MiB", "--layout", "2+1")
    unit.run("volume", "create", "w", "--size", "8MiB", "--layout", "2+1")
    socket = os.path.join(work, "v.sock")
    unit.run("attach", "v", "--nbd", "unix:" + socket)
    uri = f"nbd+unix:///v?socket={socket}"
    whole = image(os.path.join(work, "image"), 24 * MIB)
    command(["nbdcopy", whole, uri])
    unit.run("volume", "flush", "v", "--wait")
    overwrite(uri, work, whole, 2 * MIB)
    before = unit.volume("v")

    data = lose(unit)
    unit.wait("status says that the store is lost", lambda: any("control rebuild" in a for a in alarms(unit)), 30)
    same(uri, work, whole, "a client that is connected does not need the store")
    unit.wait("all daemons have registered", lambda: sum(n["state"] == "up" for n in unit.json("status")["nodes"]) == 10, 30)
    done = unit.json("control", "rebuild")
    expect(done["volumes"] == 2 and done["doubted"] == 0 and not done["left"], f"rebuild: {done}")
    after = unit.volume("v")
    for key in ("id", "size", "layout", "primary", "epoch", "nbd"):
        expect(after[key] == before[key], f"{key} was {before[key]}, is {after[key]}")
    expect(not alarms(unit), f"alarms: {alarms(unit)}")
    again = unit.json("control", "rebuild")
    expect(again["volumes"] == 0, "what is known is not taken up twice")
    overwrite(uri, work, whole, MIB)
    unit.kill(before["primary"])
    unit.wait("another head is primary", lambda: unit.volume("v")["primary"] != before["primary"] and unit.volume("v")["state"] == "open", 30)
    overwrite(uri, work, whole, MIB)
    unit.run("volume", "flush", "v", "--wait")
    same(uri, work, whole, "what is read after the failover is not what was written")

    # The private key is lost: a clear error, and what it says works.
    key = os.path.join(data, "unit.key")
    expect(stat.S_IMODE(os.stat(key).st_mode) == 0o600, "the key is not for its owner alone")
    unit.kill("control-1")
    os.remove(key)
    subprocess.run([unit.luge, "unit", "start", "control-1", "--no-wait"], env=unit.env, timeout=60, capture_output=True)
    ended_with(unit, "control-1", ["unit.key is lost", "--new-key", "--unit-key"])
    expect(not os.path.exists(key), "a lost key was made anew unasked")
    same(uri, work, whole, "what is stored does not need the key")


if __name__ == "__main__":
    sys.exit(run_against_unit(__doc__, ["--heads", "4", "--sleds", "4"], rebuild, "a store was lost and made anew, and a head was lost after it: ok"))
