#!/usr/bin/env python3
"""Bad input, against real daemons: each is refused with a clear error to the right party, no daemon ends, nothing is lost.

  tests/e2e/bad_input.py --bin build/bin [--dir D] [--only WORD]

A small unit serves a volume with a known image all the while. After each check all daemons must still be the same
processes and the volume must still hold every byte. docs/operations.md, "Bad input", is the list. The full disks are
tmpfs: where none may be mounted (no root, a container) these checks are left out and the output says so. Run by ./check.
"""
import argparse
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import forbid
from unit import CheckFailed, Unit, command

MIB = 1 << 20
IMAGE_BYTES = 24 * MIB
OTHER_UNIT = 4242

CHECKS = []


class LeftOut(Exception):
    """This machine does not allow what the check needs."""


def check(function):
    """A check: its name is the function's, what it proves its docstring's first line."""
    CHECKS.append(function)
    return function


def expect(condition, text):
    if not condition:
        raise CheckFailed("expectation", text)


def expect_in(words, text, what):
    """Each of `words` stands in `text`."""
    for word in words if isinstance(words, (list, tuple)) else [words]:
        expect(word in text, f"{what}: '{word}' is not in: {text.strip()[-600:]}")


# ---- checksums and frames, by the page of formats and not by the product's code

def make_crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = make_crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


FRAME = struct.Struct("<IHHIIQQII")  # docs/formats.md, "Frame"
FRAME_MAGIC = 0x3147554C
FENCE = 40


def frame(kind, body=b"", payload=b"", unit=0, magic=FRAME_MAGIC, version=1, body_bytes=None, payload_bytes=None, crc=None):
    fields = [magic, version, kind, len(body) if body_bytes is None else body_bytes,
              len(payload) if payload_bytes is None else payload_bytes, 1, unit, 0]
    if crc is None:
        crc = crc32c(FRAME.pack(*fields, 0) + body)
    return FRAME.pack(*fields, crc) + body + payload


class Socket:
    """A raw connection to a Unix socket."""

    def __init__(self, path, timeout=10):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.settimeout(timeout)
        self.s.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, data):
        try:
            self.s.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed already: that is an answer too

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.s.recv(count - len(data))
            expect(part, f"the connection ended after {len(data)} of {count} bytes")
            data += part
        return data

    def closed(self):
        """The other side ends the connection, whatever it says before that."""
        try:
            while self.s.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except socket.timeout:
            return False
        return True

    def answered_or_closed(self):
        try:
            self.s.recv(65536)
        except ConnectionResetError:
            pass
        except socket.timeout:
            return False
        return True


# ---- NBD, by its protocol document

NBD_REQUEST = struct.Struct(">IHHQQI")
READ, WRITE, TRIM, WRITE_ZEROES = 0, 1, 4, 6
EINVAL, ENOSPC = 22, 28


class Nbd(Socket):
    def __init__(self, path):
        super().__init__(path)
        greeting = self.take(18)
        expect(greeting[:16] == b"NBDMAGICIHAVEOPT", "no NBD greeting")
        self.cookie = 0

    def option(self, option, data=b"", magic=b"IHAVEOPT", length=None):
        self.send(magic + struct.pack(">II", option, len(data) if length is None else length) + data)

    def go(self, name):
        self.send(struct.pack(">I", 3))
        self.option(1, name.encode())  # EXPORT_NAME
        size, _ = struct.unpack(">QH", self.take(10))
        return size

    def request(self, command_type, offset, length, payload=b"", magic=0x25609513, flags=0):
        self.cookie += 1
        self.send(NBD_REQUEST.pack(magic, flags, command_type, self.cookie, offset, length) + payload)

    def error(self):
        """Error number of the next answer."""
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        expect(magic == 0x67446698 and cookie == self.cookie, "no simple reply to the request")
        return error


# ---- the unit under test

