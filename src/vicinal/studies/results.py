"""Trials and what came out of them, as files in a study's folder."""

import csv
import io
import re
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pydantic

from vicinal.errors import UserError
from vicinal.files import write_whole
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
    """Return what a condition is called.

    Example:
        >>> condition_name(0.0), condition_name(0.4)
        ('true labels', '40% corrupted')
    """
    if not corrupted:
        return "true labels"
    percent = Decimal(repr(float(corrupted))).scaleb(2).normalize()  # exact, so that names differ
    return f"{percent:f}% corrupted"


def trials_of(recipe: Recipe) -> list[Trial]:
    """Return every trial of a study; the arms of one seed stand together, to be compared early."""
    return [
        Trial(arm, corrupted, seed)
        for seed in range(recipe.seeds)
        for corrupted in recipe.corrupted_labels
        for arm in recipe.arms
    ]


class EpochRow(NamedTuple):
    """What is measured after an epoch. Losses in nats, shares as fractions.

    ``lr`` is the largest learning rate of the last step. ``train_loss`` is the loss that was
    minimised: of blended batches, where an arm blends. ``memorised`` is None where no label is
    wrong. ``seconds`` have passed since the trial began, tests included.
    """

    epoch: int
    lr: float
    train_loss: float
    test_loss: float
    test_accuracy: float
    memorised: float | None
    seconds: float


class Result(pydantic.BaseModel):
    """The end of a trial; accuracies and shares are fractions, time is in seconds."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    arm: str
    corrupted: float
    seed: int
    epochs: int
    test_examples: int
    test_accuracy: float
    test_loss: float
    memorised: float | None
    seconds: float
    versions: dict[str, str]
    hardware: dict[str, str]


def write_result(folder: Path, result: Result, epochs: list[EpochRow]) -> None:
    """Write ``metrics.csv``, then ``result.json``, whose being there says that all is."""
    write_metrics(folder, epochs)
    write_whole(folder / "result.json", result.model_dump_json(indent=2) + "\n")


def write_metrics(folder: Path, epochs: list[EpochRow]) -> None:
    """Write ``metrics.csv``: a line for each epoch."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(EpochRow._fields)
    writer.writerows(epochs)
    write_whole(folder / "metrics.csv", table.getvalue())


def read_result(folder: Path, trial: Trial) -> Result | None:
    """Return the result of a trial, or None where there is none that is whole and its own."""
    try:
        result = Result.model_validate_json((folder / "result.json").read_bytes())
        whole = len(read_metrics(folder)) == result.epochs
    except (OSError, UserError, pydantic.ValidationError):
        return None
    own = (result.arm, result.corrupted, result.seed) == trial
    return result if whole and own else None


def read_metrics(folder: Path) -> list[EpochRow]:
    """Read the ``metrics.csv`` of a trial.

    Raises:
        UserError: if it is not what ``write_result`` wrote.
    """
    path = folder / "metrics.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [
            EpochRow(
                int(row["epoch"]),
                float(row["lr"]),
                float(row["train_loss"]),
                float(row["test_loss"]),
                float(row["test_accuracy"]),
                float(row["memorised"]) if row["memorised"] else None,
                float(row["seconds"]),
            )
            for row in rows
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not readable; delete its folder to train it again") from error
