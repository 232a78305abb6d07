"""Time mixing next to a plain copy, plain PyTorch and other libraries.

    make bench                              measure on the GPU if there is one, else on the CPU
    python benchmarks/mixing.py --help      all options

With ``--out``, writes ``mixing-DEVICE.json``, ``.md`` and ``.svg``. Takes up to three minutes on
two cores; leave the machine idle meanwhile. timm, torchvision and kornia are included if they can
be imported; of timm, only the file with mixup is. If torchvision does not support your PyTorch:

    pip install --no-deps --target peers timm kornia kornia-rs
    PYTHONPATH=peers make bench
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import mixing_report
from timing import Budget, Run, cpu_seconds_of_others, interleave
from vicinal import MixUp, Plan, Shuffle
from vicinal.mixing import kernels
from vicinal.training import environment

Shape = tuple[int, ...]


class Case(NamedTuple):
    """Functions that do the same to the same batch.

    Args:
        name: what they do.
        shape: of the batch.
        dtype: of the batch.
        unit: what the first contender counts as in a ratio, such as "copies".
        contenders: functions by name; ratios are relative to the first.
        bounds: the largest ratio that a contender may have.
        slow: whether to measure for longer.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    unit: str
    contenders: dict[str, Run]
    bounds: Mapping[str, float | None] = {}
    slow: bool = False


class Library(NamedTuple):
    """Another library's mixup; it draws partners and shares itself, and blends labels as well."""

    version: str
    in_place: bool
    mixup: Callable[[Tensor, Tensor], Any]


class Effort(NamedTuple):
    """How much to measure: rows of large batches, budgets, and the batch sizes of the figure."""

    images: int
    features: int
    slow: Budget
    fast: Budget
    point: Budget
    sizes: dict[Shape, list[int]]


FULL = Effort(
    images=256,
    features=128,
    slow=Budget(12.0, least=7),
    fast=Budget(4.0, least=7),
    point=Budget(0.8, least=3),
    sizes={
        (3, 32, 32): [2**k for k in range(2, 13)],
        (3, 224, 224): [2**k for k in range(1, 9)],
    },
)
QUICK = Effort(
    images=8,
    features=8,
    slow=Budget(0.3, least=3, turn=2e-4),
    fast=Budget(0.1, least=3, turn=2e-4),
    point=Budget(0.05, least=3, turn=2e-4),
    sizes={(3, 32, 32): [4, 64], (3, 224, 224): [2, 8]},
)


def find_libraries() -> tuple[dict[str, Library], list[str]]:
    """Return the libraries that can be imported, and a sentence for each that cannot."""
    found, notes = {}, []
    for name, in_place, build in (
        ("torchvision", False, _torchvision),
        ("timm batch", True, partial(_timm, "batch")),
        ("timm elem", True, partial(_timm, "elem")),
        ("kornia", False, _kornia),
    ):
        try:
            found[name] = Library(metadata.version(name.split()[0]), in_place, build())
        except Exception as error:  # whatever keeps a library from working on this machine
            notes.append(f"{name} is missing ({_first_line(error)})")
    return found, notes


