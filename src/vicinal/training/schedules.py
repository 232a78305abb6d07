"""Learning rate schedules, as functions of the step."""

import math

from vicinal.training import settings


def rate_factor(
    step: float,
    *,
    schedule: settings.OneCycle | settings.Cosine | settings.Linear | settings.Step,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
) -> float:
    """Return the learning rate at a step, as a fraction of its peak.

    There is no state, so a resumed training needs none.

    Args:
        step: optimizer step from 0, over all epochs.
        schedule: the schedule.
        steps_per_epoch: optimizer steps per epoch.
        epochs: of the whole training.
        warmup_epochs: length of a linear rise from zero before the schedule, which takes the
            remaining epochs. Milestones of ``Step`` still count from the start.

    Example:
        >>> cosine = settings.Cosine(name="cosine")
        >>> [rate_factor(k, schedule=cosine, steps_per_epoch=1, epochs=2) for k in range(2)]
        [1.0, 0.5]
    """
    warmup = warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if isinstance(schedule, settings.Step):
        passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
        return float(schedule.gamma**passed)
    total = epochs * steps_per_epoch
    share = (step - warmup) / max(total - warmup, 1)
    if isinstance(schedule, settings.Linear):
        return 1 - share
    if isinstance(schedule, settings.Cosine):
        return _wave(share)
    here, count = step - warmup, total - warmup
    up = max(schedule.pct_start * count - 1, 0)
    if here <= up:
        return 1 - (1 - 1 / schedule.div_factor) * _wave(here / up if up else 1)
    # The lowest rate is that of the last step, as in PyTorch.
    return _FLOOR + (1 - _FLOOR) * _wave((here - up) / max(count - 1 - up, 1))


_FLOOR = 4e-6
"""The last factor of one cycle: that of PyTorch with its defaults, 1 / 25 / 10,000."""


def _wave(share: float) -> float:
    """Fall from 1 to 0 along half a cosine wave."""
    return (1 + math.cos(math.pi * share)) / 2
