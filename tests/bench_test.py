#!/usr/bin/env python3
"""The bench's own rules: a bar once reached stays reached, what was put off is no speed, charts are well-formed."""
import os
import sys
import unittest
import xml.etree.ElementTree as xml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))
from luge_bench import charts, figures, measures  # noqa: E402


def mean(iops):
    return {"iops": iops, "mean_us": 1.0, "cpu_us": 2.0, "calls": 3.0, "wakes": 4.0}


class Bars(unittest.TestCase):
    more = figures.Figure("f", "what", "qemu", None, 0.5, True)
    less = figures.Figure("g", "what", "idle", None, 3, False)

    def test_a_bar_once_reached_stays_reached(self):
        for figure, good, bad in ((self.more, 0.6, 0.4), (self.less, 2, 4)):
            records = {}
            self.assertEqual(figures.verdict(figure, figures.note(records, figure, value=bad)), "not reached")
            self.assertEqual(figures.verdict(figure, figures.note(records, figure, value=good)), "reached")
            self.assertEqual(figures.verdict(figure, figures.note(records, figure, error="no fio")), "not measured")
            self.assertEqual(figures.verdict(figure, figures.note(records, figure, value=bad)), "**fell**")
            self.assertEqual(figures.verdict(figure, figures.note(records, figure, value=good)), "reached")

    def test_the_best_value_is_remembered(self):
        records = {}
        for value in (0.6, 0.9, 0.7):
            figures.note(records, self.more, value=value)
        for value in (2, 1, 2.5):
            figures.note(records, self.less, value=value)
        self.assertEqual((records["f"]["reached"], records["g"]["reached"]), (0.9, 1))

    def test_every_figure_has_its_command_and_reads_its_report(self):
        cases = [{"case": c, "peer": p, "ratio": 1.5, "mean": {"luge": mean(2), p: mean(1)}} for c in measures.CASES for p in ("qemu-nbd", "ceph")]
        report = {"cases": cases, "pause": {"ms": [1], "max": 1, "median": 1}, "idle": {"percent_of_a_core": 1}, "steady": {"failovers": 0, "revisions": 0}, "speed": 60, "wall": 60,
                  "9 heads against 3": 1.0, "a volume beside 99 idle ones against alone": 1.0, "100 volumes against 1": 1.0, "index memory of 8 GiB mapped": 0.2, "index memory of 64 GiB mapped": 0.2,
                  "bytes_per_second": 2e8, "daemon_cpu_us_per_mib": 50, "pages": {"ring_ns": 3.0, "drain_ns": 5.0}, "guest_recording": {"ratio": 1.0}, "kills": {"wrong": 0},
                  "writes": {"against_nbd": 1.2, "processor_time": 0.5}, "reads": {"against_nbd": 1.2, "processor_time": 0.5},
                  "migrations": {"wrong": 0, "downtime_ms": 40}, "checkpoints": {"copied_to_dirty": 1.0, "pause_without_state_ms": 12},
                  "replacement": {"index_pages": 0, "beyond_records": 100, "checkpoint_share": 0.25, "without_checkpoints": 30, "larger": 1.0, "seconds": 0.5, "written_per_metadata_byte": 1.5},
                  "checkpoint_cost": {"ratio": 1.0, "fewest": 3},
                  "flush_cost": [{"case": c, "ratio": 0.9, "debt_grew_bytes": 0} for c in ("randwrite-qd1", "randwrite-qd32")]}
        for f in figures.FIGURES:
            self.assertIn(f.group, figures.GROUPS)
            self.assertIsInstance(f.pick(report) + 0.0, float)
        self.assertEqual(len({f.name for f in figures.FIGURES}), len(figures.FIGURES))

    def test_too_few_checkpoints_say_nothing(self):
        with self.assertRaises(ValueError):
            figures.checkpoint_cost({"checkpoint_cost": {"ratio": 1.0, "fewest": 2}})

    def test_work_that_was_put_off_is_no_speed(self):
        with self.assertRaises(ValueError):
            figures.flush_ratio("randwrite-qd1")({"flush_cost": [{"case": "randwrite-qd1", "ratio": 1.0, "debt_grew_bytes": 1 << 30}]})

    def test_the_page_has_the_table_that_the_record_makes(self):
        with open(os.path.join(figures.ROOT, figures.PAGE)) as f:
            self.assertIn(figures.table(figures.record()), f.read(), "run bench/luge_bench/figures.py --dry")


class Charts(unittest.TestCase):
    def test_they_are_well_formed(self):
        cases = [{"case": "a<b", "peer": "ceph", "ratio": 2, "mean": {"luge": mean(200), "ceph": mean(100)}}, {"case": "zero", "peer": "qemu-nbd", "ratio": 0, "mean": {"luge": mean(0), "qemu-nbd": mean(0)}}]
        for text in (charts.rates(cases), charts.costs(cases), charts.pause({"signal": "KILL", "ms": [500, 600.5]}), charts.rates([])):
            self.assertEqual(xml.fromstring(text).tag, "{http://www.w3.org/2000/svg}svg")


if __name__ == "__main__":
    unittest.main()
