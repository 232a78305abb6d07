"""Figures made from the outputs of trials: confusions, calibration, and errors of real values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vicinal.escaping import shortened
from vicinal.reports.study_cells import MOST_CLASSES, Table
from vicinal.reports.summary_values import conditions, number_text, tested, title
from vicinal.reports.svg import (
    ARM_COLORS,
    FAINT,
    SvgFigure,
    add_legend,
    arm_color,
    draw_line,
    figure_style,
    slug,
    to_svg,
)
from vicinal.studies.predictions import confusion, reliability
from vicinal.training.trial_result import Outputs

OutputsOf = Mapping[str, Sequence[Outputs]]
"""The outputs of each seed, by arm."""

_POINTS = 500
"""How many points a scatter plot has at most."""

_CONFUSED = 15
"""How many pairs of classes the table of confusions has."""


def confusion_figures(summary: Mapping[str, Any], outputs: OutputsOf) -> list[SvgFigure]:
    """Draw the confusion matrix of each arm; none if there are too many classes.

    Cells have shares of the true class in percent, means over seeds.
    """
    names = [shortened(name, 14) for name in summary["data"]["classes"]]
    if len(names) > MOST_CLASSES:
        return []
    figures = []
    for arm, seeds in outputs.items():
        shares = 100 * confusion(seeds)
        with figure_style():
            side = max(3.6, 1.1 + 0.27 * len(names))
            figure = Figure(figsize=(side + 0.25, side))
            axes = figure.add_subplot()
            for (true, given), share in np.ndenumerate(shares):
                if share >= 0.05:
                    color = ARM_COLORS[3] if true == given else ARM_COLORS[2]
                    # Half transparent at most, so that the number can be read.
                    cell = Rectangle((given - 0.5, true - 0.5), 1, 1, color=color, linewidth=0)
                    cell.set_alpha(0.05 + 0.4 * share / 100)
                    axes.add_patch(cell)
                if share >= 0.5:
                    axes.text(given, true, f"{share:.0f}", ha="center", va="center", fontsize=6.5)
            ticks, ends = range(len(names)), (-0.5, len(names) - 0.5)
            axes.set_xticks(ticks, names, fontsize=7)
            if max(map(len, names)) > 2:
                axes.tick_params("x", rotation=90)
            axes.set_yticks(ticks, names, fontsize=7)
            axes.set(xlim=ends, ylim=ends[::-1], xlabel="predicted", ylabel="true")
            axes.set_title(shortened(title(summary, arm), 40))
            axes.tick_params(length=0)
            mean = np.nanmean(np.diag(shares))
            text = (
                f"Confusion matrix of {title(summary, arm)}: "
                f"{mean:.1f}% of a class are predicted correctly, the mean over classes."
            )
            figures.append(to_svg(f"confusion-{arm}", text, figure))
    return figures


def confusion_table(summary: Mapping[str, Any], outputs: OutputsOf) -> Table:
    """Return the most frequent confusions of the arms, where there are too many for a matrix."""
    classes, counts = summary["data"]["classes"], tested(summary)
    if len(classes) <= MOST_CLASSES:
        return [], []
    shares = [np.nan_to_num(100 * confusion(seeds)) for seeds in outputs.values()]
    confused = np.max(shares, axis=0) * np.array(counts)[:, None]
    np.fill_diagonal(confused, 0)
    pairs = np.argsort(-confused, axis=None, kind="stable")[:_CONFUSED]
    rows = [
        [
            classes[true],
            classes[given],
            f"{counts[true]:,}",
            *(f"{one[true, given]:.1f}" for one in shares),
        ]
        for true, given in zip(*np.unravel_index(pairs, confused.shape), strict=True)
        if confused[true, given] > 0
    ]
    titles = [f"{title(summary, arm)}, %" for arm in outputs]
    return ["true class", "predicted", "test examples", *titles], rows


def reliability_figure(summary: Mapping[str, Any], outputs: OutputsOf, condition: str) -> SvgFigure:
    """Draw how often predictions are right, by their probability, for some arms."""
    task, arms = summary["task"], list(summary["settings"]["arms"])
    named = f", {condition}" if len(conditions(summary)) > 1 else ""
    gaps = []
    with figure_style():
        figure = Figure(figsize=(4.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1)
        for arm, seeds in outputs.items():
            k = arms.index(arm)
            given, right, count = reliability(seeds, task)
            # Bins of a few predictions show chance only, but with few test examples all have few.
            kept = count >= 10 if count.max() >= 10 else count > 0
            line = 100 * given[kept], 100 * right[kept]
            draw_line(axes, k, *line, title(summary, arm), marker=".")
            gap = 100 * np.average(right - given, weights=count)
            gaps.append(f"{title(summary, arm)} {number_text(gap, percent=True, sign=True)} points")
        what = "right" if task == "classification" else "present"
        xlabel = "probability of the prediction, %" if what == "right" else "probability, %"
        axes.set(
            title=f"Calibration{named}", xlabel=xlabel, ylabel=f"share that is {what}, %", aspect=1
        )
        add_legend(figure, axes)
        text = (
            f"Reliability diagram{named}. Share that is {what} minus mean probability: "
            f"{'; '.join(gaps)}."
        )
        return to_svg(f"reliability{'-' * bool(named)}{slug(named)}", text, figure)


def regression_figures(summary: Mapping[str, Any], outputs: OutputsOf) -> list[SvgFigure]:
    """Draw each arm's predictions, averaged over seeds, against true values, and the errors.

    Of several targets, these are those of the first one.
    """
    figures = []
    for arm, seeds in outputs.items():
        # Predictions are means over the seeds of a split, as an ensemble would make them.
        splits: dict[bytes, list[Outputs]] = {}
        for one in seeds:
            splits.setdefault(one.targets.tobytes(), []).append(one)
        same = splits.values()
        true = np.concatenate([one[0].targets.reshape(one[0].last.shape)[:, 0] for one in same])
        given = np.concatenate([np.mean([s.last[:, 0] for s in one], 0, float) for one in same])
        true = true.astype(float)
        targets = seeds[0].last.shape[1]
        first = f", target 0 of {targets}" if targets > 1 else ""
        chosen = np.linspace(0, len(true) - 1, min(len(true), _POINTS)).astype(int)
        color = arm_color(list(summary["settings"]["arms"]).index(arm))
        with figure_style():
            figure = Figure(figsize=(6.6, 3.1))
            left, right = figure.subplots(1, 2)
            ends = [min(true.min(), given.min()), max(true.max(), given.max())]
            left.plot(ends, ends, color=FAINT, linewidth=1)
            left.plot(true[chosen], given[chosen], ".", color=color, alpha=0.5, markersize=3)
            left.set(
                xlabel="true",
                ylabel="predicted",
                title=f"{shortened(title(summary, arm), 40)}{first}",
            )
            right.axhline(0, color=FAINT, linewidth=1)
            errors = given - true
            right.plot(given[chosen], errors[chosen], ".", color=color, alpha=0.5, markersize=3)
            right.set(xlabel="predicted", ylabel="predicted minus true", title="errors")
            mean, std = errors.mean(), errors.std()
            text = (
                f"Predicted against true values, and errors, of {title(summary, arm)}{first}: "
                f"the errors have a mean of {mean:.3g} and a standard deviation of {std:.3g}."
            )
            figures.append(to_svg(f"errors-{arm}", text, figure))
    return figures
