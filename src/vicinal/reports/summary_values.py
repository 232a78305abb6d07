"""The values of a summary as text: titles, conditions, metrics with intervals, and units."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

_LARGE, _MOST_DECIMALS = 1e9, 10
"""Numbers beyond them have an exponent."""

Summary = Mapping[str, Any]
"""A summary of ``vicinal.studies.summary.summarize``."""


def conditions(summary: Summary) -> list[str]:
    """Return the conditions of a study, each once."""
    return list(dict.fromkeys(row["condition"] for row in summary["rows"]))


def names_conditions(summary: Summary) -> bool:
    """Return whether the condition has to be named: there are several, or labels are corrupted."""
    return len(conditions(summary)) > 1 or any(summary["settings"]["corrupted_labels"])


def rows_under(summary: Summary, condition: str) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a condition by arm."""
    return {row["arm"]: row for row in summary["rows"] if row["condition"] == condition}


def compared_arms(summary: Summary, condition: str) -> list[str]:
    """Return the arms that details are shown of: the baseline, and the best of the other arms.

    Arms of which all trials failed are left out.
    """
    finished = {arm: row for arm, row in rows_under(summary, condition).items() if row["n"]}
    baseline = summary["settings"]["baseline"]
    others = [arm for arm in finished if arm != baseline]
    return [arm for arm in (baseline,) if arm in finished] + best_first(
        summary, {arm: finished[arm] for arm in others}
    )[:1]


