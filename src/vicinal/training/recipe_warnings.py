"""Warnings before training: code to import, notes on the data, useless settings, no verdict."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from vicinal.data import DataSet, data_root, parse_spec, recognized
from vicinal.errors import UserError
from vicinal.models import imported_module
from vicinal.training.arms import Arm, MixingArm, imported_policies
from vicinal.training.origin import data_facts
from vicinal.training.settings import Recipe, Step, Training

_MOST_INITIAL = 0.1
"""The share of initial weights in a moving average above which it is no trained network."""


class VerdictProblem(NamedTuple):
    """A reason to withhold a verdict.

    Args:
        text: a clause, such as ``"class cat has no test examples"``.
        arm: the only arm that it affects; None if it affects the whole study.
    """

    text: str
    arm: str | None = None


def code_warnings(recipe: Recipe) -> list[str]:
    """Return a warning for each field of a recipe that imports code."""
    network, ood = recipe.model.name, recipe.probes.ood
    named = [("model.name", network, imported_module(network))]
    sources = {"data.source": recipe.data.source, "probes.ood.source": ood.source if ood else ""}
    for field, source in sources.items():
        with suppress(UserError):  # an unknown source is an error where it is loaded
            spec = recognized(source, root=data_root(), guess=False).spec if source else ""
            if spec and (parsed := parse_spec(spec)).name == "import":
                named.append((field, source, parsed.where.partition(":")[0]))
    for name, arm in recipe.arms.items():
        for path in imported_policies(arm):
            named.append((f"arms.{name}", path, path.partition(":")[0]))
    return [
        f"this recipe imports and runs code: {field} = {value!r} imports {module}"
        for field, value, module in named
        if module is not None
    ]


def note_lines(data: DataSet) -> list[str]:
    """Return the notes on a data set; doubtful ones are warnings.

    Example:
        >>> from vicinal.data import Note, load
        >>> import dataclasses
        >>> notes = (Note("the first row is a header"), Note("column id is unique", True))
        >>> note_lines(dataclasses.replace(load("digits"), notes=notes))
        ['the first row is a header', 'warning: column id is unique']
    """
    return [f"{'warning: ' * note.doubtful}{note.text}" for note in data.notes]


def data_warnings(recipe: Recipe, data: DataSet, arms: Iterable[str]) -> list[str]:
    """Return the notes on the data, and why there will be no verdict on some arms."""
    facts = data_facts(data, recipe.task)
    # Several splits test every group and every label, and those of classes have equal shares.
    if recipe.splits > 1 and (facts["grouped"] or facts["task"] == "multi-label"):
        splits = [facts[name]["of_each_class"] for name in data.splits]
        tested = np.sum(splits, 0, int).tolist()
        facts = facts | {"test": facts["test"] | {"of_each_class": tested}}
    return note_lines(data) + [
        f"warning: {problem.text}, so no verdict will be given"
        for problem in verdict_problems(recipe, facts)
        if problem.arm in (None, *arms)
    ]


def unused_settings(recipe: Recipe, arms: Iterable[str], *, devices: int = 1) -> list[str]:
    """Return a sentence for each setting that has no effect.

    Args:
        recipe: the recipe.
        arms: the arms that are trained.
        devices: number of devices, over all machines.

    Example:
        >>> from vicinal.training.recipe import Changes, read_recipe
        >>> changes = Changes(settings=["training.sync_batch_norm=true"])
        >>> unused_settings(read_recipe("digits", changes=changes), ["erm"])
        ['training.sync_batch_norm has no effect: there is one device']
    """
    found = []
    for name in arms:
        arm, training = recipe.arms[name], recipe.training_of(name)
        if training.sync_batch_norm and devices == 1:
            found.append("training.sync_batch_norm has no effect: there is one device")
        milestones = training.schedule.milestones if isinstance(training.schedule, Step) else ()
        if late := [str(m) for m in milestones if m >= training.epochs]:
            found.append(
                f"training.schedule.milestones: not reached in {training.epochs} epochs: "
                f"{', '.join(late)}"
            )
        if training.warmup_epochs and training.schedule.name == "one-cycle":
            found.append(
                "warning: training.warmup_epochs precedes one-cycle, which has a warm-up of its own"
                " (schedule.pct_start), so the learning rate rises, falls and rises again"
            )
        if training.warmup_start_factor and not training.warmup_epochs:
            found.append("training.warmup_start_factor has no effect: warmup_epochs = 0")
        if training.class_weights == "balanced" and training.sampling == "balanced":
            found.append(
                "warning: training.class_weights and training.sampling are both balanced, so rare "
                "classes count more than all others"
            )
        size = training.batch_size // (training.accumulation_steps * devices)
        if why := _never_mixes(arm, training, size) or (
            isinstance(arm, MixingArm) and _mixes_nothing(arm, size)
        ):
            found.append(f"arms.{name} never mixes: {why}")
    return list(dict.fromkeys(found))


def _mixes_nothing(table: Any, size: int) -> str:
    """Return why a policy mixes no example of a batch of some size, or ``""``."""
    if table.policy == "none":
        return 'policy = "none"'
    if getattr(table, "alpha", 1) == 0:
        return "alpha = 0"
    rate = getattr(table, "mix_rate", 1.0)
    if round(rate * size) == 0:
        return f"mix_rate = {rate:g} of a batch of {size} examples rounds to 0"
    if getattr(table, "weight", 1) == 0:
        return "weight = 0"
    if hasattr(table, "inner"):
        return _mixes_nothing(table.inner, size)
    odds = getattr(table, "probabilities", None) or repeat(1)
    chosen = [one for one, odd in zip(getattr(table, "policies", ()), odds, strict=False) if odd]
    reasons = [_mixes_nothing(one, size) for one in chosen]
    return " and ".join(dict.fromkeys(reasons)) if all(reasons) else ""


def _never_mixes(arm: Arm, training: Training, size: int) -> str:
    """Return why the settings of training leave nothing to mix, or ``""``."""
    if not isinstance(arm, MixingArm):
        return ""
    if size == 1:
        return "each forward pass has one example, which has no partner"
    if arm.unmixed_epochs_at_start + arm.unmixed_epochs_at_end < training.epochs:
        return ""
    return (
        f"unmixed_epochs_at_start = {arm.unmixed_epochs_at_start} and unmixed_epochs_at_end = "
        f"{arm.unmixed_epochs_at_end} leave none of the {training.epochs} epochs"
    )


def verdict_problems(recipe: Recipe, facts: Mapping[str, Any]) -> list[VerdictProblem]:
    """Return why verdicts would be meaningless, as far as that is known before training.

    Args:
        recipe: recipe of the study.
        facts: facts about its data, as in ``vicinal.training.origin.data_facts``; {} if unknown.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> split = {"of_each_class": [5, 0]}
        >>> facts = {"classes": ["cat", "dog"], "train": split, "test": split, "constant": False}
        >>> [problem.text for problem in verdict_problems(read_recipe("digits"), facts)]
        ['class dog has no training examples', 'class dog has no test examples']
    """
    found = _data_problems(facts) if facts else []
    if facts.get("grouped") and recipe.splits == 1:
        text = "test examples belong to groups, for which one split cannot account (splits = 5 can)"
        found.append(VerdictProblem(text))
    for name, arm in recipe.arms.items():
        training = recipe.training_of(name)
        if training.warmup_epochs > training.epochs:
            found.append(
                VerdictProblem(
                    f"the warm-up of {arm.title} ({training.warmup_epochs:g} epochs) is longer "
                    f"than its training ({training.epochs})",
                    name,
                )
            )
        if training.ema_decay is not None and facts:
            steps = training.epochs * -(-facts["train"]["examples"] // training.batch_size)
            if (share := training.ema_decay**steps) > _MOST_INITIAL:
                found.append(
                    VerdictProblem(
                        f"the moving average of {arm.title} keeps {share:.0%} of its initial "
                        f"weights (ema_decay = {training.ema_decay:g} over {steps:,} steps)",
                        name,
                    )
                )
        if reason := _never_mixes(
            arm, training, training.batch_size // training.accumulation_steps
        ):
            found.append(VerdictProblem(f"{arm.title} never mixes, since {reason}", name))
    return found


def _data_problems(facts: Mapping[str, Any]) -> list[VerdictProblem]:
    classes = facts["classes"]
    if len(classes) == 1 and facts.get("task") != "multi-label":
        return [VerdictProblem(f"there is only one class, {classes[0]}")]
    found = []
    for split, words in (("train", "training"), ("test", "test")):
        counts = facts[split]["of_each_class"]
        missing = [name for name, count in zip(classes, counts, strict=True) if not count]
        if missing:
            found.append(VerdictProblem(f"{_classes_have(missing)} no {words} examples"))
    if facts["constant"]:
        found.append(VerdictProblem("all training inputs are the same"))
    return found


def _classes_have(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"class {names[0]} has"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"classes {', '.join(names[:5])}{more} have"
