"""Measure data loading and augmentation; write ``results/loading-cpu.json`` and ``.md``.

    python benchmarks/loading.py FOLDER    a folder with cifar-10-python.tar.gz

Without FOLDER, the archive is made from the data in the folder that the environment variable
VICINAL_SHARED names. Takes about three minutes on two cores; leave the machine idle meanwhile.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vicinal.data import (
    DataSet,
    HLSJitter,
    Loader,
    RandomCrop,
    RandomHorizontalFlip,
    load,
    normalization_of,
)
from vicinal.data.convert import convert
from vicinal.data.formats.stored_images import StoredImages
from vicinal.training.environment import hardware, versions

RESULTS = Path(__file__).parent / "results"
BATCH = 256
ROUNDS = 5
ARCHIVE = "cifar-10-python.tar.gz"


class PlainRecords(Dataset[Any]):
    """A plain data set: one example at a time, with Pillow and NumPy."""

    def __init__(self, split: Any, jitter: bool) -> None:
        """Read from a split of encoded images or pixels."""
        self.split, self.jitter = split, jitter

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.split)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        """Decode, crop, flip and jitter one image."""
        import io

        from PIL import Image

        inputs = self.split.inputs
        if isinstance(inputs, StoredImages):
            pixels = np.asarray(Image.open(io.BytesIO(inputs.files.get(row))))
        else:
            pixels = inputs[row].permute(1, 2, 0).numpy()
        padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0)))
        top, left = np.random.randint(0, 9, 2)
        pixels = padded[top : top + 32, left : left + 32]
        if np.random.rand() < 0.5:
            pixels = pixels[:, ::-1]
        if self.jitter:
            # Pillow has hue, saturation and value, which is closest to our jitter.
            hsv = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("HSV"))
            shift = np.random.randint(-50, 51, 3)
            moved = hsv.astype(np.int16) + shift
            moved[..., 0] %= 256
            changed = np.clip(moved, 0, 255).astype(np.uint8)
            pixels = np.asarray(Image.fromarray(changed, "HSV").convert("RGB"))
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255)
        return x.sub(0.47).div(0.25), int(self.split.targets[row])


def rate(batches: Iterator[Any], most: int) -> float:
    """Return the examples per second, not counting the first batch."""
    next(batches)  # starts the worker processes
    begin, count = time.perf_counter(), 0
    for _, y in batches:
        count += len(y)
        if count >= most:
            break
    return count / (time.perf_counter() - begin)


def first_batch(archive: Path) -> float:
    """Return the seconds until the first batch of an archive is read, augmented and normalized."""
    begin = time.perf_counter()
    data = load(f"cifar10:{archive}")
    steps = (RandomCrop(), RandomHorizontalFlip(), normalization_of(data.train))
    next(iter(Loader(data.train, batch_size=BATCH, seed=0, augment=steps).epoch(0)))
    return time.perf_counter() - begin


def speeds(archive: Path, records: Path) -> dict[str, list[float]]:
    """Measure each loader once in each of ``ROUNDS`` rounds."""
    data = load(f"cifar10:{archive}")
    streamed = load(f"rec:{records}_train.rec,{records}_test.rec", in_memory=0)
    standard = normalization_of(data.train)
    light = (RandomCrop(), RandomHorizontalFlip(), standard)
    full = (RandomCrop(), RandomHorizontalFlip(), HLSJitter(), standard)
    loaders: dict[str, Callable[[], tuple[Iterator[Any], int]]] = {
        "memory": _ours(data, light),
        "memory, color": _ours(data, full),
        "stream, decoded alone": _ours(streamed, ()),
        "stream, crop and flip": _ours(streamed, light),
        "stream, color": _ours(streamed, full),
        "plain loop, memory": _plain(data, jitter=False),
        "plain loop, stream, color": _plain(streamed, jitter=True),
    }
    measured: dict[str, list[float]] = {name: [] for name in [*loaders, "first batch"]}
    for _ in range(ROUNDS):
        for name, start in loaders.items():
            measured[name].append(rate(*start()))
        measured["first batch"].append(first_batch(archive))
    return measured


def _ours(data: DataSet, steps: Any) -> Callable[[], tuple[Iterator[Any], int]]:
    def start() -> tuple[Iterator[Any], int]:
        loader = Loader(data.train, batch_size=BATCH, seed=0, augment=steps)
        return iter(loader.epoch(0)), len(data.train)

    return start


def _plain(data: DataSet, *, jitter: bool) -> Callable[[], tuple[Iterator[Any], int]]:
    def start() -> tuple[Iterator[Any], int]:
        dataset = PlainRecords(data.train, jitter)
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=2)
        return iter(loader), 10_000

    return start


def stream(records: Path) -> None:
    """Print a line after all imports, wait for an input line, then stream 200,000 images."""
    torch.ones(8).sum()
    print("imported", flush=True)
    sys.stdin.readline()
    data = load(f"rec:{records},{records}", in_memory=0)
    steps = (RandomCrop(), RandomHorizontalFlip(), HLSJitter(), normalization_of(data.train))
    loader = Loader(data.train, batch_size=BATCH, seed=0, augment=steps)
    seen = 0
    for epoch in range(4):
        for _, y in loader.epoch(epoch):
            seen += len(y)
            if seen > 200_000:
                return


def memory_of_streaming(records: Path) -> float:
    """Return the growth in memory, in MB, of a process and its workers while they stream a file."""
    command = [sys.executable, __file__, "--stream", str(records)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = peak = _resident(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.05)
    if process.returncode:
        sys.exit("loading.py: the streaming process failed")
    return (peak - before) / 1e6


def _resident(pid: int) -> int:
    """Return the memory of a process and its children in bytes, counting shared pages once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if pid in {int(folder.name), parent}:
                rollup = (folder / "smaps_rollup").read_text()
                total += 1024 * int(rollup.partition("\nPss:")[2].split()[0])
        except (OSError, ValueError, IndexError):
            continue  # the process has ended
    return total


