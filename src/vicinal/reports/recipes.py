"""The recipes that come with vicinal: a list, and what one of them costs."""

import datetime
import itertools
import re
from pathlib import Path

import tomlkit

from vicinal.errors import UserError
from vicinal.escaping import visible
from vicinal.reports.terminal import Terminal
from vicinal.training.recipe import (
    changed_text,
    is_gan_recipe,
    is_recipe,
    read_recipe,
    read_settings,
    recipe_text,
    resolved_text,
    shipped,
)
from vicinal.training.recipe_changes import Changes
from vicinal.training.recipe_warnings import code_warnings


def recipes() -> dict[str, str]:
    """Return the name of every recipe, and what it is about."""
    found = {}
    for name in shipped():
        comments = itertools.takewhile(
            lambda line: line.startswith("#"), recipe_text(name).splitlines()
        )
        about = " ".join(line.lstrip("# ") for line in comments)
        found[name] = re.split(r"(?<=[.?:])\s", about)[0].rstrip(":.")
    return found


def print_recipes(console: Terminal) -> None:
    """Print the name of every recipe, and what it is about."""
    found = recipes()
    width = max(map(len, found))
    for name, about in found.items():
        console.print(f"{name:{width}}  {about}", soft_wrap=True)
    console.print("\nvicinal study NAME --show shows one of them.")


def print_recipe(name: str, *, variant: str | None, changes: Changes, console: Terminal) -> None:
    """Print a recipe, its published rows, and what it costs here, with changes to its settings."""
    from vicinal.studies.budget import cost_of, seconds_text
    from vicinal.training.trial_setup import load_data

    if name == "claims":
        raise UserError(
            "--show: expected a recipe, got claims. docs/claims.md describes the claims."
        )
    if not is_recipe(name) and (":" in name or Path(name).exists()):
        raise UserError(
            f"--show: expected a recipe, got {name!r:.200}. vicinal init prints the recipe of a "
            "data set."
        )
    if is_gan_recipe(read_settings(name, variant=variant)):
        _print_gan_recipe(name, variant, changes, console)
        return
    recipe = read_recipe(name, variant=variant, changes=changes)
    text = resolved_text(recipe) if variant else changed_text(recipe_text(name), changes)
    console.print(text.rstrip(), soft_wrap=True)
    for row in recipe.published:
        console.print(
            f"published: {visible(recipe.arms[row.arm].title)}, {row.epochs} epochs: "
            f"{row.accuracy}% ({visible(row.source)})",
            soft_wrap=True,
        )
    if code := code_warnings(recipe):
        console.print(f"cost: not measured, since {code[0]}", soft_wrap=True)
        return
    try:
        loaded = load_data(recipe, lambda _split, _sentences: None)
    except UserError as error:
        console.print(f"cost: unknown without the data ({error})", soft_wrap=True)
        return
    cost = cost_of(recipe, loaded)
    whole = datetime.timedelta(seconds=round(cost.total))
    options = ", with these options" * (changes != Changes())
    console.print(
        f"cost: about {seconds_text(cost.epoch)} an epoch, {whole} in all, on this machine{options}"
    )


def _print_gan_recipe(name: str, variant: str | None, changes: Changes, console: Terminal) -> None:
    from vicinal.studies.gan import cost_of_gans
    from vicinal.training.gan_recipe import read_gan_recipe

    recipe = read_gan_recipe(name, variant=variant, changes=changes)
    text = recipe_text(name)
    if variant or changes != Changes():
        text = tomlkit.dumps(recipe.model_dump(mode="json", exclude_none=True))
    console.print(text.rstrip(), soft_wrap=True)
    whole = datetime.timedelta(seconds=round(cost_of_gans(recipe)))
    console.print(f"cost: about {whole} in all, on this machine")
