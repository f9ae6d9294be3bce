#!/usr/bin/env python3
"""A unit of real daemons under fire, judged by a recorded history and by fio.

  tests/chaos/chaos.py --build build [--long] [--only WORD] [--break SWITCH] [--seed S] [--dir D]

Each scenario has clients of two volumes all the while: luge-recorder, whose history must be linearizable block by block (the
oracle of the simulator), and fio, which verifies what it wrote. Neither may see an error, however long the pause; no daemon
may end that nobody ended; after the fire all volumes are open with all their copies within a bound, and all replicas are the same. --long freezes for 80 s and
repeats. What this machine does not allow is left out with a line that says why. --break runs daemons with a rule broken
(host/switches): then the run must fail. Run by ./check in its short form.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from chaos_unit import CheckFailed, ChaosUnit
import switchboard

SCENARIOS = []


class LeftOut(Exception):
    """This machine does not allow what the scenario needs."""


def scenario(*, network=False, disks=False):
    def take(function):
        SCENARIOS.append((function, network, disks))
        return function
    return take


class Fire:
    """What a scenario does, and what it is judged by."""

    def __init__(self, unit, options, rng):
        self.unit, self.options, self.random = unit, options, rng
        self.network = unit.network
        self.freeze_seconds = 80 if options.long else 3
        self.notes = []

    def pause(self, seconds):
        time.sleep(seconds)
        self.unit.watch()

    def primary(self, volume="history"):
        return self.unit.volume(volume)["primary"]

    def reserve(self, volume="history"):
        shown = self.unit.volume(volume)
        return next(n for n in shown["required"] + shown["reserves"] if n != shown["primary"])

    def settled(self, seconds=60):
        """All volumes are open with all their copies again."""
        def whole():
            return all(v["state"] == "open" and v["copies"] == 3 for v in self.unit.json("status")["volumes"])
        def not_whole():
            """The partitions that keep the unit from being whole, and who of it is up: what a reader of the failure asks first."""
            status = self.unit.json("status")
            down = [n["name"] for n in status["nodes"] if n["state"] != "up"]
            lines = [f"down or failed: {', '.join(down) or 'nobody'}"]
            for v in status["volumes"]:
                lines += [f"{v['name']}: {json.dumps(vp)}" for vp in self.unit.volume(v["name"])["vps"] if vp["state"] != "open" or vp["copies"] != 3]
            return "".join(f"\n  {line}" for line in lines)
        begin = time.time()
        self.unit.wait("volumes are open with 3 copies", whole, seconds, not_whole)
        self.notes.append(f"healed in {time.time() - begin:.1f} s")

    def same_replicas(self, seconds=30):
        """All replicas of every volume stand at one LSN, with one index."""
        def same():
            for v in self.unit.json("status")["volumes"]:
                for vp in self.unit.volume(v["name"])["vps"]:
                    differ = "differ" in vp.get("reason", "")
                    if differ:
                        raise CheckFailed("replicas", vp["reason"])
                    if len({m["commit"] for m in vp["members"]}) != 1 or any(m["state"] not in ("open", "waiting", "live") for m in vp["members"]):
                        return False
            return True
        self.unit.wait("all replicas stand at one LSN", same, seconds)

    def kill_and_restart(self, name, away=1.0):
        self.unit.kill(name)
        self.pause(away)
        self.unit.start(name)
        self.settled()

    def freeze_and_thaw(self, name):
        self.unit.freeze(name)
        self.pause(self.freeze_seconds)
        self.unit.thaw(name)
        self.settled()


# ---- the fires

# Requirement: FO-01
@scenario()
def kill_every_role(f):
    """SIGKILL of the primary, a reserve, a sled, the front end and the control plane, one after the other"""
    f.kill_and_restart(f.primary())
    f.kill_and_restart(f.reserve())
    f.kill_and_restart("sled-2", 0.5)
    f.kill_and_restart("attach-1", 0.5)
    f.kill_and_restart("control-1", 1.5)


# Requirement: FO-01, FN-11
@scenario()
def freeze_every_role(f):
    """SIGSTOP of the primary, a reserve, a sled, the front end and the control plane, then SIGCONT"""
    for name in (f.primary(), f.reserve(), "sled-3", "attach-1", "control-1"):
        f.freeze_and_thaw(name)


# Requirement: P-4.5
@scenario()
def mass_restart(f):
    """every daemon but fio's front end is killed at once and all come back together; then all heads while two sleds are away"""
    f.unit.kill(*(n for n in f.unit.daemons if n != "attach-2"))
    f.unit.start()
    f.unit.wait_up()
    f.settled()
    f.unit.kill("sled-1", "sled-4", *(d.name for d in f.unit.of_role("head")))
    f.unit.start(*(d.name for d in f.unit.of_role("head")))
    f.pause(3)
    f.unit.start("sled-1", "sled-4")
    f.settled()


