"""Changes to the settings of a recipe, such as those of the command line."""

import re
import tomllib
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, NamedTuple

from vicinal.errors import UserError, unknown
from vicinal.models import mixing_layers
from vicinal.training.arm_shorthands import SHORTHANDS, set_alpha, shorthand_arms
from vicinal.training.arm_titles import dumped
from vicinal.training.metrics import METRICS
from vicinal.training.settings import Training


class Changes(NamedTuple):
    """Settings to replace in a recipe; None and empty keep those of the recipe.

    Args:
        seeds: number of seeds.
        epochs: number of epochs.
        data: the data set.
        arms: names of arms to keep, in this order; those that the recipe lacks are added as
            ``vicinal.training.arm_shorthands.shorthand_arms`` defines them. The baseline stays.
        alpha: alpha of all arms that have one.
        model: name of the network.
        metric: the primary metric.
        settings: fields by their path, and values as in TOML: ``"training.ema_decay=0.99"``.
    """

    seeds: int | None = None
    epochs: int | None = None
    data: str | None = None
    arms: Sequence[str] = ()
    alpha: float | None = None
    model: str | None = None
    metric: str | None = None
    settings: Sequence[str] = ()


def change(settings: MutableMapping[str, Any], changes: Changes) -> None:
    """Change the settings of a recipe in place.

    Args:
        settings: as in TOML, perhaps invalid.
        changes: the changes.

    Raises:
        UserError: if an arm is unknown, or a change has no value.

    Example:
        >>> settings = {"training": {"optimizer": {"name": "sgd", "lr": 0.1}}}
        >>> change(settings, Changes(settings=["training.lr=0.2"]))
        >>> settings["training"]["optimizer"]["lr"]
        0.2
    """
    before = _facts(settings)
    if changes.seeds is not None:
        settings["seeds"] = changes.seeds
    for table, field, value in (
        ("training", "epochs", changes.epochs),
        ("data", "source", changes.data),
        ("model", "name", changes.model),
    ):
        if value is not None and isinstance(settings.get(table), MutableMapping):
            settings[table][field] = value
    if changes.epochs is not None and isinstance(arms := settings.get("arms"), MutableMapping):
        for arm in arms.values():  # one number for all
            if isinstance(arm, MutableMapping) and isinstance(arm.get("training"), MutableMapping):
                arm["training"].pop("epochs", None)
    known = arms if isinstance(arms := settings.get("arms"), MutableMapping) else {}
    added = {name for name in changes.arms if name in SHORTHANDS} - {*known}
    later = [text for text in changes.settings if _arm_of(text) in added]
    for text in changes.settings:
        if text not in later:
            _set(settings, text)
    if changes.metric is not None:
        _set_metric(settings, changes.metric)
    if changes.arms or changes.alpha is not None:
        _change_arms(settings, changes)
    for text in later:  # these arms have just been added
        _set(settings, text)
    _change_published(settings, before, _facts(settings))


def _facts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what published results are about: the network, the data, the mixing of each arm."""
    found = {}
    for name, field in (("model", "name"), ("data", "source")):
        if isinstance(table := settings.get(name), Mapping):
            found[name] = str(table.get(field))
    if isinstance(arms := settings.get("arms"), Mapping):
        for name, arm in arms.items():
            if isinstance(arm, Mapping):
                mixing = {k: v for k, v in arm.items() if k not in ("title", "training")}
                found[f"arms.{name}"] = str(mixing)
    return found


def _change_published(
    settings: MutableMapping[str, Any], before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Remove published results of another network or arm, and say so if data may be others."""
    published = settings.get("published")
    if not isinstance(published, MutableSequence):
        return
    for k in reversed(range(len(published))):
        arm = published[k].get("arm") if isinstance(published[k], Mapping) else None
        if any(now.get(one) != before.get(one) for one in ("model", f"arms.{arm}")):
            del published[k]
    known = settings.get("known_differences")
    if not published:
        del settings["published"]
        settings.pop("known_differences", None)
    elif now.get("data") != before.get("data") and isinstance(known, MutableSequence):
        text = f"The data are {now['data']}, perhaps not those of the published runs."
        for k in reversed(range(len(known))):
            if str(known[k]).startswith("The data are "):
                del known[k]
        known.append(text)


