"""Saves and resumes a trial.

Until the result is written, the state file is the only source of truth: metrics and checkpoint
are derived from it, and are written again when a trial resumes. The result is written last. Once it
exists, the trial is finished, and the state is deleted.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from vicinal.data import DataSet, Normalize
from vicinal.errors import UserError
from vicinal.files import STATE, WEIGHTS
from vicinal.models import network_config
from vicinal.training.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    read_checkpoint,
    restore,
    training_state,
    write_checkpoint,
)
from vicinal.training.environment import hardware, versions
from vicinal.training.loop import Learner, TrainingProgress
from vicinal.training.origin import check_origin
from vicinal.training.settings import Recipe
from vicinal.training.tensor_tree import read_tree, write_tree
from vicinal.training.trial_result import (
    EpochRow,
    Result,
    Trial,
    changed_settings,
    settings_of,
    write_metrics,
    write_result,
)
from vicinal.training.trial_setup import tested_shape


@dataclasses.dataclass
class TrialProgress:
    """How far a trial has come.

    Args:
        training: how far its training has come.
        rows: the metrics of each finished epoch.
        class_counts: test examples of each class, and the correctly predicted ones.
        seconds: duration of the trial so far.
    """

    training: TrainingProgress = dataclasses.field(default_factory=TrainingProgress)
    rows: list[EpochRow] = dataclasses.field(default_factory=list)
    class_counts: list[list[int]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass
class TrialCheckpointer:
    """Saves and resumes a trial in its folder, which is created if it does not exist."""

    recipe: Recipe
    trial: Trial
    data: DataSet
    normalize: Normalize
    folder: Path
    learner: Learner
    origin: dict[str, Any]

    def __post_init__(self) -> None:
        """Record the identity of the folder."""
        if self.learner.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._identity = self.folder.stat()

    def resume(self) -> TrialProgress:
        """Restore the trial from its state file, if there is one, and return its progress.

        Raises:
            UserError: if the state is damaged, or was written with different settings, data, code
                or versions.
        """
        path = self.folder / STATE
        if not path.exists():
            return TrialProgress()
        try:
            state = read_tree(path)
            if changed := changed_settings(state["settings"], self.recipe, self.trial):
                raise UserError(f"It was trained with different settings ({changed}).")
            check_origin(state["origin"], self.origin, path)
            progress = TrialProgress(
                restore(self.learner, state["training"], str(path)),
                [EpochRow(*row) for row in state["rows"]],
                state["class_counts"],
                float(state["seconds"]),
            )
        except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: this trial cannot resume. {error} Delete this file to train it from the "
                "start."
            ) from error
        if self.learner.fabric.is_global_zero:
            self._write_derived_files(progress)
        return progress

    def save(self, progress: TrialProgress) -> None:
        """Write the state, and then the metrics and the checkpoint.

        Raises:
            UserError: if a file cannot be written, or the folder was moved or deleted.
        """
        training = training_state(self.learner, progress.training)
        if self.learner.fabric.is_global_zero:
            self._check_folder()
            state = {
                "training": training,
                "rows": [list(row) for row in progress.rows],
                "class_counts": progress.class_counts,
                "seconds": progress.seconds,
                "origin": self.origin,
                "settings": settings_of(self.recipe, self.trial),
            }
            write_tree(self.folder / STATE, state)
            self._write_derived_files(progress)
        self.learner.fabric.barrier()

    def finish(self, progress: TrialProgress) -> Result:
        """Write the result, which marks the trial as finished."""
        last = progress.rows[-1]
        tested, correct = progress.class_counts
        result = Result(
            **self.trial._asdict(),
            epochs=len(progress.rows),
            test_examples=sum(tested),  # without skipped ones
            test_accuracy=last.test_accuracy,
            test_loss=last.test_loss,
            memorized=last.memorized,
            seconds=round(progress.seconds, 2),
            settings=settings_of(self.recipe, self.trial),
            origin=self.origin,
            tested=tuple(tested),
            correct=tuple(correct),
            versions=versions(),
            hardware=hardware(),
        )
        if self.learner.fabric.is_global_zero:
            self._check_folder()
            if saved_epoch(self.folder) != last.epoch:
                self._write_checkpoint(last)
            write_result(self.folder, result, progress.rows)
            (self.folder / STATE).unlink(missing_ok=True)
        self.learner.fabric.barrier()
        return result

    def _check_folder(self) -> None:
        try:
            same = os.path.samestat(self.folder.stat(), self._identity)
        except FileNotFoundError:
            same = False
        if not same:
            raise UserError(
                f"{self.folder}: the folder was moved or deleted during training. If it was "
                "moved, run the command again with its new path as --out. For vicinal train, also "
                "pass --resume."
            )

    def _write_derived_files(self, progress: TrialProgress) -> None:
        write_metrics(self.folder, progress.rows)
        # Within an epoch the weights are not those that the last row measured, so the checkpoint
        # of an earlier epoch stays.
        if progress.rows and progress.training.step == 0:
            self._write_checkpoint(progress.rows[-1])

    def _write_checkpoint(self, row: EpochRow) -> None:
        info = CheckpointInfo(
            recipe=self.recipe,
            **self.trial._asdict(),
            shape=tested_shape(self.recipe.data, self.data.test),
            network=network_config(self.learner.model),
            classes=self.data.classes,
            preparation=dict(self.data.preparation),
            origin=self.origin,
            epoch=row.epoch,
            test_accuracy=row.test_accuracy,
            versions=versions(),
        )
        weights = self.learner.trained.state_dict()
        checkpoint = Checkpoint(info=info, inputs=self.normalize, weights=weights)
        write_checkpoint(self.folder / WEIGHTS, checkpoint)


def saved_epoch(folder: Path) -> int | None:
    """Return the epoch of the checkpoint in a folder; None if there is none that can be read."""
    try:
        return read_checkpoint(folder / WEIGHTS).info.epoch
    except UserError:
        return None