# Requirement: P-4.8, CP-10
@scenario()
def primary_dies_without_a_control_plane(f):
    """the control plane is gone while the primary dies: I/O waits, and goes on when the control plane is back"""
    victim = f.primary()
    f.unit.kill("control-1")
    f.pause(1)
    f.unit.kill(victim)
    f.pause(2)
    f.unit.start("control-1")
    f.pause(2)
    f.unit.start(victim)
    f.settled()


# Requirement: P-3.3
@scenario()
def double_failures(f):
    """the primary and a reserve die together; two sleds and then a third, of a 4+2 volume; a reserve dies while it catches up"""
    f.unit.run("volume", "flush", "history", "--wait")
    pair = (f.primary(), f.reserve())
    f.unit.kill(*pair)
    f.pause(2)
    f.unit.start(*pair)
    f.settled()
    f.unit.kill("sled-1", "sled-2")
    f.pause(2)
    f.unit.kill("sled-3")
    f.pause(1)
    f.unit.start("sled-1", "sled-2", "sled-3")
    f.settled()
    reserve = f.reserve()
    f.unit.kill(reserve)
    f.pause(1.5)
    for _ in range(3):
        f.unit.start(reserve)
        f.pause(0.3 + 0.3 * f.random.random())
        f.unit.kill(reserve)
    f.unit.start(reserve)
    f.settled()


# Requirement: P-2.3
@scenario()
def front_ends_take_over(f):
    """another front end takes the volume from one that is frozen with requests open, and is frozen when the first takes it back"""
    for old, new in (("attach-1", "attach-2"), ("attach-2", "attach-1")):
        f.unit.freeze(old)
        socket = f"{f.unit.dir}/run/history.nbd"
        os.rename(socket, socket + ".old")  # where clients find the other from now on
        f.unit.attach("history", new, "--take-over")
        f.pause(1.5)
        f.unit.thaw(old)
        f.pause(1.5)
        holder = f.unit.volume("history")["attached_by"]
        if holder != new:
            raise CheckFailed("attachment", f"{new} took volume history, which {holder} has attached")
    f.settled()


@scenario()
def random_walk(f):
    """whatever comes: daemons die, freeze, thaw and come back, a new misfortune every half second; then all of it heals"""
    end = time.time() + (300 if f.options.long else 20)
    names = [n for n in f.unit.daemons if n != "attach-2"]
    dead, frozen = set(), set()
    while time.time() < end:
        name = f.random.choice(names)
        if name in dead:
            dead.discard(name)
            f.unit.start(name)
        elif name in frozen:
            frozen.discard(name)
            f.unit.thaw(name)
        elif f.random.random() < 0.6:
            dead.add(name)
            f.unit.kill(name)
        else:
            frozen.add(name)
            f.unit.freeze(name)
        # Not so many at once that nothing ever happens between.
        for group in (dead, frozen):
            if len(group) > 2:
                back = f.random.choice(sorted(group))
                group.discard(back)
                (f.unit.start if group is dead else f.unit.thaw)(back)
        f.pause(0.2 + 0.6 * f.random.random())
    for name in frozen:
        f.unit.thaw(name)
    f.unit.start(*dead) if dead else None
    f.unit.wait_up()
    f.settled()


# Requirement: P-10.2
@scenario(disks=True)
def slow_and_full_and_failing_disks(f):
    """a reserve's log is slow; a sled's device is full, then fails reads, then fails writes; a head's log fails"""
    reserve = f.reserve()
    f.unit.set_faults(f"write /{reserve}/data delay=40 1")
    f.pause(3)
    f.unit.set_faults("write /sled-2/device-0 enospc 1")
    f.pause(2)
    f.unit.set_faults("read /sled-3/device-0 eio 0.5")
    f.pause(2)
    f.unit.set_faults("write /sled-4/device-0 eio 0.3", "sync /sled-4/device-0 eio 0.3")
    f.pause(3)
    f.unit.set_faults()
    for sled in ("sled-2", "sled-3", "sled-4"):
        f.unit.kill(sled)
        f.unit.start(sled)
    f.settled()
    # An append that fails is never tried again in place: the head gives its partitions up, and is replaced.
    victim = f.primary()
    f.unit.set_faults(f"write /{victim}/data eio 1")
    f.unit.daemons[victim].expected_to_run = False
    f.pause(3)
    f.unit.set_faults()
    f.unit.kill(victim)
    f.unit.start(victim)
    f.settled()


