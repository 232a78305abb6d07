"""Reading and writing recipes."""

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import tomli_w

from vicinal.errors import UserError, unknown
from vicinal.training.recipe_errors import error_lines
from vicinal.training.settings import Recipe, merged

_MAX_DOTS = 300
"""How many dots a line may have, since tomllib needs quadratic memory for a long dotted name."""

_MAX_ERRORS = 20
"""How many errors of a recipe are reported."""


def shipped() -> list[str]:
    """Return the names of the recipes that come with vicinal.

    Example:
        >>> for name in shipped():
        ...     print(name)
        cifar10-fast
        cifar10-resnet50
        digits
        manifold-cifar10
        paper-cifar10
        paper-cifar100
        paper-imagenet
    """
    files = (resources.files("vicinal") / "recipes").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_recipe(
    name_or_path: str,
    *,
    variant: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    source: str | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: a recipe that comes with vicinal, such as ``digits``, or the path of a
            ``.toml`` file.
        variant: one of the recipe's ``[variants]``, which is merged into it; its name is added to
            the recipe's name.
        seeds: replaces ``seeds``.
        epochs: replaces ``training.epochs``.
        source: replaces ``data.source``.

    Raises:
        UserError: if the file cannot be read, or if a field is missing, unknown or invalid.

    Example:
        >>> read_recipe("digits", seeds=1).seeds
        1
    """
    settings = _load(name_or_path)
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
    return _check(_changed(settings, seeds, epochs, source), name_or_path)


def changed_recipe(
    recipe: Recipe, *, seeds: int | None, epochs: int | None, source: str | None
) -> Recipe:
    """Return a recipe with other seeds, epochs or data; None keeps those of the recipe.

    Raises:
        UserError: if one of them is invalid.
    """
    return _check(_changed(recipe.model_dump(), seeds, epochs, source), recipe.name)


def load_resolved(path: Path) -> Recipe:
    """Read a ``recipe.toml`` with the text of ``resolved_text``."""
    return _check(_load(str(path)), str(path))


def resolved_text(recipe: Recipe) -> str:
    """Return a recipe as TOML, with all defaults.

    Example:
        >>> "mix_rate = 1.0" in resolved_text(read_recipe("digits"))
        True
    """
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))


def _load(name_or_path: str) -> dict[str, Any]:
    if name_or_path in shipped():
        file: Any = resources.files("vicinal") / "recipes" / f"{name_or_path}.toml"
    elif name_or_path.endswith(".toml"):
        file = Path(name_or_path)
    else:
        sentence = unknown("recipe", name_or_path, shipped())
        raise UserError(f"{sentence}. The path of a recipe file ends in .toml.")
    try:
        text = file.read_bytes().decode("utf-8-sig")
        if max((line.count(".") for line in text.splitlines()), default=0) > _MAX_DOTS:
            raise ValueError(f"it has a line of more than {_MAX_DOTS} dots")
        settings = tomllib.loads(text)
        json.dumps(settings, default=str)  # refuses a number that is too long to be shown
        return settings
    except FileNotFoundError as error:
        raise UserError(
            f"{file}: there is no such recipe file. Check the path, or use a recipe that comes "
            f"with vicinal: {', '.join(shipped())}."
        ) from error
    except OSError as error:
        raise UserError(f"{file}: the recipe cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise UserError(f"{file} is not valid TOML: {error}.") from error


def _changed(
    settings: dict[str, Any], seeds: int | None, epochs: int | None, source: str | None
) -> dict[str, Any]:
    changes: dict[str, Any] = {} if seeds is None else {"seeds": seeds}
    if epochs is not None and "training" in settings:
        changes["training"] = {"epochs": epochs}
    if source is not None and "data" in settings:
        changes["data"] = {"source": source}
    return merged(settings, changes)


def _check(settings: Mapping[str, Any], origin: str) -> Recipe:
    try:
        return Recipe.model_validate(settings)
    except pydantic.ValidationError as error:
        lines = error_lines(error, settings)
    if len(lines) == 1:
        raise UserError(f"the recipe {origin}: {lines[0]}")
    shown = lines[:_MAX_ERRORS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    text = "".join(f"\n  {line}" for line in shown)
    raise UserError(f"the recipe {origin} has {len(lines)} errors:{text}")
