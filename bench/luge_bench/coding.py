"""What coding costs, by who codes: processor time of sleds, card processes and simulators per MiB of source, and what crossed the card's bus."""
import os
import time

from .counters import TICKS
from .measures import fill
from .sides import MIB, BenchError, Luge

SETTINGS = {
    "processor": ["--card", "none"],
    "card native, verify = all": ["--card", "native", "--verify", "all"],
    "card native, verify = sample": ["--card", "native", "--verify", "sample"],
    "OpenCL, verify = all": ["--coding", "opencl", "--verify", "all"],
    "OpenCL, verify = sample": ["--coding", "opencl", "--verify", "sample"],
}


def processes():
    """{pid: (command, parent, group, seconds of processor time)}"""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as f:
                text = f.read()
        except OSError:
            continue
        rest = text[text.rindex(")") + 2:].split()
        table[int(name)] = (text[text.index("(") + 1:text.rindex(")")], int(rest[1]), int(rest[2]), (int(rest[11]) + int(rest[12])) / TICKS)
    return table


def spent(unit):
    """Processor time so far of the unit's sleds, of their card processes, and of the simulators those have started."""
    sleds = {n["pid"] for n in unit.nodes() if n["role"] == "sled"}
    heads = {n["pid"] for n in unit.nodes() if n["role"] == "head"}
    table = processes()
    cards = {pid for pid, (_, parent, _, _) in table.items() if parent in sleds}
    sums = {"sleds": 0.0, "driver": 0.0, "simulator": 0.0, "heads": 0.0}
    for pid, (_, _, group, cpu) in table.items():
        if pid in sleds:
            sums["sleds"] += cpu
        elif pid in heads:
            sums["heads"] += cpu
        elif pid in cards:
            sums["driver"] += cpu
        elif group in cards:
            sums["simulator"] += cpu
    return sums


def coded(unit):
    time.sleep(1.5)  # reports come with the pings
    nodes = unit.nodes()
    rows = [n["coding"] for n in nodes if n["role"] == "sled" and "coding" in n]
    card = {}
    for r in rows:
        for key, value in r["card"].items():
            card[key] = card.get(key, 0) + value
    total = {key: sum(r[key] for r in rows) for key in ("device_bytes", "software_bytes", "device_jobs", "compared", "fallbacks", "wrong")}
    return total | {"card": card, "head_bytes": sum(n.get("coded_bytes", 0) for n in nodes if n["role"] == "head")}


def one(options, work, name, arguments):
    unit = Luge(options, work, name=f"unit-{len(os.listdir(work))}", up=arguments)
    try:
        while any(n.get("coding", {}).get("state") == "opening" for n in unit.nodes()):
            time.sleep(0.2)
        before, counted = spent(unit), coded(unit)
        fill(unit, work, options.size)
        unit.settle()
        after, counts = spent(unit), coded(unit)
        chunks = unit.volume()["written_bytes"]
    finally:
        unit.stop()
    delta = lambda key: counts[key] - counted[key]
    card = {key: counts["card"][key] - counted["card"].get(key, 0) for key in counts["card"]}
    source = delta("device_bytes") + delta("software_bytes")
    if source < options.size // 2:
        raise BenchError(f"{name}: only {source} bytes were coded")
    got = {key + "_us_per_mib": round((after[key] - before[key]) * 1e6 / (source / MIB)) for key in after}
    got |= {"source_bytes": source, "by_device": round(delta("device_bytes") / source, 3), "fallbacks": delta("fallbacks"), "wrong": delta("wrong"),
            "head_bytes": delta("head_bytes"), "chunks_per_source": round((chunks["data_chunks"] + chunks["parity_chunks"]) / source, 3)}
    if card.get("beats_read"):
        got |= {"to_card_per_source": round(card["beats_read"] * 64 / source, 3), "from_card_per_source": round(card["beats_written"] * 64 / source, 3),
                "copied_per_source": round(card["copied_bytes"] / source, 3)}
        total = card["to_card_ns"] + card["on_card_ns"] + card["from_card_ns"]
        if total:
            got |= {"card_mb_s": round(card["source_bytes"] * 1e3 / total, 1), "h2d_share": round(card["to_card_ns"] / total, 3), "d2h_share": round(card["from_card_ns"] / total, 3)}
    return got


def coding_cost(options, work, screen):
    results = {}
    for turn in range(options.rounds):
        for name, arguments in SETTINGS.items():
            got = one(options, work, name, arguments)
            screen.say(f"{name} round {turn + 1}: {got}")
            results.setdefault(name, []).append(got)
    # The least of the rounds: what else the machine did only adds.
    least = lambda rows: {key: min(r[key] for r in rows) if key.endswith("_us_per_mib") else rows[0][key] for key in rows[0]}
    return {name: least(rows) for name, rows in results.items()}
