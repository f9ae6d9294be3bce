#!/usr/bin/env python3
"""forward.py SHIM OUT: jumps to every xcl* function of XRT's emulation library, for programs that look for them in the front (OpenCL
does). front.cpp fills the table."""
import subprocess, sys

shim, out = sys.argv[1:]
lines = subprocess.run(["nm", "-D", "--defined-only", shim], capture_output=True, text=True, check=True).stdout.split("\n")
names = sorted({f[2].split("@")[0] for f in (line.split() for line in lines) if len(f) == 3 and f[1] == "T" and f[2].startswith("xcl")})
if len(names) < 40:
    sys.exit(f"forward.py: {shim} has only {len(names)} xcl* functions: not XRT's emulation library")
with open(out, "w") as f:
    f.write('.text\n')
    for i, n in enumerate(names):
        f.write(f'.globl {n}\n.type {n},@function\n{n}:\n  jmp *luge_xcl_table+{8 * i}(%rip)\n')
    f.write('.section .rodata\n')
    for i, n in enumerate(names):
        f.write(f'.Lname{i}: .string "{n}"\n')
    f.write('.section .data.rel.ro,"aw"\n.balign 8\n.globl luge_xcl_names\n.hidden luge_xcl_names\nluge_xcl_names:\n')
    for i in range(len(names)):
        f.write(f'  .quad .Lname{i}\n')
    f.write(f'.globl luge_xcl_count\n.hidden luge_xcl_count\nluge_xcl_count: .quad {len(names)}\n')
    f.write(f'.bss\n.balign 8\n.globl luge_xcl_table\n.hidden luge_xcl_table\nluge_xcl_table: .skip {8 * len(names)}\n.section .note.GNU-stack,"",@progbits\n')
