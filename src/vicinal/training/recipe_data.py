"""The data that a recipe names."""

from collections.abc import Callable, Iterable, Sequence

from vicinal.data import DataSet, load, parse_spec
from vicinal.errors import UserError
from vicinal.models import imported_module
from vicinal.training.fingerprint import data_facts
from vicinal.training.settings import Recipe
from vicinal.training.verdict_problems import verdict_problems


def load_data(recipe: Recipe, left_out: Callable[[str, Sequence[str]], None]) -> DataSet:
    """Load the data set of a recipe.

    Args:
        recipe: which names it.
        left_out: told of each part with examples that cannot be read, and a sentence for each.

    Raises:
        UserError: if it cannot be loaded, or has no classes.
    """
    settings = recipe.data
    data = load(
        settings.source,
        root=settings.root,
        test_fraction=settings.test_fraction,
        seed=recipe.seed,
        on_bad="skip" if settings.skip_bad else "raise",
        max_bytes=settings.max_bytes,
    )
    for name, part in data.splits.items():
        if part.skipped:
            left_out(name, part.skipped)
    if not data.classes:
        raise UserError(
            f"data.source: {settings.source} has real-valued targets, and a study compares "
            "accuracies; choose a data set with classes"
        )
    return data


def told_of(data: DataSet) -> list[str]:
    """Return what a user has to be told of a data set: its notes, doubtful ones as warnings.

    Example:
        >>> from vicinal.data import Note, load
        >>> import dataclasses
        >>> notes = (Note("the first row is a header"), Note("column id is unique", True))
        >>> told_of(dataclasses.replace(load("digits"), notes=notes))
        ['the first row is a header', 'warning: column id is unique']
    """
    return [f"{'warning: ' * note.doubtful}{note.text}" for note in data.notes]


def code_that_runs(recipe: Recipe) -> list[str]:
    """Return a warning for each field of a recipe that imports code of the user's.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> code_that_runs(read_recipe("digits"))
        []
    """
    named = {"model.name": (recipe.model.name, imported_module(recipe.model.name))}
    source = parse_spec(recipe.data.source)
    if source.name == "import":
        named["data.source"] = recipe.data.source, source.where.partition(":")[0]
    return [
        f"this recipe imports and runs code: {field} = {value!r} imports {module}"
        for field, (value, module) in named.items()
        if module is not None
    ]


def first_lines(recipe: Recipe, data: DataSet, arms: Iterable[str]) -> list[str]:
    """Return what is told of the data before a training: notes, and why a verdict is worth nothing.

    Args:
        recipe: of the study.
        data: that it names.
        arms: those that are trained.

    Example:
        >>> from vicinal.data import load
        >>> from vicinal.training.recipe import read_recipe
        >>> first_lines(read_recipe("digits"), load("digits"), ["erm"])
        []
    """
    found = [one for one in verdict_problems(recipe, data_facts(data)) if one.arm in (None, *arms)]
    return told_of(data) + [f"warning: {one.text}, so no verdict will be given" for one in found]
