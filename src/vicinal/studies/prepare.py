"""A study of a data set, for which a recipe is generated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vicinal.data import SOURCES, DataSet, data_root, parse_spec
from vicinal.data.recognize import recognized
from vicinal.errors import UserError, unknown
from vicinal.studies.generate import BUDGET, FOLDS, SMALL, generate, study_name
from vicinal.training.recipe import (
    changed_text,
    checked,
    checked_text,
    recipe_text,
    shipped,
)
from vicinal.training.recipe_changes import Changes, change
from vicinal.training.settings import Recipe
from vicinal.training.task import task_of

MINUTES = 10.0
"""Default of the budget of a generated recipe."""

LARGEST_IMAGE = {"cpu": 32, "cuda": 224}
"""The largest side in pixels that a generated recipe chooses for images, by device."""


class Prepared(NamedTuple):
    """A study that can begin.

    Args:
        recipe: of the study.
        text: the recipe as TOML, for the folder of the study.
        folder: of the study.
        data: its data set, if it was loaded already.
    """

    recipe: Recipe
    text: str
    folder: Path
    data: DataSet | None = None


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
    source = source_of(what, log)
    name = study_name(source)
    folder = out or Path("runs") / name
    path = folder / "recipe.toml"
    if path.exists():
        if minutes is not None:
            log(
                f"--minutes has no effect: {path} has seeds and epochs already. Change them "
                "there, or choose another folder with --out"
            )
        text = changed_text(recipe_text(str(path)), changes)
        recipe = checked_text(text, str(path))
        if recipe.data.source != source:
            raise UserError(
                f"{folder} holds a study of {recipe.data.source}, not of {source}. Choose another "
                "folder with --out."
            )
        return Prepared(recipe, text, folder)
    recipe, text, data = generated(source, changes, minutes or MINUTES, log)
    return Prepared(recipe, text, folder, data)


def generated(
    source: str, changes: Changes, minutes: float, log: Callable[[str], None]
) -> tuple[Recipe, str, DataSet]:
    """Generate a recipe for a data set, and fit it into a number of minutes."""
    # Imported late, since Fabric takes long to import and a finished study does not need it.
    from vicinal.studies.budget import cost_of, fits, fitted
    from vicinal.training.trial_setup import read_data

    if changes.arms:
        changes = changes._replace(arms=list(dict.fromkeys(("erm", *changes.arms))))
    draft = _draft(source, changes)
    splits, with_splits = draft.splits, "splits" in draft.model_fields_set
    data = read_data(draft.data, seed=draft.seed, fold=(0, splits) if splits > 1 else None)
    task = task_of(data, draft.task)
    choices: dict[str, Any] = {"arms": changes.arms, "model": changes.model}
    text = changed_text(generate(source, data, task, **choices), changes)
    recipe = checked_text(text, source)
    cost = cost_of(recipe, data)
    in_folds = cost._replace(total=FOLDS * cost.total)
    if not with_splits and _is_small(data) and fits(recipe, in_folds, minutes, changes.seeds):
        data, cost = read_data(draft.data, seed=draft.seed, fold=(0, FOLDS)), in_folds
        text = changed_text(generate(source, data, task, splits=FOLDS, **choices), changes)
        recipe = checked_text(text, source)
        log(f"fewer than {SMALL:,} examples: {FOLDS} folds, each of which is the test split once")
    seeds, epochs, sentence = fitted(
        recipe,
        cost,
        minutes,
        fixed=[name for name in ("seeds", "epochs") if getattr(changes, name) is not None],
    )
    if sentence:
        log(sentence)
    text = changed_text(text, Changes(seeds=seeds, epochs=epochs))
    if sentence:
        text = text.replace(BUDGET, f"{BUDGET}\n# Here: {sentence}.")
    return checked_text(text, source), text, data


def _draft(source: str, changes: Changes) -> Recipe:
    """Return a recipe with the changes, so that invalid ones are errors before the data are read.

    If no network is chosen, it is not known yet, and neither are its layers, for ``manifold``.
    """
    draft: dict[str, Any] = {
        "name": "draft",
        "baseline": "erm",
        "data": {"source": source},
        "model": {"name": "network_of:data"},
        "training": {
            "epochs": 1,
            "batch_size": 2,
            "optimizer": {"name": "adamw", "lr": 1.0},
            "schedule": {"name": "one-cycle"},
        },
        "arms": {"erm": {"policy": "none"}, "mixup": {"policy": "mixup", "alpha": 1.0}},
    }
    arms = dict.fromkeys("mixup" if name == "manifold" else name for name in changes.arms)
    change(draft, changes._replace(arms=list(arms)))
    return checked(draft, source)


def _is_small(data: DataSet) -> bool:
    """Return whether folds are worth their time: a single test split would be small."""
    examples = sum(len(split) for split in data.splits.values())
    return not data.fixed_test and examples < SMALL


def source_of(what: str, log: Callable[[str], None]) -> str:
    """Return the source for a path or a source; options that are missing are guessed and logged."""
    path = what
    for name, guessed in (("folder", "size"), ("table", "label")):
        if what.startswith(f"{name}:") and guessed not in parse_spec(what).options:
            path = what.removeprefix(f"{name}:")
    largest = LARGEST_IMAGE["cuda" if torch.cuda.is_available() else "cpu"]
    try:
        found = recognized(path, root=data_root(), largest=largest)
    except UserError:
        exists = any(path.exists() for path in (data_root() / what, Path(what)))
        if what.replace("-", "").isalnum() and not exists:
            known = dict.fromkeys([*shipped(), *SOURCES])
            raise UserError(unknown("recipe, data set or path", what, known)) from None
        raise
    for note in found.notes:
        log(note.text)
    return found.spec
