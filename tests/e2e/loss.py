#!/usr/bin/env python3
"""A volume that no complete head is left for, on real daemons: what `luge` says of it, and what `luge volume recover` does.

  tests/e2e/loss.py --bin build/bin [--dir D]

Of three heads one falls behind; the two that have everything are killed; the one that was behind is made the truth. Run by
./check.
"""
import os
import subprocess
import sys

from unit import command, expect, run_against_unit

MIB = 1 << 20


def image(path, byte):
    with open(path, "wb") as f:
        f.write(bytes([byte]) * (4 * MIB))
    return path


def refused(unit, code, words, *args):
    """The command ends with `code`, and says why."""
    done = subprocess.run([unit.luge, *args], env=unit.env, timeout=60, capture_output=True, text=True)
    expect(done.returncode == code, f"luge {' '.join(args)}: exit code {done.returncode}, not {code}: {done.stderr}")
    for word in words:
        expect(word in done.stderr, f"luge {' '.join(args)}: '{word}' is not in: {done.stderr}")


# Requirement: P-4.6
def recover(unit, work):
    unit.run("volume", "create", "v", "--size", "8MiB", "--layout", "2+1")
    socket = os.path.join(work, "v.sock")
    unit.run("attach", "v", "--nbd", "unix:" + socket)
    uri = f"nbd+unix:///v?socket={socket}"
    old, new = image(os.path.join(work, "old"), 0xaa), image(os.path.join(work, "new"), 0xbb)
    command(["nbdcopy", old, uri])
    refused(unit, 5, ["not closed"], "volume", "recover", "v", "--accept-loss", "head-1")
    refused(unit, 4, ["no head head-9"], "volume", "recover", "v", "--accept-loss", "head-9")
    shown = unit.volume("v")
    behind = shown["reserves"][-1]
    complete = [shown["primary"], shown["reserves"][0]]
    unit.kill(behind)
    command(["nbdcopy", new, uri])  # waits until the head that is gone has left `required`
    unit.run("detach", "v")
    for head in complete:
        unit.kill(head)
    unit.run("unit", "start", behind)
    unit.wait("the volume is closed", lambda: unit.volume("v")["state"] == "closed" and "behind: " + behind + " (reaches LSN" in unit.volume("v")["reason"], 30)
    page = unit.run("volume", "show", "v")
    for word in [*complete, "had everything", "was behind", "recover --accept-loss"]:
        expect(word in page, f"'{word}' is not in: {page}")
    refused(unit, 6, ["is not up"], "volume", "recover", "v", "--accept-loss", complete[0])
    said = unit.run("volume", "recover", "v", "--accept-loss", behind)
    expect("1 partition" in said, said)
    unit.wait("the volume is open for reads", lambda: unit.volume("v")["primary"] == behind and unit.volume("v")["state"] in ("open", "waiting"), 30)
    for head in complete:
        unit.run("unit", "start", head)
    unit.wait("all heads are complete again", lambda: unit.volume("v")["copies"] == 3, 60)
    unit.run("attach", "v", "--nbd", "unix:" + socket)
    back = os.path.join(work, "back")
    command(["nbdcopy", uri, back])
    with open(back, "rb") as f:
        expect(f.read(4 * MIB) == bytes([0xaa]) * (4 * MIB), "what the head that was behind held is not what is read")
    unit.kill(behind)
    command(["nbdcopy", uri, back])
    with open(back, "rb") as f:
        expect(f.read(4 * MIB) == bytes([0xaa]) * (4 * MIB), "another head serves another history")


if __name__ == "__main__":
    sys.exit(run_against_unit(__doc__, ["--heads", "3", "--sleds", "3"], recover, "a closed volume goes on from the head that was chosen: ok"))
