"""Recipes: TOML read into settings, with complaints in words that name the field."""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pydantic
import tomli_w

from vicinal.errors import UserError, unknown
from vicinal.training import settings as tables
from vicinal.training.augmenting import STEPS
from vicinal.training.settings import Recipe, Settings, merged


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
    if variant is None:
        return settings
    if not isinstance(variants, dict) or not isinstance(variants.get(variant), dict):
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
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        names = ", ".join(shipped())
        raise UserError(
            f"there is no recipe file {path}; check the path, or name a recipe that comes with "
            f"vicinal ({names})"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the recipe {path} cannot be read: {reason}") from error


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the recipe {origin} is not valid TOML: {error}") from error


def _check(settings: Mapping[str, Any], origin: str) -> Recipe:
    try:
        return Recipe.model_validate(settings)
    except pydantic.ValidationError as error:
        raise UserError(f"the recipe {origin}: {_sentence(error, settings)}") from error


def _sentence(error: pydantic.ValidationError, settings: Mapping[str, Any]) -> str:
    """Turn pydantic's first complaint into one sentence that names the field as TOML does."""
    complaints = error.errors(include_url=False)
    count = len(complaints) - 1
    more = f" (and {count} more field{'s' if count > 1 else ''} to mend)" if count else ""
    return f"{_complaint(complaints[0], settings)}{more}"


def _complaint(complaint: Any, settings: Mapping[str, Any]) -> str:
    field = _field(complaint["loc"], settings)
    context, value = complaint.get("ctx", {}), complaint["input"]
    match complaint["type"]:
        case "value_error":  # from a validator of ours, which named the field itself
            sentence = str(context["error"])
        case "missing":
            sentence = f"{field} is missing"
        case "extra_forbidden":
            known = _siblings(complaint["loc"])
            sentence = f"{field}: {unknown('field', str(complaint['loc'][-1]), known)}"
        case "union_tag_not_found":
            sentence = f"{field}.{_tag(complaint)} is missing"
        case "union_tag_invalid":
            tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
            tag = _tag(complaint)
            sentence = f"{field}.{tag}: {unknown(tag, str(context['tag']), tags)}"
        case "too_short":
            sentence = f"{field} should have at least {context['min_length']} entry, but is {value}"
        case _:
            wanted = re.sub("^(Input|String) should ", "", complaint["msg"])
            sentence = f"{field} should {wanted}, but is {value!r}"
    return sentence


def _field(location: tuple[int | str, ...], settings: Any) -> str:
    """Return the dotted name of a field; leave out the tags that pydantic adds for unions."""
    words: list[str] = []
    here: Any = settings
    for position, word in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, Mapping) and word not in here and not last:
            continue
        words.append(str(word))
        inside = isinstance(here, Mapping) or (isinstance(here, list) and isinstance(word, int))
        here = here[word] if inside and (not isinstance(here, Mapping) or word in here) else None
    return ".".join(words)


def _tag(complaint: Any) -> str:
    """Return the field that tells the members of a union apart: policy, or name."""
    return str(complaint["ctx"]["discriminator"]).strip("'")


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Return the fields that there are beside an unknown one."""
    if location[:2] == ("data", "augment"):
        step = STEPS.get(str(location[-2]))
        return [] if step is None else list(step.model_fields)
    here: type[Settings] = Recipe
    for word in location[:-1]:
        here = _INNER.get(str(word), here)
    return list(here.model_fields)


_INNER: dict[str, Any] = {
    "data": tables.Data,
    "model": tables.Model,
    "training": tables.Training,
    "none": tables.PlainArm,
    "mixup": tables.MixUpArm,
    "published": tables.Published,
    "rest": tables.SGD,
} | {
    str(get_args(table.model_fields["name"].annotation)[0]): table
    for table in get_args(get_args(tables.Optimizer)[0]) + get_args(get_args(tables.Schedule)[0])
}
"""The tables of a recipe by the words that pydantic has for where they are."""
