"""The probes of a study: measured on every trained network, and stored next to its checkpoint."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vicinal.data import DataSet
from vicinal.files import WEIGHTS, write_whole
from vicinal.probes import calibration_of_logits
from vicinal.studies.estimates import Values, estimated
from vicinal.studies.probe_measures import Measure, Probed, measures_of, smaller_of
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import Outputs, Result, Trial, condition_name

PROBES = "probes.safetensors"
"""File name in the folder of a trial: one value per example for each measure."""


_VERSION = b"5"
"""Of the values; another one makes stored values of other versions outdated."""


class Probing(NamedTuple):
    """What the probes of a study need.

    Args:
        recipe: recipe of the study.
        folder_of: returns the folder of a trial.
        outputs_of: returns the outputs of a finished trial.
        data_of: loads a split of the data.
        log: reports to the user.
    """

    recipe: Recipe
    folder_of: Callable[[Trial], Path]
    outputs_of: Callable[[Trial], Outputs]
    data_of: Callable[[int], DataSet]
    log: Callable[[str], None]


def unprobed(probing: Probing, finished: Mapping[Trial, Result]) -> list[Trial]:
    """Return the finished trials without current values of all probes, split by split."""
    if not measures_of(probing.recipe.probes):
        return []
    return [one for one in finished if _read(probing, finished, one) is None]


def probe(probing: Probing, finished: Mapping[Trial, Result], trial: Trial) -> None:
    """Measure the probes of a finished trial, and write them into its folder.

    Raises:
        UserError: if a probe does not fit the data or the network, or a checkpoint is missing.
    """
    from vicinal.studies.trial_probes import probe_trial  # imports Lightning Fabric

    probing.log(f"probes of {trial.folder}")
    source = _source(probing.recipe, trial, finished)
    paths = [probing.folder_of(one) / WEIGHTS for one in (trial, source) if one is not None]
    outputs, data = probing.outputs_of(trial), probing.data_of(trial.split)
    probed = probe_trial(probing.recipe, trial, outputs, data, paths)
    facts = {
        "of": _fingerprint(probing, finished, trial, source),
        "source": "" if source is None else str(source.seed),
        "checks": json.dumps(probed.checks),
    }
    write_whole(probing.folder_of(trial) / PROBES, save(probed.values, metadata=facts))


def read_probed(probing: Probing, finished: Mapping[Trial, Result]) -> dict[Trial, Probed]:
    """Return the current values of the probes by trial; trials without them are left out."""
    if not measures_of(probing.recipe.probes):
        return {}
    read = {trial: _read(probing, finished, trial) for trial in finished}
    return {trial: one for trial, one in read.items() if one is not None}


def _read(probing: Probing, finished: Mapping[Trial, Result], trial: Trial) -> Probed | None:
    try:
        with safe_open(probing.folder_of(trial) / PROBES, "numpy") as file:
            facts = file.metadata() or {}
            source = _recorded_source(probing.recipe, trial, finished, facts["source"])
            if facts["of"] != _fingerprint(probing, finished, trial, source):
                return None
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        checks = [(str(name), ok, str(text)) for name, ok, text in json.loads(facts["checks"])]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return Probed(values, checks)


def _source(recipe: Recipe, trial: Trial, finished: Mapping[Trial, Result]) -> Trial | None:
    """Return the trial that transferred attacks are made with: the next seed of the baseline."""
    if recipe.probes.attacks is None:
        return None
    same = [one for one in finished if one[:2] == (recipe.baseline, trial.corrupted)]
    seeds = sorted(one.seed for one in same if one.split == trial.split and one.seed != trial.seed)
    if not seeds:
        return None
    seed = next((one for one in seeds if one > trial.seed), seeds[0])
    return trial._replace(arm=recipe.baseline, seed=seed)


def _recorded_source(
    recipe: Recipe, trial: Trial, finished: Mapping[Trial, Result], seed: str
) -> Trial | None:
    """Return the source that was used, if it still exists: with more seeds, ``_source`` differs."""
    source = _source(recipe, trial, finished)
    if source is None or not seed:
        return source
    recorded = source._replace(seed=int(seed))
    return recorded if recorded in finished else source


def _fingerprint(
    probing: Probing, finished: Mapping[Trial, Result], trial: Trial, source: Trial | None
) -> str:
    """Return a hash of what the values of a trial depend on.

    The outputs stand for the weights, which may have been deleted to save space.
    """
    digest = hashlib.sha256(_VERSION + probing.recipe.probes.model_dump_json().encode())
    for one in (trial, source):
        if one is not None:
            digest.update(finished[one].outputs.encode())
    return digest.hexdigest()


def probe_rows(
    recipe: Recipe, probed: Mapping[Trial, Probed], *, ratio: float
) -> list[dict[str, Any]]:
    """Return the measures of all probes as plain values for JSON.

    Each has one row for every arm under every condition, with its interval and the difference from
    the baseline; these are not adjusted for the number of measures.

    Args:
        recipe: recipe of the study.
        probed: by trial.
        ratio: test examples per training example.
    """
    measures = []
    for one in measures_of(recipe.probes):
        values: Values = [{} for _ in range(recipe.splits)]
        for (arm, corrupted, seed, split), found in probed.items():
            if one.key in found.values:
                seeds = values[split].setdefault((arm, corrupted), {})
                seeds[seed] = found.values[one.key].astype(np.float64)
        leasts = [_least(one, probed, split) for split in range(recipe.splits)]
        rows = [
            {"arm": arm, "condition": condition_name(corrupted)}
            | estimated(
                values,
                (arm, corrupted),
                (recipe.baseline, corrupted),
                one.metric,
                ratio=ratio,
                leasts=leasts,
            )
            for corrupted in recipe.corrupted_labels
            for arm in recipe.arms
            if any((arm, corrupted) in split for split in values)
        ]
        if rows:
            shown = {"percent": one.metric.percent, "higher": one.metric.higher, "rows": rows}
            measures.append({k: v for k, v in one._asdict().items() if k != "metric"} | shown)
    return measures


def _least(measure: Measure, probed: Mapping[Trial, Probed], split: int) -> float:
    """Return by how much three examples change a share: the smallest half width of an interval."""
    counts = [
        len(found.values.get(smaller_of(measure.key), found.values[measure.key]))
        for trial, found in probed.items()
        if trial.split == split and measure.key in found.values
    ]
    return min(3 / max(counts), 1.0) if counts and measure.metric.percent else 0.0


def checks_not_run(probed: Mapping[Trial, Probed]) -> list[str]:
    """Return the distinct checks of attacks that could not run, each with what it needs."""
    of_all = (check for one in probed.values() for check in one.checks)
    return list(dict.fromkeys(f"“{name}” {text}" for name, ok, text in of_all if ok is None))


def failed_checks(probed: Mapping[Trial, Probed]) -> list[dict[str, Any]]:
    """Return the checks of attacks that failed, each with the trial it failed on."""
    return [
        {
            "arm": t.arm,
            "condition": condition_name(t.corrupted),
            "seed": t.seed,
            "name": name,
            "found": text,
        }
        for t, one in probed.items()
        for name, ok, text in one.checks
        if ok is False
    ]


def ensemble_rows(recipe: Recipe, outputs: Mapping[Trial, Outputs]) -> list[dict[str, Any]]:
    """Return the calibration of the mean over the seeds that all arms have, as ``probe_rows``.

    There is one ensemble for each arm, on the first split, so there are no intervals.
    """
    if not recipe.probes.calibration or recipe.seeds < 2:
        return []
    found: dict[str, list[dict[str, Any]]] = {}
    for corrupted in recipe.corrupted_labels:
        of_arms = {
            arm: {t.seed: one for t, one in outputs.items() if t == (arm, corrupted, t.seed, 0)}
            for arm in recipe.arms
        }
        of_arms = {arm: one for arm, one in of_arms.items() if one}
        seeds = set[int]().union(*of_arms.values()).intersection(*of_arms.values())
        if len(seeds) < 2:  # ensembles of different sizes cannot be compared
            continue
        for arm, by_seed in of_arms.items():
            own = [by_seed[seed] for seed in sorted(seeds)]
            both = calibration_of_logits(np.stack([one.last for one in own]), own[0].targets)
            for scaling, one in (("", both.raw), (", temperature-scaled", both.scaled)):
                for name, value in (("ECE", 100 * one.ece), ("NLL", one.nll)):
                    rows = found.setdefault(f"{name} of the ensemble of seeds{scaling}", [])
                    row = dict.fromkeys(("low", "high", "seeds", "examples", "difference"))
                    row |= {"arm": arm, "condition": condition_name(corrupted)}
                    rows.append(row | {"value": round(value, 6)})
    shown = {"probe": "ensemble", "x": None, "x_title": "", "higher": False}
    return [
        shown | {"series": series, "percent": series.startswith("ECE"), "rows": rows}
        for series, rows in found.items()
    ]
