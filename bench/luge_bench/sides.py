"""What is measured: a unit of Luge, and its peers. Each is started in a directory of its own and stopped by process id."""
import json
import os
import subprocess
import time
import uuid

MIB = 1 << 20


class BenchError(Exception):
    """Something that a measurement needs did not work; the text says what."""


def run(args, timeout=180, env=None, cwd=None):
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=timeout, env=env, cwd=cwd)
    except FileNotFoundError:
        raise BenchError(f"{args[0]} is not installed (./check and ./demo install what is needed)")
    except subprocess.TimeoutExpired:
        raise BenchError(f"no end within {timeout} s: {' '.join(args[:6])}")
    if done.returncode != 0:
        raise BenchError(f"{' '.join(args[:8])}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


class QemuNbd:
    """The peer: one copy, no redundancy, the page cache left out."""

    name = "qemu-nbd"

    def __init__(self, options, work):
        self.path = os.path.join(work, "peer.raw")
        self.socket = os.path.join(work, "peer.sock")
        with open(self.path, "wb") as f:  # written out, so that no block is allocated while it is measured
            for _ in range(options.size // MIB):
                f.write(b"\0" * MIB)
            f.flush()
            os.fsync(f.fileno())
        self.process = subprocess.Popen(
            ["qemu-nbd", "--format=raw", "--cache=none", "--aio=native", "--persistent", "--shared=8", f"--socket={self.socket}", self.path])
        deadline = time.time() + 10
        while not os.path.exists(self.socket):
            if time.time() > deadline or self.process.poll() is not None:
                raise BenchError("qemu-nbd does not start")
            time.sleep(0.05)

    def fio(self):
        return ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.socket}"], None

    def pids(self):
        return [self.process.pid]

    def settle(self):
        pass

    def batches(self):
        return None

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


NEVER_FLUSHES = 'flush-bytes = "1024T"\nflush-age = "1000h"\nflush-idle = "1000h"\n'


class Luge:
    """A unit of its own, one volume, attached over a Unix socket."""

    def __init__(self, options, work, heads=3, name="luge", head_config="", log_bytes=None, up=(), size=None):
        """`head_config`: lines for the heads' configuration. `size` of the volume, if it is not the options'."""
        self.name = name
        self.dir = os.path.join(work, name)
        self.socket = os.path.join(work, f"{name}.sock")
        self.luge = os.path.join(options.bin, "luge")
        self.env = dict(os.environ, LUGE_UNIT=self.dir)
        self.call("unit", "up", "--dir", self.dir, "--heads", str(heads), "--sleds", "6", "--devices", "1",
                  "--device-bytes", "8GiB", *(["--log-bytes", log_bytes] if log_bytes else []), *up)
        if head_config:
            self._configure_heads(heads, head_config)
        self.call("volume", "create", "bench", "--size", str(size or options.size), "--layout", "4+2")
        self.wait_open()
        self.call("attach", "bench", "--nbd", f"unix:{self.socket}")

    def _configure_heads(self, heads, lines):
        for number in range(1, heads + 1):
            with open(os.path.join(self.dir, f"head-{number}", "config.toml"), "a") as f:
                f.write(lines)
        self.call("unit", "restart", "--dir", self.dir, "--role", "head")

    def call(self, *args, timeout=300):
        return run([self.luge, *args], env=self.env, timeout=timeout)

    def volume(self):
        return json.loads(self.call("volume", "show", "bench", "--json"))

    def nodes(self):
        return json.loads(self.call("status", "--json"))["nodes"]

    def wait_open(self, copies=3, seconds=60):
        deadline = time.time() + seconds
        while True:
            v = self.volume()
            if v["state"] == "open" and v["copies"] >= copies:
                return v
            if time.time() > deadline:
                raise BenchError(f"the volume has {v['copies']} of {copies} copies and is {v['state']} after {seconds} s: {v.get('reason', '')}")
            time.sleep(0.1)

    def fio(self):
        return ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.socket}"], None

    def pids(self):
        return [n["pid"] for n in self.nodes() if n["pid"]]

    def settle(self):
        self.call("volume", "flush", "bench", "--wait")

    def batches(self):
        """(writes, messages that carried them) of the attach daemon so far, if it reports them."""
        for n in self.nodes():
            for e in n.get("exports", []):
                if e.get("volume") == "bench" and "batches" in e:
                    return e["writes"], e["batches"]
        return None

    def stop(self):
        self.call("unit", "down", "--dir", self.dir)


