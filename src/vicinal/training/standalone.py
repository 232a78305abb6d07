"""One trial by itself, in a folder of its own: ``vicinal train``."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from vicinal.errors import UserError, unknown
from vicinal.files import STATE, WEIGHTS, write_whole
from vicinal.training.engine import troubles_in_words
from vicinal.training.loggers import check_loggers, loggers_named
from vicinal.training.recipe import load_resolved, resolved_text
from vicinal.training.recipe_data import code_that_runs, first_lines, load_data
from vicinal.training.run_folder import LOCK, alone_in, differences
from vicinal.training.settings import Recipe
from vicinal.training.trial import Callbacks, fabric_for, run_trial
from vicinal.training.trial_checkpoint import saved_epoch
from vicinal.training.trial_result import EpochRow, Result, Trial, read_result, settings_of
from vicinal.training.unused_settings import idle_settings

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
    on_epoch: Callable[[EpochRow], None] = lambda _row: None,
    say: Callable[[str], None] = lambda _sentence: None,
) -> Result | None:
    """Train one arm with one seed.

    Args:
        recipe: of a study.
        trial: which of its arms, conditions and seeds.
        folder: where recipe, metrics, checkpoint and result go; empty or not there, except to
            resume.
        resume: go on with what is in the folder, from its last checkpoint or from the start where
            there is none yet; what is finished is only read.
        devices: of each machine.
        nodes: machines.
        strategy: of several devices.
        loggers: names; see ``loggers_named``.
        on_epoch: takes the row of each epoch; in the first process alone.
        say: takes a sentence for people; in the first process alone.

    Returns:
        The result; None in all processes but the first.

    Raises:
        UserError: if there is no such arm, the folder holds something else, a setting differs from
            what is to be resumed (it is named), or training fails.
    """
    if trial.arm not in recipe.arms:
        raise UserError(unknown("arm", trial.arm, recipe.arms))
    check_loggers(loggers)
    settings = recipe.training_of(trial.arm)
    fabric = fabric_for(settings, devices=devices, nodes=nodes, strategy=strategy)
    first = fabric.is_global_zero
    with ExitStack() as stack:
        stack.enter_context(troubles_in_words(settings.batch_size))
        if first:
            stack.enter_context(alone_in(folder))
            _settle(recipe, trial, folder, resume)
            idle = idle_settings(recipe, [trial.arm], devices=devices * nodes, strategy=strategy)
            for sentence in (*code_that_runs(recipe), *idle):
                say(sentence)
        fabric.barrier()
        there = read_result(folder, trial, recipe)
        if there is not None:
            if first:
                _check_checkpoint(folder, there)
                (folder / STATE).unlink(missing_ok=True)
            return there if first else None
        data = load_data(recipe, lambda part, all_: say(f"left out of {part}: {all_[0]} ..."))
        for sentence in first_lines(recipe, data, [trial.arm]) if first else ():
            say(sentence)
        told = Callbacks()
        if first:
            wanted = json.loads(recipe.model_dump_json()) | trial._asdict()
            logging = loggers_named(loggers, folder, run=trial.folder, settings=wanted)
            told = Callbacks(on_epoch, say, logging)
        try:
            result = run_trial(recipe, trial, data, folder, fabric=fabric, told=told)
        except BaseException:
            for logger in told.loggers:
                with suppress(Exception):  # what stopped the training says more
                    logger.finalize("failed")
            raise
        for logger in told.loggers:
            logger.finalize("success")
        return result if first else None


def _check_checkpoint(folder: Path, result: Result) -> None:
    """Refuse a finished training without the network that its result is of."""
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
    if begun or (names and not (path.exists() and stated.exists())):
        _compare(recipe, trial, folder, resume)
    # Else it is empty, or a training left it that could not begin, for want of data perhaps.
    write_whole(stated, json.dumps(trial._asdict(), indent=2) + "\n")
    write_whole(path, resolved_text(recipe))


def _compare(recipe: Recipe, trial: Trial, folder: Path, resume: bool) -> None:
    """Refuse a folder whose training depends on other settings."""
    path = folder / "recipe.toml"
    if not path.exists():
        raise UserError(
            f"{folder} holds something else than a training (there is no recipe.toml in it); "
            "choose another folder with --out"
        )
    if not resume:
        raise UserError(
            f"{folder} holds a training already: add --resume to go on with it, or choose another "
            "folder with --out"
        )
    try:
        with (folder / _TRIAL).open(encoding="utf-8") as file:
            its_trial = Trial(**json.loads(file.read(10_000)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder} holds no training ({_TRIAL} cannot be read); choose another folder"
        ) from error
    differing = differences(its_trial._asdict(), trial._asdict())
    there = load_resolved(path)
    if not differing and trial.arm in there.arms:
        differing = differences(settings_of(there, trial), settings_of(recipe, trial))
    if differing:
        words = "; ".join(one.removeprefix("recipe.") for one in differing)
        raise UserError(
            f"{folder} holds a different training: {words}; resume it with the settings that it "
            "has, or choose another folder with --out"
        )
