"""The figures of a study: accuracies, curves over the epochs, and blended examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vicinal.escaping import shortened
from vicinal.reports.study_cells import changed_classes, of_each_class
from vicinal.reports.summary_values import (
    best_first,
    compared_arms,
    conditions,
    metric_title,
    names_conditions,
    row_title,
    rows_under,
    tested,
    title,
    value,
)
from vicinal.reports.svg import (
    FAINT,
    SvgFigure,
    add_legend,
    arm_color,
    draw_line,
    figure_style,
    slug,
    to_svg,
)
from vicinal.studies import EpochRow, condition_name

Histories = Mapping[tuple[str, float], Sequence[Sequence[EpochRow]]]
"""The history of each seed that finished, by arm and fraction of corrupted labels."""

_CURVES = {
    "train_loss": "training loss",
    "test_loss": "test loss",
    "memorized": "wrong labels learned",
}


MOST_LINES = 8
"""How many arms a figure with lines has."""


def drawn_arms(summary: Mapping[str, Any], condition: str) -> list[str]:
    """Return the arms of figures with lines: all of them, or the baseline and the best ones."""
    rows = {arm: row for arm, row in rows_under(summary, condition).items() if row["n"]}
    baseline = summary["settings"]["baseline"]
    best = [arm for arm in best_first(summary, rows) if arm != baseline]
    kept = {baseline, *best[: MOST_LINES - 1]}
    return [arm for arm in rows if arm in kept]


def metric_figure(summary: Mapping[str, Any]) -> SvgFigure:
    """Plot the primary metric of every arm under every condition, with its interval."""
    arms, name = list(summary["settings"]["arms"]), summary["metric"]
    shown = conditions(summary)
    with figure_style():
        named = names_conditions(summary)
        figure = Figure(figsize=(4.4, 0.7 + 0.27 * (len(arms) + named) * len(shown)))
        axes = figure.add_subplot()
        ticks: list[tuple[float, str]] = []
        height = 0.0
        for condition in shown:
            if named:
                axes.text(0, height, condition, transform=axes.get_yaxis_transform(), weight="bold")
            for row in (row for row in summary["rows"] if row["condition"] == condition):
                height -= 1
                color = arm_color(arms.index(row["arm"]))
                found = row["metrics"][name]
                if found["value"] is not None:
                    axes.plot(found["value"], height, "o", color=color)
                if found["low"] is not None:
                    axes.plot([found["low"], found["high"]], [height] * 2, color=color)
                ticks.append((height, shortened(title(summary, row["arm"]), 32)))
            height -= 1.3
        axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_ylim(height + 0.6, 0.9 if named else -0.4)
        axes.xaxis.set_major_locator(MaxNLocator(5))  # room for numbers such as 30,000
        axes.set_xlabel(f"test {metric_title(summary, name)}")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        values = "; ".join(
            f"{row_title(summary, row)}: {value(summary, name, row['metrics'][name]['value'])}"
            for row in summary["rows"]
            if row["n"]
        )
        text = f"Test {metric_title(summary, name)} with 95% intervals: {values}."
        return to_svg("metric", text, figure)


def curve_figure(
    summary: Mapping[str, Any], histories: Histories, corrupted: float, field: str
) -> SvgFigure:
    """Plot a field of ``EpochRow`` over the epochs, under one condition.

    Each arm has a line, the mean over seeds, in a band from the lowest to the highest seed.
    """
    if field == "test_metric":
        name = f"test {summary['metrics'][summary['metric']]['title']}"
        percent = summary["metrics"][summary["metric"]]["percent"]
    else:
        name, percent = _CURVES[field], field == "memorized"
    condition = condition_name(corrupted)
    heading = name + (f", {condition}" if len(conditions(summary)) > 1 else "")
    ends, arms = [], list(summary["settings"]["arms"])
    with figure_style():
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for arm in drawn_arms(summary, condition):
            k, seeds = arms.index(arm), histories[arm, corrupted]
            epochs = [row.epoch for row in seeds[0]]
            values = np.array([[getattr(row, field) for row in rows] for rows in seeds])
            values = 100 * values if percent else values
            mean, low, high = values.mean(0), values.min(0), values.max(0)
            marker = "o" if len(epochs) == 1 else None
            draw_line(axes, k, epochs, mean, title(summary, arm), marker=marker)
            axes.fill_between(epochs, low, high, color=arm_color(k), alpha=0.18, linewidth=0)
            ends.append(f"{title(summary, arm)} ends at {mean[-1]:.3g}")
        axes.set(title=heading, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        low, high = axes.get_ylim()
        axes.set_ylim(*((max(low, -2), min(high, 102)) if percent else (min(low, 0), high)))
        if axes.lines:
            add_legend(figure, axes)
        text = f"{heading[0].upper()}{heading[1:]}, by epoch: {'; '.join(ends)}."
        return to_svg(slug(heading), text, figure)


def classes_figure(summary: Mapping[str, Any], condition: str) -> SvgFigure | None:
    """Plot how much the best arm changes each class or label, with intervals.

    None if there is nothing to compare.
    """
    arms, chosen = compared_arms(summary, condition), changed_classes(summary, condition)
    name, values = of_each_class(summary, condition)
    best = [values[arms[-1]][k] for k in chosen]
    found = [one["difference"] for one in best if one and one["difference"]]
    if len(arms) < 2 or not found:
        return None
    counts = tested(summary)
    color = arm_color(list(summary["settings"]["arms"]).index(arms[-1]))
    with figure_style():
        figure = Figure(figsize=(5.2, 0.8 + 0.2 * len(found)))
        axes = figure.add_subplot()
        axes.axvline(0, color=FAINT, linewidth=1)
        for height, one in enumerate(found):
            axes.plot(one["value"], height, "o", color=color)
            if one["low"] is not None:
                axes.plot([one["low"], one["high"]], [height] * 2, color=color)
        names = [summary["data"]["classes"][k] for k in chosen]
        axes.set_yticks(
            range(len(found)),
            [f"{shortened(one, 28)} ({counts[k]:,})" for one, k in zip(names, chosen, strict=True)],
        )
        axes.set_ylim(len(found) - 0.4, -0.6)  # in the order of the table
        what = "recall" if summary["task"] == "classification" else metric_title(summary, name)
        base = shortened(title(summary, summary["settings"]["baseline"]), 40)
        axes.set_xlabel(f"{what.partition(',')[0]}, difference from {base}")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        changes = "; ".join(
            f"{one} {value(summary, name, two['value'], sign=True)}"
            for one, two in zip(names, found, strict=True)
        )
        text = f"Change of each class by {title(summary, arms[-1])}, in points: {changes}."
        return to_svg("classes", text, figure)
