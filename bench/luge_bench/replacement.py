"""What it costs to replace heads that are lost for good: bytes by their source, and time from the failure agent's word. And what
checkpoints cost while nothing is lost.

The author of all checkpoints so far is killed first; a reserve that has written none is next. What comes in their place has the index
from a checkpoint, of the dead author or of its successor, whichever is newer, and from a survivor only what is newer than that.
"""
import os
import signal
import time

from .measures import CASES, fill, mean_of, one_round
from .sides import MIB, BenchError, Luge, run

HEADS = 5
METADATA_ROOM = 64 << 10
REPLACE_AFTER = 2.0     # seconds that a head is waited for after the failure agent's word
# Flushes come by size alone, so that what is written last stays on the heads; a checkpoint follows its metadata closely.
QUIET = 'flush-age = "1000h"\nflush-idle = "1000h"\n'


def head_config(mode):
    return QUIET + f'checkpoints = "{mode}"\ncheckpoint-growth = "64KiB"\nreplace-after = "{int(REPLACE_AFTER * 1000)}ms"\n'


def members(unit):
    """The volume, and its members' rows by name."""
    volume = unit.volume()
    if len(volume["vps"]) != 1:
        raise BenchError("this measures a volume of one partition")
    return volume, {m["head"]: m for m in volume["vps"][0]["members"]}


def wait_for(what, predicate, seconds):
    deadline = time.time() + seconds
    while not predicate():
        if time.time() > deadline:
            raise BenchError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def settled(unit):
    """Everything is on the sleds, and no checkpoint has been written for a while: what is left to write is not worth one."""
    unit.settle()
    seen, since = None, time.time()

    def quiet():
        nonlocal seen, since
        now = {head: m.get("checkpoint", {}).get("written") for head, m in members(unit)[1].items()}
        if now != seen:
            seen, since = now, time.time()
        return time.time() - since > 3

    wait_for("the last checkpoint", quiet, 120)


def write_tail(unit, work, size, blocks):
    """Single blocks all over the volume, each once; they stay unflushed."""
    engine, env = unit.fio()
    run(["fio", "--name=tail", *engine, "--rw=randwrite", "--bs=4k", "--iodepth=8", f"--size={size}", f"--io_size={4096 * blocks}", "--randseed=1"],
        timeout=120, env=env, cwd=work)


def lose(unit, head):
    """Kills a head for good. The figures of the one that comes in its place."""
    before, had = members(unit)
    newest = max((m["checkpoint"]["lsn"] for m in had.values() if "checkpoint" in m), default=0)
    pid = next(n["pid"] for n in unit.nodes() if n["name"] == head)
    os.kill(pid, signal.SIGKILL)

    def whole():
        v, _ = members(unit)
        return head not in [v["primary"], *v["reserves"]] and v["copies"] == 3

    wait_for(f"a head in the place of {head}", whole, 120)
    time.sleep(0.5)  # reports come with the pings
    after, has = members(unit)
    came = [h for h in has if h not in had]
    if len(came) != 1:
        raise BenchError(f"{came} came in the place of {head}")
    how = next((r for r in after["vps"][0].get("replacements", []) if r["by"] == came[0]), None)
    sources = has[came[0]]["put_together_from"]
    commit = has[after["primary"]]["commit"]
    checkpoint = sources["lsn"]
    got = {"lost": head, "came": came[0], "author": sources.get("author", ""), "author_is_up": sources.get("author", "") in has,
           "checkpoint_lsn": checkpoint, "newest_seen_lsn": newest, "commit": commit,
           "checkpoint_bytes": sources["checkpoint"], "metadata_bytes": sources["metadata"], "unflushed_bytes": sources["unflushed"],
           "index_pages": sources["index_pages"], "from_survivors": sources["metadata"] + sources["unflushed"],
           "records_after_bytes": sources["records"]}
    if how:
        got |= {"waited_s": how["waited_ms"] / 1000, "took_s": how["took_ms"] / 1000,
                "from_the_word_s": max(0.0, how["waited_ms"] / 1000 - REPLACE_AFTER) + how["took_ms"] / 1000}
    return got


def lost_heads(options, work, name, mode, size, tail):
    """Fills a volume, writes a tail, loses the author of its checkpoints and then a reserve."""
    unit = Luge(options, work, heads=HEADS, name=name, head_config=head_config(mode), size=size)
    try:
        fill(unit, work, size)
        settled(unit)
        write_tail(unit, work, size, tail)
        before, had = members(unit)
        author, mapped = before["primary"], sum(s["live_bytes"] for s in before["placement"])
        wrote = had[author]["checkpoint"]
        first = lose(unit, author)
        reserve = next(h for h in before["reserves"] if h in members(unit)[1] and h != members(unit)[0]["primary"])
        second = lose(unit, reserve)
        written = wrote["bytes"] / wrote["metadata_bytes"] if wrote["metadata_bytes"] else 0
        return {"checkpoints": mode, "size": size, "mapped": mapped, "written_checkpoints": wrote["written"], "tail_blocks": tail,
                "checkpoint_bytes_per_metadata_byte": round(written, 3), "stored_bytes_per_metadata_byte": round(wrote["stored_bytes"] / max(1, wrote["metadata_bytes"]), 3),
                "author": author, "losses": [first, second]}
    finally:
        unit.stop()


