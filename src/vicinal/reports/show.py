"""The picture of mixing: a batch, its partners, and what each policy makes of them."""

import base64
import io
import json
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
    ARMS,
    COLORS_LIGHT,
    FAINT,
    INK,
    as_picture,
    standalone,
    styled,
)

_MEET = Shuffle(meet_self=False)

POLICIES: dict[str, Callable[[float], Policy]] = {
    "mixup": lambda alpha: MixUp(alpha, per="example", pairing=_MEET),
    "cutmix": lambda alpha: CutMix(alpha, per="example", pairing=_MEET),
    "resizemix": lambda alpha: ResizeMix(per="example", pairing=_MEET),
    "fmix": lambda alpha: FMix(alpha, per="example", pairing=_MEET),
    "dirichlet": lambda alpha: DirichletMixUp(alpha, per="example", pairing=_MEET),
}
"""The policies that can be shown, each from its alpha. All draw their partners first, so that from
one seed all have the same; and each example has a lam of its own, so that they differ."""

_MOST = 16
"""Examples in a picture: more would not fit the width of a screen."""

_WIDE = 22
"""Letters that fit under a tile."""

_COLORS = 128
"""In a photograph: at the size of a tile no more are needed, and the file is a third as large."""

_SCAN = 32
"""Pixels up to which a tile is a scan, whose pixels are to be seen one by one."""

_PIXELATED = ' style="image-rendering:crisp-edges;image-rendering:pixelated"'
_TIMES = ("partner", "second partner", "third partner", "further partner")


class Batch(NamedTuple):
    """Some labeled pictures.

    Args:
        inputs: ``(batch, 1 or 3, height, width)`` uint8.
        targets: ``(batch,)`` int64 classes.
        classes: the name of each class.
        brightest: the value that stands for white, such as 255.
    """

    inputs: Tensor
    targets: Tensor
    classes: Sequence[str]
    brightest: int = 255


