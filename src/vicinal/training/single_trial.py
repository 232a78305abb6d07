"""One trial by itself, in its own folder: ``vicinal train``."""

import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from vicinal.errors import UserError, unknown
from vicinal.files import STATE, WEIGHTS, write_whole
from vicinal.training.devices import hardware_errors_explained
from vicinal.training.loggers import check_loggers, make_loggers
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.recipe_warnings import code_warnings, data_warnings, unused_settings
from vicinal.training.run_folder import LOCK, differences, locked
from vicinal.training.settings import Recipe
from vicinal.training.trial import Callbacks, fabric_for, run_trial
from vicinal.training.trial_checkpoint import saved_epoch
from vicinal.training.trial_result import Result, Trial, read_result, settings_of
from vicinal.training.trial_setup import load_data

_TRIAL = "trial.json"


def train_one(
    recipe: Recipe,
    trial: Trial,
    folder: Path,
    *,
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "ddp",
    loggers: Sequence[str] = ("tensorboard",),
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - a tuple, which does not change
) -> Result | None:
    """Train one arm with one seed in its own folder.

    Args:
        recipe: of a study.
        trial: one of its trials.
        folder: for recipe, metrics, checkpoint and result. Without ``resume`` it has to be empty
            or missing.
        resume: resume the training in the folder, or start it if there is none. A finished
            training is only read.
        devices: number of devices per machine.
        nodes: number of machines.
        strategy: for several devices.
        loggers: names; see ``vicinal.training.loggers.make_loggers``.
        callbacks: what the first process calls; ``loggers`` are added.

    Returns:
        The result; None in all processes but the first.

    Raises:
        UserError: if there is no such arm, the folder holds something else or a training with
            other settings, or the training fails.
    """
    if trial.arm not in recipe.arms:
        raise UserError(unknown("arm", trial.arm, recipe.arms))
    check_loggers(loggers)
    settings = recipe.training_of(trial.arm)
    fabric = fabric_for(settings, devices=devices, nodes=nodes, strategy=strategy)
    first = fabric.is_global_zero
    with ExitStack() as stack:
        stack.enter_context(hardware_errors_explained(settings.batch_size))
        if first:
            stack.enter_context(locked(folder))
            _settle(recipe, trial, folder, resume)
            unused = unused_settings(
                recipe, [trial.arm], devices=devices * nodes, strategy=strategy
            )
            for sentence in (*code_warnings(recipe), *unused):
                callbacks.log(sentence)
        fabric.barrier()
        finished = read_result(folder, trial, recipe)
        if finished is not None:
            if first:
                _check_checkpoint(folder, finished)
                (folder / STATE).unlink(missing_ok=True)
            return finished if first else None

        def on_skipped(split: str, sentences: Sequence[str]) -> None:
            callbacks.log(f"skipped in the {split} split: {sentences[0]} ...")

        data = load_data(recipe, on_skipped)
        if first:
            for sentence in data_warnings(recipe, data, [trial.arm]):
                callbacks.log(sentence)
            stated = json.loads(recipe.model_dump_json()) | trial._asdict()
            made = make_loggers(loggers, folder, run=trial.folder, settings=stated)
            callbacks = callbacks._replace(loggers=[*callbacks.loggers, *made])
        else:
            callbacks = Callbacks()
        try:
            result = run_trial(recipe, trial, data, folder, fabric=fabric, callbacks=callbacks)
        except BaseException:
            for logger in callbacks.loggers:
                with suppress(Exception):  # the error of the training says more
                    logger.finalize("failed")
            raise
        for logger in callbacks.loggers:
            logger.finalize("success")
        return result if first else None


def _check_checkpoint(folder: Path, result: Result) -> None:
    """Raise if a finished training does not have the checkpoint of its last epoch."""
    epoch = saved_epoch(folder)
    if epoch != result.epochs:
        has = "that cannot be read" if epoch is None else f"of epoch {epoch}"
        has = f"a checkpoint {has}" if (folder / WEIGHTS).exists() else "no checkpoint"
        raise UserError(
            f"{folder} has the result of {result.epochs} epochs, but {has}; delete the folder to "
            "train again"
        )


def _settle(recipe: Recipe, trial: Trial, folder: Path, resume: bool) -> None:
    """Make sure that the folder holds this trial and no other, and write its recipe."""
    path, stated = folder / "recipe.toml", folder / _TRIAL
    names = {entry.name for entry in folder.iterdir()} - {LOCK, _TRIAL, path.name}
    begun = {STATE, WEIGHTS, "metrics.csv", "result.json"} & names
    # Otherwise the folder is empty, or of a training that failed to start, perhaps without data.
    if begun or (names and not (path.exists() and stated.exists())):
        _check_same(recipe, trial, folder, resume)
    write_whole(stated, json.dumps(trial._asdict(), indent=2) + "\n")
    write_whole(path, resolved_text(recipe))


def _check_same(recipe: Recipe, trial: Trial, folder: Path, resume: bool) -> None:
    """Raise if a folder holds no training, or one with other settings."""
    path = folder / "recipe.toml"
    if not path.exists():
        raise UserError(
            f"{folder}: expected a training or an empty folder, got other files (without "
            "recipe.toml); choose another folder with --out"
        )
    if not resume:
        raise UserError(
            f"{folder} already holds a training: resume it with --resume, or choose another "
            "folder with --out"
        )
    try:
        with (folder / _TRIAL).open(encoding="utf-8") as file:
            old_trial = Trial(**json.loads(file.read(10_000)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / _TRIAL} cannot be read, so the folder holds no training; choose another "
            "folder with --out"
        ) from error
    changed = differences(old_trial._asdict(), trial._asdict())
    old = load_resolved(path)
    if not changed and trial.arm in old.arms:
        changed = differences(settings_of(old, trial), settings_of(recipe, trial))
    if changed:
        words = "; ".join(one.removeprefix("recipe.") for one in changed)
        raise UserError(
            f"{folder} holds a training with other settings: {words}; resume it with its own "
            "settings, or choose another folder with --out"
        )
