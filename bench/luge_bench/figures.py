"""The table of docs/performance.md, made anew: every figure is measured by the command in its row, and a bar that was reached
once (docs/figures.json) and is missed now has *fallen*.

  python3 -m luge_bench.figures --build build [--only WORD] [--dry]     from bench/; ./check --figures does it

Exit code: 0 nothing fell, 1 something fell or could not be measured. A bar that was never reached is said and is no error.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PAGE, RECORD = "docs/performance.md", "docs/figures.json"
BEGIN, END = "<!-- figures: made by ./check --figures -->", "<!-- end of figures -->"


class Figure:
    def __init__(self, name, what, group, pick, bar, at_least, unit="x", digits=2):
        self.name, self.what, self.group, self.pick = name, what, group, pick
        self.bar, self.at_least, self.unit, self.digits = bar, at_least, unit, digits

    def holds(self, value):
        return value >= self.bar if self.at_least else value <= self.bar

    def text(self, value):
        return f"{value:.{self.digits}f}{self.unit}"

    def bar_text(self):
        return f"at {'least' if self.at_least else 'most'} {self.bar:g}{self.unit}"


def ratio(case, peer):
    return lambda r: next(c["ratio"] for c in r["cases"] if c["case"] == case and c["peer"] == peer)


def cost(case, what):
    return lambda r: next(c["mean"]["luge"][what] for c in r["cases"] if c["case"] == case)


def flush_ratio(case):
    def pick(report):
        row = next(c for c in report["flush_cost"] if c["case"] == case)
        if row["debt_grew_bytes"] > 16 << 20:
            raise ValueError(f"unflushed bytes grew by {row['debt_grew_bytes']}: the work was put off, the ratio says nothing")
        return row["ratio"]
    return pick


def checkpoint_cost(report):
    r = report["checkpoint_cost"]
    if r["fewest"] < 3:
        raise ValueError(f"only {r['fewest']} checkpoints were written in a window: the ratio says nothing")
    return r["ratio"]


# One command each; several figures may come of it.
GROUPS = {
    "qemu": "luge bench compare --cases all --rounds 3 --seconds 15",
    "ceph": "luge bench compare --peer ceph --cases randwrite-qd32,randwrite-qd1",
    "flush": "luge bench flush-cost --rounds 2 --seconds 60",
    "kill": "luge bench pause --kills 20",
    "stop": "luge bench pause --kills 20 --signal STOP",
    "idle": "luge bench idle",
    "replacement": "luge bench replacement --size 4GiB --runs checkpoints,none",
    "larger": "luge bench replacement --size 512MiB --runs checkpoints,larger",
    "checkpoints": "luge bench checkpoint-cost --rounds 2 --seconds 60 --growth 1MiB",
    "steady": "luge bench steady --minutes 30",
    "simulator": "luge-sim many --heads 3 --sleds 6 --from 1 --count 20",
    "simulator-wall": "luge-sim many --heads 3 --sleds 6 --from 1 --count 40 --jobs 2",
    "growth": "luge-sim growth",
    "native": "luge card test native --seconds 10",
    "rtl": "luge card test rtl --seconds 20",
    "drain": "drain_bench 400 --json",
    "vhost": "tests/e2e/vhost.py --only figures",
    "recording": "tests/e2e/vhost.py --only recording",
    "vhost-kills": "tests/e2e/vhost.py --only kills --kills 20",
    "vhost-migrations": "tests/e2e/vhost.py --only migration --migrations 20",
    "vm": "tests/vm/replication.py --only checkpoints,migration --checkpoints 20 --migrations 20",
}

FIGURES = [
    Figure("randwrite-qd32", "4 KiB random write, queue depth 32, durable on 3 heads, against `qemu-nbd` on a raw file (`cache=none`) of the same disk", "qemu", ratio("randwrite-qd32", "qemu-nbd"), 1.0, True),
    Figure("randwrite-qd1", "the same at queue depth 1", "qemu", ratio("randwrite-qd1", "qemu-nbd"), 0.35, True),
    Figure("cpu-per-write", "processor time of all daemons per durable 4 KiB write, queue depth 32", "qemu", cost("randwrite-qd32", "cpu_us"), 60, False, " us", 0),
    Figure("randread-flushed", "4 KiB random read of flushed data, queue depth 32, against the same", "qemu", ratio("randread-flushed-qd32", "qemu-nbd"), 0.5, True),
    Figure("randread-log", "4 KiB random read of data in the log, queue depth 32, against the same", "qemu", ratio("randread-log-qd32", "qemu-nbd"), 0.8, True),
    Figure("write-1m", "1 MiB sequential write, queue depth 8, with the flush that it causes, against the same", "qemu", ratio("write-1m-qd8", "qemu-nbd"), 0.3, True),
    Figure("ceph-qd32", "4 KiB random write, queue depth 32, against Ceph RBD with 3 replicas on the same machine", "ceph", ratio("randwrite-qd32", "ceph"), 20, True),
    Figure("ceph-qd1", "the same at queue depth 1", "ceph", ratio("randwrite-qd1", "ceph"), 4, True),
    Figure("flush-qd1", "4 KiB random write at queue depth 1 on a 4+2 volume that flushes, against one that never does", "flush", flush_ratio("randwrite-qd1"), 0.95, True),
    Figure("flush-qd32", "the same at queue depth 32", "flush", flush_ratio("randwrite-qd32"), 0.85, True),
    Figure("pause-kill", "longest I/O of a client at SIGKILL of the primary, of 20, reads and writes at queue depth 32", "kill", lambda r: r["pause"]["max"] / 1000, 1.5, False, " s"),
    Figure("pause-stop", "the same at SIGSTOP", "stop", lambda r: r["pause"]["max"] / 1000, 2, False, " s"),
    Figure("idle", "idle unit of 11 daemons with an attached volume, processor time over 60 s, of a core", "idle", lambda r: r["idle"]["percent_of_a_core"], 3, False, " %"),
    Figure("steady", "failovers and changes of the required set in 30 min of 4 KiB random writes at queue depth 32 without a fault", "steady",
           lambda r: r["steady"]["failovers"] + r["steady"]["revisions"], 0, False, "", 0),
    Figure("replacement-pages", "index pages that a survivor gives to a head that takes a lost one's place; 4 GiB flushed, the author of all checkpoints killed first", "replacement", lambda r: r["replacement"]["index_pages"], 0, False, "", 0),
    Figure("replacement-metadata", "metadata from a survivor beyond the records after the checkpoint", "replacement", lambda r: r["replacement"]["beyond_records"] / 1024, 64, False, " KiB", 1),
    Figure("replacement-checkpoint", "checkpoint bytes read for it, of what is mapped", "replacement", lambda r: r["replacement"]["checkpoint_share"], 0.3, False, " %", 3),
    Figure("replacement-without", "bytes from survivors with `--checkpoints none`, against with", "replacement", lambda r: r["replacement"]["without_checkpoints"], 20, True, "x", 1),
    Figure("replacement-larger", "bytes from survivors when the partition is four times as large, same tail", "larger", lambda r: max(r["replacement"]["larger"], 1 / r["replacement"]["larger"]), 1.2, False, "x"),
    Figure("replacement-time", "time from the failure agent's word to the new replica in the required set, `--replace-after` not counted", "replacement", lambda r: r["replacement"]["seconds"], 1.5, False, " s"),
    Figure("checkpoint-written", "checkpoint bytes written per byte of metadata records", "replacement", lambda r: r["replacement"]["written_per_metadata_byte"], 2, False, "x"),
    Figure("checkpoint-cost", "4 KiB random write at queue depth 32 while checkpoints of all replicas run, against none", "checkpoints", checkpoint_cost, 0.95, True),
    Figure("simulator-wall", "simulated time per wall second, 3 heads and 6 sleds, two seeds at a time on two cores", "simulator-wall", lambda r: r["wall"], 50, True, "x", 0),
    Figure("simulator", "simulated time per second of processor time, 3 heads and 6 sleds", "simulator", lambda r: r["speed"], 50, True, "x", 0),
    Figure("growth-heads", "cost of a write, 9 heads and as many volumes against 3 heads, simulated unit", "growth", lambda r: r["9 heads against 3"], 1.15, False, "x"),
    Figure("growth-idle-volumes", "cost of a write to a volume beside 99 idle ones against one that is alone, simulated unit", "growth", lambda r: r["a volume beside 99 idle ones against alone"], 1.15, False, "x"),
    Figure("growth-volumes", "cost of a write, 100 volumes against 1, a writer each, simulated unit", "growth", lambda r: r["100 volumes against 1"], 1.15, False, "x"),
    Figure("index-8g", "memory (RSS) of index and stripe table of 8 GiB of flushed data in 128 KiB chunks, of the data", "growth", lambda r: r["index memory of 8 GiB mapped"], 0.25, False, " %", 3),
    Figure("index-64g", "the same of 64 GiB", "growth", lambda r: r["index memory of 64 GiB mapped"], 0.25, False, " %", 3),
    Figure("card-native", "source data coded by the native card through XRT, stripes of 512 KiB, 4+2", "native", lambda r: r["bytes_per_second"] / 1e6, 150, True, " MB/s", 0),
    Figure("card-rtl", "the same by the verilated card (`build/hls`)", "rtl", lambda r: r["bytes_per_second"] / 1e6, 5, True, " MB/s", 1),
    Figure("record-cost", "a DMA write record of a page: into its slot, and from there to the set of dirty pages", "drain", lambda r: r["pages"]["ring_ns"] + r["pages"]["drain_ns"], 15, False, " ns", 1),
    Figure("vhost-writes", "vhost-user against NBD, the same volume, 4 KiB at queue depth 32: writes", "vhost", lambda r: r["writes"]["against_nbd"], 1.1, True),
    Figure("vhost-reads", "the same: reads", "vhost", lambda r: r["reads"]["against_nbd"], 1.2, True),
    Figure("vhost-writes-cpu", "the same: processor time of attach per write", "vhost", lambda r: r["writes"]["processor_time"], 0.6, False),
    Figure("vhost-reads-cpu", "the same: processor time of attach per read", "vhost", lambda r: r["reads"]["processor_time"], 0.6, False),
    Figure("vhost-recording", "4 KiB random reads of a guest at queue depth 32 with DMA writes recorded, against without", "recording", lambda r: r["guest_recording"]["ratio"], 0.97, True),
    Figure("vhost-kills", "lost or doubled writes of a guest whose attach daemon is killed (SIGKILL) 20 times under load", "vhost-kills", lambda r: r["kills"]["wrong"], 0, False, "", 0),
    Figure("qemu-migrations", "wrong blocks in a guest of 192 MiB after 20 of QEMU's live migrations under load", "vhost-migrations", lambda r: r["migrations"]["wrong"], 0, False, "", 0),
    Figure("qemu-downtime", "downtime of those, median", "vhost-migrations", lambda r: r["migrations"]["downtime_ms"], 50, False, " ms", 0),
    Figure("vm-copied", "pages copied in 20 checkpoints of a guest under load, after the first, against those dirty by records and processor; each checkpoint is compared by cmp", "vm",
           lambda r: r["checkpoints"]["copied_to_dirty"], 1.1, False),
    Figure("vm-pause", "pause of such a checkpoint without the saving of QEMU's devices, median", "vm", lambda r: r["checkpoints"]["pause_without_state_ms"], 20, False, " ms", 1),
    Figure("vm-downtime", "downtime of `luge vm migrate` of that guest under load, loopback, median of 20, none with a wrong block", "vm", lambda r: r["migrations"]["downtime_ms"], 50, False, " ms", 1),
    Figure("card-driver", "processor time of the daemon for a MiB coded on the card, driver only", "native", lambda r: r["daemon_cpu_us_per_mib"], 150, False, " us", 0),
]


def measure_script(words, build):
    """Of a script of tests/, which writes its figures to a file."""
    with tempfile.TemporaryDirectory(prefix="luge-figures-", dir="/var/tmp") as work:
        out = os.path.join(work, "figures.json")
        where = ["--bin", os.path.join(build, "bin"), "--guest", os.path.join(build, "guest")] if "vhost" in words[0] else ["--build", build]
        done = subprocess.run([sys.executable, "-B", os.path.join(ROOT, words[0]), *where, "--dir", os.path.join(work, "run"), "--json", out, *words[1:]],
                              capture_output=True, text=True, timeout=7200)
        if done.returncode != 0:
            raise ValueError((done.stdout + done.stderr).strip()[-400:])
        with open(out) as f:
            return json.load(f)


def measure(command, build, charts):
    """The report of a group's command."""
    words = command.split()
    if words[0].endswith(".py"):
        return measure_script(words, build)
    if words[0] == "drain_bench":
        return json.loads(subprocess.run([os.path.join(build, "tests", words[0]), *words[1:]], capture_output=True, text=True, timeout=600, check=True).stdout)
    program = os.path.join(build, "bin", words[0])
    if words[0] == "luge-sim":
        done = subprocess.run([program, *words[1:]], capture_output=True, text=True, timeout=3600)
        if words[1] == "growth":
            return {what: float(value) for what, value in re.findall(r"^(\S[^,\n]*?)(?:,[^,\n]*?)?\s{2,}(\d+\.\d+)(?:x| %), at most", done.stdout, re.M)}
        speed = re.search(r" ([\d.]+) s \(.*?, ([\d.]+) s simulated, (\d+(?:\.\d+)?)x", done.stdout)
        if not speed:
            raise ValueError(f"luge-sim names no speed: {done.stdout.strip()[-200:]}")
        return {"speed": float(speed[3]), "wall": float(speed[2]) / float(speed[1])}
    if words[1] == "card":
        verilated = os.path.join(build, "hls", "xrt")
        environment = dict(os.environ, LUGE_XRT=verilated) if os.path.isdir(verilated) else None
        done = subprocess.run([program, "--json", *words[1:]], capture_output=True, text=True, timeout=600, env=environment)
    else:
        done = subprocess.run([program, *words[1:], "--json", "--charts", charts], capture_output=True, text=True, timeout=7200)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip()[-400:] or f"exit code {done.returncode}")
    return json.loads(done.stdout)


