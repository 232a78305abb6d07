"""The data that a recipe names."""

from collections.abc import Callable, Sequence

from vicinal.data import DataSet, load
from vicinal.errors import UserError
from vicinal.training.settings import Recipe


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
        on_bad=settings.on_bad,
        max_bytes=settings.max_bytes,
    )
    for name, part in data.parts.items():
        if part.skipped:
            left_out(name, part.skipped)
    if not data.classes:
        raise UserError(
            f"data.source: {settings.source} has real-valued targets, and a study compares "
            "accuracies; choose a data set with classes"
        )
    return data
