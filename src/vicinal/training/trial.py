"""One trial: train one arm under one condition with one seed, and measure it."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.data import DataSet, Loader
from vicinal.data.threads import available_cores, cpu_threads
from vicinal.errors import StoppedError, UserError
from vicinal.probes import memorized_fraction
from vicinal.training.arms import MixingArm, imported_policies, policy_of
from vicinal.training.criterion import LOSSES, criterion_of
from vicinal.training.devices import hardware_errors_explained, make_fabric
from vicinal.training.evaluation import Predictions, gathered, mean_loss, predict
from vicinal.training.loggers import Logger
from vicinal.training.loop import Learner, TrainingProgress, check_finite, make_learner, train
from vicinal.training.memory import memory_kept, reset_peak_memory
from vicinal.training.metrics import primary_metric
from vicinal.training.origin import Origin, check_origin, origin_of
from vicinal.training.settings import Recipe, Training
from vicinal.training.stop_signals import stop_signals
from vicinal.training.task import Task, task_of
from vicinal.training.trial_checkpoint import TrialCheckpointer
from vicinal.training.trial_result import EpochRow, Result, Trial, named_metrics
from vicinal.training.trial_setup import (
    Loaders,
    build_network,
    make_loaders,
    own_settings_named,
)


class Callbacks(NamedTuple):
    """What is called while a trial runs.

    Args:
        epoch: with the metrics of each epoch, and the name of the primary metric.
        log: with a sentence for the user.
        loggers: with the metrics of each epoch.
    """

    epoch: Callable[[EpochRow, str], None] = lambda _row, _metric: None
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
    start_over: Callable[[str], None] | None = None,
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
        start_over: is called with the settings that have changed since the state was saved, and
            the trial starts over; by default they are an error.

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
        threads = max(1, available_cores() // processes)
    with (
        cpu_threads(threads),
        memory_kept(),
        own_settings_named(recipe, trial.arm),
        hardware_errors_explained(settings.batch_size),
        stop_signals() as signals,
    ):
        start = time.perf_counter()
        reset_peak_memory(fabric.device)
        task = task_of(data, recipe.task)
        metric = primary_metric(recipe.metrics, task.name)
        loaders = make_loaders(recipe, trial, data, task, fabric)
        model = build_network(recipe, trial, data, task, loaders)
        policies = [path for arm in recipe.arms.values() for path in imported_policies(arm)]
        origin = origin_of(data, model, recipe.model.name, policies, recipe.task)
        if expected is not None:
            check_origin(expected, origin, folder.parent)
        learner = learner_of(
            model, recipe, trial, data, fabric=fabric, task=task, labels=loaders.labels
        )
        checkpointer = TrialCheckpointer(
            recipe, trial, data, task, loaders.normalize, folder, learner, origin, metric
        )
        measure = partial(_measure, learner, loaders, task, metric, data=data, trial=trial)
        progress = checkpointer.resume(start_over)
        start -= progress.seconds
        for row in progress.rows:
            callbacks.epoch(row, metric)
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
                row, outputs = measure(training, start=start)
                progress.add(row, outputs, metric)
            # Not all processes may have received the signal.
            received = torch.tensor(float(bool(signals)), device=fabric.device)
            stop = bool(fabric.all_reduce(received, reduce_op="sum"))
            last = training.epoch == settings.epochs
            due = epoch_ended and training.epoch % settings.checkpoint_every == 0
            progress.seconds = time.perf_counter() - start
            if stop or last or due:
                checkpointer.save(progress)
            if epoch_ended:  # after saving, since a closed terminal cannot be written to
                callbacks.epoch(row, metric)
                for logger in callbacks.loggers:
                    logger.log_metrics(named_metrics(row, metric), row.epoch)
            if stop and not last:
                name = signals[0] if signals else "a signal to another process"
                raise StoppedError(
                    f"stopped by {name} in epoch {training.epoch + 1} of {settings.epochs}. The "
                    "state is saved: run the same command to resume (train: with --resume)."
                )
        read = {"train": loaders.train, "test": loaders.test, "validation": loaders.validation}
        for name, loader in read.items():
            if loader is not None and (skipped := list(loader.skipped)):
                callbacks.log(
                    f"skipped in the {name} split: {skipped[0]} ... ({len(skipped):,} examples)"
                )
        if progress.outputs is None:  # resumed after the last epoch
            progress.outputs = measure(progress.training, start=start)[1]
        progress.train_metric = _train_metric(learner, loaders, task, metric)
        progress.seconds = time.perf_counter() - start
        return checkpointer.finish(progress)


def learner_of(
    model: nn.Module,
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    *,
    fabric: Fabric,
    task: Task,
    labels: Tensor,
) -> Learner:
    """Return what trains an arm; see ``vicinal.training.loop.make_learner``.

    Args:
        model: the network.
        recipe: recipe of the study.
        trial: one of its trials.
        data: its data set.
        fabric: device, precision and processes.
        task: what is predicted.
        labels: the training targets.

    Raises:
        UserError: if the network has no layer of that name, or a setting does not fit the task.
    """
    arm, settings = recipe.arms[trial.arm], recipe.training_of(trial.arm)
    criterion = criterion_of(task, settings, labels.to(fabric.device))
    make = partial(make_learner, model, settings, fabric=fabric, criterion=criterion)
    if not isinstance(arm, MixingArm):
        return make()
    mixed = range(arm.unmixed_epochs_at_start, settings.epochs - arm.unmixed_epochs_at_end)
    try:
        return make(policy=policy_of(arm, data), at=arm.at, mixed_epochs=mixed)
    except UserError:
        raise
    except ValueError as error:  # a layer that an external network does not have
        raise UserError(f"arms.{trial.arm}.at: {error}") from error


def _predictions(learner: Learner, task: Task, loader: Loader) -> Predictions:
    """Return the outputs for all examples of a loader, in the units of the targets."""
    found = predict(
        learner.trained,
        loader.epoch(0),
        fabric=learner.fabric,
        settings=learner.settings,
        task=task.name,
    )
    raw, targets = gathered(found, learner.fabric)
    return Predictions(task.outputs_of(raw), targets)


def _train_metric(learner: Learner, loaders: Loaders, task: Task, metric: str) -> float:
    """Return the metric of the training examples, with the labels that were learned."""
    outputs, rows = _predictions(learner, task, loaders.memorized)
    return Predictions(outputs, loaders.labels.cpu()[rows.cpu()]).metric(metric, task.name)


def _measure(
    learner: Learner,
    loaders: Loaders,
    task: Task,
    metric: str,
    training: TrainingProgress,
    *,
    data: DataSet,
    start: float,
    trial: Trial,
) -> tuple[EpochRow, Predictions]:
    """Return the metrics of an epoch, and the outputs for the test split."""
    fabric = learner.fabric
    if fabric.world_size > 1:  # running statistics differ: use those of the first process
        for buffer in learner.trained.buffers():
            torch.distributed.broadcast(buffer, 0)

    predictions_of = partial(_predictions, learner, task)

    def scored(found: Predictions) -> tuple[float, float]:
        learned = Predictions(task.learned(found.outputs), task.learned(found.targets))
        loss = mean_loss(learned, LOSSES[task.name])
        check_finite("test", loss, training.epoch, learner)
        return loss, found.metric(metric, task.name)

    found = predictions_of(loaders.test)
    loss, value = scored(found)
    held_out: tuple[float | None, float | None] = (None, None)
    if loaders.validation is not None:
        held_out = scored(predictions_of(loaders.validation))
    memorized = None
    if trial.corrupted:
        logits, rows = predictions_of(loaders.memorized)
        rows = rows.cpu()
        memorized = memorized_fraction(
            logits.argmax(1).cpu(), given=loaders.labels[rows], true=data.train.targets[rows]
        )
    lr = max(group["lr"] for optimizer in learner.optimizers for group in optimizer.param_groups)
    seconds = round(time.perf_counter() - start, 2)
    return EpochRow(
        training.epoch, lr, training.mean, loss, value, *held_out, memorized, seconds
    ), found
