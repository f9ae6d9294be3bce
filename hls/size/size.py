#!/usr/bin/env python3
"""Sizes of kernels without a vendor tool: LUT6, flip-flops, memories and levels of LUTs between registers.

  hls/size/size.py [--rtlgen BIN | --sv DIR] [--work DIR] [--markdown] [--check] [--worst N] KERNEL...

Yosys maps the generated SystemVerilog with `synth -flatten -lut 6`; memories (ram<T, N>) stay memories, as they do in a device, and are
printed with their bits and the LUTs they take where they are made of LUTRAM (RAM32M16: 8 LUTs hold 14 bits x 32 words; block RAM
takes none). Levels are counted in the netlist: the LUTs on the longest way from a register, memory or input to a register, memory or
output. There are no carry chains in this count; a device has them, so adders there are shallower.
--check compares with the figures in FIGURES and fails if one is not reached. --worst prints the N deepest endpoints of each kernel.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIGURES = {"erasure_coder": (12000, 3), "dma_write_log": (2000, 4)}  # most LUT6, most levels
SEQUENTIAL = ("$_DFF", "$_SDFF", "$_ALDFF", "$_DLATCH", "$mem")


def synthesise(kernel, sv, work):
    out = os.path.join(work, kernel + ".json")
    script = (f"read_verilog -sv {sv}; synth -flatten -lut 6 -top {kernel} -run begin:fine; opt -fast -full; opt -full; techmap; "
              "opt -fast; abc -lut 6 -script +strash;dch,-f;if,-K,6;mfs2; opt -fast; ")
    subprocess.run(["yosys", "-q", "-p", script + f"write_json {out}"], check=True)
    with open(out) as f:
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

    def levels(self):
        return self.ends[0][0]

    def way(self, bit):
        names = []
        while bit in self.driver:
            bit = max(self.driver[bit], key=self.level)
            names.append(self.names.get(bit, str(bit)))
        return " < ".join(names)


def lutram(memories):
    return sum(math.ceil(w / 14) * 8 * math.ceil(n / 32) for w, n in memories)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("kernels", nargs="+", metavar="KERNEL")
    a.add_argument("--rtlgen", default=os.path.join(ROOT, "build/hls/bin/rtlgen"))
    a.add_argument("--sv", help="folder with generated KERNEL.sv; otherwise rtlgen makes them")
    a.add_argument("--work", help="folder for netlists that shall stay")
    a.add_argument("--markdown", action="store_true")
    a.add_argument("--check", action="store_true")
    a.add_argument("--worst", type=int, default=0)
    o = a.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as scratch:
        work = o.work or scratch
        os.makedirs(work, exist_ok=True)
        if o.markdown:
            print("| kernel | LUT6 | levels | flip-flops | memory bits | LUTRAM for them |\n|---|---|---|---|---|---|")
        for k in o.kernels:
            sv = os.path.join(o.sv or work, k + ".sv")
            if not o.sv:
                subprocess.run([o.rtlgen, os.path.join(ROOT, "hls", k, "top.cpp"), "-I", ROOT, "-o", sv], check=True)
            n = Netlist(synthesise(k, sv, work))
            bits = sum(w * s for w, s in n.memories)
            if o.markdown:
                print(f"| `{k}` | {n.luts} | {n.levels()} | {n.flops} | {bits} | {lutram(n.memories)} |")
            else:
                print(f"{k}: {n.luts} LUT6, {n.levels()} levels, {n.flops} flip-flops, {bits} bits in {len(n.memories)} memories ({lutram(n.memories)} LUTs as LUTRAM)")
            for depth, end, bit in n.ends[:o.worst]:
                print(f"  {depth} {end} < {n.way(bit)}")
            if o.check and k in FIGURES and (n.luts > FIGURES[k][0] or n.levels() > FIGURES[k][1]):
                print(f"size: {k} has {n.luts} LUT6 and {n.levels()} levels; at most {FIGURES[k][0]} and {FIGURES[k][1]} are wanted", file=sys.stderr)
                bad = True
    return bad


if __name__ == "__main__":
    sys.exit(main())
