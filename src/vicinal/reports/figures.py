"""The pictures of a study."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vicinal.escaping import visible
from vicinal.reports.svg import LINES, Picture, arm_color, as_picture, styled
from vicinal.reports.wording import title
from vicinal.studies import EpochRow, condition_name

Histories = Mapping[tuple[str, float], Sequence[Sequence[EpochRow]]]
"""For each arm and each rate of corruption: one history for each seed that finished."""


def accuracy_picture(summary: Mapping[str, Any]) -> Picture:
    """Draw the accuracy of every arm under every condition with its interval."""
    arms = list(summary["settings"]["arms"])
    conditions = list(dict.fromkeys(row["condition"] for row in summary["rows"]))
    with styled():
        figure = Figure(figsize=(4.4, 0.7 + 0.27 * (len(arms) + 1) * len(conditions)))
        axes = figure.add_subplot()
        ticks: list[tuple[float, str]] = []
        height = 0.0
        for condition in conditions:
            axes.text(0, height, condition, transform=axes.get_yaxis_transform(), weight="bold")
            for row in (row for row in summary["rows"] if row["condition"] == condition):
                height -= 1
                color = arm_color(arms.index(row["arm"]))
                if row["accuracy"] is not None:
                    axes.plot(row["accuracy"], height, "o", color=color)
                if row["low"] is not None:
                    axes.plot([row["low"], row["high"]], [height] * 2, color=color)
                ticks.append((height, _short(title(summary, row["arm"]), 32)))
            height -= 1.3
        axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_ylim(height + 0.6, 0.9)
        axes.set_xlabel("test accuracy, %")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        words = "; ".join(
            f"{title(summary, row['arm'])}, {row['condition']}: {row['accuracy']:.1f} %"
            for row in summary["rows"]
            if row["accuracy"] is not None
        )
        return as_picture("accuracy", f"Test accuracy with 95 % intervals. {words}.", figure)


def curve_pictures(
    summary: Mapping[str, Any], histories: Histories, corrupted: float
) -> list[Picture]:
    """Draw training loss, test loss and test accuracy over the epochs, under one condition."""
    condition = condition_name(corrupted)
    wanted = [
        ("train_loss", "training loss", 1.0),
        ("test_loss", "test loss", 1.0),
        ("test_accuracy", "test accuracy, %", 100.0),
    ]
    return [
        _curves(
            summary,
            histories,
            corrupted,
            field=field,
            label=label,
            scale=scale,
            heading=f"{label.removesuffix(', %')}, {condition}",
        )
        for field, label, scale in wanted
    ]


def memorization_picture(
    summary: Mapping[str, Any], histories: Histories, corrupted: float
) -> Picture:
    """Draw the share of the wrong training labels that the network answers with, by epoch."""
    return _curves(
        summary,
        histories,
        corrupted,
        field="memorized",
        label="wrong labels learned, %",
        scale=100.0,
        heading=f"wrong labels learned, {condition_name(corrupted)}",
    )


def examples_picture(path: Path) -> Picture:
    """Draw a strip of blended examples between what they are made of; ``path`` is the .npz."""
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    count = len(kept["lam"])
    rows = [("own", "own"), ("met", "partner"), ("blend", "blend")]
    with styled():
        longest = max(len(_short(name)) for name in kept["own_class"])
        figure = Figure(figsize=(max(4.4, 0.071 * count * (longest + len("+ 0.00 · "))), 2.75))
        words = []
        for k in range(count):
            lam = float(kept["lam"][k])
            own, met = (visible(str(kept[name][k])) for name in ("own_class", "met_class"))
            captions = (
                _short(own),
                _short(met),
                f"{lam:.2f} · {_short(own)}\n+ {1 - lam:.2f} · {_short(met)}",
            )
            words.append(f"{lam:.2f} of a {own} with {1 - lam:.2f} of a {met}")
            for r, (name, label) in enumerate(rows):
                axes = figure.add_subplot(len(rows), count, r * count + k + 1)
                image = kept[name][k].transpose(1, 2, 0)
                axes.imshow(
                    image[..., 0] if image.shape[-1] == 1 else image / kept["brightest"],
                    cmap="gray",
                    vmin=0,
                    vmax=float(kept["brightest"]),
                    interpolation="nearest",
                )
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_xlabel(captions[r], fontsize=7)
                if k == 0:
                    axes.set_ylabel(label, fontsize=7)
        return as_picture("examples", f"Blended examples: {'; '.join(words)}.", figure)


def _short(name: str, most: int = 16) -> str:
    """Shorten a name: 16 characters have room below a small image."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _curves(
    summary: Mapping[str, Any],
    histories: Histories,
    corrupted: float,
    *,
    field: str,
    label: str,
    scale: float,
    heading: str,
) -> Picture:
    """Draw one line an arm, the mean over seeds, in a band from the lowest to the highest seed."""
    words = []
    with styled():
        figure = Figure(figsize=(4.4, 2.9))
        axes = figure.add_subplot()
        for k, arm in enumerate(summary["settings"]["arms"]):
            seeds = histories[arm, corrupted]
            if not seeds:  # all of them failed
                continue
            epochs = [row.epoch for row in seeds[0]]
            values = scale * np.array([[getattr(row, field) for row in rows] for rows in seeds])
            mean = values.mean(0)
            marker = "o" if len(epochs) == 1 else None
            line = LINES[k % len(LINES)]
            axes.plot(
                epochs,
                mean,
                line,
                marker=marker,
                color=arm_color(k),
                label=_short(title(summary, arm), 32),
            )
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=arm_color(k), alpha=0.18, linewidth=0
            )
            words.append(f"{title(summary, arm)} ends at {mean[-1]:.3g}")
        _label(axes, heading, label)
        text = f"{heading[0].upper()}{heading[1:]}, by epoch: {'; '.join(words)}."
        return as_picture(re.sub(r"[^a-z0-9]+", "-", heading.lower()), text, figure)


def _label(axes: Axes, heading: str, label: str) -> None:
    axes.set_title(heading)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if "%" in label:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))
    else:
        axes.set_ylim(bottom=0)
    if axes.lines:
        axes.legend(frameon=False)
