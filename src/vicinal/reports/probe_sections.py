"""The sections of a report on the probes of a study: tables and figures."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from vicinal.reports.study_cells import CONDITION, Table
from vicinal.reports.study_figures import drawn_arms
from vicinal.reports.summary_values import conditions, measure_text, names_conditions, title
from vicinal.reports.svg import (
    SvgFigure,
    arm_color,
    draw_line,
    figure_style,
    slug,
    to_svg,
)


class Section(NamedTuple):
    """A section on one probe.

    Args:
        title: title of the section.
        note: what is measured.
        tables: tables of the measures.
        figures: figures of those that depend on a number, such as epsilon.
        remarks: sentences on what else was found.
    """

    title: str
    note: str
    tables: list[Table]
    figures: list[SvgFigure]
    remarks: list[str]


_TEXTS = {
    "attacks": (
        "Adversarial attacks",
        "Accuracy on test examples whose pixels an attack changes by at most epsilon. An "
        "example counts only if the network is right for every image that the attack visits. "
        "The attacks know the network (white box), or use another network of the baseline "
        "(transferred). An attack gives an upper bound of the accuracy under the best attack: "
        "FGSM, a single step, is a weak one, and noise is a control, not an attack.",
    ),
    "between": (
        "Between training examples",
        "Along the lines between pairs of training examples of different classes: the share of "
        "predictions that are neither of the two classes, and the norm of the gradient of the "
        "predicted class's log-probability with respect to the input (Zhang et al., arXiv "
        "1710.09412, figure 2).",
    ),
    "calibration": (
        "Calibration, before and after temperature scaling",
        "The calibration error (ECE), the negative log-likelihood in nats, and the Brier score. "
        "The temperature is fitted on one half of the test examples and judged on the other.",
    ),
    "ensemble": (
        "Calibration of the ensemble",
        "The same of the mean of the probabilities over the seeds that all arms finished. "
        "Ensembles of networks that are well calibrated alone can be underconfident together. "
        "There is one ensemble for each arm, so there are no intervals.",
    ),
    "memorization": (
        "What was memorized",
        "Errors of predictions on the training examples: compared with their labels where these "
        "are real, and where they were corrupted. A network without errors on corrupted labels "
        "has memorized them.",
    ),
    "ood": (
        "Out-of-distribution detection",
        "Whether the largest probability tells examples of the test split from those of another "
        "data set: AUROC, and the share of the other examples that are accepted where 95% of "
        "the test examples are.",
    ),
}


def probe_sections(summary: Mapping[str, Any]) -> list[Section]:
    """Return a section for each probe of the recipe that has measures."""
    return [
        _section(summary, probe)
        for probe in _TEXTS
        if any(one["probe"] == probe for one in summary["probes"])
    ]


def _section(summary: Mapping[str, Any], probe: str) -> Section:
    measures = [one for one in summary["probes"] if one["probe"] == probe]
    alone = [one for one in measures if one["x"] is None]
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for one in measures:
        if one["x"] is not None:
            curves.setdefault(one["series"], []).append(one)
    tables = [_table_of_numbers(summary, alone)] if alone else []
    figures = []
    if curves:
        tables.append(_table_of_curves(summary, curves))
        figures = [_figure(summary, probe, curves, condition) for condition in conditions(summary)]
    return Section(*_TEXTS[probe], tables, figures, _remarks(summary, probe))


def _remarks(summary: Mapping[str, Any], probe: str) -> list[str]:
    if probe != "attacks":
        return []
    failed, missing = summary["failed_checks"], summary["checks_not_run"]
    not_run = [f"Checks that did not run: {' '.join(missing)}"] if missing else []
    if not failed:
        return ["No check for masked gradients failed.", *not_run]
    several = names_conditions(summary)
    return not_run + [
        f"{title(summary, one['arm'])}{', ' * several}{one['condition'] * several}, seed "
        f"{one['seed']}: the check “{one['name']}” failed: {one['found']}"
        for one in failed
    ]


def _text(
    measure: Mapping[str, Any], found: Mapping[str, Any] | None, *, sign: bool = False
) -> str:
    return measure_text(found, percent=measure["percent"], sign=sign)


def _table_of_numbers(summary: Mapping[str, Any], measures: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a row for each arm, and the difference from the baseline."""
    several = names_conditions(summary)
    keys = dict.fromkeys((row["condition"], row["arm"]) for m in measures for row in m["rows"])
    cells = {key: [*[key[0]] * several, title(summary, key[1])] for key in keys}
    head = [*[CONDITION] * several, "arm"]
    for one in measures:
        compared = any(row["difference"] for row in one["rows"])
        head += [one["series"] + ", %" * one["percent"], *["difference"] * compared]
        rows = {(row["condition"], row["arm"]): row for row in one["rows"]}
        for key, line in cells.items():
            row = rows.get(key)
            difference = row["difference"] if row else None
            line += [_text(one, row), *[_text(one, difference, sign=True)] * compared]
    return head, list(cells.values())


