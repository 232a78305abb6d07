"""A few examples for figures of the report: blends, and test examples that arms disagree on."""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vicinal.data import DataSet
from vicinal.files import write_whole
from vicinal.mixing import CleanAndMixed, OneOf, Plan, RegMixUp, generator_at
from vicinal.studies.estimates import scaled
from vicinal.studies.predictions import differing_name, disagreements, fingerprint
from vicinal.training.arms import MixingArm, policy_of
from vicinal.training.loop import image_size_of
from vicinal.training.metrics import METRICS
from vicinal.training.origin import data_facts
from vicinal.training.settings import Recipe
from vicinal.training.trial_result import Outputs, Result, Trial, condition_name

COUNT = 6
"""How many blends there are."""

_SIDE = 96
"""Pixels that the longer side of a stored image has at most."""


def write_examples(
    path: Path,
    recipe: Recipe,
    data: DataSet,
    results: Mapping[Trial, Result],
    outputs: Callable[[Trial], Outputs],
) -> None:
    """Write blends, and the test examples that arms disagree on, into one file.

    The file is empty if there is neither, since a missing one means that the study was interrupted.
    Inputs of other kinds than images, spectrograms and rows of tables are not stored.

    Args:
        path: path of the ``.npz`` file.
        recipe: recipe of the study.
        data: its first split.
        results: results of the finished trials.
        outputs: returns the outputs of a finished trial.
    """
    differing, compared = _differing_rows(recipe, data, results, outputs)
    arrays = _blends(recipe, data) | _inputs_of(data, differing)
    arrays |= {f"compared {condition}": np.array(one) for condition, one in compared.items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())


def _blends(recipe: Recipe, data: DataSet) -> dict[str, Any]:
    """Return some examples, their partners and their blends, by the first arm that makes blends.

    It has to mix at the input, with two parents in each blend. {} if there is no such arm, or
    if the inputs are not images. Every example has its own lam, so that they differ.
    """
    if data.brightest is None:
        return {}
    read = data.train.read(range(min(COUNT, len(data.train))))
    own, targets = read.inputs, data.train.targets[torch.from_numpy(read.kept)]
    plans = (
        _draw(policy_of(arm, data), own, targets, seed=recipe.seed)
        for arm in recipe.arms.values()
        if isinstance(arm, MixingArm) and "input" in arm.at
    )
    plan = next((plan for plan in plans if plan is not None), None)
    if plan is None:
        return {}
    names = np.array([_target_name(data, target) for target in targets])
    return {
        "own": _small(own),
        "met": _small(own[plan.partner]),
        "blend": _small(plan.mix(own.float())),
        "lam": plan.lam.numpy(),
        "own_class": names,
        "met_class": names[plan.partner.numpy()],
        "brightest": data.brightest,
    }


def _draw(policy: Any, own: Tensor, labels: Tensor, *, seed: int) -> Plan | None:
    """Draw a plan with a lam for each example, if the policy makes blends of two parents."""
    while isinstance(policy, RegMixUp | OneOf):
        inner = policy.policies if isinstance(policy, OneOf) else [policy.policy]
        policy = next((one for one in inner if one is not None), None)
    if policy is None:
        return None
    if dataclasses.is_dataclass(policy) and not isinstance(policy, type):
        names = {one.name for one in dataclasses.fields(policy)}
        each: dict[str, Any] = {"per": "example", "mix_rate": 1.0}
        policy = dataclasses.replace(policy, **{k: v for k, v in each.items() if k in names})
    plan = policy.draw(
        len(own),
        generator=generator_at(seed, 0),
        y=labels,
        features=own,
        image_size=image_size_of(own),
    )
    plan = plan.plan if isinstance(plan, CleanAndMixed) else plan
    return plan if isinstance(plan, Plan) and plan.shares is None else None


def _target_name(data: DataSet, target: Tensor) -> str:
    """Return a target as text: its class, its labels, or its values."""
    if not target.is_floating_point():
        return data.classes[int(target)]
    if data.classes:
        return ", ".join(data.classes[k] for k in target.nonzero()[:, 0].tolist()) or "none"
    return ", ".join(f"{number:.4g}" for number in target.view(-1).tolist())


