#!/usr/bin/env python3
"""NBD against a real unit, with clients that are not ours: what is mapped (nbdinfo, qemu-img), several volumes at one address,
a volume that grows, and TLS.

  tests/e2e/nbd.py --build build [--dir D]
"""
import argparse
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "chaos"))
from chaos_unit import CheckFailed, ChaosUnit, command  # noqa: E402

MIB = 1 << 20


def expect(condition, text):
    if not condition:
        raise CheckFailed("expectation", text)


def certificates(directory):
    """An authority and a server that it has signed, for 127.0.0.1; with openssl."""
    run = lambda *a: command(["openssl", *a])
    p = lambda name: os.path.join(directory, name)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=authority",
        "-keyout", p("ca-key.pem"), "-out", p("ca-cert.pem"))
    run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost", "-keyout", p("key.pem"), "-out", p("request.pem"))
    with open(p("extensions"), "w") as f:
        f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    run("x509", "-req", "-in", p("request.pem"), "-CA", p("ca-cert.pem"), "-CAkey", p("ca-key.pem"), "-CAcreateserial", "-days", "2", "-extfile", p("extensions"), "-out", p("cert.pem"))
    client = p("client")
    os.makedirs(client)
    shutil.copy(p("ca-cert.pem"), client)
    return p("cert.pem"), p("key.pem"), client