# Requirement: WR-08, WR-09, WR-11, P-3.5
@scenario(disks=True)
def slow_members(f):
    """a reserve's log is slow: writes stop waiting for it, and wait again when it is fast; then the primary's: it hands over"""
    reserve, primary = f.reserve(), f.primary()
    f.unit.set_faults(f"write /{reserve}/data delay=150 1")
    f.unit.wait(f"{reserve} leaves the required set", lambda: reserve not in f.unit.volume("history")["required"], 60)
    if f.primary() != primary:
        raise CheckFailed("failover", f"{reserve} is slow, and {f.primary()} is primary instead of {primary}")
    # What a primary says of its members comes with its next report, after the store has decided.
    member = lambda: next(m for m in f.unit.volume("history")["vps"][0]["members"] if m["head"] == reserve)
    f.unit.wait(f"{reserve} shows as a slow member that is live", lambda: member().get("slow") and member()["state"] == "live", 5)
    f.unit.set_faults()
    f.settled()
    primary = f.primary()
    f.unit.set_faults(f"write /{primary}/data delay=150 1")
    f.unit.wait(f"{primary} hands over", lambda: f.primary() != primary, 60)
    f.unit.set_faults()
    f.settled()


# Requirement: FN-10, FO-11
@scenario(network=True)
def partitions(f):
    """the primary is cut off; then one way from a reserve; then from control plane and clients only; then it keeps nobody but its clients"""
    net, victim = f.network, f.primary()
    net.cut_off(victim)
    f.pause(4)
    net.heal()
    f.settled()
    victim, reserve = f.primary(), f.reserve()
    net.cut(victim, reserve, one_way=True)
    f.pause(4)
    net.heal()
    f.settled()
    victim = f.primary()
    net.cut(victim, "control-1")
    net.cut(victim, "attach-1")
    f.pause(4)
    net.heal()
    f.settled()
    victim = f.primary()
    for other in f.unit.daemons:
        if other != victim and not other.startswith("attach"):
            net.cut(victim, other)
    f.pause(4)
    if f.primary() == victim:
        raise CheckFailed("failover", f"{victim} is cut off from all others and is still primary")
    net.heal()
    f.settled()