def _inputs_of(data: DataSet, differing: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the inputs of test examples, with their row numbers for each name."""
    rows = sorted({row for some in differing.values() for row in some})
    if not rows:
        return {}
    arrays: dict[str, Any] = {f"rows {name}": np.array(some) for name, some in differing.items()}
    read = data.test.read(rows)
    inputs = read.inputs
    arrays["test_rows"] = np.array(rows)[read.kept]
    if inputs.dim() == 4 and inputs.shape[1] in (1, 3):
        if data.brightest is None:
            lowest, highest = inputs.amin((1, 2, 3), True), inputs.amax((1, 2, 3), True)
            inputs = (inputs - lowest) / (highest - lowest).clamp(min=1e-9)
        if data.preparation.get("kind") == "sound":  # spectrograms, low frequencies at the bottom
            inputs = inputs.flip(2)
        arrays |= {"test_inputs": _small(inputs), "test_brightest": data.brightest or 1}
    elif inputs.dim() == 2 and data.preparation.get("kind") == "table":
        cells = [_cells(data.preparation, row) for row in inputs.numpy()]
        arrays["test_columns"] = np.array(list(cells[0]))
        arrays["test_cells"] = np.array([list(row.values()) for row in cells])
    return arrays


def _small(images: Tensor) -> Any:
    """Return images as an array, reduced to at most ``_SIDE`` pixels."""
    longest = max(images.shape[2:])
    if longest > _SIDE:
        size = [max(1, round(side * _SIDE / longest)) for side in images.shape[2:]]
        reduced = F.interpolate(images.float(), size=size, mode="area")
        images = reduced if images.is_floating_point() else reduced.round().to(images.dtype)
    return images.numpy()


def _cells(preparation: Mapping[str, Any], row: Any) -> dict[str, str]:
    """Return a row of a table by column, as it was before its preparation."""
    numbers, others = preparation["numbers"], preparation["categories"]
    count = len(numbers["columns"])
    values = row[:count] * np.array(numbers["scale"]) + np.array(numbers["mean"])
    cells = {name: f"{value:.6g}" for name, value in zip(numbers["columns"], values, strict=True)}
    start = count
    for name, levels in zip(others["columns"], others["values"], strict=True):
        shares = row[start : start + len(levels)]
        start += len(levels)
        level = levels[int(shares.argmax())] if shares.max() > 0 else None
        cells[name] = "—" if level is None else str(level)
    return cells


def _differing_rows(
    recipe: Recipe,
    data: DataSet,
    results: Mapping[Trial, Result],
    outputs: Callable[[Trial], Outputs],
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the rows of the test split on which the baseline and the best arm disagree.

    The names are those that ``differing_name`` gives to conditions and directions. Also return the
    ``fingerprint`` of what was compared under each condition.
    """
    rows, compared = {}, {}
    true = data.test.targets.cpu().numpy().ravel()
    for corrupted in recipe.corrupted_labels:
        arms: dict[str, list[Trial]] = {}
        metrics: dict[str, list[float]] = {}
        for trial, result in results.items():
            if trial.corrupted == corrupted:
                metrics.setdefault(trial.arm, []).append(result.test_metric)
                if trial.split == 0:
                    arms.setdefault(trial.arm, []).append(trial)
        base = arms.pop(recipe.baseline, [])
        if not base or not arms:
            continue
        metric = METRICS[results[base[0]].metric]
        # Over all splits and rounded, as in the report.
        quality = {arm: scaled(metric, float(np.mean(metrics[arm]))) or 0.0 for arm in arms}
        best = (max if metric.higher else min)(quality, key=quality.__getitem__)
        both = [[outputs(trial) for trial in trials] for trials in (base, arms[best])]
        if not np.array_equal(both[0][0].targets.ravel(), true):
            continue  # some examples were skipped, so the rows of the outputs are other ones
        found = disagreements(both[0], both[1], data_facts(data, recipe.task)["task"])
        compared[condition_name(corrupted)] = fingerprint(*both)
        for better, some in zip((True, False), found, strict=True):
            rows[differing_name(condition_name(corrupted), better=better)] = some
    return rows, compared
