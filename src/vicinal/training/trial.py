"""One trial: train one arm under one condition with one seed, and measure it."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from vicinal.data import DataSet
from vicinal.data.threads import cpu_threads
from vicinal.errors import UserError
from vicinal.probes import memorized_fraction
from vicinal.training.arms import Arm, MixingArm, imported_policies, policy_of
from vicinal.training.devices import all_reduce_sum, hardware_errors_explained, make_fabric
from vicinal.training.evaluation import class_counts, predict, score_of
from vicinal.training.loggers import Logger
from vicinal.training.loop import Learner, TrainingProgress, check_finite, make_learner, train
from vicinal.training.memory import memory_kept
from vicinal.training.origin import Origin, check_origin, origin_of
from vicinal.training.settings import Recipe, Training
from vicinal.training.stop_signals import stop_signals
from vicinal.training.trial_checkpoint import TrialCheckpointer
from vicinal.training.trial_result import EpochRow, Result, Trial
from vicinal.training.trial_setup import Loaders, build_network, make_loaders


class Callbacks(NamedTuple):
    """What is called while a trial runs.

    Args:
        epoch: with the metrics of each epoch.
        log: with a sentence for the user.
        loggers: with the metrics of each epoch.
    """

    epoch: Callable[[EpochRow], None] = lambda _row: None
    log: Callable[[str], None] = lambda _sentence: None
    loggers: Sequence[Logger] = ()


def fabric_for(settings: Training, **processes: Any) -> Fabric:
    """Return Fabric for these settings; see ``vicinal.training.devices.make_fabric``."""
    return make_fabric(accelerator=settings.accelerator, precision=settings.precision, **processes)


def run_trial(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - a tuple, which does not change
    expected: Origin | None = None,
) -> Result:
    """Train one arm with one seed, and write metrics, checkpoint and result into a folder.

    All arms of a seed start from the same weights and see the examples in the same order, so that
    their differences are paired. An interrupted trial resumes from its last state.

    Args:
        recipe: the recipe of the study.
        trial: one of the trials of the study.
        data: the data set of the recipe.
        folder: the folder of this trial.
        fabric: devices and processes; by default the one device that the recipe chooses.
        callbacks: functions to call while the trial runs.
        expected: data, code and versions of the other trials of the study, which this trial has to
            share.

    Raises:
        TrialError: if training diverges, or memory runs out.
        UserError: if the device is not available, a signal asks to stop, or data, code or versions
            are not the expected ones.
    """
    settings = recipe.training_of(trial.arm)
    fabric = fabric or fabric_for(settings)
    threads = settings.threads
    if threads is None and fabric.device.type == "cpu" and fabric.world_size > 1:
        processes = getattr(fabric.strategy, "num_processes", 1)  # on this machine
        threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with (
        cpu_threads(threads),
        memory_kept(),
        hardware_errors_explained(settings.batch_size),
        stop_signals() as signals,
    ):
        start = time.perf_counter()
        loaders = make_loaders(recipe, trial, data, fabric)
        model = build_network(recipe, trial, data, loaders)
        policies = [path for arm in recipe.arms.values() for path in imported_policies(arm)]
        origin = origin_of(data, model, recipe.model.name, policies)
        if expected is not None:
            check_origin(expected, origin, folder.parent)
        learner = _make_learner(model, trial.arm, recipe.arms[trial.arm], settings, fabric)
        checkpointer = TrialCheckpointer(
            recipe, trial, data, loaders.normalize, folder, learner, origin
        )
        progress = checkpointer.resume()
        start -= progress.seconds
        for row in progress.rows:
            callbacks.epoch(row)
        for training in train(
            learner,
            loaders.train,
            seed=trial.seed,
            start=progress.training,
            should_stop=lambda: bool(signals),
            log=callbacks.log,
        ):
            epoch_ended = training.step == 0
            progress.training = training
            if epoch_ended:
                row, progress.class_counts = _measure(
                    learner, loaders, training, data, start=start, trial=trial
                )
                progress.rows.append(row)
            # Not all processes may have received the signal.
            received = torch.tensor(float(bool(signals)), device=fabric.device)
            stop = bool(all_reduce_sum(received, fabric=fabric) > 0)
            last = training.epoch == settings.epochs
            due = epoch_ended and training.epoch % settings.checkpoint_every == 0
            progress.seconds = time.perf_counter() - start
            if stop or last or due:
                checkpointer.save(progress)
            if epoch_ended:  # after saving, since a closed terminal cannot be written to
                callbacks.epoch(row)
                for logger in callbacks.loggers:
                    metrics = {k: v for k, v in row._asdict().items() if v is not None}
                    logger.log_metrics(metrics, row.epoch)
            if stop and not last:
                name = signals[0] if signals else "a signal to another process"
                raise UserError(
                    f"stopped by {name} in epoch {training.epoch + 1} of {settings.epochs}. The "
                    "state is saved: run the same command to resume (train: with --resume)."
                )
        progress.seconds = time.perf_counter() - start
        return checkpointer.finish(progress)


def _make_learner(
    model: nn.Module, name: str, arm: Arm, settings: Training, fabric: Fabric
) -> Learner:
    if not isinstance(arm, MixingArm):
        return make_learner(model, settings, fabric=fabric)
    mixed = range(arm.unmixed_epochs_at_start, settings.epochs - arm.unmixed_epochs_at_end)
    try:
        return make_learner(
            model, settings, fabric=fabric, policy=policy_of(arm), at=arm.at, mixed_epochs=mixed
        )
    except UserError:
        raise
    except ValueError as error:  # a layer that an external network does not have
        raise UserError(f"arms.{name}.at: {error}") from error


def _measure(
    learner: Learner,
    loaders: Loaders,
    training: TrainingProgress,
    data: DataSet,
    *,
    start: float,
    trial: Trial,
) -> tuple[EpochRow, list[list[int]]]:
    """Return the metrics of an epoch, and the class counts of the test."""
    fabric = learner.fabric
    if fabric.world_size > 1:  # running statistics differ: use those of the first process
        for buffer in learner.trained.buffers():
            torch.distributed.broadcast(buffer, 0)
    predict_ = partial(predict, learner.trained, fabric=fabric, settings=learner.settings)
    all_sum = partial(all_reduce_sum, fabric=fabric)
    predictions = predict_(loaders.test.epoch(0))
    score = score_of(predictions, all_reduce_sum=all_sum)
    counts = all_sum(class_counts(predictions, len(data.classes))).tolist()
    memorized = None
    if trial.corrupted:
        logits, rows = predict_(loaders.memorized.epoch(0))
        rows = rows.cpu()
        memorized = memorized_fraction(
            logits.argmax(1).cpu(),
            given=loaders.labels[rows],
            true=data.train.targets[rows],
            all_reduce_sum=all_sum,
        )
    check_finite("test", score.loss, training.epoch, learner)
    lr = max(group["lr"] for optimizer in learner.optimizers for group in optimizer.param_groups)
    seconds = round(time.perf_counter() - start, 2)
    row = EpochRow(
        training.epoch, lr, training.mean, score.loss, score.accuracy, memorized, seconds
    )
    return row, counts