def best_first(summary: Summary, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return arms by their metric, the best first; arms without one come last."""
    name = summary["metric"]
    sign = -1 if summary["metrics"][name]["higher"] else 1

    def order(arm: str) -> tuple[bool, float]:
        found = rows[arm]["metrics"][name]["value"]
        return (found is None, 0.0 if found is None else sign * found)

    return sorted(rows, key=order)


def tested(summary: Summary) -> list[int]:
    """Return the number of test examples of each class over all splits; [] in a regression."""
    return summary["tested_of_each_class"] or []


def comparisons(summary: Summary) -> int:
    """Return the number of comparisons with the baseline, including those without a result."""
    baseline = summary["settings"]["baseline"]
    return sum(row["arm"] != baseline for row in summary["rows"])


def title(summary: Summary, arm: str) -> str:
    """Return the recipe's title of an arm."""
    return str(summary["settings"]["arms"][arm]["title"])


def row_title(summary: Summary, row: Mapping[str, Any]) -> str:
    """Return the title of the arm of a row, with its condition if that has to be named."""
    arm = title(summary, row["arm"])
    return f"{arm}, {row['condition']}" if names_conditions(summary) else arm


def epochs_of(summary: Summary, arm: str) -> int:
    """Return the number of epochs of an arm."""
    settings = summary["settings"]
    own: int = settings["arms"][arm]["training"].get("epochs", settings["training"]["epochs"])
    return own


def _about(summary: Summary, name: str) -> Mapping[str, Any]:
    """Return the title and form of a metric of the study, or of one of each label."""
    found: Mapping[str, Any] = (summary.get("label_metrics", {}) | summary["metrics"])[name]
    return found


def metric_title(summary: Summary, name: str) -> str:
    """Return the title of a metric with its unit."""
    metric = _about(summary, name)
    return f"{metric['title']}, %" if metric["percent"] else str(metric["title"])


def percent_sign(summary: Summary, name: str) -> str:
    """Return the unit of a metric after a number, or ``""``."""
    return "%" if summary["metrics"][name]["percent"] else ""


def unit(summary: Summary) -> str:
    """Return ``" points"`` if the primary metric is in percent, else ``""``."""
    return " points" if summary["metrics"][summary["metric"]]["percent"] else ""


def value(
    summary: Summary,
    name: str,
    number: float | None,
    *,
    sign: bool = False,
    half: float | None = None,
) -> str:
    """Return a value of a metric as text, without its unit; the rest is as in ``number_text``."""
    if number is None:
        return "—"
    return number_text(number, percent=_about(summary, name)["percent"], sign=sign, half=half)


def interval(
    summary: Summary, name: str, found: Mapping[str, Any] | None, *, sign: bool = False
) -> str:
    """Return a value of a metric with its interval as text."""
    return bracketed(found, partial(value, summary, name, sign=sign, half=half_width(found)))


def measure_text(
    found: Mapping[str, Any] | None, *, percent: bool, unit: str = "", sign: bool = False
) -> str:
    """Return a measure of a probe with its interval as text.

    Args:
        found: with ``value`` and perhaps ``low`` and ``high``; None or {} if it is unknown.
        percent: whether it is in percent.
        unit: what follows the value.
        sign: whether positive values get a sign.

    Example:
        >>> measure_text({"value": 1.25, "low": 0.5, "high": 2.0}, percent=True, sign=True)
        '+1.2 [+0.5, +2.0]'
        >>> measure_text({"value": 110.8, "low": 1.705, "high": 220.1}, percent=False)
        '111 [2, 220]'
    """
    text = partial(number_text, percent=percent, sign=sign, half=half_width(found), digits=3)
    return bracketed(found, text, unit)


def number_text(
    number: float,
    *,
    percent: bool,
    sign: bool = False,
    half: float | None = None,
    digits: int = 4,
) -> str:
    """Return a number as text.

    Args:
        number: in percent, or in its own unit.
        percent: whether it is in percent, which has one decimal.
        sign: whether positive values get a sign.
        half: half the width of its interval. A number that is not in percent is rounded to the
            second digit of ``half`` or to an integer.
        digits: digits of a number without an interval, or with a very narrow one.

    A number that would be rounded to zero keeps one digit; in percent, up to three decimals.

    Example:
        >>> number_text(0.07104, percent=False, half=0.0146), number_text(2285.4, percent=False)
        ('0.071', '2,285')
        >>> number_text(0.004, percent=False, half=0.95)
        '0.004'
        >>> [number_text(x, percent=True, sign=True) for x in (0.32, 0.04, -0.0001)]
        ['+0.3', '+0.04', '0.0']
    """
    small = percent and abs(number) < 0.05
    number = (round(number, 3) if small else number) + 0.0  # -0.0 + 0.0 is 0.0
    size = abs(number)
    if percent:
        form = f".{max(2, _first_digit(size)) if small and size else 1}f"
    elif not math.isfinite(number) or size >= _LARGE:
        form = f".{digits}g"
    elif half and math.isfinite(half) and (places := _decimals(half, size)) < _MOST_DECIMALS:
        form = f",.{places}f"
    else:
        form = ",.0f" if size >= 1000 else f".{digits}g"
    return f"{number:{'+' if sign and number else ''}{form}}".replace("-", "−")


def _decimals(half: float, size: float) -> int:
    """Return how many decimals show two digits of ``half``, and one of ``size``."""
    return max(0, 1 - math.floor(math.log10(half)), _first_digit(size))


def _first_digit(size: float) -> int:
    """Return the decimal place of the first digit that is not zero."""
    return -math.floor(math.log10(size)) if size else 0


def half_width(found: Mapping[str, Any] | None) -> float | None:
    """Return half the width of an interval, or None without one."""
    low, high = ((found or {}).get(end) for end in ("low", "high"))
    return None if low is None or high is None else (high - low) / 2


def bracketed(found: Mapping[str, Any] | None, text: Callable[[float], str], unit: str = "") -> str:
    """Return a value with its interval, if it has one, as ``text`` writes each number."""
    if not found or found["value"] is None:
        return "—"
    ends = [text(found[end]) for end in ("low", "high") if found.get(end) is not None]
    mean = text(found["value"]) + unit
    return f"{mean} [{', '.join(ends)}]" if ends else mean