@scenario(network=True)
def random_cuts(f):
    """nodes are cut off, pairs are cut one way or both, halves are parted, heads die meanwhile; then all of it heals"""
    net, names = f.network, list(f.unit.daemons)
    end = time.time() + (300 if f.options.long else 20)
    dead = None
    while time.time() < end:
        dice = f.random.random()
        if dice < 0.3:
            net.cut_off(f.random.choice(names))
        elif dice < 0.6:
            net.cut(*f.random.sample(names, 2), one_way=f.random.random() < 0.5)
        elif dice < 0.7:
            side = set(f.random.sample(names, len(names) // 2))
            for a in side:
                for b in names:
                    if b not in side:
                        net.cut(a, b)
        elif dice < 0.8 and dead is None:
            dead = f.random.choice([n for n in names if n.startswith(("head", "control"))])
            f.unit.kill(dead)
        elif dice < 0.9 and dead is not None:
            f.unit.start(dead)
            dead = None
        elif dice > 0.85:
            net.heal()
        f.pause(0.3 + 1.2 * f.random.random())
    net.heal()
    if dead:
        f.unit.start(dead)
    f.unit.wait_up(90)
    f.settled(90)


@scenario(network=True)
def bad_links(f):
    """every link delays, loses, doubles and reorders; the primary dies meanwhile"""
    f.network.all(delay=0.002, jitter=0.004, double=0.02, loss=0.01)
    f.pause(5)
    victim = f.primary()
    f.unit.kill(victim)
    f.pause(3)
    f.unit.start(victim)
    f.pause(3)
    f.network.heal()
    f.settled(90)


# ---- a run

class Clients:
    """The recorder and fio, on volumes of their own."""

    def __init__(self, unit, work, build, seed, seconds):
        self.logs = {}
        recorder = [os.path.join(build, "tests", "luge-recorder"), "--uri", unit.uri("history"), "--for", f"{seconds}s", "--seed", str(seed),
                    "--pause-us", "1500", "--patience", "120s"]
        fio = ["fio", "--name=chaos", "--ioengine=nbd", f"--uri={unit.uri('fio')}", "--rw=randwrite", "--bs=4k", "--iodepth=8", "--size=48m", "--io_size=100g",
               f"--runtime={seconds}", "--time_based", "--rate_iops=400", "--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1", "--verify_state_save=0",
               f"--randseed={seed}", "--output-format=json", f"--output={work}/fio.json"]
        self.processes = {"recorder": self._start("recorder", recorder, work), "fio": self._start("fio", fio, work)}

    def _start(self, name, args, work):
        self.logs[name] = os.path.join(work, name)
        with open(self.logs[name] + ".out", "w") as out, open(self.logs[name] + ".err", "w") as err:
            return subprocess.Popen(args, cwd=work, stdout=out, stderr=err)

    def text(self, name, kind):
        with open(f"{self.logs[name]}.{kind}", errors="replace") as f:
            return f.read()

    def still_run(self):
        """What one of them has to complain of is heard together with what the other says."""
        if all(p.poll() in (None, 0) for p in self.processes.values()):
            return
        self.end_recorder()
        said = []
        for name, p in self.processes.items():
            if name == "recorder" or p.poll() is not None:
                try:
                    self.judge(name)
                except CheckFailed as e:
                    said.append(e)
        if said:
            raise CheckFailed("+".join(e.name for e in said), "; ".join(str(e) for e in said))

    def end_recorder(self):
        if self.processes["recorder"].poll() is None:
            self.processes["recorder"].terminate()  # no new requests; it reads back and judges

    def judge(self, name, seconds=180):
        p = self.processes[name]
        try:
            code = p.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CheckFailed("liveness", f"{name} does not end within {seconds} s")
        if code != 0:
            said = (self.text(name, "err") + self.text(name, "out")).strip()
            raise CheckFailed("history" if name == "recorder" else "fio-verify", f"{name}: exit code {code}: {said[:3000]}")
        return json.loads(self.text(name, "out")) if name == "recorder" else None

    def stop(self):
        for p in self.processes.values():
            if p.poll() is None:
                p.kill()
            p.wait(20)


def run_scenario(function, network, disks, options, seed):
    work = tempfile.mkdtemp(prefix="chaos-", dir=options.dir)
    net = unit = clients = None
    try:
        if network:
            why = switchboard.unavailable()
            if why:
                raise LeftOut(why)
            names = ["control-1", *(f"sled-{i}" for i in range(1, 7)), *(f"head-{i}" for i in range(1, 5)), "attach-1", "attach-2"]
            net = switchboard.Switchboard(names, seed)
        unit = ChaosUnit(os.path.join(work, "u"), options.build, network=net, disk_faults=disks, break_rule=options.break_rule)
        unit.start()
        unit.wait_up()
        # Each a front end of its own: fio does not connect again when its server dies, so only the recorder's is killed.
        unit.make_volume("history", "attach-1")
        unit.make_volume("fio", "attach-2")
        clients = Clients(unit, work, options.build, seed, 1000 if options.long else 240)
        fire = Fire(unit, options, random.Random(seed))
        time.sleep(2)
        for _ in range(3 if options.long else 1):
            function(fire)
            clients.still_run()
        unit.watch()
        clients.end_recorder()
        said = clients.judge("recorder")
        clients.processes["fio"].terminate()
        clients.judge_fio = clients.processes["fio"].wait(60)
        text = clients.text("fio", "err")
        if "verify" in text or "error=" in text.lower():
            raise CheckFailed("fio-verify", text[-2000:])
        fire.same_replicas()
        if net:
            fire.notes.append(f"{net.counts['forwarded']} frames forwarded, {net.counts['dropped']} dropped, {net.counts['doubled']} doubled")
            if net.counts["dropped"] == 0:
                raise CheckFailed("network", "the switch has dropped nothing: the fire did not burn")
        if unit.found:
            raise CheckFailed("daemon", "; ".join(unit.found))
        return f"{said['answered']} answered, {said['unknown']} unknown, longest {said['longest_ms'] / 1000:.1f} s; {', '.join(fire.notes)}"
    except BaseException:
        if options.keep and unit:
            print(f"  kept: {work}", flush=True)
        raise
    finally:
        if clients:
            clients.stop()
        if unit:
            unit.stop_all()
        if net:
            net.close()
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--break", dest="break_rule")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", action="store_true", help="do not remove the directory of a scenario that failed")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    if not os.path.exists(os.path.join(options.build, "tests", "luge-recorder")):
        print("chaos: there is no luge-recorder: install libnbd-dev and build again", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    print(f"chaos: seed {seed}", flush=True)
    failed = ran = 0
    for function, network, disks in SCENARIOS:
        if options.only not in function.__name__:
            continue
        begin = time.time()
        name = function.__name__.replace("_", " ")
        try:
            said = run_scenario(function, network, disks, options, seed)
            ran += 1
            print(f"ok       {name}: {time.time() - begin:.0f} s, {said}", flush=True)
        except LeftOut as e:
            print(f"left out {name}: {e}", flush=True)
        except CheckFailed as e:
            ran, failed = ran + 1, failed + 1
            print(f"FAILED   {name}: {time.time() - begin:.0f} s, check '{e.name}': {e}", flush=True)
    if not ran:
        print("chaos: nothing was run", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