def record():
    path = os.path.join(ROOT, RECORD)
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return json.load(f)


def verdict(figure, entry):
    """What the row says of a measured value; `entry` is what docs/figures.json remembers."""
    if "error" in entry:
        return "not measured"
    if figure.holds(entry["value"]):
        return "reached"
    return "**fell**" if entry.get("reached") is not None else "not reached"


def table(records):
    rows = ["| what | command | bar | measured | |", "|---|---|---|---|---|"]
    for f in FIGURES:
        entry = records.get(f.name)
        measured = "not measured" if entry is None or "error" in entry else f.text(entry["value"])
        rows.append(f"| {f.what} | `{GROUPS[f.group]}` | {f.bar_text()} | {measured} | {verdict(f, entry) if entry else ''} |")
    return "\n".join(rows)


def write_page(records):
    path = os.path.join(ROOT, PAGE)
    with open(path) as f:
        text = f.read()
    made = f"{BEGIN}\n{table(records)}\n{END}"
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{PAGE} has no place for the figures: put the lines '{BEGIN}' and '{END}' in it")
    text = text[:text.index(BEGIN)] + made + text[text.index(END) + len(END):]
    with open(path, "w") as f:
        f.write(text)
    with open(os.path.join(ROOT, RECORD), "w") as f:
        json.dump(records, f, indent=1, sort_keys=True)
        f.write("\n")