def lengthened(records: Path, times: int, out: Path) -> Path:
    """Write a file that repeats the records of another file."""
    content = records.read_bytes()
    with out.open("wb") as file:
        for _ in range(times):
            file.write(content)
    return out


def archive_in(folder: Path) -> Path:
    """Make an archive like the official one from the data in VICINAL_SHARED."""
    shared = Path(os.environ.get("VICINAL_SHARED", Path(__file__).parents[2] / "shared"))
    script = shared / "data" / "unpack.py"
    if not script.exists():
        sys.exit(
            "loading.py: expected a folder with cifar-10-python.tar.gz. Name one or set "
            "VICINAL_SHARED."
        )
    spec = importlib.util.spec_from_file_location("unpack", script)
    assert spec is not None
    assert spec.loader is not None
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    unpack.write_batches(folder)
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    return folder / ARCHIVE


def rows_of(measured: dict[str, list[float]], memory: dict[str, float]) -> list[dict[str, Any]]:
    """Return the measurements, with their bounds."""
    bounds = {
        "stream, color": (".rec of 32x32 JPEG: decoded, cropped, flipped, jittered", 40_000),
        "memory": ("CIFAR-10 in memory: cropped, flipped", 100_000),
        "first batch": ("from the archive of CIFAR-10 to the first batch", 1.5),
    }
    titles = {
        "memory, color": "CIFAR-10 in memory: cropped, flipped, jittered",
        "stream, decoded alone": ".rec of 32x32 JPEG: decoded",
        "stream, crop and flip": ".rec of 32x32 JPEG: decoded, cropped, flipped",
        "plain loop, memory": "plain DataLoader, CIFAR-10 in memory: cropped, flipped",
        "plain loop, stream, color": "plain DataLoader, JPEG: decoded, cropped, flipped, jittered",
    }
    rows = []
    for name in ["stream, color", "memory", "first batch", *titles]:
        values = measured[name]
        title, limit = bounds.get(name, (titles.get(name, ""), None))
        median = statistics.median(values)
        seconds = name == "first batch"
        met = None if limit is None else (median <= limit if seconds else median >= limit)
        rows.append(
            {
                "task": title,
                "unit": "s" if seconds else "images/s",
                "median": median,
                "lowest": min(values),
                "highest": max(values),
                "bound": limit,
                "met": met,
            }
        )
    for title, value in memory.items():
        row = {"task": title, "unit": "MB", "median": value, "lowest": value, "highest": value}
        rows.append(row | {"bound": 600, "met": value <= 600})
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    """Return the table."""
    lines = [
        "| task | median | lowest to highest | bound | met |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        shown = (
            f"{row[k]:,.2f}" if row["unit"] == "s" else f"{row[k]:,.0f}"
            for k in ("median", "lowest", "highest")
        )
        median, low, high = shown
        limit = "" if row["bound"] is None else f"{row['bound']:,}"
        met = {None: "", True: "yes", False: "no"}[row["met"]]
        lines.append(
            f"| {row['task']} | {median} {row['unit']} | {low} to {high} | {limit} | {met} |"
        )
    machine = ", ".join(f"{key} {value}" for key, value in result["hardware"].items())
    software = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    note = (
        f"Medians of {ROUNDS} rounds, which measure every task once, with batches of {BATCH}. "
        "Memory is the growth of the process and its workers, counting shared pages once."
    )
    return "\n".join([*lines, "", note, "", f"{machine}; {software}.", ""])


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        stream(options.stream)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = options.folder / ARCHIVE if options.folder else archive_in(folder)
        convert(load(f"cifar10:{archive}"), folder / "cifar.rec", encoding="jpeg")
        measured = speeds(archive, folder / "cifar")
        memory = {}
        train = folder / "cifar_train.rec"
        for times in (1, 20):
            longer = lengthened(train, times, folder / f"long{times}.rec")
            size = longer.stat().st_size / 1e6
            title = f"memory while streaming a .rec of {size:,.0f} MB, {50_000 * times:,} images"
            memory[title] = memory_of_streaming(longer)
    result = {
        "hardware": hardware(),
        "versions": versions() | {p: version(p) for p in ("pillow", "simplejpeg")},
        "rounds": ROUNDS,
        "batch": BATCH,
        "rows": rows_of(measured, memory),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "loading-cpu.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "loading-cpu.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
