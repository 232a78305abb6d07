"""The tables of a study as cells of text.

A table is a pair of its head and its rows, which are empty if there is nothing to show.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.escaping import shortened
from vicinal.reports.summary_values import (
    bracketed,
    compared_arms,
    epochs_of,
    half_width,
    interval,
    metric_title,
    names_conditions,
    rows_under,
    tested,
    title,
    value,
)

Cells = list[list[str]]
Table = tuple[Sequence[str], Cells]

CONDITION = "training labels"
"""The head of the column with the condition, the first one if a study has several."""

MOST_CLASSES = 20
"""How many classes or labels are shown."""


def study_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of the primary metric; intervals are 95% intervals.

    Columns that would be empty are left out.
    """
    name, baseline = summary["metric"], summary["settings"]["baseline"]
    trials = summary["settings"]["seeds"] * summary["settings"]["splits"]
    columns: dict[str, list[str]] = {}
    if names_conditions(summary):
        columns[CONDITION] = [row["condition"] for row in summary["rows"]]
    metrics = [row["metrics"][name] for row in summary["rows"]]
    differences = [metric["difference"] for metric in metrics]
    columns |= {
        "arm": [title(summary, row["arm"]) for row in summary["rows"]],
        f"test {metric_title(summary, name)}": [interval(summary, name, one) for one in metrics],
        f"difference from {shortened(title(summary, baseline), 40)}": [
            interval(summary, name, one, sign=True) for one in differences
        ],
        parts_title(summary): [_parts(summary, one) for one in differences],
        "verdict": [
            row["verdict"] or ("baseline" if row["arm"] == baseline else "—")
            for row in summary["rows"]
        ],
        "at the best epoch": [
            "" if row["best"] is None else value(summary, name, row["best"])
            for row in summary["rows"]
        ],
        "wrong labels learned, %": [
            "" if row["memorized"] is None else f"{row['memorized']:.1f}" for row in summary["rows"]
        ],
        "trials": [
            str(row["n"]) if row["n"] == trials else f"{row['n']} of {trials}"
            for row in summary["rows"]
        ],
        "seconds": [
            "—" if row["seconds"] is None else f"{row['seconds']:.1f}" for row in summary["rows"]
        ],
    }
    kept = {
        head: cells for head, cells in columns.items() if any(c not in ("", "—") for c in cells)
    }
    cells = [[cell or "—" for cell in row] for row in zip(*kept.values(), strict=True)]
    return list(kept), cells


def metrics_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of the other metrics, with the difference from the baseline in each."""
    names = [name for name in summary["metrics"] if name != summary["metric"]]
    several = names_conditions(summary)
    differs = any(row["metrics"][summary["metric"]]["difference"] for row in summary["rows"])
    rows = []
    for row in summary["rows"] if names else ():
        cells = [row["condition"]] * several + [title(summary, row["arm"])]
        for name in names:
            found = row["metrics"][name]
            cells.append(interval(summary, name, found))
            if differs:
                cells.append(interval(summary, name, found["difference"], sign=True))
        rows.append(cells)
    if rows:
        halves = [half_width(summary["rows"][0]["metrics"][name]) for name in names]
        constant = [
            value(summary, name, summary["constant"][name], half=half)
            for name, half in zip(names, halves, strict=True)
        ]
        padded = [cell for one in constant for cell in (one, *["—"] * differs)]
        rows.append([*["for comparison"] * several, "constant prediction", *padded])
    heads = [
        head for name in names for head in (metric_title(summary, name), *["difference"] * differs)
    ]
    return [*[CONDITION] * several, "arm", *heads], rows


def advice_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of what speaks for and against mixing."""
    names = ("question", "measured", "reading", "source")
    rows = [[one[name] for name in names] for one in summary["advice"]]
    return ["question", "measured here", "what it suggests", "source"], rows


def published_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of published rows next to ours."""
    return ("arm", "epochs", "published, %", "ours, %", "source"), [
        [
            row["title"],
            f"{row['epochs']:,}",
            "—" if row["accuracy"] is None else str(row["accuracy"]),
            bracketed(row | {"value": row["measured"]}, "{:.2f}".format)
            + ("" if row["n"] is None else f" (n = {row['n']}{', no interval' * (row['n'] < 2)})"),
            row["source"],
        ]
        for row in summary.get("published", [])
    ]


def split_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of the splits."""
    data = summary["data"]
    rows = []
    for name, text in (("train", "training"), ("validation", "validation"), ("test", "test")):
        if data.get(name) is not None:
            split = data[name]
            counts = sorted(zip(split["of_each_class"], data["classes"], strict=True))
            ends = [f"{label} ({count:,})" for count, label in (counts[:1] + counts[-1:])]
            rows.append([text, f"{split['examples']:,}", f"{split['skipped']:,}", *ends])
    what = "label" if summary["task"] == "multi-label" else "class"
    ends = [f"rarest {what}", f"most frequent {what}"] if data["classes"] else []
    return ["split", "examples", "skipped", *ends], rows