class Bench:
    def __init__(self, options, work):
        self.work = work
        self.bin = options.bin
        self.unit = Unit(os.path.join(work, "unit"), options.bin, [
            "--heads", "3", "--sleds", "4", "--devices", "1", "--log-bytes", "64MiB", "--meta-bytes", "32MiB", "--device-bytes", "256MiB"])
        self.image = os.path.join(work, "image")
        self.nbd = os.path.join(work, "v.sock")
        self.uri = f"nbd+unix:///v?socket={self.nbd}"
        self.pids = {}
        self.children = []
        self.mounts = []

    def path(self, *names):
        return os.path.join(self.unit.dir, *names)

    def run_socket(self, name):
        return self.path("run", name + ".s")

    def log(self, node):
        with open(self.path(node, "log"), errors="replace") as f:
            return f.read()

    def start(self):
        self.unit.run("unit", "up", "--dir", self.unit.dir, *self.unit.up_args, timeout=300)
        self.unit_number = json.load(open(self.path("unit.json")))["unit"]
        self.unit.run("volume", "create", "v", "--size", str(IMAGE_BYTES), "--layout", "2+1")
        self.unit.wait("volume v opens", lambda: self.unit.volume("v")["state"] == "open", 60)
        self.unit.run("attach", "v", "--nbd", "unix:" + self.nbd)
        with open("/dev/urandom", "rb") as random, open(self.image, "wb") as f:
            f.write(random.read(IMAGE_BYTES))
        command(["nbdcopy", self.image, self.uri], timeout=120)
        self.remember()

    def remember(self):
        self.pids = self.daemon_pids()
        expect(all(self.pids.values()), f"not all daemons run: {self.pids}")

    def daemon_pids(self):
        done = subprocess.run([self.unit.luge, "unit", "status", "--json"], env=self.unit.env, capture_output=True, text=True, timeout=60)
        return {d["name"]: d["pid"] for d in json.loads(done.stdout)["daemons"]}

    def wait_all_up(self):
        """All daemons of the unit are connected to the control plane."""
        def up():
            states = {n["name"]: n["state"] for n in self.unit.json("status")["nodes"]}
            return all(states.get(name) == "up" for name in self.pids)
        self.unit.wait("all daemons are connected", up, 60)

    def nothing_lost(self):
        now = self.daemon_pids()
        ended = [name for name in now if now[name] != self.pids.get(name)]
        if ended:
            words = "; ".join(f"{n}: {self.log(n).strip().splitlines()[-1:]}" for n in ended)
            raise CheckFailed("no-crash", f"these daemons are not what they were: {words}")
        self.whole()

    def whole(self):
        command(["qemu-img", "compare", "-f", "raw", "-F", "raw", self.image, self.uri], timeout=120, name="nothing-lost")

    def luge(self, *args, timeout=60):
        return subprocess.run([self.unit.luge, *args], env=self.unit.env, capture_output=True, text=True, timeout=timeout)

    def refused(self, code, words, *args):
        done = self.luge(*args)
        expect(done.returncode == code, f"luge {args}: exit code {done.returncode}, not {code}: {done.stderr}{done.stdout}")
        expect(done.stderr.startswith("luge: ") or code == 2, f"luge {args}: no sentence: {done.stderr}")
        expect_in(words, done.stderr, f"luge {args}")

    def api(self, method, target, body=None, raw=None):
        c = http.client.HTTPConnection("luge", timeout=30)
        c.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        c.sock.settimeout(30)
        c.sock.connect(self.run_socket("api"))
        c.request(method, target, raw if raw is not None else json.dumps(body if body is not None else {}))
        answer = c.getresponse()
        text = answer.read().decode()
        c.close()
        return answer.status, json.loads(text)

    def api_refused(self, status, words, method, target, body=None, raw=None):
        got, answer = self.api(method, target, body, raw)
        expect(got == status, f"{method} {target} {body}: {got}, not {status}: {answer}")
        expect_in(words, answer["error"]["text"], f"{method} {target} {body}")

    # A daemon that is expected to end by itself: exit code and what it said.
    def daemon_ends(self, role, *args, timeout=20, **popen):
        child = self.spawn(role, *args, stderr=subprocess.PIPE, text=True, **popen)
        try:
            _, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise CheckFailed("expectation", f"luge-{role} {args} runs on though it should have refused")
        return child.returncode, err

    def daemon_refuses(self, code, words, role, *args, **popen):
        got, err = self.daemon_ends(role, *args, **popen)
        expect(got == code, f"luge-{role} {args}: exit code {got}, not {code}: {err[-600:]}")
        expect_in(words, err, f"luge-{role} {args}")

    def spawn(self, role, *args, **popen):
        child = subprocess.Popen([os.path.join(self.bin, "luge-" + role), *args], stdin=subprocess.DEVNULL, **popen)
        self.children.append(child)
        return child

    def end(self, child):
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise CheckFailed("drain", f"{child.args[0]} does not end on SIGTERM")

    def arguments(self, role, name, number, **more):
        """Of a daemon of this unit that `luge unit` has not made."""
        home = os.path.join(self.work, name)
        os.makedirs(home, exist_ok=True)
        flags = {"id": number, "dir": os.path.join(home, "data"), "listen": "unix:" + os.path.join(home, "s"), "unit": self.unit_number}
        if role != "control":
            flags["control"] = "unix:" + self.run_socket("control")
        if role == "head":
            flags.update({"log-bytes": "64MiB", "meta-bytes": "32MiB"})
        if role == "sled":
            flags.update({"devices": os.path.join(home, "device") + ":64MiB", "column-bytes": "4MiB"})
        flags.update({k.replace("_", "-"): v for k, v in more.items()})
        return [f"--{k}={v}" for k, v in flags.items() if v is not None]

    def tmpfs(self, name, size):
        where = os.path.join(self.work, name)
        os.makedirs(where, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "luge-test", where], capture_output=True, text=True)
        if done.returncode != 0:
            raise LeftOut(f"a tmpfs cannot be mounted: {done.stderr.strip().splitlines()[0]}")
        self.mounts.append(where)
        return where

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        if os.path.exists(self.path("unit.json")):
            self.unit.run("unit", "down", timeout=180, check=False)
        for where in reversed(self.mounts):
            subprocess.run(["umount", where], check=False)


# ---- the checks

ODD_NAMES = ["", ".hidden", "a/b", "../v", "a b", "a\nb", "ä", "v;rm", "a%2fb", "x" * 65]


# Requirement: B-01
@check
def volume_names(b):
    """a volume name with odd characters or too long"""
    for name in ODD_NAMES:
        b.refused(2, "", "volume", "create", name, "--size", "1MiB", "--layout", "2+1")
        b.api_refused(400, "volume", "POST", "/v1/volumes", {"name": name, "size": MIB, "layout": "2+1"})
        b.refused(2, "", "volume", "rm", name)
    b.refused(2, "no volume's name", "attach", "../v", "--nbd", "unix:" + os.path.join(b.work, "x.sock"))
    b.api_refused(400, "volume", "GET", "/v1/volumes/..%2fv")
    b.api_refused(400, "volume", "DELETE", "/v1/volumes/.v")
    names = [v["name"] for v in b.unit.json("volume", "ls")["volumes"]]
    expect(names == ["v"], f"volumes are {names}")


