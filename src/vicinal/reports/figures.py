"""Pictures of a study, as SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vicinal.reports.words import title
from vicinal.studies import EpochRow, condition_name

# Colours that stand for the page's own: each is put into the SVG as var(--name).
_INK, _FAINT = "#010001", "#010002"
_ARMS = ["#010010", "#010011", "#010012", "#010013", "#010014", "#010015", "#010016"]
_LINES = ["-", "--", "-.", ":"]
_VARIABLES = {_INK: "--ink", _FAINT: "--faint"} | {c: f"--arm{i}" for i, c in enumerate(_ARMS)}

COLOURS_LIGHT = {
    "--paper": "#ffffff",
    "--ink": "#1c2126",
    "--faint": "#cfd5da",
    "--arm0": "#555e66",
    "--arm1": "#0067a6",
    "--arm2": "#c24e00",
    "--arm3": "#007a56",
    "--arm4": "#a0407f",
    "--arm5": "#7a6300",
    "--arm6": "#3d4ec2",
}
COLOURS_DARK = {
    "--paper": "#14181c",
    "--ink": "#e6eaee",
    "--faint": "#3c454d",
    "--arm0": "#a9b4bd",
    "--arm1": "#5bb8f0",
    "--arm2": "#f6965a",
    "--arm3": "#4fd1a1",
    "--arm4": "#e596c8",
    "--arm5": "#dbc24f",
    "--arm6": "#a3aefb",
}
"""Colours after Okabe and Ito's palette for all kinds of colour vision, darker on white and lighter
on black so that lines and words stand out from the page by 4.5 to 1 or more."""


class Picture(NamedTuple):
    """A picture, ready for a page.

    Args:
        name: small letters and dashes; unique in a report.
        text: what the picture says, for those who do not see it.
        svg: an ``<svg>`` element whose colours are variables of the page (``COLOURS_LIGHT``).
    """

    name: str
    text: str
    svg: str


Histories = Mapping[tuple[str, float], Sequence[Sequence[EpochRow]]]
"""For each arm and each rate of corruption: one history a seed."""


def accuracy_picture(summary: Mapping[str, Any]) -> Picture:
    """Draw the accuracy of every arm under every condition with its interval."""
    arms = list(summary["settings"]["arms"])
    conditions = list(dict.fromkeys(row["condition"] for row in summary["rows"]))
    with _styled():
        figure = Figure(figsize=(4.4, 0.7 + 0.27 * (len(arms) + 1) * len(conditions)))
        axes = figure.add_subplot()
        ticks: list[tuple[float, str]] = []
        height = 0.0
        for condition in conditions:
            axes.text(0, height, condition, transform=axes.get_yaxis_transform(), weight="bold")
            for row in (row for row in summary["rows"] if row["condition"] == condition):
                height -= 1
                colour = _colour(arms.index(row["arm"]))
                axes.plot(row["accuracy"], height, "o", color=colour)
                if row["low"] is not None:
                    axes.plot([row["low"], row["high"]], [height] * 2, color=colour)
                ticks.append((height, title(summary, row["arm"])))
            height -= 1.3
        axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_ylim(height + 0.6, 0.9)
        axes.set_xlabel("test accuracy, %")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        words = "; ".join(
            f"{title(summary, row['arm'])}, {row['condition']}: {row['accuracy']:.1f} %"
            for row in summary["rows"]
        )
        return _picture("accuracy", f"Test accuracy with 95 % intervals. {words}.", figure)


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


def memorisation_picture(
    summary: Mapping[str, Any], histories: Histories, corrupted: float
) -> Picture:
    """Draw the share of the wrong training labels that the network answers with, by epoch."""
    return _curves(
        summary,
        histories,
        corrupted,
        field="memorised",
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
    with _styled():
        figure = Figure(figsize=(4.4, 2.75))
        words = []
        for k in range(count):
            lam = float(kept["lam"][k])
            own, met = str(kept["own_class"][k]), str(kept["met_class"][k])
            captions = (own, met, f"{lam:.2f} · {own}\n+ {1 - lam:.2f} · {met}")
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
        return _picture("examples", f"Blended examples: {'; '.join(words)}.", figure)


def standalone(picture: Picture) -> str:
    """Return the SVG as a file of its own, in light and dark by the reader's setting."""
    light, dark = (
        "".join(f"{name}:{value};" for name, value in colours.items())
        for colours in (COLOURS_LIGHT, COLOURS_DARK)
    )
    style = (
        f"<style>svg{{{light}background:var(--paper)}}"
        f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    head, _, rest = picture.svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>{style}{rest}\n'


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
    with _styled():
        figure = Figure(figsize=(4.4, 2.9))
        axes = figure.add_subplot()
        for k, arm in enumerate(summary["settings"]["arms"]):
            seeds = histories[arm, corrupted]
            epochs = [row.epoch for row in seeds[0]]
            values = scale * np.array([[getattr(row, field) for row in rows] for rows in seeds])
            mean = values.mean(0)
            marker = "o" if len(epochs) == 1 else None
            line = _LINES[k % len(_LINES)]
            axes.plot(
                epochs, mean, line, marker=marker, color=_colour(k), label=title(summary, arm)
            )
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=_colour(k), alpha=0.18, linewidth=0
            )
            words.append(f"{title(summary, arm)} ends at {mean[-1]:.3g}")
        _label(axes, heading, label)
        text = f"{heading[0].upper()}{heading[1:]}, by epoch: {'; '.join(words)}."
        return _picture(re.sub(r"[^a-z0-9]+", "-", heading.lower()), text, figure)


def _label(axes: Axes, heading: str, label: str) -> None:
    axes.set_title(heading)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if "%" in label:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))
    else:
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _colour(k: int) -> str:
    return _ARMS[k % len(_ARMS)]


@contextmanager
def _styled() -> Iterator[None]:
    """Draw in the colours that stand for the page's, with words that stay words."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "vicinal",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "axes.titlecolor": _INK,
        "axes.grid": False,
        "text.color": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "savefig.transparent": True,
    }
    with mpl.rc_context(settings):
        yield


def _picture(name: str, text: str, figure: Figure) -> Picture:
    """Turn a figure into an ``<svg>`` element with a text alternative and names of its own."""
    figure.set_layout_engine("constrained")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-text" ', 1)
    head, _, rest = svg.partition(">")
    return Picture(name, text, f'{head}><title id="{name}-text">{escape(text)}</title>{rest}')
