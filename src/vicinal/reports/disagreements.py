"""The test examples that the baseline and the best other arm disagree on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vicinal.escaping import shortened, visible
from vicinal.reports.image_figures import ImageRow, image_rows
from vicinal.reports.output_figures import OutputsOf
from vicinal.reports.study_cells import Table
from vicinal.reports.summary_values import title
from vicinal.reports.svg import SvgFigure, figure_style, to_svg
from vicinal.studies.predictions import differing_name, fingerprint, probabilities
from vicinal.training.metrics import plain

_COLUMNS = 8
"""How many columns of a table are shown, the first ones."""


class Disagreements(NamedTuple):
    """Test examples on which two arms differ, as a figure or as a table."""

    figure: SvgFigure | None
    table: Table


def disagreements(
    path: Path, summary: Mapping[str, Any], outputs: OutputsOf, condition: str
) -> Disagreements | None:
    """Return the stored test examples, with what both arms predict for them.

    Args:
        path: path of ``examples.npz``.
        summary: summary of the study.
        outputs: those of the baseline and of the best other arm, in this order, on the first split.
        condition: condition of the outputs.
    """
    if len(outputs) != 2 or not path.exists():
        return None
    with np.load(path) as file:
        stored = {name: file[name] for name in file.files}
    if str(stored.get(f"compared {condition}")) != fingerprint(*outputs.values()):
        return None  # they were chosen for other trials
    groups = {
        better: [
            int(row)
            for row in stored.get(f"rows {differing_name(condition, better=better)}", ())
            if row in stored.get("test_rows", ())
        ]
        for better in (True, False)
    }
    if not any(groups.values()):
        return None
    arms = [title(summary, arm) for arm in outputs]
    predicted = [_predictions(summary, seeds) for seeds in outputs.values()]
    true = _true(summary, next(iter(outputs.values()))[0].targets)
    if "test_inputs" in stored:
        where = {int(row): k for k, row in enumerate(stored["test_rows"])}
        rows = [
            ImageRow(
                f"{shortened(arms[0 if not better else 1], 18)}\nis closer",
                stored["test_inputs"][[where[row] for row in group]],
                [
                    f"{shortened(true(row), 18)}\n"
                    + "\n".join(shortened(one(row), 22) for one in predicted)
                    for row in group
                ],
            )
            for better, group in groups.items()
            if group
        ]
        with figure_style():
            longest = max(
                len(line) for one in rows for text in one.captions for line in text.split("\n")
            )
            count = max(len(group) for group in groups.values())
            width = max(5.0, 1.2 + count * max(0.75, 0.066 * longest))
            size = (width, 0.2 + 1.45 * len(rows))
            figure = image_rows(rows, float(stored["test_brightest"]), size, fontsize=7)
            words = [
                f"{true(row)}: {arms[0]} {predicted[0](row)}, {arms[1]} {predicted[1](row)}"
                for group in groups.values()
                for row in group
            ]
            text = f"Test examples on which the arms differ most: {'; '.join(words)}."
            return Disagreements(to_svg("disagreements", text, figure), ([], []))
    columns, cells = _chosen_cells(stored)
    lines = [
        [arms[1 if better else 0], true(row), *(one(row) for one in predicted), *cells.get(row, [])]
        for better, group in groups.items()
        for row in group
    ]
    return Disagreements(None, (["closer arm", "true", *arms, *columns], lines))


def _predictions(summary: Mapping[str, Any], seeds: Sequence[Any]) -> Any:
    """Return a function that says what an arm predicts for a row, the mean over seeds."""
    task, classes = summary["task"], summary["data"]["classes"]
    given = np.mean([probabilities(one, task) for one in seeds], axis=0)
    targets = seeds[0].targets

    def predicted(row: int) -> str:
        if task == "regression":
            return ", ".join(plain(one) for one in given[row])
        if task == "multi-label":
            return ", ".join(classes[k] for k in np.flatnonzero(given[row] > 0.5)) or "none"
        # The probability of the true class, and what is predicted instead.
        best, own = int(given[row].argmax()), int(targets[row])
        if best == own:
            return f"{100 * given[row, own]:.0f}%"
        return f"{100 * given[row, own]:.0f}%, predicted: {classes[best]}"

    return predicted


def _true(summary: Mapping[str, Any], targets: Any) -> Any:
    """Return a function that returns the target of a row as text."""
    task, classes = summary["task"], summary["data"]["classes"]

    def true(row: int) -> str:
        if task == "classification":
            return str(classes[int(targets[row])])
        if task == "multi-label":
            return ", ".join(classes[k] for k in np.flatnonzero(targets[row] > 0)) or "none"
        return ", ".join(plain(one) for one in np.atleast_1d(targets[row]))

    return true


def _chosen_cells(stored: Mapping[str, Any]) -> tuple[list[str], dict[int, list[str]]]:
    """Return some columns of rows of a table, and their cells by row."""
    if "test_cells" not in stored:
        return [], {}
    names = [visible(str(name)) for name in stored["test_columns"][:_COLUMNS]]
    cells = {
        int(row): [visible(str(cell)) for cell in line[:_COLUMNS]]
        for row, line in zip(stored["test_rows"], stored["test_cells"], strict=True)
    }
    return names, cells
