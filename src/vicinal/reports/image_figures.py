"""Figures of images in rows: examples of a data set, and blended examples of a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vicinal.data import DataSet
from vicinal.errors import UserError
from vicinal.escaping import shortened, visible
from vicinal.files import write_whole
from vicinal.reports.svg import (
    ARM_COLORS,
    FAINT,
    SvgFigure,
    figure_style,
    standalone_svg,
    to_svg,
)

_EXAMPLES, _CLASSES = 8, 12
_SCAN = 32
"""Pixels up to which an image is enlarged with hard edges."""


class ImageRow(NamedTuple):
    """A row of images.

    Args:
        title: the text in front of it.
        images: a tensor or array, ``(n, 1 or 3, height, width)``.
        captions: the text below each image; none if empty.
        regions: ``(n, height, width)`` bool, to be outlined.
    """

    title: str
    images: Any
    captions: Sequence[str] = ()
    regions: Any = None


def image_rows(
    rows: Sequence[ImageRow],
    brightest: float,
    size: tuple[float, float],
    *,
    fontsize: float = 8,
) -> Figure:
    """Draw rows of images, whose values are 0 for black and ``brightest`` for white.

    Args:
        rows: from top to bottom; a row may have fewer images than others.
        brightest: the value of white.
        size: size of the figure, in inches.
        fontsize: font size of the captions, in points.
    """
    figure = Figure(figsize=size, layout="constrained")
    count = max(len(row.images) for row in rows)
    step = _step(rows, size, fontsize)
    # One axes for each row, since an axes for each image would take most of the time of a report.
    for row, axes in zip(rows, figure.subplots(len(rows), squeeze=False)[:, 0], strict=True):
        shades = np.round(np.asarray(row.images, float) * (255 / brightest)).astype(np.uint8)
        pixels = np.broadcast_to(shades, (len(shades), 3, *shades.shape[2:])).transpose(0, 2, 3, 1)
        height, width = shades.shape[2:]
        lefts = step * np.arange(len(pixels)) - 0.5
        settings: dict[str, Any] = {"interpolation": "none"} if max(height, width) <= _SCAN else {}
        for k, (image, left) in enumerate(zip(pixels, lefts, strict=True)):
            extent = (left, left + width, height - 0.5, -0.5)
            axes.imshow(image, extent=extent, **settings)
            frame = Rectangle((left, -0.5), width, height, fill=False, edgecolor=FAINT)
            frame.set(clip_on=False, linewidth=0.8)
            axes.add_patch(frame)
            if row.regions is not None:
                _draw_outline(axes, np.asarray(row.regions[k]), left)
        axes.set_ylabel(row.title, rotation=0, ha="right", va="center")
        axes.set_xticks(lefts + width / 2, row.captions or [""] * len(lefts), fontsize=fontsize)
        axes.set(xlim=(-0.5, step * (count - 1) + width - 0.5), ylim=(height - 0.5, -0.5))
        axes.set(yticks=[], frame_on=False)
        axes.tick_params(length=0)
    return figure


def _step(rows: Sequence[ImageRow], size: tuple[float, float], fontsize: float) -> float:
    """Return the distance between the left edges of neighboring images, in pixels.

    Images get all of the height that captions leave, and are apart where there is more width.
    Sizes of text are estimates: matplotlib makes the images smaller where it needs more.
    """
    height, width = rows[0].images.shape[2:]
    captions = [max((1 + text.count("\n") for text in row.captions), default=0) for row in rows]
    titles = max(len(line) for row in rows for line in row.title.split("\n"))
    tall = size[1] / len(rows) - (1.3 * fontsize * sum(captions) / len(rows) + 8) / 72
    wide = (size[0] - 0.075 * titles - 0.1) / max(len(row.images) for row in rows)
    return float(max(1.1 * width, height * wide / tall))


def _draw_outline(axes: Axes, region: Any, left: float) -> None:
    """Draw the edges between the pixels inside and outside a region of an image."""
    inside, gap = np.pad(region, 1), (np.nan, np.nan)
    across = np.argwhere(inside[1:, 1:-1] != inside[:-1, 1:-1])
    down = np.argwhere((inside[1:-1, 1:] != inside[1:-1, :-1]).T)
    path = [gap]
    for edges in (
        [((x, y), (x + 1, y)) for y, x in across.tolist()],
        [((x, y), (x, y + 1)) for x, y in down.tolist()],
    ):
        path.append(gap)
        for start, end in edges:
            if path[-1] == start:  # continue the line
                path[-1] = end
            else:
                path += [gap, start, end]
    x, y = np.array(path).T
    axes.plot(x + left, y - 0.5, color=ARM_COLORS[2], linewidth=1, clip_on=False)


def blends_figure(path: Path) -> SvgFigure | None:
    """Draw the examples in an ``examples.npz``, their partners, and the blends of both, if any."""
    with np.load(path) as file:
        if "own" not in file.files:
            return None
        stored = {name: file[name] for name in file.files}
    own, partners = (
        [visible(str(name)) for name in stored[key]] for key in ("own_class", "met_class")
    )
    blends = list(zip(stored["lam"].tolist(), own, partners, strict=True))
    terms = [
        f"{lam:.2f} · {shortened(a)}\n+ {1 - lam:.2f} · {shortened(b)}" for lam, a, b in blends
    ]
    rows = [
        ImageRow("own", stored["own"], [shortened(name) for name in own]),
        ImageRow("partner", stored["met"], [shortened(name) for name in partners]),
        ImageRow("blend", stored["blend"], terms),
    ]
    longest = max(len(shortened(name)) for name in own) + len("+ 0.00 · ")
    with figure_style():
        width = max(4.4, 0.6 + 0.071 * len(blends) * longest)
        figure = image_rows(rows, float(stored["brightest"]), (width, 2.75), fontsize=7)
        words = [f"{lam:.2f} of a {a} with {1 - lam:.2f} of a {b}" for lam, a, b in blends]
        return to_svg("examples", f"Blended examples: {'; '.join(words)}.", figure)


def write_examples(spec: str, data: DataSet, out: Path) -> None:
    """Draw the first training examples of each class, of at most twelve classes, into an SVG file.

    Raises:
        UserError: if the examples are neither images nor spectrograms, or ``out`` is not an .svg.
    """
    if out.suffix.lower() != ".svg":
        raise UserError(f"--figure: expected a file that ends in .svg, got {out}")
    shape = tuple(data.train.inputs.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(
            f"--figure: {spec} has inputs of shape {shape}, expected images or spectrograms, with "
            "1 or 3 channels. Leave the option out."
        )
    rows = []
    for k, name in enumerate(data.classes[:_CLASSES] or [""]):
        of_class = data.train.targets == k if data.classes else torch.ones(len(data.train))
        images = data.train.read(of_class.nonzero()[:_EXAMPLES, 0].tolist()).inputs.double()
        if data.brightest is None and len(images):
            images = images - images.min()
            images /= images.max().clamp(min=1e-9)
        if data.preparation.get("kind") == "sound":  # spectrograms, low frequencies at the bottom
            images = images.flip(2)
        rows.append(ImageRow(visible(name)[:16], images))
    with figure_style():
        size = (0.62 * _EXAMPLES + 1.2, 0.62 * len(rows) + 0.1)
        figure = image_rows(rows, data.brightest or 1, size)
        names = ", ".join(data.classes[:_CLASSES])
        text = f"The first training examples of {spec}, a row for each class: {names}."
        write_whole(out, standalone_svg(to_svg("examples", text, figure)))