def grow(unit):
    """a volume grows while it is written to, inside its partition and by new ones, and keeps what it has; smaller is refused"""
    uri = unit.uri("disk")
    load = subprocess.Popen(["fio", "--name=grow", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k", "--iodepth=8", "--size=64m", "--time_based", "--runtime=8",
                             "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--verify_state_save=0"], cwd=unit.dir, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for size in (1100 * MIB, 1536 * MIB, 2048 * MIB + 8192):
        unit.run("volume", "resize", "disk", "--size", str(size))
        expect(command(["nbdinfo", "--size", uri]).strip() == str(size), f"not {size} bytes after the resize")
        text = command(["qemu-io", "-f", "raw", "-c", f"write -P 77 {size - 8192} 8192", "-c", f"read -P 77 {size - 8192} 8192", uri])
        expect("failed" not in text, text)
    _, err = load.communicate(timeout=120)
    expect(load.returncode == 0, f"fio while the volume grew: {err[-500:]}")
    refused = subprocess.run([unit.luge, "--api", unit.api, "volume", "resize", "disk", "--size", "1GiB"], capture_output=True, text=True)
    expect(refused.returncode == 2 and "larger" in refused.stderr, f"shrinking: {refused.returncode} {refused.stderr}")
    unit.kill(*unit.daemons)
    unit.start()
    unit.wait_up()
    unit.wait("the volume is back at its new size", lambda: command(["nbdinfo", "--size", uri]).strip() == str(2048 * MIB + 8192), 30)
    text = command(["qemu-io", "-f", "raw", "-c", f"read -P 77 {1100 * MIB - 8192} 8192", "-c", f"read -P 77 {1536 * MIB - 8192} 8192", "-c", f"read -P 77 {2048 * MIB} 8192", uri])
    expect("failed" not in text, text)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def mapped(uri):
    """[(offset, length, data)] as nbdinfo tells it."""
    rows = json.loads(command(["nbdinfo", "--map", "--json", uri]))
    return [(r["offset"], r["length"], r["type"] == 0) for r in rows]


def merged(rows):
    out = []
    for offset, length, data in rows:
        if out and out[-1][2] == data:
            out[-1] = (out[-1][0], out[-1][1] + length, data)
        else:
            out.append((offset, length, data))
    return out


def what_is_mapped(unit):
    """holes, data, trims and zeroes; in the log, on the sleds, and after all heads have restarted"""
    uri = unit.uri("disk")
    expect(merged(mapped(uri)) == [(0, 1024 * MIB, False)], f"a new volume is one hole: {mapped(uri)}")
    command(["qemu-io", "-f", "raw", "-c", "write -P 7 8M 4M", "-c", "write -P 9 300M 1M", "-c", "write -P 1 1000k 512", "-c", "write -P 8 900M 8k", uri])
    expected = [(0, 1000 << 10, False), (1000 << 10, 4096, True), ((1000 << 10) + 4096, 8 * MIB - (1000 << 10) - 4096, False), (8 * MIB, 4 * MIB, True), (12 * MIB, 288 * MIB, False),
                (300 * MIB, MIB, True), (301 * MIB, 599 * MIB, False), (900 * MIB, 8192, True), (900 * MIB + 8192, 124 * MIB - 8192, False)]
    expect(merged(mapped(uri)) == expected, f"in the log: {merged(mapped(uri))}")
    unit.run("volume", "flush", "disk", "--wait")
    expect(merged(mapped(uri)) == expected, f"on the sleds: {merged(mapped(uri))}")
    command(["qemu-io", "-f", "raw", "-c", "discard 8M 1M", "-c", "write -z -u 300M 512k", uri])
    expected[3:6] = [(9 * MIB, 3 * MIB, True), (12 * MIB, 288 * MIB + (512 << 10), False), (300 * MIB + (512 << 10), 512 << 10, True)]
    expected[2] = ((1000 << 10) + 4096, 9 * MIB - (1000 << 10) - 4096, False)
    expect(merged(mapped(uri)) == expected, f"after a trim and zeroes: {merged(mapped(uri))}")
    heads = [d.name for d in unit.of_role("head")]
    unit.kill(*heads)
    unit.start(*heads)
    expect(merged(mapped(uri)) == expected, f"after all heads have restarted: {merged(mapped(uri))}")
    rows = json.loads(command(["qemu-img", "map", "-f", "raw", "--output=json", uri]))
    expect(merged([(r["start"], r["length"], r["data"]) for r in rows]) == expected, f"qemu-img map: {rows}")
    # Only data is copied, and all of it.
    copy, whole = os.path.join(unit.dir, "copy"), os.path.join(unit.dir, "whole")
    command(["nbdcopy", uri, copy])
    expect(os.stat(copy).st_blocks * 512 <= 8 * MIB, "the copy of a sparse volume is not sparse")
    command(["nbdcopy", "--no-extents", uri, whole])
    command(["cmp", copy, whole])


def one_address(unit, port):
    """two volumes at one TCP address, chosen by name; NBD's list has both; one leaves, the other stays"""
    for name in ("a", "b"):
        unit.run("volume", "create", name, "--size", "64MiB", "--layout", "4+2")
        unit.wait(f"volume {name} opens", lambda: unit.volume(name)["state"] == "open", 30)
        unit.run("attach", name, "--nbd", f"tcp:127.0.0.1:{port}", "--node", "attach-1")
    names = sorted(e["export-name"] for e in json.loads(command(["nbdinfo", "--list", "--json", f"nbd://127.0.0.1:{port}"]))["exports"])
    expect(names == ["a", "b"], f"listed: {names}")
    for name, byte in (("a", 65), ("b", 66)):
        command(["qemu-io", "-f", "raw", "-c", f"write -P {byte} 0 1M", f"nbd://127.0.0.1:{port}/{name}"])
    for name, byte in (("a", 65), ("b", 66)):
        text = command(["qemu-io", "-f", "raw", "-c", f"read -P {byte} 0 1M", f"nbd://127.0.0.1:{port}/{name}"])
        expect("failed" not in text, text)
    unit.run("detach", "a")
    expect(subprocess.run(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/a"], capture_output=True).returncode != 0, "a detached volume is still served")
    command(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/b"])
    unit.kill("attach-1")
    unit.start("attach-1")
    unit.wait("the export is back", lambda: command(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/b"]).strip() == str(64 * MIB), 20)


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) << 10


def transmission(port, name):
    """A raw connection that has finished its handshake."""
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    s.recv(18, socket.MSG_WAITALL)
    body = struct.pack(">I", len(name)) + name.encode() + struct.pack(">H", 0)
    s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(body)) + body)
    while True:
        kind, length = struct.unpack(">II", s.recv(20, socket.MSG_WAITALL)[12:])
        s.recv(length, socket.MSG_WAITALL) if length else None
        if kind == 1:
            return s
        expect(kind == 3, f"option reply {kind:x}")


def hostile_clients(unit, port):
    """a thousand silent connections over TCP, two hundred with half a request of 32 MiB: others are served, memory stays bounded, and their ends are clean"""
    pid = unit.daemons["attach-1"].process.pid
    before, open_sockets = resident_bytes(pid), []
    try:
        for i in range(1000):
            s = socket.create_connection(("127.0.0.1", port), timeout=20)
            if i % 3 == 1:
                s.sendall(struct.pack(">I", 3) + b"IHAV")
            open_sockets.append(s)
        halves = [transmission(port, "b") for _ in range(200)]
        open_sockets += halves
        for i, s in enumerate(halves):
            header = struct.pack(">IHHQQI", 0x25609513, 0, 1, i, 0, 32 << 20)
            s.sendall(header[:5 + i % 20] if i % 2 else header + bytes(1000))
        begin = time.time()
        text = command(["qemu-io", "-f", "raw", "-c", "write -P 66 0 1M", "-c", "read -P 66 0 1M", f"nbd://127.0.0.1:{port}/b"])
        expect("failed" not in text, text)
        expect(time.time() - begin < 10, "an honest client was kept waiting")
        grown = resident_bytes(pid) - before
        expect(grown < 256 * MIB, f"the attach daemon has grown by {grown >> 20} MiB")
    finally:
        for s in open_sockets:
            s.close()
    unit.wait("they are forgotten", lambda: len(os.listdir(f"/proc/{pid}/fd")) < 100, 20)
    text = command(["qemu-io", "-f", "raw", "-c", "read -P 66 0 1M", f"nbd://127.0.0.1:{port}/b"])
    expect("failed" not in text, "half a write was done: " + text)


# Requirement: B-12
def over_tls(unit, port, client):
    """a volume at a tls: address: nothing without TLS, everything with it"""
    unit.run("detach", "b")
    said = unit.run("attach", "b", "--nbd", f"tls:127.0.0.1:{port}", "--node", "attach-1")
    expect(f"nbds://127.0.0.1:{port}/b" in said, said)
    expect(subprocess.run(["nbdinfo", f"nbd://127.0.0.1:{port}/b"], capture_output=True).returncode != 0, "served without TLS")
    uri = f"nbds://127.0.0.1:{port}/b?tls-certificates={client}"
    source, back = os.path.join(unit.dir, "in"), os.path.join(unit.dir, "out")
    with open(source, "wb") as f:
        f.write(os.urandom(20 * MIB))
        f.truncate(64 * MIB)
    command(["nbdcopy", source, uri])
    command(["nbdcopy", uri, back])
    command(["cmp", source, back])
    refused = subprocess.run([unit.luge, "--api", unit.api, "attach", "a", "--nbd", "tls:127.0.0.1:1", "--node", "attach-2"], capture_output=True, text=True)
    expect(refused.returncode != 0 and "--tls-certificate" in refused.stderr, f"an attach daemon without certificates: {refused.stderr}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--dir", default="/var/tmp")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))  # for this process and the daemons it starts
    work = tempfile.mkdtemp(prefix="nbd-", dir=options.dir)
    certificate, key, client = certificates(work)
    unit = ChaosUnit(os.path.join(work, "u"), os.path.abspath(options.build), vp_bytes="512MiB")
    with open(os.path.join(unit.dir, "attach-1", "config.toml"), "a") as f:
        f.write(f"tls-certificate = {json.dumps(certificate)}\ntls-key = {json.dumps(key)}\n")
    ports = free_ports(2)
    try:
        unit.start()
        unit.wait_up()
        unit.make_volume("disk", "attach-1", "1GiB")
        for check, arguments in ((what_is_mapped, ()), (grow, ()), (one_address, (ports[0],)), (hostile_clients, (ports[0],)), (over_tls, (ports[1], client))):
            check(unit, *arguments)
            unit.watch()
            expect(not unit.found, "; ".join(unit.found))
            print(f"ok {check.__name__.replace('_', ' ')}: {check.__doc__}", flush=True)
    except CheckFailed as e:
        print(f"FAILED: check '{e.name}': {e}", file=sys.stderr)
        return 1
    finally:
        unit.stop_all()
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
