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
    memorized: str
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
            "—"
            if row["accuracy"] is None
            else _with_interval(row["accuracy"], row["low"], row["high"]),
            "—"
            if row["difference"] is None
            else _with_interval(
                row["difference"], row["difference_low"], row["difference_high"], signed=True
            ),
            row["verdict"] or ("baseline" if row["arm"] == _baseline(summary) else "—"),
            "—" if row["memorized"] is None else f"{row['memorized']:.1f}",
            f"{row['n']} of {summary['settings']['seeds']}" if row.get("failed") else str(row["n"]),
            "—" if row["seconds"] is None else f"{row['seconds']:.1f}",
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
    return list(summary["settings"].get("known_differences", []))


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


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences that belong under the table: warnings first, then what to compare with."""
    found = [f"Warning: {text}." for text in summary.get("verdict_problems", ())]
    for row in summary["rows"]:
        name = f"{title(summary, row['arm'])}, {row['condition']}"
        for one in row.get("failed", ()):
            found.append(f"Failed: {name}, seed {one['seed']}: {one['reason']}.")
        if row.get("withheld"):
            found.append(f"No verdict on {name}: {row['withheld']}.")
        if missed := _never_right(summary, row):
            more = f" and {len(missed) - 5} more" if len(missed) > 5 else ""
            found.append(
                f"Warning: {name}: no example of class {', '.join(missed[:5])}{more} is answered "
                "right."
            )
    if constant := summary.get("constant"):
        found.append(
            f"Always answering “{constant['class']}”, the most frequent training class, is right "
            f"for {constant['accuracy']:.1f} % of the test examples."
        )
    return found


def _never_right(summary: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    recalls = row.get("recall") or []
    return [summary["data"]["classes"][k] for k, recall in enumerate(recalls) if recall == 0]


class SplitLine(NamedTuple):
    """One split of the data, in words."""

    split: str
    examples: str
    skipped: str
    smallest: str
    largest: str


SPLITS = SplitLine("split", "examples", "skipped", "smallest class", "largest class")


def split_lines(summary: Mapping[str, Any]) -> list[SplitLine]:
    """Return the splits of the data in words; empty where results did not record them."""
    data = summary.get("data", {})
    found = []
    for name, words in (("train", "training"), ("validation", "validation"), ("test", "test")):
        if name in data:
            split = data[name]
            counted = sorted(zip(split["of_each_class"], data["classes"], strict=True))
            ends = [f"{one} ({count:,})" for count, one in (counted[0], counted[-1])]
            found.append(SplitLine(words, f"{split['examples']:,}", f"{split['skipped']:,}", *ends))
    return found


def data_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return the classes and the notes of the data as sentences, doubtful ones as warnings."""
    data = summary.get("data")
    if not data:
        return []
    classes = data["classes"]
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    return [
        f"{len(classes)} classes: {', '.join(classes[:20])}{more}.",
        *(f"{'Warning: ' * doubtful}{text}" for text, doubtful in data["notes"]),
    ]


WORST = 10
"""How many classes the page lists, those with the lowest recall first."""


def recall_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the recalls of the classes that are answered worst, as a heading and rows of words."""
    rows = [row for row in summary["rows"] if row.get("recall")]
    if not rows:
        return [], []
    classes, test = summary["data"]["classes"], summary["data"]["test"]["of_each_class"]
    known = [k for k, count in enumerate(test) if count]
    worst = sorted(known, key=lambda k: min(row["recall"][k] for row in rows))[:WORST]
    several = len({row["condition"] for row in rows}) > 1
    head = [
        title(summary, row["arm"]) + (f", {row['condition']}" if several else "") for row in rows
    ]
    return ["class", "test examples", *head], [
        [classes[k], f"{test[k]:,}", *(f"{row['recall'][k]:.1f}" for row in rows)] for k in worst
    ]


def _baseline(summary: Mapping[str, Any]) -> str:
    return str(summary["settings"]["baseline"])


def _part(summary: Mapping[str, Any], condition: str) -> tuple[int, str]:
    """Return what one condition has to say, after a number that puts the news first."""
    place = condition if condition.endswith("labels") else f"{condition} labels"
    rows = [row for row in summary["rows"] if row["condition"] == condition]
    others = [row for row in rows if row["arm"] != _baseline(summary)]
    if not others:
        return 4, f"with {place} there is nothing to compare"
    base = next(row for row in rows if row["arm"] == _baseline(summary))
    for order, word in enumerate(("better", "worse")):
        judged = [row for row in others if row["verdict"] == word]
        if judged:
            row = max(judged, key=lambda row: abs(row["difference"]))
            return order, (
                f"with {place} {title(summary, row['arm'])} is {word} than "
                f"{title(summary, base['arm'])}: {row['accuracy']:.1f} % of the test examples "
                f"right against {base['accuracy']:.1f} %, {_points(row)}"
            )
    judged = [row for row in others if row["verdict"] == "no evidence"]
    if not judged:
        row = others[0]
        return 2, (
            f"with {place} there is no verdict on {title(summary, row['arm'])}: {row['withheld']}"
        )
    row = max(judged, key=lambda row: abs(row["difference"]))
    return 3, (
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
