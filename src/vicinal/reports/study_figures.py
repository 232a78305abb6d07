"""The figures of a study: accuracies, curves over the epochs, and blended examples."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vicinal.reports.study_text import conditions, metric_title, title, value
from vicinal.reports.svg import LINE_STYLES, SvgFigure, arm_color, figure_style, shortened, to_svg
from vicinal.studies import EpochRow, condition_name

Histories = Mapping[tuple[str, float], Sequence[Sequence[EpochRow]]]
"""The history of each seed that finished, by arm and fraction of corrupted labels."""

_CURVES = {
    "train_loss": "training loss",
    "test_loss": "test loss",
    "memorized": "wrong labels learned",
}


def metric_figure(summary: Mapping[str, Any]) -> SvgFigure:
    """Plot the metric that decides of every arm under every condition, with its interval."""
    arms, name = list(summary["settings"]["arms"]), summary["metric"]
    shown = conditions(summary)
    with figure_style():
        figure = Figure(figsize=(4.4, 0.7 + 0.27 * (len(arms) + 1) * len(shown)))
        axes = figure.add_subplot()
        ticks: list[tuple[float, str]] = []
        height = 0.0
        for condition in shown:
            if len(shown) > 1:
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
        axes.set_ylim(height + 0.6, 0.9)
        axes.set_xlabel(f"test {metric_title(summary, name)}")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        values = "; ".join(
            ", ".join([title(summary, row["arm"]), *[row["condition"]] * (len(shown) > 1)])
            + f": {value(summary, name, row['metrics'][name]['value'])}"
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
    several = len(conditions(summary)) > 1
    heading, ends = name + (f", {condition_name(corrupted)}" if several else ""), []
    with figure_style():
        figure = Figure(figsize=(4.4, 2.9))
        axes = figure.add_subplot()
        for k, arm in enumerate(summary["settings"]["arms"]):
            seeds = histories[arm, corrupted]
            if not seeds:  # all of them failed
                continue
            epochs = [row.epoch for row in seeds[0]]
            values = np.array([[getattr(row, field) for row in rows] for rows in seeds])
            values = 100 * values if percent else values
            mean, low, high = values.mean(0), values.min(0), values.max(0)
            axes.plot(
                epochs,
                mean,
                LINE_STYLES[k % len(LINE_STYLES)],
                marker="o" if len(epochs) == 1 else None,
                color=arm_color(k),
                label=shortened(title(summary, arm), 32),
            )
            axes.fill_between(epochs, low, high, color=arm_color(k), alpha=0.18, linewidth=0)
            ends.append(f"{title(summary, arm)} ends at {mean[-1]:.3g}")
        axes.set(title=heading, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        low, high = axes.get_ylim()
        axes.set_ylim(*((max(low, -2), min(high, 102)) if percent else (min(low, 0), high)))
        if axes.lines:
            axes.legend(frameon=False)
        text = f"{heading[0].upper()}{heading[1:]}, by epoch: {'; '.join(ends)}."
        return to_svg(re.sub(r"[^a-z0-9]+", "-", heading.lower()), text, figure)