def _table_of_curves(
    summary: Mapping[str, Any], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Table:
    """Return a table with a row for each series and arm, and a column for each x."""
    several = names_conditions(summary)
    first = next(iter(curves.values()))
    head = [*[CONDITION] * several, "measure", "arm"]
    head += [
        f"{first[0]['x_title']}: {one['x']:g}" if not k else f"{one['x']:g}"
        for k, one in enumerate(first)
    ]
    cells: dict[tuple[str, str, str], list[str]] = {}
    for condition in conditions(summary):
        for series, measures in curves.items():
            for one in measures:
                for row in one["rows"]:
                    if row["condition"] != condition:
                        continue
                    name = series + ", %" * one["percent"]
                    start = [*[condition] * several, name, title(summary, row["arm"])]
                    cells.setdefault((condition, series, row["arm"]), start).append(_text(one, row))
    return head, list(cells.values())


def _figure(
    summary: Mapping[str, Any],
    probe: str,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    condition: str,
) -> SvgFigure:
    """Plot each series against x, with a line and a band of 95% intervals for each arm."""
    arms, drawn = list(summary["settings"]["arms"]), drawn_arms(summary, condition)
    columns = min(len(curves), 3)
    lines = -(-len(curves) // columns)
    named = f", {condition}" if len(conditions(summary)) > 1 else ""
    with figure_style():
        figure = Figure(figsize=(3.1 * columns, 2.5 * lines + 0.3), layout="constrained")
        for at, (series, measures) in enumerate(curves.items(), 1):
            axes = figure.add_subplot(lines, columns, at)
            for arm in drawn:
                rows = [
                    (one["x"], row)
                    for one in measures
                    for row in one["rows"]
                    if (row["arm"], row["condition"]) == (arm, condition)
                    and row["value"] is not None
                ]
                k, x = arms.index(arm), [one for one, _ in rows]
                draw_line(axes, k, x, [row["value"] for _, row in rows], title(summary, arm))
                if rows and all(row["low"] is not None for _, row in rows):
                    low, high = ([row[end] for _, row in rows] for end in ("low", "high"))
                    axes.fill_between(x, low, high, color=arm_color(k), alpha=0.18, linewidth=0)
            axes.set(title=textwrap.fill(series, 32), xlabel=measures[0]["x_title"])
            axes.set_ylabel("%" if measures[0]["percent"] else "norm")
            axes.set_ylim(bottom=0)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        ends = "; ".join(
            f"{title(summary, row['arm'])}, {one['series']} at {one['x']:g}: {_text(one, row)}"
            for measures in curves.values()
            for one in measures[-1:]
            for row in one["rows"]
            if row["condition"] == condition
        )
        heading = f"{_TEXTS[probe][0]}{named}"
        return to_svg(slug(heading), f"{heading}: {ends}.", figure)
