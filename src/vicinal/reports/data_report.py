"""Terminal output about data sets, and a figure of their examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.data.catalog import SOURCES
from vicinal.errors import UserError
from vicinal.escaping import visible

if TYPE_CHECKING:  # listing the sources must not wait for PyTorch
    from vicinal.data import DataSet

_MOST_CLASSES = 20
_MOST_SENTENCES = 5
_EXAMPLES, _ROWS = 8, 12


def print_sources(console: Console) -> None:
    """Print how data sets are named."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("contents")
    for source in SOURCES.values():
        table.add_row(Text(source.spec), Text(source.holds))
    console.print(table)


def print_description(spec: str, described: Mapping[str, Any], console: Console) -> None:
    """Print what ``vicinal.data.describe`` found."""
    inputs, targets, splits = (described[key] for key in ("inputs", "targets", "splits"))
    classes = described["classes"]

    def joined(numbers: list[float]) -> str:
        return ", ".join(f"{number:.4g}" for number in numbers)

    shape = " x ".join(map(str, inputs["shape"]))
    where, sample = ("", "") if inputs["in_memory"] else ("; read from files", " (of a sample)")
    console.print(Text(visible(spec), style="bold"))
    console.print(Text(f"inputs   {shape} {inputs['dtype']}{where}"))
    console.print(
        Text(
            f"values   {inputs['lowest']:.6g} to {inputs['highest']:.6g}, mean "
            f"{joined(inputs['mean'])}, std {joined(inputs['std'])}{sample}"
        )
    )
    if classes:
        console.print(Text(f"targets  {len(classes)} classes"))
    else:
        wide = f", {targets['shape'][0]} each" if targets["shape"] else ""
        low, high = (f"{targets[key]:.6g}" for key in ("lowest", "highest"))
        console.print(Text(f"targets  real values, {low} to {high}{wide}"))
    console.print(_counts(classes, splits))
    for note in described["notes"]:
        mark = "warning: " if note["doubtful"] else ""
        console.print(Text(f"{mark}{visible(note['text'])}"), soft_wrap=True)
    for name, split in splits.items():
        if skipped := split["skipped"]:
            console.print(Text(f"skipped in {name}: {len(skipped)}"))
            for sentence in skipped[:_MOST_SENTENCES]:
                console.print(Text(f"  {visible(sentence)}"), soft_wrap=True)
            if (more := len(skipped) - _MOST_SENTENCES) > 0:
                console.print(Text(f"  and {more} more; --json lists all of them"))


def _counts(classes: list[str], splits: Mapping[str, Any]) -> Table:
    """Return a table of the examples of each class; of many classes, the largest and smallest."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("examples", no_wrap=True)
    for name in splits:
        table.add_column(name, justify="right")
    counts = (f"{split['count']:,}" for split in splits.values())
    table.add_row(Text("all", style="bold"), *counts)
    if not classes:
        return table
    table.add_section()
    shown, half = list(range(len(classes))), _MOST_CLASSES // 2
    if omitted := max(0, len(classes) - _MOST_CLASSES):
        shown.sort(key=lambda k: -splits["train"]["of_each_class"][k])
        shown = shown[:half] + shown[-half:]
    for n, k in enumerate(shown):
        if omitted and n == half:
            table.add_row(Text(f"... {omitted} more", style="dim"))
        counts = (f"{split['of_each_class'][k]:,}" for split in splits.values())
        table.add_row(Text(visible(classes[k])), *counts)
    return table


def write_examples(spec: str, data: "DataSet", out: Path) -> None:
    """Draw the first training examples of each class, of at most twelve classes, into an SVG file.

    Raises:
        UserError: if the examples are neither images nor spectrograms, or ``out`` is not an .svg.
    """
    import torch
    from matplotlib.figure import Figure

    from vicinal.files import write_whole
    from vicinal.reports.svg import figure_style, standalone_svg, to_svg

    if out.suffix.lower() != ".svg":
        raise UserError(f"--figure: expected a file that ends in .svg, got {out}")
    if len(data.train.inputs.shape) != 4:
        shape = tuple(data.train.inputs.shape[1:])
        raise UserError(f"{spec}: expected images or spectrograms to draw, got inputs of {shape}")
    groups = range(min(len(data.classes), _ROWS)) if data.classes else [None]
    with figure_style():
        figure = Figure(figsize=(0.62 * _EXAMPLES + 1.2, 0.62 * len(groups) + 0.1))
        for n, k in enumerate(groups):
            rows = torch.arange(len(data.train)) if k is None else data.train.targets == k
            chosen = rows if k is None else rows.nonzero()[:, 0]
            inputs = data.train.read(chosen[:_EXAMPLES].tolist()).inputs
            axes = figure.add_subplot(len(groups), 1, n + 1)
            axes.imshow(
                _side_by_side(inputs, data.brightest),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if k is not None:
                axes.set_ylabel(visible(data.classes[k])[:16], rotation=0, ha="right", va="center")
        names = ", ".join(data.classes[:_ROWS]) or "no classes"
        text = f"The first training examples of {spec}, a row for each class: {names}."
        write_whole(out, standalone_svg(to_svg("examples", text, figure)))


def _side_by_side(inputs: Any, brightest: int | None) -> Any:
    """Return images in one row, (height, width) or (height, width, 4), with values from 0 to 1."""
    import numpy as np

    tiles = inputs.double().numpy().transpose(0, 2, 3, 1)
    if brightest is None:  # spectrograms, with low frequencies at the bottom
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
    opaque = ~np.isnan(row).any(2, keepdims=True)
    return np.concatenate([np.nan_to_num(row), opaque], axis=2)