def class_table(summary: Mapping[str, Any], condition: str) -> Table:
    """Return the table of the classes or labels that changed most, as ``changed_classes`` does.

    It has the recall of each class, or the average precision of each label, for the baseline and
    the best of the other arms, and their difference.
    """
    arms = compared_arms(summary, condition)
    chosen = changed_classes(summary, condition)
    if not chosen:
        return [], []
    name, found = of_each_class(summary, condition)
    counts = tested(summary)
    rows = []
    for k in chosen:
        shown = [found[arm][k] or {"value": None, "difference": None} for arm in arms]
        cells = [value(summary, name, one["value"]) for one in shown]
        if len(arms) > 1:
            cells.append(interval(summary, name, shown[-1]["difference"], sign=True))
        if summary["task"] == "multi-label":
            areas = rows_under(summary, condition)
            cells += [
                value(summary, "auroc", (areas[arm]["labels"]["auroc"][k] or {}).get("value"))
                for arm in arms
            ]
        rows.append([summary["data"]["classes"][k], f"{counts[k]:,}", *cells])
    what = "class" if summary["task"] == "classification" else "label"
    titles = [title(summary, arm) for arm in arms]
    head = [what, "test examples", *titles, *["difference"] * (len(arms) > 1)]
    if what == "label":
        head += [f"AUROC of {one}" for one in titles]
    return head, rows


def changed_classes(summary: Mapping[str, Any], condition: str) -> list[int]:
    """Return classes or labels from the worst to the best change by the best arm.

    Of many, these are the ``MOST_CLASSES`` whose changes are largest compared with their intervals,
    since classes with few test examples change most by chance. Without a change to show, these are
    the classes with the lowest values.
    """
    arms = compared_arms(summary, condition)
    _, found = of_each_class(summary, condition)
    shown = {}
    for k, one in enumerate(found[arms[-1]] if arms else ()):
        change = one["difference"] if one and len(arms) > 1 else one
        if change and change["value"] is not None:
            shown[k] = change

    def certainty(k: int) -> float:
        one = shown[k]
        half = (one["high"] - one["low"]) / 2 if one["low"] is not None else 0
        return abs(one["value"]) / half if half else 0.0

    chosen = list(shown)
    if len(arms) > 1:
        chosen = sorted(chosen, key=certainty, reverse=True)[:MOST_CLASSES]
    return sorted(chosen, key=lambda k: shown[k]["value"])[:MOST_CLASSES]


def of_each_class(
    summary: Mapping[str, Any], condition: str
) -> tuple[str, dict[str, list[dict[str, Any] | None]]]:
    """Return the metric that classes or labels have, and its values for each arm."""
    rows = rows_under(summary, condition)
    if summary["task"] == "classification":
        return "accuracy", {arm: row["recall"] for arm, row in rows.items()}
    name = "average-precision"
    return name, {arm: row.get("labels", {}).get(name, []) for arm, row in rows.items()}


def cost_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of what each arm costs."""
    data, several = summary["data"], names_conditions(summary)
    rows = []
    for row in summary["rows"]:
        if row["n"]:
            seen = epochs_of(summary, row["arm"]) * data["train"]["examples"]
            rate = f"{seen / row['seconds']:,.0f}" if row["seconds"] else "—"
            memory = f"{row['peak_memory'] / 2**20:,.0f} MiB"
            cells = [f"{row['seconds']:,.1f}", rate, memory]
            rows.append([*[row["condition"]] * several, title(summary, row["arm"]), *cells])
    return [*[CONDITION] * several, "arm", "seconds", "examples per second", "peak memory"], rows


def parts_title(summary: Mapping[str, Any]) -> str:
    """Return the head of the column with the parts of the intervals."""
    return "splits, examples" if summary["settings"]["splits"] > 1 else "seeds, examples"


def _parts(summary: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    if found is None or found["seeds"] is None:
        return "—"
    numbers = (found["seeds"], found["examples"])
    name = summary["metric"]
    return ", ".join(
        f"±{value(summary, name, one, half=one)}" for one in numbers if one is not None
    )
