"""One trial: train one arm under one condition with one seed, and measure it."""

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

from vicinal.data import DataSet, normalization_of
from vicinal.data.threads import cpu_threads
from vicinal.errors import UserError
from vicinal.mixing import Halves, MixUp, Shuffle
from vicinal.probes import reproduced
from vicinal.training.engine import engine, total, troubles_in_words
from vicinal.training.evaluation import answers, counted, score_of
from vicinal.training.fingerprint import origin_of
from vicinal.training.loggers import Logger
from vicinal.training.loop import Learner, TrainingProgress, check_finite, learner, train
from vicinal.training.memory import memory_kept
from vicinal.training.optimizers import optimizers
from vicinal.training.origin import Origin, check_origin
from vicinal.training.schedules import rate_factor
from vicinal.training.settings import MixUpArm, PlainArm, Recipe, Training
from vicinal.training.signals import Stopping
from vicinal.training.trial_checkpoint import TrialCheckpointer
from vicinal.training.trial_result import EpochRow, Result, Trial
from vicinal.training.trial_setup import Loaders, given_labels, loaders_of, network_of


class Callbacks(NamedTuple):
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
    told: Callbacks = Callbacks(),  # noqa: B008 - a tuple, which nobody can change
    expected: Origin | None = None,
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
        expected: the origin of the other trials of a study, which has to be that of this one.

    Raises:
        UserError: if the accelerator is not there, the training diverges, memory runs out, the
            process is asked to stop (SIGTERM, SIGHUP), or data, network or versions are other ones
            than expected.
    """
    settings = recipe.training_of(trial.arm)
    fabric = fabric or fabric_for(settings)
    threads = settings.threads
    if threads is None and fabric.device.type == "cpu" and fabric.world_size > 1:
        here = getattr(fabric.strategy, "num_processes", 1)  # on this machine
        threads = max(1, len(os.sched_getaffinity(0)) // here)
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
            expected=expected,
        )


def _run(
    recipe: Recipe,
    trial: Trial,
    data: DataSet,
    folder: Path,
    *,
    settings: Training,
    fabric: Fabric,
    told: Callbacks,
    stopping: Stopping,
    expected: Origin | None,
) -> Result:
    begin = time.perf_counter()
    given = given_labels(recipe, trial.corrupted, data)
    normalize = normalization_of(data.train)
    loaders = loaders_of(
        recipe, trial, data, settings=settings, given=given, normalize=normalize, fabric=fabric
    )
    model = network_of(recipe, trial, data, loaders, normalize)
    origin = origin_of(data, model, recipe.model.name)
    if expected is not None:
        check_origin(expected, origin, folder.parent)
    arm = recipe.arms[trial.arm]
    learned = _learner(model, trial.arm, arm, settings, fabric)
    run = TrialCheckpointer(
        recipe, trial, settings, data, normalize, folder, learned, fabric, origin
    )
    start, rows, counts, before = run.begin()
    begin -= before
    for row in rows:
        told.epoch(row)
    steps = math.ceil(len(loaders.train) / settings.accumulation_steps)
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
        accumulation_steps=settings.accumulation_steps,
        max_grad_norm=settings.max_grad_norm,
        channels_last=settings.channels_last,
        start=start,
        stopping=lambda: stopping.asked,
        tell=told.say,
    ):
        measured = reached.step == 0
        if measured:
            row, counts = _measured(
                learned,
                loaders,
                reached,
                settings,
                fabric,
                given=given if trial.corrupted else None,
                true=data.train.targets,
                classes=len(data.classes),
                begin=begin,
            )
            rows.append(row)
        # The signal may have reached some processes and not yet others.
        asked = torch.tensor(float(stopping.asked), device=fabric.device)
        stop = bool(total(asked, fabric=fabric) > 0)
        last = reached.epoch == settings.epochs
        if stop or last or (measured and reached.epoch % settings.checkpoint_every == 0):
            run.keep(reached, rows, counts, time.perf_counter() - begin)
        if measured:  # after it was saved: a terminal that was closed cannot be written to
            told.epoch(rows[-1])
            for logger in told.loggers if fabric.is_global_zero else ():
                numbers = {k: v for k, v in rows[-1]._asdict().items() if v is not None}
                logger.log_metrics(numbers, rows[-1].epoch)
        if stop and not last:
            raise UserError(
                f"stopped by {stopping.name} in epoch {reached.epoch + 1} of {settings.epochs}; "
                "the state is saved: run the same command to resume (train: with --resume)"
            )
    return run.finish(rows, counts, time.perf_counter() - begin)


def _learner(
    model: nn.Module, name: str, arm: PlainArm | MixUpArm, settings: Training, fabric: Fabric
) -> Learner:
    """Put around a network what learns it in an arm."""
    try:
        return learner(
            model,
            partial(
                optimizers,
                chosen=settings.optimizer,
                weight_decay_on=settings.weight_decay_on,
                fused=settings.max_grad_norm is None or settings.precision != "float16",
            ),
            fabric=fabric,
            policy=policy_of(arm),
            at=arm.at if isinstance(arm, MixUpArm) else ("input",),
            ema_decay=settings.ema_decay,
            channels_last=settings.channels_last,
            compiled=settings.compile,
            cuda_graphs=settings.cuda_graphs,
            sync_batch_norm=settings.sync_batch_norm,
        )
    except UserError:
        raise
    except (
        ValueError
    ) as error:  # layers of networks that recipes do not know cannot be checked before
        raise UserError(f"arms.{name}.at: {error}") from error


def _measured(
    learned: Learner,
    loaders: Loaders,
    reached: TrainingProgress,
    settings: Training,
    fabric: Fabric,
    *,
    given: Tensor | None,
    true: Tensor,
    classes: int,
    begin: float,
) -> tuple[EpochRow, list[list[int]]]:
    """Measure after an epoch; what was memorized only where labels are corrupted.

    Returns:
        The row, and for each class the examples that were tested, and the right answers.
    """
    if fabric.world_size > 1:  # each process has seen other batches: the first one's count
        for buffer in learned.tested.buffers():
            torch.distributed.broadcast(buffer, 0)
    ask = partial(
        answers,
        learned.tested,
        fabric=fabric,
        tta=settings.tta,
        channels_last=settings.channels_last,
    )
    add_up = partial(total, fabric=fabric)
    tested = ask(loaders.tested.epoch(0))
    score = score_of(tested, total=add_up)
    counts = add_up(counted(tested, classes)).tolist()
    memorized = None
    if given is not None:
        scores, seen = ask(loaders.looked_at.epoch(0))
        seen = seen.cpu()
        memorized = reproduced(
            scores.argmax(1).cpu(), given=given[seen], true=true[seen], total=add_up
        )
    check_finite("test", score.loss, reached.epoch, learned)
    rate = max(group["lr"] for engine in learned.optimizers for group in engine.param_groups)
    seconds = round(time.perf_counter() - begin, 2)
    row = EpochRow(
        reached.epoch, rate, reached.mean, score.loss, score.accuracy, memorized, seconds
    )
    return row, counts


def _mixed_epochs(arm: PlainArm | MixUpArm, epochs: int) -> range | None:
    if isinstance(arm, PlainArm):
        return None
    return range(arm.unmixed_epochs_at_start, epochs - arm.unmixed_epochs_at_end)


def policy_of(arm: PlainArm | MixUpArm) -> MixUp | None:
    """Return the policy of an arm; None where it does not mix."""
    if isinstance(arm, PlainArm):
        return None
    pairing = Halves() if arm.pairing == "halves" else Shuffle()
    return MixUp(alpha=arm.alpha, mix_rate=arm.mix_rate, per=arm.per, pairing=pairing)
