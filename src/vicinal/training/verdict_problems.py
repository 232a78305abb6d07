"""What makes the verdict of a study meaningless, whatever its numbers are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vicinal.training.settings import MixUpArm, Recipe


class VerdictProblem(NamedTuple):
    """A reason to withhold a verdict.

    Args:
        text: a clause, such as ``"class cat has no test examples"``.
        arm: the only arm that it is about; None where it is about the whole study.
    """

    text: str
    arm: str | None = None


class Constant(NamedTuple):
    """The predictor that always answers the most frequent training class.

    Args:
        name: of that class.
        accuracy: its share of the test split.
    """

    name: str
    accuracy: float


def verdict_problems(recipe: Recipe, facts: Mapping[str, Any]) -> list[VerdictProblem]:
    """Return what makes verdicts meaningless before anything is trained.

    Args:
        recipe: of the study.
        facts: of its data; see ``vicinal.training.fingerprint.data_facts``. {} if they are unknown.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> split = {"of_each_class": [5, 0]}
        >>> facts = {"classes": ["cat", "dog"], "train": split, "test": split, "constant": False}
        >>> [problem.text for problem in verdict_problems(read_recipe("digits"), facts)]
        ['class dog has no training examples', 'class dog has no test examples']
    """
    found = _about_data(facts) if facts else []
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
        if isinstance(arm, MixUpArm) and (reason := plain_throughout(arm, training.epochs)):
            found.append(VerdictProblem(f"{arm.title} never mixes, since {reason}", name))
    return found


def plain_throughout(arm: MixUpArm, epochs: int) -> str:
    """Return why an arm mixes in none of its epochs, or ``""``."""
    if arm.unmixed_epochs_at_start + arm.unmixed_epochs_at_end < epochs:
        return ""
    return (
        f"unmixed_epochs_at_start = {arm.unmixed_epochs_at_start} and "
        f"unmixed_epochs_at_end = {arm.unmixed_epochs_at_end} leave none of the {epochs} epochs"
    )


def constant_predictor(facts: Mapping[str, Any]) -> Constant:
    """Return how often the most frequent training class is right for the test split.

    Example:
        >>> train, test = ({"examples": n, "of_each_class": [n - 5, 5]} for n in (20, 10))
        >>> constant_predictor({"classes": ["no", "yes"], "train": train, "test": test})
        Constant(name='no', accuracy=0.5)
    """
    counts = facts["train"]["of_each_class"]
    most = counts.index(max(counts))
    test = facts["test"]
    return Constant(facts["classes"][most], test["of_each_class"][most] / test["examples"])


def _about_data(facts: Mapping[str, Any]) -> list[VerdictProblem]:
    classes = facts["classes"]
    if len(classes) == 1:
        return [VerdictProblem(f"there is only one class, {classes[0]}")]
    found = []
    for split, words in (("train", "training"), ("test", "test")):
        counts = facts[split]["of_each_class"]
        missing = [name for name, count in zip(classes, counts, strict=True) if not count]
        if missing:
            found.append(VerdictProblem(f"{_classes(missing)} no {words} examples"))
    if facts["constant"]:
        found.append(VerdictProblem("all training inputs are the same"))
    return found


def _classes(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"class {names[0]} has"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"classes {', '.join(names[:5])}{more} have"
