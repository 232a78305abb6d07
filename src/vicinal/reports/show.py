"""A figure of mixing: a batch, its partners, and what each policy makes of them."""

import base64
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vicinal.data import load
from vicinal.errors import UserError, unknown
from vicinal.files import write_whole
from vicinal.mixing import CutMix, DirichletMixUp, FMix, MixUp, Plan, Policy, ResizeMix, Shuffle
from vicinal.reports.svg import (
    ARM_COLORS,
    COLORS_LIGHT,
    FAINT,
    INK,
    figure_style,
    standalone_svg,
    to_svg,
)

_OTHERS = Shuffle(meet_self=False)

POLICIES: dict[str, Callable[[float], Policy]] = {
    "mixup": lambda alpha: MixUp(alpha, per="example", pairing=_OTHERS),
    "cutmix": lambda alpha: CutMix(alpha, per="example", pairing=_OTHERS),
    "resizemix": lambda alpha: ResizeMix(per="example", pairing=_OTHERS),
    "fmix": lambda alpha: FMix(alpha, per="example", pairing=_OTHERS),
    "dirichlet": lambda alpha: DirichletMixUp(alpha, per="example", pairing=_OTHERS),
}
"""The policies that can be shown, as functions of alpha. All of them draw partners first, so that
one seed gives all the same partners."""

_MOST = 16
"""Examples in a figure: more would not fit the width of a screen."""

_CAPTION_WIDTH = 22
"""Characters that fit below a tile."""

_PALETTE = 128
"""Colors of a photograph: enough at the size of a tile, in a third of the bytes."""

_SCAN = 32
"""Pixels up to which a tile is a scan, whose pixels should have hard edges."""

_PIXELATED = ' style="image-rendering:crisp-edges;image-rendering:pixelated"'
_PARTNER_TITLES = ("partner", "second partner", "third partner", "further partner")


class Batch(NamedTuple):
    """Some labeled images.

    Args:
        inputs: ``(batch, 1 or 3, height, width)`` uint8.
        targets: ``(batch,)`` int64 classes.
        classes: the name of each class.
        brightest: the value of white, such as 255.
    """

    inputs: Tensor
    targets: Tensor
    classes: Sequence[str]
    brightest: int = 255


class Row(NamedTuple):
    """One row of the figure.

    Args:
        title: the text in front of it.
        tiles: ``(batch, channels, height, width)`` uint8.
        captions: the text below each tile.
        regions: ``(batch, height, width)`` bool, to be outlined.
    """

    title: str
    tiles: Tensor
    captions: Sequence[str]
    regions: Tensor | None = None


def run_show(
    policies: Sequence[str] = (),
    *,
    alpha: float = 1.0,
    seed: int = 0,
    size: int = 6,
    out: Path = Path("mixed.svg"),
) -> dict[str, Any]:
    """Draw digits, their partners, and what each policy makes of them, into a file.

    Args:
        policies: names of ``POLICIES``; all of them by default.
        alpha: concentration, positive and finite. ResizeMix does not use it.
        seed: seed of partners, lam and regions.
        size: number of examples, from 2 to 16.
        out: the file, ending in .svg or .png.

    Returns:
        ``file``, and ``rows``: for each policy its name, and for each example ``lam``, the ``own``
        class, and lists with the class and the share of each ``partner``.

    Raises:
        UserError: if an argument is invalid, or the file cannot be written.
    """
    for name in policies:
        if name not in POLICIES:
            raise UserError(unknown("policy", name, POLICIES))
    if not 0 < alpha < math.inf:
        raise UserError(
            f"--alpha: expected a positive finite number, got {alpha}. Try 1, which makes all "
            "shares equally likely."
        )
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed: expected an integer from 0 to {2**63 - 1}, got {seed}.")
    if not 2 <= size <= _MOST:
        raise UserError(f"--size: expected 2 to {_MOST} examples, got {size}.")
    if out.suffix.lower() not in {".svg", ".png"}:
        raise UserError(
            f"--out: expected a file that ends in .svg or .png, got {str(out)!r}. Try mixed.svg."
        )
    data = load("digits", test_fraction=0.3, seed=0)
    inputs, targets = data.train.read(range(size)).inputs, data.train.targets[:size]
    batch = Batch(inputs, targets, data.classes, brightest=16)
    chosen = {name: POLICIES[name](alpha) for name in policies or POLICIES}
    plans = {name: draw_plan(policy, batch, seed=seed) for name, policy in chosen.items()}
    titled = {type(chosen[name]).__name__: plan for name, plan in plans.items()}
    draw = mixing_png if out.suffix.lower() == ".png" else mixing_svg
    write_whole(out, draw("mixed", batch, titled))
    names = [data.classes[k] for k in targets]
    rows = [
        {
            "policy": name,
            "lam": plan.lam.tolist(),
            "own": names,
            "partner": [[names[k] for k in partners] for partners in _partners(plan).T],
            "share": ((1 - plan.lam)[None] if plan.shares is None else plan.shares).T.tolist(),
        }
        for name, plan in plans.items()
    ]
    return {"file": str(out), "rows": rows}


