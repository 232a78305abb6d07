"""The summary of a study: one row for each arm under each condition."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vicinal.errors import UserError
from vicinal.studies.statistics import Estimate, estimate, paired_difference, verdict
from vicinal.training.recipe_warnings import (
    Constant,
    VerdictProblem,
    constant_predictor,
    verdict_problems,
)
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import Result, Trial, condition_name


def summarize(
    recipe: Recipe, results: Mapping[Trial, Result], failures: Mapping[Trial, str] | None = None
) -> dict[str, Any]:
    """Return the summary of a study as plain values for JSON.

    Accuracies, differences, recalls and ``memorized`` are in percent. A repeated run on the same
    machine changes only ``seconds``, the median duration of a trial.

    A row covers the ``n`` seeds that finished; its difference covers those that also finished in
    the baseline, and ``failed`` lists the others. ``withheld`` is the reason for the verdict
    ``"withheld"``: a trial failed, the arm or the baseline is not above the constant predictor, or
    there are ``verdict_problems``. ``recall`` is the accuracy on each class.

    ``data`` and ``constant``, the predictor of the most frequent training class, are present if
    the results have recorded their data.

    ``published`` is present if the recipe has published rows: each with the accuracy that was
    measured with true labels and the same number of epochs, its interval and its number of seeds,
    or None. Arms without a published row for their number of epochs come first, with None as the
    published accuracy.

    Args:
        recipe: of the study.
        results: of the finished trials.
        failures: why others failed.

    Raises:
        UserError: if no trial finished.
    """
    failures = failures or {}
    if not results:
        raise UserError(
            "every trial failed, so there is nothing to report. The reason of the first: "
            f"{next(iter(failures.values()), 'no trial was run')}"
        )
    facts = next(iter(results.values())).origin.get("data", {})
    found = verdict_problems(recipe, facts)
    constant = constant_predictor(facts) if facts else None
    rows = []
    for corrupted in recipe.corrupted_labels:
        trials = {
            arm: [Trial(arm, corrupted, seed) for seed in range(recipe.seeds)]
            for arm in recipe.arms
        }
        measured = {arm: [results[t] for t in of if t in results] for arm, of in trials.items()}
        for arm, own in trials.items():
            failed = [{"seed": t.seed, "reason": failures[t]} for t in own if t in failures]
            row = _row(recipe, arm, corrupted, measured) | {"failed": failed}
            rows.append(row | {"recall": _recall(measured[arm])})
        _withhold(recipe, rows[-len(recipe.arms) :], found, constant)
    summary: dict[str, Any] = {"study": recipe.name, "rows": rows}
    if recipe.published:
        with_true_labels = [row for row in rows if row["condition"] == condition_name(0)]
        summary["published"] = _published(recipe, with_true_labels)
    if constant is not None:
        accuracy = round(100 * constant.accuracy, 4)
        summary["data"] = {k: v for k, v in facts.items() if k != "preparation"}
        summary["constant"] = {"class": constant.name, "accuracy": accuracy}
    return summary | {
        "verdict_problems": [problem.text for problem in found],
        "settings": json.loads(recipe.model_dump_json()),  # with "Infinity" for inf
        "versions": _merged([result.versions for result in results.values()]),
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as JSON text."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def _row(
    recipe: Recipe, arm: str, corrupted: float, measured: Mapping[str, Sequence[Result]]
) -> dict[str, Any]:
    own, base = measured[arm], measured[recipe.baseline]
    both = sorted({result.seed for result in own} & {result.seed for result in base})
    step = 100 / own[0].test_examples if own else 0.0
    accuracy = difference = None
    if own:
        accuracy = _within_bounds(estimate([100 * r.test_accuracy for r in own], step=step))
    if arm != recipe.baseline and both:
        pairs = [[100 * r.test_accuracy for r in one if r.seed in both] for one in (own, base)]
        difference = paired_difference(*pairs, step=step)
    memorized = [100 * r.memorized for r in own if r.memorized is not None]
    return {
        "arm": arm,
        "condition": condition_name(corrupted),
        "n": len(own),
        **_rounded(accuracy, ("accuracy", "low", "high")),
        **_rounded(difference, ("difference", "difference_low", "difference_high")),
        "verdict": verdict(difference) if difference else None,
        "withheld": None,
        "memorized": round(float(np.mean(memorized)), 4) if memorized else None,
        "seconds": float(np.median([r.seconds for r in own])) if own else None,
    }


def _recall(results: Sequence[Result]) -> list[float | None]:
    """Return the accuracy on each class, in percent; None for classes without test examples."""
    if not results or not results[0].tested:
        return []
    correct = np.mean([result.correct for result in results], axis=0)
    return [
        round(100 * float(one / count), 4) if count else None
        for one, count in zip(correct, results[0].tested, strict=True)
    ]


def _withhold(
    recipe: Recipe,
    rows: Sequence[dict[str, Any]],
    found: Sequence[VerdictProblem],
    constant: Constant | None,
) -> None:
    """Withhold the verdicts that the results of one condition do not support."""
    base = next(row for row in rows if row["arm"] == recipe.baseline)
    for row in rows:
        if row is base:
            continue
        reasons = [
            problem.text for problem in found if problem.arm in (None, row["arm"], base["arm"])
        ]
        for one in (row, base):
            if one["failed"]:
                whose = "" if one is row else f" of {recipe.arms[one['arm']].title}"
                reasons.append(f"{len(one['failed'])} of {recipe.seeds} seeds{whose} failed")
        below = [
            recipe.arms[one["arm"]].title
            for one in (row, base)
            if constant and one["n"] and one["accuracy"] <= round(100 * constant.accuracy, 4)
        ]
        if constant and below:
            reasons.append(
                f"{' and '.join(below)} {'are' if below[1:] else 'is'} not above always predicting "
                f"“{constant.name}”, whose accuracy is {100 * constant.accuracy:.1f}%"
            )
        if reasons:
            row |= {"verdict": "withheld", "withheld": "; ".join(reasons)}


def _published(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the published rows, with what was measured for the same number of epochs.

    Arms whose published rows are all for other numbers of epochs come first.
    """
    measured = {row["arm"]: row for row in rows}
    epochs = {arm: recipe.training_of(arm).epochs for arm in recipe.arms}
    matched = {row.arm for row in recipe.published if row.epochs == epochs[row.arm]}
    others = {row.arm for row in recipe.published} - matched
    listed: list[tuple[str, int, float | None, str]]
    listed = [(arm, epochs[arm], None, "this study") for arm in measured if arm in others]
    listed += [(row.arm, row.epochs, row.accuracy, row.source) for row in recipe.published]
    found = []
    for arm, count, accuracy, source in listed:
        ours = measured.get(arm, {}) if count == epochs[arm] else {}
        found.append(
            {
                "arm": arm,
                "title": recipe.arms[arm].title,
                "epochs": count,
                "accuracy": accuracy,
                "source": source,
                "measured": ours.get("accuracy"),
                "low": ours.get("low"),
                "high": ours.get("high"),
                "n": ours.get("n"),
            }
        )
    return found


def _within_bounds(percent: Estimate) -> Estimate:
    """Clip an interval to 0 and 100%, since Student's t ignores the bounds of an accuracy."""
    if percent.low is None or percent.high is None:
        return percent
    return Estimate(percent.mean, max(percent.low, 0.0), min(percent.high, 100.0))


def _rounded(value: Estimate | None, names: tuple[str, str, str]) -> dict[str, float | None]:
    numbers = value or (None, None, None)
    return {
        name: None if number is None else round(number, 4)
        for name, number in zip(names, numbers, strict=True)
    }


def _merged(several: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Merge the versions of all trials; different versions of a package are joined."""
    names = sorted({name for one in several for name in one})
    return {n: ", ".join(sorted({one[n] for one in several if n in one})) for n in names}