class Cases:
    """Builds the cases one after the other, because each of them holds large batches."""

    def __init__(
        self, device: torch.device, effort: Effort, libraries: Mapping[str, Library]
    ) -> None:
        """Build cases for a device."""
        self.device, self.effort, self.libraries = device, effort, libraries
        self.on_gpu = device.type == "cuda"
        self.dtypes = [torch.float32, torch.bfloat16] if self.on_gpu else [torch.float32]

    def build(self) -> Iterator[Case]:
        """Build the cases of the tables."""
        large, small = (self.effort.images, 3, 224, 224), (512, 3, 32, 32)
        compiled = kernels.kernel_for(self.device).__name__.endswith("native")
        for dtype in self.dtypes:
            bound = 1 / 0.9 if self.on_gpu else 1.0 if compiled else 1.5
            yield self.in_place(large, dtype, bound)._replace(slow=True)
            yield self.in_place(small, dtype, None if self.on_gpu else 1.5 if compiled else 3.0)
            yield self.in_place((128, 3, 32, 32), dtype)
            yield self.new_tensor(large, dtype)
            yield self.backward((self.effort.features, 64, 32, 32), dtype)
            yield self.loss((256, 1000), dtype)
        for dtype in (torch.bfloat16, torch.uint8):
            if dtype not in self.dtypes:
                yield self.in_place(large, dtype)
        yield self.drawing(256)

    def in_place(self, shape: Shape, dtype: torch.dtype, bound: float | None = None) -> Case:
        """Mix a batch in place; compare with a copy of it into a batch that exists."""
        x, work, plan = self._batch(shape, dtype), self._batch(shape, dtype), self._plan(shape[0])
        shared, policy = self._plan(shape[0], per="batch"), MixUp(1.0, per="example")
        contenders = {
            "copy": lambda: work.copy_(x),
            "vicinal, per example": lambda: plan.mix_(work),
            "vicinal, per batch": lambda: shared.mix_(work),
            "vicinal, draw + mix": lambda: policy.draw(len(work)).mix_(work),
        }
        bounds = {"vicinal, per example": bound, "vicinal, per batch": bound}
        others = self._others(x, work, plan)
        return Case("in place", shape, dtype, "copies", contenders | others, bounds)

    def new_tensor(self, shape: Shape, dtype: torch.dtype) -> Case:
        """Mix a batch into a new one; compare with a new one that is filled with a constant."""
        x, plan = self._batch(shape, dtype), self._plan(shape[0])
        shared = self._plan(shape[0], per="batch")
        contenders = {
            "a new batch, filled": lambda: torch.empty_like(x).fill_(0),
            "vicinal, per example": lambda: plan.mix(x),
            "vicinal, per batch": lambda: shared.mix(x),
        }
        others = self._others(x, None, plan)
        return Case("new tensor", shape, dtype, "new batches", contenders | others, slow=True)

    def backward(self, shape: Shape, dtype: torch.dtype) -> Case:
        """Mix features and take the gradient; compare with the forward pass alone."""
        x, g = self._batch(shape, dtype).requires_grad_(), self._batch(shape, dtype)
        plan = self._plan(shape[0])
        contenders = {
            "vicinal, forward only": lambda: plan.mix(x),
            "vicinal": lambda: torch.autograd.grad(plan.mix(x), x, g),
            "textbook expression": lambda: torch.autograd.grad(textbook(x, plan), x, g),
        }
        return Case("forward + backward", shape, dtype, "forward passes", contenders, slow=True)

    def loss(self, shape: Shape, dtype: torch.dtype) -> Case:
        """Take the cross-entropy of a mixed batch and its gradient; compare with a plain one."""
        logits = self._batch(shape, dtype).requires_grad_()
        y = torch.arange(shape[0], device=self.device) * 37 % shape[1]
        plan = self._plan(shape[0])
        partner, lam = plan.partner, plan.lam.to(dtype)

        def one_hot() -> Tensor:
            own, other = (F.one_hot(labels, shape[1]).to(dtype) for labels in (y, y[partner]))
            return F.cross_entropy(logits, lam[:, None] * own + (1 - lam[:, None]) * other)

        def twice() -> Tensor:
            own, other = (
                F.cross_entropy(logits, labels, reduction="none") for labels in (y, y[partner])
            )
            return (lam * own + (1 - lam) * other).mean()

        losses = {
            "F.cross_entropy, not mixed": lambda: F.cross_entropy(logits, y),
            "vicinal, plan.loss": lambda: plan.loss(F.cross_entropy, logits, y),
            "soft targets, one-hot": one_hot,
            "two cross-entropies": twice,
        }
        contenders: dict[str, Run] = {
            name: lambda value=value: torch.autograd.grad(value(), logits)
            for name, value in losses.items()
        }
        bounds = {} if self.on_gpu else {"vicinal, plan.loss": 1.5}
        return Case("cross-entropy + backward", shape, dtype, "plain losses", contenders, bounds)

    def drawing(self, size: int) -> Case:
        """Draw a plan, which happens on the CPU."""
        example, batch = MixUp(1.0, per="example"), MixUp(1.0, per="batch")
        beta = partial(np.random.default_rng(0).beta, 1.0, 1.0, size)
        contenders = {
            "NumPy's beta, torch.randperm": lambda: (beta(), torch.randperm(size)),
            "vicinal, per example": lambda: example.draw(size),
            "vicinal, per batch": lambda: batch.draw(size),
        }
        return Case("drawing a plan", (size,), torch.float32, "NumPy's draws", contenders)

    def by_size(self) -> Iterator[Case]:
        """Mix a batch in place and into a new one: one case for each batch size of the figure."""
        for dtype in self.dtypes:
            for row, sizes in self.effort.sizes.items():
                for size in sizes:
                    yield self._point((size, *row), dtype)

    def _point(self, shape: Shape, dtype: torch.dtype) -> Case:
        x, work, plan = self._batch(shape, dtype), self._batch(shape, dtype), self._plan(shape[0])
        contenders = {
            "copy": lambda: work.copy_(x),
            "vicinal, in place": lambda: plan.mix_(work),
            "vicinal, new tensor": lambda: plan.mix(x),
        }
        others = self._others(x, work, plan)
        return Case("by batch size", shape, dtype, "copies", contenders | others)

    def _others(self, x: Tensor, work: Tensor | None, plan: Plan) -> dict[str, Run]:
        """Return the contenders that are not ours; ``work`` is for those that mix in place."""
        if not x.dtype.is_floating_point:
            return {}
        labels = torch.arange(len(x), device=x.device) % 2
        others: dict[str, Run] = {"textbook expression": lambda: textbook(x, plan)}
        for name, library in self.libraries.items():
            batch = work if library.in_place else x
            if batch is not None:
                others[name] = partial(library.mixup, batch, labels)
        return others

    def _batch(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        values = torch.rand(shape, device=self.device)
        return values.mul_(255).to(dtype) if dtype == torch.uint8 else values.to(dtype)

    def _plan(self, size: int, **settings: Any) -> Plan:
        pairing = Shuffle(meet_self=False)  # a row that meets itself would cost nothing
        policy = MixUp(1.0, **{"per": "example", "pairing": pairing} | settings)
        plan = policy.draw(size, generator=torch.Generator().manual_seed(0))
        return plan.to(self.device)


def textbook(x: Tensor, plan: Plan) -> Tensor:
    """Blend as the paper writes it, with a share for each row."""
    lam = plan.lam.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    return lam * x + (1 - lam) * x[plan.partner]


def measure(
    device: torch.device, effort: Effort, log: Callable[[str], None] = lambda sentence: None
) -> dict[str, Any]:
    """Measure every case, and return the result as plain values for JSON.

    Returns:
        ``device``, ``quick``, ``hardware``, ``versions``, ``threads``; ``kernel``, the module of
        ``vicinal.mixing.kernels`` that mixes on the device; ``others_cores``, how many cores other
        processes used meanwhile (None if unknown); ``peers``, the libraries with their versions;
        ``cases``, a row for each contender; ``targets``, a row for each bound; ``scaling``, a row
        for each contender and batch size; ``notes``, sentences on what is missing or in the way.
    """
    libraries, notes = find_libraries()
    versions = environment.versions()

    def timed(case: Case, budget: Budget) -> list[dict[str, Any]]:
        """Return a row for each contender that can mix such a batch."""
        dtype = str(case.dtype).removeprefix("torch.")
        log(f"measuring: {case.name}, {mixing_report.shape_text(case.shape)} {dtype}")
        for name in libraries.keys() & case.contenders.keys():
            try:
                case.contenders[name]()
            except Exception as error:
                notes.append(f"{name} cannot mix {dtype} on {device.type} ({_first_line(error)})")
                del case.contenders[name]
        timings = interleave(case.contenders, budget)
        return [
            {
                "case": case.name,
                "shape": list(case.shape),
                "dtype": dtype,
                "contender": name,
                "version": libraries[name].version
                if name in libraries
                else versions[{"vicinal": "vicinal", "NumPy's": "numpy"}.get(start, "torch")],
                **{f"{field}_ms": 1000 * value for field, value in timing._asdict().items()},
            }
            for name, timing in timings.items()
            for start in [name.split(",")[0].split()[0]]
        ]

    # glibc reuses freed blocks up to the size of the largest that was freed so far, without page
    # faults. Free a large one, so that times do not depend on which case comes first.
    torch.empty(31 * 2**20, dtype=torch.uint8).fill_(0)
    began, others = time.perf_counter(), cpu_seconds_of_others()
    cases, builder = [], Cases(device, effort, libraries)
    targets = []
    for case in builder.build():
        rows = timed(case, effort.slow if case.slow else effort.fast)
        for row in rows:
            row |= {"ratio": row["median_ms"] / rows[0]["median_ms"], "unit": case.unit}
            if (bound := case.bounds.get(row["contender"])) is not None:
                shape = mixing_report.shape_text(case.shape)
                targets.append(
                    {
                        "name": f"{case.name}, {shape} {row['dtype']}: {row['contender']}",
                        "bound": f"at most {bound:.3g} {case.unit}",
                        "measured": row["ratio"],
                        "met": row["ratio"] <= bound,
                    }
                )
        cases += rows
    scaling = [
        {"row": row["shape"][1:], "batch": row["shape"][0]}
        | {key: value for key, value in row.items() if key not in {"case", "shape"}}
        for case in builder.by_size()
        for row in timed(case, effort.point)
    ]
    later, cores = cpu_seconds_of_others(), None
    if others is not None and later is not None:
        cores = (later - others) / (time.perf_counter() - began)
        if cores > 0.1:
            notes.append(f"other processes used {cores:.1f} cores, which distorts the times")
    return {
        "device": device.type,
        "quick": effort is QUICK,
        "hardware": environment.hardware(),
        "versions": versions,
        "threads": torch.get_num_threads(),
        "kernel": kernels.kernel_for(device).__name__.rpartition(".")[2],
        "others_cores": cores,
        "peers": [{"name": n, "version": library.version} for n, library in libraries.items()],
        "cases": cases,
        "targets": targets,
        "scaling": scaling,
        "notes": list(dict.fromkeys(notes)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the report, and write it."""
    parser = argparse.ArgumentParser(description="Time mixing next to other libraries.")
    parser.add_argument("--out", type=Path, help="folder for the files (default: print only)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda if there is a GPU")
    parser.add_argument("--quick", action="store_true", help="small batches: only a smoke test")
    parser.add_argument(
        "--without-c", action="store_true", help="mix with PyTorch operators, as without a compiler"
    )
    options = parser.parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.without_c:
        kernels.native.is_available = lambda: False
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)  # fail before measuring, not after
    effort = QUICK if options.quick else FULL
    result = measure(torch.device(device), effort, partial(print, file=sys.stderr))
    sys.stdout.write(mixing_report.markdown(result))
    if options.out is not None:
        mixing_report.write_files(result, options.out)


def _torchvision() -> Any:
    return import_module("torchvision.transforms.v2").MixUp(alpha=1.0, num_classes=2)


def _timm(mode: str) -> Any:
    """Import one file of timm, which needs only PyTorch and NumPy; the rest needs torchvision."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'timm'")
    path = Path(package.origin).parent / "data" / "mixup.py"
    spec = importlib.util.spec_from_file_location("timm_mixup", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Mixup(mixup_alpha=1.0, mode=mode, num_classes=2, label_smoothing=0.0)


def _kornia() -> Any:
    augmentation = import_module("kornia.augmentation")
    return augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


if __name__ == "__main__":
    main()
