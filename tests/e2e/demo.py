#!/usr/bin/env python3
"""The main job, end to end, with tools that are not ours: nbdcopy, fio, qemu-img, mke2fs, e2fsck.

Run by ./demo. Starts what it needs in a directory of its own and stops it by its unit file; touches nothing else.
"""
import argparse
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import waveforms
from coding import stripes_of
from unit import CheckFailed, Unit, command

MIB = 1 << 20


class Volume:
    """How much data a run moves. The verilated card codes a few MB/s, all sleds together: less of everything, the same steps."""

    def __init__(self, card, broken):
        small = card == "rtl"
        self.image = (32 if small else 256) * MIB
        self.files = (18 if small else 190) * MIB
        self.scratch = (16 if small else 256) * MIB
        self.failover_io = (48 if small else 256) * MIB
        self.degraded_io = (8 if small else 32) * MIB
        # Times the limit of each wait. What is broken on purpose often never ends: that is told after a third.
        self.patience = (12 if small else 1) * (1 / 3 if broken else 1)


class Screen:
    """Progress lines while it works; the report at the end."""

    def __init__(self):
        self.start = time.time()
        self.events = []
        self.steps = []

    def now(self):
        return time.time() - self.start

    def event(self, text):
        self.events.append({"seconds": round(self.now(), 2), "text": text})
        print(f"  {self.now():6.1f} s  {text}", flush=True)

    def step(self, name):
        self.steps.append({"step": name, "begin": round(self.now(), 2)})
        print(f"[{len(self.steps)}] {name}", flush=True)


def make_image(path, work, image_bytes, file_bytes):
    """A real ext4 file system with files of this machine, about `file_bytes` of them."""
    tree = os.path.join(work, "tree")
    os.makedirs(tree, exist_ok=True)
    total, number = 0, 0
    for root in ("/usr/bin", "/usr/lib", "/usr/share", "/etc"):
        for folder, subfolders, files in sorted(os.walk(root)):
            subfolders.sort()
            for f in sorted(files):
                source = os.path.join(folder, f)
                try:
                    size = os.path.getsize(source)
                    if os.path.islink(source) or not os.path.isfile(source) or size > file_bytes // 8:
                        continue
                    if total + size > file_bytes or number > 6000:
                        break
                    shutil.copyfile(source, os.path.join(tree, f"{number:05d}-{f}"[:200]))
                except OSError:
                    continue
                total += size
                number += 1
    command(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path, f"{image_bytes // MIB}M"], timeout=120)
    shutil.rmtree(tree)
    return number, total


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(MIB), b""):
            h.update(block)
    return h.hexdigest()


def fio(uri, work, name, size, io_bytes, seed):
    out = os.path.join(work, f"fio-{name}.json")
    args = ["fio", f"--name={name}", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k", "--iodepth=32",
            f"--size={size}", f"--io_size={io_bytes}", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
            "--verify_state_save=0", f"--randseed={seed}", "--output-format=json", f"--output={out}"]
    return subprocess.Popen(args, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), out


def finish_fio(process, out, name, timeout=120):
    try:
        _, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise CheckFailed("fio-verify", f"fio job '{name}' does not end within {timeout:.0f} s")
    if process.returncode != 0:
        raise CheckFailed("fio-verify", f"fio job '{name}': exit code {process.returncode}: {err.strip()[-300:]}")
    with open(out) as f:
        text = f.read()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"] != 0:
        raise CheckFailed("fio-verify", f"fio job '{name}' reports error {job['error']}")
    return job