def _arm_of(text: str) -> str:
    """Return the arm that a setting changes, or ``""``."""
    table, *names = text.partition("=")[0].strip().split(".")
    return names[0] if table == "arms" and names else ""


def _set(settings: MutableMapping[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    *tables, field = path.strip().split(".")
    if not equals or not all([*tables, field]):
        raise UserError(f"--set: expected FIELD=VALUE, such as training.lr=0.1, got {text!r}.")
    table = settings
    for name in tables:
        if not isinstance(table.setdefault(name, {}), MutableMapping):
            raise UserError(f"--set: {name} in {path} is a value, not a table with fields.")
        table = table[name]
    if tables == ["training"] and field not in Training.model_fields:
        # training.lr stands for training.optimizer.lr, if only one table has this field.
        having = [one for one in table.values() if isinstance(one, MutableMapping) and field in one]
        table = having[0] if len(having) == 1 else table
    try:
        table[field] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[field] = value.strip()  # text needs no quotes


def _set_metric(settings: MutableMapping[str, Any], metric: str) -> None:
    if metric not in METRICS:
        raise UserError(f"--metric: {unknown('metric', metric, METRICS)}.")
    others = settings.get("metrics", ())
    if isinstance(others, list | tuple):  # else validation reports it
        settings["metrics"] = [metric, *(name for name in others if name != metric)]


def _change_arms(settings: MutableMapping[str, Any], changes: Changes) -> None:
    arms, model = settings.get("arms"), settings.get("model", {})
    if not isinstance(arms, MutableMapping) or not isinstance(model, MutableMapping):
        return  # which is an error of the recipe
    names = list(changes.arms or arms)
    baseline = settings.get("baseline")
    if baseline in arms and baseline not in names:
        names.insert(0, baseline)
    new = [name for name in names if name not in arms]
    if new:
        known = sorted({*arms, *SHORTHANDS})
        if missing := [name for name in new if name not in SHORTHANDS]:
            raise UserError(f"--arms: {unknown('arm', missing[0], known)}.")
        known_layers = mixing_layers(str(model.get("name", ""))) or ()
        layers = [name for name in known_layers if name != "input"]
        for name, arm in shorthand_arms(new, layers=layers).items():
            arms[name] = dumped(name, arm)
    for name in [name for name in arms if name not in names]:
        del arms[name]
    if changes.alpha is not None:
        _change_alpha(arms, changes.alpha)


def _change_alpha(arms: MutableMapping[str, Any], alpha: float) -> None:
    """Set the alpha of all arms, and in titles that state it."""
    tables = {name: arm for name, arm in arms.items() if isinstance(arm, MutableMapping)}
    old = {name: table.get("alpha") for name, table in tables.items()}
    found = [set_alpha(table, alpha) for table in tables.values()]
    if not any(found):
        raise UserError("--alpha: none of the arms has one. Leave it out, or add mixup.")
    alike: dict[str, list[str]] = {}
    for name, table in tables.items():
        if isinstance(before := old[name], int | float) and "title" in table:
            stated = rf"(alpha ){re.escape(f'{before:g}')}(?![\d.])"
            table["title"] = re.sub(stated, rf"\g<1>{alpha:g}", str(table["title"]))
        same = str({key: value for key, value in table.items() if key != "title"})
        alike.setdefault(same, []).append(name)
    for names in alike.values():
        if len(names) > 1:
            raise UserError(
                f"--alpha: makes the arms {' and '.join(names)} the same. Name those to keep with "
                "--arms."
            )
