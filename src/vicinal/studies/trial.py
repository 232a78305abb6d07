"""One trial: train one arm under one condition with one seed, and measure it."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.data import DataSet, Loader, Part, Standardise, corrupt_labels, standardise_by
from vicinal.data.threads import cpu_threads
from vicinal.errors import UserError
from vicinal.mixing import Halves, MixUp, Shuffle
from vicinal.models import FastCNN, build
from vicinal.probes import reproduced
from vicinal.studies.machine import hardware, versions
from vicinal.studies.results import EpochRow, Result, Trial, write_metrics, write_result
from vicinal.training.augmenting import evaluation_steps, training_steps
from vicinal.training.checkpoints import (
    STATE,
    WEIGHTS,
    go_on_from,
    read_tree,
    state_of,
    write_tree,
    write_weights,
)
from vicinal.training.engine import engine, total, troubles_in_words
from vicinal.training.evaluation import answers, score_of
from vicinal.training.loggers import Logger
from vicinal.training.loop import Learner, Reached, learner, train
from vicinal.training.memory import memory_kept
from vicinal.training.optimisers import optimisers
from vicinal.training.schedules import rate_factor
from vicinal.training.settings import MixUpArm, PlainArm, Recipe, Training
from vicinal.training.stopping import Stopping


class Told(NamedTuple):
    """Who is told what, while a trial runs.

    Args:
        epoch: takes the row of each epoch.
        say: takes a sentence for people.
        loggers: take the numbers of each epoch.
    """

    epoch: Callable[[EpochRow], None] = lambda _row: None
    say: Callable[[str], None] = lambda _sentence: None
    loggers: Sequence[Logger] = ()


def fabric_for(settings: Training, **processes: Any) -> Fabric:
    """Return the engine of a trial; see ``vicinal.training.engine``."""
    return engine(accelerator=settings.accelerator, precision=settings.precision, **processes)


def run_trial(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    told: Told = Told(),  # noqa: B008 - a tuple, which nobody can change
) -> Result:
    """Train, measure, and write all of it into a folder.

    All arms of a seed start from the same weights and see the examples in the same order, so that
    their differences are paired. A trial that was stopped goes on from its last checkpoint there.

    Args:
        recipe: of the study.
        trial: which of its trials.
        data: what the recipe names, loaded.
        folder: of this trial, for ``metrics.csv``, the checkpoint, and in the end ``result.json``.
        fabric: the engine; by default one device, as the recipe wants it.
        told: who is told what.

    Raises:
        UserError: if the accelerator is not there, the training diverges, memory runs out, or the
            process is asked to stop (SIGTERM).
    """
    settings = recipe.training_of(trial.arm)
    fabric = fabric or fabric_for(settings)
    threads = settings.threads
    if threads is None and fabric.device.type == "cpu" and fabric.world_size > 1:
        threads = max(1, (os.cpu_count() or 1) // fabric.world_size)
    with (
        cpu_threads(threads),
        memory_kept(),
        troubles_in_words(settings.batch_size),
        Stopping() as stopping,
    ):
        return _run(
            recipe,
            trial,
            data,
            folder,
            settings=settings,
            fabric=fabric,
            told=told,
            stopping=stopping,
        )


def _run(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    folder: Path,
    *,
    settings: Training,
    fabric: Fabric,
    told: Told,
    stopping: Stopping,
) -> Result:
    given = corrupt_labels(
        data.train.targets, rate=trial.corrupted, num_classes=len(data.classes), seed=recipe.seed
    ).labels
    standardise = standardise_by(data.train)
    loaders = _loaders(
        recipe, trial, data, settings=settings, given=given, standardise=standardise, fabric=fabric
    )
    model = _network(recipe, trial, data, loaders, standardise)
    arm = recipe.arms[trial.arm]
    learned = learner(
        model,
        partial(
            optimisers,
            chosen=settings.optimizer,
            decay=settings.decay,
            fused=settings.clip_norm is None or settings.precision != "float16",
        ),
        fabric=fabric,
        policy=policy_of(arm),
        at=arm.at if isinstance(arm, MixUpArm) else ("input",),
        ema=settings.ema,
        channels_last=settings.channels_last,
        compiled=settings.compile,
        cuda_graphs=settings.cuda_graphs,
        sync_batch_norm=settings.sync_batch_norm,
    )
    run = _Run(recipe, trial, settings, data, standardise, folder, learned, fabric)
    start, rows, before = run.begin()
    begin = time.perf_counter() - before
    for row in rows:
        told.epoch(row)
    steps = math.ceil(len(loaders.train) / settings.accumulate)
    for reached in train(
        learned,
        loaders.train,
        fabric=fabric,
        epochs=settings.epochs,
        seed=trial.seed,
        rate=partial(
            rate_factor,
            schedule=settings.schedule,
            steps_per_epoch=steps,
            epochs=settings.epochs,
            warmup_epochs=settings.warmup_epochs,
        ),
        mixed_epochs=_mixed_epochs(arm, settings.epochs),
        label_smoothing=settings.label_smoothing,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        channels_last=settings.channels_last,
        start=start,
        stopping=lambda: stopping.asked,
        tell=told.say,
    ):
        if reached.step == 0:
            rows.append(
                _measured(
                    learned,
                    loaders,
                    reached,
                    settings,
                    fabric,
                    given=given if trial.corrupted else None,
                    true=data.train.targets,
                    seconds=time.perf_counter() - begin,
                )
            )
            told.epoch(rows[-1])
            for logger in told.loggers if fabric.is_global_zero else ():
                numbers = {k: v for k, v in rows[-1]._asdict().items() if v is not None}
                logger.log_metrics(numbers, rows[-1].epoch)
        stop = stopping.asked
        last = reached.epoch == settings.epochs
        if stop or last or (reached.step == 0 and reached.epoch % settings.checkpoint_every == 0):
            run.keep(reached, rows, time.perf_counter() - begin)
        if stop and not last:
            raise UserError(
                f"stopped by SIGTERM in epoch {reached.epoch + 1} of {settings.epochs}; what was "
                "reached is kept, and the same command goes on from there (train: with --resume)"
            )
    return run.finish(rows, time.perf_counter() - begin)


class _Loaders(NamedTuple):
    """What is trained on, the same to be looked at (its targets are rows), and the test."""

    train: Loader
    looked_at: Loader
    tested: Loader


@dataclasses.dataclass
class _Run:
    """What of a trial is written down, and brought back."""

    recipe: Recipe
    trial: Trial
    settings: Training
    data: DataSet
    standardise: Standardise
    folder: Path
    learned: Learner
    fabric: Fabric

    def begin(self) -> tuple[Reached, list[EpochRow], float]:
        """Return how far the trial had come, its rows, and the seconds that it took."""
        path = self.folder / STATE
        if not path.exists():
            return Reached(), [], 0.0
        state = read_tree(path, device="cpu")
        reached = go_on_from(state["learner"], self.learned, self.fabric, str(path))
        return reached, [EpochRow(*row) for row in state["rows"]], state["seconds"]

    def keep(self, reached: Reached, rows: list[EpochRow], seconds: float) -> None:
        """Write where training is, and the network for use."""
        learner = state_of(self.learned, reached, self.fabric)
        if self.fabric.is_global_zero:
            state = {"learner": learner, "rows": [list(row) for row in rows], "seconds": seconds}
            write_tree(self.folder / STATE, state)
            write_metrics(self.folder, rows)
            if rows:
                self._write_weights(rows[-1])
        self.fabric.barrier()

    def _write_weights(self, row: EpochRow) -> None:
        settings = self.settings
        about = {
            "network": self.recipe.model.name,
            "shape": list(self._shape()),
            "classes": list(self.data.classes),
            "crops": [step.size for step in evaluation_steps(self.recipe.data.augment)],  # type: ignore[attr-defined]
            "precision": settings.precision,
            "channels_last": settings.channels_last,
            "flip_averaged": settings.flip_averaged,
            "study": self.recipe.name,
            "data": self.recipe.data.source,
            "arm": self.trial.arm,
            "corrupted": self.trial.corrupted,
            "seed": self.trial.seed,
            "epoch": row.epoch,
            "test_accuracy": row.test_accuracy,
            "versions": versions(),
        }
        inputs = {"mean": self.standardise.mean, "deviation": self.standardise.deviation}
        write_weights(self.folder / WEIGHTS, self.learned.tested, about, inputs)

    def _shape(self) -> tuple[int, ...]:
        steps = evaluation_steps(self.recipe.data.augment)
        shape = tuple(self.data.test.inputs.shape[1:])
        return (*shape[:-2], steps[-1].size, steps[-1].size) if steps else shape  # type: ignore[attr-defined]

    def finish(self, rows: list[EpochRow], seconds: float) -> Result:
        """Write the result, which says that the trial is finished."""
        last = rows[-1]
        result = Result(
            arm=self.trial.arm,
            corrupted=self.trial.corrupted,
            seed=self.trial.seed,
            epochs=len(rows),
            test_examples=len(self.data.test),
            test_accuracy=last.test_accuracy,
            test_loss=last.test_loss,
            memorised=last.memorised,
            seconds=round(seconds, 2),
            versions=versions(),
            hardware=hardware(),
        )
        if self.fabric.is_global_zero:
            write_result(self.folder, result, rows)
            (self.folder / STATE).unlink(missing_ok=True)
        self.fabric.barrier()
        return result


def _network(
    recipe: Recipe, trial: Trial, data: DataSet, loaders: _Loaders, standardise: Standardise
) -> nn.Module:
    """Build the network, the same for all arms of a seed, and try it on two examples."""
    torch.manual_seed(trial.seed)
    x, _ = next(loaders.tested.epoch(0), (None, None))
    if x is None:
        raise UserError("none of the examples to test on can be read; see vicinal data info")
    model = build(recipe.model.name, shape=tuple(x.shape[1:]), classes=len(data.classes))
    if isinstance(model, FastCNN):
        rows = range(0, len(data.train), max(1, len(data.train) // WHITENED_BY))
        read = data.train.read(rows)
        model.whiten_by(standardise.apply(read.inputs, torch.empty(len(read.inputs), 0)))
    model.eval()
    with torch.inference_mode():
        scores = model(x[:2].cpu())
    model.train()
    wanted = (len(x[:2]), len(data.classes))
    if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted:
        came = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores)
        raise UserError(
            f"model.name: {recipe.model.name} should answer with scores of shape {wanted} to two "
            f"examples, one for each class, but answers with {came}; mend its last layer"
        )
    return model


WHITENED_BY = 5000
"""How many training examples a network looks at that whitens its inputs."""


def _loaders(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    *,
    settings: Training,
    given: Tensor,
    standardise: Standardise,
    fabric: Fabric,
) -> _Loaders:
    parts = settings.accumulate * fabric.world_size
    if settings.batch_size > len(data.train):
        raise UserError(
            f"training.batch_size = {settings.batch_size} is more than the "
            f"{len(data.train)} training examples that there are: lower it"
        )
    if settings.batch_size % parts:
        raise UserError(
            f"training.batch_size = {settings.batch_size} cannot be divided by "
            f"{fabric.world_size} devices and training.accumulate = {settings.accumulate}: "
            f"choose a multiple of {parts}"
        )
    train, test = data.train.to(fabric.device), data.test.to(fabric.device)
    standardise = standardise.to(fabric.device)
    steps = recipe.data.augment
    if data.brightest != 255 and any(step.name == "colour" for step in steps):
        raise UserError(
            f"data.augment: colour is for pictures with values up to 255, and {recipe.data.source} "
            f"has {'none' if data.brightest is None else f'values up to {data.brightest}'}"
        )
    loader = Loader(
        Part(train.inputs, given),
        batch_size=settings.batch_size // parts,
        seed=trial.seed,
        augment=(*training_steps(steps), standardise),
        device=fabric.device,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    looked_at, tested = (
        Loader(
            part.share(fabric.global_rank, fabric.world_size),
            batch_size=1024,
            seed=trial.seed,
            augment=(*evaluation_steps(steps), standardise),
            device=fabric.device,
            shuffle=False,
        )
        for part in (Part(train.inputs, torch.arange(len(train))), test)
    )
    return _Loaders(loader, looked_at, tested)


def _measured(
    learned: Learner,
    loaders: _Loaders,
    reached: Reached,
    settings: Training,
    fabric: Fabric,
    *,
    given: Tensor | None,
    true: Tensor,
    seconds: float,
) -> EpochRow:
    """Measure after an epoch; what was memorised only where labels are corrupted."""
    if fabric.world_size > 1:  # each process has seen other batches: the first one's count
        for buffer in learned.tested.buffers():
            torch.distributed.broadcast(buffer, 0)
    ask = partial(
        answers,
        learned.tested,
        fabric=fabric,
        flip_averaged=settings.flip_averaged,
        channels_last=settings.channels_last,
    )
    add_up = partial(total, fabric=fabric)
    score = score_of(ask(loaders.tested.epoch(0)), total=add_up)
    memorised = None
    if given is not None:
        scores, seen = ask(loaders.looked_at.epoch(0))
        seen = seen.cpu()
        memorised = reproduced(
            scores.argmax(1).cpu(), given=given[seen], true=true[seen], total=add_up
        )
    rate = max(group["lr"] for engine in learned.optimisers for group in engine.param_groups)
    return EpochRow(
        reached.epoch, rate, reached.mean, score.loss, score.accuracy, memorised, round(seconds, 2)
    )


def _mixed_epochs(arm: PlainArm | MixUpArm, epochs: int) -> range | None:
    if isinstance(arm, PlainArm):
        return None
    return range(arm.plain_first, epochs - arm.plain_last)


def policy_of(arm: PlainArm | MixUpArm) -> MixUp | None:
    """Return the policy of an arm; None where it does not mix."""
    if isinstance(arm, PlainArm):
        return None
    pairing = Halves() if arm.pairing == "halves" else Shuffle()
    return MixUp(alpha=arm.alpha, mix_rate=arm.mix_rate, per=arm.per, pairing=pairing)
