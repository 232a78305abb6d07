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
from vicinal.training.criterion import LOSSES
from vicinal.training.settings import Recipe

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
    policy, loss = _code(settings), f"F.{LOSSES[task].__name__}"
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
    if "ColumnCutMix" in called:
        lines.insert(
            0,
            "# If columns are one-hot, pass groups=..., as in the study: see help(ColumnCutMix).",
        )
    training = recipe.training_of(arm)
    more = [f"label_smoothing = {training.label_smoothing:g}"] * bool(training.label_smoothing)
    more += [f'class_weights = "{training.class_weights}"'] * (training.class_weights != "none")
    if more:
        lines.append(f"# The loss of the study also has {' and '.join(more)}.")
    start, end = settings.unmixed_epochs_at_start, settings.unmixed_epochs_at_end
    if start or end:
        lines.append(f"# The first {start} and the last {end} epochs were not mixed.")
    return "\n".join(lines)


def _code(value: Any) -> str:
    """Return a policy, a pairing or a value in one as code, with alpha and what is no default."""
    if isinstance(value, NoPolicy):
        return "None"
    if isinstance(value, ImportedPolicy):
        options = ", ".join(f"{name}={_code(one)}" for name, one in value.options.items())
        return f"{value.object.partition(':')[2]}({options})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_code, value))}]"
    if not isinstance(value, BuiltTable):
        return "math.inf" if value == math.inf else repr(value)
    kind: Any = value.builds
    given = []
    for argument in dataclasses.fields(kind):
        name = field_name(argument.name)
        own = getattr(value, name)
        if argument.name == "alpha":
            several = isinstance(own, list | tuple)
            text = f"({', '.join(map(_code, own))})" if several else _code(own)
            given.append(f"alpha={text}")
        elif own != type(value).model_fields[name].default:
            given.append(f"{argument.name}={_code(own)}")
    return f"{kind.__name__}({', '.join(given)})"
