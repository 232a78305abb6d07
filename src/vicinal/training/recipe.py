"""Recipes: the settings of a study, read from TOML and checked field by field."""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import tomli_w
from pydantic import Field

from vicinal.data import parse_known
from vicinal.errors import UserError, unknown
from vicinal.models import NETWORKS, mixing_places
from vicinal.training.augmenting import STEPS, Augment


class _Settings(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="strings"
    )


class Data(_Settings):
    """What is learned."""

    source: str = Field(description='what names a data set, such as "cifar10" or "folder:PATH"')
    root: str | None = Field(None, description="folder to look for it under; $VICINAL_DATA or data")
    test_fraction: float = Field(
        0.3, gt=0, lt=1, description="share of the examples to test on, of a set that comes in one"
    )
    on_bad: Literal["raise", "skip"] = Field(
        "raise", description="what is done about an example that cannot be read"
    )
    augment: Annotated[tuple[Augment, ...], Field(strict=False)] = Field(
        (), description="what is done to training inputs, in this order"
    )


class Model(_Settings):
    """What learns it."""

    name: str = Field(description="short name of a network")


class Training(_Settings):
    """How: AdamW under a one-cycle schedule (Smith and Topin, arXiv 1708.07120)."""

    epochs: int = Field(ge=1, description="passes over the training examples")
    batch_size: int = Field(ge=1, description="examples per step; the last batch may be smaller")
    lr: float = Field(gt=0, allow_inf_nan=False, description="peak learning rate, per step")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="decoupled, times lr")
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="device")
    threads: int | None = Field(None, ge=1, description="CPU threads; all cores where left out")


class PlainArm(_Settings):
    """An arm without mixing: empirical risk minimisation."""

    title: str = Field(min_length=1, description="what tables and pictures call it")
    policy: Literal["none"]


class MixUpArm(_Settings):
    """An arm with ``vicinal.MixUp``."""

    title: str = Field(min_length=1, description="what tables and pictures call it")
    policy: Literal["mixup"]
    alpha: float = Field(ge=0, description="lam ~ Beta(alpha, alpha); inf is half and half")
    mix_rate: float = Field(1.0, ge=0, le=1, description="fraction of a batch that is mixed")
    per: Literal["batch", "pair", "example"] = Field("batch", description="who shares a lam")
    at: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        ("input",), description='places to mix at, one drawn each step: "input" or module names'
    )


Arm = Annotated[PlainArm | MixUpArm, Field(discriminator="policy")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Recipe(_Settings):
    """A study, whole: arms x conditions x seeds over one data set, network and training."""

    name: Name = Field(description="small letters, digits and dashes; names the folder in runs/")
    baseline: str = Field(description="the arm that the others are compared with")
    seeds: int = Field(3, ge=1, description="repetitions: weights, order of the data, mixing")
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="draws the test part and the corrupted labels"
    )
    corrupted_labels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = Field(
        (0.0,), description="conditions: fractions of the training labels replaced by random ones"
    )
    data: Data
    model: Model
    training: Training
    arms: dict[Name, Arm] = Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _names_exist(self) -> "Recipe":
        try:
            parse_known(self.data.source)
        except UserError as error:
            raise ValueError(f"data.source: {error}") from error
        _known("model.name", "network", self.model.name, NETWORKS)
        _known("baseline", "arm", self.baseline, self.arms)
        places = mixing_places(self.model.name)
        for name, arm in self.arms.items():
            for place in getattr(arm, "at", ()):
                _known(f"arms.{name}.at", f"layer of {self.model.name}", place, places)
        if len(set(self.corrupted_labels)) < len(self.corrupted_labels):
            raise ValueError("corrupted_labels: each condition can be there only once")
        titles = [arm.title for arm in self.arms.values()]
        if len(set(titles)) < len(titles):
            raise ValueError("arms: each needs a title of its own")
        return self


def shipped() -> list[str]:
    """Return the names of the recipes that come with vicinal.

    Example:
        >>> shipped()
        ['digits']
    """
    folder = resources.files("vicinal") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def read_recipe(
    name_or_path: str, *, seeds: int | None = None, epochs: int | None = None
) -> Recipe:
    """Read a recipe that comes with vicinal, by its name, or anybody's, by a path ending in .toml.

    Args:
        name_or_path: such as ``digits`` or ``my/recipe.toml``.
        seeds: takes the place of the recipe's own ``seeds``, if given.
        epochs: takes the place of the recipe's own ``training.epochs``, if given.

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
    settings = _parse(text, name_or_path)
    if seeds is not None:
        settings["seeds"] = seeds
    if epochs is not None and isinstance(settings.get("training"), dict):
        settings["training"]["epochs"] = epochs
    return _check(settings, name_or_path)


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
    table: dict[str, type[_Settings]] = {
        "data": Data,
        "model": Model,
        "training": Training,
        "arms": MixUpArm,
    }
    if len(location) == 1:
        return list(Recipe.model_fields)
    if location[:2] == ("data", "augment"):
        step = STEPS.get(str(location[-2]))
        return [] if step is None else list(step.model_fields)
    if location[0] == "arms" and location[-2] == "none":
        return list(PlainArm.model_fields)
    return list(table[str(location[0])].model_fields)


def _known(field: str, what: str, name: str, names: Any) -> None:
    if name not in names:
        raise ValueError(f"{field}: {unknown(what, name, names)}")
