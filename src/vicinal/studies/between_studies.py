"""Differences of the same arm between two studies, on the same test examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vicinal.studies.estimates import Cell, Values, estimated_between
from vicinal.studies.study import Study
from vicinal.training.metrics import METRICS, least_difference, metric_values
from vicinal.training.trial_result import Result, Trial, condition_name

Results = Mapping[Trial, Result]


def differences_between(first: Study, other: Study, metric: str) -> dict[tuple[str, str], Any]:
    """Return how much a metric of each common arm differs in another study.

    Test examples are paired, and seeds are not: each study has its own.

    Args:
        first: the study that the other one is compared with.
        other: the other study.
        metric: name of a metric.

    Returns:
        For each arm and condition with results on all splits of both studies, the difference,
        other minus first, as ``vicinal.studies.estimates.estimated_between`` returns it; nothing if
        the studies have different test examples, or if one has splits that the other lacks.
    """
    results = first.results(), other.results()
    if _tested(results[0]) != _tested(results[1]):
        return {}
    facts = next(iter(results[0].values())).origin["data"]
    ours, theirs = (
        _values(study, found, metric, facts["task"])
        for study, found in zip((first, other), results, strict=True)
    )
    targets = {
        trial.split: first.outputs(trial, results[0]).targets for trial in sorted(results[0])
    }
    leasts = [least_difference(metric, targets[k], facts["task"]) for k in sorted(targets)]
    ratio = facts["test"]["examples"] / facts["train"]["examples"]
    found = {}
    for arm, corrupted in dict.fromkeys(cell for split in ours for cell in split):
        cell = (arm, corrupted)
        if all(cell in split for split in (*ours, *theirs)):
            tables = [
                (np.stack(list(two[cell].values())), np.stack(list(one[cell].values())))
                for one, two in zip(ours, theirs, strict=True)
            ]
            row = estimated_between(tables, METRICS[metric], ratio=ratio, leasts=leasts)
            found[arm, condition_name(corrupted)] = row
    return found


def _tested(results: Results) -> dict[int, str]:
    """Return the hash of the test examples of each split."""
    return {trial.split: one.origin["data"]["test"]["sha256"] for trial, one in results.items()}


def _values(study: Study, results: Results, metric: str, task: str) -> Values:
    splits: dict[int, dict[Cell, dict[int, Any]]] = {}
    for trial in sorted(results):
        one = study.outputs(trial, results)
        seeds = splits.setdefault(trial.split, {}).setdefault((trial.arm, trial.corrupted), {})
        seeds[trial.seed] = metric_values(metric, one.last, one.targets, task)
    return [splits[k] for k in sorted(splits)]
