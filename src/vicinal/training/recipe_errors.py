"""What is wrong with the settings of a recipe, one sentence for each problem."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pydantic

from vicinal.errors import UserError, unknown
from vicinal.models import mixing_layers
from vicinal.training import settings as tables
from vicinal.training.augment import STEPS
from vicinal.training.settings import Recipe, Settings, Training, merged


def complaints(error: pydantic.ValidationError, settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each of pydantic's complaints, which names the field as TOML does."""
    found = error.errors(include_url=False)
    return [line for one in found for line in _complaint(one, settings).splitlines()]


def mismatches(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each name that refers to nothing, and for each setting of an arm.

    Args:
        settings: of a recipe, as read; what is not of the right type is passed over, since pydantic
            complains about it.
    """
    arms = {
        name: arm for name, arm in _table(settings.get("arms")).items() if isinstance(arm, Mapping)
    }
    return [
        *_unknown_arms(settings, arms),
        *_unknown_places(settings, arms),
        *_wrong_training(settings, arms),
        *_repeated(settings, arms),
    ]


def _unknown_arms(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    named = [("baseline", settings.get("baseline"))]
    for k, row in enumerate(_list(settings.get("published"))):
        named.append((f"published.{k}.arm", _table(row).get("arm")))
    for field, name in named:
        if isinstance(name, str) and arms and name not in arms:
            yield f"{field}: {unknown('arm', name, arms)}"


def _unknown_places(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    network = _table(settings.get("model")).get("name")
    try:
        layers = mixing_layers(network) if isinstance(network, str) else None
    except UserError:
        layers = None
    for name, arm in arms.items():
        for layer in _list(arm.get("at")):
            if layers is not None and isinstance(layer, str) and layer not in layers:
                yield f"arms.{name}.at: {unknown(f'layer of {network}', layer, layers)}"


def _wrong_training(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    """Say what an arm's own [training] gets wrong that the recipe's gets right."""
    shared = _table(settings.get("training"))
    known = [(one["loc"], one["type"]) for one in _errors(shared)]
    for name, arm in arms.items():
        own = merged(shared, _table(arm.get("training")))
        for one in _errors(own) if shared else []:
            if (one["loc"], one["type"]) not in known:
                one["loc"] = ("training", *one["loc"])
                for line in _complaint(one, {"training": own}).splitlines():
                    yield f"arms.{name}.{line}"


def _errors(training: Mapping[str, Any]) -> list[Any]:
    try:
        Training.model_validate(training)
    except pydantic.ValidationError as error:
        return list(error.errors(include_url=False))
    return []


def _repeated(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    rates = [r for r in _list(settings.get("corrupted_labels")) if isinstance(r, int | float)]
    if len(set(rates)) < len(rates):
        yield "corrupted_labels: each condition can be there only once"
    titles = [arm["title"] for arm in arms.values() if isinstance(arm.get("title"), str)]
    if len(set(titles)) < len(titles):
        yield "arms: each needs a title of its own"


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _shown(value: Any) -> str:
    """Return a value for a message: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _complaint(complaint: Any, settings: Mapping[str, Any]) -> str:
    location = tuple(word for word in complaint["loc"] if word != "[key]")
    field = _field(location, settings)
    context, value = complaint.get("ctx", {}), complaint["input"]
    match complaint["type"]:
        case "value_error":  # from a validator of ours
            text = str(context["error"])
            sentence = text if text.startswith(f"{field}.") else f"{field}: {text}"
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
        case "string_pattern_mismatch":  # of names, in settings.py
            sentence = (
                f"{field} should consist of lowercase letters, digits and dashes, but is "
                f"{_shown(value)}"
            )
        case "too_short":
            least = context["min_length"]
            sentence = f"{field} should have at least {least} entry, but is {_shown(value)}"
        case _:
            wanted = re.sub("^(Input|String) should ", "", complaint["msg"])
            sentence = f"{field} should {wanted}, but is {_shown(value)}"
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
