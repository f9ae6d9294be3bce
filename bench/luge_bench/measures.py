"""The measurements. Each returns plain data; figures are ratios of one run, in turns (A-B-A-B)."""
import json
import os
import signal
import statistics
import subprocess
import time

from .counters import CallCounter, Usage, copied_bytes
from .sides import MIB, NEVER_FLUSHES, BenchError, Ceph, Luge, QemuNbd, run

CASES = {
    "randwrite-qd32": {"rw": "randwrite", "bs": "4k", "depth": 32, "bar": {"qemu-nbd": 1.0, "ceph": 20}},
    "randwrite-qd1": {"rw": "randwrite", "bs": "4k", "depth": 1, "bar": {"qemu-nbd": 0.35, "ceph": 4}},
    "randread-flushed-qd32": {"rw": "randread", "bs": "4k", "depth": 32, "bar": {"qemu-nbd": 0.5}, "settle": True},
    "randread-log-qd32": {"rw": "randread", "bs": "4k", "depth": 32, "bar": {"qemu-nbd": 0.8}, "in_log": True},
    "write-1m-qd8": {"rw": "write", "bs": "1m", "depth": 8, "bar": {"qemu-nbd": 0.3}},
}


def start_fio(side, work, rw, bs, depth, size, seconds, ramp):
    out = os.path.join(work, "fio.json")
    engine, env = side.fio()
    args = ["fio", "--name=bench", *engine, f"--rw={rw}", f"--bs={bs}", f"--iodepth={depth}", f"--size={size}", "--time_based",
            f"--runtime={seconds}", f"--ramp_time={ramp}", "--randrepeat=0", "--norandommap", "--output-format=json", f"--output={out}"]
    return subprocess.Popen(args, cwd=work, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), out


def finish_fio(process, out, limit):
    try:
        _, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
        raise BenchError(f"fio does not end within {limit} s")
    with open(out) as f:
        text = f.read()
    job = json.loads(text[text.index("{"):])["jobs"][0] if "{" in text else {"error": 1}
    if process.returncode != 0 or job["error"] != 0:
        raise BenchError(f"fio: exit code {process.returncode}: {err.strip()[-300:]}")
    return job


def fill(side, work, size):
    engine, env = side.fio()
    run(["fio", "--name=fill", *engine, "--rw=write", "--bs=1m", "--iodepth=8", f"--size={size}"], timeout=600, env=env, cwd=work)