class Ceph:
    """Ceph RBD from the distribution's packages: one monitor, one manager, six OSDs on files, three replicas, no client
    cache, so that each acknowledged write is on disk in every copy. Its client library runs inside fio: what that costs is
    not in its figures, while Luge's attach daemon is in Luge's."""

    name = "ceph"
    OSDS = 6
    PACKAGES = "ceph-mon ceph-mgr ceph-osd ceph-common"

    def __init__(self, options, work):
        self.dir = os.path.join(work, "ceph")
        self.processes = []
        os.makedirs(self.dir)
        self.conf = os.path.join(self.dir, "ceph.conf")
        self.env = dict(os.environ, CEPH_CONF=self.conf, CEPH_ARGS="")
        for program in ("ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "ceph", "rbd"):
            if subprocess.run(["which", program], capture_output=True).returncode != 0:
                raise BenchError(f"{program} is not installed: apt-get install --no-install-recommends {self.PACKAGES}")
        if "rbd" not in run(["fio", "--enghelp"]):
            raise BenchError("fio has no rbd engine")
        try:
            self._configure(options.ceph_port)
            self._start_monitor(options.ceph_port)
            for number in range(self.OSDS):
                self._start_osd(number)
            self._make_image(options.size)
        except BaseException:
            self.stop()
            raise

    def _configure(self, port):
        self.fsid = str(uuid.uuid4())
        d = self.dir
        with open(self.conf, "w") as f:
            f.write(f"""[global]
fsid = {self.fsid}
mon host = [v2:127.0.0.1:{port},v1:127.0.0.1:{port + 1}]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 3
osd pool default min size = 2
osd pool default pg num = 32
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = bluestore
osd memory target = 939524096
bluestore block size = 8589934592
bluestore fsck quick fix on mount = false
mon allow pool delete = true
mon data = {d}/mon-$id
mgr data = {d}/mgr-$id
osd data = {d}/osd-$id
run dir = {d}
admin socket = {d}/$name.asok
pid file = {d}/$name.pid
log file = {d}/$name.log
crash dir = {d}
keyring = {d}/keyring
public network = 127.0.0.0/8
rbd cache = false
ms bind ipv6 = false
mon data avail warn = 1
mon data avail crit = 1
""")
        open(os.path.join(d, "keyring"), "w").close()

    def _spawn(self, *args):
        p = subprocess.Popen([*args, "--conf", self.conf, "--foreground"], env=self.env, cwd=self.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(p)
        return p

    def call(self, *args, timeout=60):
        return run(["ceph", "--conf", self.conf, "--connect-timeout", "30", *args], env=self.env, timeout=timeout)

    def _start_monitor(self, port):
        monmap = os.path.join(self.dir, "monmap")
        run(["monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{port},v1:127.0.0.1:{port + 1}]", "--fsid", self.fsid, monmap], env=self.env)
        os.makedirs(os.path.join(self.dir, "mon-a"))
        run(["ceph-mon", "--conf", self.conf, "--mkfs", "-i", "a", "--monmap", monmap], env=self.env)
        self._spawn("ceph-mon", "-i", "a")
        self.call("mon", "enable-msgr2")
        os.makedirs(os.path.join(self.dir, "mgr-x"))
        self._spawn("ceph-mgr", "-i", "x")

    def _start_osd(self, number):
        name = str(uuid.uuid4())
        got = self.call("osd", "new", name).strip()
        if got != str(number):
            raise BenchError(f"ceph osd new said '{got}'")
        os.makedirs(os.path.join(self.dir, f"osd-{number}"))
        run(["ceph-osd", "--conf", self.conf, "-i", str(number), "--mkfs", "--osd-uuid", name], env=self.env, timeout=120)
        self._spawn("ceph-osd", "-i", str(number))

    def _make_image(self, size):
        deadline = time.time() + 120
        while True:
            stat = json.loads(self.call("osd", "stat", "--format", "json"))
            if stat.get("num_up_osds") == self.OSDS and stat.get("num_in_osds") == self.OSDS:
                break
            if time.time() > deadline:
                raise BenchError(f"only {stat.get('num_up_osds')} of {self.OSDS} OSDs come up within 120 s: see {self.dir}")
            time.sleep(0.5)
        self.call("osd", "pool", "create", "rbd", "64", "64", "replicated")
        run(["rbd", "--conf", self.conf, "pool", "init", "rbd"], env=self.env, timeout=120)
        run(["rbd", "--conf", self.conf, "create", "bench", "--size", f"{size // MIB}M"], env=self.env, timeout=60)

    def fio(self):
        return ["--ioengine=rbd", "--clientname=admin", "--pool=rbd", "--rbdname=bench"], self.env

    def pids(self):
        return [p.pid for p in self.processes if p.poll() is None]

    def settle(self):
        pass

    def batches(self):
        return None

    def stop(self):
        for p in reversed(self.processes):
            if p.poll() is None:
                p.terminate()
        for p in self.processes:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait(10)
