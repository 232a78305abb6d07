"""What there is in a data set, for the terminal, and as a picture of some examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.data import DataSet
from vicinal.errors import UserError
from vicinal.escaping import visible
from vicinal.files import write_whole
from vicinal.reports.svg import as_picture, standalone, styled

_MOST_CLASSES = 20
_MOST_SENTENCES = 5
_EXAMPLES = 8


def print_description(spec: str, described: Mapping[str, Any], console: Console) -> None:
    """Print what ``vicinal.data.describe`` found."""
    inputs, targets, parts = (described[key] for key in ("inputs", "targets", "splits"))
    shape = " x ".join(map(str, inputs["shape"]))
    console.print(Text(visible(spec), style="bold"))
    where = "" if inputs["in_memory"] else "; read from files when asked for"
    console.print(Text(f"inputs   {shape} {inputs['dtype']}{where}"))
    means = ", ".join(f"{mean:.4g}" for mean in inputs["mean"])
    stds = ", ".join(f"{std:.4g}" for std in inputs["std"])
    of = f" (of {inputs['looked_at']} examples)" if not inputs["in_memory"] else ""
    low, high = (f"{inputs[key]:.6g}" for key in ("lowest", "highest"))
    console.print(Text(f"values   {low} to {high}, mean {means}, std {stds}{of}"))
    classes = described["classes"]
    if classes:
        console.print(Text(f"targets  {len(classes)} classes"))
    else:
        low, high = (f"{targets[key]:.6g}" for key in ("lowest", "highest"))
        wide = f", {targets['shape'][0]} each" if targets["shape"] else ""
        console.print(Text(f"targets  real values, {low} to {high}{wide}"))
    console.print(_counts(classes, parts))
    for note in described["notes"]:
        mark = "warning: " if note["doubtful"] else ""
        console.print(Text(f"{mark}{visible(note['text'])}"), soft_wrap=True)
    for name, part in parts.items():
        if part["skipped"]:
            console.print(Text(f"left out of {name}: {len(part['skipped'])}"))
            for sentence in part["skipped"][:_MOST_SENTENCES]:
                console.print(Text(f"  {visible(sentence)}"), soft_wrap=True)
            if (more := len(part["skipped"]) - _MOST_SENTENCES) > 0:
                console.print(Text(f"  and {more} more; --json lists them all"))


def _counts(classes: list[str], parts: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("examples", no_wrap=True)
    for name in parts:
        table.add_column(name, justify="right")
    table.add_row(Text("all", style="bold"), *(f"{part['count']:,}" for part in parts.values()))
    if not classes:
        return table
    table.add_section()
    train = parts["train"]["of_each_class"]
    shown = list(range(len(classes)))
    if len(shown) > _MOST_CLASSES:
        by_count = sorted(shown, key=lambda k: -train[k])
        half = _MOST_CLASSES // 2
        shown = by_count[:half] + by_count[-half:]
    for place, k in enumerate(shown):
        if len(classes) > _MOST_CLASSES and place == _MOST_CLASSES // 2:
            table.add_row(Text(f"... {len(classes) - _MOST_CLASSES} more", style="dim"))
        table.add_row(
            Text(visible(classes[k])), *(f"{p['of_each_class'][k]:,}" for p in parts.values())
        )
    return table


def write_strip(spec: str, data: DataSet, out: Path) -> None:
    """Draw the first training examples of each class, of twelve classes at most, into an SVG.

    Raises:
        UserError: if the examples are neither pictures nor spectrograms, or ``out`` is no .svg.
    """
    if out.suffix.lower() != ".svg":
        raise UserError(f"the picture {out} should end in .svg")
    if len(data.train.inputs.shape) != 4:
        shape = tuple(data.train.inputs.shape[1:])
        raise UserError(f"{spec} has examples of shape {shape}: no pictures that could be drawn")
    groups = range(min(len(data.classes), 12)) if data.classes else [None]
    with styled():
        figure = Figure(figsize=(0.62 * _EXAMPLES + 1.2, 0.62 * len(groups) + 0.1))
        for line, k in enumerate(groups):
            chosen = (
                torch.arange(len(data.train))
                if k is None
                else (data.train.targets == k).nonzero()[:, 0]
            )
            read = data.train.read(chosen[:_EXAMPLES].tolist())
            axes = figure.add_subplot(len(groups), 1, line + 1)
            axes.imshow(
                _row(read.inputs, data.brightest),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if k is not None:
                axes.set_ylabel(visible(data.classes[k])[:16], rotation=0, ha="right", va="center")
        names = ", ".join(data.classes[:12]) or "no classes"
        text = f"The first training examples of {spec}, a row for each class: {names}."
        write_whole(out, standalone(as_picture("examples", text, figure)).encode())


def _row(inputs: torch.Tensor, brightest: int | None) -> np.ndarray:
    """Return pictures side by side, (height, width) or (height, width, 3), between 0 and 1."""
    tiles = inputs.double().numpy().transpose(0, 2, 3, 1)
    if brightest is None:  # spectrograms: low frequencies belong below
        tiles = tiles[:, ::-1]
        low, high = tiles.min(), tiles.max()
        tiles = (tiles - low) / max(high - low, 1e-9)
    else:
        tiles = tiles / brightest
    _, height, width, channels = tiles.shape
    gap = max(1, width // 16)
    row = np.full((height, _EXAMPLES * (width + gap) - gap, channels), np.nan)
    for k, tile in enumerate(tiles):
        row[:, k * (width + gap) : k * (width + gap) + width] = tile
    if channels == 1:
        return row[..., 0]
    seen = ~np.isnan(row).any(2, keepdims=True)
    return np.concatenate([np.nan_to_num(row), seen], axis=2)