def one_round(side, options, work, case):
    """One round of one case on one side: rates, latencies, and what an operation costs over all its processes."""
    process, out = start_fio(side, work, case["rw"], case["bs"], case["depth"], options.size, options.seconds, options.ramp)
    time.sleep(options.ramp + 0.2)
    pids = side.pids()
    batches = side.batches()
    counter = CallCounter(pids)
    begin, before = time.time(), Usage(pids)
    time.sleep(max(0.5, options.seconds - 2.5))
    span, after = time.time() - begin, Usage(pids)
    calls = counter.stop()
    batches_after = side.batches()
    copied, copied_span = copied_bytes(pids, 0.5), 0.5  # looked at apart, because looking costs
    job = finish_fio(process, out, options.seconds + options.ramp + 60)["write" if "write" in case["rw"] else "read"]
    operations = job["iops"] * span
    per = lambda x: x / operations if operations else 0
    got = {"iops": job["iops"], "mb_s": job["bw_bytes"] / 1e6, "mean_us": job["clat_ns"]["mean"] / 1e3,
           "p99_us": job["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1e3,
           "cpu_us": per((after.cpu - before.cpu) * 1e6), "wakes": per(after.wakes - before.wakes),
           "calls": per(calls if calls is not None else after.data_calls - before.data_calls), "all_calls": float(calls is not None)}
    if copied is not None and job["iops"]:
        got["copied"] = copied / (job["iops"] * copied_span)
    if batches and batches_after and batches_after[1] > batches[1]:
        got["batch"] = (batches_after[0] - batches[0]) / (batches_after[1] - batches[1])
    return got


def mean_of(rounds):
    return {k: statistics.mean(r[k] for r in rounds) for k in rounds[0] if all(k in r for r in rounds)}


def compare(options, work, screen):
    """Every case in turns: Luge, peer, Luge, peer ..."""
    makers = {"luge": lambda: Luge(options, work), "unflushed": lambda: Luge(options, work, name="unflushed", head_config=NEVER_FLUSHES, log_bytes=options.log_bytes),
              "qemu-nbd": lambda: QemuNbd(options, work), "ceph": lambda: Ceph(options, work)}
    sides, results = {}, []

    def side_of(name, case):
        kind = "unflushed" if name == "luge" and case.get("in_log") else name
        if kind not in sides:
            screen.say(f"starting and filling {kind}")
            sides[kind] = makers[kind]()
            fill(sides[kind], work, options.size)  # every block once before anything is timed
        return sides[kind]

    try:
        for name in options.cases:
            case = CASES[name]
            order = ["luge", *options.peer]
            taking_turns = {s: side_of(s, case) for s in order}
            rounds = {s: [] for s in order}
            for turn in range(options.rounds):
                for s, side in taking_turns.items():
                    if case.get("settle"):
                        side.settle()
                    got = one_round(side, options, work, case)
                    rounds[s].append(got)
                    screen.say(f"{name} round {turn + 1} {s:9} {got['iops']:8.0f} IOPS {got['mb_s']:8.1f} MB/s {got['cpu_us']:7.1f} us CPU")
            mean = {s: mean_of(rs) for s, rs in rounds.items()}
            for peer in options.peer:
                results.append({"case": name, "peer": peer, "bar": case["bar"].get(peer), "ratio": round(mean["luge"]["iops"] / mean[peer]["iops"], 3),
                                "mean": {"luge": mean["luge"], peer: mean[peer]}, "rounds": {"luge": rounds["luge"], peer: rounds[peer]}})
    finally:
        for side in sides.values():
            side.stop()
    return results


def pauses(options, work, screen):
    """The longest I/O that a client sees when the primary is killed or frozen under load; `kills` times, each on three copies."""
    unit = Luge(options, work, heads=4)
    seen = []
    try:
        for kill in range(options.kills):
            before = unit.wait_open()
            process, out = start_fio(unit, work, "randrw", "4k", 32, options.size, 7, 0)
            time.sleep(2.5)
            victim = next(n for n in unit.nodes() if n["name"] == before["primary"])
            os.kill(victim["pid"], signal.SIGKILL if options.signal == "KILL" else signal.SIGSTOP)
            try:
                job = finish_fio(process, out, 90)
            finally:
                if options.signal == "STOP":
                    os.kill(victim["pid"], signal.SIGCONT)
            seen.append(round(max(job[d]["clat_ns"]["max"] for d in ("read", "write")) / 1e6, 1))
            screen.say(f"{options.signal} {kill + 1}: {victim['name']}, longest I/O {seen[-1]} ms, {job['write']['iops']:.0f} writes/s, no error")
            unit.call("unit", "up", "--dir", unit.dir)
    finally:
        unit.stop()
    return {"signal": options.signal, "ms": seen, "max": max(seen), "median": statistics.median(seen)}


def at_work(side, options, work, seconds=10):
    """The side in the midst of writing, with as much unflushed as it keeps while it flushes: what a round begins with."""
    process, out = start_fio(side, work, "randwrite", "4k", 32, options.size, seconds, 0)
    finish_fio(process, out, seconds + 60)
    return side.volume()["unflushed_bytes"]


def flush_cost(options, work, screen):
    """What the flush takes from the writes: a 4+2 volume against one that never flushes, in turns."""
    sides, results = [], []
    try:
        sides.append(Luge(options, work))
        sides.append(Luge(options, work, name="unflushed", head_config=NEVER_FLUSHES, log_bytes=options.log_bytes))
        for side in sides:
            screen.say(f"filling {side.name}")
            fill(side, work, options.size)
        for name in ("randwrite-qd1", "randwrite-qd32"):
            rounds, debts = {s.name: [] for s in sides}, []
            for turn in range(options.rounds):
                for side in sides:
                    debt = at_work(side, options, work)
                    got = one_round(side, options, work, CASES[name])
                    rounds[side.name].append(got)
                    if side.name == "luge":
                        debts.append(side.volume()["unflushed_bytes"] - debt)
                    screen.say(f"{name} round {turn + 1} {side.name:9} {got['iops']:8.0f} IOPS")
            # A debt that grew is work put off: the ratio would then flatter.
            a, b = mean_of(rounds["luge"]), mean_of(rounds["unflushed"])
            results.append({"case": name, "ratio": round(a["iops"] / b["iops"], 3), "debt_grew_bytes": max(debts), "mean": {"luge": a, "unflushed": b}})
    finally:
        for side in sides:
            side.stop()
    return results


def idle(options, work, screen):
    """Processor time of a whole unit with an attached volume that nobody uses, in percent of a core."""
    unit = Luge(options, work)
    try:
        unit.settle()
        time.sleep(5)
        pids = unit.pids()
        begin, before = time.time(), Usage(pids)
        time.sleep(options.idle_seconds)
        span, after = time.time() - begin, Usage(pids)
        got = {"daemons": len(pids), "seconds": round(span, 1), "percent_of_a_core": round(100 * (after.cpu - before.cpu) / span, 2),
               "wakes_per_second": round((after.wakes - before.wakes) / span, 1)}
        screen.say(f"idle: {got}")
        return got
    finally:
        unit.stop()


# Space on sleds is not used again: of a larger volume more would be flushed in half an hour than the disk has. This one is flushed as a whole
# whenever its oldest block has waited for flush-age.
STEADY_BYTES = 48 * MIB


def steady(options, work, screen):
    """Failovers and shrinks under full load without a fault: how far epoch and revision moved."""
    unit = Luge(options, work, heads=4, size=STEADY_BYTES)
    try:
        before = unit.wait_open()
        process, out = start_fio(unit, work, "randwrite", "4k", 32, STEADY_BYTES, options.minutes * 60, 0)
        try:
            job = finish_fio(process, out, options.minutes * 60 + 120)
        except BenchError as e:
            raise BenchError(f"{e}: the volume is {unit.volume()['state']}: {unit.volume().get('reason', '')}")
        after = unit.volume()
        got = {"minutes": options.minutes, "failovers": after["epoch"] - before["epoch"], "revisions": after["revision"] - before["revision"], "iops": round(job["write"]["iops"])}
        screen.say(f"steady: {got}")
        return got
    finally:
        unit.stop()
