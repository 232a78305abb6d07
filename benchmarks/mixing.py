"""Measure mixing beside its peers; write ``results/mixing-<device>.json``, ``.md`` and ``.svg``.

    python benchmarks/mixing.py            the GPU where there is one, else the CPU
    python benchmarks/mixing.py cpu        the CPU

Leave the machine alone meanwhile: up to three minutes on two cores. Libraries take part where
Python finds them, timm by its one file that mixes; beside a build of PyTorch that torchvision does
not work with:

    pip install --no-deps --target peers timm kornia kornia-rs
    PYTHONPATH=peers python benchmarks/mixing.py
"""

import sys
from pathlib import Path

from vicinal.errors import UserError
from vicinal.reports.bench_report import run_bench

if __name__ == "__main__":
    try:
        run_bench(
            out=Path(__file__).parent / "results", device=sys.argv[1] if sys.argv[1:] else None
        )
    except UserError as error:
        sys.exit(f"mixing.py: {error}")
