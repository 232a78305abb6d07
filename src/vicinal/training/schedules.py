"""Learning rate schedules, as functions of the step."""

import math

from vicinal.training.settings import Constant, Cosine, Linear, Step, Training

_FLOOR = 4e-6
"""The last factor of one cycle: that of PyTorch with its defaults, 1 / 25 / 10,000."""


def rate_factor(step: float, training: Training, steps_per_epoch: int) -> float:
    """Return the learning rate at a step, as a fraction of its peak.

    There is no state, so a resumed training needs none. A warm-up is a linear rise; the
    schedule takes the remaining epochs, but milestones of ``Step`` still count from the start.

    Args:
        step: optimizer step from 0, over all epochs.
        training: for its schedule and epochs.
        steps_per_epoch: optimizer steps per epoch.

    Example:
        >>> from vicinal.training.settings import SGD
        >>> sgd, cosine = SGD(name="sgd", lr=0.1), Cosine(name="cosine")
        >>> training = Training(epochs=2, batch_size=8, optimizer=sgd, schedule=cosine)
        >>> [rate_factor(step, training, steps_per_epoch=1) for step in range(2)]
        [1.0, 0.5]
    """
    schedule = training.schedule
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        start = training.warmup_start_factor
        return start + (1 - start) * (step + 1) / (warmup + 1)
    if isinstance(schedule, Constant):
        return 1.0
    if isinstance(schedule, Step):
        passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
        return float(schedule.gamma**passed)
    here, count = step - warmup, training.epochs * steps_per_epoch - warmup
    if isinstance(schedule, Linear | Cosine):
        part = here / max(count, 1)
        return _wave(part) if isinstance(schedule, Cosine) else 1 - part
    up = max(schedule.pct_start * count - 1, 0)
    if here <= up:
        return 1 - (1 - 1 / schedule.div_factor) * _wave(here / up if up else 1)
    # The lowest rate is that of the last step, as in PyTorch.
    down = count - 1 - up
    return _FLOOR + (1 - _FLOOR) * _wave((here - up) / down if down > 0 else 1)


def _wave(fraction: float) -> float:
    """Fall from 1 to 0 along half a cosine wave."""
    return (1 + math.cos(math.pi * fraction)) / 2
