"""Error messages for the settings of a recipe, one line for each problem."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pydantic

from vicinal.errors import UserError, unknown
from vicinal.models import mixing_layers
from vicinal.training import settings as tables
from vicinal.training.settings import Recipe, Settings, Training, merged


def invalid_fields(error: pydantic.ValidationError, settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each of pydantic's errors, which names the field as TOML does."""
    found = error.errors(include_url=False)
    return [line for one in found for line in _message(one, settings).splitlines()]


def inconsistencies(settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each unknown reference, repetition and invalid change of an arm.

    Args:
        settings: of a recipe, as read. Values of the wrong type are ignored, since pydantic
            reports them.
    """
    arms = {
        name: arm for name, arm in _table(settings.get("arms")).items() if isinstance(arm, Mapping)
    }
    return [
        *_unknown_arms(settings, arms),
        *_unknown_layers(settings, arms),
        *_invalid_changes(settings, arms),
        *_repeated(settings, arms),
    ]


def _unknown_arms(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    named = [("baseline", settings.get("baseline"))]
    for k, row in enumerate(_list(settings.get("published"))):
        named.append((f"published.{k}.arm", _table(row).get("arm")))
    for field, name in named:
        if isinstance(name, str) and arms and name not in arms:
            yield f"{field}: {unknown('arm', name, arms)}"


def _unknown_layers(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    network = _table(settings.get("model")).get("name")
    try:
        layers = mixing_layers(network) if isinstance(network, str) else None
    except UserError:
        layers = None
    for name, arm in arms.items():
        for layer in _list(arm.get("at")):
            if layers is not None and isinstance(layer, str) and layer not in layers:
                yield f"arms.{name}.at: {unknown(f'layer of {network}', layer, layers)}"


def _invalid_changes(settings: Mapping[str, Any], arms: Mapping[str, Any]) -> Iterator[str]:
    """Report errors of an arm's own ``training`` that the recipe's does not have."""
    shared = _table(settings.get("training"))
    known = [(one["loc"], one["type"]) for one in _errors(shared)]
    for name, arm in arms.items():
        own = merged(shared, _table(arm.get("training")))
        for one in _errors(own) if shared else []:
            if (one["loc"], one["type"]) not in known:
                one["loc"] = ("training", *one["loc"])
                for line in _message(one, {"training": own}).splitlines():
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
        yield "corrupted_labels: expected different fractions, got one twice"
    titles = [arm["title"] for arm in arms.values() if isinstance(arm.get("title"), str)]
    if len(set(titles)) < len(titles):
        yield "arms: expected a different title for each arm, got one twice"


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _shown(value: Any) -> str:
    """Return a short text for any value."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _message(error: Any, settings: Mapping[str, Any]) -> str:
    field = _field(tuple(word for word in error["loc"] if word != "[key]"), settings)
    context, got = error.get("ctx", {}), _shown(error["input"])
    tag = str(context.get("discriminator", "")).strip("'")  # policy or name
    match error["type"]:
        case "value_error":  # from a validator of ours
            text = str(context["error"])
            line = text if text.startswith(f"{field}.") else f"{field}: {text}"
        case "missing":
            line = f"{field} is missing"
        case "extra_forbidden":
            known = _known_fields(error["loc"])
            line = f"{field}: {unknown('field', str(error['loc'][-1]), known)}"
        case "union_tag_not_found":
            line = f"{field}.{tag} is missing"
        case "union_tag_invalid":
            tags = [one.strip(" '") for one in str(context["expected_tags"]).split(",")]
            line = f"{field}.{tag}: {unknown(tag, str(context['tag']), tags)}"
        case "string_pattern_mismatch":  # of names, in settings.py
            line = f"{field}: expected lowercase letters, digits and dashes, got {got}"
        case "too_short":
            line = f"{field}: expected at least {context['min_length']} entry, got {got}"
        case _:
            words = re.sub("^(Input|String) should (be |have )?", "", error["msg"])
            words = re.sub("^(greater|less) than", r"a number \g<0>", words)
            words = {"a valid dictionary": "a table", "a valid tuple": "a list"}.get(words, words)
            line = f"{field}: expected {words}, got {got}"
    return line


def _field(location: tuple[int | str, ...], settings: Any) -> str:
    """Return the dotted name of a field, without the tags that pydantic adds for unions."""
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


def _known_fields(location: tuple[int | str, ...]) -> list[str]:
    """Return the fields of the table that has an unknown one."""
    table: type[Settings] = Recipe
    for word in location[:-1]:
        table = _TABLES.get(str(word), table)
    return list(table.model_fields)


_TABLES: dict[str, Any] = {
    "data": tables.Data,
    "model": tables.Model,
    "training": tables.Training,
    "none": tables.PlainArm,
    "mixup": tables.MixUpArm,
    "published": tables.Published,
    "rest": tables.SGD,
} | {
    str(get_args(table.model_fields["name"].annotation)[0]): table
    for union in (tables.Optimizer, tables.Schedule, tables.Transform)
    for table in get_args(get_args(union)[0])
}
"""The tables of a recipe by the words of pydantic's locations."""
