"""Saves and resumes a trial.

Until the result is written, the state file is the only source of truth: metrics and checkpoint
are derived from it, and are written again when a trial resumes. The result is written last. Once it
exists, the trial is finished, and the state is deleted.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

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
)
from vicinal.training.environment import hardware, versions
from vicinal.training.evaluation import Predictions
from vicinal.training.loop import Learner, TrainingProgress
from vicinal.training.memory import peak_memory
from vicinal.training.metrics import METRICS, constant_value
from vicinal.training.origin import check_origin
from vicinal.training.settings import Recipe
from vicinal.training.task import Task
from vicinal.training.tensor_tree import read_tree, write_tree
from vicinal.training.trial_result import (
    EpochRow,
    Outputs,
    Result,
    Trial,
    changed_settings,
    settings_of,
    write_metrics,
    write_outputs,
    write_result,
)
from vicinal.training.trial_setup import tested_shape


@dataclasses.dataclass
class TrialProgress:
    """How far a trial has come.

    Args:
        training: how far its training has come.
        rows: the metrics of each finished epoch.
        train_metric: the metric of the training examples, after the last epoch.
        outputs: for the test split, after the last finished epoch; None right after resuming.
        best_epoch: the epoch with the best metric on the validation split, if there is one.
        best: the outputs for the test split after that epoch.
        seconds: duration of the trial so far.
    """

    training: TrainingProgress = dataclasses.field(default_factory=TrainingProgress)
    rows: list[EpochRow] = dataclasses.field(default_factory=list)
    outputs: Predictions | None = None
    train_metric: float | None = None
    best_epoch: int | None = None
    best: Tensor | None = None
    seconds: float = 0.0

    def add(self, row: EpochRow, outputs: Predictions, metric: str) -> None:
        """Add a finished epoch, which may be the best one so far."""
        self.rows.append(row)
        self.outputs = outputs
        if row.validation_metric is None:
            return
        sign = 1 if METRICS[metric].higher else -1
        best = None if self.best_epoch is None else self.rows[self.best_epoch - 1].validation_metric
        if best is None or sign * (row.validation_metric - best) > 0:
            self.best_epoch, self.best = row.epoch, outputs.outputs.cpu()


@dataclasses.dataclass
class TrialCheckpointer:
    """Saves and resumes a trial in its folder, which is created if it does not exist."""

    recipe: Recipe
    trial: Trial
    data: DataSet
    task: Task
    normalize: Normalize
    folder: Path
    learner: Learner
    origin: dict[str, Any]
    metric: str

    def __post_init__(self) -> None:
        """Record the identity of the folder."""
        if self.learner.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._identity = self.folder.stat()

    def resume(self, start_over: Callable[[str], None] | None = None) -> TrialProgress:
        """Restore the trial from its state file, if there is one, and return its progress.

        Args:
            start_over: as for ``run_trial``.

        Raises:
            UserError: if the state is damaged, or was written with different settings, data, code
                or versions.
        """
        path = self.folder / STATE
        if not path.exists():
            return TrialProgress()
        try:
            state = read_tree(path)
            old, task = state["settings"], state["origin"]["data"]["task"]
            if changed := changed_settings(old, self.recipe, self.trial, task=task):
                if start_over is not None:
                    start_over(changed)
                    path.unlink()
                    return TrialProgress()
                raise UserError(f"The state has different settings ({changed}).")
            check_origin(state["origin"], self.origin, path)
            progress = TrialProgress(
                restore(self.learner, state["training"], str(path)),
                [EpochRow(*row) for row in state["rows"]],
                None,
                None,
                state["best_epoch"],
                state["best"],
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
                "best_epoch": progress.best_epoch,
                "best": progress.best,
                "seconds": progress.seconds,
                "origin": self.origin,
                "settings": settings_of(self.recipe, self.trial),
            }
            write_tree(self.folder / STATE, state)
            self._write_derived_files(progress)
        self.learner.fabric.barrier()

    def finish(self, progress: TrialProgress) -> Result:
        """Write the result, which marks the trial as finished."""
        last, found = progress.rows[-1], progress.outputs
        assert found is not None
        assert progress.train_metric is not None
        sign = 1 if METRICS[self.metric].higher else -1
        first = self.learner.fabric.is_global_zero
        if first:
            self._check_folder()
            if saved_epoch(self.folder) != last.epoch:
                self._write_checkpoint(last)
        best = None if progress.best is None else progress.best.numpy()
        outputs = Outputs(found.outputs.cpu().numpy(), best, found.targets.cpu().numpy())
        result = Result(
            **self.trial._asdict(),
            epochs=len(progress.rows),
            metric=self.metric,
            test_examples=len(outputs.targets),  # without skipped ones
            test_metric=last.test_metric,
            constant_metric=constant_value(
                self.metric, self.origin["data"]["predictor"], outputs.targets, self.task.name
            ),
            train_metric=progress.train_metric,
            peak_epoch=max(reversed(progress.rows), key=lambda row: sign * row.test_metric).epoch,
            test_loss=last.test_loss,
            best_epoch=progress.best_epoch,
            memorized=last.memorized,
            seconds=round(progress.seconds, 2),
            peak_memory=peak_memory(self.learner.fabric.device),
            settings=settings_of(self.recipe, self.trial),
            origin=self.origin,
            outputs=write_outputs(self.folder, outputs) if first else "",
            versions=versions(),
            hardware=hardware(),
        )
        if first:
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
        write_metrics(self.folder, progress.rows, self.metric)
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
            task=self.task.name,
            epoch=row.epoch,
            test_metric=row.test_metric,
            versions=versions(),
        )
        weights = self.learner.trained.state_dict()
        targets = Normalize(self.task.mean, self.task.std)
        checkpoint = Checkpoint(info=info, inputs=self.normalize, targets=targets, weights=weights)
        write_tree(self.folder / WEIGHTS, checkpoint.model_dump())


def saved_epoch(folder: Path) -> int | None:
    """Return the epoch of the checkpoint in a folder; None if there is none that can be read."""
    try:
        return read_checkpoint(folder / WEIGHTS).info.epoch
    except UserError:
        return None
