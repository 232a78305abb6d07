"""Measure how fast networks are trained, and where the time goes; write a results file.

    python benchmarks/training.py [ROUNDS]

Random pictures of 32x32 pixels in batches of 128: speed does not depend on what they show. Every
line is measured in a process of its own, once a round, the lines of a round one after the other;
but training without mixing and with it, which differ by little, in one process and in turns.
Ratios are taken within a round. Takes a quarter of an hour for three rounds on two cores; leave the
machine alone meanwhile.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
from vicinal.training.engine import make_fabric
from vicinal.training.environment import hardware, versions
from vicinal.training.memory import memory_kept
from vicinal.training.optimizers import make_optimizers
from vicinal.training.settings import SGD, Linear, Training

RESULTS = Path(__file__).parent / "results"
BATCH, STEPS, TURNS, CLASSES = 128, 8, 6, 10
NETWORKS = {"preact-resnet-18": ("stages.stage1", 2.3), "preact-resnet-50-small": ("stem", 2.4)}
"""The networks, a layer of each, and how many times the plain step vicinal has to be."""

SETTINGS = Training(
    epochs=9,
    batch_size=BATCH,
    optimizer=SGD(name="sgd", lr=0.01, weight_decay=1e-4),
    schedule=Linear(name="linear"),
    precision="bfloat16",
    channels_last=True,
)
WAYS = ("plain", "bare", "loop", "mixed", "mixed-features", "compiled")
IN_TURNS = ("loop", "mixed", "mixed-features")
TITLES = {
    "plain": "plain PyTorch step: float32, contiguous",
    "bare": "bare step: bfloat16, channels_last, memory kept, fused",
    "loop": "vicinal: the same, with data, augmentation and metrics",
    "mixed": "vicinal, mixup at the input",
    "mixed-features": "vicinal, mixup in feature maps",
    "compiled": "vicinal, the network compiled",
    "two-ranks": "vicinal, two ranks of one thread each (gloo)",
}


def pictures(count: int) -> Split:
    """Return random pictures with classes."""
    chance = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, 3, 32, 32), generator=chance, dtype=torch.uint8)
    return Split(x, torch.randint(CLASSES, (count,), generator=chance))


def fixed_batch() -> tuple[Tensor, Tensor]:
    """Return one batch as it comes out of a loader."""
    part = pictures(BATCH)
    return normalization_of(part).apply(part.inputs, torch.empty(BATCH, 0)), part.targets


def plain_step(name: str) -> Callable[[], None]:
    """Return a step as a first tutorial has it."""
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
    """Return the fastest step that we know, on a batch that is there."""
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


def images_per_second(name: str, way: str) -> float:
    """Measure one way of training one network in this process."""
    if way in ("plain", "bare"):
        step = plain_step(name) if way == "plain" else bare_step(name)
        with memory_kept() if way == "bare" else contextlib.nullcontext():
            for _ in range(3):
                step()
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            return BATCH * STEPS / (time.perf_counter() - began)
    epochs = epochs_of(name, way)
    with memory_kept():
        next(epochs)
        began = time.perf_counter()
        next(epochs)
        return BATCH * STEPS / (time.perf_counter() - began)


def rates_in_turns(name: str) -> dict[str, float]:
    """Measure training without mixing and with it in this process, an epoch of each at a time."""
    epochs = {way: epochs_of(name, way) for way in IN_TURNS}
    seconds: dict[str, list[float]] = {way: [] for way in IN_TURNS}
    with memory_kept():
        for way in IN_TURNS:
            next(epochs[way])
        for turn in range(TURNS):
            for way in order_of_round(IN_TURNS, turn):
                began = time.perf_counter()
                next(epochs[way])
                seconds[way].append(time.perf_counter() - began)
    return {way: BATCH * STEPS / median(each) for way, each in seconds.items()}


def epochs_of(name: str, way: str, spent: dict[str, float] | None = None) -> Iterator[Any]:
    """Return vicinal's training, an epoch at a time; with ``spent``, its parts are timed."""
    ranks = 2 if way == "two-ranks" else 1
    fabric = make_fabric(accelerator="cpu", precision="bfloat16", devices=ranks)
    if ranks > 1:
        torch.set_num_threads(1)
    part = pictures(BATCH * STEPS)
    loader = Loader(
        part,
        batch_size=BATCH // ranks,
        seed=0,
        augment=(RandomCrop(4), RandomHorizontalFlip(), normalization_of(part)),
        rank=fabric.global_rank,
        ranks=ranks,
    )
    torch.manual_seed(0)
    learner = loop.make_learner(
        build(name, shape=(3, 32, 32), classes=CLASSES),
        SETTINGS.model_copy(update={"compile": way == "compiled"}),
        fabric=fabric,
        policy=MixUp(alpha=1.0) if way.startswith("mixed") else None,
        at=(NETWORKS[name][0] if way == "mixed-features" else "input",),
    )
    if spent is not None:
        time_parts(learner, loader, fabric, spent)
    return loop.train(learner, loader, seed=0)


