"""The text of a study's report: its answer, captions, remarks, and the cells of its tables.

A table is a pair of its head and its rows, which are empty if there is nothing to show.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Cells = list[list[str]]
Table = tuple[Sequence[str], Cells]

PUBLISHED_TITLE = "Published, next to ours"
PUBLISHED_CAPTION = (
    "Published numbers come from other hardware, versions and schedules. Only equal numbers of "
    "epochs with true labels are compared."
)
DIFFERENCES = "Known differences from the published runs:"
WORST_CLASSES = 10
"""How many classes the table of recalls has, those with the lowest recall first."""


def study_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of the metric that decides; intervals are 95% intervals.

    Columns that would be empty are left out.
    """
    name, baseline = summary["metric"], summary["settings"]["baseline"]
    trials = summary["settings"]["seeds"] * summary["settings"]["splits"]
    columns: dict[str, list[str]] = {}
    if len(conditions(summary)) > 1:
        columns["training labels"] = [row["condition"] for row in summary["rows"]]
    metrics = [row["metrics"][name] for row in summary["rows"]]
    differences = [metric["difference"] for metric in metrics]
    columns |= {
        "arm": [title(summary, row["arm"]) for row in summary["rows"]],
        f"test {metric_title(summary, name)}": [interval(summary, name, one) for one in metrics],
        f"difference from {title(summary, baseline)}": [
            interval(summary, name, one, sign=True) for one in differences
        ],
        parts_title(summary): [_parts(summary, one) for one in differences],
        "verdict": [
            row["verdict"] or ("baseline" if row["arm"] == baseline else "—")
            for row in summary["rows"]
        ],
        "best epoch": [
            "" if row["best"] is None else value(summary, name, row["best"])
            for row in summary["rows"]
        ],
        "wrong labels learned, %": [
            "" if row["memorized"] is None else f"{row['memorized']:.1f}" for row in summary["rows"]
        ],
        "trials": [
            f"{row['n']} of {trials}" if row["failed"] else str(row["n"]) for row in summary["rows"]
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
    several = len(conditions(summary)) > 1
    rows = []
    for row in summary["rows"] if names else ():
        cells = [row["condition"]] * several + [title(summary, row["arm"])]
        for name in names:
            found = row["metrics"][name]
            cells += [
                interval(summary, name, found),
                interval(summary, name, found["difference"], sign=True),
            ]
        rows.append(cells)
    if rows:
        constant = [value(summary, name, summary["constant"][name]) for name in names]
        padded = [cell for one in constant for cell in (one, "—")]
        rows.append([*["—"] * several, "constant prediction", *padded])
    heads = [head for name in names for head in (metric_title(summary, name), "difference")]
    return [*["training labels"] * several, "arm", *heads], rows


def published_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of published rows next to ours."""
    return ("arm", "epochs", "published, %", "ours, %", "source"), [
        [
            row["title"],
            f"{row['epochs']:,}",
            "—" if row["accuracy"] is None else str(row["accuracy"]),
            _bracketed(row["measured"], row["low"], row["high"], "{:.2f}")
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
    ends = ["smallest class", "largest class"] if data["classes"] else []
    return ["split", "examples", "skipped", *ends], rows


def recall_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of the classes with the lowest recall, and its changes with intervals."""
    rows = [row for row in summary["rows"] if row["n"] and any(row["recall"])]
    if not rows:
        return [], []
    classes, test = summary["data"]["classes"], summary["data"]["test"]["of_each_class"]
    known = [k for k in range(len(classes)) if all(row["recall"][k] for row in rows)]
    lowest = {k: min(row["recall"][k]["value"] for row in rows) for k in known}
    several = len(conditions(summary)) > 1
    head = [
        title(summary, row["arm"]) + (f", {row['condition']}" if several else "") for row in rows
    ]
    cells = []
    for k in sorted(known, key=lambda k: lowest[k])[:WORST_CLASSES]:
        found = [row["recall"][k] for row in rows]
        cells.append(
            [
                classes[k],
                f"{test[k]:,}",
                *(
                    f"{one['value']:.1f}"
                    if one["difference"] is None
                    else f"{one['value']:.1f} "
                    f"({interval(summary, 'accuracy', one['difference'], sign=True)})"
                    for one in found
                ),
            ]
        )
    return ["class", "test examples", *head], cells


def conditions(summary: Mapping[str, Any]) -> list[str]:
    """Return the conditions of a study, each once."""
    return list(dict.fromkeys(row["condition"] for row in summary["rows"]))


def title(summary: Mapping[str, Any], arm: str) -> str:
    """Return the recipe's title of an arm."""
    return str(summary["settings"]["arms"][arm]["title"])


def metric_title(summary: Mapping[str, Any], name: str) -> str:
    """Return the title of a metric with its unit."""
    metric = summary["metrics"][name]
    return f"{metric['title']}, %" if metric["percent"] else str(metric["title"])


def parts_title(summary: Mapping[str, Any]) -> str:
    """Return the head of the column with the parts of the intervals."""
    return "splits" if summary["settings"]["splits"] > 1 else "seeds, examples"


def value(
    summary: Mapping[str, Any], name: str, number: float | None, *, sign: bool = False
) -> str:
    """Return a value of a metric as text, without its unit."""
    if number is None:
        return "—"
    form = ".1f" if summary["metrics"][name]["percent"] else ".4g"
    return f"{number:{'+' * sign}{form}}".replace("-", "−")


def interval(
    summary: Mapping[str, Any], name: str, found: Mapping[str, Any] | None, *, sign: bool = False
) -> str:
    """Return a value of a metric with its interval as text."""
    if found is None or found["value"] is None:
        return "—"
    ends = (value(summary, name, found[end], sign=sign) for end in ("low", "high"))
    mean = value(summary, name, found["value"], sign=sign)
    return mean if found["low"] is None else f"{mean} [{', '.join(ends)}]"


def _parts(summary: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    if found is None or found["seeds"] is None:
        return "—"
    numbers = (found["seeds"], found["examples"])
    name = summary["metric"]
    return ", ".join(f"±{value(summary, name, one)}" for one in numbers if one is not None)


def answer(summary: Mapping[str, Any]) -> str:
    """Return the answer of a study: a sentence for each condition, those with a verdict first."""
    found = [_answer_under(summary, condition) for condition in conditions(summary)]
    return " ".join(sentence for _, sentence in sorted(found, key=lambda pair: pair[0]))


def caption(summary: Mapping[str, Any]) -> str:
    """Return how to read the table."""
    seeds, splits = (summary["settings"][key] for key in ("seeds", "splits"))
    if seeds * splits == 1:
        return (
            "One seed gives no interval, and without one there is no verdict. Run with --seeds 3 "
            "or more."
        )
    if splits > 1:
        return (
            f"Means over {splits} splits of the data{f' with {seeds} seeds each' * (seeds > 1)}, "
            "with 95% intervals that allow for overlapping training sets (Nadeau and Bengio)."
        )
    return (
        f"Means over {seeds} seeds with 95% intervals, which cover other seeds and other test "
        "examples. Verdicts are adjusted for the number of comparisons (Holm)."
    )


def parts_caption(summary: Mapping[str, Any]) -> str:
    """Return how to read the column with the parts of the intervals, or ``""``."""
    if summary["settings"]["splits"] > 1 or summary["settings"]["seeds"] == 1:
        return ""
    return (
        "“Seeds, examples” are the half widths of intervals of the difference that cover only "
        "other seeds, or only other test examples."
    )


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table: warnings, then what the study could have found."""
    found = [f"Warning: {text}." for text in summary["verdict_problems"]]
    name, several = summary["metric"], len(conditions(summary)) > 1
    for row in summary["rows"]:
        arm = title(summary, row["arm"]) + (f", {row['condition']}" if several else "")
        for one in row["failed"]:
            split = f", split {one['split']}" if one["split"] else ""
            found.append(f"Failed: {arm}, seed {one['seed']}{split}: {one['reason']}.")
        if row["withheld"]:
            found.append(f"No verdict on {arm}: {row['withheld']}.")
        if row["verdict"] == "no evidence":
            found.append(f"{arm}: {_detectable(summary, row)}")
        never = [k for k, one in enumerate(row["recall"]) if one and one["value"] == 0]
        if never:
            classes = ", ".join(summary["data"]["classes"][k] for k in never[:5])
            more = f" and {len(never) - 5} more" if len(never) > 5 else ""
            found.append(f"Warning: {arm}: never correct for class {classes}{more}.")
    constant = value(summary, name, summary["constant"][name])
    what = summary.get("constant_class")
    found.append(
        f"A constant prediction{f' (“{what}”, the most frequent training class)' * bool(what)} has "
        f"{metric_title(summary, name).partition(',')[0]} {constant}"
        f"{'%' * summary['metrics'][name]['percent']}."
    )
    return found


def _detectable(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the smallest difference that a study would probably have found, and what halves it."""
    name = summary["metric"]
    found = row["metrics"][name]["difference"]["detectable"]
    text = (
        f"a study of this size finds a difference of {value(summary, name, found)}"
        f"{unit(summary)} with a probability of 80%."
    )
    halve = row["to_halve"] or {"seeds": None, "examples": None}
    ways = []
    if halve["seeds"] is not None:
        ways.append(f"{halve['seeds']:,} seeds")
    if halve["examples"] is not None:
        ways.append(f"{halve['examples']:,} test examples")
    if ways:
        return f"{text} It would take {' or '.join(ways)} to halve that."
    return (
        f"{text} To halve that, raise seeds and test examples together." * bool(row["to_halve"])
        or text
    )


def unit(summary: Mapping[str, Any]) -> str:
    """Return the unit of a difference in the metric that decides, after a space."""
    return " points" if summary["metrics"][summary["metric"]]["percent"] else ""


def data_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences on the classes and the data; doubtful ones are warnings."""
    data = summary["data"]
    classes = data["classes"]
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    return [
        *([f"{len(classes)} classes: {', '.join(classes[:20])}{more}."] if classes else []),
        *(f"{'Warning: ' * doubtful}{text}" for text, doubtful in data["notes"]),
    ]


def _answer_under(summary: Mapping[str, Any], condition: str) -> tuple[int, str]:
    """Return the sentence on one condition, after a number that puts verdicts first."""
    labels = condition if condition.endswith("labels") else f"{condition} labels"
    several = len(conditions(summary)) > 1
    start = f"With {labels}, " if several else ""
    rows = {row["arm"]: row for row in summary["rows"] if row["condition"] == condition}
    base = rows.pop(summary["settings"]["baseline"])
    if not rows:
        return 5, _capital(f"{start}there is nothing to compare.")
    name, baseline = summary["metric"], title(summary, base["arm"])
    percent = "%" * summary["metrics"][name]["percent"]
    for order, verdict in enumerate(("better", "worse")):
        if row := _largest(summary, rows.values(), verdict):
            ours, theirs = (
                value(summary, name, one["metrics"][name]["value"]) + percent for one in (row, base)
            )
            return order, _capital(
                f"{start}{title(summary, row['arm'])} is {verdict} than {baseline}: test "
                f"{summary['metrics'][name]['title']} {ours} versus {theirs}, a difference of "
                f"{_difference(summary, row)}."
            )
    if row := _largest(summary, rows.values(), "no evidence"):
        return 3, _capital(
            f"{start}there is no evidence of a difference: the largest, of "
            f"{title(summary, row['arm'])}, is {_difference(summary, row)}."
        )
    if row := _largest(summary, rows.values(), "the same"):
        return 2, _capital(
            f"{start}{title(summary, row['arm'])} and {baseline} are the same within "
            f"±{summary['equivalence']:g}{unit(summary)}: the difference is "
            f"{_difference(summary, row)}."
        )
    row = next(iter(rows.values()))
    return 4, _capital(
        f"{start}there is no verdict on {title(summary, row['arm'])}: {row['withheld']}."
    )


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _largest(
    summary: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], verdict: str
) -> Mapping[str, Any] | None:
    name = summary["metric"]
    judged = [row for row in rows if row["verdict"] == verdict]
    return max(
        judged, key=lambda row: abs(row["metrics"][name]["difference"]["value"]), default=None
    )


def _difference(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    name = summary["metric"]
    found = row["metrics"][name]["difference"]
    low, high = (value(summary, name, found[end], sign=True) for end in ("low", "high"))
    mean = value(summary, name, found["value"], sign=True)
    return f"{mean}{unit(summary)} (95% interval {low} to {high})"


def _bracketed(mean: float | None, low: float | None, high: float | None, form: str) -> str:
    if mean is None:
        return "—"
    return (
        form.format(mean)
        if low is None
        else f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"
    )
