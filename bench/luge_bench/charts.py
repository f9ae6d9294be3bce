"""Bars as SVG, by hand: no library, readable in a browser light or dark."""
import html

COLOURS = {"luge": "#2a7fbf", "qemu-nbd": "#b0763a", "ceph": "#a33b3b", "unflushed": "#6c8f4a"}
WIDTH, LEFT, ROW, GAP = 760, 190, 20, 14


def bars(title, unit, groups, lines=()):
    """groups: [(label, [(side, value, text)])]. lines: texts below. An SVG document."""
    top = max((value for _, rows in groups for _, value, _ in rows), default=0) or 1
    y, body = 44, []
    for label, rows in groups:
        body.append(f'<text x="{LEFT - 10}" y="{y + len(rows) * ROW / 2 + 4:.0f}" text-anchor="end">{html.escape(label)}</text>')
        for side, value, text in rows:
            width = (WIDTH - LEFT - 210) * value / top
            body.append(f'<rect x="{LEFT}" y="{y}" width="{max(width, 1):.1f}" height="{ROW - 4}" fill="{COLOURS.get(side, "#777")}"/>')
            body.append(f'<text x="{LEFT + max(width, 1) + 6:.1f}" y="{y + ROW - 8}">{html.escape(f"{side}: {text}")}</text>')
            y += ROW
        y += GAP
    for line in lines:
        body.append(f'<text x="10" y="{y + 8}" font-size="11">{html.escape(line)}</text>')
        y += 16
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}" font-family="sans-serif" font-size="13">\n'
            f'<style>text{{fill:#222}}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}}}</style>\n'
            f'<text x="10" y="22" font-size="15">{html.escape(title)}</text><text x="{WIDTH - 10}" y="22" text-anchor="end" font-size="11">{html.escape(unit)}</text>\n'
            + "\n".join(body) + "\n</svg>\n")


def rates(cases):
    """Operations a second, by case and side; one bar a side though it may appear against several peers."""
    groups = {}
    for r in cases:
        rows = groups.setdefault(r["case"], {})
        for side, mean in r["mean"].items():
            rows[side] = mean
    return bars("Operations per second, in turns on one machine", "longer is better",
                [(case, [(side, m["iops"], f"{m['iops']:,.0f}/s, {m['mean_us']:,.0f} us") for side, m in rows.items()]) for case, rows in groups.items()])


def costs(cases):
    groups = {}
    for r in cases:
        for side, mean in r["mean"].items():
            groups.setdefault(r["case"], {})[side] = mean
    shown = [(case, [(side, m["cpu_us"], f"{m['cpu_us']:.0f} us, {m['calls']:.2f} calls, {m['wakes']:.2f} wake-ups") for side, m in rows.items()]) for case, rows in groups.items()]
    return bars("Processor time per operation, all daemons", "shorter is better", shown,
                ("Ceph's client library runs inside fio and is not counted; Luge's attach daemon is.",) if any("ceph" in rows for rows in groups.values()) else ())


def pause(p):
    return bars(f"Longest I/O of a client while the primary gets SIG{p['signal']}", "shorter is better",
                [(f"{i + 1}", [("luge", ms, f"{ms:.0f} ms")]) for i, ms in enumerate(p["ms"])])
