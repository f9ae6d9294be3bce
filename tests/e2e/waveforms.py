#!/usr/bin/env python3
"""What the waveforms of a card show is what lies on the sleds: the bytes of every coding job, taken from the signals of its AXI ports.

  tests/e2e/waveforms.py --unit DIR --sleds N FILE.fst...

Of each file (LUGE_CARD_TRACE of docs/xrt.md, or ./demo --card=rtl --trace) the descriptors come from m_axi_job's reads, the sources from m_axi_read,
the results from m_axi_write's bursts, strobes and all, the ends of jobs from the completions on m_axi_job. A job's sources are looked for among the stored
stripes by their SHA-256; where they are found, its results must be the stripe's parity. Needs fst2vcd (package gtkwave).
"""
import argparse
import collections
import hashlib
import os
import struct
import subprocess
import sys

from coding import stripes_of
from unit import CheckFailed

LINE = 64
CODE, OK = 1, 0  # Op, JobStatus: hls/registers/card.h
COMPLETION_BASE = 0x30


class Signals:
    """The values of a file's signals, cycle by cycle, as they are when the clock rises."""

    def __init__(self, path):
        self.process = subprocess.Popen(["fst2vcd", "-f", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.code, self.values = {}, {}

    def __getitem__(self, name):
        return self.values.get(self.code[name], "0")

    def one(self, name):
        return self[name] == "1"

    def number(self, name):
        return int(self[name], 2)

    def cycles(self):
        """Yields once a cycle; the simulator dumps at 10n with the clock low and all inputs there, at 10n + 5 after it has risen."""
        low = False
        for line in self.process.stdout:
            first = line[0]
            if first == "#":
                if low:
                    yield
                low = line.endswith("0\n")
            elif first == "b":
                value, code = line[1:].split()
                self.values[code] = value
            elif first in "01":
                self.values[line[1:-1]] = first
            elif line.startswith("$var"):
                words = line.split()
                self.code[words[4]] = words[3]
        if self.process.wait() != 0:
            raise CheckFailed("waveforms", "fst2vcd cannot read the file")


class Reads:
    """One port's read bursts: gives (address, 64 bytes) for each beat that is taken."""

    def __init__(self, signals, port):
        self.s, self.p, self.open = signals, port, collections.deque()

    def beat(self):
        s, p = self.s, self.p
        got = None
        if s.one(p + "_rvalid") and s.one(p + "_rready") and self.open:
            burst = self.open[0]
            got = burst[0], s.number(p + "_rdata").to_bytes(LINE, "little")
            burst[0] += LINE
            burst[1] -= 1
            if burst[1] == 0:
                self.open.popleft()
        if s.one(p + "_arvalid") and s.one(p + "_arready"):
            self.open.append([s.number(p + "_araddr"), s.number(p + "_arlen") + 1])
        return got


class Writes:
    """One port's write bursts: gives (address, 64 bytes, strobes). Data may come before its address."""

    def __init__(self, signals, port):
        self.s, self.p, self.addresses, self.words = signals, port, collections.deque(), collections.deque()

    def beats(self):
        s, p = self.s, self.p
        if s.one(p + "_awvalid") and s.one(p + "_awready"):
            self.addresses.append([s.number(p + "_awaddr"), s.number(p + "_awlen") + 1])
        if s.one(p + "_wvalid") and s.one(p + "_wready"):
            self.words.append((s.number(p + "_wdata").to_bytes(LINE, "little"), s.number(p + "_wstrb")))
        while self.addresses and self.words:
            burst = self.addresses[0]
            yield burst[0], *self.words.popleft()
            burst[0] += LINE
            burst[1] -= 1
            if burst[1] == 0:
                self.addresses.popleft()


def taken(memory, address, length):
    """Bytes of a chunk from lines; nothing if one was not seen."""
    first, last = address // LINE * LINE, (address + length + LINE - 1) // LINE * LINE
    try:
        return b"".join(memory[at] for at in range(first, last, LINE))[address - first:address - first + length]
    except KeyError:
        return None


def jobs_of(path):
    """(sources, results) of each coding job that ended well: lists of bytes."""
    s = Signals(path)
    queue, told, read, write = Reads(s, "m_axi_job_r"), Writes(s, "m_axi_job_w"), Reads(s, "m_axi_read"), Writes(s, "m_axi_write")
    base, register = [0, 0], 0
    descriptor, pending = b"", collections.deque()
    sources, results = {}, {}
    for _ in s.cycles():
        if s.one("s_axil_awvalid") and s.one("s_axil_wvalid") and s.one("s_axil_awready"):
            register = s.number("s_axil_awaddr")
            if register in (COMPLETION_BASE, COMPLETION_BASE + 4):
                base[(register - COMPLETION_BASE) // 4] = s.number("s_axil_wdata")
        if (got := queue.beat()) is not None:
            descriptor += got[1]
            if len(descriptor) == 256:
                pending.append(descriptor)
                descriptor = b""
        if (got := read.beat()) is not None:
            sources[got[0]] = got[1]
        for address, data, strobes in write.beats():
            if strobes != (1 << LINE) - 1:
                old = results.get(address, bytes(LINE))
                data = bytes(data[i] if strobes >> i & 1 else old[i] for i in range(LINE))
            results[address] = data
        for address, data, _ in told.beats():
            if not 0 <= address - (base[1] << 32 | base[0]) < 64 << 12 or not pending:
                continue
            d, status = pending.popleft(), struct.unpack_from("<H", data, 12)[0]
            _, op, k, m, _, _, _, _, length = struct.unpack_from("<8BI", d, 0)
            if op == CODE and status == OK:
                at = struct.unpack_from("<24Q", d, 64)
                yield [taken(sources, a, length) for a in at[8:8 + k]], [taken(results, a, length) for a in at[:m]]


ENOUGH = 8  # stripes


def spoiled(stripes):
    """The same with one byte of each parity chunk changed: what check() must refuse."""
    return {key: {i: c if i < key[1][0] else bytes([c[0] ^ 1]) + c[1:] for i, c in chunks.items()} for key, chunks in stripes.items()}


def check(files, stripes, say=print):
    """Raises CheckFailed where a job's results are not what is stored, or none is found. Gives the file that shows the most; does not read on when it has seen enough."""
    by_data = {tuple(hashlib.sha256(c[i]).digest() for i in range(k)): (k, m, c) for (_, (k, m)), c in stripes.items() if all(i in c for i in range(k + m))}
    best, most, all_stripes, all_chunks, readable = None, 0, 0, 0, 0
    for path in files:
        if all_stripes >= ENOUGH:
            break
        found = jobs = 0
        try:
            for sources, results in jobs_of(path):
                jobs += 1
                if None in sources or None in results:
                    raise CheckFailed("waveforms", f"{path}: a job ended of whose bytes not all were on the ports")
                k, m, stored = by_data.get(tuple(hashlib.sha256(c).digest() for c in sources), (0, 0, {}))
                if not stored or len(results) != m:
                    continue  # of the self-test, a rebuilt chunk, or a stripe that is no more
                for row, result in enumerate(results):
                    if hashlib.sha256(result).digest() != hashlib.sha256(stored[k + row]).digest():
                        raise CheckFailed("waveforms", f"{path}: m_axi_write carried another chunk {k + row} than the one that is stored")
                found += 1
                all_stripes += 1
                all_chunks += k + m
        except CheckFailed as e:
            if "fst2vcd" in str(e) and jobs == 0:
                continue  # its card has not come to the end of the recording yet
            raise
        readable += 1
        if found > most:
            best, most = path, found
        say(f"{os.path.basename(path)}: {jobs} jobs in the waveforms, {found} of them stripes that are stored")
    if best is None:
        raise CheckFailed("waveforms", f"none of {len(files)} files ({readable} complete) shows a job whose stripe is stored")
    say(f"{all_chunks} chunks on the AXI ports have the SHA-256 of chunks on the sleds")
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", required=True)
    parser.add_argument("--sleds", type=int, required=True)
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    try:
        check(options.files, stripes_of(options.unit, options.sleds))
    except CheckFailed as e:
        print(f"waveforms: FAILED: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
