#!/usr/bin/env python3
"""Bounds of the controller's image: code and data, and the worst stack by the compiler's call graph.

  bounds.py --elf FIRMWARE.elf --graphs DIR [--report FILE]

DIR holds the .ci files of -fcallgraph-info=su, one a source. Ends with 1 if code and data exceed 128 KiB, the worst stack exceeds half of
what there is, or the worst stack cannot be known: a call through a pointer, recursion, a frame of no fixed size, or a function of which nothing
is known. Functions of picolibc and start.S have no .ci: they may be leaves without a frame, which their disassembly must show.
"""
import argparse
import pathlib
import re
import subprocess
import sys

CODE_LIMIT = 128 * 1024
LEAVES = {"memcpy", "memset", "fw_sleep"}
# Sets the stack anew and calls fw_main, an entry below: what called it is no more.
START = "fw_start"
# Called by start.S. A trap begins at the stack's top again (fw_trap_entry), so the two do not add up.
ENTRIES = ("fw_main", "fw_trap")


class Bad(Exception):
    """The bound is exceeded or cannot be known."""


def graphs(folder):
    """{function: (frame bytes, kind)}, {function: set of callees}."""
    frames, calls = {}, {}
    for path in sorted(pathlib.Path(folder).glob("*.ci")):
        text = path.read_text()
        for title, label in re.findall(r'node: \{ title: "([^"]+)" label: "([^"]*)"', text):
            found = re.search(r"(\d+) bytes \(([a-z,]+)\)", label)
            if found:
                name = title.split(":")[-1]  # two of one name in different files: the larger
                frames[name] = max(frames.get(name, (0, "")), (int(found[1]), found[2]))
        for source, target in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            calls.setdefault(source.split(":")[-1], set()).add(target.split(":")[-1])
    return frames, calls


def worst(function, frames, calls, above=()):
    """(bytes, path) of the deepest stack below `function`."""
    if function in above:
        raise Bad(f"recursion: {' -> '.join(above[above.index(function):])} -> {function}")
    if function == "__indirect_call":
        raise Bad(f"{above[-1]} calls through a pointer")
    if function in LEAVES or function == START:
        return 0, [function]
    if function not in frames:
        raise Bad(f"nothing is known of {function}, which {above[-1] if above else 'start.S'} calls")
    frame, kind = frames[function]
    if kind != "static":
        raise Bad(f"the frame of {function} is {kind}")
    below = [worst(c, frames, calls, (*above, function)) for c in sorted(calls.get(function, ()))]
    deepest, path = max(below, default=(0, []))
    return frame + deepest, [function, *path]


def symbols(elf):
    out = subprocess.run(["riscv64-unknown-elf-nm", elf], capture_output=True, text=True, check=True).stdout
    return {name: int(value, 16) for value, _, name in (line.split() for line in out.splitlines() if len(line.split()) == 3)}


def check_leaves(elf):
    """Every leaf moves no stack pointer and calls nothing."""
    text = subprocess.run(["riscv64-unknown-elf-objdump", "-d", "--no-show-raw-insn", elf], capture_output=True, text=True, check=True).stdout
    for name in LEAVES:
        body = re.search(rf"^[0-9a-f]+ <{name}>:\n((?:.+\n)*)", text, re.M)
        if body and re.search(r"\bsp,sp,|\b(jal|jalr|call)\b", body[1]):
            raise Bad(f"{name} has a frame or calls something")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--elf", required=True)
    p.add_argument("--graphs", required=True)
    p.add_argument("--report")
    o = p.parse_args()
    try:
        names = symbols(o.elf)
        check_leaves(o.elf)
        frames, calls = graphs(o.graphs)
        size = names["fw_end"]
        room = names["fw_stack_top"] - size
        depth, path = max(worst(e, frames, calls) for e in ENTRIES)
        text = (f"code and data {size} bytes (image {names['fw_image_bytes']}), limit {CODE_LIMIT}; "
                f"worst stack {depth} bytes of {names['fw_stack_bytes']}: {' > '.join(path)}")
        if size > CODE_LIMIT:
            raise Bad(text)
        if depth > names["fw_stack_bytes"] // 2 or room < names["fw_stack_bytes"]:
            raise Bad(text)
    except Bad as e:
        print(f"bounds.py: {e}", file=sys.stderr)
        return 1
    print(text)
    if o.report:
        pathlib.Path(o.report).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
