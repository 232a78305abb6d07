"""Trials and their results, as files in the folder of a study."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pydantic
from safetensors.numpy import load, save

from vicinal.errors import UserError
from vicinal.files import write_whole
from vicinal.training.metrics import primary_metric
from vicinal.training.origin import checked_origin
from vicinal.training.run_folder import differences, flat
from vicinal.training.settings import Recipe


class Trial(NamedTuple):
    """One arm under one condition with one seed, on one split of the data."""

    arm: str
    corrupted: float
    seed: int
    split: int = 0

    @property
    def folder(self) -> str:
        """The name of its folder.

        Example:
            >>> Trial("mixup", 0.4, 2).folder
            'mixup-40-corrupted-seed2'
        """
        condition = re.sub(r"[^a-z0-9.]+", "-", condition_name(self.corrupted))
        split = f"-split{self.split}" if self.split else ""
        return f"{self.arm}-{condition}-seed{self.seed}{split}"


def condition_name(corrupted: float) -> str:
    """Return the name of a condition.

    Example:
        >>> condition_name(0.0), condition_name(0.4)
        ('true labels', '40% corrupted')
    """
    if not corrupted:
        return "true labels"
    percent = Decimal(repr(float(corrupted))).scaleb(2).normalize()  # exact: names are unique
    return f"{percent:f}% corrupted"


def trials_of(recipe: Recipe) -> list[Trial]:
    """Return all trials of a study, seed by seed, so that arms can be compared early."""
    return [
        Trial(arm, corrupted, seed, split)
        for split in range(recipe.splits)
        for seed in range(recipe.seeds)
        for corrupted in recipe.corrupted_labels
        for arm in recipe.arms
    ]


_Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
_Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]


class EpochRow(NamedTuple):
    """The metrics of an epoch. Losses are in nats; ``memorized`` and accuracies are fractions.

    ``lr`` is the largest learning rate of the last step. ``train_loss`` is the loss that is
    minimized: the loss of blended batches, if the arm mixes. ``test_metric`` is the primary
    metric, and ``metrics.csv`` names it; the loss and the metric of the validation split are None
    if there is none. ``memorized`` is None if no label is wrong. ``seconds`` is the time since the
    trial began, including evaluation.
    """

    epoch: int
    lr: float
    train_loss: float
    test_loss: float
    test_metric: float
    validation_loss: float | None
    validation_metric: float | None
    memorized: _Fraction | None
    seconds: float


_EPOCH_ROW = pydantic.TypeAdapter(EpochRow)


class Result(pydantic.BaseModel):
    """The result of a trial; ``memorized`` is a fraction.

    ``metric`` is the primary one. ``test_metric`` is measured after the last epoch, and
    ``constant_metric`` is that of a constant prediction, and ``train_metric`` that of the training
    examples without augmentation, with the labels that were learned. ``peak_epoch`` is the epoch
    with the best metric on the test split, which is reported and chooses nothing. ``best_epoch`` is
    the one with the best metric on the validation split, if there is one. ``settings`` are those
    that the result depends on, and ``origin`` describes data, network and versions (see
    ``vicinal.training.origin``).
    ``outputs`` is the SHA-256 of ``OUTPUTS``, the file with the outputs for the test split.
    ``peak_memory`` is in bytes: of the GPU, or of the process.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    arm: str
    corrupted: _Fraction
    seed: int
    split: int
    epochs: pydantic.PositiveInt
    metric: str
    test_examples: pydantic.PositiveInt
    test_metric: _Finite
    constant_metric: _Finite
    train_metric: _Finite
    peak_epoch: pydantic.PositiveInt
    test_loss: _Finite
    best_epoch: pydantic.PositiveInt | None
    memorized: _Fraction | None
    seconds: _Finite
    peak_memory: pydantic.NonNegativeInt
    settings: dict[str, Any]
    origin: Annotated[dict[str, Any], pydantic.AfterValidator(checked_origin)]
    outputs: str
    versions: dict[str, str]
    hardware: dict[str, str]

    @property
    def trial(self) -> Trial:
        """The trial that it belongs to."""
        return Trial(self.arm, self.corrupted, self.seed, self.split)


OUTPUTS = "outputs.safetensors"
"""File name in the folder of a trial: what the network returned for the test split."""


class Outputs(NamedTuple):
    """The outputs of a trial for the test split.

    Args:
        last: ``(n, k)`` after the last epoch: logits, or real values in the units of the targets.
        best: likewise after the best epoch on the validation split; None without one.
        targets: ``(n,)`` int64 classes, or ``(n, k)`` labels or real values.
    """

    last: np.ndarray
    best: np.ndarray | None
    targets: np.ndarray


def write_outputs(folder: Path, outputs: Outputs) -> str:
    """Write the outputs of a trial; return the SHA-256 of the file."""
    arrays = {name: one for name, one in outputs._asdict().items() if one is not None}
    content = save(arrays)
    write_whole(folder / OUTPUTS, content)
    return hashlib.sha256(content).hexdigest()


def read_outputs(folder: Path, result: Result) -> Outputs:
    """Read the outputs of a finished trial.

    Raises:
        UserError: if the file is missing, or not the one that the result belongs to.
    """
    path = folder / OUTPUTS
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != result.outputs:
            raise ValueError("its checksum differs from that in result.json")
        arrays = load(content)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is missing or damaged ({error}). Delete the folder {folder} to train this "
            "trial again."
        ) from error
    return Outputs(arrays["last"], arrays.get("best"), arrays["targets"])


