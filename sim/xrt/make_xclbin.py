#!/usr/bin/env python3
"""Writes what XRT needs to see an emulated card: an xclbin for one simulator program, or emconfig.json.

  make_xclbin.py xclbin --mode sw_emu|hw_emu --model NAME [--version N] OUT
      --model    program under $XILINX_XRT/bin that simulate.sh starts
      --version  what the version register shall read (to try a card of another version)
  make_xclbin.py emconfig --devices N OUT

An xclbin is a header and sections; the shim unpacks one, BITSTREAM, as a zip file and starts behav_waveform/xsim/simulate.sh in it.
Layout: Xilinx's xclbin.h (/usr/include/xrt/xclbin.h). The same input gives the same bytes, so the uuid is a hash of it.
"""
import argparse, hashlib, io, json, struct, sys, zipfile

KERNEL, INSTANCE = "luge_card", "luge_card_1"
BASE, RANGE = 0x1800000, 0x10000  # server.hpp has the same
PLATFORM = "luge_emulation_1_0"
BANK_KB = 4 << 20  # 4 GiB
PORTS = ("m_axi_job", "m_axi_read", "m_axi_write")
# The kernel with arguments in front of the card (front_kernel.hpp): name, argument, offset, bytes; pointers are of 8 bytes.
FRONT, FRONT_INSTANCE, FRONT_BASE = "luge_code", "luge_code_1", 0x1810000
FRONT_ARGS = (("sources", 0x10, 8), ("coefficients", 0x1C, 8), ("results", 0x28, 8), ("completion", 0x34, 8), ("k", 0x40, 4), ("rows", 0x48, 4), ("bytes", 0x50, 4))
BITSTREAM, EMBEDDED_METADATA, MEM_TOPOLOGY, CONNECTIVITY, IP_LAYOUT = 0, 2, 6, 7, 8
MODES = {"hw_emu": 4, "sw_emu": 5}

# The host must not wait for a simulator that has died: it would read from a closed socket for ever. Exit code 2 is the other way
# round: the host has gone. A card with a fault of its own ($LUGE_CARD_MUTANT) is another program.
SIMULATE = """#!/bin/sh
"$XILINX_XRT/bin/{model}${{LUGE_CARD_MUTANT:+-mutants}}" {arguments}
code=$?
if [ $code -ne 0 ] && [ $code -ne 2 ]; then
  echo "the simulator {model} ended with code $code; ending its host" >&2
  kill -TERM $PPID
fi
exit $code
"""


def front_metadata():
    def arg(i, name, offset, size):
        pointer = size == 8
        return (f'<arg name="{name}" addressQualifier="{1 if pointer else 0}" id="{i}" port="{"m_axi_gmem" if pointer else "s_axi_control"}" size="{hex(size)}" '
                f'offset="{hex(offset)}" hostOffset="0x0" hostSize="{hex(size)}" type="{"void*" if pointer else "uint"}"/>')
    args = "".join(arg(i, *a) for i, a in enumerate(FRONT_ARGS))
    return (f'<kernel name="{FRONT}" language="c" vlnv="luge:kernel:{FRONT}:1.0" preferredWorkGroupSizeMultiple="0" workGroupSize="1" interrupt="true" '
            f'hwControlProtocol="ap_ctrl_hs"><module name="{FRONT}"/>'
            f'<port name="m_axi_gmem" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="512" portType="addressable" base="0x0"/>'
            f'<port name="s_axi_control" mode="slave" range="{hex(RANGE)}" dataWidth="32" portType="addressable" base="0x0"/>{args}'
            f'<instance name="{FRONT_INSTANCE}"><addrRemap base="{hex(FRONT_BASE)}" range="{hex(RANGE)}" port="s_axi_control"/></instance></kernel>')