# Requirement: B-02
@check
def volume_sizes(b):
    """a size of 0, not a multiple of the block, larger than the unit"""
    for size, words in (("0", "size"), ("4097", "multiple of 4096"), ("many", "--size"), ("-4096", "--size"), ("1PiB", "--size"),
                        ("99999999999999999999", "--size"), ("8TiB", "larger than the unit")):
        b.refused(2, words if size not in ("1PiB",) else "", "volume", "create", "w", "--size=" + size, "--layout", "2+1")
    for size, words in ((0, "0"), (4097, "multiple"), (-4096, "size"), (1.5, "size"), ("4096", "size"), (2**63, "beyond"), (2**64, "size"),
                        (1 << 40, "larger than the unit")):
        b.api_refused(400, words, "POST", "/v1/volumes", {"name": "w", "size": size, "layout": "2+1"})
    for layout in ("", "2", "0+1", "2+0", "17+1", "2+5", "2+1+1", "-2+1", "a+b"):
        b.api_refused(400, "layout", "POST", "/v1/volumes", {"name": "w", "size": MIB, "layout": layout})
    b.api_refused(400, "unknown member", "POST", "/v1/volumes", {"name": "w", "size": MIB, "layout": "2+1", "colour": "red"})
    b.api_refused(400, "JSON", "POST", "/v1/volumes", raw="{")
    b.refused(5, "already", "volume", "create", "v", "--size", "1MiB", "--layout", "2+1")


# Requirement: B-03
@check
def configuration(b):
    """a configuration with an unknown key, a wrong value or broken syntax"""
    home = os.path.join(b.work, "config")
    os.makedirs(home, exist_ok=True)
    for role in ("control", "head", "sled", "attach"):
        for text, words in (("lisen = \"unix:/x\"\n", ["lisen", "did you mean 'listen'"]), ("colour = 1\n", "unknown key 'colour'"),
                            ("id = \"eleven\"\n", "id"), ("id = = 3\n", "config.toml"), ("[section]\nid = 1\n", "section")):
            config = os.path.join(home, "config.toml")
            with open(config, "w") as f:
                f.write(text)
            b.daemon_refuses(2, words, role, "--config", config)
        b.daemon_refuses(2, "config", role, "--config", os.path.join(home, "none.toml"))
        b.daemon_refuses(2, "--frobnicate", role, "--frobnicate")
    expect(os.listdir(home) == ["config.toml"], f"something was made: {os.listdir(home)}")


def write_identity(directory, **fields):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "identity"), "w") as f:
        for key, value in fields.items():
            f.write(f"{key} = {json.dumps(value)}\n")


# Requirement: B-04
@check
def foreign_data_directory(b):
    """a data directory of another unit, version, role or node"""
    for role, number in (("head", 31), ("sled", 131), ("attach", 931), ("control", 3)):
        args = b.arguments(role, f"foreign-{role}", number)
        data = os.path.join(b.work, f"foreign-{role}", "data")
        good = {"format": 1, "role": role, "id": number, "unit": b.unit_number}
        for change, words in (({"unit": OTHER_UNIT}, f"storage unit {OTHER_UNIT}"), ({"format": 2}, "format version 2"),
                              ({"role": "cook"}, "belongs to a cook"), ({"id": 77}, "belongs to node 77")):
            write_identity(data, **{**good, **change})
            b.daemon_refuses(3, [words, data], role, *args)
        with open(os.path.join(data, "identity"), "w") as f:
            f.write("\0\xff{]")
        b.daemon_refuses(3, "identity", role, *args)
        expect(sorted(os.listdir(data)) == ["identity", "lock"], f"{role} wrote into a directory that is not its own: {os.listdir(data)}")


# Requirement: B-04
@check
def control_store_of_another_kind(b):
    """a control plane's store of another unit or version, or none at all"""
    import sqlite3
    args = b.arguments("control", "stores", 4, unit=None)
    data = os.path.join(b.work, "stores", "data")
    store = os.path.join(data, "control.db")
    write_identity(data, format=1, role="control", id=4, unit=0)
    with open(store, "wb") as f:
        f.write(b"this is a shopping list, not a database" * 200)
    b.daemon_refuses(1, "not a database", "control", *args)
    os.unlink(store)
    with sqlite3.connect(store) as db:
        db.execute("CREATE TABLE shopping (item TEXT)")
    db.close()
    b.daemon_refuses(1, "no configuration store of Luge", "control", *args)
    os.unlink(store)
    shutil.copy(b.path("control-1", "data", "control.db"), store)
    if os.path.exists(b.path("control-1", "data", "control.db-wal")):
        shutil.copy(b.path("control-1", "data", "control.db-wal"), store + "-wal")
    with sqlite3.connect(store) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA user_version = 99")
    db.close()
    b.daemon_refuses(3, "format 99", "control", *args)
    with sqlite3.connect(store) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    b.daemon_refuses(3, ["belongs to", str(b.unit_number)], "control", *b.arguments("control", "stores", 4, unit=OTHER_UNIT))


