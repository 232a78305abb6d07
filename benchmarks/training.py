"""Measure training speed, and how the time of a step is spent; write ``results/training-*``.

    python benchmarks/training.py [ROUNDS] [--out FOLDER]

Trains on random images of 32x32 pixels in batches of 128. In each round, every mode of training is
measured once, in its own process; training with and without mixing, which differ little, alternate
in a single process. Ratios are taken within a round. Three rounds take a quarter of an hour on two
cores; leave the machine idle meanwhile. With a GPU, only vicinal's own modes are measured, all of
them in this process, in about two minutes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from timing import order_of_round
from vicinal.data import Loader, RandomCrop, RandomHorizontalFlip, Split, normalization_of
from vicinal.data.threads import cpu_threads
from vicinal.mixing import MixUp, Plan
from vicinal.models import build
from vicinal.training import loop
from vicinal.training.devices import make_fabric
from vicinal.training.environment import hardware, versions
from vicinal.training.memory import memory_kept
from vicinal.training.optimizers import make_optimizers
from vicinal.training.settings import SGD, Linear, Training

RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, TURNS, CLASSES = 128, 6, 10
STEPS = 8 if DEVICE == "cpu" else 100
NETWORKS = {"preact-resnet-18": ("stages.stage1", 2.3), "preact-resnet-50-small": ("stem", 2.4)}
"""Each network with a layer to mix at, and the least speed relative to the plain step."""

SETTINGS = Training(
    epochs=9,
    batch_size=BATCH,
    optimizer=SGD(name="sgd", lr=0.01, weight_decay=1e-4),
    schedule=Linear(name="linear"),
    precision="bfloat16",
    channels_last=True,
)
MODES = ("plain", "bare", "loop", "mixed", "mixed-features", "compiled")
ALTERNATING = ("loop", "mixed", "mixed-features")
ON_GPU = (*ALTERNATING, "compiled")
TITLES = {
    "plain": "plain PyTorch step: float32, contiguous",
    "bare": "bare step: bfloat16, channels_last, fused optimizer, cached memory",
    "loop": "vicinal: the bare step with data loading, augmentation and metrics",
    "mixed": "vicinal, mixup at the input",
    "mixed-features": "vicinal, mixup of feature maps",
    "compiled": "vicinal, compiled network",
    "two-ranks": "vicinal, two ranks with one thread each (gloo)",
}


def random_images(count: int) -> Split:
    """Return random images with random labels."""
    chance = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, 3, 32, 32), generator=chance, dtype=torch.uint8)
    return Split(x, torch.randint(CLASSES, (count,), generator=chance))


def fixed_batch() -> tuple[Tensor, Tensor]:
    """Return one batch, as a loader returns it."""
    part = random_images(BATCH)
    return normalization_of(part).apply(part.inputs, torch.empty(BATCH, 0)), part.targets


def plain_step(name: str) -> Callable[[], None]:
    """Return a training step as in a first tutorial."""
    model = build(name, shape=(3, 32, 32), classes=CLASSES)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    x, y = fixed_batch()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def bare_step(name: str) -> Callable[[], None]:
    """Return the fastest training step that we know of, on one fixed batch."""
    model = build(name, shape=(3, 32, 32), classes=CLASSES)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    (optimizer,) = make_optimizers(model, SETTINGS)
    x, y = fixed_batch()
    x = x.to(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)
        F.cross_entropy(output.float(), y).backward()
        optimizer.step()

    return step


def images_per_second(name: str, mode: str) -> float:
    """Measure one mode of training in this process."""
    if mode in ("plain", "bare"):
        step = plain_step(name) if mode == "plain" else bare_step(name)
        with memory_kept() if mode == "bare" else contextlib.nullcontext():
            for _ in range(3):
                step()
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            return BATCH * STEPS / (time.perf_counter() - began)
    epochs = epochs_of(name, mode)
    with memory_kept():
        next(epochs)
        began = time.perf_counter()
        next(epochs)
        return BATCH * STEPS / (time.perf_counter() - began)


def alternating_rates(name: str, modes: Sequence[str] = ALTERNATING) -> dict[str, float]:
    """Measure training with and without mixing in this process, in alternating epochs."""
    epochs = {mode: epochs_of(name, mode) for mode in modes}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    with memory_kept():
        for mode in modes:
            next(epochs[mode])
        for turn in range(TURNS):
            for mode in order_of_round(modes, turn):
                began = time.perf_counter()
                next(epochs[mode])
                seconds[mode].append(time.perf_counter() - began)
    return {mode: BATCH * STEPS / median(each) for mode, each in seconds.items()}


def epochs_of(name: str, mode: str, spent: dict[str, float] | None = None) -> Iterator[Any]:
    """Train with vicinal, one epoch per item; add the seconds of each part to ``spent``."""
    ranks = 2 if mode == "two-ranks" else 1
    fabric = make_fabric(accelerator=DEVICE, precision="bfloat16", devices=ranks)
    if ranks > 1:
        torch.set_num_threads(1)
    part = random_images(BATCH * STEPS)
    loader = Loader(
        part,
        batch_size=BATCH // ranks,
        seed=0,
        augment=(
            RandomCrop(4),
            RandomHorizontalFlip(),
            normalization_of(part).to(fabric.device),
        ),
        device=fabric.device,
        rank=fabric.global_rank,
        ranks=ranks,
    )
    torch.manual_seed(0)
    learner = loop.make_learner(
        build(name, shape=(3, 32, 32), classes=CLASSES),
        SETTINGS.model_copy(update={"compile": mode == "compiled"}),
        fabric=fabric,
        policy=MixUp(alpha=1.0) if mode.startswith("mixed") else None,
        at=(NETWORKS[name][0] if mode == "mixed-features" else "input",),
    )
    if spent is not None:
        time_parts(learner, loader, fabric, spent)
    return loop.train(learner, loader, seed=0)


def time_parts(learner: loop.Learner, loader: Loader, fabric: Any, spent: dict[str, float]) -> None:
    """Add the seconds of each part to ``spent``; nested parts also count for the outer one."""

    def timed(owner: Any, name: str, what: str) -> None:
        run = getattr(owner, name)

        def timing(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return run(*args, **options)
            finally:
                spent[what] = spent.get(what, 0.0) + time.perf_counter() - began

        setattr(owner, name, timing)

    run = loader.epoch

    def epoch(*args: int) -> Iterator[Any]:
        batches = run(*args)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            spent["data"] = spent.get("data", 0.0) + time.perf_counter() - began
            if batch is None:
                return
            yield batch

    loader.epoch = epoch  # type: ignore[method-assign]
    begun: list[float] = []

    def after(*_: Any) -> None:
        spent["forward"] = spent.get("forward", 0.0) + time.perf_counter() - begun.pop()

    learner.model.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    learner.model.register_forward_hook(after)
    timed(fabric, "backward", "backward")
    for optimizer in learner.optimizers:
        timed(optimizer, "step", "optimizer")
    timed(Plan, "mix", "mixing")
    timed(MixUp, "draw", "mixing")
    timed(Plan, "loss", "mixing")


def shares(name: str) -> dict[str, float]:
    """Return the share of each part in the time of an epoch with mixing."""
    spent: dict[str, float] = {}
    epochs = epochs_of(name, "mixed", spent)
    with memory_kept():
        next(epochs)
        spent.clear()
        began = time.perf_counter()
        next(epochs)
        whole = time.perf_counter() - began
    plain = {part: seconds / whole for part, seconds in spent.items()}
    return plain | {"other": 1 - sum(plain.values())}


def measure_in_process(words: list[str]) -> Any:
    """Run ``one`` in a new process, and return what it printed."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def one(words: list[str]) -> None:
    """Measure one mode, or the shares of a step, and print the result as JSON."""
    name, mode = words
    if mode in ("shares", "alternating"):
        print(json.dumps(shares(name) if mode == "shares" else alternating_rates(name)))
        return
    rate = images_per_second(name, mode)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(json.dumps(rate))


