"""One trial alone, in its own folder: ``vicinal train``."""

import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from vicinal.errors import TrialError, UserError, unknown
from vicinal.files import STATE, WEIGHTS, write_whole
from vicinal.training.arm_checks import check_arms
from vicinal.training.arms import imported_policies
from vicinal.training.devices import check_processes, hardware_errors_explained
from vicinal.training.loggers import check_loggers, make_loggers
from vicinal.training.origin import check_unchanged
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.recipe_warnings import code_warnings, data_warnings, unused_settings
from vicinal.training.run_folder import differences, locked
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
    loggers: Sequence[str] = ("tensorboard",),
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - a tuple, which does not change
) -> Result | None:
    """Train one arm with one seed in its own folder.

    Args:
        recipe: recipe of a study.
        trial: one of its trials.
        folder: for recipe, metrics, checkpoint and result. Without ``resume`` it has to be empty
            or missing.
        resume: resume the trial in the folder, or start it if there is none. The result of a
            finished trial is only read.
        devices: number of devices per machine.
        nodes: number of machines.
        loggers: names; see ``vicinal.training.loggers.make_loggers``.
        callbacks: what the first process calls; ``loggers`` are added.

    Returns:
        The result; None in all processes but the first.

    Raises:
        UserError: if there is no such arm, the folder holds something else or a trial with
            different settings, or training fails.
    """
    _check(recipe, trial)
    check_loggers(loggers)
    check_processes(devices, nodes)
    settings = recipe.training_of(trial.arm)
    fabric = fabric_for(settings, devices=devices, nodes=nodes)
    first = fabric.is_global_zero
    callbacks = callbacks if first else Callbacks()
    with ExitStack() as stack:
        stack.enter_context(hardware_errors_explained(settings.batch_size))
        if first:
            stack.enter_context(locked(folder))
            _settle(recipe, trial, folder, resume)
            for sentence in (
                *code_warnings(recipe),
                *unused_settings(recipe, [trial.arm], devices=devices * nodes),
            ):
                callbacks.log(sentence)
        fabric.barrier()
        finished = read_result(folder, trial, recipe)
        if finished is not None:
            if first:
                if saved_epoch(folder) != finished.epochs:
                    raise UserError(
                        f"{folder} has a result, but {WEIGHTS} is missing, damaged, or not of the "
                        f"last epoch, {finished.epochs}. Delete the folder to train again."
                    )
                (folder / STATE).unlink(missing_ok=True)
            return finished if first else None

        def on_skipped(split: str, sentences: Sequence[str]) -> None:
            callbacks.log(f"skipped in the {split} split: {sentences[0]} ...")

        data = load_data(recipe, on_skipped, split=trial.split)
        warnings = check_arms(recipe, data, [trial.arm])
        if first:
            for sentence in (*data_warnings(recipe, data, [trial.arm]), *warnings):
                callbacks.log(sentence)
            stated = json.loads(recipe.model_dump_json()) | trial._asdict()
            made = make_loggers(loggers, folder, run=trial.folder, settings=stated)
            callbacks = callbacks._replace(loggers=[*callbacks.loggers, *made])
        try:
            result = run_trial(recipe, trial, data, folder, fabric=fabric, callbacks=callbacks)
        except BaseException as error:
            for logger in callbacks.loggers:
                with suppress(Exception):  # the error that stopped training is more useful
                    logger.finalize("failed")
            if isinstance(error, TrialError) and (folder / STATE).exists():
                raise TrialError(f"{error} The state of the last good epoch is kept.") from error
            raise
        for logger in callbacks.loggers:
            logger.finalize("success")
        return result if first else None


def _check(recipe: Recipe, trial: Trial) -> None:
    """Raise if a trial does not fit its recipe, or its code is not that of the files."""
    if trial.arm not in recipe.arms:
        raise UserError(unknown("arm", trial.arm, recipe.arms))
    if not 0 <= trial.corrupted <= 1:
        raise UserError(f"--corrupted: expected a fraction from 0 to 1, got {trial.corrupted}.")
    check_unchanged([recipe.model.name, *imported_policies(recipe.arms[trial.arm])])


def _settle(recipe: Recipe, trial: Trial, folder: Path, resume: bool) -> None:
    """Make sure that the folder holds this trial and no other, and write its recipe."""
    path, stated = folder / "recipe.toml", folder / _TRIAL
    names = {one.name for one in folder.iterdir() if not one.name.startswith(".")}
    names -= {_TRIAL, path.name}
    begun = {STATE, WEIGHTS, "metrics.csv", "result.json"} & names
    # Otherwise the folder is empty, or of a trial that failed to start, perhaps without data.
    if names and not (path.exists() and stated.exists()):
        raise UserError(
            f"{folder}: expected a trial or an empty folder, got other files. Choose another "
            "folder with --out."
        )
    if begun and not resume:
        raise UserError(
            f"{folder} already holds a trial. Resume it with --resume, or choose another folder "
            "with --out."
        )
    if begun and (changed := _changed(recipe, trial, path, stated)):
        raise UserError(
            f"{folder} holds a trial with different settings: {'; '.join(changed)}. Resume it with "
            "its own settings, or choose another folder with --out."
        )
    write_whole(stated, json.dumps(trial._asdict(), indent=2) + "\n")
    write_whole(path, resolved_text(recipe))


def _changed(recipe: Recipe, trial: Trial, path: Path, stated: Path) -> list[str]:
    """Return a clause for each setting that differs from those in a folder."""
    try:
        old_trial = Trial(**json.loads(stated.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{stated} cannot be read, so the folder holds no trial. Choose another folder with "
            "--out."
        ) from error
    changed = differences(old_trial._asdict(), trial._asdict())
    old = load_resolved(path)
    if not changed and trial.arm in old.arms:
        changed = differences(settings_of(old, trial), settings_of(recipe, trial))
    return [one.removeprefix("recipe.") for one in changed]