class Demo:
    def __init__(self, options, work):
        self.options = options
        self.work = work
        self.screen = Screen()
        self.volume = Volume(options.card, options.sabotage)
        shape = ["--heads", "4", "--sleds", "8", "--devices", "2", "--card", options.card, "--coding", options.coding, "--verify", options.verify]
        self.unit = Unit(os.path.join(work, "unit"), options.bin, shape, options.sabotage)
        if options.card_mutant:
            self.unit.env["LUGE_CARD_MUTANT"] = str(options.card_mutant)
        if options.trace:
            self.unit.env.update(LUGE_CARD_TRACE=os.path.join(work, "card-%p.fst"), LUGE_CARD_TRACE_PORTS="1", LUGE_CARD_TRACE_CYCLES="120000")
        self.report = {"sabotage": options.sabotage, "card": options.card, "coding": options.coding, "verify": options.verify,
                       "card_mutant": options.card_mutant, "throughput": {}, "written_bytes": {}, "read_bytes": {}}
        self.image = os.path.join(work, "disk.img")
        self.children = []

    def uri(self, name):
        return f"nbd+unix:///?socket={os.path.join(self.work, name)}.sock"

    # Requirement: HN-01, HN-06
    def start_unit(self):
        self.screen.step("start the unit: 1 control plane, 4 heads, 8 sleds with 2 devices each, 1 attach")
        self.unit.run("unit", "up", "--dir", self.unit.dir, *self.unit.up_args, timeout=300)
        self.unit.configure_heads('checkpoint-growth = "128KiB"\n')  # so small a volume has little metadata
        for name, size in (("disk", self.volume.image), ("scratch", self.volume.scratch)):
            self.unit.run("volume", "create", name, "--size", f"{size // MIB}MiB", "--layout", "4+2")
            self.unit.wait(f"volume {name} opens", lambda: self.unit.volume(name)["state"] == "open", 30)
            self.unit.run("attach", name, "--nbd", f"unix:{os.path.join(self.work, name)}.sock")
        self.screen.event("unit is up; volumes disk and scratch, 4+2, attached over NBD")
        self.look_at_coders("start")

    # Requirement: WR-14
    def import_image(self):
        self.screen.step("make a real disk image and import it with nbdcopy")
        files, total = make_image(self.image, self.work, self.volume.image, self.volume.files)
        self.screen.event(f"ext4 image of {self.volume.image // MIB} MiB with {files} files ({total // MIB} MiB)")
        begin = time.time()
        command(["nbdcopy", self.image, self.uri("disk")], timeout=180)
        self.report["throughput"]["import_mb_s"] = round(self.volume.image / 1e6 / (time.time() - begin), 1)
        self.screen.event(f"imported at {self.report['throughput']['import_mb_s']} MB/s")

    # Requirement: WR-01, WR-02, WR-03 switch=lost-ack
    # Requirement: RD-02 switch=stale-read
    # Requirement: FO-01, HN-05
    def kill_primary(self):
        self.screen.step("fio writes and verifies; the primary head dies in the middle (SIGKILL)")
        process, out = fio(self.uri("scratch"), self.work, "failover", self.volume.scratch, self.volume.failover_io, 1)
        self.children.append(process)
        victim = self.victim = self.unit.volume("scratch")["primary"]
        self.before_loss = {name: self.unit.members(name) for name in ("disk", "scratch")}
        victim_pid = self.unit.pid(victim)
        # In the middle on a fast disk as well: as soon as writes are seen.
        self.unit.wait("fio writes", lambda: process.poll() is not None or self.unit.volume("scratch")["written_bytes"]["user"] > 0, 60)
        if process.poll() is not None:
            finish_fio(process, out, "failover")
            raise CheckFailed("failover", "fio ended before the primary could be killed")
        os.kill(victim_pid, signal.SIGKILL)
        self.screen.event(f"killed {victim}, primary of volume scratch")
        job = finish_fio(process, out, "failover", 120 * self.volume.patience)
        self.unit.wait(f"another head is primary instead of {victim}", lambda: self.unit.volume("scratch")["primary"] != victim, 20)
        now = self.unit.volume("scratch")
        pause = job["write"]["clat_ns"]["max"] / 1e6
        self.report["pause_ms"] = round(pause, 1)
        self.report["throughput"]["randwrite_4k_iops"] = round(job["write"]["iops"])
        self.screen.event(f"{now['primary']} took over in epoch {now['epoch']}; longest I/O {pause:.0f} ms, no error; verified")

    # Requirement: MC-08, MC-09, MC-11, MC-14, FO-02
    def replace_head(self):
        self.screen.step("the dead head is gone for good: another one builds its replicas from checkpoints while fio writes; then a second head dies")
        process, out = fio(self.uri("scratch"), self.work, "replacement", self.volume.scratch, self.volume.failover_io, 3)
        self.children.append(process)
        for name, before in self.before_loss.items():
            if self.victim in before:
                self.unit.wait(f"another head holds {name} instead of {self.victim}", lambda: self.whole_without(name, self.victim), 60 * self.volume.patience)
        time.sleep(0.7)  # reports come with the pings
        for name, before in self.before_loss.items():
            for head, row in self.unit.members(name).items():
                if head not in before:
                    self.show_sources(name, head, row["put_together_from"])
        second = self.unit.volume("disk")["primary"]
        self.unit.kill(second)
        for name in ("disk", "scratch"):
            self.unit.wait(f"{name} is open without {second}", lambda: self.unit.volume(name)["primary"] != second and self.unit.volume(name)["state"] == "open", 60)
        self.screen.event(f"killed {second}, primary of volume disk: {self.unit.volume('disk')['primary']} took over; two of four heads are left")
        finish_fio(process, out, "replacement", 120 * self.volume.patience)
        self.screen.event("fio saw no error and verified what it had written")

    def whole_without(self, name, lost):
        now = self.unit.volume(name)
        return lost not in [now["primary"], *now["reserves"]] and now["copies"] == 3

    def show_sources(self, name, head, row):
        """Bytes that a newcomer was built from. The imported volume is flushed: its index must come from a checkpoint."""
        self.report.setdefault("replacements", {})[name] = {"head": head, **row}
        source = f"{row['checkpoint'] / 1024:.0f} KiB from a checkpoint of {row['author']}" if row["checkpoint"] else "no checkpoint"
        self.screen.event(f"{head} holds {name}: {source}; from another head {row['metadata'] / 1024:.0f} KiB of newer metadata, {row['unflushed'] / 1024:.0f} KiB unflushed")
        if name == "disk" and (row["checkpoint"] == 0 or row["index_pages"] or row["metadata"] > row["records"] + (64 << 10)):
            raise CheckFailed("replacement", f"{head} was not built from a checkpoint and what is newer: {row}")

    def flush(self):
        self.screen.step("flush to the sleds, then restart the heads (cold caches)")
        for name in ("disk", "scratch"):
            self.unit.run("volume", "flush", name, "--wait", timeout=120 * self.volume.patience)
            shown = self.unit.volume(name)
            if shown["unflushed_bytes"] != 0:
                raise CheckFailed("flush", f"{shown['unflushed_bytes']} bytes of {name} are unflushed after the flush")
            self.report["written_bytes"][name] = shown["written_bytes"]
        self.screen.event("flushed, 0 bytes unflushed")
        self.look_at_coders("flush")
        self.look_at_waveforms()
        self.unit.run("unit", "up", "--dir", self.unit.dir, timeout=120)
        self.unit.run("unit", "restart", "--role", "head", timeout=120)
        self.unit.wait("volumes open again after the restart of all heads",
                       lambda: all(v["state"] == "open" for v in self.unit.json("status")["volumes"]), 60)
        self.screen.event("all heads restarted, volumes open")

    def look_at_waveforms(self):
        """The bytes on the AXI ports of the cards are those of the stored chunks."""
        if not self.options.trace:
            return
        files = sorted(glob.glob(os.path.join(self.work, "card-*.fst")))
        stripes = stripes_of(self.unit.dir, 8)
        best = waveforms.check(files, stripes, self.screen.event)
        try:
            waveforms.check([best], waveforms.spoiled(stripes), lambda _: None)
        except CheckFailed:
            pass
        else:
            raise CheckFailed("waveforms", "a byte that differs from the stored one is not noticed")
        shutil.copyfile(best, "demo-trace.fst")
        for path in files:
            os.unlink(path)
        self.screen.event("waveforms of one card left in demo-trace.fst")

    def fullest_sleds(self, name, count):
        """Those with the most data of a volume. With n sleds they hold at least count/n of it (pigeonhole)."""
        shares = sorted(self.unit.volume(name)["placement"], key=lambda s: (-s["live_bytes"], s["sled"]))
        total = sum(s["live_bytes"] for s in shares)
        if total == 0:
            raise CheckFailed("placement", f"no sled holds data of {name} after the flush: {shares}")
        chosen = shares[:count]
        self.report["killed_sleds_share"] = round(sum(s["live_bytes"] for s in chosen) / total, 4)
        return [s["sled"] for s in chosen]

    # Requirement: RD-03 switch=wrong-parity
    # Requirement: FL-06, RD-01 switch=skip-flush
    # Requirement: DU-02
    def kill_sleds(self):
        self.screen.step("kill two sleds while fio runs on; read everything back")
        process, out = fio(self.uri("scratch"), self.work, "degraded", self.volume.scratch, self.volume.degraded_io, 2)
        self.children.append(process)
        time.sleep(1)
        for sled in self.fullest_sleds("disk", 2):
            self.unit.kill(sled)
            self.screen.event(f"killed {sled}")
        time.sleep(1)
        begin = time.time()
        command(["qemu-img", "compare", "-f", "raw", "-F", "raw", self.image, self.uri("disk")], timeout=120 * self.volume.patience, name="image-compare")
        self.report["throughput"]["degraded_read_mb_s"] = round(self.volume.image / 1e6 / (time.time() - begin), 1)
        self.screen.event("qemu-img compare: identical")
        copy = os.path.join(self.work, "copy.img")
        command(["nbdcopy", self.uri("disk"), copy], timeout=180 * self.volume.patience)
        if sha256(copy) != sha256(self.image):
            raise CheckFailed("checksum", "the SHA-256 of what was read back differs from the image's")
        self.screen.event("SHA-256 of the copy read back: equal")
        command(["e2fsck", "-fn", copy], timeout=120, name="file-system")
        self.screen.event("e2fsck -fn: clean")
        os.unlink(copy)
        job = finish_fio(process, out, "degraded", 120 * self.volume.patience)
        self.report["throughput"]["degraded_randwrite_4k_iops"] = round(job["write"]["iops"])
        self.screen.event("fio verified everything it wrote through the loss of both sleds")
        shown = self.unit.volume("disk")
        read = shown["read_bytes"]
        self.report["read_bytes"]["disk"] = read
        self.report["degraded_stripes"] = shown["degraded_stripes"]
        total = sum(read.values())
        if read["memory"] + read["log"] > total / 10:
            raise CheckFailed("cold-read", f"after flush and restart the heads still had {read}")
        if total == 0 or 4 * read["reconstructed"] < total:
            raise CheckFailed("reconstruction", f"less than 1/4 was reconstructed though the two fullest of 8 sleds are dead: {read}")
        self.report["reconstructed_share"] = round(read["reconstructed"] / total, 4)
        self.look_at_coders("end")

    # Requirement: FL-19 switch=head-decodes
    def look_at_coders(self, when):
        """Where each byte was coded so far, by those that run now; and that a card that is there was used and was right."""
        time.sleep(0.7)  # reports come with the pings
        nodes = self.unit.json("status")["nodes"]
        coders = [n["coding"] for n in nodes if n["role"] == "sled" and "coding" in n and n["state"] == "up"]
        total = lambda key: sum(c[key] for c in coders)
        seen = {key: total(key) for key in ("device_jobs", "device_bytes", "software_jobs", "software_bytes", "fallbacks", "compared", "wrong", "hung", "refused",
                                            "tests_passed", "tests_failed")}
        card = {}
        for c in coders:
            for key, value in c["card"].items():
                card[key] = card.get(key, 0) + value
        seen.update(device=coders[0]["device"] if coders else "none", states=sorted({c["state"] for c in coders}), card=card,
                    faults=sorted({c["last_fault"] for c in coders if c["last_fault"]}),
                    head_bytes=sum(n.get("coded_bytes", 0) for n in nodes if n["role"] == "head"))
        self.report.setdefault("coders", {})[when] = seen
        decoded = 4 * self.report.get("read_bytes", {}).get("disk", {}).get("reconstructed", 0)
        # At the end some may be: a sled that has just died is asked in vain, and the verilated card is later than a head waits.
        if self.options.coding == "head":
            if when == "flush" and (not seen["head_bytes"] or seen["software_bytes"]):
                raise CheckFailed("head-coded", f"the heads are to code: they coded {seen['head_bytes']} bytes, the sleds {seen['software_bytes']}")
        elif when == "flush" and seen["head_bytes"] or when == "end" and self.options.card != "rtl" and seen["head_bytes"] > decoded / 4:
            raise CheckFailed("head-coded", f"the heads coded {seen['head_bytes']} bytes themselves, though sleds are there for it")
        if seen["device"] == "none":
            return
        if self.options.card_mutant and (when != "start" or "opening" not in seen["states"]):
            return  # judged when everything has been read back
        if seen["wrong"]:
            raise CheckFailed("card", f"{seen['device']} gave wrong bytes: {seen['faults']}")
        if when == "start" and seen["states"] != ["healthy"] and not seen["faults"] and self.screen.now() < 120:
            return self.look_at_coders(when)  # they are being opened
        if when == "start" and seen["states"] != ["healthy"]:
            raise CheckFailed("card", f"{seen['device']} does not code: {seen['faults']}")
        if when == "flush" and seen["device_bytes"] < seen["software_bytes"]:
            raise CheckFailed("card", f"most was not coded by {seen['device']}: {seen}")
        if when == "flush":
            self.screen.event(f"{seen['device']} coded {seen['device_jobs']} stripes, {seen['device_bytes'] / MIB:.0f} MiB; "
                              f"software {seen['software_jobs']}; parity compared: {seen['compared']}")

    def judge_mutant(self):
        """Everything was read back right. A card that is wrong must have been found out."""
        if not self.options.card_mutant:
            return
        c = self.report["coders"]["end"]
        found = c["wrong"] + c["tests_failed"]
        if found:
            raise CheckFailed("card-mutant", f"mutant {self.options.card_mutant} of the card was found {found} times ({'; '.join(c['faults'])}); no wrong byte passed")

    def print_report(self, verdict):
        r = self.report
        mib = lambda n: f"{n / MIB:.1f} MiB"
        print("\n" + "=" * 78)
        print("Luge: one unit, one disk image, two heads and two sleds lost")
        print("timeline")
        for e in self.screen.events:
            print(f"  {e['seconds']:6.1f} s  {e['text']}")
        if r["throughput"]:
            print("throughput      " + ", ".join(f"{k} {v}" for k, v in r["throughput"].items()))
        if "pause_ms" in r:
            print(f"longest pause   {r['pause_ms']} ms (largest completion time fio saw across the head's death)")
        for name, w in r.get("replacements", {}).items():
            print(f"replaced {name:7}{w['head']}: checkpoint {w['checkpoint']} B of {w['author'] or 'nobody'}, metadata {w['metadata']} B, unflushed {w['unflushed']} B, index pages {w['index_pages']}")
        for name, w in r["written_bytes"].items():
            print(f"written {name:8}" + ", ".join(f"{k} {mib(v)}" for k, v in w.items()))
        if "reconstructed_share" in r:
            print(f"reconstructed   {100 * r['reconstructed_share']:.1f} % of the bytes read; the two sleds held {100 * r['killed_sleds_share']:.1f} % of the data")
        for name, w in r["read_bytes"].items():
            print(f"read {name:11}" + ", ".join(f"{k} {mib(v)}" for k, v in w.items()))
        for when, c in r.get("coders", {}).items():
            if when != "start":
                print(f"coded by {when:6} {c['device']} {mib(c['device_bytes'])} ({c['device_jobs']} jobs), sleds' processors {mib(c['software_bytes'])}, "
                      f"heads {mib(c['head_bytes'])}; fall-backs {c['fallbacks']}, wrong {c['wrong']}")
            if c["card"] and when != "start":
                print(f"card     {when:6} " + ", ".join(f"{k} {v}" for k, v in c["card"].items() if k in ("jobs", "completed", "beats_read", "beats_written", "copied_bytes")))
        print(f"verdict         {verdict}")
        print("=" * 78)

    def run(self):
        self.start_unit()
        self.import_image()
        self.kill_primary()
        self.replace_head()
        self.flush()
        self.kill_sleds()
        self.judge_mutant()

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
        if os.path.exists(os.path.join(self.unit.dir, "unit.json")):
            self.unit.run("unit", "down", timeout=180, check=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--sabotage")
    parser.add_argument("--card", default="none")
    parser.add_argument("--coding", default="isal")
    parser.add_argument("--verify", default="all")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--card-mutant", type=int, default=0)
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    work = os.path.abspath(options.dir) if options.dir else tempfile.mkdtemp(prefix="luge-demo-", dir="/var/tmp")
    os.makedirs(work, exist_ok=True)
    if os.path.exists(os.path.join(work, "unit")):
        print(f"demo: {work}/unit exists already; name another --dir, or remove it (luge unit down --dir {work}/unit)", file=sys.stderr)
        return 2
    demo = Demo(options, work)
    verdict, failed, code = "everything held", None, 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        demo.run()
    except CheckFailed as e:
        verdict, failed, code = f"FAILED: check '{e.name}': {e}", e.name, 1
    except KeyboardInterrupt:
        verdict, code = "interrupted", 130
    keep = options.keep and code == 0
    if not keep:
        demo.stop()
    demo.print_report(verdict)
    demo.report.update(verdict="ok" if code == 0 else "failed", failed_check=failed, text=verdict,
                       seconds=round(demo.screen.now(), 1), events=demo.screen.events, steps=demo.screen.steps)
    with open("demo-report.json", "w") as f:
        json.dump(demo.report, f, indent=1)
    if keep:
        print(f"The unit runs on in {work}. Try:\n  export LUGE_UNIT={demo.unit.dir} PATH={options.bin}:$PATH\n"
              f"  luge status\n  nbdinfo '{demo.uri('disk')}'\n  luge unit up      # brings the killed daemons back\n"
              "  luge unit down    # stops all of it")
    elif not options.dir:
        shutil.rmtree(work, ignore_errors=True)
    else:
        shutil.rmtree(demo.unit.dir, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
