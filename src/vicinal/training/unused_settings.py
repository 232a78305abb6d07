"""Settings that change nothing, which may be typing errors."""

from collections.abc import Iterable

from vicinal.training.settings import MixUpArm, Recipe, Step, Training
from vicinal.training.verdict_problems import plain_throughout


def idle_settings(
    recipe: Recipe, arms: Iterable[str], *, devices: int = 1, strategy: str = "ddp"
) -> list[str]:
    """Return a sentence for each setting that changes nothing.

    Args:
        recipe: of the study.
        arms: that are trained.
        devices: in all processes.
        strategy: for several devices.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> idle_settings(read_recipe("digits"), ["erm"], strategy="fsdp")
        ['--strategy fsdp changes nothing: there is one device']
    """
    found = []
    if devices == 1 and strategy != "ddp":
        found.append(f"--strategy {strategy} changes nothing: there is one device")
    for name in arms:
        arm, training = recipe.arms[name], recipe.training_of(name)
        if training.sync_batch_norm and devices == 1:
            found.append("training.sync_batch_norm changes nothing: there is one device")
        if isinstance(training.schedule, Step):
            late = [str(m) for m in training.schedule.milestones if m >= training.epochs]
            if late:
                found.append(
                    f"training.schedule.milestones: {', '.join(late)} never comes in "
                    f"{training.epochs} epochs"
                )
        if isinstance(arm, MixUpArm) and (reason := _never_mixes(arm, training)):
            found.append(f"arms.{name} never mixes: {reason}")
    return list(dict.fromkeys(found))


def _never_mixes(arm: MixUpArm, training: Training) -> str:
    epochs, batch = training.epochs, training.batch_size
    if reason := plain_throughout(arm, epochs):
        return reason
    for field in ("alpha", "mix_rate"):
        if getattr(arm, field) == 0:
            return f"{field} = 0"
    if round(arm.mix_rate * batch) == 0:
        return f"mix_rate = {arm.mix_rate} of a batch of {batch} examples is none"
    return ""
