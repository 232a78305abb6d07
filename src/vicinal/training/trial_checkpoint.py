"""Saves and resumes a trial.

The state file is the only source of truth until the result is written: the metrics and the
checkpoint follow from it, and are written again whenever a trial resumes. The result is written
last; once it exists, the trial is finished and the state is deleted.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from vicinal.data import DataSet, Normalize
from vicinal.errors import UserError
from vicinal.files import STATE, WEIGHTS
from vicinal.training.augment import evaluation_steps
from vicinal.training.checkpoints import (
    go_on_from,
    read_tree,
    state_of,
    write_tree,
    write_weights,
)
from vicinal.training.environment import hardware, versions
from vicinal.training.loop import Learner, TrainingProgress
from vicinal.training.origin import origin_differs
from vicinal.training.settings import Recipe, Training
from vicinal.training.trial_result import (
    EpochRow,
    Result,
    Trial,
    settings_of,
    settings_that_differ,
    write_metrics,
    write_result,
)


@dataclasses.dataclass
class TrialCheckpointer:
    """A trial that is being trained, and its folder, which is created if it does not exist."""

    recipe: Recipe
    trial: Trial
    settings: Training
    data: DataSet
    normalize: Normalize
    folder: Path
    learned: Learner
    fabric: Fabric
    origin: dict[str, Any]

    def __post_init__(self) -> None:
        """Remember which folder it is."""
        if self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._identity = self.folder.stat()

    def begin(self) -> tuple[TrainingProgress, list[EpochRow], list[list[int]], float]:
        """Return how far the trial had come, its rows, the counts of the test, and the seconds.

        Raises:
            UserError: if the state is damaged, or was written with other settings, data, network
                or versions.
        """
        path = self.folder / STATE
        if not path.exists():
            return TrainingProgress(), [], [], 0.0
        try:
            state = read_tree(path, device="cpu")
            if other := settings_that_differ(state["settings"], self.recipe, self.trial):
                raise UserError(f"it was trained with other settings ({other})")
            origin, counts = state["origin"], state["counts"]
            if other := origin_differs(origin, self.origin):
                raise UserError(f"it was trained with something else than there is now ({other})")
            reached = go_on_from(state["learner"], self.learned, self.fabric, str(path))
            rows, seconds = [EpochRow(*row) for row in state["rows"]], float(state["seconds"])
        except (UserError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"this trial cannot resume: {error}; delete {path} to train it from the start"
            ) from error
        if self.fabric.is_global_zero:
            self._write_what_follows(reached, rows)
        return reached, rows, counts, seconds

    def keep(
        self,
        reached: TrainingProgress,
        rows: list[EpochRow],
        counts: list[list[int]],
        seconds: float,
    ) -> None:
        """Write the state, then what follows from it.

        Raises:
            UserError: if a file cannot be written, or the folder was moved or deleted.
        """
        learner = state_of(self.learned, reached, self.fabric)
        if self.fabric.is_global_zero:
            self._check_folder()
            state = {
                "learner": learner,
                "rows": [list(row) for row in rows],
                "counts": counts,
                "seconds": seconds,
                "origin": self.origin,
                "settings": settings_of(self.recipe, self.trial),
            }
            write_tree(self.folder / STATE, state)
            self._write_what_follows(reached, rows)
        self.fabric.barrier()

    def _check_folder(self) -> None:
        """Refuse to write if the folder is another than at the start."""
        try:
            same = os.path.samestat(self.folder.stat(), self._identity)
        except FileNotFoundError:
            same = False
        if not same:
            raise UserError(
                f"the folder {self.folder} was moved or deleted during the training; if it was "
                "moved, resume with --out and its new place (train: also --resume)"
            )

    def _write_what_follows(self, reached: TrainingProgress, rows: list[EpochRow]) -> None:
        """Write the metrics and, between epochs, the network for use.

        Within an epoch the weights are not those that the last row measured, so the checkpoint
        stays that of an earlier epoch.
        """
        write_metrics(self.folder, rows)
        if rows and reached.step == 0:
            self._write_weights(rows[-1])

    def _write_weights(self, row: EpochRow) -> None:
        settings = self.settings
        about = {
            "network": self.recipe.model.name,
            "shape": list(self._shape()),
            "classes": list(self.data.classes),
            "crops": [step.size for step in evaluation_steps(self.recipe.data.augment)],  # type: ignore[attr-defined]
            "precision": settings.precision,
            "channels_last": settings.channels_last,
            "tta": settings.tta,
            "study": self.recipe.name,
            "data": self.recipe.data.source,
            "root": self.recipe.data.root,
            "skip_bad": self.recipe.data.skip_bad,
            "preparation": self.data.preparation,
            "division": {
                "seed": self.recipe.seed,
                "test_fraction": self.recipe.data.test_fraction,
            },
            "arm": self.trial.arm,
            "corrupted": self.trial.corrupted,
            "seed": self.trial.seed,
            "epoch": row.epoch,
            "test_accuracy": row.test_accuracy,
            "origin": self.origin,
            "versions": versions(),
        }
        inputs = {"mean": self.normalize.mean, "std": self.normalize.std}
        write_weights(self.folder / WEIGHTS, self.learned.tested, about, inputs)

    def _shape(self) -> tuple[int, ...]:
        steps = evaluation_steps(self.recipe.data.augment)
        shape = tuple(self.data.test.inputs.shape[1:])
        return (*shape[:-2], steps[-1].size, steps[-1].size) if steps else shape  # type: ignore[attr-defined]

    def finish(self, rows: list[EpochRow], counts: list[list[int]], seconds: float) -> Result:
        """Write the result, which says that the trial is finished."""
        last = rows[-1]
        result = Result(
            arm=self.trial.arm,
            corrupted=self.trial.corrupted,
            seed=self.trial.seed,
            epochs=len(rows),
            test_examples=sum(counts[0]),  # without those that could not be read
            test_accuracy=last.test_accuracy,
            test_loss=last.test_loss,
            memorized=last.memorized,
            seconds=round(seconds, 2),
            settings=settings_of(self.recipe, self.trial),
            origin=self.origin,
            tested=tuple(counts[0]),
            right=tuple(counts[1]),
            versions=versions(),
            hardware=hardware(),
        )
        if self.fabric.is_global_zero:
            self._check_folder()
            if saved_epoch(self.folder) != last.epoch:
                self._write_weights(last)
            write_result(self.folder, result, rows)
            (self.folder / STATE).unlink(missing_ok=True)
        self.fabric.barrier()
        return result


def saved_epoch(folder: Path) -> int | None:
    """Return the epoch of the checkpoint in a folder; None if there is none that can be read."""
    try:
        epoch: int = read_tree(folder / WEIGHTS)["about"]["epoch"]
        return epoch
    except (UserError, KeyError, TypeError):
        return None