def judge(r):
    """What does not hold of the rules that no machine is too slow for. Figures with bars of their own are figures.py's."""
    wrong = []
    for loss in r["losses"]:
        where = f"{loss['came']} in the place of {loss['lost']}"
        if r["checkpoints"] == "none":
            if loss["checkpoint_bytes"]:
                wrong.append(f"{where}: a checkpoint was used")
            continue
        if not loss["checkpoint_bytes"]:
            wrong.append(f"{where}: no checkpoint was used")
        if loss["index_pages"]:
            wrong.append(f"{where}: {loss['index_pages']} index pages came from a survivor")
        if loss["metadata_bytes"] > loss["records_after_bytes"] + METADATA_ROOM:
            wrong.append(f"{where}: {loss['metadata_bytes']} bytes of metadata from a survivor, {loss['records_after_bytes']} of records after the checkpoint")
    return wrong


def replacement(options, work, screen):
    """With checkpoints and without, and with a partition four times as large: the same tail."""
    tail, runs = options.tail, {}
    for name, mode, factor in (("checkpoints", "primary", 1), ("none", "none", 1), ("larger", "primary", 4)):
        if name not in options.runs:
            continue
        size = options.size * factor
        screen.say(f"{name}: {size // MIB} MiB, checkpoints = {mode}")
        runs[name] = lost_heads(options, work, name, mode, size, tail)
        for loss in runs[name]["losses"]:
            screen.say(f"  {loss['came']} in the place of {loss['lost']}: {loss['checkpoint_bytes']} bytes of a checkpoint of {loss['author'] or 'nobody'}, {loss['metadata_bytes']} of metadata and "
                       f"{loss['unflushed_bytes']} unflushed from a survivor, {loss['index_pages']} index pages; {loss.get('from_the_word_s', '?')} s from the agent's word")
    wrong = [w for r in runs.values() for w in judge(r)]
    if wrong:
        raise BenchError("; ".join(wrong))
    worst = lambda run, key: max(l[key] for l in runs[run]["losses"])
    got = {"runs": runs}
    if "checkpoints" in runs:
        got |= {"index_pages": worst("checkpoints", "index_pages"), "seconds": worst("checkpoints", "from_the_word_s"), "from_survivors": worst("checkpoints", "from_survivors"),
                "checkpoint_share": 100 * worst("checkpoints", "checkpoint_bytes") / runs["checkpoints"]["mapped"],
                "written_per_metadata_byte": runs["checkpoints"]["checkpoint_bytes_per_metadata_byte"], "beyond_records": max(l["metadata_bytes"] - l["records_after_bytes"] for l in runs["checkpoints"]["losses"])}
    if {"checkpoints", "none"} <= runs.keys():
        got["without_checkpoints"] = min(l["from_survivors"] for l in runs["none"]["losses"]) / worst("checkpoints", "from_survivors")
    if {"checkpoints", "larger"} <= runs.keys():
        got["larger"] = worst("larger", "from_survivors") / worst("checkpoints", "from_survivors")
        got["larger_seconds"] = worst("larger", "from_the_word_s")
    return got


def checkpoint_cost(options, work, screen):
    """4 KiB random writes at queue depth 32 with checkpoints of all replicas and without any, in turns. Each window with them
    must have had three of each replica at least, or it says nothing."""
    sides, rounds = {}, {"all": [], "none": []}
    try:
        for mode in rounds:
            sides[mode] = Luge(options, work, name=f"checkpoints-{mode}", head_config=f'checkpoints = "{mode}"\ncheckpoint-growth = "{options.growth}"\n')
            fill(sides[mode], work, options.size)
        fewest = None
        for turn in range(options.rounds):
            for mode, unit in sides.items():
                before = {h: m["checkpoint"]["written"] for h, m in members(unit)[1].items()}
                got = one_round(unit, options, work, CASES["randwrite-qd32"])
                time.sleep(0.5)
                written = min(m["checkpoint"]["written"] - before.get(h, 0) for h, m in members(unit)[1].items())
                got["checkpoints"] = written
                rounds[mode].append(got)
                screen.say(f"checkpoints = {mode} round {turn + 1}: {got['iops']:8.0f} IOPS, {written} checkpoints of each replica at least")
                if mode == "all":
                    fewest = written if fewest is None else min(fewest, written)
    finally:
        for unit in sides.values():
            unit.stop()
    with_them, without = mean_of(rounds["all"]), mean_of(rounds["none"])
    return {"ratio": round(with_them["iops"] / without["iops"], 3), "fewest": fewest, "rounds": rounds}
