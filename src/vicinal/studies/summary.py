"""The summary of a study: one row for each arm under each condition."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vicinal.studies.results import Result, Trial, condition_name
from vicinal.studies.statistics import Estimate, estimate, paired_difference, verdict
from vicinal.training.settings import Published, Recipe


def summarise(recipe: Recipe, results: Mapping[Trial, Result]) -> dict[str, Any]:
    """Return the answer of a study: plain values, ready for JSON.

    Accuracies, differences and the share of reproduced labels are in percent. ``seconds``, the
    median time of a trial, is all that another run on the same machine may change. ``published`` is
    there where the recipe has such rows: each with the accuracy that was measured under true labels
    after as many epochs, its interval and its number of seeds, or with None for them. Before them
    come arms of which nothing is published for as many epochs, with None for that accuracy.
    """
    rows = [
        _row(recipe, arm, corrupted, results)
        for corrupted in recipe.corrupted_labels
        for arm in recipe.arms
    ]
    published = [_published(recipe, row, rows) for row in recipe.published]
    alone = [_alone(recipe, row) for row in rows if _stands_alone(recipe, row)]
    return {
        "study": recipe.name,
        "rows": rows,
        **({"published": alone + published} if published else {}),
        "settings": json.loads(recipe.model_dump_json()),  # with "Infinity" for inf
        "versions": _merged([result.versions for result in results.values()]),
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as JSON text."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def _row(
    recipe: Recipe, arm: str, corrupted: float, results: Mapping[Trial, Result]
) -> dict[str, Any]:
    def measured(name: str) -> list[Result]:
        return [results[Trial(name, corrupted, seed)] for seed in range(recipe.seeds)]

    own, base = measured(arm), measured(recipe.baseline)
    step = 100 / own[0].test_examples
    accuracy = _within_bounds(estimate(_percent(own), step=step))
    compared = arm != recipe.baseline
    difference = paired_difference(_percent(own), _percent(base), step=step) if compared else None
    memorised = [100 * r.memorised for r in own if r.memorised is not None]
    return {
        "arm": arm,
        "condition": condition_name(corrupted),
        "n": len(own),
        **_rounded(accuracy, ("accuracy", "low", "high")),
        **_rounded(difference, ("difference", "difference_low", "difference_high")),
        "verdict": verdict(difference) if difference else None,
        "memorised": round(float(np.mean(memorised)), 4) if memorised else None,
        "seconds": float(np.median([r.seconds for r in own])),
    }


def _published(
    recipe: Recipe, published: Published, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a row of others, and what was measured after as many epochs."""
    arm, epochs = published.arm, published.epochs
    ours: Mapping[str, Any] = {}
    if recipe.training_of(arm).epochs == epochs:
        there = (row for row in rows if (row["arm"], row["condition"]) == (arm, condition_name(0)))
        ours = next(there, {})
    return {
        "arm": arm,
        "title": recipe.arms[arm].title,
        "epochs": epochs,
        "accuracy": published.accuracy,
        "source": published.source,
        "measured": ours.get("accuracy"),
        "low": ours.get("low"),
        "high": ours.get("high"),
        "n": ours.get("n"),
    }


def _stands_alone(recipe: Recipe, row: Mapping[str, Any]) -> bool:
    """Say whether others have published about this arm, but for other numbers of epochs."""
    epochs = {one.epochs for one in recipe.published if one.arm == row["arm"]}
    here = recipe.training_of(row["arm"]).epochs
    return row["condition"] == condition_name(0) and bool(epochs) and here not in epochs


def _alone(recipe: Recipe, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of what was measured, beside which nothing is published."""
    epochs = recipe.training_of(row["arm"]).epochs
    nothing = Published(arm=row["arm"], epochs=epochs, accuracy=0.0, source="this study")
    return _published(recipe, nothing, [row]) | {"accuracy": None}


def _percent(results: Sequence[Result]) -> list[float]:
    return [100 * result.test_accuracy for result in results]


def _within_bounds(percent: Estimate) -> Estimate:
    """Cut an interval at 0 and 100 %: Student's t knows no bounds, an accuracy has them."""
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
    """Return one mapping; where trials ran with different versions, all of them are named."""
    names = sorted({name for one in several for name in one})
    return {n: ", ".join(sorted({one[n] for one in several if n in one})) for n in names}
