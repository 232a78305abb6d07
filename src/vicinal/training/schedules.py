"""Schedules: what the learning rate is multiplied by at each step, in closed form."""

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
    """Return the share of the peak learning rate at a step.

    It depends on nothing but these numbers, so that a resumed run has no state of it to bring back.

    Args:
        step: from 0, over all epochs.
        schedule: the form.
        steps_per_epoch: optimizer steps of an epoch.
        epochs: of the whole run.
        warmup_epochs: how long a straight rise from nothing stands before the schedule, which has
            the epochs that are left; for ``step`` the milestones still count from the start.

    Returns:
        A factor from 0 to 1.

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
    # The last step, not the one behind it, has the lowest rate.
    return _FLOOR + (1 - _FLOOR) * _wave((here - up) / max(count - 1 - up, 1))


_FLOOR = 4e-6
"""What is left at the end of one cycle: the start, by default, divided by 10,000."""


def _wave(share: float) -> float:
    """Fall from 1 to 0 along half a cosine wave."""
    return (1 + math.cos(math.pi * share)) / 2
