"""Recipes: TOML read into settings, with complaints in words that name the field."""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import tomli_w

from vicinal.errors import UserError, unknown
from vicinal.training.recipe_errors import complaints, mismatches
from vicinal.training.settings import Recipe, merged

_MAX_BYTES = 200_000
"""The largest recipe that is read; those that come with vicinal have 6,000 bytes at most."""

_MAX_DEPTH = 32
"""The most tables or lists inside each other, and the most names joined by dots."""

_MOST_PROBLEMS = 20
"""The most errors that are printed of one recipe."""

_LONGEST = 1_000
"""The most characters that are printed of one error."""

_NAME = r"""(?:(?<![\w-])[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_DOTTED = re.compile(rf"(?:{_NAME}[ \t]*+\.[ \t]*+){{{_MAX_DEPTH}}}")


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
    folder = resources.files("vicinal") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def read_recipe(
    name_or_path: str,
    *,
    variant: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    source: str | None = None,
) -> Recipe:
    """Read a recipe that comes with vicinal, by its name, or anybody's, by a path ending in .toml.

    Args:
        name_or_path: such as ``digits`` or ``my/recipe.toml``.
        variant: one of the recipe's ``[variants]``, whose fields take the place of its own; it is
            added to the recipe's name.
        seeds: takes the place of the recipe's own ``seeds``, if given.
        epochs: takes the place of the recipe's own ``training.epochs``, if given.
        source: takes the place of the recipe's own ``data.source``, if given.

    Raises:
        UserError: if it is not there, not readable, not TOML, or if a field is missing, unknown
            or out of range: the field is named.

    Example:
        >>> read_recipe("digits", seeds=1).seeds
        1
    """
    if name_or_path.endswith(".toml"):
        text = _read(Path(name_or_path))
    elif name_or_path in shipped():
        text = (resources.files("vicinal") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
    else:
        sentence = unknown("recipe", name_or_path, shipped())
        raise UserError(f"{sentence}; for a file of your own, give a path that ends in .toml")
    settings = _varied(_parse(text, name_or_path), variant, name_or_path)
    changes: dict[str, Any] = {"seeds": seeds} if seeds is not None else {}
    if epochs is not None and isinstance(settings.get("training"), dict):
        changes["training"] = {"epochs": epochs}
    if source is not None and isinstance(settings.get("data"), dict):
        changes["data"] = {"source": source}
    return _check(merged(settings, changes), name_or_path)


def _varied(settings: dict[str, Any], variant: str | None, origin: str) -> dict[str, Any]:
    """Return the settings of one variant, or of none."""
    variants = settings.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise UserError(
            f"the recipe {origin}: variants should be tables, such as [variants.short.training]"
        )
    if variant is None:
        return settings
    if variant not in variants:
        names = ", ".join(variants) or "none"
        raise UserError(f"the recipe {origin} has no variant {variant!r}; it has: {names}")
    return merged(settings, {"name": f"{settings.get('name')}-{variant}", **variants[variant]})


def load_resolved(path: Path) -> Recipe:
    """Read the ``recipe.toml`` that ``resolved_text`` made."""
    return _check(_parse(_read(path), str(path)), str(path))


def resolved_text(recipe: Recipe) -> str:
    """Return the recipe as TOML with every default filled in.

    Example:
        >>> "mix_rate = 1.0" in resolved_text(read_recipe("digits"))
        True
    """
    return tomli_w.dumps(recipe.model_dump(exclude_none=True))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        names = ", ".join(shipped())
        raise UserError(
            f"there is no recipe file {path}; check the path, or name a recipe that comes with "
            f"vicinal ({names})"
        ) from error
    except OSError as error:
        raise UserError(f"the recipe {path} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise UserError(
            f"the recipe {path} has more than {_MAX_BYTES:,} bytes, the most that a recipe may "
            "have; check that it is the right file"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the recipe {path} cannot be read: it is not UTF-8 text (byte {error.start}); save "
            "it as UTF-8"
        ) from error


def _parse(text: str, origin: str) -> dict[str, Any]:
    too_deep = UserError(
        f"the recipe {origin} has more than {_MAX_DEPTH} tables or lists inside each other"
    )
    if _DOTTED.search(text):  # tomllib takes memory by the square of their number
        raise too_deep
    try:
        settings = tomllib.loads(text)
        if _deeper(settings, _MAX_DEPTH):
            raise too_deep
    except RecursionError as error:
        raise too_deep from error
    except UserError:
        raise
    except ValueError as error:  # also of integers with too many digits
        raise UserError(f"the recipe {origin} is not valid TOML: {error}") from error
    return settings


def _deeper(value: Any, most: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and (most == 0 or any(_deeper(one, most - 1) for one in value))


def _check(settings: Mapping[str, Any], origin: str) -> Recipe:
    problems = mismatches(settings)
    try:
        recipe = Recipe.model_validate(settings)
    except pydantic.ValidationError as error:
        problems = complaints(error, settings) + problems
    if not problems:
        return recipe
    problems = [one if len(one) <= _LONGEST else f"{one[:_LONGEST]}..." for one in problems]
    if len(problems) == 1:
        raise UserError(f"the recipe {origin}: {problems[0]}")
    shown = problems[:_MOST_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    lines = "".join(f"\n  {problem}" for problem in shown)
    raise UserError(f"the recipe {origin} has {len(problems)} errors:{lines}")