def metadata():
    ports = "".join(f'<port name="{p}" mode="master" range="0xFFFFFFFFFFFFFFFF" dataWidth="512" portType="addressable" base="0x0"/>' for p in PORTS)
    args = "".join(f'<arg name="{p}" addressQualifier="1" id="{i}" port="{p}" size="0x8" offset="{hex(0x8000 + 8 * i)}" hostOffset="0x0" '
                   f'hostSize="0x8" type="void*"/>' for i, p in enumerate(PORTS))
    return (f'<?xml version="1.0" encoding="UTF-8"?>\n<project name="luge"><platform vendor="luge" boardid="emulation" name="emulation" '
            f'featureRomTime="0"><version major="1" minor="0"/><device name="fpga0" fpgaDevice="luge:card" addrWidth="0">'
            f'<core name="OCL_REGION_0" target="hw_emu" type="clc_region" clockFreq="0MHz" numComputeUnits="2">'
            f'<kernel name="{KERNEL}" language="ip_c" vlnv="luge:kernel:{KERNEL}:1.0" preferredWorkGroupSizeMultiple="0" workGroupSize="1" '
            f'hwControlProtocol="ap_ctrl_none" interrupt="true">'
            f'<module name="{KERNEL}"/>{ports}<port name="s_axil" mode="slave" range="{hex(RANGE)}" dataWidth="32" portType="addressable" base="0x0"/>'
            f'{args}<instance name="{INSTANCE}"><addrRemap base="{hex(BASE)}" range="{hex(RANGE)}" port="s_axil"/></instance></kernel>{front_metadata()}'
            f'</core></device></platform></project>\n').encode()


def bitstream(model, version):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as z:
        info = zipfile.ZipInfo("behav_waveform/xsim/simulate.sh", (1980, 1, 1, 0, 0, 0))
        info.external_attr = 0o100755 << 16
        z.writestr(info, SIMULATE.format(model=model, arguments=f"--version {version}" if version else ""))
    return data.getvalue()


def text(s, n):
    b = s.encode()
    assert len(b) < n, s
    return b.ljust(n, b"\0")


def xclbin(mode, model, version):
    banks = struct.pack("<ii", 1, 0) + struct.pack("<BB6xQQ16s", 1, 1, BANK_KB, 0, text("bank0", 16))  # type DDR4, used
    ip = struct.pack("<ii", 2, 0) + struct.pack("<IIQ64s", 1, 2 << 8, BASE, text(f"{KERNEL}:{INSTANCE}", 64))  # IP_KERNEL, ap_ctrl_none
    ip += struct.pack("<IIQ64s", 1, 0, FRONT_BASE, text(f"{FRONT}:{FRONT_INSTANCE}", 64))  # ap_ctrl_hs
    pairs = [(i, 0) for i in range(len(PORTS))] + [(i, 1) for i, (_, _, size) in enumerate(FRONT_ARGS) if size == 8]
    links = struct.pack("<i", len(pairs)) + b"".join(struct.pack("<iii", arg, kernel, 0) for arg, kernel in pairs)
    sections = [(EMBEDDED_METADATA, metadata()), (MEM_TOPOLOGY, banks), (CONNECTIVITY, links), (IP_LAYOUT, ip), (BITSTREAM, bitstream(model, version))]
    at = 456 + 40 * len(sections)
    table, body = b"", b""
    for kind, data in sections:
        pad = -at % 8
        body += b"\0" * pad + data
        at += pad
        table += struct.pack("<I16s4xQQ", kind, b"", at, len(data))
        at += len(data)
    uuid = hashlib.sha256(mode.encode() + body).digest()[:16]
    header = struct.pack("<QQQHBBHH16s64s16s16sI4x", at, 0, 0, 0, 2, 1, MODES[mode], 0, b"", text(PLATFORM, 64), uuid, b"", len(sections))
    assert len(header) == 152
    return b"xclbin2\0" + struct.pack("<i", -1) + b"\xff" * 28 + b"\0" * 256 + struct.pack("<Q", 0) + header + table + body


def emconfig(devices):
    board = {"Name": PLATFORM, "NumDevices": str(devices), "DdrBanks": [{"Size": "4GB"}],
             # bo.copy goes through a copy engine (server.cpp); without one it would not end
             "PlatformData": {"plp": {"m2m": "enabled", "m2m_address": "0x1c20000", "ertBaseAddr": "1c00000", "ert": "disabled", "numCdma": "0"}}}
    return {"Version": {"FileVersion": "2.0", "ToolVersion": "luge"}, "Platform": {"Boards": [{"NumBoards": "1", "Devices": [board]}]}}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = p.add_subparsers(dest="what", required=True)
    x = what.add_parser("xclbin")
    x.add_argument("--mode", choices=MODES, required=True)
    x.add_argument("--model", required=True)
    x.add_argument("--version", default="")
    x.add_argument("out")
    e = what.add_parser("emconfig")
    e.add_argument("--devices", type=int, default=4)
    e.add_argument("out")
    a = p.parse_args()
    data = xclbin(a.mode, a.model, a.version) if a.what == "xclbin" else (json.dumps(emconfig(a.devices), indent=2) + "\n").encode()
    with open(a.out, "wb") as f:
        f.write(data)


if __name__ == "__main__":
    sys.exit(main())
