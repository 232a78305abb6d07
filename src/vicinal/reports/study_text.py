"""The sentences of a study's report: its answer, captions and remarks."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vicinal.reports.summary_values import (
    best_first,
    comparisons,
    conditions,
    half_width,
    names_conditions,
    percent_sign,
    row_title,
    rows_under,
    title,
    unit,
    value,
)
from vicinal.training.run_folder import flat
from vicinal.training.settings import merged

PUBLISHED_TITLE = "Published, next to ours"
DIFFERENCES = "Known differences from the published runs:"

LEAST_SEEDS = 3
"""With fewer, what a study could have found is not stated: it varies too much."""

_MOSTLY_ONE_CLASS = 80.0
"""The accuracy of a constant prediction, in percent, from which other metrics are proposed."""

_OF_PREDICTED_CLASSES = ("accuracy", "balanced-accuracy", "macro-f1")
"""Metrics for which a constant prediction is the most frequent class; others use frequencies."""

_ADJUSTED = "Verdicts are adjusted for the number of comparisons (Holm)."

_MOST = 5
"""How many names, or sentences of one kind, are listed."""


def answer(summary: Mapping[str, Any]) -> str:
    """Return the answer of a study: a sentence for each condition, those with a verdict first."""
    return " ".join(sentence for _, sentence, _ in _answers(summary))


def first_condition(summary: Mapping[str, Any]) -> str:
    """Return the condition that the answer starts with, which details are shown of."""
    return _answers(summary)[0][2]


def _answers(summary: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    found = [(*_answer_under(summary, one), one) for one in conditions(summary)]
    return sorted(found, key=lambda answer: answer[0])


def published_caption(summary: Mapping[str, Any]) -> str:
    """Return how to read the table of published rows."""
    labels = " with true labels" if names_conditions(summary) else ""
    return (
        "Published numbers come from other hardware, versions and schedules. Only equal numbers of "
        f"epochs{labels} are compared."
    )


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
            "with 95% intervals that allow for overlapping training sets (Nadeau and Bengio). "
            f"{_ADJUSTED}"
        )
    return (
        f"Means over {seeds} seeds with 95% intervals, which cover other seeds and other test "
        f"examples. {_ADJUSTED}"
    )


def parts_caption(summary: Mapping[str, Any]) -> str:
    """Return how to read the column with the parts of the intervals, or ``""``."""
    name = summary["metric"]
    found = [row["metrics"][name]["difference"] for row in summary["rows"]]
    if not any(one and one["seeds"] is not None for one in found):
        return ""
    least = ""
    if summary["metrics"][name]["percent"]:
        least = " No interval is narrower than what about three more test examples could change."
    if summary["settings"]["splits"] > 1:
        return (
            "“Splits, examples” has the half widths of an interval of the difference over the "
            f"splits, and of one over all test examples; the wider one is shown.{least}"
        )
    return (
        "“Seeds, examples” has the half widths that the interval of the difference would have if "
        f"only the seeds, or only the test examples, varied.{least}"
    )


def best_caption(summary: Mapping[str, Any]) -> str:
    """Return how to read the column of the best epoch, or ``""`` without a validation split."""
    if all(row["best"] is None for row in summary["rows"]):
        return ""
    return (
        "Results are those of the last epoch. “At the best epoch” is the test metric after the "
        "epoch with the best metric on the validation split."
    )


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table: warnings, then what the study could have found."""
    found = [f"Warning: {text}." for text in summary["verdict_problems"]]
    settings = summary["settings"]
    found += [*reservations(summary), *_other_differences(summary)]
    rows = [(row_title(summary, row), row) for row in summary["rows"]]
    for arm, row in rows:
        found += _failures(arm, row, settings["splits"])
        if missing := settings["seeds"] * settings["splits"] - row["n"] - len(row["failed"]):
            trials = "1 trial has" if missing == 1 else f"{missing} trials have"
            found.append(f"Not finished: {arm}: {trials} no result yet.")
        never = [k for k, one in enumerate(row["recall"]) if one and one["value"] == 0]
        if never:
            classes = ", ".join(summary["data"]["classes"][k] for k in never[:5])
            more = f" and {len(never) - 5} more" if len(never) > 5 else ""
            several = "es" * (len(never) > 1)
            found.append(f"Warning: {arm}: never correct for class{several} {classes}{more}.")
    withheld: dict[str, list[str]] = {}
    for arm, row in rows:
        if row["withheld"]:
            withheld.setdefault(row["withheld"], []).append(arm)
    found += [f"No verdict on {_listed(arms)}: {why}." for why, arms in withheld.items()]
    found += [*_widened(summary), *_without_evidence(summary, rows)]
    name = summary["metric"]
    what = summary.get("constant_class") if name in _OF_PREDICTED_CLASSES else None
    constant = value(summary, name, summary["constant"][name])
    found.append(
        f"A constant prediction{f' (always “{what}”)' * bool(what)} has "
        f"{summary['metrics'][name]['title']} {constant}{percent_sign(summary, name)}."
    )
    if name == "accuracy" and (summary["constant"][name] or 0) >= _MOSTLY_ONE_CLASS:
        found.append(
            "With so many examples of one class, other metrics tell more: compare arms by "
            "--metric auroc or --metric balanced-accuracy, in another folder."
        )
    return found