def draw_plan(policy: Policy, batch: Batch, *, seed: int) -> Plan:
    """Draw a plan for a batch of images from a seed alone."""
    return policy.draw(
        len(batch.inputs),
        generator=torch.Generator().manual_seed(seed),
        y=batch.targets,
        image_size=batch.inputs.shape[-2:],
    )


def mixing_svg(name: str, batch: Batch, plans: Mapping[str, Plan]) -> str:
    """Draw a batch, its partners, and its blends by each plan, as an SVG file.

    Args:
        name: lowercase letters and dashes.
        batch: the images to mix.
        plans: plans for this batch by title.

    Returns:
        The content of the file, light or dark as the reader prefers, with a text alternative.
    """
    rows = mixing_rows(batch, plans)
    with figure_style():
        figure = _figure(rows, batch.brightest)
        svg = standalone_svg(to_svg(name, mixing_text(batch, plans), figure))
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    svg = svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)
    # matplotlib embeds images with four channels, and derives their ids from their content, which
    # two may share. Smaller files with unique ids replace them, and numbers get three decimals.
    pixels, numbers = _pixels(rows, batch.brightest), count()

    def smaller(_: re.Match[str]) -> str:
        image = Image.fromarray(next(pixels))
        file = io.BytesIO()
        image = image.quantize(_PALETTE) if image.mode == "RGB" else image
        image.save(file, "png", optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        return f'xlink:href="data:image/png;base64,{data}" id="{name}-tile{next(numbers)}"'

    svg = re.sub(r"(\.\d{3})\d+", r"\1", svg)
    svg = re.sub(r'xlink:href="data:image/png;base64,[^"]*" id="[^"]*"', smaller, svg)
    return svg if max(batch.inputs.shape[-2:]) <= _SCAN else svg.replace(_PIXELATED, "")


def mixing_png(name: str, batch: Batch, plans: Mapping[str, Plan]) -> bytes:
    """Draw the same as ``mixing_svg`` as a PNG file, dark on white, with the text as metadata."""
    variables = {INK: "--ink", FAINT: "--faint"}
    with figure_style():
        colors = {
            key: COLORS_LIGHT[variables[value]]
            for key, value in mpl.rcParams.items()
            if isinstance(value, str) and value in variables
        }
        with mpl.rc_context(colors):
            rows = mixing_rows(batch, plans)
            figure = _figure(rows, batch.brightest, outline=COLORS_LIGHT["--arm2"])
            figure.set_layout_engine("constrained")
            text, file = mixing_text(batch, plans), io.BytesIO()
            figure.savefig(
                file,
                format="png",
                dpi=144,
                transparent=False,
                facecolor=COLORS_LIGHT["--paper"],
                metadata={"Software": None, "Title": name, "Description": text},
            )
    return file.getvalue()


def mixing_rows(batch: Batch, plans: Mapping[str, Plan]) -> list[Row]:
    """Return the rows of the figure: the batch, then the blends of each plan below its partners.

    Partners that are shown already are not repeated.
    """
    names = [batch.classes[k] for k in batch.targets]
    rows = [Row("example", batch.inputs, names)]
    seen = {tuple(range(len(names)))}
    for title, plan in plans.items():
        for n, partner in enumerate(_partners(plan)):
            if tuple(partner.tolist()) not in seen:
                partner_title = _PARTNER_TITLES[min(n, len(_PARTNER_TITLES) - 1)]
                rows.append(Row(partner_title, batch.inputs[partner], [names[k] for k in partner]))
                seen.add(tuple(partner.tolist()))
        captions = [
            f"lam {lam:.2f}\n{_wrapped(terms)}"
            for lam, terms in zip(plan.lam.tolist(), _labels(batch, plan), strict=True)
        ]
        regions = None if plan.region is None else plan.region.expand(len(plan), -1, -1)
        rows.append(Row(title, plan.mix(batch.inputs), captions, regions))
    return rows


def mixing_text(batch: Batch, plans: Mapping[str, Plan]) -> str:
    """Return the text alternative of the figure."""
    names = ", ".join(batch.classes[k] for k in batch.targets)
    blends = "; ".join(
        f"{' '.join(title.split())}: {', '.join(map(' + '.join, _labels(batch, plan)))}"
        for title, plan in plans.items()
    )
    return f"{len(batch.targets)} examples ({names}), their partners and their blends. {blends}."


def _partners(plan: Plan) -> Tensor:
    """Return the partners as ``(parents - 1, batch)``."""
    return plan.partner.reshape(-1, len(plan))


def _labels(batch: Batch, plan: Plan) -> list[list[str]]:
    """Return the terms of each mixed label: the example's own class first, then its partners'."""
    targets = plan.targets(batch.targets, len(batch.classes)).tolist()
    parents = torch.cat([batch.targets[None], batch.targets[_partners(plan)]]).T.tolist()
    return [
        [f"{target[k]:.2f} · {batch.classes[k]}" for k in dict.fromkeys(classes) if target[k]]
        for target, classes in zip(targets, parents, strict=True)
    ]


def _wrapped(terms: Sequence[str]) -> str:
    """Join terms by plus signs, on as few lines as fit below a tile."""
    lines = [terms[0]]
    for term in terms[1:]:
        if len(lines[-1]) + len(term) + 3 <= _CAPTION_WIDTH:
            lines[-1] += f" + {term}"
        else:
            lines.append(f"+ {term}")
    return "\n".join(lines)


def _figure(rows: Sequence[Row], brightest: int, *, outline: str = ARM_COLORS[2]) -> Figure:
    columns = len(rows[0].captions)
    lines = sum(1 + max(text.count("\n") for text in row.captions) for row in rows)
    figure = Figure(figsize=(1.2 + 1.35 * columns, 1.3 * len(rows) + 0.18 * lines))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    pixels = _pixels(rows, brightest)
    for row, line in zip(rows, grid, strict=True):
        line[0].set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=9)
        for k, axes in enumerate(line):
            axes.imshow(next(pixels), cmap="gray", vmin=0, vmax=255, interpolation="none")
            axes.set(xticks=[], yticks=[])
            axes.spines[["top", "right"]].set_visible(True)
            axes.set_xlabel(row.captions[k], fontsize=8)
            if row.regions is not None:
                _draw_outline(axes, row.regions[k].numpy(), outline)
    return figure


