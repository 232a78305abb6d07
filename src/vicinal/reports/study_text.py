"""The text of a study's report: its answer, captions, remarks, and the cells of its tables.

A table is a pair of its head and its rows, which are empty if there is nothing to show.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Cells = list[list[str]]

PUBLISHED_TITLE = "Published, next to ours"
PUBLISHED_CAPTION = (
    "Published numbers come from other hardware, versions and schedules. Only equal numbers of "
    "epochs with true labels are compared."
)
DIFFERENCES = "Known differences from the published runs:"
WORST_CLASSES = 10
"""How many classes the table of recalls has, those with the lowest recall first."""


def study_table(summary: Mapping[str, Any]) -> tuple[Sequence[str], Cells]:
    """Return the table of the study; intervals are 95% intervals."""
    baseline, seeds = (summary["settings"][key] for key in ("baseline", "seeds"))
    return (
        "training labels",
        "arm",
        "test accuracy, %",
        f"difference from {title(summary, baseline)}",
        "verdict",
        "wrong labels learned, %",
        "seeds",
        "seconds",
    ), [
        [
            row["condition"],
            title(summary, row["arm"]),
            _interval(row["accuracy"], row["low"], row["high"], "{:.1f}"),
            _interval(row["difference"], row["difference_low"], row["difference_high"], "{:+.1f}"),
            row["verdict"] or ("baseline" if row["arm"] == baseline else "—"),
            "—" if row["memorized"] is None else f"{row['memorized']:.1f}",
            f"{row['n']} of {seeds}" if row.get("failed") else str(row["n"]),
            "—" if row["seconds"] is None else f"{row['seconds']:.1f}",
        ]
        for row in summary["rows"]
    ]


def published_table(summary: Mapping[str, Any]) -> tuple[Sequence[str], Cells]:
    """Return the table of published rows next to ours."""
    return ("arm", "epochs", "published, %", "ours, %", "source"), [
        [
            row["title"],
            f"{row['epochs']:,}",
            "—" if row["accuracy"] is None else str(row["accuracy"]),
            _interval(row["measured"], row["low"], row["high"], "{:.2f}")
            + ("" if row["n"] is None else f" (n = {row['n']}{', no interval' * (row['n'] < 2)})"),
            row["source"],
        ]
        for row in summary.get("published", [])
    ]


def split_table(summary: Mapping[str, Any]) -> tuple[Sequence[str], Cells]:
    """Return the table of the splits, without rows if the results did not record their data."""
    data = summary.get("data", {})
    rows = []
    for name, text in (("train", "training"), ("validation", "validation"), ("test", "test")):
        if name in data:
            split = data[name]
            counts = sorted(zip(split["of_each_class"], data["classes"], strict=True))
            ends = [f"{label} ({count:,})" for count, label in (counts[0], counts[-1])]
            rows.append([text, f"{split['examples']:,}", f"{split['skipped']:,}", *ends])
    return ("split", "examples", "skipped", "smallest class", "largest class"), rows


def recall_table(summary: Mapping[str, Any]) -> tuple[Sequence[str], Cells]:
    """Return the table of the classes with the lowest recall."""
    rows = [row for row in summary["rows"] if row.get("recall")]
    if not rows:
        return [], []
    classes, test = summary["data"]["classes"], summary["data"]["test"]["of_each_class"]
    known = [k for k, count in enumerate(test) if count]
    worst = sorted(known, key=lambda k: min(row["recall"][k] for row in rows))[:WORST_CLASSES]
    several = len({row["condition"] for row in rows}) > 1
    head = [
        title(summary, row["arm"]) + (f", {row['condition']}" if several else "") for row in rows
    ]
    return ["class", "test examples", *head], [
        [classes[k], f"{test[k]:,}", *(f"{row['recall'][k]:.1f}" for row in rows)] for k in worst
    ]


def title(summary: Mapping[str, Any], arm: str) -> str:
    """Return the recipe's title of an arm."""
    return str(summary["settings"]["arms"][arm]["title"])


def answer(summary: Mapping[str, Any]) -> str:
    """Return the answer of a study: a sentence for each condition, those with a verdict first."""
    conditions = dict.fromkeys(row["condition"] for row in summary["rows"])
    found = [_answer_under(summary, condition) for condition in conditions]
    return " ".join(sentence for _, sentence in sorted(found, key=lambda pair: pair[0]))