def reservations(summary: Mapping[str, Any]) -> list[str]:
    """Return what the results of a study leave out, a sentence each."""
    found = _shortened(summary["settings"])
    if count := summary.get("unprobed"):
        trials = "1 trial are" if count == 1 else f"{count} trials are"
        found.append(f"The probes of {trials} not measured yet: run vicinal study again.")
    if count := summary.get("left_out"):
        trials = "1 finished trial is" if count == 1 else f"{count} finished trials are"
        found.append(
            f"Warning: {trials} left out, since the recipe has fewer seeds. Choosing the number "
            "of seeds by the results makes intervals and verdicts wrong."
        )
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ("; " if any("," in name for name in names) else ", ").join(names[:_MOST])
    return f"{shown} and {len(names) - _MOST} more" if len(names) > _MOST else shown


def _failures(arm: str, row: Mapping[str, Any], splits: int) -> list[str]:
    """Return a sentence for each reason why trials of an arm failed."""
    reasons: dict[str, list[str]] = {}
    for one in row["failed"]:
        split = f" of split {one['split']}" if splits > 1 else ""
        reasons.setdefault(one["reason"], []).append(f"{one['seed']}{split}")
    return [
        f"Failed: {arm}, seed{'s' * (len(seeds) > 1)} {_listed(seeds)}: {reason.rstrip('.')}."
        for reason, seeds in reasons.items()
    ]


