"""Measure the report of a study of 300 trials, with 10,000 made-up predictions each.

python benchmarks/large_report.py
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/reports"))


def main() -> None:
    """Write a study, its report, and print how long that took."""
    from made_up import made_up_study

    from vicinal.reports.redraw import redraw

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up_study(folder, arms=10, seeds=30, examples=10_000, classes=10, gain=0.05)
        np.savez(folder / "examples.npz")  # a complete study has it
        cpu, wall = time.process_time(), time.perf_counter()
        page, _ = redraw([folder])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"statistics and page: {wall:.1f} s, CPU time {cpu:.1f} s")
        print(f"page: {page.stat().st_size / 1e6:.2f} MB")
        start = time.perf_counter()
        words = ["study", str(folder / "recipe.toml"), "--out", str(folder), "--json"]
        subprocess.run([sys.executable, "-m", "vicinal", *words], check=True, capture_output=True)
        print(f"showing the finished study: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