def ratios(rounds: list[dict[str, float]], mode: str, base: str) -> dict[str, float]:
    """Return the ratio of two modes: its median and range over the rounds."""
    each = [one_round[mode] / one_round[base] for one_round in rounds]
    return {"median": median(each), "lowest": min(each), "highest": max(each)}


def checks(rounds: list[dict[str, float]], name: str) -> list[dict[str, Any]]:
    """Return the ratios of interest, each with its bound."""
    bounds = [
        ("vicinal / plain step", "loop", "plain", NETWORKS[name][1]),
        ("vicinal, compiled / plain step", "compiled", "plain", NETWORKS[name][1]),
        ("vicinal / bare step", "loop", "bare", 0.95),
        ("mixup at the input / no mixing", "mixed", "loop", 0.98),
        ("mixup of feature maps / no mixing", "mixed-features", "loop", 0.98),
    ]
    if "two-ranks" in rounds[0]:
        bounds.append(("two ranks / one process with two threads", "two-ranks", "loop", 0.90))
    return [
        {"network": name, "ratio": ratio, "bound": bound}
        | (found := ratios(rounds, mode, base))
        | {"met": found["median"] >= bound}
        for ratio, mode, base, bound in bounds
        if {mode, base} <= rounds[0].keys()
    ]


def as_markdown(result: dict[str, Any]) -> str:
    """Return the result as tables."""
    lines = [
        "| network | training | images per second | lowest to highest |",
        "| --- | --- | --: | --- |",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['network']} | {TITLES[row['mode']]} | {row['median']:,.0f} | "
            f"{row['lowest']:,.0f} to {row['highest']:,.0f} |"
        )
    lines += ["", "| network | ratio of speeds | median | lowest to highest | at least | met |"]
    lines += ["| --- | --- | --: | --- | --: | --- |"]
    for row in result["checks"]:
        lines.append(
            f"| {row['network']} | {row['ratio']} | {row['median']:.3f} | {row['lowest']:.3f} to "
            f"{row['highest']:.3f} | {row['bound']} | {'yes' if row['met'] else 'no'} |"
        )
    if result["shares"]:
        parts = ("data", "mixing", "forward", "backward", "optimizer", "other")
        lines += ["", f"| shares of a step, mixup at the input | {' | '.join(parts)} |"]
        lines += ["| --- |" + " --: |" * len(parts)]
        for name, share in result["shares"].items():
            cells = " | ".join(f"{100 * share.get(part, 0):.1f}%" for part in parts)
            lines.append(f"| {name} | {cells} |")
    machine = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    software = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    how = (
        "Each row was measured in its own process, except that training with and without mixing "
        f"alternated {TURNS} times in one process."
        if result["device"] == "cpu"
        else f"All rows of a network alternated {TURNS} times in one process."
    )
    note = (
        f"Medians of {result['rounds']} rounds of {STEPS} steps with {BATCH} images after warm-up. "
        f"{how} Ratios are taken within a round."
    )
    return "\n".join([*lines, "", note, "", f"{machine}; {software}.", ""])


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with cpu_threads(None):
            one(options.one)
        return
    options.out.mkdir(parents=True, exist_ok=True)  # fail before measuring, not after
    rows, reached = [], []
    for name in NETWORKS:
        modes = (*MODES, "two-ranks") if name == "preact-resnet-50-small" else MODES
        if DEVICE == "cuda":
            modes = ON_GPU
            rounds = [alternating_rates(name, ON_GPU) for _ in range(options.rounds)]
        else:
            alone = [mode for mode in modes if mode not in ALTERNATING]
            rounds = [
                {mode: measure_in_process([name, mode]) for mode in alone}
                | measure_in_process([name, "alternating"])
                for _ in range(options.rounds)
            ]
        reached += checks(rounds, name)
        for mode in modes:
            each = [found[mode] for found in rounds]
            spread = {"median": median(each), "lowest": min(each), "highest": max(each)}
            rows.append({"network": name, "mode": mode} | spread)
    # On a GPU, kernels run after the functions that launch them have returned.
    parts = NETWORKS if DEVICE == "cpu" else ()
    result = {
        "device": DEVICE,
        "hardware": hardware(),
        "versions": versions(),
        "rounds": options.rounds,
        "rows": rows,
        "checks": reached,
        "shares": {name: measure_in_process([name, "shares"]) for name in parts},
    }
    (options.out / f"training-{DEVICE}.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / f"training-{DEVICE}.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
