#!/usr/bin/env python3
"""Makes docs/requirements.md of docs/requirements.in and of the tests, and shows that switches turn tests red.

  tests/requirements.py                    write docs/requirements.md
  tests/requirements.py --check            fail if it is not up to date, or if a test names what is not there
  tests/requirements.py --switches tenth   run a random tenth of the tests that name a switch, each with its rule broken:
                                           every one must fail (--seed S repeats a choice, --switches all runs all)

A test names what it proves in a comment line right above it; several lines may follow each other:

  // Requirement: FN-08, P-8.2 switch=no-sled-fence
  TEST_F(SlotTest, AnOlderEpochIsFencedOffWhateverItAsks) {

and in Python scripts the same behind a `#`, above a function. In sim/cluster/cluster.hpp such lines stand for the
simulated unit as a whole: with the rule broken one of the first 500 seeds must fail. In a kernel's bench (hls/, sim/card) they stand
above a case, and the switch is a mutant of the kernel, `switch=mutant-14`; it is shown if build/hls is built.

A requirement is `proved` if a test of it has a switch that turns the test red, `claimed` if it has a test only, else
`open`. A switch in demo.py is shown by the stages "sabotage" of ./check.
"""
import argparse
import os
import random
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIST, PAGE = "docs/requirements.in", "docs/requirements.md"
SIMULATED_UNIT = "sim/cluster/cluster.hpp"
DEMO = "tests/e2e/demo.py"
CATCHING_SEEDS = "sim/cluster/mutants.txt"  # tried first, if it is there
SEEDS = 500

TAG = re.compile(r"^\s*(?://|#) Requirement: (?P<ids>[A-Z]+-[\d.]+(?:, [A-Z]+-[\d.]+)*)(?: switch=(?P<switch>mutant-\d+|[a-z-]+))?\s*$")
LOOKS_LIKE_TAG = re.compile(r"^\s*(?://|#)\s*Requirements?\b")
TEST = re.compile(r"^TEST(?P<kind>_F|_P)?\((?P<suite>\w+), (?P<name>\w+)\)")
CASE = re.compile(r"^\s*void (?P<name>\w+)\(")
BENCH = re.compile(r'bench_main\(argc, argv, \{"(?P<kernel>\w+)", (?P<mutants>\d+),')
FUNCTION = re.compile(r"^\s*def (?P<name>\w+)\(")


class Wrong(Exception):
    pass


