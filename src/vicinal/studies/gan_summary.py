"""The summary of a study of GANs: one row for each arm on each mixture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vicinal.errors import UserError
from vicinal.generative.measures import coverage, energy_distance
from vicinal.generative.toy import Mixture, mode_centers
from vicinal.studies.gan import MEASURES, SAMPLES, GanResult, GanStudy, real_samples
from vicinal.studies.statistics import (
    Array,
    Estimate,
    difference_with_interval,
    holm,
    mean_with_interval,
    verdict,
)
from vicinal.training.environment import hardware, merged_versions


def summarize_gans(study: GanStudy) -> dict[str, Any]:
    """Return the summary of the finished trials as plain values for JSON.

    A row covers an arm on a mixture: ``n`` trials, how many ``diverged`` and how, the median of
    ``seconds``, and for each of ``MEASURES`` the mean over seeds after the last iteration with its
    95% interval, the difference from the first arm of the recipe, paired by seed, and the verdict,
    adjusted for all comparisons of the study (Holm). Means of a logarithmic measure are geometric,
    and its differences are ratios. ``real`` has the measures of fresh real
    samples, which no generator is expected to beat.

    Raises:
        UserError: if no trial is finished.
    """
    recipe, results = study.recipe, study.results()
    if not results:
        raise UserError(f"{study.folder}: no trial is finished, so there is nothing to report.")
    baseline, rows = recipe.gan.arms[0], []
    for data in recipe.gan.data:
        by_arm = {
            arm: {t.seed: one for t, one in results.items() if t[:2] == (data, arm)}
            for arm in recipe.gan.arms
        }
        for arm, mine in by_arm.items():
            measures = {name: _measure(mine, by_arm[baseline], name, data) for name in MEASURES}
            if arm == baseline:
                for one in measures.values():
                    one.update(difference=None, verdict=None)
            row: dict[str, Any] = {"data": data, "arm": arm, "n": len(mine), "measures": measures}
            row["diverged"] = {f"seed {k}": one.diverged for k, one in mine.items() if one.diverged}
            seconds = [one.seconds for one in mine.values()]
            row["seconds"] = float(np.median(seconds)) if seconds else None
            rows.append(row)
    _add_verdicts(rows)
    return {
        "study": recipe.name,
        "gan": recipe.gan.model_dump(),
        "seeds": recipe.seeds,
        "baseline": baseline,
        "measures": {name: one._asdict() for name, one in MEASURES.items()},
        "rows": rows,
        "real": {data: _of_real(data, recipe.gan.std) for data in recipe.gan.data},
        "versions": merged_versions([one.versions for one in results.values()]),
        "hardware": hardware(),
    }


def _measure(
    mine: Mapping[int, GanResult], baseline: Mapping[int, GanResult], name: str, data: Mixture
) -> dict[str, Any]:
    """Return a measure of an arm, and its difference from the baseline over common seeds."""
    raw = {seed: one.last(name) for seed, one in mine.items()}
    values, others = _scaled(mine, name), _scaled(baseline, name)
    seeds = sorted(values.keys() & others.keys())
    difference, found = None, Estimate(math.nan)
    if seeds and all(math.isfinite(one[seed]) for seed in seeds for one in (values, others)):
        ours, theirs = (_table([one[seed] for seed in seeds]) for one in (values, others))
        difference = difference_with_interval(ours, theirs, least=_least(name, len(seeds)))
    if finite := [one for one in values.values() if math.isfinite(one)]:
        found = mean_with_interval(_table(finite), least=_least(name, len(values)))
        if len(finite) < len(values):  # an interval over those that did not diverge misleads
            found = Estimate(found.mean)
    most = {"modes": len(mode_centers(data)), "good": 100.0, "energy": math.inf}[name]
    value, low, high = (_unscaled(one, name) for one in found[:3])
    return {
        "value": value,
        "low": None if low is None else max(low, 0.0),
        "high": None if high is None else min(high, most),
        "seeds": [one if math.isfinite(one) else None for one in raw.values()],
        "difference": difference,
        "p": None,
        "verdict": "no evidence" if difference is not None else "withheld",
    }


def _scaled(results: Mapping[int, GanResult], name: str) -> dict[int, float]:
    """Return a measure by seed, or its logarithm."""
    values = {seed: one.last(name) for seed, one in results.items()}
    if not MEASURES[name].logarithmic:
        return values
    return {k: math.log(value) if value > 0 else -math.inf for k, value in values.items()}


def _unscaled(value: float | None, name: str) -> float | None:
    if value is None or math.isnan(value):
        return None
    return math.exp(min(value, 700)) if MEASURES[name].logarithmic else value


def _table(values: Sequence[float]) -> Array:
    """Return one value per seed as a table of two equal columns.

    Nothing varies between its columns, so the interval over both dimensions is Student's t over the
    seeds.
    """
    return np.repeat(np.asarray(values, float)[:, None], 2, axis=1)


def _least(name: str, seeds: int) -> float:
    """Return the smallest half width of an interval of a measure that counts something.

    If none of ``n`` seeds differs, up to ``3 / n`` of all seeds may (the rule of three), by one
    mode at least; likewise for good samples.
    """
    return {"modes": 3 / seeds, "good": 100 * 3 / SAMPLES, "energy": 0.0}[name]


def _add_verdicts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Add p-values, adjusted for all comparisons of the study, and verdicts."""
    planned = [  # the rows of the baseline have no verdicts
        (name, one)
        for row in rows
        for name, one in row["measures"].items()
        if one["verdict"] is not None
    ]
    compared = [(name, one) for name, one in planned if one["difference"] is not None]
    certain = [one for _, one in compared if one["difference"].p is not None]
    others = [1.0] * (len(planned) - len(certain))
    adjusted = holm([one["difference"].p for one in certain] + others)
    for one, p in zip(certain, adjusted, strict=False):
        one["p"] = p
    for name, one in compared:
        found, higher = one["difference"], MEASURES[name].higher
        one["verdict"] = "withheld"  # one seed gives no interval
        if one["p"] is not None:
            one["verdict"] = verdict(found, p=one["p"], margin=None, higher=higher)
        ends = {end: _unscaled(getattr(found, end), name) for end in ("mean", "low", "high")}
        one["difference"] = ends | {"p": found.p}  # not adjusted


def _of_real(data: Mixture, std: float) -> dict[str, float]:
    """Return the measures of fresh real samples."""
    samples, others = (real_samples(data, std, seed) for seed in (0, 1))
    found = coverage(samples, mode_centers(data), std)
    energy = energy_distance(samples, others)
    return {"modes": found.modes, "good": 100 * found.good, "energy": energy}
