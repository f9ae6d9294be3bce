"""What luge-bench is made of: sides.py (what is measured), counters.py (what it costs), measures.py (the measurements),
charts.py (SVG), figures.py (the table of docs/performance.md)."""
