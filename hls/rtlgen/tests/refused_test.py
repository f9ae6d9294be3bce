#!/usr/bin/env python3
"""Every kernel in refused/ is refused with exactly the message in the file of the same name that ends in .txt: file, line and column, what is
wrong, the chain of inlining, what to write instead. Every message in rtlgen's sources is one of those, or stands in refused/unreached.txt
with the reason why no kernel brings it out. And two runs over an accepted kernel give the same bytes.

  refused_test.py RTLGEN ROOT            check
  refused_test.py RTLGEN ROOT --write    write the .txt files anew: read them before you keep them
"""
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path("hls/rtlgen/tests")
SOURCES = ["layout.cpp", "translate.cpp", "main.cpp"]


def said(rtlgen, kernel, out):
    """rtlgen's own words about a kernel, without clang's warnings; None if it accepts it."""
    done = subprocess.run([rtlgen, kernel, "-I", ".", "-o", out], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return None
    lines = done.stderr.splitlines(keepends=True)
    first = [i for i, line in enumerate(lines) if re.match(r"(\S+:\d+:\d+|rtlgen): error: ", line)]
    return "".join(lines[first[0]:]) if first else done.stderr


def messages():
    """The constant parts of every message that rtlgen can give: [(file:line, [parts])]."""
    found = []
    for name in SOURCES:
        for number, line in enumerate((HERE.parent / name).read_text().splitlines(), 1):
            if "[[noreturn]]" in line:
                continue
            for call in re.finditer(r"(?:refuse\((?:\*?\w+|member \? member : m), |Error\{.*?\}, |Error\{places\(.*?\), |Error\{where\S*, )(.*)", line):
                parts = [p for p in re.findall(r'"((?:[^"\\]|\\.)*)"', call[1].split('", "')[0] + '"') if len(p) > 3]
                if parts and "what +" not in line.split("Error")[0][-1:]:
                    found.append((f"{name}:{number}", [max(parts, key=len)]))
    return found


def main():
    rtlgen, root, write = sys.argv[1], sys.argv[2], "--write" in sys.argv
    import os
    os.chdir(root)
    bad, texts, kernels = [], [], sorted((HERE / "refused").glob("*.cpp"))
    with tempfile.TemporaryDirectory() as work:
        for kernel in kernels:
            text, golden = said(rtlgen, str(kernel), f"{work}/out.sv"), kernel.with_suffix(".txt")
            if text is None:
                bad.append(f"{kernel} is accepted")
            elif write:
                golden.write_text(text)
            elif not golden.exists() or golden.read_text() != text:
                bad.append(f"{kernel} is refused with\n{text}instead of\n{golden.read_text() if golden.exists() else 'nothing known'}")
            texts.append(text or "")
        for n in (1, 2):
            subprocess.run([rtlgen, str(HERE / "constructs.cpp"), "-I", ".", "-o", f"{work}/{n}.sv"], check=True, timeout=120)
        if pathlib.Path(f"{work}/1.sv").read_bytes() != pathlib.Path(f"{work}/2.sv").read_bytes():
            bad.append("two runs over the same kernel give different bytes")
    bad += [f"{k}: no advice" for k, t in zip(kernels, texts) if t and "\n  instead: " not in t]
    unreached = [line.split(" -- ")[0] for line in (HERE / "refused" / "unreached.txt").read_text().splitlines() if " -- " in line]
    every = messages()
    if len(every) < 50:
        bad.append(f"only {len(every)} messages found in the sources: the search is broken")
    for place, parts in every:
        shown = any(all(p in t for p in parts) for t in texts)
        listed = any(parts[0] in u or u in parts[0] for u in unreached)
        if not shown and not listed:
            bad.append(f"{place}: no kernel in refused/ brings out '{parts[0]}', and unreached.txt does not say why")
        if shown and listed:
            bad.append(f"{place}: '{parts[0]}' stands in unreached.txt and is reached")
    print("\n".join(bad) if bad else f"{len(kernels)} kernels refused with their messages; {len(every)} messages in the sources, {len(unreached)} of them out of reach")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
