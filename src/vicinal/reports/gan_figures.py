"""The figures of a study of GANs: measures over the iterations, and samples in the plane."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from vicinal.generative.measures import EDGE
from vicinal.generative.toy import mode_centers
from vicinal.reports.svg import (
    FAINT,
    SvgFigure,
    add_legend,
    arm_color,
    draw_line,
    figure_style,
    to_svg,
)
from vicinal.studies.gan import MEASURES, GanResult, shown_iterations

TITLES = {"plain": "plain", "paper": "mixup (paper)", "author": "mixup (author's code)"}
"""The arms, as tables and figures name them."""

_MOST_SEEDS = 5
"""How many seeds a figure shows."""

Results = Mapping[str, Sequence[GanResult]]
"""The results on one mixture, by arm."""


def gan_curve(summary: Mapping[str, Any], data: str, results: Results, name: str) -> SvgFigure:
    """Plot a measure over the iterations: the mean over seeds, and a band of their range.

    For a logarithmic measure, the axis is logarithmic and the means are geometric. A seed whose
    samples are not finite has no measures from then on.
    """
    ends = []
    with figure_style():
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.add_subplot()
        real = summary["real"][data][name]
        axes.axhline(real, color=FAINT, linewidth=1, label="real samples")
        for k, (arm, seeds) in enumerate(results.items()):
            at = sorted({point.iteration for one in seeds for point in one.points})
            lines = {
                i: [getattr(p, name) for one in seeds for p in one.points if p.iteration == i]
                for i in at
            }
            if not at:
                continue
            logarithmic = MEASURES[name].logarithmic
            average = (lambda v: np.exp(np.log(v).mean())) if logarithmic else np.mean
            low, high = ([f(values) for values in lines.values()] for f in (min, max))
            mean = [float(average(values)) for values in lines.values()]
            draw_line(axes, k, at, mean, TITLES[arm])
            axes.fill_between(at, low, high, color=arm_color(k), alpha=0.18, linewidth=0)
            ends.append(f"{TITLES[arm]} ends at {mean[-1]:.3g}")
        heading = f"{MEASURES[name].title}, {data}"
        axes.set(title=heading, xlabel="iteration of the generator", ylabel=MEASURES[name].title)
        if MEASURES[name].logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # the default writes powers of 10
            axes.yaxis.set_minor_formatter("")
        else:
            axes.set_ylim(bottom=0)
        add_legend(figure, axes)
        text = f"{heading}, by iteration: {'; '.join(ends)}; real samples have {real:.3g}."
        return to_svg(f"{name}-{data}", text, figure)


def gan_samples(summary: Mapping[str, Any], data: str, results: Results) -> list[SvgFigure]:
    """Draw samples of the first seed by iteration, and of all seeds after the last one.

    Both figures have a row for each arm.
    """
    times = shown_iterations(summary["gan"]["iterations"])
    arms = {arm: seeds for arm, seeds in results.items() if seeds}
    over_time = [
        [(f"iteration {i:,}", seeds[0].samples.get(i)) for i in times] for seeds in arms.values()
    ]
    at_end = [
        [(f"seed {one.seed}", one.samples.get(times[-1])) for one in seeds[:_MOST_SEEDS]]
        for seeds in arms.values()
    ]
    text = f"Samples of the generator {{}}, {data}, {{}}, and the modes."
    first = text.format("over the iterations", "seed 0")
    last = text.format("after the last iteration", "by seed")
    return [
        _grid(f"samples-{data}", first, data, list(arms), over_time),
        _grid(f"seeds-{data}", last, data, list(arms), at_end),
    ]


def _grid(
    name: str, text: str, data: str, arms: Sequence[str], panels: Sequence[Sequence[Any]]
) -> SvgFigure:
    wide = max(5, *(len(row) for row in panels))  # fewer would be drawn too large
    with figure_style():
        figure = Figure(figsize=(1.7 * wide + 0.4, 1.75 * len(panels) + 0.2))
        grid = figure.subplots(len(panels), wide, squeeze=False, sharex=True, sharey=True)
        for k, row in enumerate(panels):
            for axes in grid[k, len(row) :]:
                axes.set_axis_off()
            for axes, (heading, samples) in zip(grid[k], row, strict=False):
                note = _panel(axes, data, samples, arm_color(k))
                lines = [*([heading] if k == 0 else []), *([note] if note else [])]
                axes.set_title("\n".join(lines), weight="normal", fontsize=8)
            grid[k, 0].set_ylabel(f"{TITLES[arms[k]]}\n\nx₂")
        for axes in grid[-1]:
            axes.set_xlabel("x₁")
        return to_svg(name, text, figure)


def _panel(axes: Axes, data: Any, samples: Any, color: str) -> str:
    """Draw samples and modes; return how many samples are outside, or ``""``."""
    axes.set(
        xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1]
    )
    axes.plot(*mode_centers(data).T.numpy(), "+", color=FAINT, markersize=7, markeredgewidth=1)
    if samples is None:
        axes.text(0, 0, "not finite", ha="center", va="center")
        return ""
    inside = np.asarray(samples)
    inside = inside[np.abs(inside).max(1) <= EDGE]
    if len(inside):
        # One path of dots: lines without length and with round ends, a tenth of the size of marks.
        dots = np.repeat(inside, 2, axis=0)
        codes = [Outline.MOVETO, Outline.LINETO] * len(inside)
        axes.add_patch(
            PathPatch(Outline(dots, codes), color=color, linewidth=1.8, capstyle="round", alpha=0.6)
        )
    outside = len(samples) - len(inside)
    return f"{outside} of {len(samples)} outside" if outside else ""