def note(records, figure, value=None, error=None):
    """Enters what was measured. A bar once reached stays remembered, with the best value seen."""
    entry = dict(records.get(figure.name, {}))
    entry.pop("error", None)
    if error is not None:
        entry["error"] = error
    else:
        entry["value"] = round(value, 4)
        if figure.holds(value):
            best = entry.get("reached")
            entry["reached"] = round(value if best is None else max(best, value) if figure.at_least else min(best, value), 4)
    records[figure.name] = entry
    return entry


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--only", default="", help="groups and figures whose name has this word")
    parser.add_argument("--dry", action="store_true", help="measure nothing: only write the table from docs/figures.json")
    options = parser.parse_args(argv)
    records, bad = record(), False
    for group, command in {} if options.dry else GROUPS.items():
        figures = [f for f in FIGURES if f.group == group and (options.only in f.name or options.only in group)]
        if not figures:
            continue
        print(f"== {command}", flush=True)
        try:
            report, problem = measure(command, os.path.abspath(options.build), os.path.join(ROOT, "docs")), None
        except (ValueError, OSError, subprocess.TimeoutExpired) as e:
            report, problem = None, str(e)
        for f in figures:
            try:
                entry = note(records, f, value=f.pick(report)) if report is not None else note(records, f, error=problem)
            except (ValueError, KeyError, StopIteration) as e:
                entry = note(records, f, error=str(e))
            said = verdict(f, entry)
            bad = bad or said in ("**fell**", "not measured")
            print(f"{said:12} {f.name}: {f.text(entry['value']) if 'error' not in entry else entry['error']} (bar: {f.bar_text()})", flush=True)
        write_page(records)
    if options.dry:
        write_page(records)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
