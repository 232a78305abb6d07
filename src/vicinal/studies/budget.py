"""Seeds and epochs that fit into a number of minutes, by timing the first steps."""

import itertools
import math
import time
from collections.abc import Collection
from typing import NamedTuple

from vicinal.data import DataSet
from vicinal.data.threads import cpu_threads
from vicinal.training.evaluation import predict
from vicinal.training.loop import train
from vicinal.training.memory import memory_kept
from vicinal.training.settings import Recipe
from vicinal.training.task import task_of
from vicinal.training.trial import fabric_for, learner_of
from vicinal.training.trial_result import Trial
from vicinal.training.trial_setup import build_network, make_loaders

LEAST_SEEDS, LEAST_EPOCHS = 3, 5
"""What is kept even if the budget is too small."""

_TRAINING_SHARE = 0.85
"""The share of the minutes for training; the rest is for starting, saving and the report."""

_WARMUP, _STEPS = 4, 20
"""How many steps are not timed, and how many are taken at least, if ``_MOST_SECONDS`` allow."""

_LEAST_SECONDS, _MOST_SECONDS = 1.5, 8.0
"""For how long steps are taken."""


class Cost(NamedTuple):
    """The cost of a study on this machine.

    Args:
        epoch: seconds of an epoch of one trial, with its test.
        total: seconds of the study.
    """

    epoch: float
    total: float


def cost_of(recipe: Recipe, data: DataSet) -> Cost:
    """Estimate the cost of a study by timing the first steps of its last arm.

    Args:
        recipe: recipe of the study.
        data: its data set.

    Raises:
        UserError: if the recipe does not fit the data or the device.
    """
    uncompiled = recipe.training.model_copy(update={"compile": False, "cuda_graphs": False})
    recipe = recipe.model_copy(update={"training": uncompiled})
    arm = list(recipe.arms)[-1]
    settings = recipe.training_of(arm)
    task = task_of(data, recipe.task)
    trial = Trial(arm, recipe.corrupted_labels[-1], 0)
    fabric = fabric_for(settings)
    with cpu_threads(settings.threads), memory_kept():
        loaders = make_loaders(recipe, trial, data, task, fabric)
        model = build_network(recipe, trial, data, task, loaders)
        learner = learner_of(
            model, recipe, trial, data, fabric=fabric, task=task, labels=loaders.labels
        )
        times = [time.perf_counter()]
        for _ in train(learner, loaders.train, seed=0, should_stop=lambda: True):
            times.append(time.perf_counter())
            seconds = times[-1] - times[0]
            if (len(times) > _STEPS and seconds > _LEAST_SECONDS) or seconds > _MOST_SECONDS:
                break
        steps = [after - before for before, after in itertools.pairwise(times)]
        # The first steps are slower, since kernels are chosen and memory is allocated in them.
        steps = sorted(steps[_WARMUP:] or steps)
        batch = next(loaders.test.epoch(0))
        for _ in range(2):
            start = time.perf_counter()
            found = predict(learner.trained, [batch], fabric=fabric, settings=settings)
            found.outputs.sum().item()  # waits for the device
            each = (time.perf_counter() - start) / len(batch[1])
    held_out = sum(len(split) for name, split in data.splits.items() if name != "train")
    epoch = len(loaders.train) * steps[len(steps) // 2] + each * held_out
    trials = {one: recipe.training_of(one).epochs for one in recipe.arms}
    epochs = sum(trials.values()) * recipe.seeds * recipe.splits * len(recipe.corrupted_labels)
    return Cost(epoch, epochs * epoch)


def minutes_of(recipe: Recipe, cost: Cost, *, fixed: bool) -> float:
    """Return the minutes of a study with all of its epochs.

    Args:
        recipe: recipe of the study.
        cost: cost of the study.
        fixed: whether the user chose the number of seeds; else it can be cut to the fewest.
    """
    fewest = recipe.seeds if fixed else min(recipe.seeds, LEAST_SEEDS)
    return cost.total * fewest / recipe.seeds / _TRAINING_SHARE / 60


def fitted(
    recipe: Recipe, cost: Cost, minutes: float, *, fixed: Collection[str] = ()
) -> tuple[int, int, str]:
    """Return seeds and epochs that fit into a number of minutes, and a sentence on what was cut.

    Seeds are cut first, to three; then epochs.

    Args:
        recipe: recipe of the study.
        cost: cost of the study.
        minutes: the budget.
        fixed: ``"seeds"`` or ``"epochs"`` if the user chose them, so that they stay.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> from vicinal.training.recipe_changes import Changes
        >>> fitted(read_recipe("digits", changes=Changes(seeds=5)), Cost(0.5, 450.0), 6)
        (3, 30, '6 minutes allow 3 seeds instead of 5: an epoch takes about 0.5 s')
    """
    seeds, epochs = recipe.seeds, recipe.training.epochs
    share = _TRAINING_SHARE * minutes * 60 / cost.total
    if share < 1 and "seeds" not in fixed:
        seeds = max(min(seeds, LEAST_SEEDS), math.floor(seeds * share))
        share *= recipe.seeds / seeds
    if share < 1 and "epochs" not in fixed:
        epochs = max(min(epochs, LEAST_EPOCHS), math.floor(epochs * share))
        share *= recipe.training.epochs / epochs
    cut = cuts(recipe, seeds, epochs)
    each = f"an epoch takes about {seconds_text(cost.epoch)}"
    if share < 0.8:
        takes = f"the study takes about {_minutes_text(math.ceil(minutes / share))}"
        even = f" even with {cut}" if cut else ""
        less = "To shorten it, choose fewer --arms, --seeds or --epochs"
        return seeds, epochs, f"{takes}{even}, since {each}. {less}"
    if not cut:
        return seeds, epochs, ""
    whole = recipe.training.epochs
    longer = math.ceil(minutes * whole / epochs)
    more = f". {seeds} seeds and {whole} epochs would take --minutes {longer}"
    text = _minutes_text(minutes)
    allowed = f"{text} {'allows' if text == '1 minute' else 'allow'} {cut}: {each}"
    return seeds, epochs, f"{allowed}{more * (epochs < whole)}"


def seconds_text(seconds: float) -> str:
    """Return a duration with two digits.

    Example:
        >>> seconds_text(0.123), seconds_text(1234.5)
        ('0.12 s', '1,234 s')
    """
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _minutes_text(minutes: float) -> str:
    return f"{minutes:,g} minute{'s' * (minutes != 1)}"


def cuts(recipe: Recipe, seeds: int, epochs: int) -> str:
    """Return how many seeds and epochs there are instead of those of a recipe, or ``""``.

    Example:
        >>> from vicinal.training.recipe import read_recipe
        >>> cuts(read_recipe("digits"), 3, 5)
        '5 epochs instead of 30'
    """
    both = (("seeds", seeds, recipe.seeds), ("epochs", epochs, recipe.training.epochs))
    return " and ".join(f"{new} {name} instead of {old}" for name, new, old in both if new != old)