class Failure(pydantic.BaseModel):
    """Why a trial of a study failed, and with which settings."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    reason: str
    settings: dict[str, Any]


FAILURE = "failed.json"


def write_failure(folder: Path, reason: str, recipe: Recipe, trial: Trial) -> None:
    """Write ``failed.json``, which keeps a study from running the trial again."""
    failure = Failure(reason=reason, settings=settings_of(recipe, trial))
    write_whole(folder / FAILURE, failure.model_dump_json(indent=2) + "\n")


def read_failure(folder: Path, trial: Trial, recipe: Recipe) -> Failure | None:
    """Return the failure of a trial; None if there is none, or if its settings were different."""
    try:
        failure = Failure.model_validate_json((folder / FAILURE).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None
    before = dict(failure.settings)
    # A trial fails whatever its primary metric is.
    before["recipe"] = {k: v for k, v in before.get("recipe", {}).items() if k != "metric"}
    return None if changed_settings(before, recipe, trial) else failure


def settings_of(recipe: Recipe, trial: Trial) -> dict[str, Any]:
    """Return the settings that the result of a trial depends on, as plain values for JSON."""
    where: Any = {"data": {"root", "max_bytes"}}  # has no effect on the result
    fields = {"seed", "task", "data", "model"}
    plain = json.loads(recipe.model_dump_json(include=fields, exclude=where))
    plain["metric"] = recipe.metrics[0] if recipe.metrics else None
    training = json.loads(recipe.training_of(trial.arm).model_dump_json())
    arm = json.loads(recipe.arms[trial.arm].model_dump_json(exclude={"title", "training"}))
    return {**trial._asdict(), "recipe": plain, "training": training, trial.arm: arm}


def with_metric(settings: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the settings of a trial with the primary metric of the task if they name none."""
    recipe = dict(settings["recipe"])
    recipe["metric"] = recipe.get("metric") or primary_metric((), task)
    return {**settings, "recipe": recipe}


def changed_settings(
    before: Mapping[str, Any], recipe: Recipe, trial: Trial, *, task: str | None = None
) -> str:
    """Return the settings of a trial that have changed as one clause, or ``""``.

    Settings that only one version of vicinal has are not compared.

    Args:
        before: the settings that the trial was trained with.
        recipe: recipe of the study.
        trial: the trial.
        task: the task of its data, if it is known; a recipe that names the primary metric of the
            task then equals one that names none.
    """
    new = settings_of(recipe, trial)
    if task is not None:
        before, new = with_metric(before, task), with_metric(new, task)
    return "; ".join(differences(before, new, flat(before).keys() ^ flat(new).keys()))


def write_result(folder: Path, result: Result, epochs: list[EpochRow]) -> None:
    """Write ``metrics.csv``, and then ``result.json``, which marks the trial as finished."""
    write_metrics(folder, epochs, result.metric)
    write_whole(folder / "result.json", result.model_dump_json(indent=2) + "\n")


def write_metrics(folder: Path, epochs: list[EpochRow], metric: str) -> None:
    """Write ``metrics.csv``, with a row for each epoch; its header names the metric."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_header(metric))
    writer.writerows(epochs)
    write_whole(folder / "metrics.csv", table.getvalue())


def _header(metric: str) -> list[str]:
    return [name.replace("_metric", f"_{metric}") for name in EpochRow._fields]


def named_metrics(row: EpochRow, metric: str) -> dict[str, float]:
    """Return the values of an epoch that are not None, by their names in ``metrics.csv``."""
    return {k: v for k, v in zip(_header(metric), row, strict=True) if v is not None}


def read_result(folder: Path, trial: Trial, recipe: Recipe) -> Result | None:
    """Return the result of a finished trial; None for an unfinished one.

    A trial is unfinished if its ``result.json`` is missing, which is written last.

    Raises:
        UserError: if the result is invalid, or disagrees with the recipe or the metrics, or if the
            metrics are missing or damaged.
    """
    path = folder / "result.json"
    try:
        result = Result.model_validate_json(path.read_bytes())
        rows = read_metrics(folder, result.metric)
    except FileNotFoundError:
        return None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        wrong = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    else:
        wrong = _disagreement(result, rows, trial, recipe)
        task = result.origin["data"]["task"]
        changed = changed_settings(result.settings, recipe, trial, task=task)
        if not wrong and changed:
            raise UserError(
                f"{folder}: the recipe has changed since this trial finished ({changed}). Undo "
                "the change, add an arm with the new settings, or choose another folder with --out."
            )
    if wrong:
        raise UserError(
            f"{path} is invalid ({wrong}). Delete the folder {folder} to train this trial again."
        )
    return result


def _disagreement(result: Result, rows: list[EpochRow], trial: Trial, recipe: Recipe) -> str:
    """Return where a result disagrees with its metrics and the recipe, or ``""``."""
    epochs = recipe.training_of(trial.arm).epochs
    expected = trial._asdict() | {"epochs": epochs, "epochs in metrics.csv": epochs}
    for name in ("test_metric", "test_loss", "memorized") if rows else ():
        expected[name] = getattr(rows[-1], name)
    counts = {"epochs in metrics.csv": len(rows)}
    found = {name: value for name, value in (dict(result) | counts).items() if name in expected}
    return "; ".join(differences(found, expected))


def read_metrics(folder: Path, metric: str) -> list[EpochRow]:
    """Read the ``metrics.csv`` of a trial.

    Args:
        folder: folder of the trial.
        metric: the primary one, which the file has to have.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = folder / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
            if header != _header(metric):
                raise ValueError(f"expected the columns {', '.join(_header(metric))}")
            read = [_EPOCH_ROW.validate_python([v or None for v in line]) for line in lines]
        if [row.epoch for row in read] != list(range(1, len(read) + 1)):
            raise ValueError("expected all epochs from 1 on")
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is missing or damaged. Delete its folder to train this trial again."
        ) from error
    return read
