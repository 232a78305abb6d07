"""Reading and writing recipes."""

import json
import tomllib
from collections.abc import Mapping, MutableMapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import tomlkit

from vicinal.errors import UserError, unknown
from vicinal.training.arm_titles import dumped, has_derived_title
from vicinal.training.recipe_changes import Changes, change
from vicinal.training.recipe_errors import error_lines
from vicinal.training.settings import Recipe, merged

_Kind = TypeVar("_Kind", bound=pydantic.BaseModel)

_MAX_DOTS = 300
"""How many dots a line may have, since tomllib needs quadratic memory for a long dotted name."""

_MAX_ERRORS = 20
"""How many errors of a recipe are reported."""


def shipped() -> list[str]:
    """Return the names of the recipes that come with vicinal.

    Example:
        >>> shipped()[:3]
        ['cifar10-fast', 'cifar10-resnet50', 'digits']
    """
    files = (resources.files("vicinal") / "recipes").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def is_recipe(name_or_path: str) -> bool:
    """Return whether a text names a recipe rather than a data set.

    Example:
        >>> is_recipe("digits"), is_recipe("my.toml"), is_recipe("folder:flowers")
        (True, True, False)
    """
    return name_or_path in shipped() or name_or_path.endswith(".toml")


def read_recipe(
    name_or_path: str,
    *,
    variant: str | None = None,
    changes: Changes = Changes(),  # noqa: B008
) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: a recipe that comes with vicinal, such as ``digits``, or the path of a
            ``.toml`` file.
        variant: one of the recipe's ``[variants]``, which is merged into it; its name is added to
            the recipe's name.
        changes: settings to replace.

    Raises:
        UserError: if the file cannot be read, or if a field is missing, unknown or invalid.

    Example:
        >>> read_recipe("digits", changes=Changes(seeds=1)).seeds
        1
    """
    settings = read_settings(name_or_path, variant=variant)
    change(settings, changes)
    return checked(settings, name_or_path)


def read_settings(name_or_path: str, *, variant: str | None = None) -> dict[str, Any]:
    """Read the settings of a recipe of any kind, with a variant merged, without checking them.

    Raises:
        UserError: if the file cannot be read, or there is no such variant.
    """
    settings: dict[str, Any] = tomllib.loads(recipe_text(name_or_path))
    variants = settings.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise UserError(
            f"{name_or_path}: variants: expected tables, such as [variants.short.training]."
        )
    if variant is not None:
        if variant not in variants:
            names = ", ".join(variants) or "none"
            raise UserError(f"{name_or_path} has no variant {variant!r}. It has: {names}.")
        new_name = {"name": f"{settings.get('name')}-{variant}"}
        settings = merged(settings, new_name | variants[variant])
    return settings


def changed_recipe(recipe: Recipe, changes: Changes) -> Recipe:
    """Return a recipe with changed settings.

    Raises:
        UserError: if one of them is invalid.
    """
    settings = recipe.model_dump(exclude_none=True)
    settings["arms"] = {name: dumped(name, arm) for name, arm in recipe.arms.items()}
    change(settings, changes)
    return checked(settings, recipe.name)


def changed_text(text: str, changes: Changes) -> str:
    """Return a recipe as TOML with changed settings; comments are kept.

    Example:
        >>> print(changed_text("seeds = 5 # of each arm", Changes(seeds=3)))
        seeds = 3 # of each arm
    """
    document: MutableMapping[str, Any] = tomlkit.parse(text)
    change(document, changes)
    return tomlkit.dumps(document)


def checked_text(text: str, origin: str) -> Recipe:
    """Return the recipe in a text; see ``checked``."""
    return checked(tomllib.loads(text), origin)


def load_resolved(path: Path) -> Recipe:
    """Read the ``recipe.toml`` in a folder."""
    return checked_text(recipe_text(str(path)), str(path))


def resolved_text(recipe: Recipe) -> str:
    """Return a recipe as TOML, with all defaults but the titles that follow from the settings.

    Example:
        >>> "mix_rate = 1.0" in resolved_text(read_recipe("digits"))
        True
    """
    settings = recipe.model_dump(exclude_none=True)
    for name, arm in recipe.arms.items():
        if has_derived_title(name, arm):
            del settings["arms"][name]["title"]
    return tomlkit.dumps(settings)


def recipe_text(name_or_path: str) -> str:
    """Return the text of a recipe file, which is valid TOML.

    Raises:
        UserError: if it cannot be read, or is not TOML.
    """
    if name_or_path in shipped():
        file: Any = resources.files("vicinal") / "recipes" / f"{name_or_path}.toml"
    elif name_or_path.endswith(".toml"):
        file = Path(name_or_path)
    else:
        sentence = unknown("recipe", name_or_path, shipped())
        raise UserError(f"{sentence}. The path of a recipe file ends in .toml.")
    try:
        text: str = file.read_bytes().decode("utf-8-sig")
        if max((line.count(".") for line in text.splitlines()), default=0) > _MAX_DOTS:
            raise ValueError(f"it has a line of more than {_MAX_DOTS} dots")
        json.dumps(tomllib.loads(text), default=str)  # an error for a number too long to be shown
        return text
    except FileNotFoundError as error:
        raise UserError(
            f"{file}: there is no such recipe file. Check the path, or use a recipe that comes "
            f"with vicinal: {', '.join(shipped())}."
        ) from error
    except OSError as error:
        raise UserError(f"{file}: the recipe cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise UserError(f"{file} is not valid TOML: {error}.") from error


def is_gan_recipe(settings: Mapping[str, Any]) -> bool:
    """Return whether settings are those of a study of GANs; see ``vicinal.training.gan_recipe``."""
    return "gan" in settings


def checked(settings: Mapping[str, Any], origin: str) -> Recipe:
    """Return a recipe from its settings.

    Args:
        settings: as in TOML.
        origin: origin of the settings, for errors.

    Raises:
        UserError: with all errors, or if it is a recipe of GANs.
    """
    if is_gan_recipe(settings):
        raise UserError(
            f"the recipe {origin}: expected a task with labels, got GANs. Run vicinal study with "
            "it, which trains them, and draws their report each time."
        )
    return validated(Recipe, settings, origin)


def validated(kind: type[_Kind], settings: Mapping[str, Any], origin: str) -> _Kind:
    """Return settings as an instance of a model of pydantic.

    Raises:
        UserError: with all errors.
    """
    try:
        return kind.model_validate(settings)
    except pydantic.ValidationError as error:
        lines = error_lines(error, settings)
    if len(lines) == 1:
        raise UserError(f"the recipe {origin}: {lines[0]}")
    shown = lines[:_MAX_ERRORS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    text = "".join(f"\n  {line}" for line in shown)
    raise UserError(f"the recipe {origin} has {len(lines)} errors:{text}")