def read(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read()


def requirements():
    """[(heading, [(id, sentence)])]"""
    groups = []
    for line in read(LIST).splitlines():
        if line.startswith("## "):
            groups.append((line[3:], []))
        elif line and not line.startswith("#"):
            identity, sentence = line.split(" ", 1)
            groups[-1][1].append((identity, sentence))
    every = [i for _, rows in groups for i, _ in rows]
    twice = {i for i in every if every.count(i) > 1}
    if twice:
        raise Wrong(f"{LIST}: given twice: {' '.join(sorted(twice))}")
    return groups


def switches():
    names = read("host/switches/names.cpp")
    return set(re.findall(r'"([a-z-]+)"', names[names.index("names = {"):names.index("};")]))


def sources():
    found = []
    for place in ("host", "sim", "hls", "firmware", "tests"):
        for folder, folders, files in os.walk(os.path.join(ROOT, place)):
            folders[:] = sorted(d for d in folders if not d.startswith((".", "__")))
            found += [os.path.relpath(os.path.join(folder, f), ROOT) for f in sorted(files)
                      if f.endswith("_test.cpp") or (f.endswith(".py") and f != os.path.basename(__file__))]
    return found + [SIMULATED_UNIT]


class Tagged:
    """A test, and a requirement line above it."""

    def __init__(self, path, test, parametrized, ids, switch, bench=None):
        self.path, self.test, self.parametrized, self.ids, self.switch, self.bench = path, test, parametrized, ids, switch, bench

    @property
    def mutant(self):
        return int(self.switch.split("-")[1]) if self.switch and self.switch.startswith("mutant-") else None

    @property
    def name(self):
        if self.bench:
            return f"{self.bench['kernel']}: {self.test}"
        if self.path == SIMULATED_UNIT:
            return "luge-sim"
        return self.test if self.path.endswith(".cpp") else f"{os.path.basename(self.path)}: {self.test}"


def tags_of(path):
    waiting, found = [], []
    content = read(path)
    bench = BENCH.search(content)
    for number, line in enumerate(content.splitlines(), 1):
        tag = TAG.match(line)
        if tag:
            if path == SIMULATED_UNIT:
                found.append(Tagged(path, "", False, tag["ids"].split(", "), tag["switch"]))
            else:
                waiting.append(tag)
            continue
        if LOOKS_LIKE_TAG.match(line):
            raise Wrong(f"{path}:{number}: not a requirement line as tests/requirements.py reads them: {line.strip()}")
        if not waiting or re.match(r"^\s*(//|#|@|$)", line):
            continue
        test, function = TEST.match(line), (CASE if bench else FUNCTION).match(line)
        if not test and not function:
            raise Wrong(f"{path}:{number}: a requirement line stands above something that is no test: {line.strip()}")
        name = f"{test['suite']}.{test['name']}" if test else function["name"]
        found += [Tagged(path, name, bool(test) and test["kind"] == "_P", t["ids"].split(", "), t["switch"], bench) for t in waiting]
        waiting = []
    if waiting:
        raise Wrong(f"{path}: a requirement line at the end stands above no test")
    return found


def tagged_tests():
    known = {i for _, rows in requirements() for i, _ in rows}
    rules = switches()
    every = [t for path in sources() for t in tags_of(path)]
    for t in every:
        for identity in t.ids:
            if identity not in known:
                raise Wrong(f"{t.path}: {t.name} names {identity}, which {LIST} does not have")
        if t.mutant is not None:
            if not t.bench or not 1 <= t.mutant <= int(t.bench["mutants"]):
                raise Wrong(f"{t.path}: {t.name} names {t.switch}, which its kernel does not have")
        elif t.switch and t.switch not in rules:
            raise Wrong(f"{t.path}: {t.name} names the switch {t.switch}, which host/switches/names.cpp does not have")
    return every


def page():
    every = tagged_tests()
    states = {"proved": 0, "claimed": 0, "open": 0}
    body = []
    for heading, rows in requirements():
        body += [f"## {heading}", "", "| id | requirement | state | tests | switch |", "|---|---|---|---|---|"]
        for identity, sentence in rows:
            tests = [t for t in every if identity in t.ids]
            shown = sorted({t.switch for t in tests if t.switch})
            state = "proved" if shown else "claimed" if tests else "open"
            states[state] += 1
            names = ", ".join(f"`{n}`" for n in dict.fromkeys(t.name for t in tests))
            body.append(f"| {identity} | {sentence} | {state} | {names} | {', '.join(f'`{s}`' for s in shown)} |")
        body.append("")
    head = ["# Requirements", "",
            "Made by `tests/requirements.py` of `docs/requirements.in` and of the tests; do not edit. A test names what it proves in a line",
            "above it. **proved**: a test has a switch (`host/switches`, or a mutant of a kernel) that breaks the rule and turns the test red,",
            "and `./check` shows that for a random tenth of them in each run. **claimed**: there is a test and no switch that shows that it",
            "would notice. **open**: no test; most",
            "of these are not built. `luge-sim` is the simulated unit with all its oracles.", "",
            ", ".join(f"{count} {state}" for state, count in states.items()) + ".", ""]
    return "\n".join(head + body)


def binaries():
    """{source file: test program}, by the luge_test lines of the rooms."""
    found = {}
    for folder, _, files in (step for room in ("host", "sim", "firmware") for step in os.walk(os.path.join(ROOT, room))):
        if "CMakeLists.txt" in files:
            room = os.path.relpath(folder, ROOT)
            for program, sources_of in re.findall(r"luge_test\((\w+) SOURCES ([\w. ]+?) ROOMS", read(f"{room}/CMakeLists.txt")):
                found.update({f"{room}/{s}": program for s in sources_of.split()})
            for program, source in re.findall(r"add_executable\((\w+_test) ([\w./]+_test\.cpp)", read(f"{room}/CMakeLists.txt")):
                found[os.path.normpath(f"{room}/{source}")] = program
    return found


def run(arguments, environment=None, limit=1800):
    try:
        done = subprocess.run(arguments, env=dict(os.environ, **(environment or {})), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return 1, "took too long"
    return done.returncode, done.stdout + done.stderr


def a_seed_notices(switch, simulator):
    """Nothing, or why no seed shows what the switch breaks: one must fail with the rule broken and pass with it kept."""
    table = os.path.join(ROOT, CATCHING_SEEDS)
    known = ["--table", table] if os.path.exists(table) else []
    code, out = run([simulator, "mutants", "--only", switch, "--limit", str(SEEDS), "--jobs", "2", *known])
    seed = re.search(r"\bseed +(\d+)", out)
    if code != 0 or seed is None:
        return out.strip()[-200:]
    code, out = run([simulator, "run", "--seed", seed[1]])
    return None if code == 0 else f"seed {seed[1]} fails with the rule kept, too: it shows nothing"


def a_bench_notices(t, program):
    """Nothing, or why the case of a bench does not show what it says: it must pass as it is and fail with the mutant."""
    for mutant in (0, t.mutant):
        code, out = run([program, "--case", t.test, "--mutant", str(mutant)], limit=600)
        if mutant == 0 and code != 0:
            return f"it does not pass without a mutant: {out.strip()[-200:]}"
    return None if code != 0 else "it passes with the mutant"


def turns_red(t, build, programs):
    """Nothing, or why the switch does not show what its test says."""
    if t.mutant is not None:
        return a_bench_notices(t, bench_program(t, build))
    if t.path == SIMULATED_UNIT:
        return a_seed_notices(t.switch, os.path.join(build, "bin", "luge-sim"))
    program = programs.get(t.path)
    if program is None:
        return f"{t.path} is not built by a luge_test line"
    name = f"*{t.test}/*" if t.parametrized else t.test
    arguments = [test_program(program, build), f"--gtest_filter={name}"]
    code, out = run(arguments)
    if code != 0 or "[  PASSED  ]" not in out or "Running 0 tests" in out:
        return f"it does not pass with the rule kept: {out.strip()[-200:]}"
    code, _ = run(arguments, {"LUGE_BREAK": t.switch})
    return None if code != 0 else "it passes though the rule is broken"


def test_program(program, build):
    """What needs packages of the kernels may be built with those only."""
    path = os.path.join(build, "tests", program)
    return path if os.path.exists(path) else os.path.join(build, "hls", "tests", program)


def bench_program(t, build):
    return os.path.join(build, "hls", "tests", f"hls_{t.bench['kernel']}_mutants_test")


def show_switches(which, seed, build):
    pairs, programs = [t for t in tagged_tests() if t.switch and t.path != DEMO], binaries()
    without = sorted({t.bench["kernel"] for t in pairs if t.mutant is not None and not os.path.exists(bench_program(t, build))})
    if without:
        print(f"not built, so not shown: benches with mutants of {', '.join(without)}")
        pairs = [t for t in pairs if t.mutant is None or t.bench["kernel"] not in without]
    missing = sorted({programs[t.path] for t in pairs if t.path in programs and not os.path.exists(test_program(programs[t.path], build))})
    if missing:
        print(f"not built, so not shown: {', '.join(missing)}")
        pairs = [t for t in pairs if programs.get(t.path) not in missing]
    unique = list({(t.path, t.test, t.switch): t for t in pairs}.values())
    seed = seed if seed is not None else random.SystemRandom().randrange(1_000_000)
    chosen = unique if which == "all" else random.Random(seed).sample(unique, max(1, len(unique) // 10))
    print(f"{len(chosen)} of {len(unique)} tests with their switches" + ("" if which == "all" else f" (--seed {seed} chooses the same)"))
    failed = 0
    for t in chosen:
        why = turns_red(t, build, programs)
        failed += why is not None
        print(f"  {t.switch}: {t.name}: {'red, as it must be' if why is None else 'FAILED: ' + why}", flush=True)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--switches", choices=("tenth", "all"))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    options = parser.parse_args()
    try:
        if options.switches:
            return show_switches(options.switches, options.seed, options.build)
        text = page()
    except Wrong as e:
        print(f"requirements: {e}", file=sys.stderr)
        return 1
    path = os.path.join(ROOT, PAGE)
    if not options.check:
        with open(path, "w") as f:
            f.write(text)
        return 0
    if not os.path.exists(path) or read(PAGE) != text:
        print(f"requirements: {PAGE} is not what the tests say: run tests/requirements.py", file=sys.stderr)
        return 1
    print(f"requirements: {PAGE} is what the tests say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