def _pixels(rows: Sequence[Row], brightest: int) -> Iterator[np.ndarray]:
    """Yield the tiles of all rows as uint8 up to 255, ``(h, w)`` gray or ``(h, w, 3)``."""
    for row in rows:
        for tile in (row.tiles.double() * (255 / brightest)).round().byte():
            yield np.asarray(tile[0] if len(tile) == 1 else tile.permute(1, 2, 0))


def _draw_outline(axes: Axes, region: np.ndarray, color: str) -> None:
    """Draw the border between the pixels inside and outside a region."""
    inside = np.pad(region, 1)
    path: list[tuple[float, float]] = []
    for line, start, end in _runs(inside[1:, 1:-1] != inside[:-1, 1:-1]):
        path += [(start, line), (end, line), (math.nan, math.nan)]
    for line, start, end in _runs((inside[1:-1, 1:] != inside[1:-1, :-1]).T):
        path += [(line, start), (line, end), (math.nan, math.nan)]
    if path:
        x, y = np.array(path).T - 0.5
        axes.plot(x, y, color=color, linewidth=1, clip_on=False)


def _runs(lines: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield each run of True: its line, its start, and its end."""
    for number, line in enumerate(np.pad(lines, ((0, 0), (1, 1)))):
        changes = np.flatnonzero(line[1:] != line[:-1]).tolist()
        for start, end in list(pairwise(changes))[::2]:
            yield number, start, end
