"""What the end-to-end scripts share: a unit of real daemons, commands with a time limit, checks with a name."""
import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time


class CheckFailed(Exception):
    """A check that did not hold: its name, and what was seen."""

    def __init__(self, name, text):
        super().__init__(text)
        self.name = name


class Unit:
    """A unit on this machine, through the `luge` that a script would use."""

    def __init__(self, directory, bin_dir, shape, sabotage=None):
        self.dir = directory
        self.luge = os.path.join(bin_dir, "luge")
        self.env = dict(os.environ, LUGE_UNIT=directory)
        self.up_args = list(shape)
        if sabotage:
            self.env["LUGE_BREAK"] = sabotage
            self.up_args += ["--sabotage-bin", os.path.join(os.path.dirname(bin_dir), "sabotage")]

    def run(self, *args, timeout=120, check=True):
        return command([self.luge, *args], env=self.env, timeout=timeout, check=check)

    def json(self, *args):
        return json.loads(self.run(*args, "--json"))

    def volume(self, name):
        return self.json("volume", "show", name)

    def pid(self, node):
        return next(n["pid"] for n in self.json("status")["nodes"] if n["name"] == node)

    def kill(self, node):
        os.kill(self.pid(node), signal.SIGKILL)

    def configure_heads(self, lines):
        """Lines for the configuration of every head, which starts anew with them."""
        for name in (n["name"] for n in self.json("status")["nodes"] if n["role"] == "head"):
            with open(os.path.join(self.dir, name, "config.toml"), "a") as f:
                f.write(lines)
        self.run("unit", "restart", "--role", "head")

    def members(self, volume):
        """The rows of the members of a volume of one partition, by head."""
        return {m["head"]: m for m in self.volume(volume)["vps"][0]["members"]}

    def wait(self, what, predicate, seconds):
        deadline = time.time() + seconds
        while not predicate():
            if time.time() > deadline:
                raise CheckFailed("liveness", f"{what}: not within {seconds} s")
            time.sleep(0.2)


def command(args, env=None, timeout=120, check=True, name=None):
    try:
        done = subprocess.run(args, env=env, timeout=timeout, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        raise CheckFailed(name or os.path.basename(args[0]), f"no end within {timeout} s: {' '.join(args[:6])}")
    if check and done.returncode != 0:
        raise CheckFailed(name or os.path.basename(args[0]),
                          f"{' '.join(args[:8])}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def expect(condition, text):
    if not condition:
        raise CheckFailed("expectation", text)


def run_against_unit(doc, shape, scenario, said):
    """The main program of a script with one scenario: `scenario(unit, work)` on a unit of its own. The exit code."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir")
    a = parser.parse_args()
    work = os.path.abspath(a.dir or tempfile.mkdtemp(prefix="luge-e2e-"))
    os.makedirs(work, exist_ok=True)
    unit = Unit(os.path.join(work, "unit"), os.path.abspath(a.bin), shape)
    try:
        unit.run("unit", "up", "--dir", unit.dir, *unit.up_args)
        scenario(unit, work)
        print(said)
        return 0
    except CheckFailed as e:
        print(f"failed check: {e.name}: {e}")
        return 1
    finally:
        subprocess.run([unit.luge, "unit", "down", "--dir", unit.dir], capture_output=True)
        shutil.rmtree(work, ignore_errors=True)
