"""Trials and their results, as files in the folder of a study."""

import csv
import io
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pydantic

from vicinal.errors import UserError
from vicinal.files import write_whole
from vicinal.training.origin import checked_origin
from vicinal.training.run_folder import differences, flat
from vicinal.training.settings import Recipe


class Trial(NamedTuple):
    """One arm under one condition with one seed."""

    arm: str
    corrupted: float
    seed: int

    @property
    def folder(self) -> str:
        """The name of its folder.

        Example:
            >>> Trial("mixup", 0.4, 2).folder
            'mixup-40-corrupted-seed2'
        """
        condition = re.sub(r"[^a-z0-9.]+", "-", condition_name(self.corrupted))
        return f"{self.arm}-{condition}-seed{self.seed}"


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
        Trial(arm, corrupted, seed)
        for seed in range(recipe.seeds)
        for corrupted in recipe.corrupted_labels
        for arm in recipe.arms
    ]


_Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
_Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]


class EpochRow(NamedTuple):
    """The metrics of an epoch. Losses are in nats; ``memorized`` and accuracies are fractions.

    ``lr`` is the largest learning rate of the last step. ``train_loss`` is the loss that is
    minimized: the loss of blended batches, if the arm mixes. ``memorized`` is None if no label is
    wrong. ``seconds`` is the time since the trial began, including evaluation.
    """

    epoch: int
    lr: float
    train_loss: float
    test_loss: float
    test_accuracy: _Fraction
    memorized: _Fraction | None
    seconds: float


_EPOCH_ROW = pydantic.TypeAdapter(EpochRow)


class Result(pydantic.BaseModel):
    """The result of a trial; accuracies and ``memorized`` are fractions.

    ``settings`` are those that the result depends on, ``origin`` describes data, network and
    versions (see ``vicinal.training.origin``), ``tested`` counts the test examples of each class,
    without skipped ones, and ``correct`` the correctly predicted ones. Results of earlier versions
    have none of these four fields.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    arm: str
    corrupted: _Fraction
    seed: int
    epochs: pydantic.PositiveInt
    test_examples: pydantic.PositiveInt
    test_accuracy: _Fraction
    test_loss: _Finite
    memorized: _Fraction | None
    seconds: _Finite
    settings: dict[str, Any] = {}
    origin: dict[str, Any] = {}
    tested: tuple[pydantic.NonNegativeInt, ...] = ()
    correct: tuple[pydantic.NonNegativeInt, ...] = ()
    versions: dict[str, str]
    hardware: dict[str, str]

    @pydantic.model_validator(mode="after")
    def _check_counts(self) -> "Result":
        if self.origin:
            classes = len(checked_origin(self.origin)["data"]["classes"])
            if not classes == len(self.tested) == len(self.correct):
                raise ValueError(f"tested, correct: expected {classes} counts")
        if any(correct > all_ for correct, all_ in zip(self.correct, self.tested, strict=False)):
            raise ValueError("correct: expected at most the counts of tested")
        return self


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
    return None if changed_settings(failure.settings, recipe, trial) else failure


def settings_of(recipe: Recipe, trial: Trial) -> dict[str, Any]:
    """Return the settings that the result of a trial depends on, as plain values for JSON."""
    where: Any = {"data": {"root", "max_bytes"}}  # has no effect on the result
    plain = json.loads(recipe.model_dump_json(include={"seed", "data", "model"}, exclude=where))
    training = json.loads(recipe.training_of(trial.arm).model_dump_json())
    arm = json.loads(recipe.arms[trial.arm].model_dump_json(exclude={"title", "training"}))
    return {**trial._asdict(), "recipe": plain, "training": training, trial.arm: arm}


def changed_settings(before: Mapping[str, Any], recipe: Recipe, trial: Trial) -> str:
    """Return the settings of a trial that have changed as one clause, or ``""``.

    Settings that only one version of vicinal has are not compared.
    """
    new = settings_of(recipe, trial)
    return "; ".join(differences(before, new, flat(before).keys() ^ flat(new).keys()))


def write_result(folder: Path, result: Result, epochs: list[EpochRow]) -> None:
    """Write ``metrics.csv``, and then ``result.json``, which marks the trial as finished."""
    write_metrics(folder, epochs)
    write_whole(folder / "result.json", result.model_dump_json(indent=2) + "\n")


def write_metrics(folder: Path, epochs: list[EpochRow]) -> None:
    """Write ``metrics.csv``, with a row for each epoch."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(EpochRow._fields)
    writer.writerows(epochs)
    write_whole(folder / "metrics.csv", table.getvalue())


def read_result(folder: Path, trial: Trial, recipe: Recipe) -> Result | None:
    """Return the result of a finished trial; None for an unfinished one.

    A trial is unfinished if its ``result.json`` or ``metrics.csv`` is missing or truncated.

    Raises:
        UserError: if the result is invalid, or disagrees with the recipe or the metrics.
    """
    path = folder / "result.json"
    try:
        rows = read_metrics(folder)
        result = Result.model_validate_json(path.read_bytes())
    except (FileNotFoundError, UserError):
        return None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return None
        wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        if len(rows) < result.epochs:
            return None
        wrong = _disagreement(result, rows, trial, recipe)
    if wrong:
        raise UserError(
            f"{path} is invalid ({wrong}). Delete the folder {folder} to train this trial again."
        )
    return result


def _disagreement(result: Result, rows: list[EpochRow], trial: Trial, recipe: Recipe) -> str:
    """Return where a result disagrees with its metrics, its counts and the recipe, or ``""``."""
    epochs = recipe.training_of(trial.arm).epochs
    expected = trial._asdict() | {"epochs": epochs, "epochs in metrics.csv": epochs}
    for name in ("test_accuracy", "test_loss", "memorized"):
        expected[name] = getattr(rows[-1], name)
    if result.tested:
        right = round(result.test_accuracy * result.test_examples)
        expected |= {"test_examples": sum(result.tested), "sum of correct": right}
    sums = {"epochs in metrics.csv": len(rows), "sum of correct": sum(result.correct)}
    found = {name: value for name, value in (dict(result) | sums).items() if name in expected}
    return "; ".join(differences(found, expected)) or changed_settings(
        result.settings, recipe, trial
    )


def read_metrics(folder: Path) -> list[EpochRow]:
    """Read the ``metrics.csv`` of a trial.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = folder / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            read = [
                _EPOCH_ROW.validate_python({k: v or None for k, v in row.items()})
                for row in csv.DictReader(file)
            ]
        if [row.epoch for row in read] != list(range(1, len(read) + 1)):
            raise ValueError("expected all epochs from 1 on")
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is missing or damaged. Delete its folder to train this trial again."
        ) from error
    return read
