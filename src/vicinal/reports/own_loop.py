"""The settings of an arm as code for the reader's own training loop."""

import dataclasses
import math
import re
from typing import Any

from vicinal.training.arms import (
    BuiltTable,
    ImportedPolicy,
    NoPolicy,
    field_name,
    imported_policies,
)
from vicinal.training.settings import Recipe

_LOSSES = {
    "classification": "F.cross_entropy",
    "multi-label": "F.binary_cross_entropy_with_logits",
    "regression": "F.mse_loss",
}
_ARGUMENTS = {
    **dict.fromkeys(("CutMix", "ResizeMix", "FMix"), "image_size=x.shape[2:]"),
    "ColumnCutMix": "image_size=x.shape[1:]",
    **dict.fromkeys(("SameClass", "DifferentClass", "SimilarTargets"), "y=y"),
    "Nearest": "features=x",
}
"""What ``draw`` needs, by the policy or pairing that needs it."""


def own_loop(recipe: Recipe, arm: str, task: str) -> str:
    """Return lines of Python that mix batches ``x``, ``y`` as an arm of a study does.

    No user code is imported.

    Args:
        recipe: recipe of the study.
        arm: one that mixes.
        task: what is predicted.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> print(own_loop(read_recipe("digits"), "mixup", "classification"))
        policy = MixUp(alpha=8.0)
        plan = policy.draw(len(x))
        loss = plan.loss(F.cross_entropy, model(plan.mix(x)), y)
    """
    settings: Any = recipe.arms[arm]
    policy, loss = code(settings), _LOSSES[task]
    called = re.findall(r"(\w+)\(", policy)
    needed = {_ARGUMENTS[name] for name in called if name in _ARGUMENTS}
    arguments = ", ".join(["len(x)", *sorted(needed)])
    if tuple(settings.at) == ("input",):
        lines = [
            f"policy = {policy}",
            f"plan = policy.draw({arguments})",
            f"loss = plan.loss({loss}, model(plan.mix(x)), y)",
        ]
    else:
        lines = [
            f"mixed = MixedInside(model, {policy}, at={list(settings.at)!r})",
            f"layer, plan = mixed.draw({arguments})",
            f"loss = plan.loss({loss}, mixed(x, plan, at=layer), y)",
        ]
    if task == "regression":
        lines.insert(0, "y = (y - mean) / std  # of the training targets, as in the study")
    for name in sorted({path.partition(":")[2] for path in imported_policies(settings)}):
        if re.search(rf"\b{name}\(\)", policy):
            lines.insert(0, f"# Leave out () if {name} is a policy, not a class or a function.")
    start, end = settings.unmixed_epochs_at_start, settings.unmixed_epochs_at_end
    if start or end:
        lines.append(f"# The first {start} and the last {end} epochs were not mixed.")
    return "\n".join(lines)


def code(value: Any) -> str:
    """Return a policy, a pairing, or a value in one, as Python code: alpha and what is no default.

    Args:
        value: as it is in a recipe, or as it is built.

    Example:
        >>> from vicinal import CutMix, Reverse
        >>> code(CutMix(alpha=1.0, per="example", pairing=Reverse()))
        "CutMix(alpha=1.0, per='example', pairing=Reverse())"
    """
    if isinstance(value, NoPolicy):
        return "None"
    if isinstance(value, ImportedPolicy):
        options = ", ".join(f"{name}={code(one)}" for name, one in value.options.items())
        return f"{value.object.partition(':')[2]}({options})"
    if isinstance(value, BuiltTable):
        kind: Any = value.builds
        own = {one.name: getattr(value, field_name(one.name)) for one in dataclasses.fields(kind)}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        own = {one.name: getattr(value, one.name) for one in dataclasses.fields(kind)}
    elif isinstance(value, list | tuple):
        return f"[{', '.join(map(code, value))}]"
    else:
        return "math.inf" if value == math.inf else repr(value)
    given = []
    for one in dataclasses.fields(kind):
        text = code(own[one.name])
        if one.name == "alpha" and isinstance(own["alpha"], list | tuple):
            text = f"({', '.join(map(code, own['alpha']))})"
        default: Any = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        shown = one.name == "alpha" or default is dataclasses.MISSING
        if shown or text != code(default):
            given.append(f"{one.name}={text}")
    return f"{kind.__name__}({', '.join(given)})"
