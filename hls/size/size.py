#!/usr/bin/env python3
"""Sizes of kernels without a vendor tool: LUT6, flip-flops, memories and levels of LUTs between registers.

  hls/size/size.py [--rtlgen BIN | --sv DIR] [--work DIR] [--jobs N] [--check] [--worst N] [--page | --compare] [KERNEL...]

Yosys maps the generated SystemVerilog with `synth -flatten -lut 6`; memories (ram<T, N>) stay memories, as they do in a device, and are
printed with their bits and the LUTs they take where they are made of LUTRAM (RAM32M16: 8 LUTs hold 14 bits x 32 words; block RAM
takes none). Levels are counted in the netlist: the LUTs on the longest way from a register, memory or input to a register, memory or
output. There are no carry chains in this count; a device has them, so adders there are shallower.
Without KERNEL: everything that is in the card, and the card.
--check    compares with the bars in BARS and fails if one is not reached
--page     writes what is measured into the tables of docs/card.md; other kernels keep their rows
--compare  fails if docs/card.md says something else of the kernels that are measured
--worst N  prints the N deepest endpoints of each kernel
"""
import argparse
import collections
import concurrent.futures
import json
import math
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs/card.md")
BARS = {"erasure_coder": (12000, 3), "dma_write_log": (2000, 4), "card": (40000, None)}  # most LUT6, most levels
IN_CARD = {"erasure_coder": 1, "dma_reader": 1, "dma_writer": 1, "job_queue": 1, "dma_write_log": 1, "crc32c": 2, "transposer": 2, "registers": 1}
SOURCES = {"dma_reader": "dma_mover/reader.cpp", "dma_writer": "dma_mover/writer.cpp"}  # others: KERNEL/top.cpp
SEQUENTIAL = ("$_DFF", "$_SDFF", "$_ALDFF", "$_DLATCH", "$mem")
BEGIN, END = "<!-- sizes: written by hls/size/size.py --page -->", "<!-- end of sizes -->"