class Row(NamedTuple):
    """One row of the picture.

    Args:
        title: what stands before it.
        tiles: ``(batch, channels, height, width)`` uint8.
        captions: what stands under each tile.
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
    """Draw a batch of digits, its partners and what each policy makes of them, into a file.

    Args:
        policies: names of ``POLICIES``; all of them where left out.
        alpha: strength, above 0 and finite. ResizeMix has none.
        seed: decides partners, shares and regions; from 0.
        size: number of examples, from 2.
        out: the file, ending in .svg or .png.

    Returns:
        ``file``, and ``rows``: for each policy its name, and for each example ``lam``, the ``own``
        class, and lists with the class and the share of each ``partner``.

    Raises:
        UserError: if a value is not one of these, or the file cannot be written.
    """
    _check(policies, alpha=alpha, seed=seed, size=size, out=out)
    part = load("digits", test_fraction=0.3, seed=0)
    train = part.train
    batch = Batch(train.read(range(size)).inputs, train.targets[:size], part.classes, brightest=16)
    chosen = {name: POLICIES[name](alpha) for name in policies or POLICIES}
    plans = {name: draw_plan(policy, batch, seed=seed) for name, policy in chosen.items()}
    titled = {type(chosen[name]).__name__: plan for name, plan in plans.items()}
    draw = mixing_png if out.suffix.lower() == ".png" else mixing_svg
    write_whole(out, draw("mixed", batch, titled))
    return {
        "file": str(out),
        "rows": [{"policy": name} | _numbers(batch, plan) for name, plan in plans.items()],
    }


def shown_text(shown: Mapping[str, Any]) -> str:
    """Return what ``run_show`` answers with as JSON text."""
    return json.dumps(shown, indent=2, allow_nan=False) + "\n"


def draw_plan(policy: Policy, batch: Batch, *, seed: int) -> Plan:
    """Draw a plan for a batch of pictures from nothing but a seed."""
    return policy.draw(
        len(batch.inputs),
        generator=torch.Generator().manual_seed(seed),
        y=batch.targets,
        image_size=batch.inputs.shape[-2:],
    )


def mixing_svg(name: str, batch: Batch, plans: Mapping[str, Plan]) -> str:
    """Draw a batch, its partners and its blends by each plan, as an SVG file.

    Args:
        name: small letters and dashes.
        batch: what is mixed.
        plans: for each title a plan for this batch.

    Returns:
        The text of the file, in light and dark by the reader's setting, with a text alternative.
    """
    rows = mixing_rows(batch, plans)
    with styled():
        figure = _figure(rows, batch.brightest)
        picture = as_picture(name, mixing_words(batch, plans), figure)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    svg = standalone(picture).replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)
    small = max(batch.inputs.shape[-2:]) <= _SCAN
    return _with_small_images(svg, name, _pixels(rows, batch.brightest), pixelated=small)


def mixing_png(name: str, batch: Batch, plans: Mapping[str, Plan]) -> bytes:
    """Draw the same as ``mixing_svg`` as a PNG file, dark on white, its words in the file too."""
    page = {INK: "--ink", FAINT: "--faint"}
    with styled():
        colored = {
            key: COLORS_LIGHT[page[value]]
            for key, value in mpl.rcParams.items()
            if isinstance(value, str) and value in page
        }
        with mpl.rc_context(colored):
            rows = mixing_rows(batch, plans)
            figure = _figure(rows, batch.brightest, outline=COLORS_LIGHT["--arm2"])
            figure.set_layout_engine("constrained")
            file = io.BytesIO()
            figure.savefig(
                file,
                format="png",
                dpi=144,
                transparent=False,
                facecolor=COLORS_LIGHT["--paper"],
                metadata={
                    "Software": None,
                    "Title": name,
                    "Description": mixing_words(batch, plans),
                },
            )
    return file.getvalue()


def mixing_rows(batch: Batch, plans: Mapping[str, Plan]) -> list[Row]:
    """Return the rows of the picture: the batch, then each plan's blends, with partners above.

    Partners that were shown already are not shown again.
    """
    names = [batch.classes[k] for k in batch.targets]
    rows = [Row("example", batch.inputs, names)]
    seen = {tuple(range(len(names)))}
    for title, plan in plans.items():
        for times, partner in enumerate(_partners(plan)):
            if tuple(partner.tolist()) not in seen:
                met = [names[k] for k in partner]
                rows.append(Row(_TIMES[min(times, len(_TIMES) - 1)], batch.inputs[partner], met))
                seen.add(tuple(partner.tolist()))
        captions = [
            f"lam {lam:.2f}\n{_packed(words)}"
            for lam, words in zip(plan.lam.tolist(), _labels(batch, plan), strict=True)
        ]
        rows.append(Row(title, plan.mix(batch.inputs), captions, _regions(plan)))
    return rows


def mixing_words(batch: Batch, plans: Mapping[str, Plan]) -> str:
    """Say what the picture shows, for those who do not see it."""
    names = ", ".join(batch.classes[k] for k in batch.targets)
    blends = "; ".join(
        " ".join(title.split())
        + ": "
        + ", ".join(" + ".join(words) for words in _labels(batch, plan))
        for title, plan in plans.items()
    )
    return f"{len(batch.targets)} examples ({names}), their partners and their blends. {blends}."


def _check(policies: Sequence[str], *, alpha: float, seed: int, size: int, out: Path) -> None:
    for name in policies:
        if name not in POLICIES:
            raise UserError(unknown("policy", name, POLICIES))
    if not 0 < alpha < math.inf:
        raise UserError(
            f"--alpha should be a finite number above 0, but is {alpha}; try 1, which makes all "
            "shares equally likely"
        )
    if not 0 <= seed < 2**63:
        raise UserError(
            f"--seed should be a whole number from 0 to {2**63 - 1}, but is {seed}; try 0"
        )
    if not 2 <= size <= _MOST:
        raise UserError(f"--size should be 2 to {_MOST} examples, but is {size}; try 6")
    if out.suffix.lower() not in {".svg", ".png"}:
        raise UserError(
            f"--out should be a file that ends in .svg or .png, but is {str(out)!r}; try mixed.svg"
        )


def _numbers(batch: Batch, plan: Plan) -> dict[str, Any]:
    names = [batch.classes[k] for k in batch.targets]
    shares = (1 - plan.lam)[None] if plan.shares is None else plan.shares
    return {
        "lam": plan.lam.tolist(),
        "own": names,
        "partner": [[names[k] for k in met] for met in _partners(plan).T],
        "share": shares.T.tolist(),
    }


def _partners(plan: Plan) -> Tensor:
    """Return the partners as ``(parents - 1, batch)``."""
    return plan.partner.reshape(-1, len(plan))


def _regions(plan: Plan) -> Tensor | None:
    return None if plan.region is None else plan.region.expand(len(plan), -1, -1)


def _labels(batch: Batch, plan: Plan) -> list[list[str]]:
    """Return what each label became: its own class first, then those that it met."""
    targets = plan.targets(batch.targets, len(batch.classes)).tolist()
    everybody = torch.cat([batch.targets[None], batch.targets[_partners(plan)]]).T.tolist()
    return [
        [f"{target[k]:.2f} · {batch.classes[k]}" for k in dict.fromkeys(met) if target[k]]
        for target, met in zip(targets, everybody, strict=True)
    ]


def _packed(terms: Sequence[str]) -> str:
    """Join terms by plus signs, on as few lines as will do under a tile."""
    lines = [terms[0]]
    for term in terms[1:]:
        if len(lines[-1]) + len(term) + 3 <= _WIDE:
            lines[-1] += f" + {term}"
        else:
            lines.append(f"+ {term}")
    return "\n".join(lines)


def _figure(rows: Sequence[Row], brightest: int, *, outline: str = ARMS[2]) -> Figure:
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
    """Answer with the tiles of all rows, uint8 up to 255, ``(h, w)`` gray or ``(h, w, 3)``."""
    for row in rows:
        for tile in (row.tiles.double() * (255 / brightest)).round().byte():
            yield np.asarray(tile[0] if len(tile) == 1 else tile.permute(1, 2, 0))


def _draw_outline(axes: Axes, region: np.ndarray, color: str) -> None:
    """Draw the border between the pixels in a region and those outside of it."""
    inside = np.pad(region, 1)
    path: list[tuple[float, float]] = []
    for line, column, end in _runs(inside[1:, 1:-1] != inside[:-1, 1:-1]):
        path += [(column, line), (end, line), (math.nan, math.nan)]
    for line, row, end in _runs((inside[1:-1, 1:] != inside[1:-1, :-1]).T):
        path += [(line, row), (line, end), (math.nan, math.nan)]
    if path:
        x, y = np.array(path).T - 0.5
        axes.plot(x, y, color=color, linewidth=1, clip_on=False)


def _runs(lines: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Answer with each run of True: its line, where it starts, and where it has ended."""
    for number, line in enumerate(np.pad(lines, ((0, 0), (1, 1)))):
        changes = np.flatnonzero(line[1:] != line[:-1]).tolist()
        for start, end in list(pairwise(changes))[::2]:
            yield number, start, end


def _with_small_images(
    svg: str, name: str, pixels: Iterator[np.ndarray], *, pixelated: bool
) -> str:
    """Put smaller files in place of the images, in their order, and give each a name of its own;
    and cut numbers to three digits.

    matplotlib embeds four channels, and names images after their content, which two may share.
    Its pixels have hard edges: right for a small scan, wrong for a photograph.
    """
    numbers = count()

    def smaller(_: re.Match[str]) -> str:
        data = base64.b64encode(_small_png(next(pixels))).decode()
        number = next(numbers)
        return f'xlink:href="data:image/png;base64,{data}" id="{name}-tile{number}"'

    svg = re.sub(r"(\.\d{3})\d+", r"\1", svg)
    svg = re.sub(r'xlink:href="data:image/png;base64,[^"]*" id="[^"]*"', smaller, svg)
    return svg if pixelated else svg.replace(_PIXELATED, "")


def _small_png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of one byte a pixel: gray as it is, colors by a palette."""
    image = Image.fromarray(pixels)
    if image.mode == "RGB":
        image = image.quantize(_COLORS)
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return file.getvalue()