# Requirement: B-04
@check
def log_of_another_version_or_size(b):
    """a head's log of another format version or another size"""
    args = b.arguments("head", "old-head", 32)
    head = b.spawn("head", *args, stderr=subprocess.DEVNULL)
    log = os.path.join(b.work, "old-head", "data", "log-data")
    b.unit.wait("head-32 is up", lambda: any(n["name"] == "head-32" and n["state"] == "up" for n in b.unit.json("status")["nodes"]), 60)
    expect(b.end(head) == 0, "head-32 did not drain")
    # A larger one is made of it, and it serves.
    head = b.spawn("head", *b.arguments("head", "old-head", 32, log_bytes="128MiB"), stderr=subprocess.DEVNULL)
    b.unit.wait("the log is longer", lambda: os.stat(log).st_size == 128 << 20, 60)
    b.unit.wait("head-32 is up", lambda: any(n["name"] == "head-32" and n["state"] == "up" and n["pid"] == head.pid for n in b.unit.json("status")["nodes"]), 60)
    expect(b.end(head) == 0, "head-32 did not drain")
    # A batch of format version 2 in the segment that is in use: taken for the log of a later program, not for a torn end.
    source = b.path("head-1", "data", "log-meta")
    with open(source, "rb") as f:
        header = bytearray(f.read(4096))
    expect(header[:4] == b"LGBH", f"{source} does not begin with a batch")
    damaged = os.path.join(b.work, "copy-of-head-1")
    b.unit.run("unit", "kill", "head-1", "--signal", "TERM")
    b.unit.wait("head-1 has drained", lambda: b.daemon_pids()["head-1"] == 0, 30)
    shutil.copytree(b.path("head-1", "data"), damaged)
    b.unit.run("unit", "start", "head-1")
    b.pids["head-1"] = b.daemon_pids()["head-1"]
    with open(os.path.join(damaged, "log-meta"), "r+b") as f:
        used, = struct.unpack_from("<I", header, 12)
        f.seek(0)
        area = bytearray(f.read(used))
        struct.pack_into("<H", area, 4, 2)
        struct.pack_into("<I", area, 60, 0)
        struct.pack_into("<I", area, 60, crc32c(area))
        f.seek(0)
        f.write(area)
    copy = b.arguments("head", "copy-socket", 11, dir=damaged)
    b.daemon_refuses(3, ["log-meta", "format version 2"], "head", *copy)
    os.truncate(os.path.join(damaged, "log-meta"), 1 << 20)
    b.daemon_refuses(1, ["log-meta", "beyond the end of the file"], "head", *copy)


# Requirement: B-05
@check
def devices(b):
    """a device that is too small, in use, another's, not blank, or of another version"""
    home = os.path.join(b.work, "devices")
    os.makedirs(home, exist_ok=True)

    def refuses(code, words, device, number=141):
        shutil.rmtree(os.path.join(home, "data"), ignore_errors=True)
        b.daemon_refuses(code, words, "sled", *b.arguments("sled", "devices", number, devices=device))

    small = os.path.join(home, "small")
    refuses(1, ["small", "too small", "at least"], small + ":1MiB")
    refuses(1, "too small", small)
    foreign = b.path("sled-1", "device-0")
    refuses(1, ["device-0", "in use"], foreign)
    missing = os.path.join(home, "missing")
    refuses(1, "missing", missing)
    refuses(1, "Is a directory", home)
    # Not blank: somebody's data at the beginning, or at the end.
    for at in (0, 63 * MIB + 5):
        used = os.path.join(home, "used")
        with open(used, "wb") as f:
            f.truncate(64 * MIB)
            f.seek(at)
            f.write(b"precious")
        refuses(1, ["not blank"], used)
        with open(used, "rb") as f:
            f.seek(at)
            expect(f.read(8) == b"precious", "data that was not ours has been overwritten")
    # A device of this unit's sled 101, away from its sled; then of another unit, then of another version.
    copy = os.path.join(home, "copy")
    command(["cp", "--sparse=always", foreign, copy])
    refuses(1, ["device 0 of sled 101", "sled 141"], copy)

    def stamp(**change):
        for at in (0, 65536):
            with open(copy, "r+b") as f:
                f.seek(at)
                block = bytearray(f.read(56))  # docs/formats.md, "Device of a sled"
                if "unit" in change:
                    struct.pack_into("<Q", block, 8, change["unit"])
                if "version" in change:
                    struct.pack_into("<I", block, 4, change["version"])
                struct.pack_into("<I", block, 40, 0)
                struct.pack_into("<I", block, 40, crc32c(block))
                f.seek(at)
                f.write(block)

    stamp(unit=OTHER_UNIT)
    refuses(3, f"belongs to storage unit {OTHER_UNIT}", copy)
    stamp(unit=b.unit_number, version=7)
    refuses(3, "format 7", copy)
    # One bad device of two is left out; the sled serves the other.
    good = os.path.join(home, "good")
    args = b.arguments("sled", "devices", 142, devices=None)
    shutil.rmtree(os.path.join(home, "data"), ignore_errors=True)
    sled = b.spawn("sled", *args, "--devices", foreign, "--devices", good + ":64MiB", stderr=subprocess.DEVNULL)
    b.unit.wait("sled-142 is up with one device of two", lambda: any(
        n["name"] == "sled-142" and [d["state"] for d in n["devices"]] == ["in_use", "ok"] for n in b.unit.json("status")["nodes"]), 30)
    b.end(sled)


# Requirement: B-05, P-8.2
@check
def known_devices(b):
    """a device that the sled knows is gone, or blank, or an old one: it is not made anew unless an operator says so"""
    home = os.path.join(b.work, "known")
    device = os.path.join(home, "device")
    args = b.arguments("sled", "known", 143)  # PATH:SIZE, which makes the file the first time

    def serves(*more):
        sled = b.spawn("sled", *args, *more, stderr=subprocess.DEVNULL)
        b.unit.wait("sled-143 is up with its device", lambda: any(
            n["name"] == "sled-143" and n["pid"] == sled.pid and [d["state"] for d in n["devices"]] == ["ok"] for n in b.unit.json("status")["nodes"]), 30)
        b.end(sled)

    serves()
    os.rename(device, device + ".old")
    b.daemon_refuses(1, ["known/device", "device 0 of sled 143", "--replace-device 0"], "sled", *args)
    expect(not os.path.exists(device), "the device has been made anew")
    with open(device, "wb") as f:
        f.truncate(64 * MIB)
    b.daemon_refuses(1, ["wiped", "--replace-device 0"], "sled", *args)
    os.unlink(device)
    b.daemon_refuses(1, ["replace-device: '1' is no device"], "sled", *args, "--replace-device", "1")
    serves("--replace-device", "0")
    serves()
    os.replace(device + ".old", device)
    b.daemon_refuses(1, ["earlier life", "--replace-device 0"], "sled", *args)


