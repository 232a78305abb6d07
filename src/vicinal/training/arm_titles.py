"""The titles of arms that have none of their own."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from vicinal.mixing.registry import POLICIES
from vicinal.training.arms import Arm, ImportedPolicy, MixingArm
from vicinal.training.recipe_table import Settings

_UNTITLED = {
    "title",
    "training",
    "augment",
    "unmixed_epochs_at_start",
    "unmixed_epochs_at_end",
    "at",
}


def titled(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Return arms with a title each: its own, or one that states its policy.

    Only settings that differ from their defaults are stated. Mixing at the input and at several
    layers is called manifold (arXiv 1806.05236) without their names, and mixup of examples with
    similar targets C-Mixup (2210.05775). The name of the arm is added where the titles of two arms
    would be the same.

    Example:
        >>> from vicinal.training.arms import ARMS
        >>> fields = {"policy": "mixup", "alpha": 0.2, "at": ["input", "stem"]}
        >>> titled({"a": ARMS["mixup"](**fields, pairing="halves")})["a"].title
        'mixup (alpha 0.2, halves) at input, stem'
        >>> layers = ["input", "stage1", "stage2"]
        >>> titled({"a": ARMS["cutmix"](policy="cutmix", at=layers)})["a"].title
        'manifold CutMix'
        >>> noise = {"name": "gaussian-noise", "std": 3}
        >>> titled({"a": ARMS["none"](policy="none", augment=[noise])})["a"].title
        'ERM + gaussian-noise (std 3)'
    """
    stated = {name: arm.title or _title(arm) for name, arm in arms.items()}
    counts = Counter(stated.values())
    titles = {
        name: title if arms[name].title or counts[title] == 1 else f"{title}, {name}"
        for name, title in stated.items()
    }
    return {name: arm.model_copy(update={"title": titles[name]}) for name, arm in arms.items()}


def dumped(name: str, arm: Arm) -> dict[str, Any]:
    """Return an arm as it is written in a recipe, without defaults and without a derived title.

    Example:
        >>> from vicinal.training.arms import ARMS
        >>> arms = titled({"mixup": ARMS["mixup"](policy="mixup", alpha=0.2)})
        >>> arms["mixup"].title, dumped("mixup", arms["mixup"])
        ('mixup (alpha 0.2)', {'policy': 'mixup', 'alpha': 0.2})
    """
    written = arm.model_dump(exclude_defaults=True, exclude_none=True)
    if has_derived_title(name, arm):
        written.pop("title", None)
    return written


def has_derived_title(name: str, arm: Arm) -> bool:
    """Return whether the title of an arm was derived from its settings, as by ``titled``."""
    return arm.title in (_title(arm), f"{_title(arm)}, {name}")


def _title(arm: Arm) -> str:
    added = "".join(f" + {_stated(one)}" for one in arm.augment)
    if not isinstance(arm, MixingArm):
        return f"ERM{added}"
    if "input" in arm.at and len(set(arm.at)) > 2:
        return f"manifold {_stated(arm)}{added}"
    layers = "" if arm.at == ("input",) else f" at {', '.join(arm.at)}"
    return f"{_stated(arm)}{layers}{added}"


def _stated(value: Any) -> str:
    """Return a value of a recipe in words; for a table, its name and what is not the default."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_stated, value))}]"
    if not isinstance(value, Settings):
        return str(value)
    if isinstance(value, ImportedPolicy):
        return _with(value.object, [f"{k} {_stated(v)}" for k, v in value.options.items()])
    name, stated = _parts(value)
    return _with(name, stated)


def _parts(table: Settings) -> tuple[str, list[str]]:
    """Return the name of a table of a recipe, and what is not the default, in words."""
    tag = "policy" if "policy" in type(table).model_fields else "name"
    name, stated = getattr(table, tag), []
    if tag == "policy" and name in POLICIES and name != "mixup":
        name = POLICIES[name].__name__
    for key, field in type(table).model_fields.items():
        part = getattr(table, key)
        if key in _UNTITLED | {tag} or part == field.default:
            continue
        tables = [
            one
            for one in (part if isinstance(part, tuple) else [part])
            if isinstance(one, Settings)
        ]
        if name == "mixup" and key == "pairing" and part.name == "similar-targets":
            name = "C-Mixup"
            stated += _parts(part)[1]
        else:
            stated += [_stated(one) for one in tables] or [f"{key} {_stated(part)}"]
    return name, stated


def _with(name: str, stated: list[str]) -> str:
    return f"{name} ({', '.join(stated)})" if stated else name
