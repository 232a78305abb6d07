"""One trial: train one arm under one condition with one seed, and measure it."""

import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from vicinal.data import DataSet, corrupt_labels
from vicinal.errors import UserError
from vicinal.mixing import MixUp
from vicinal.models import build
from vicinal.probes import reproduced
from vicinal.studies.machine import hardware, versions
from vicinal.studies.results import EpochRow, Result, Trial
from vicinal.training.evaluation import evaluate, scores
from vicinal.training.loop import cpu_threads, train
from vicinal.training.recipe import MixUpArm, PlainArm, Recipe


def run_trial(
    recipe: Recipe, trial: Trial, data: DataSet, on_epoch: Callable[[EpochRow], None]
) -> tuple[Result, list[EpochRow]]:
    """Train and measure; nothing is written.

    All arms of a seed start from the same weights and see the examples in the same order, so that
    their differences are paired.

    Raises:
        UserError: if the accelerator is not there or the training diverges.
    """
    begin = time.perf_counter()
    settings = recipe.training
    fabric = _fabric(settings.accelerator)
    inputs, test_inputs = (fabric.to_device(part) for part in data.standardised())
    true, test_targets = fabric.to_device((data.train.targets, data.test.targets))
    given = fabric.to_device(
        corrupt_labels(
            data.train.targets,
            rate=trial.corrupted,
            num_classes=len(data.classes),
            seed=recipe.seed,
        )
    )
    torch.manual_seed(trial.seed)
    model = build(recipe.model.name, channels=inputs.shape[1], classes=len(data.classes))
    arm = recipe.arms[trial.arm]
    rows: list[EpochRow] = []
    with cpu_threads(settings.threads):
        for train_loss in train(
            model,
            inputs,
            given,
            fabric=fabric,
            policy=policy_of(arm),
            at=arm.at if isinstance(arm, MixUpArm) else ("input",),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            seed=trial.seed,
        ):
            score = evaluate(model, test_inputs, test_targets)
            memorised = None
            if trial.corrupted:
                answers = scores(model, inputs).argmax(1)
                memorised = reproduced(answers, given=given, true=true)
            rows.append(EpochRow(len(rows) + 1, train_loss, score.loss, score.accuracy, memorised))
            on_epoch(rows[-1])
    last = rows[-1]
    result = Result(
        arm=trial.arm,
        corrupted=trial.corrupted,
        seed=trial.seed,
        epochs=len(rows),
        test_examples=len(test_targets),
        test_accuracy=last.test_accuracy,
        test_loss=last.test_loss,
        memorised=last.memorised,
        seconds=round(time.perf_counter() - begin, 2),
        versions=versions(),
        hardware=hardware(),
    )
    return result, rows


def policy_of(arm: PlainArm | MixUpArm) -> MixUp | None:
    """Return the policy of an arm; None where it does not mix."""
    if isinstance(arm, PlainArm):
        return None
    return MixUp(alpha=arm.alpha, mix_rate=arm.mix_rate, per=arm.per)


def _fabric(accelerator: str) -> Fabric:
    try:
        return Fabric(accelerator=accelerator, devices=1)
    except Exception as error:  # each accelerator of Fabric has an exception of its own
        raise UserError(
            f'training.accelerator = "{accelerator}" is not to be had on this machine; '
            f'try "cpu" or "auto" ({error})'
        ) from error