# Requirement: B-03, P-8.7
@check
def coders(b):
    """a card or OpenCL device that cannot be, or is not there: said in words; the sled serves without it"""
    args = b.arguments("sled", "coders", 144)
    for more, words in ((["--card", "gpu"], "card is 'none', 'native', 'rtl' or 'hw'"), (["--coding", "cuda"], "coding is 'isal'"),
                        (["--card", "native", "--coding", "opencl"], "either a card or an OpenCL device"), (["--verify", "some"], "verify is 'all' or 'sample'"),
                        (["--card", "native", "--card-timeout", "1ms"], "card-timeout is from")):
        b.daemon_refuses(1, words, "sled", *args, *more)

    def serves_without(words, *more, **env):
        sled = b.spawn("sled", *args, *more, stderr=subprocess.DEVNULL, env=dict(os.environ, **env))
        node = lambda: next((n for n in b.unit.json("status")["nodes"] if n["name"] == "sled-144" and n["pid"] == sled.pid and n["state"] == "up" and "coding" in n), None)
        b.unit.wait("sled-144 is up", lambda: node() is not None, 60)
        b.unit.wait("its coder has been tried", lambda: (n := node()) and n["coding"]["state"] != "opening", 60)
        shown = node()
        expect(shown["coding"]["state"] == "out" and shown["coder"] == "isal", f"{more}: {shown['coding']}")
        expect_in(words, shown["coding"]["last_fault"], f"sled {more}")
        expect_in([*words, "sled-144"], b.unit.run("status"), f"luge status with sled {more}")
        b.end(sled)

    serves_without(["finds no driver"], "--coding", "opencl", OCL_ICD_VENDORS="/nonexistent")
    serves_without(["no device for 'warp drive'", "another name"], "--coding", "opencl:warp drive")
    serves_without(["/nonexistent"], "--card", "native", LUGE_XRT="/nonexistent")
    serves_without(["name the xclbin"], "--card", "hw")


