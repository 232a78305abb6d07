"""The answer of a study in words, and its rows as words: what every form of a report shares."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Line(NamedTuple):
    """One row of the table, in words."""

    condition: str
    arm: str
    accuracy: str
    difference: str
    verdict: str
    memorised: str
    seeds: str
    seconds: str


class PublishedLine(NamedTuple):
    """One row of the table of published numbers, in words."""

    arm: str
    epochs: str
    published: str
    ours: str
    source: str


PUBLISHED = "Published, beside ours"
PUBLISHED_HEADING = PublishedLine("arm", "epochs", "published, %", "ours, %", "source")
PUBLISHED_CAPTION = (
    "Published numbers come from other hardware, versions and schedules; only equal numbers of "
    "epochs are set side by side, with true labels."
)
DIFFERENCES = "Known differences from the published runs:"


def heading(summary: Mapping[str, Any]) -> Line:
    """Return the words at the head of the table."""
    baseline = title(summary, summary["settings"]["baseline"])
    return Line(
        "training labels",
        "arm",
        "test accuracy, %",
        f"difference to {baseline}",
        "verdict",
        "wrong labels learned, %",
        "seeds",
        "seconds",
    )


def lines(summary: Mapping[str, Any]) -> list[Line]:
    """Return the table of a study in words; intervals are of 95 %."""
    return [
        Line(
            row["condition"],
            title(summary, row["arm"]),
            _with_interval(row["accuracy"], row["low"], row["high"]),
            "—"
            if row["difference"] is None
            else _with_interval(
                row["difference"], row["difference_low"], row["difference_high"], signed=True
            ),
            row["verdict"] or "baseline",
            "—" if row["memorised"] is None else f"{row['memorised']:.1f}",
            str(row["n"]),
            f"{row['seconds']:.1f}",
        )
        for row in summary["rows"]
    ]


def published_lines(summary: Mapping[str, Any]) -> list[PublishedLine]:
    """Return what others have published beside what was measured; empty where there is nothing."""
    return [
        PublishedLine(
            row["title"],
            f"{row['epochs']:,}",
            "—" if row["accuracy"] is None else str(row["accuracy"]),
            _ours(row),
            row["source"],
        )
        for row in summary.get("published", [])
    ]


def differences(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences on what is known to differ from the published runs."""
    return list(summary["settings"].get("differs", []))


def title(summary: Mapping[str, Any], arm: str) -> str:
    """Return what a recipe calls an arm."""
    return str(summary["settings"]["arms"][arm]["title"])


def answer(summary: Mapping[str, Any]) -> str:
    """Return the answer of a study in one sentence: for each condition, what may be said."""
    conditions = list(dict.fromkeys(row["condition"] for row in summary["rows"]))
    parts = [_part(summary, condition) for condition in conditions]
    parts.sort(key=lambda part: part[0])
    sentence = "; ".join(words for _, words in parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def caption(summary: Mapping[str, Any]) -> str:
    """Return what has to be known to read the table."""
    seeds = summary["settings"]["seeds"]
    if seeds == 1:
        return "One seed: no interval, and without one no evidence; run with --seeds 3 or more."
    return (
        f"Means over {seeds} seeds with 95 % intervals (Student's t). A difference is taken seed "
        "by seed; a verdict needs an interval that excludes zero. The intervals cover the chance "
        "of training (first weights, order, mixing), not the choice of test examples."
    )


def _part(summary: Mapping[str, Any], condition: str) -> tuple[int, str]:
    """Return what one condition has to say, after a number that puts the news first."""
    place = condition if condition.endswith("labels") else f"{condition} labels"
    rows = [row for row in summary["rows"] if row["condition"] == condition]
    others = [row for row in rows if row["difference"] is not None]
    if not others:
        return 3, f"with {place} there is nothing to compare"
    base = next(row for row in rows if row["difference"] is None)
    for order, word in enumerate(("better", "worse")):
        judged = [row for row in others if row["verdict"] == word]
        if judged:
            row = max(judged, key=lambda row: abs(row["difference"]))
            return order, (
                f"with {place} {title(summary, row['arm'])} is {word} than "
                f"{title(summary, base['arm'])}: {row['accuracy']:.1f} % of the test examples "
                f"right against {base['accuracy']:.1f} %, {_points(row)}"
            )
    row = max(others, key=lambda row: abs(row["difference"]))
    return 2, (
        f"with {place} there is no evidence of a difference (the largest, {_points(row)}, is that "
        f"of {title(summary, row['arm'])})"
    )


def _points(row: Mapping[str, Any]) -> str:
    points = f"{_sign(row['difference'])} points"
    if row["difference_low"] is None:
        return f"{points} with one seed"
    low, high = _sign(row["difference_low"]), _sign(row["difference_high"])
    return f"{points} with a 95 % interval from {low} to {high}"


def _ours(row: Mapping[str, Any]) -> str:
    """Return what was measured beside a published row, with a digit more than in the table."""
    if row["measured"] is None:
        return "—"
    if row["low"] is None or row["high"] is None:
        return f"{row['measured']:.2f} (n = {row['n']}, no interval)"
    interval = f"[{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['measured']:.2f} {interval} (n = {row['n']})"


def _with_interval(
    mean: float, low: float | None, high: float | None, *, signed: bool = False
) -> str:
    show = _sign if signed else _plain
    return (
        show(mean) if low is None or high is None else f"{show(mean)} [{show(low)}, {show(high)}]"
    )


def _plain(number: float) -> str:
    return f"{number:.1f}"


def _sign(number: float) -> str:
    return f"{number:+.1f}".replace("-", "−")