def time_parts(learner: loop.Learner, loader: Loader, fabric: Any, spent: dict[str, float]) -> None:
    """Count what is spent where; what runs inside something else counts there, too."""

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
    """Return the share of each part of a mixed epoch."""
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


def measured_apart(words: list[str]) -> Any:
    """Measure in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def one(words: list[str]) -> None:
    """Measure what a parent process wants, and print it."""
    name, way = words
    if way in ("shares", "in-turns"):
        print(json.dumps(shares(name) if way == "shares" else rates_in_turns(name)))
        return
    rate = images_per_second(name, way)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(json.dumps(rate))


def ratios(rounds: list[dict[str, float]], way: str, base: str) -> dict[str, float]:
    """Return the ratio of two ways, round by round."""
    each = [one_round[way] / one_round[base] for one_round in rounds]
    return {"median": median(each), "lowest": min(each), "highest": max(each)}


def checks(rounds: list[dict[str, float]], name: str) -> list[dict[str, Any]]:
    """Return what has to be reached, and what was."""
    wanted = [
        ("times the plain step", "loop", "plain", NETWORKS[name][1]),
        ("times the plain step, the network compiled", "compiled", "plain", NETWORKS[name][1]),
        ("of a bare step, with data, augmentation and metrics", "loop", "bare", 0.95),
        ("of training without mixing, mixed at the input", "mixed", "loop", 0.98),
        ("of training without mixing, mixed in feature maps", "mixed-features", "loop", 0.98),
    ]
    if "two-ranks" in rounds[0]:
        wanted.append(("of one process with two threads, two ranks", "two-ranks", "loop", 0.90))
    return [
        {"network": name, "what": what, "wanted": limit}
        | (found := ratios(rounds, way, base))
        | {"met": found["median"] >= limit}
        for what, way, base, limit in wanted
    ]


def as_markdown(result: dict[str, Any]) -> str:
    """Return the result as tables."""
    lines = ["| network | way | images a second | lowest to highest |", "| --- | --- | --: | --- |"]
    for row in result["rows"]:
        lines.append(
            f"| {row['network']} | {TITLES[row['way']]} | {row['median']:,.0f} | "
            f"{row['lowest']:,.0f} to {row['highest']:,.0f} |"
        )
    lines += ["", "| network | ratio | median | lowest to highest | wanted | met |"]
    lines += ["| --- | --- | --: | --- | --: | --- |"]
    for row in result["checks"]:
        lines.append(
            f"| {row['network']} | {row['what']} | {row['median']:.3f} | {row['lowest']:.3f} to "
            f"{row['highest']:.3f} | {row['wanted']} | {'yes' if row['met'] else 'no'} |"
        )
    parts = ("data", "mixing", "forward", "backward", "optimizer", "other")
    lines += ["", f"| share of a step, mixed at the input | {' | '.join(parts)} |"]
    lines += ["| --- |" + " --: |" * len(parts)]
    for name, share in result["shares"].items():
        cells = " | ".join(f"{100 * share.get(part, 0):.1f} %" for part in parts)
        lines.append(f"| {name} | {cells} |")
    machine = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    software = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    note = (
        f"Medians of {result['rounds']} rounds, {STEPS} steps of {BATCH} pictures after a warm-up; "
        f"each line in a process of its own, but without mixing and with it {TURNS} times in turns "
        "in one; ratios within a round."
    )
    return "\n".join([*lines, "", note, "", f"{machine}; {software}.", ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        with cpu_threads(None):
            one(words.one)
        return
    rows, reached = [], []
    for name in NETWORKS:
        ways = (*WAYS, "two-ranks") if name == "preact-resnet-50-small" else WAYS
        alone = [way for way in ways if way not in IN_TURNS]
        rounds = [
            {way: measured_apart([name, way]) for way in alone} | measured_apart([name, "in-turns"])
            for _ in range(words.rounds)
        ]
        reached += checks(rounds, name)
        for way in ways:
            each = [found[way] for found in rounds]
            spread = {"median": median(each), "lowest": min(each), "highest": max(each)}
            rows.append({"network": name, "way": way} | spread)
    result = {
        "hardware": hardware(),
        "versions": versions(),
        "rounds": words.rounds,
        "rows": rows,
        "checks": reached,
        "shares": {name: measured_apart([name, "shares"]) for name in NETWORKS},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "training-cpu.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "training-cpu.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