def caption(summary: Mapping[str, Any]) -> str:
    """Return how to read the table."""
    seeds = summary["settings"]["seeds"]
    if seeds == 1:
        return (
            "One seed gives no interval, and without one there is no evidence. Run with --seeds 3 "
            "or more."
        )
    return (
        f"Means over {seeds} seeds with 95% intervals (Student's t). Differences are taken seed "
        "by seed, and a verdict requires an interval that excludes zero. The intervals cover the "
        "randomness of training (initial weights, data order, mixing), not the choice of test "
        "examples."
    )


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table: warnings, then the accuracy of a constant."""
    found = [f"Warning: {text}." for text in summary.get("verdict_problems", ())]
    for row in summary["rows"]:
        name = f"{title(summary, row['arm'])}, {row['condition']}"
        for one in row.get("failed", ()):
            found.append(f"Failed: {name}, seed {one['seed']}: {one['reason']}.")
        if row.get("withheld"):
            found.append(f"No verdict on {name}: {row['withheld']}.")
        never = [k for k, recall in enumerate(row.get("recall") or []) if recall == 0]
        if never:
            classes = ", ".join(summary["data"]["classes"][k] for k in never[:5])
            more = f" and {len(never) - 5} more" if len(never) > 5 else ""
            found.append(f"Warning: {name}: never correct for class {classes}{more}.")
    if constant := summary.get("constant"):
        found.append(
            f"Always predicting “{constant['class']}”, the most frequent training class, is "
            f"correct for {constant['accuracy']:.1f}% of the test examples."
        )
    return found


def data_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences on the classes and the data; doubtful ones are warnings."""
    data = summary["data"]
    classes = data["classes"]
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    return [
        f"{len(classes)} classes: {', '.join(classes[:20])}{more}.",
        *(f"{'Warning: ' * doubtful}{text}" for text, doubtful in data["notes"]),
    ]


def _answer_under(summary: Mapping[str, Any], condition: str) -> tuple[int, str]:
    """Return the sentence on one condition, after a number that puts verdicts first."""
    labels = condition if condition.endswith("labels") else f"{condition} labels"
    rows = {row["arm"]: row for row in summary["rows"] if row["condition"] == condition}
    base = rows.pop(summary["settings"]["baseline"])
    if not rows:
        return 4, f"With {labels}, there is nothing to compare."
    for order, verdict in enumerate(("better", "worse")):
        if row := _largest(rows.values(), verdict):
            return order, (
                f"With {labels}, {title(summary, row['arm'])} is {verdict} than "
                f"{title(summary, base['arm'])}: test accuracy {row['accuracy']:.1f}% versus "
                f"{base['accuracy']:.1f}%, a difference of {_points(row)}."
            )
    if row := _largest(rows.values(), "no evidence"):
        return 3, (
            f"With {labels}, there is no evidence of a difference: the largest, of "
            f"{title(summary, row['arm'])}, is {_points(row)}."
        )
    row = next(iter(rows.values()))
    return 2, (
        f"With {labels}, there is no verdict on {title(summary, row['arm'])}: {row['withheld']}."
    )


def _largest(rows: Iterable[Mapping[str, Any]], verdict: str) -> Mapping[str, Any] | None:
    judged = [row for row in rows if row["verdict"] == verdict]
    return max(judged, key=lambda row: abs(row["difference"]), default=None)


def _points(row: Mapping[str, Any]) -> str:
    points = _number(row["difference"], "{:+.1f}") + " points"
    if row["difference_low"] is None:
        return f"{points} (one seed)"
    low, high = (_number(row[f"difference_{end}"], "{:+.1f}") for end in ("low", "high"))
    return f"{points} (95% interval {low} to {high})"


def _interval(mean: float | None, low: float | None, high: float | None, form: str) -> str:
    if mean is None:
        return "—"
    if low is None or high is None:
        return _number(mean, form)
    return f"{_number(mean, form)} [{_number(low, form)}, {_number(high, form)}]"


def _number(number: float, form: str) -> str:
    return form.format(number).replace("-", "−")