# Requirement: B-06
@check
def two_daemons_on_one_directory(b):
    """two daemons on one directory, or on one address"""
    for role, node in (("control", "control-1"), ("head", "head-1"), ("sled", "sled-1"), ("attach", "attach-1")):
        config = b.path(node, "config.toml")
        b.daemon_refuses(3, ["in use by another process", b.path(node, "data")], role, "--config", config)
    # The same address under another directory.
    taken = "unix:" + b.run_socket("h1")
    b.daemon_refuses(1, "h1.s", "head", *b.arguments("head", "taken", 33, listen=taken))
    # The same node number: the second is refused by the control plane, the first keeps its place.
    done = b.spawn("head", *b.arguments("head", "twin", 11), stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    nodes = {n["name"]: n for n in b.unit.json("status")["nodes"]}
    expect(nodes["head-1"]["pid"] == b.pids["head-1"], f"head-1 is now process {nodes['head-1']['pid']}")
    done.kill()
    words = done.communicate()[1]
    expect_in(["node id 11 is head-1", "an id of its own"], words, "what the twin was told")


def fill(directory, leave=0):
    """Fills the file system up to `leave` bytes."""
    path = os.path.join(directory, "filler")
    with open(path, "wb", buffering=0) as f:
        block = b"x" * 4096
        try:
            while True:
                f.write(block * 16)
        except OSError:
            pass
        try:
            while True:
                f.write(block)
        except OSError:
            pass
    if leave:
        os.truncate(path, max(0, os.stat(path).st_size - leave))
    return path


# Requirement: P-3.3
@check
def copies_that_are_needed(b):
    """a copy is to be moved away that the volume cannot do without, or to where it cannot go"""
    b.refused(4, "there is no head head-9", "volume", "move", "v", "--from", "head-9")
    b.refused(4, "there is no volume", "volume", "move", "w", "--from", "head-1")
    b.refused(5, "has a copy already", "volume", "move", "v", "--from", "head-1", "--to", "head-2")
    b.refused(6, "no other head is there", "volume", "move", "v", "--from", "head-1")
    b.api_refused(400, "'from'", "POST", "/v1/volumes/v/move", {})
    before = b.unit.json("volume", "show", "v")
    lost = before["reserves"][0]
    b.unit.run("unit", "kill", lost)
    b.unit.wait("writes do not wait for the lost head", lambda: len(b.unit.json("volume", "show", "v")["required"]) == 2, 30)
    for head in (before["primary"], before["reserves"][1]):
        b.refused(5, [head + " keeps its copy", "1 whole copy would be left of at least 2", "MiB that are on no sled"], "volume", "move", "v", "--from", head)
    b.whole()
    b.unit.run("unit", "start", lost)
    b.unit.wait("all copies are there", lambda: len(b.unit.json("volume", "show", "v")["required"]) == 3, 60)
    b.remember()


# Requirement: B-07
@check
def full_disk_of_a_head(b):
    """a full disk: a head's log does not fit"""
    where = b.tmpfs("full-head", "40m")
    args = b.arguments("head", "fits-not", 34, dir=os.path.join(where, "data"))
    b.daemon_refuses(1, ["log-data", "No space left on device"], "head", *args)
    left = sorted(os.listdir(os.path.join(where, "data")))
    expect("log-data" not in left and not [n for n in left if n.endswith(".making")], f"a half-made log was left behind: {left}")
    command(["mount", "-o", "remount,size=200m", where], name="tmpfs")
    head = b.spawn("head", *args, stderr=subprocess.DEVNULL)
    b.unit.wait("head-34 comes up when there is space", lambda: any(
        n["name"] == "head-34" and n["state"] == "up" for n in b.unit.json("status")["nodes"]), 60)
    b.end(head)


# Requirement: B-07, P-8.5
@check
def full_disk_of_a_sled(b):
    """a full disk: a sled's device (a sparse file) cannot grow"""
    where = b.tmpfs("full-sled", "24m")
    args = b.arguments("sled", "full", 151, devices=os.path.join(where, "device") + ":256MiB")
    log = open(os.path.join(b.work, "full", "log"), "w")
    sled = b.spawn("sled", *args, stderr=log)

    def node():
        return next((n for n in b.unit.json("status")["nodes"] if n["name"] == "sled-151"), None)

    b.unit.wait("sled-151 is up", lambda: node() is not None and node()["state"] == "up", 30)
    b.unit.run("volume", "create", "wide", "--size", "160MiB", "--layout", "3+2")
    b.unit.wait("volume wide opens", lambda: b.unit.volume("wide")["state"] == "open", 30)
    path = os.path.join(b.work, "wide.sock")
    b.unit.run("attach", "wide", "--nbd", "unix:" + path)
    image = os.path.join(b.work, "wide.img")
    with open("/dev/urandom", "rb") as random, open(image, "wb") as f:
        for _ in range(10):
            f.write(random.read(16 * MIB))
    uri = f"nbd+unix:///wide?socket={path}"
    command(["nbdcopy", image, uri], timeout=240)
    b.unit.run("volume", "flush", "wide", "--wait", "--timeout", "120", timeout=140)
    shown = b.unit.volume("wide")
    expect(shown["unflushed_bytes"] == 0, f"not flushed: {shown}")
    device = node()["devices"][0]
    expect(device["state"] == "failed" and "No space left" in device.get("reason", ""), f"the full device is shown as {device}")
    expect(shown["degraded_stripes"] > 0, f"no stripe is degraded though a sled took no more: {shown}")
    command(["qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri], timeout=120, name="nothing-lost")
    expect(sled.poll() is None, "the sled has ended")
    b.unit.run("detach", "wide")
    b.unit.run("volume", "rm", "wide")
    os.unlink(image)
    b.end(sled)
    log.close()


# Requirement: B-07
@check
def full_disk_of_the_control_plane(b):
    """a full disk: the control plane's store cannot grow"""
    where = b.tmpfs("full-control", "24m")
    data = b.path("control-1", "data")
    b.unit.run("unit", "kill", "control-1", "--signal", "TERM")
    b.unit.wait("control-1 has drained", lambda: b.daemon_pids()["control-1"] == 0, 30)
    shutil.move(data, os.path.join(where, "data"))
    os.symlink(os.path.join(where, "data"), data)
    b.unit.run("unit", "start", "control-1")
    try:
        b.wait_all_up()
        filler = fill(where)
        for n in range(300):  # until what SQLite had set aside is used up
            status, answer = b.api("POST", "/v1/volumes", {"name": f"f{n}", "size": MIB, "layout": "2+1"})
            if status != 201:
                break
        expect(status == 507 and "make space" in answer["error"]["text"], f"volume {n} on a full disk: {status} {answer}")
        b.whole()
        os.unlink(filler)
        b.unit.run("volume", "create", "after", "--size", "1MiB", "--layout", "2+1")
        for v in b.unit.json("volume", "ls")["volumes"]:
            if v["name"] != "v":
                b.unit.run("volume", "rm", v["name"])
    finally:
        b.unit.run("unit", "kill", "control-1", "--signal", "TERM")
        b.unit.wait("control-1 has drained", lambda: b.daemon_pids()["control-1"] == 0, 30)
        os.unlink(data)
        shutil.move(os.path.join(where, "data"), data)
        b.unit.run("unit", "start", "control-1")
        b.pids["control-1"] = b.daemon_pids()["control-1"]
        b.wait_all_up()


# Requirement: B-07
@check
def full_disk_under_the_logs(b):
    """a full disk: what a daemon says of itself has no place"""
    with open("/dev/full", "w") as full:
        head = b.spawn("head", *b.arguments("head", "mute", 35), stderr=full, stdout=full)
        b.unit.wait("head-35 is up though it cannot log", lambda: any(
            n["name"] == "head-35" and n["state"] == "up" for n in b.unit.json("status")["nodes"]), 60)
        expect(b.end(head) == 0, "head-35 did not drain")


# Requirement: B-08
@check
def nbd_requests(b):
    """NBD requests out of range or with wrong magic"""
    for wrong in (lambda n: n.send(struct.pack(">I", 0x80000000)),                       # flags that do not exist
                  lambda n: (n.send(struct.pack(">I", 3)), n.option(7, b"x", magic=b"IHAVEOPS")),
                  lambda n: (n.send(struct.pack(">I", 3)), n.option(7, length=0xFFFFFFFF))):
        with Nbd(b.nbd) as n:
            wrong(n)
            expect(n.closed(), "the negotiation went on after nonsense")
    with Nbd(b.nbd) as n:
        n.send(struct.pack(">I", 3))
        n.option(7, struct.pack(">I", 4) + b"none" + struct.pack(">H", 0))  # GO to an export that is not there
        magic, option, kind, length = struct.unpack(">QIII", n.take(20))
        expect(kind == 0x80000006, f"GO to no such export: answer {kind:#x}")
        expect_in("no export", n.take(length).decode(), "GO to no such export")
    with Nbd(b.nbd) as n:
        size = n.go("v")
        expect(size == IMAGE_BYTES, f"size {size}")
        for kind, offset, length in ((READ, size, 4096), (READ, size - 512, 1024), (READ, 2**64 - 512, 512), (READ, 0, 0), (READ, 0, 0xFFFFFFFF),
                                     (READ, 0, 64 * MIB), (TRIM, size, 4096), (WRITE_ZEROES, size - 4096, 8192), (TRIM, 2**63, 4096), (99, 0, 512)):
            n.request(kind, offset, length)
            error = n.error()
            good = {EINVAL, ENOSPC} if kind == WRITE_ZEROES else {EINVAL, 0} if length == 0 else {EINVAL}
            expect(error in good, f"command {kind} at {offset} +{length}: error {error}")
        for offset, length in ((size, 4096), (size - 1024, 4096), (2**64 - 4096, 4096)):
            n.request(WRITE, offset, length, b"w" * length)
            error = n.error()
            expect(error in (EINVAL, ENOSPC), f"write at {offset} +{length}: error {error}")
        n.request(READ, 0, 512)  # the stream is still in step
        expect(n.error() == 0, "a good request after bad ones failed")
        with open(b.image, "rb") as f:
            expect(n.take(512) == f.read(512), "the first sector is another")
        n.request(READ, 0, 512, magic=0x25609514)
        expect(n.closed(), "a request with wrong magic did not end the connection")
    with Nbd(b.nbd) as n:
        n.go("v")
        n.request(WRITE, 0, 0xFFFFFFFF)
        expect(n.closed(), "a write of 4 GiB did not end the connection")
    with Nbd(b.nbd) as n:  # half a write: what was announced and never came is not written
        n.go("v")
        n.request(WRITE, 0, 65536, b"half" * 1000)
    log = b.log("attach-1")
    for words in ("unknown handshake flags", "magic"):
        expect_in(words, log, "the log of attach-1")


# What is no frame, and the words with which a daemon says so in its log. The control plane hears strangers out until they
# register: it is there that they are told which unit this is.
def bad_frames(node):
    nonsense = b"\x7f" * 64
    return [
        (b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64, "wrong magic"),
        (frame(FENCE, nonsense, magic=0x31475541), "wrong magic"),
        (frame(FENCE, nonsense, version=9), "version 9"),
        (frame(FENCE, b"", body_bytes=0xFFFFFFFF), "absurd size"),
        (frame(FENCE, b"", payload_bytes=0xFFFFFFFF), "absurd size"),
        (frame(FENCE, nonsense, crc=1), "checksum"),
        (frame(FENCE, nonsense, unit=OTHER_UNIT), "did not register" if node == "control-1" else "another storage unit"),
    ]


# Requirement: B-09
@check
def frames_that_fail_verification(b):
    """frames that fail verification"""
    for name, node in (("control", "control-1"), ("h1", "head-1"), ("s1", "sled-1")):
        for data, words in bad_frames(node):
            before = b.log(node).count(words)
            with Socket(b.run_socket(name)) as s:
                s.send(data)
                expect(s.closed(), f"{node} goes on after a frame with '{words}'")
            expect(b.log(node).count(words) > before, f"{node} says nothing of '{words}': {b.log(node)[-300:]}")
        # Right checksum, and a body that is not what its kind says; kinds that do not exist; a body cut off.
        for kind in [*range(80), 9999]:
            with Socket(b.run_socket(name)) as s:
                s.send(frame(kind, b"\x7f" * 64, unit=b.unit_number))
                expect(s.answered_or_closed(), f"{node} neither answers a body that does not verify, kind {kind}, nor ends the connection")
        with Socket(b.run_socket(name)) as s:
            s.send(frame(FENCE, b"\x7f" * 4096, unit=b.unit_number)[:100])
        many = [Socket(b.run_socket(name)) for _ in range(50)]  # connections that say nothing hold up nobody
        for s in many:
            s.s.close()
    for junk in (b"\0" * 4096, b"GET /v1/status HTTP/9.9\r\n\r\n", b"POST /v1/volumes HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
                 b"A" * 100000):
        with Socket(b.run_socket("api"), timeout=15) as s:
            s.send(junk)
            s.s.shutdown(socket.SHUT_WR)
            expect(s.closed(), f"the API does not end a connection with {junk[:30]}")


def two_numbers(first, second):
    """A flatbuffer table of two u64 and nothing else: Fence, ListColumns and ReleaseColumns with VP and epoch, without a designation."""
    return struct.pack("<IHHHHiQQ", 12, 8, 20, 4, 12, 8, first, second)


# Requirement: FN-03
@check
def forged_designations(b):
    """who asks a sled for changes without a designation that was signed"""
    list_columns, columns, release, fence_reply, reply, forged = 42, 43, 46, 41, 1, struct.pack("<H", 18)
    vp = 1 << 16
    for kind, answer in ((FENCE, fence_reply), (list_columns, columns), (release, reply)):
        with Socket(b.run_socket("s1")) as s:
            s.send(frame(kind, two_numbers(vp, 1 << 40 if kind == FENCE else b.unit.volume("v")["epoch"]), unit=b.unit_number))
            header = FRAME.unpack(s.take(FRAME.size))
            body = s.take(header[3])
            expect(header[2] == answer and (forged in body or kind != FENCE), f"a sled answers kind {kind} with kind {header[2]}: {body}")
    b.unit.wait("status has an alarm", lambda: any("sled-1 has refused" in a for a in b.unit.json("status")["alarms"]), 10)
    expect_in("no designation is presented", str(b.unit.json("status")["alarms"]), "the alarm")


# Requirement: B-10
@check
def peers_of_another_unit(b):
    """a peer that sends another unit's messages"""
    for role, number in (("head", 36), ("sled", 136), ("attach", 936)):
        child = b.spawn(role, *b.arguments(role, f"stranger-{role}", number, unit=OTHER_UNIT), stderr=subprocess.PIPE, text=True)
        time.sleep(3)
        names = [n["name"] for n in b.unit.json("status")["nodes"]]
        expect(f"{role}-{number}" not in names, f"{role}-{number} of unit {OTHER_UNIT} was taken in: {names}")
        child.kill()
        words = child.communicate()[1]
        expect_in([str(b.unit_number), str(OTHER_UNIT)], words, f"what {role}-{number} was told")
    expect_in(f"registration refused: this control plane serves unit {b.unit_number}, the daemon's data belongs to unit {OTHER_UNIT}",
              b.log("control-1"), "the log of control-1")


# Requirement: B-11
@check
def io_uring_forbidden(b):
    """io_uring forbidden: file I/O by threads, one line says so"""
    for error, words in ((1, "Operation not permitted"), (38, "Function not implemented")):
        b.unit.run("unit", "down", timeout=120)
        sizes = {n: len(b.log(n)) for n in b.pids}
        done = subprocess.run([b.unit.luge, "unit", "up", "--dir", b.unit.dir], env=b.unit.env, capture_output=True, text=True, timeout=300,
                              preexec_fn=lambda: forbid.system_call(forbid.IO_URING_SETUP, error))
        expect(done.returncode == 0, f"the unit does not come up: {done.stderr}")
        b.unit.wait("volume v opens", lambda: b.unit.volume("v")["state"] == "open", 60)
        b.remember()
        for node in b.pids:
            said = [line for line in b.log(node)[sizes[node]:].splitlines() if "io_uring" in line]
            expect(len(said) == 1 or (not said and not node.startswith(("head", "sled"))), f"{node} says of io_uring: {said}")
            for line in said:
                expect_in([words, "file I/O uses threads"], line, node)
        command(["nbdcopy", b.image, b.uri], timeout=120)
        b.unit.run("volume", "flush", "v", "--wait", timeout=120)
        b.whole()
    b.unit.run("unit", "down", timeout=120)
    b.unit.run("unit", "up", "--dir", b.unit.dir, timeout=300)
    b.unit.wait("volume v opens", lambda: b.unit.volume("v")["state"] == "open", 60)
    b.remember()


# Requirement: MC-01, WR-12
@check
def the_logs_can_be_read(b):
    """`luge debug log` on the logs that all of this has left"""
    b.unit.run("volume", "flush", "v", "--wait", timeout=120)
    seen, vps = set(), set()
    for n in (1, 2, 3):
        for file in ("log-data", "log-meta", "meta"):
            path = b.path(f"head-{n}", "data", file)
            text = b.unit.run("debug", "log", path, timeout=120)
            lines = b.unit.run("debug", "log", path, "--json", timeout=120).splitlines()
            objects = [json.loads(line) for line in lines]
            expect(text and objects, f"{path}: nothing was printed")
            records = [o for o in objects if o["type"] == "record"]
            # Volume data in one portion and metadata in the other, each shared by all VPs.
            expect(file == "meta" or all((o["kind"] == "data") == (file == "log-data") for o in records), f"{path}: records of the other portion")
            vps |= {(path, o["vp"]) for o in records if o["kind"] == "data"}
            expect(all(o["lsn"] > 0 and o["blocks"] > 0 and "lba" in o for o in records if o["kind"] == "data"), f"{path}: a record without its place")
            seen |= {o.get("kind") for o in objects if o["type"] == "record"}
            seen |= {o["key"].split("/")[0] for o in objects if o["type"] == "pair"}
    for kind in ("data", "index", "epoch_start", "session_open", "designation", "segment"):
        expect(kind in seen, f"no {kind} among {sorted(map(str, seen))}")
    paths = [path for path, _ in vps]
    expect(any(paths.count(path) > 1 for path in paths), f"no log has records of two VPs: {vps}")


def run_checks(bench, only):
    failed, left_out = [], []
    for function in CHECKS:
        if only and only not in function.__name__:
            continue
        begin = time.time()
        try:
            function(bench)
            bench.nothing_lost()
            verdict = "ok"
        except LeftOut as e:
            verdict = f"LEFT OUT: {e}"
            left_out.append(function.__name__)
        except CheckFailed as e:
            verdict = f"FAILED ({e.name}): {e}"
            failed.append(function.__name__)
        print(f"{time.time() - begin:6.1f} s  {function.__name__}: {function.__doc__.splitlines()[0]}: {verdict}", flush=True)
    return failed, left_out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir")
    parser.add_argument("--only")
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work = options.dir or tempfile.mkdtemp(prefix="luge-bad-", dir="/var/tmp")
    os.makedirs(work, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bench = Bench(options, work)
    try:
        bench.start()
        failed, left_out = run_checks(bench, options.only)
    finally:
        bench.stop()
    if not failed:
        shutil.rmtree(work, ignore_errors=True)
    if left_out:
        print(f"left out: {' '.join(left_out)}")
    print("all checks held that were made" if not failed else f"failed: {' '.join(failed)}; logs are in {work}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
