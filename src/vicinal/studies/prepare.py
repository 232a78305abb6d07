"""A study of a data set, for which a recipe is generated."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import torch

from vicinal.data import SOURCES, DataSet, data_root, parse_spec
from vicinal.data.recognize import recognized
from vicinal.errors import UserError, unknown
from vicinal.escaping import visible
from vicinal.studies.generate_recipe import FOLDS, RARE, SMALL, generate, study_name
from vicinal.training.arm_shorthands import SHORTHANDS
from vicinal.training.metrics import check_metrics
from vicinal.training.origin import is_grouped
from vicinal.training.recipe import (
    changed_text,
    checked,
    checked_text,
    recipe_text,
    shipped,
)
from vicinal.training.recipe_changes import Changes, change
from vicinal.training.recipe_warnings import note_lines
from vicinal.training.settings import Recipe, Training
from vicinal.training.task import Task, task_of

MINUTES = 10.0
"""Default of the budget of a generated recipe."""

LARGEST_IMAGE = {"cpu": 32, "cuda": 224}
"""The largest side in pixels that a generated recipe chooses for images, by device."""


class Prepared(NamedTuple):
    """A study that can begin.

    Args:
        recipe: recipe of the study.
        text: the recipe as TOML, for the folder of the study.
        folder: folder of the study.
        data: its data set, if it was loaded already.
        of_folder: whether the recipe is that of the folder, with the changes that were asked for.
    """

    recipe: Recipe
    text: str
    folder: Path
    data: DataSet | None = None
    of_folder: bool = False


def prepare(
    what: str,
    *,
    changes: Changes,
    minutes: float | None = None,
    out: Path | None = None,
    log: Callable[[str], None] = lambda _sentence: None,
) -> Prepared:
    """Generate a recipe for a data set.

    The folder of a study of a data set keeps its recipe: if there is one, it is used again.

    Args:
        what: a source such as ``"folder:flowers"``, or a plain path.
        changes: settings to replace.
        minutes: into which seeds and epochs of a generated recipe are fitted.
        out: folder of the study; by default ``runs/NAME``.
        log: is called with sentences on what was guessed and cut.

    Raises:
        UserError: if there is no such data set, or a change does not fit.
    """
    try:
        source = source_of(what, log)
    except UserError:
        if found := _without_data(what, changes, out):
            return found
        raise
    name = study_name(source)
    folder = out or Path("runs") / name
    path = folder / "recipe.toml"
    if path.exists():
        text = changed_text(recipe_text(str(path)), changes)
        recipe = checked_text(text, str(path))
        if _is_edited(recipe.data.source, source, what):
            log(f"{path} reads {recipe.data.source}")
        elif recipe.data.source != source:
            from vicinal.training.trial_setup import read_data

            read_data(_draft(source, changes).data, seed=recipe.seed)  # perhaps a wrong option
            raise UserError(
                f"{folder} holds a study of {recipe.data.source}, not of {source}. Correct the "
                "source, or choose another folder with --out."
            )
        if minutes is not None:
            log(
                f"--minutes has no effect: {path} has seeds and epochs already. For a new study, "
                "choose another folder with --out"
            )
        return Prepared(recipe, text, folder, of_folder=True)
    minutes = MINUTES if minutes is None else minutes
    if not minutes > 0:
        raise UserError(f"minutes: expected a positive number, got {minutes}.")
    recipe, text, data = generated(source, changes, minutes, log)
    return Prepared(recipe, text, folder, data)


def _without_data(what: str, changes: Changes, out: Path | None) -> Prepared | None:
    """Return the study in the folder of a data set that is not there now, or None."""
    spec = parse_spec(what if what.partition(":")[0] in SOURCES else f"table:{what}")
    folder = out or Path("runs") / study_name(f"{spec.name}:{spec.where}")
    path = folder / "recipe.toml"
    if not path.exists():
        return None
    text = changed_text(recipe_text(str(path)), changes)
    recipe = checked_text(text, str(path))
    if parse_spec(recipe.data.source).where != spec.where:
        return None
    return Prepared(recipe, text, folder, of_folder=True)


def generated(
    source: str,
    changes: Changes,
    minutes: float,
    log: Callable[[str], None],
    *,
    with_notes: bool = False,
) -> tuple[Recipe, str, DataSet]:
    """Generate a recipe for a data set, and fit it into a number of minutes.

    ``with_notes`` reports the notes on the data too, which a study reports when it begins.
    """
    # Imported late, since Fabric takes long to import and a finished study does not need it.
    from vicinal.studies.budget import cost_of, cuts, fitted, minutes_of
    from vicinal.training.arm_checks import check_arms
    from vicinal.training.trial_setup import check_task, read_data

    draft = _draft(source, changes)
    splits, with_splits = draft.splits, "splits" in draft.model_fields_set
    data = read_data(draft.data, seed=draft.seed, fold=(0, splits) if splits > 1 else None)
    task = task_of(data, draft.task)
    if with_notes:
        for sentence in note_lines(data):
            log(sentence)
    choices: dict[str, Any] = {"arms": changes.arms, "model": changes.model}
    text = changed_text(generate(source, data, task, **choices), changes)
    recipe = checked_text(text, source)
    check_metrics(recipe.metrics, task.name, task.outputs)
    check_arms(recipe, data, recipe.arms)
    if sentence := _augmented(recipe):
        log(sentence)
    settings = [_path(one) for one in changes.settings]
    fixed = [
        name
        for name, path in (("seeds", ["seeds"]), ("epochs", ["training", "epochs"]))
        if getattr(changes, name) is not None or path in settings
    ]
    cost = cost_of(recipe, data)
    in_folds = cost._replace(total=FOLDS * cost.total)
    few, tested = ("", "") if with_splits else _few_examples(data, draft, task)
    short, needed = "", minutes_of(recipe, in_folds, fixed="seeds" in fixed)
    if few and needed > minutes and not is_grouped(data.test):
        short = (
            f"{few}: {FOLDS} folds with all epochs would take --minutes {math.ceil(needed)}, so "
            f"there are only {tested}"
        )
        log(short)
    elif few and (first := _first_fold(draft, few, log)):
        data, cost = first, in_folds
        text = changed_text(generate(source, data, task, splits=FOLDS, **choices), changes)
        recipe = checked_text(text, source)
        log(f"{few}: {FOLDS} folds, each of which is the test split once")
    check_task(recipe, data)
    seeds, epochs, sentence = fitted(recipe, cost, minutes, fixed=fixed)
    if sentence:
        log(sentence)
    fit = [f"training.epochs={epochs}"]  # which leaves epochs of single arms as they are
    if short or cuts(recipe, seeds, epochs):
        splits = FOLDS if short else recipe.splits
        whole = f"seeds = {recipe.seeds}, epochs = {recipe.training.epochs}, splits = {splits}"
        fit.append(f"shortened={{ minutes = {float(minutes)!r}, {whole} }}")
    if ["training", "checkpoint_every"] not in settings:
        fit.append(f"training.checkpoint_every={max(1, epochs // 4)}")
    text = changed_text(text, Changes(seeds=seeds, settings=fit))
    return checked_text(text, source), text, data


def _draft(source: str, changes: Changes) -> Recipe:
    """Return a recipe with those changes that can be checked before the data are read.

    Network, optimizer and arms may depend on the data. So the draft has placeholders for them, and
    leaves out the settings that are about them.
    """
    draft: dict[str, Any] = {
        "name": "draft",
        "baseline": "erm",
        "data": {"source": source},
        "model": {"name": "network_of:the_data"},
        "training": {
            "epochs": 1,
            "batch_size": 2,
            "optimizer": {"name": "adamw", "lr": 1.0},
            "schedule": {"name": "one-cycle"},
        },
        "arms": {"erm": {"policy": "none"}},
    }
    paths = [_path(text) for text in changes.settings]
    for name in changes.arms:
        if name not in SHORTHANDS:
            raise UserError(f"--arms: {unknown('arm', name, SHORTHANDS)}.")
    early = [text for text, path in zip(changes.settings, paths, strict=True) if _is_early(path)]
    change(draft, changes._replace(arms=(), alpha=None, settings=early))
    return checked(draft, source)


def _augmented(recipe: Recipe) -> str:
    """Return what the generated recipe does to training images, or ``""``."""
    names = [one.name for one in recipe.data.augment]
    if not names:
        return ""
    flip = ". If left and right matter, delete the flip from the recipe"
    last = flip if "random-horizontal-flip" in names else ""
    return f"training images are augmented: {', '.join(names)}{last}"


def _path(setting: str) -> list[str]:
    return setting.partition("=")[0].strip().split(".")


def _is_early(path: list[str]) -> bool:
    """Return whether a setting does not depend on network, optimizer and arms."""
    if path[0] == "training":
        fields = Training.model_fields.keys() - {"optimizer", "schedule"}
        return len(path) == 2 and path[1] in fields
    return path[0] not in ("arms", "baseline", "published")


def _few_examples(data: DataSet, draft: Recipe, task: Task) -> tuple[str, str]:
    """Return why folds are worth their time, or ``""``; and what a single test split has."""
    if data.fixed_test:
        return "", ""
    if is_grouped(data.test):
        return "rows that belong together", ""  # one split gives no verdict
    share, tested = draft.data.test_fraction, f"{len(data.test):,} test examples"
    if len(data.test) / share < SMALL:
        return f"fewer than {SMALL:,} examples", tested
    if task.name != "classification":
        return "", ""  # without the same share of each class in all splits
    counts = data.test.targets.bincount()
    counts[counts == 0] = len(data.test)  # no split tests these classes
    rarest, least = int(counts.argmin()), int(counts.min())
    if least / share >= RARE:
        return "", ""
    name = f"'{visible(data.classes[rarest])}'" if data.classes else f"class {rarest}"
    return f"fewer than {RARE} examples of {name}", f"{tested}, {least} of them of {name}"


def _first_fold(draft: Recipe, few: str, log: Callable[[str], None]) -> DataSet | None:
    """Return the data in the first fold, or None if there are no such folds."""
    from vicinal.training.trial_setup import check_task, read_data

    try:
        for k in reversed(range(FOLDS)):
            data = read_data(draft.data, seed=draft.seed, fold=(k, FOLDS))
            check_task(draft, data)
    except UserError as error:
        log(f"{few}, but there is one test split: {error}")
        return None
    return data


def _is_edited(stored: str, source: str, what: str) -> bool:
    """Return whether the source of a recipe differs from another only in what was guessed."""
    old, new = parse_spec(stored), parse_spec(source)
    guessed = {name for name in ("label", "size") if f"{name}=" not in what}
    left = [{k: v for k, v in one.options.items() if k not in guessed} for one in (old, new)]
    return stored != source and old[:2] == new[:2] and left[0] == left[1]


def source_of(what: str, log: Callable[[str], None]) -> str:
    """Return the source for a path or a source; options that are missing are guessed and logged."""
    path, given = what, None
    for name, guessed in (("folder", "size"), ("table", "label")):
        if what.startswith(f"{name}:") and guessed not in parse_spec(what).options:
            path, given = what.removeprefix(f"{name}:"), name
    largest = LARGEST_IMAGE["cuda" if torch.cuda.is_available() else "cpu"]
    try:
        found = recognized(path, root=data_root(), largest=largest, source=given)
    except UserError:
        where = parse_spec(what).where if given else path
        places = [
            folder / name for folder in (data_root(), Path()) for name in (where, unquote(where))
        ]
        exists = any(one.exists() for one in places)
        if given and not exists:
            return what  # whose reader says what is missing
        if what in shipped():
            raise UserError(
                f"{what}: expected a data set, got a recipe. Print it with vicinal study {what} "
                "--show."
            ) from None
        if what.replace("-", "").isalnum() and not exists:
            known = dict.fromkeys([*shipped(), *SOURCES])
            raise UserError(unknown("recipe, data set or path", what, known)) from None
        raise
    for note in found.notes:
        log(f"{'warning: ' * note.doubtful}{note.text}")
    return found.spec
