"""One trial: train one arm under one condition with one seed, and measure it."""

import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from vicinal.data import DataSet, Loader, Part, corrupt_labels, standardise_by
from vicinal.data.threads import cpu_threads
from vicinal.errors import UserError
from vicinal.mixing import MixUp
from vicinal.models import build
from vicinal.probes import reproduced
from vicinal.studies.machine import hardware, versions
from vicinal.studies.results import EpochRow, Result, Trial
from vicinal.training.augmenting import evaluation_steps, training_steps
from vicinal.training.evaluation import answers, evaluate
from vicinal.training.loop import train
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
    given = corrupt_labels(
        data.train.targets,
        rate=trial.corrupted,
        num_classes=len(data.classes),
        seed=recipe.seed,
    ).labels
    loader, looked_at, tested = _loaders(recipe, trial, data, given, fabric)
    torch.manual_seed(trial.seed)
    x, _ = next(tested.epoch(0), (None, None))
    if x is None:
        raise UserError("none of the examples to test on can be read; see vicinal data info")
    model = build(recipe.model.name, shape=tuple(x.shape[1:]), classes=len(data.classes))
    arm = recipe.arms[trial.arm]
    rows: list[EpochRow] = []
    with cpu_threads(settings.threads):
        for train_loss in train(
            model,
            loader,
            fabric=fabric,
            policy=policy_of(arm),
            at=arm.at if isinstance(arm, MixUpArm) else ("input",),
            epochs=settings.epochs,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            seed=trial.seed,
        ):
            score = evaluate(model, tested.epoch(0))
            memorised = None
            if trial.corrupted:
                scores, rows_seen = answers(model, looked_at.epoch(0))
                classes, seen = scores.argmax(1).cpu(), rows_seen.cpu()
                memorised = reproduced(classes, given=given[seen], true=data.train.targets[seen])
            rows.append(EpochRow(len(rows) + 1, train_loss, score.loss, score.accuracy, memorised))
            on_epoch(rows[-1])
    last = rows[-1]
    result = Result(
        arm=trial.arm,
        corrupted=trial.corrupted,
        seed=trial.seed,
        epochs=len(rows),
        test_examples=len(data.test),
        test_accuracy=last.test_accuracy,
        test_loss=last.test_loss,
        memorised=last.memorised,
        seconds=round(time.perf_counter() - begin, 2),
        versions=versions(),
        hardware=hardware(),
    )
    return result, rows


def _loaders(
    recipe: Recipe, trial: Trial, data: DataSet, given: Tensor, fabric: Fabric
) -> tuple[Loader, Loader, Loader]:
    """Return what is trained on, the same to be looked at (its targets are rows), and the test."""
    train, test = data.train.to(fabric.device), data.test.to(fabric.device)
    standardise = standardise_by(data.train).to(fabric.device)
    settings = recipe.data.augment
    if data.brightest != 255 and any(step.name == "colour" for step in settings):
        raise UserError(
            f"data.augment: colour is for pictures with values up to 255, and {recipe.data.source} "
            f"has {'none' if data.brightest is None else f'values up to {data.brightest}'}"
        )
    loader = Loader(
        Part(train.inputs, given),
        batch_size=recipe.training.batch_size,
        seed=trial.seed,
        augment=(*training_steps(settings), standardise),
        device=fabric.device,
    )
    looked_at, tested = (
        Loader(
            part,
            batch_size=1024,
            seed=trial.seed,
            augment=(*evaluation_steps(settings), standardise),
            device=fabric.device,
            shuffle=False,
        )
        for part in (Part(train.inputs, torch.arange(len(train))), test)
    )
    return loader, looked_at, tested


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
