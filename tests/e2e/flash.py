#!/usr/bin/env python3
"""Cards are flashed, through the commands that a person uses.

  flash.py --bin DIR --dir D [--only commands|tools|unit] [--report FILE]

commands: a card of each kind (slots as files, slots in flash): flash, fall back from an image that does not start, roll back, keys, every reason to refuse
tools:    boards whose images other programs write: recorders named xbmgmt and openFPGALoader check what they are given, and in which order
unit:     every card of a unit is flashed in turn while fio writes and verifies: fio sees nothing; one update is broken on purpose
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time

from unit import CheckFailed, Unit, command

REFUSED, FAILED, OK, NOT_FOUND, EXISTS = 5, 1, 0, 4, 5


class Bench:
    def __init__(self, options, name):
        self.bin, self.work = options.bin, os.path.join(options.dir, name)
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        self.tree = os.environ.get("LUGE_XRT") or os.path.join(os.path.dirname(self.bin), "xrt")
        self.firmware = os.path.join(self.tree, "firmware.bin")
        self.lines = []

    def path(self, name):
        return os.path.join(self.work, name)

    def say(self, line):
        self.lines.append(line)
        print(f"flash: {line}", flush=True)

    def luge(self, *args, code=OK, env=None):
        done = subprocess.run([os.path.join(self.bin, "luge"), *args], capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
        if done.returncode != code:
            raise CheckFailed("exit-code", f"luge {' '.join(args)}: code {done.returncode}, expected {code}\n{done.stdout[-600:]}{done.stderr[-1200:]}")
        return done.stdout, done.stderr

    def json(self, *args, **more):
        return json.loads(self.luge("--json", *args, **more)[0])

    def keys(self, *names):
        for name in names:
            self.luge("image", "keygen", self.path(name))

    def image(self, name, board, version, key="key", xclbin=None, add=(), more=()):
        """A signed image; its xclbin is the native card's unless another file is named. `key` None: not signed."""
        out = self.path(name)
        args = ["image", "build", "--board", board, "--version", version, "--out", out, "--xclbin", xclbin or os.path.join(self.tree, "native.xclbin")]
        if os.path.exists(self.firmware):  # without a cross compiler there is none; the native card runs its own
            args += ["--firmware", self.firmware]
        for a in add:
            args += ["--add", self.path(a + ".pub")]
        self.luge(*args, *more)
        if key == "development":
            self.luge("image", "sign", out, "--development")
        elif key:
            self.luge("image", "sign", out, "--key", self.path(key + ".key"))
        return out

    def broken_xclbin(self):
        """Whole for who signs it, and nothing that a card starts with: the end is cut off."""
        with open(os.path.join(self.tree, "native.xclbin"), "rb") as f:
            text = f.read()
        with open(self.path("cut.xclbin"), "wb") as f:
            f.write(text[:len(text) // 2])
        return self.path("cut.xclbin")


def current(slots):
    return next((name, s["version"]) for name, s in slots.items() if s["current"])


def expect(name, got, wanted):
    if got != wanted:
        raise CheckFailed(name, f"{got}, expected {wanted}")


class Commands(Bench):
    def __init__(self, options):
        super().__init__(options, "commands")

    def run(self):
        self.keys("key", "second")
        for board in ("emulated", "emulated-qspi"):
            self.one(board)
        self.without_controller()
        shutil.rmtree(self.work)

    def without_controller(self):
        """It codes all the same, and says what it has not."""
        none = {"env": {"LUGE_CARD_FIRMWARE": "none"}}
        self.luge("card", "test", "native", "--seconds", "0.2", **none)
        card = ["--dir", self.path("bare")]
        expect("no controller", self.json("card", "info", *card, **none)["controller"], False)
        _, said = self.luge("card", "telemetry", *card, code=NOT_FOUND, **none)
        expect("no controller", said.strip(), "luge: the card has no controller")
        self.say("a card without a controller codes and passes its test; telemetry says that there is none")

    def one(self, board):
        card = ["--dir", self.path(board)]
        slots = lambda: self.json("card", "list", *card)["cards"][0]["slots"]
        self.luge("card", "create", *card, "--board", board, "--golden", self.image("golden.img", board, "1.0.0", add=["key"]))
        self.luge("card", "create", *card, "--board", board, "--golden", self.path("golden.img"), code=EXISTS)
        expect("golden", current(slots()), ("golden", "1.0.0"))

        self.image("new.img", board, "1.1.0")
        plan = self.json("card", "flash", self.path("new.img"), *card, "--dry-run")
        expect("dry run", (len(plan["steps"]), plan["commands"], current(slots())), (3, [], ("golden", "1.0.0")))
        self.luge("card", "flash", self.path("new.img"), *card, code=REFUSED)  # without a terminal nobody can agree
        expect("asked", current(slots()), ("golden", "1.0.0"))
        done = self.json("card", "flash", self.path("new.img"), *card, "--yes")
        expect("flashed", (done["version"], done["tested"], current(done["slots"])), ("1.1.0", True, ("A", "1.1.0")))
        info = self.json("card", "info", *card)
        expect("info", (info["slot"], info["state"], info["board"]), ("A", "ready", board))

        # An image that is signed and does not start: tried three times, then the one before.
        self.image("broken.img", board, "1.2.0", xclbin=self.broken_xclbin())
        _, said = self.luge("card", "flash", self.path("broken.img"), *card, "--yes", code=FAILED)
        if "has fallen back to slot A, version 1.1.0, which passes its self-test" not in said:
            raise CheckFailed("fall-back", said)
        expect("fallen back", current(slots()), ("A", "1.1.0"))
        expect("runs", self.json("card", "info", *card)["slot"], "A")

        self.image("newer.img", board, "1.3.0")
        self.luge("card", "flash", self.path("newer.img"), *card, "--yes")
        expect("newer", current(slots()), ("B", "1.3.0"))
        self.luge("card", "rollback", *card, "--yes")
        expect("rolled back", current(slots()), ("A", "1.1.0"))

        self.refusals(board, card, slots)
        self.luge("card", "selftest", *card)
        expect("telemetry", self.json("card", "telemetry", *card)["self_tests_passed"], 1)
        expect("log", [e["event"] for e in self.json("card", "log", *card)["log"]], ["boot", "self-test passed"])
        expect("reset", self.json("card", "reset", *card)["starts"], 2)
        self.say(f"{board}: flashed, fell back from an image that does not start, rolled back; every other image refused")

    def refusals(self, board, card, slots):
        before = json.dumps(slots())

        def refused(image, words, *more):
            _, said = self.luge("card", "flash", image, *card, "--yes", *more, code=REFUSED)
            if words not in said:
                raise CheckFailed("refused", f"{image}: '{words}' expected, said: {said}")
            if json.dumps(slots()) != before:
                raise CheckFailed("refused", f"{image}: the slots have changed")

        other = "emulated" if board != "emulated" else "emulated-qspi"
        refused(self.image("i1", other, "2.0.0"), f"is for board '{other}'")
        refused(self.image("i2", board, "2.0.0", more=["--revisions", "2,3"]), "revision 1")
        refused(self.image("i3", board, "2.0.0", key="second"), "does not trust")
        refused(self.image("i4", board, "2.0.0", key=None), "does not trust")
        refused(self.image("i5", board, "1.0.9"), "older than 1.1.0")
        # A changed byte of the manifest, and of a part.
        good = self.image("i6", board, "2.0.0")
        with open(good, "rb") as f:
            text = f.read()
        for at in (20, 60, 130, len(text) - 9):
            with open(self.path("i7"), "wb") as f:
                f.write(text[:at] + bytes([text[at] ^ 4]) + text[at + 1:])
            refused(self.path("i7"), "")
        # The second key is added, the first revoked: by images themselves.
        def keys(name, key, *args):
            self.luge("image", "build", "--board", board, "--keys", *args, "--out", self.path(name))
            self.luge("image", "sign", self.path(name), "--key", self.path(key + ".key"))
            self.luge("card", "flash", self.path(name), *card, "--yes")
        keys("k1", "key", "--add", self.path("second.pub"))
        keys("k2", "second", "--revoke", self.path("key.pub"))
        refused(self.image("i8", board, "2.0.0"), "was revoked")
        self.luge("card", "flash", self.path("i5"), *card, "--yes", "--downgrade", code=REFUSED)  # signed by the revoked one
        self.luge("card", "flash", self.image("i9", board, "1.0.9", key="second"), *card, "--yes", "--downgrade")


RECORDER = r"""#!/usr/bin/env python3
# Stands for a programming tool: notes what it is called with, and checks it.
import os, sys
name, args = os.path.basename(sys.argv[0]), sys.argv[1:]
folder = os.environ["RECORDER"]
with open(os.path.join(folder, "calls"), "a") as f:
    f.write(" ".join([name, *args]) + "\n")
def option(flag):
    return args[args.index(flag) + 1]
if name == "xbmgmt":
    if args[0] != "examine" or option("--report") != "platform" or option("--format") != "JSON":
        sys.exit("xbmgmt: not a call that XRT 2.13 knows")
    with open(option("--output"), "w") as f:
        f.write('{"devices": [{"platforms": [{"static_region": {"vbnv": "%s"}}]}]}' % os.environ["PLATFORM"])
else:
    flash, at = os.path.join(folder, "flash"), int(option("--offset"))
    if option("--board") != os.environ["TOOL_BOARD"]:
        sys.exit("openFPGALoader: unknown board")
    with open(flash, "r+b") as f:
        f.seek(at)
        if "--dump-flash" in args:
            with open(args[-1], "wb") as out:
                out.write(f.read(int(option("--file-size"))))
        elif "--write-flash" in args:
            with open(args[-1], "rb") as image:
                text = image.read()
            if os.environ.get("MISWRITE") and at < 3 * 262144:  # in a slot
                text = text[:-1] + bytes([text[-1] ^ 1])
            f.write(text)
        else:
            sys.exit("openFPGALoader: neither read nor write")
"""


class Tools(Bench):
    def __init__(self, options):
        super().__init__(options, "tools")

    def run(self):
        os.makedirs(self.path("path"))
        for tool in ("xbmgmt", "openFPGALoader"):
            with open(self.path(f"path/{tool}"), "w") as f:
                f.write(RECORDER)
            os.chmod(self.path(f"path/{tool}"), 0o755)
        # Boards as they are, but emulated underneath: what is under test is who is called with what.
        source = os.path.realpath(os.path.join(os.path.dirname(self.bin), "boards"))
        shutil.copytree(source, self.path("boards"))
        self.env = {"PATH": self.path("path") + ":" + os.environ["PATH"], "LUGE_BOARDS": self.path("boards"), "RECORDER": self.work, "TOOL_BOARD": "qspi-card"}
        self.luge_plain, self.luge = self.luge, lambda *a, **k: Bench.luge(self, *a, **{**k, "env": {**self.env, **k.get("env", {})}})
        self.keys("key")
        self.xclbin_board()
        self.qspi_board()
        shutil.rmtree(self.work)

    def calls(self):
        path = self.path("calls")
        if not os.path.exists(path):
            return []
        with open(path) as f:
            lines = f.read().splitlines()
        os.remove(path)
        return lines

    def xclbin_board(self):
        platform = "xilinx_u50_gen3x16_xdma_5_202210_1"
        card = ["--dir", self.path("u50"), "--kind", "native"]
        self.luge("card", "create", *card, "--board", "u50", "--golden", self.image("g", "u50", "1.0.0", add=["key"]))
        new = self.image("n", "u50", "1.1.0")
        plan = json.loads(self.luge("--json", "card", "flash", new, *card, "--dry-run", "--pci", "0000:65:00.0")[0])
        expect("dry run runs nothing", self.calls(), [])
        expect("dry run", plan["commands"][0].split(" --output")[0], "xbmgmt examine --device 0000:65:00.0 --report platform --format JSON")
        wrong = {"PLATFORM": "xilinx_u50_gen3x16_xdma_base_4"}
        _, said = self.luge("card", "flash", new, *card, "--yes", "--pci", "0000:65:00.0", code=REFUSED, env=wrong)
        if f"xbmgmt program --device 0000:65:00.0 --base --image {platform}" not in said or "reboot cold" not in said:
            raise CheckFailed("platform", f"a wrong platform is refused without the line to run: {said}")
        calls = self.calls()
        expect("the platform is not touched", [c.split()[1] for c in calls], ["examine"])
        self.luge("card", "flash", new, *card, "--yes", "--pci", "0000:65:00.0", env={"PLATFORM": platform})
        expect("order", [c.split()[1] for c in self.calls()], ["examine"])
        self.luge("card", "flash", self.image("d", "u50", "1.2.0", key="development"), *card, "--yes", code=REFUSED)
        expect("development key", self.calls(), [])
        self.say("u50: the platform is examined first and never programmed; the development key is refused")

    def qspi_board(self):
        subprocess.run([os.path.join(self.path("boards"), "new"), "qspi-card"], env={**os.environ, "LUGE_BOARDS": self.path("boards")}, check=True, capture_output=True)
        toml = self.path("boards/qspi-card/board.toml")
        with open(toml) as f:
            text = f.read()
        with open(toml, "w") as f:
            f.write(text.replace("slot_bytes = 67108864", "slot_bytes = 262144"))
        slot, sector = 262144, 65536
        with open(self.path("flash"), "wb") as f:
            f.write(b"\xff" * (3 * slot + 2 * sector))
        card = ["--dir", self.path("q"), "--kind", "native"]
        self.luge("card", "create", *card, "--board", "qspi-card", "--golden", self.image("qg", "qspi-card", "1.0.0", add=["key"]))
        new = self.image("qn", "qspi-card", "1.1.0")
        # Written wrong: noticed by reading back, and no record is written.
        self.luge("card", "flash", new, *card, "--yes", code=FAILED, env={"MISWRITE": "1"})
        calls = self.calls()
        if any(f"--offset {3 * slot}" in c and "--write-flash" in c or f"--offset {3 * slot + sector}" in c and "--write-flash" in c for c in calls):
            raise CheckFailed("order", f"a record was written before the slot was verified: {calls}")
        with open(self.path("flash"), "rb") as f:
            expect("records untouched", f.read()[3 * slot:], b"\xff" * 2 * sector)
        done = json.loads(self.luge("--json", "card", "flash", new, *card, "--yes")[0])
        if "power the machine off and on" not in done["after"]:
            raise CheckFailed("after", str(done))
        what = [("dump" if "--dump-flash" in c else "write", int(c.split("--offset ")[1].split()[0])) for c in self.calls()]
        records = 3 * slot
        expect("order", what, [("dump", records), ("write", slot), ("dump", slot), ("write", records), ("dump", records)])
        with open(self.path("flash"), "rb") as f, open(new, "rb") as image:
            text, wanted = f.read(), image.read()
        expect("golden untouched", text[:slot], b"\xff" * slot)
        expect("slot A", text[slot:slot + len(wanted)], wanted)
        self.luge("card", "flash", self.image("qm", "qspi-card", "1.2.0"), *card, "--yes")
        what = [("dump" if "--dump-flash" in c else "write", int(c.split("--offset ")[1].split()[0])) for c in self.calls()]
        # The one before is not good yet (it has never run), so its slot is the one to write; the record goes to the other sector.
        expect("second", what[1:4:2], [("write", slot), ("write", records + sector)])
        self.say("a board with flash: slot written, read back, and only then a record, each in the other sector; golden untouched")


class UnitFlash(Bench):
    """Every card of a unit in turn, half of each kind, under fio."""
    SLEDS = 6

    def __init__(self, options):
        super().__init__(options, "unit")
        self.unit = Unit(self.path("u"), options.bin, ["--heads", "3", "--sleds", str(self.SLEDS), "--devices", "1", "--card", "native"])
        self.fio = None

    def states(self):
        return {n["name"]: n["coding"]["state"] for n in self.unit.json("status")["nodes"] if n["role"] == "sled" and "coding" in n}

    def alive(self):
        if self.fio.poll() is not None:
            raise CheckFailed("fio", f"fio ended with {self.fio.returncode}: {self.fio.stderr.read()[-300:]}")

    def back(self, sled):
        self.unit.wait(f"{sled} has its card again", lambda: self.states()[sled] in ("healthy", "suspect"), 90)

    # Requirement: CF-12, P-8.7
    def run(self):
        self.keys("key")
        self.unit.run("unit", "up", *self.unit.up_args, timeout=300)
        try:
            self.unit.run("volume", "create", "v", "--size", "128MiB", "--layout", "4+2")
            self.unit.wait("the volume opens", lambda: self.unit.volume("v")["state"] == "open", 60)
            self.unit.run("attach", "v", "--nbd", f"unix:{self.path('v.s')}")
            self.unit.wait("the cards open", lambda: set(self.states().values()) == {"healthy"} and len(self.states()) == self.SLEDS, 60)
            self.fio = subprocess.Popen(["fio", "--name=flash", "--ioengine=nbd", f"--uri=nbd+unix:///v?socket={self.path('v.s')}", "--rw=randwrite", "--bs=16k", "--iodepth=8",
                                         "--size=64m", "--rate=4m", "--io_size=16g", "--runtime=600", "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1",
                                         "--randseed=4"], cwd=self.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            self.asked_in_use()
            self.flash_all()
            self.break_one()
            self.alive()
            self.fio.send_signal(2)
            self.fio.wait(timeout=60)
            self.unit.run("volume", "flush", "v", "--wait", timeout=120)
            command(["nbdcopy", f"nbd+unix:///v?socket={self.path('v.s')}", self.path("image")], timeout=120)
            if self.fio.returncode not in (0, 128):  # 128: interrupted, without an error before
                raise CheckFailed("fio", f"fio ended with {self.fio.returncode}: {self.fio.stderr.read()[-300:]}")
        finally:
            if self.fio is not None and self.fio.poll() is None:
                self.fio.kill()
            self.unit.run("unit", "down", check=False)
        shutil.rmtree(self.work)

    def asked_in_use(self):
        """A card tells of itself while its sled codes with it, which goes on."""
        self.unit.run("volume", "flush", "v", "--wait", timeout=120)
        about = {what: json.loads(self.unit.run("--json", "card", what, "--sled", "sled-1")) for what in ("info", "telemetry", "log")}
        expect("in use", (about["info"]["use"], about["info"]["state"], about["telemetry"]["self_tests_passed"]), ("in use", "ready", 1))
        expect("log", [e["event"] for e in about["log"]["log"]][:2], ["boot", "self-test passed"])
        if about["telemetry"]["jobs_completed"] <= 8:
            raise CheckFailed("in use", f"only the self-test's jobs are counted: {about['telemetry']}")
        expect("still in use", set(self.states().values()), {"healthy"})

    def flash_all(self):
        begin, drained = time.time(), 0
        for i in range(1, self.SLEDS + 1):
            sled, board = f"sled-{i}", "emulated" if i % 2 else "emulated-qspi"
            golden = self.image(f"golden-{board}", board, "1.0.0", add=["key"])
            self.unit.run("card", "create", "--sled", sled, "--board", board, "--golden", golden)
            done = json.loads(self.unit.run("--json", "card", "flash", self.image(f"new-{board}", board, "1.1.0"), "--sled", sled, "--yes", timeout=120))
            expect(f"{sled}", (done["tested"], current(done["slots"])), (True, ("A", "1.1.0")))
            drained += done["drained"]
            self.back(sled)
            self.unit.run("volume", "flush", "v", "--wait", timeout=120)
            self.alive()
        expect("each card was in use", drained, self.SLEDS)
        self.say(f"{self.SLEDS} cards in use, half of each kind, flashed in turn under fio in {time.time() - begin:.0f} s: drained, flashed, tested, in use again; no client saw an error")

    def break_one(self):
        """An image that is signed and does not start, on a card in use."""
        broken = self.image("broken", "emulated", "1.2.0", xclbin=self.broken_xclbin())
        done = subprocess.run([self.unit.luge, "card", "flash", broken, "--sled", "sled-1", "--yes"], env=self.unit.env, capture_output=True, text=True, timeout=180)
        if done.returncode != FAILED or "has fallen back to slot A, version 1.1.0" not in done.stderr:
            raise CheckFailed("fall-back", f"code {done.returncode}: {done.stderr[-800:]}")
        self.back("sled-1")
        self.unit.run("volume", "flush", "v", "--wait", timeout=120)
        self.alive()
        slots = {c["name"]: current(c["slots"]) for c in json.loads(self.unit.run("--json", "card", "list"))["cards"]}
        expect("all boot version 1.1.0", set(slots.values()), {("A", "1.1.0")})
        self.say("an update broken on purpose: three starts, then the image before, in use again; no client saw an error")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--only", choices=["commands", "tools", "unit"])
    parser.add_argument("--report", help="file that the result is written to as JSON")
    options = parser.parse_args()
    options.bin, options.dir = os.path.abspath(options.bin), os.path.abspath(options.dir)
    os.makedirs(options.dir, exist_ok=True)
    begin, lines, failed = time.time(), [], None
    for name, part in (("commands", Commands), ("tools", Tools), ("unit", UnitFlash)):
        if options.only not in (None, name):
            continue
        bench = part(options)
        try:
            bench.run()
        except CheckFailed as e:
            failed = e
            print(f"flash: FAILED: check '{e.name}': {e}")
        lines += bench.lines
        if failed:
            break
    if options.report:
        with open(options.report, "w") as f:
            json.dump({"ok": failed is None, "failed_check": failed and failed.name, "lines": lines, "seconds": round(time.time() - begin, 1)}, f, indent=2)
    if failed:
        return 1
    print(f"flash: all held, {time.time() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