def _without_evidence(
    summary: Mapping[str, Any], rows: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """Return what differences the study could have found for arms without evidence of one."""
    rows = [(arm, row) for arm, row in rows if row["verdict"] == "no evidence"]
    if len(rows) <= _MOST:
        return [f"{arm}: {_detectable(summary, row)}" for arm, row in rows]
    name = summary["metric"]
    found = sorted(
        detectable
        for _, row in rows
        if not _too_few_seeds(summary, row)
        and (detectable := row["metrics"][name]["difference"]["detectable"])
    )
    if not found:
        if any(_too_few_seeds(summary, row) for _, row in rows):
            return ["Two seeds are too few to tell which differences such a study would detect."]
        return ["The outputs of arms without evidence of a difference are those of the baseline."]
    least, most = (value(summary, name, one) for one in (found[0], found[-1]))
    return [
        f"For the {len(rows)} comparisons without evidence, a study of this size detects true "
        f"differences of {least} to {most}{unit(summary)}, depending on the arm, with a "
        "probability of 80%."
    ]


def _other_differences(summary: Mapping[str, Any]) -> list[str]:
    """Return in what else than mixing arms differ from the baseline."""
    settings, found = summary["settings"], []
    own = {
        arm: flat({"training": merged(settings["training"], one["training"])})
        | {"augment": one.get("augment", ())}
        for arm, one in settings["arms"].items()
    }
    first = own[settings["baseline"]]
    for arm, one in own.items():
        names = sorted(k for k in one.keys() | first.keys() if one.get(k) != first.get(k))
        if names:
            found.append(
                f"{title(summary, arm)} also differs from {title(summary, settings['baseline'])} "
                f"in {_listed(names)}."
            )
    return found


def _shortened(settings: Mapping[str, Any]) -> list[str]:
    """Return what a study lacks to fit into the minutes, and still lacks."""
    whole = settings.get("shortened")
    if not whole:
        return []
    now = {**settings, "epochs": settings["training"]["epochs"]}
    cuts = [
        f"{now[name]} {name if now[name] > 1 else name[:-1]} instead of {whole[name]}"
        for name in ("seeds", "epochs", "splits")
        if now[name] < whole[name]
    ]
    if not cuts:
        return []
    return [
        f"Warning: this study has {_listed(cuts)}, which its generated recipe would have without "
        f"--minutes {whole['minutes']:g}. Longer training and more test examples may change the "
        "answer."
    ]


def _widened(summary: Mapping[str, Any]) -> list[str]:
    """Return why intervals are wider than what seeds and test examples alone would make them."""
    name = summary["metric"]
    for row in summary["rows"]:
        found = row["metrics"][name]["difference"]
        if found and found["seeds"] is not None and summary["metrics"][name]["percent"]:
            half = (found["high"] - found["low"]) / 2
            if half > 2 * max(found["seeds"], found["examples"]):
                return [
                    "Some intervals are wider than seeds and test examples alone would make them, "
                    "since no interval is narrower than what about three more test examples could "
                    "change. More test examples narrow them."
                ]
    return []


def _too_few_seeds(summary: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return row["n"] < LEAST_SEEDS and bool(summary["settings"]["splits"] == 1)


def _detectable(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the smallest difference that a study would probably have found, and what halves it."""
    name = summary["metric"]
    found = row["metrics"][name]["difference"]["detectable"]
    if _too_few_seeds(summary, row):
        return "two seeds are too few to tell which difference such a study would detect."
    if not found:
        return "all of its outputs for the test examples are those of the baseline."
    text = (
        f"a study of this size detects a true difference of {value(summary, name, found)}"
        f"{unit(summary)} with a probability of 80%"
    )
    metric = summary["metrics"][name]
    base = rows_under(summary, row["condition"])[summary["settings"]["baseline"]]
    room = 100 - base["metrics"][name]["value"] if metric["percent"] and metric["higher"] else found
    if room < found:
        text += f", but at most {value(summary, name, room)} points can be gained"
    if room < found / 2:
        return f"{text}. It needs more seeds or test examples to find any gain."
    text += "."
    if summary["settings"]["splits"] > 1:
        more = "about four times as many examples"
        return f"{text} To detect half of that difference would take {more}."
    halve = row["to_halve"] or {"seeds": None, "examples": None}
    ways = []
    if halve["seeds"] is not None:
        ways.append(f"{halve['seeds']:,} seeds instead of {row['n']:,}")
    if halve["examples"] is not None:
        now = summary["data"]["test"]["examples"]
        ways.append(f"{halve['examples']:,} test examples instead of {now:,}")
    if ways:
        return f"{text} To detect half of that difference would take {', or '.join(ways)}."
    return (
        f"{text} To detect half of that difference, raise seeds and test examples together."
        * bool(row["to_halve"])
        or text
    )


def data_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return sentences on the classes and the data; doubtful ones are warnings."""
    data = summary["data"]
    classes = data["classes"]
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    what = "labels" if summary["task"] == "multi-label" else "classes"
    splits = summary["settings"]["splits"]
    first = [f"Numbers of examples are those of the first of {splits} splits."] * (splits > 1)
    return [
        *([f"{len(classes)} {what}: {', '.join(classes[:20])}{more}."] if classes else []),
        *first,
        *(f"{'Warning: ' * doubtful}{text}" for text, doubtful in data["notes"]),
    ]


def _answer_under(summary: Mapping[str, Any], condition: str) -> tuple[int, str]:
    """Return the sentence on one condition, after a number that puts verdicts first."""
    labels = condition if condition.endswith("labels") else f"{condition} labels"
    start = f"With {labels}, " if names_conditions(summary) else ""
    rows = rows_under(summary, condition)
    base = rows.pop(summary["settings"]["baseline"])
    if not rows:
        return 5, _capital(f"{start}there is nothing to compare.")
    name, baseline = summary["metric"], title(summary, base["arm"])
    percent = percent_sign(summary, name)
    for order, verdict in enumerate(("better", "worse")):
        if row := largest(summary, condition, verdict):
            ours, theirs = (
                value(summary, name, cell["value"], half=half_width(cell)) + percent
                for cell in (row["metrics"][name], base["metrics"][name])
            )
            return order, _capital(
                f"{start}{title(summary, row['arm'])} is {verdict} than {baseline}: test "
                f"{summary['metrics'][name]['title']} {ours} versus {theirs}, a difference of "
                f"{_difference(summary, row)}.{_direction(summary)}{_others(summary, rows, row)}"
            )
    if row := best(summary, condition, "no evidence"):
        undecided = [one for one in rows.values() if one["verdict"] == "no evidence"]
        among = f"{len(undecided)} such arms"
        if len(undecided) == len(rows):
            among = f"the {len(undecided)} other arms"
        of = f", the best of {among}," * (len(undecided) > 1)
        return 3, _capital(
            f"{start}there is no evidence of a difference from {baseline}: for "
            f"{title(summary, row['arm'])}{of} it is {_difference(summary, row)}."
            f"{_direction(summary)}"
            f"{''.join(_after_adjustment(summary, one, row) for one in undecided)}"
            f"{_others(summary, rows, row)}"
        )
    if row := largest(summary, condition, "the same"):
        return 2, _capital(
            f"{start}{title(summary, row['arm'])} and {baseline} are the same within "
            f"±{summary['equivalence']:g}{unit(summary)}: the difference is "
            f"{_difference(summary, row)}.{_others(summary, rows, row)}"
        )
    row = next(iter(rows.values()))
    return 4, _capital(
        f"{start}there is no verdict on {title(summary, row['arm'])}: {row['withheld']}."
    )


def _others(
    summary: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], named: Mapping[str, Any]
) -> str:
    """Return sentences with the verdicts on all arms but the one that is named."""
    arms: dict[str, list[str]] = {}
    for row in rows.values():
        if row is not named:
            arms.setdefault(row["verdict"], []).append(title(summary, row["arm"]))
    texts = {
        "better": "Better too: {}.",
        "worse": "Worse: {}.",
        "the same": "The same as the baseline: {}.",
        "no evidence": "No evidence of a difference: {}.",
        "withheld": "No verdict: {}.",
    }
    if named["verdict"] == "worse":
        texts["worse"] = "Worse too: {}."
    if named["verdict"] == "no evidence":
        del texts["no evidence"]  # the arm that is named is the best of them
    found = [text.format(_listed(arms[key])) for key, text in texts.items() if key in arms]
    return "".join(f" {sentence}" for sentence in found)


def _direction(summary: Mapping[str, Any]) -> str:
    """Return a sentence on a metric of which smaller values are better, or ``""``."""
    metric = summary["metrics"][summary["metric"]]
    return "" if metric["higher"] else f" A smaller {metric['title']} is better."


def _after_adjustment(
    summary: Mapping[str, Any], row: Mapping[str, Any], named: Mapping[str, Any]
) -> str:
    """Return why there is no evidence although an interval excludes zero, or ``""``."""
    found = row["metrics"][summary["metric"]]["difference"]
    if found["low"] is None or found["low"] <= 0 <= found["high"]:
        return ""
    which = "That interval" if row is named else f"The interval of {title(summary, row['arm'])}"
    return (
        f" {which} excludes zero, which is not enough for a verdict with {comparisons(summary)} "
        f"comparisons (adjusted p-value {row['p']:.2g})."
    )


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def largest(summary: Mapping[str, Any], condition: str, verdict: str) -> Mapping[str, Any] | None:
    """Return the row with the largest difference among those of a verdict, or None."""
    name, rows = summary["metric"], rows_under(summary, condition).values()
    judged = [row for row in rows if row["verdict"] == verdict]
    return max(
        judged, key=lambda row: abs(row["metrics"][name]["difference"]["value"]), default=None
    )


def best(summary: Mapping[str, Any], condition: str, verdict: str) -> Mapping[str, Any] | None:
    """Return the row with a verdict and the best metric under a condition, if any."""
    rows = rows_under(summary, condition)
    judged = {arm: row for arm, row in rows.items() if row["verdict"] == verdict}
    return judged[best_first(summary, judged)[0]] if judged else None


def _difference(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    name = summary["metric"]
    found = row["metrics"][name]["difference"]
    text = partial(value, summary, name, sign=True, half=half_width(found))
    mean, low, high = (text(found[one]) for one in ("value", "low", "high"))
    return f"{mean}{unit(summary)} (95% interval {low} to {high})"