def synthesise(kernel, work):
    """In the folder of KERNEL.sv, so that no path is in any name: what Yosys does first depends on names."""
    script = (f"read_verilog -sv {kernel}.sv; synth -flatten -lut 6 -top {kernel} -run begin:fine; opt -fast -full; opt -full; techmap; "
              "opt -fast; abc -lut 6 -script +strash;dch,-f;if,-K,6;mfs2; opt -fast; ")
    subprocess.run(["yosys", "-q", "-p", script + f"write_json {kernel}.json"], check=True, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with open(os.path.join(work, kernel + ".json")) as f:
        return json.load(f)["modules"][kernel]


class Netlist:
    def __init__(self, module):
        self.cells = module["cells"]
        self.names = {}
        for name, net in module["netnames"].items():
            for i, b in enumerate(net["bits"]):
                if isinstance(b, int) and (b not in self.names or net["hide_name"] == 0):
                    self.names[b] = f"{name}[{i}]" if len(net["bits"]) > 1 else name
        self.luts = self.flops = 0
        self.memories = []
        driver = {}
        ends = []  # (endpoint, bit)
        for name, c in self.cells.items():
            kind = c["type"]
            if kind == "$lut":
                self.luts += 1
                driver[c["connections"]["Y"][0]] = c["connections"]["A"]
            elif kind.startswith(SEQUENTIAL):
                if kind.startswith("$mem"):
                    p = c["parameters"]
                    self.memories.append((int(p["WIDTH"], 2), int(p["SIZE"], 2)))
                else:
                    self.flops += 1
                for port, bits in c["connections"].items():
                    if c["port_directions"][port] == "input" and port not in ("C", "RD_CLK", "WR_CLK"):
                        q = c["connections"].get("Q", bits)[0]
                        ends += [(f"{self.names.get(q, name)}.{port}", b) for b in bits]
            else:
                raise SystemExit(f"size: a cell of type {kind} is left in the netlist: it would not be counted")
        for name, port in module["ports"].items():
            if port["direction"] == "output":
                ends += [(name, b) for b in port["bits"]]
        self.driver = driver
        depth = {}
        sys.setrecursionlimit(100000)

        def level(bit):
            if bit not in driver:
                return 0
            if bit not in depth:
                depth[bit] = 1 + max((level(b) for b in driver[bit]), default=0)
            return depth[bit]

        self.level = level
        self.ends = sorted(((level(b), e, b) for e, b in ends), key=lambda x: (-x[0], x[1]))
        self.levels = self.ends[0][0]
        self.bits = sum(w * n for w, n in self.memories)
        self.lutram = sum(math.ceil(w / 14) * 8 * math.ceil(n / 32) for w, n in self.memories)

    def way(self, bit):
        names = []
        while bit in self.driver:
            bit = max(self.driver[bit], key=self.level)
            names.append(self.names.get(bit, str(bit)))
        return " < ".join(names)


def measure(kernel, o, work):
    if o.sv:
        with open(os.path.join(o.sv, kernel + ".sv")) as f, open(os.path.join(work, kernel + ".sv"), "w") as g:
            g.write(f.read())
    else:
        source = os.path.join(ROOT, "hls", SOURCES.get(kernel, kernel + "/top.cpp"))
        subprocess.run([o.rtlgen, source, "-I", ROOT, "-o", os.path.join(work, kernel + ".sv")], check=True)
    return Netlist(synthesise(kernel, work))


Size = collections.namedtuple("Size", "luts levels flops bits")


def row(kernel, n):
    bar = BARS.get(kernel)
    most = "" if not bar else f"{bar[0]}" + (f", {bar[1]}" if bar[1] else "")
    return f"| `{kernel}` | {n.luts} | {n.levels} | {n.flops} | {n.bits} | {most} |"


def rows_of(page):
    return {m[0]: Size(*map(int, m[1:])) for m in re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", page, re.M)}


def tables(sizes):
    """What the page shows: sizes by module, then beside published figures, rates derived from 64 bytes a cycle."""
    lines = ["| kernel | LUT6 | levels | flip-flops | memory bits | bar: LUT6, levels |", "|---|---|---|---|---|---|"]
    lines += [row(k, sizes[k]) if k in sizes else f"| `{k}` | not measured | | | | |" for k in list(IN_CARD) + ["card"]]
    twice = " and ".join(f"`{k}`" for k, n in IN_CARD.items() if n == 2)
    lines += ["", f"The card has {twice} twice. It is measured as one flat module: channels and counters come to its parts, and what no job can use goes."]
    if all(k in sizes for k in IN_CARD):
        luts, flops = (sum(getattr(sizes[k], what) * n for k, n in IN_CARD.items()) for what in ("luts", "flops"))
        lines += [f"Its parts one by one are {luts} LUT6 and {flops} flip-flops."]
    lines += ["", "Derived: 64 bytes of source a cycle are 16 GB/s at 250 MHz and 19.2 GB/s at 300 MHz; no clock has been measured, there is no device here.", ""]

    def per_kilolut(luts, mhz):
        return f"{64 * 8 * mhz / luts:.1f}"

    lines += ["| what | here | published |", "|---|---|---|"]
    if "erasure_coder" in sizes:
        coder = sizes["erasure_coder"].luts
        lines += [f"| coder alone, Gb/s of source per 1000 LUT | {per_kilolut(coder, 250)} at 250 MHz, {per_kilolut(coder, 300)} at 300 MHz, derived | none found |"]
    if "card" in sizes:
        card = sizes["card"].luts
        lines += [f"| a whole coding design, Gb/s per 1000 LUT | {per_kilolut(card, 250)} at 250 MHz, {per_kilolut(card, 300)} at 300 MHz, derived; with DMA, queue, CRCs and write log | 6 (FCCM 2017) |"]
    if "dma_reader" in sizes and "dma_writer" in sizes:
        movers = sizes["dma_reader"].luts + sizes["dma_writer"].luts
        lines += [f"| reading and writing memory over 512 bits | {movers} LUT6 for both movers, bytes of any alignment; 16 and 19.2 GB/s each way, derived | "
                  "4800 to 5200 LUT a read-and-write port, words only; 13.7 GB/s read, 11.5 GB/s written, measured at 300 MHz on a U200 (Vitis_Accel_Examples) |"]
    lines += ["| what such a rate meets | | PCIe Gen3 x16 12.2 and 13.2 GB/s measured (Coyote), one HBM pseudo-channel 14.4 GB/s, 100 GbE 12.5 GB/s |"]
    return lines


def write_page(sizes):
    with open(PAGE) as f:
        text = f.read()
    before, rest = text.split(BEGIN)
    old, behind = rest.split(END)
    with open(PAGE, "w") as f:
        f.write(before + BEGIN + "\n" + "\n".join(tables({**rows_of(old), **sizes})) + "\n" + END + behind)


def differs_from_page(sizes):
    with open(PAGE) as f:
        page = f.read()
    bad = False
    for k, n in sizes.items():
        if row(k, n) not in page:
            there = re.search(rf"^\| `{k}` .*$", page, re.M)
            print(f"size: docs/card.md says {there.group(0) if there else 'nothing'}\n      measured          {row(k, n)}\n      (hls/size/size.py --page)", file=sys.stderr)
            bad = True
    return bad


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("kernels", nargs="*", metavar="KERNEL")
    a.add_argument("--rtlgen", default=os.path.join(ROOT, "build/hls/bin/rtlgen"))
    a.add_argument("--sv", help="folder with generated KERNEL.sv; otherwise rtlgen makes them")
    a.add_argument("--work", help="folder for netlists that shall stay")
    a.add_argument("--jobs", type=int, default=1)
    a.add_argument("--check", action="store_true")
    a.add_argument("--page", action="store_true")
    a.add_argument("--compare", action="store_true")
    a.add_argument("--worst", type=int, default=0)
    o = a.parse_args()
    kernels = o.kernels or ["card"] + list(IN_CARD)
    bad = False
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        work = o.work or scratch
        os.makedirs(work, exist_ok=True)
        sizes = {}
        for k, n in zip(kernels, pool.map(lambda k: measure(k, o, work), kernels)):
            sizes[k] = n
            print(f"{k}: {n.luts} LUT6, {n.levels} levels, {n.flops} flip-flops, {n.bits} bits in {len(n.memories)} memories ({n.lutram} LUTs as LUTRAM)", flush=True)
            for depth, end, bit in n.ends[:o.worst]:
                print(f"  {depth} {end} < {n.way(bit)}")
            most = BARS.get(k)
            if o.check and most and (n.luts > most[0] or (most[1] and n.levels > most[1])):
                print(f"size: {k} has {n.luts} LUT6 and {n.levels} levels; at most {most[0]}" + (f" and {most[1]}" if most[1] else "") + " are wanted", file=sys.stderr)
                bad = True
    if o.page:
        write_page(sizes)
    if o.compare:
        bad |= differs_from_page(sizes)
    return bad


if __name__ == "__main__":
    sys.exit(main())
