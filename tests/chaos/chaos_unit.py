"""A unit of real daemons that a chaos run may treat as it likes: each is a child of this process, so that an end nobody asked
for is seen; on Unix sockets, or each in a network namespace of its own; its file I/O as it is, or through a shim that fails.
"""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from unit import CheckFailed, command  # noqa: E402

FIRST_ID = {"control": 1, "head": 11, "sled": 101, "attach": 901}
SUPPRESSED = "LUGE_BREAK"


class Daemon:
    def __init__(self, role, number):
        self.role, self.number = role, number
        self.name = f"{role}-{number}"
        self.id = FIRST_ID[role] + number - 1
        self.process = None
        self.expected_to_run = False
        self.stopped = False


class ChaosUnit:
    def __init__(self, directory, build, heads=4, sleds=6, network=None, disk_faults=False, break_rule=None, vp_bytes=None):
        self.dir, self.network = directory, network
        self.bin = os.path.join(build, "sabotage" if break_rule else "bin")
        self.luge = os.path.join(build, "bin", "luge")
        self.shim = os.path.join(build, "tests", "libfault_shim.so") if disk_faults else None
        self.faults = os.path.join(directory, "faults")
        self.env = {k: v for k, v in os.environ.items() if k != SUPPRESSED}
        if break_rule:
            self.env[SUPPRESSED] = break_rule
        self.vp_bytes = vp_bytes
        self.daemons = {}
        self.found = []  # what must not have happened
        for role, count in (("control", 1), ("sled", sleds), ("head", heads), ("attach", 2)):
            for number in range(1, count + 1):
                d = Daemon(role, number)
                self.daemons[d.name] = d
                os.makedirs(os.path.join(directory, d.name), exist_ok=True)
        os.makedirs(os.path.join(directory, "run"), exist_ok=True)
        self.set_faults()
        for d in self.daemons.values():
            self._write_config(d)

    # ---- configuration

    def socket(self, d):
        if self.network:
            return f"tcp:{self.network.addresses[d.name]}:7000"
        return f"unix:{self.dir}/run/{d.name}.s"

    @property
    def api(self):
        return f"unix:{self.dir}/run/api.s"

    def _write_config(self, d):
        home = os.path.join(self.dir, d.name)
        c = {"name": d.name, "id": d.id, "dir": f"{home}/data", "unit": 4711, "listen": self.socket(d), "busy-poll": 0}
        if self.network:
            c["insecure-listen"] = True
        if d.role == "control":
            c["http"] = self.api
            if self.vp_bytes:
                c["vp-bytes"] = self.vp_bytes
        else:
            c["control"] = self.socket(self.daemons["control-1"])
        if d.role == "head":
            c.update({"log-bytes": "96MiB", "meta-bytes": "32MiB", "segment-bytes": "8MiB", "flush-bytes": "8MiB", "flush-age": "4s", "flush-idle": "1s"})
        if d.role == "sled":
            c.update({"devices": [f"{home}/device-0:2147483648"], "column-bytes": "16MiB", "io-timeout": "5s"})
        with open(f"{home}/config.toml", "w") as f:
            for key, value in c.items():
                f.write(f"{key} = {json.dumps(value)}\n")

    # ---- daemons

    def of_role(self, role):
        return [d for d in self.daemons.values() if d.role == role]

    def start(self, *names):
        """All of them, if none is named."""
        for name in names or self.daemons:
            d = self.daemons[name]
            if d.process and d.process.poll() is None:
                continue
            args = [os.path.join(self.bin, f"luge-{d.role}"), "--config", os.path.join(self.dir, d.name, "config.toml")]
            if self.network:
                args = self.network.command(d.name, args)
            env = dict(self.env)
            if self.shim and d.role in ("head", "sled"):
                env.update(LD_PRELOAD=self.shim, LUGE_FAULTS=self.faults, LUGE_NO_IO_URING="1")
            with open(os.path.join(self.dir, d.name, "log"), "ab") as log:
                d.process = subprocess.Popen(args, env=env, stdout=log, stderr=log, start_new_session=True)
            d.expected_to_run, d.stopped = True, False

    def watch(self):
        """Notes daemons that ended though nobody ended them. A head whose disk fails gives up by design: not here."""
        for d in self.daemons.values():
            if d.expected_to_run and d.process.poll() is not None:
                d.expected_to_run = False
                self.found.append(f"{d.name} ended by itself, {self._how(d.process.returncode)}: {self.last_words(d)}")

    @staticmethod
    def _how(code):
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def last_words(self, d):
        try:
            with open(os.path.join(self.dir, d.name, "log"), errors="replace") as f:
                lines = [line.strip() for line in f if line.strip()]
            return " / ".join(lines[-3:])[-600:]
        except OSError:
            return "no log"

    def kill(self, *names):
        self.watch()
        for name in names:
            d = self.daemons[name]
            d.expected_to_run = False
            if d.process.poll() is None:
                d.process.kill()
        for name in names:
            self.daemons[name].process.wait(20)

    def freeze(self, name):
        self.watch()
        d = self.daemons[name]
        if d.process.poll() is None:
            d.process.send_signal(signal.SIGSTOP)
            d.stopped = True

    def thaw(self, name):
        d = self.daemons[name]
        if d.stopped and d.process.poll() is None:
            d.process.send_signal(signal.SIGCONT)
        d.stopped = False

    def stop_all(self):
        for d in self.daemons.values():
            if d.process and d.process.poll() is None:
                d.process.send_signal(signal.SIGCONT)
                d.process.kill()
        for d in self.daemons.values():
            if d.process:
                d.process.wait(20)

    # ---- what the control plane says

    def run(self, *args, timeout=60, check=True):
        return command([self.luge, "--api", self.api, *args], env=self.env, timeout=timeout, check=check)

    def json(self, *args):
        return json.loads(self.run(*args, "--json"))

    def volume(self, name):
        return self.json("volume", "show", name)

    def wait(self, what, predicate, seconds=60, tell=None):
        """Until it holds; tell() says, of one that doesn't come to hold, how things stand."""
        deadline, last = time.time() + seconds, ""
        while True:
            try:
                if predicate():
                    return
            except (CheckFailed, KeyError, ValueError) as e:
                last = f" ({e})"
            if time.time() > deadline:
                raise CheckFailed("liveness", f"{what}: not within {seconds} s{last}{tell() if tell else ''}")
            time.sleep(0.1)

    def wait_up(self, seconds=60):
        def all_up():
            up = {n["name"] for n in self.json("status")["nodes"] if n["state"] == "up"}
            return up >= {d.name for d in self.daemons.values() if d.expected_to_run}
        self.wait("all daemons are up", all_up, seconds)

    def make_volume(self, name, front_end, size="64MiB"):
        self.run("volume", "create", name, "--size", size, "--layout", "4+2")
        self.wait(f"volume {name} opens", lambda: self.volume(name)["state"] == "open", 30)
        self.attach(name, front_end)

    def attach(self, name, front_end, *how):
        self.run("attach", name, "--nbd", f"unix:{self.dir}/run/{name}.nbd", "--node", front_end, *how)

    def uri(self, name):
        return f"nbd+unix:///{name}?socket={self.dir}/run/{name}.nbd"

    # ---- disks

    def set_faults(self, *lines):
        """Lines of fault_shim.cpp; none: the disks are well."""
        with open(self.faults + ".new", "w") as f:
            f.writelines(line + "\n" for line in lines)
        os.replace(self.faults + ".new", self.faults)
