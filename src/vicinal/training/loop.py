"""The training loop."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vicinal.data import Loader
from vicinal.errors import TrialError, UserError
from vicinal.import_path import one_line
from vicinal.mixing import CleanAndMixed, MixedInside, Plan, Policy, generator_at
from vicinal.models import freeze_backbone
from vicinal.training.optimizers import make_optimizers
from vicinal.training.schedules import rate_factor
from vicinal.training.settings import Training

MIXING, NETWORK = 0, 3
"""The streams of ``generator_at`` that the loop draws from; loaders draw from others."""

AGREE_EVERY = 16
"""Optimizer steps after which several processes agree on whether one of them should stop."""


@dataclass
class Learner:
    """A network with everything that trains it, on its device; made by ``make_learner``.

    Args:
        model: the network itself.
        network: the model as it is run in training, with mixing inside and wrapped by Fabric.
        optimizers: the optimizers, wrapped by Fabric.
        average: the moving average of the weights, if there is one.
        settings: how it is trained.
        fabric: device, precision and processes.
        mixed: draws a layer and a plan for each batch; None without mixing.
        mixed_epochs: the epochs, from 0, in which batches are mixed.
        criterion: the loss of outputs and targets.
    """

    model: nn.Module
    network: _FabricModule
    optimizers: list[Any]
    average: AveragedModel | None
    settings: Training
    fabric: Fabric
    mixed: MixedInside | None
    mixed_epochs: range
    criterion: Callable[[Tensor, Tensor], Tensor]

    @property
    def trained(self) -> nn.Module:
        """The network to evaluate and to save: the average if there is one."""
        return self.model if self.average is None else self.average.module


@dataclass
class TrainingProgress:
    """How far training has come.

    Args:
        epoch: finished epochs.
        step: finished batches of the current epoch.
        loss: sum of the minimized loss over the examples of the current epoch.
        seen: number of these examples.
        mean: mean loss of the last finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    seen: int = 0
    mean: float = math.nan


def make_learner(
    model: nn.Module,
    settings: Training,
    *,
    fabric: Fabric,
    policy: Policy | None = None,
    at: Sequence[str] = ("input",),
    mixed_epochs: range | None = None,
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    optimizers: Callable[[nn.Module], list[Optimizer]] | None = None,
) -> Learner:
    """Move a network to its device, and add everything that trains it.

    Args:
        model: maps ``(batch, ...)`` to ``(batch, classes)``. It is trained in place.
        settings: how it is trained.
        fabric: device, precision and processes.
        policy: draws the plans; ``None`` for no mixing.
        at: layers to mix after, one of which is drawn for each step: ``"input"`` or module names.
        mixed_epochs: the epochs, from 0, in which batches are mixed; ``None`` for all.
        criterion: the loss, with the argument ``reduction``; by default the cross-entropy of
            classes, with ``settings.label_smoothing``.
        optimizers: makes the optimizers, instead of ``settings.optimizer``.

    Raises:
        UserError: if a setting is not available on this device.
        ValueError: if the network has no such layer.
    """
    if settings.sync_batch_norm and fabric.world_size > 1:
        if fabric.device.type != "cuda":
            raise UserError(
                f"training.sync_batch_norm: expected GPUs, got the device {fabric.device.type}. "
                "PyTorch synchronizes batch norms only on GPUs. Set sync_batch_norm to false."
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if settings.freeze == "backbone":
        freeze_backbone(model)
    with fabric.init_tensor():
        dtype = torch.get_default_dtype()
    model.to(fabric.device, dtype)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = None
    if settings.ema_decay is not None:
        update = _averages_of_floats(settings.ema_decay)
        average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    mixed = None if policy is None else MixedInside(model, policy, at=at)
    run: nn.Module = mixed or model
    if settings.compile:
        # What is compiled is around the model, which is evaluated as it is saved: not compiled.
        run = mixed or nn.Sequential(model)
        # Dynamic kernels would depend on which batch comes first after an interruption, but static
        # ones are compiled for each layer and for two sizes of a batch, up to torch's limit of 8.
        layers = len(mixed.layers) if mixed else 0
        torch.compiler.reset()  # what earlier trials of a study compiled counts too
        run.compile(
            dynamic=False if layers <= 3 else None,
            mode="reduce-overhead" if settings.cuda_graphs else None,
        )
    made = make_optimizers(model, settings) if optimizers is None else optimizers(model)
    if settings.max_grad_norm is not None and len(made) > 1:
        raise UserError(
            "training.max_grad_norm: expected one optimizer, since the norm is that of all "
            f"gradients, got {len(made)}. Use one with several groups of parameters."
        )
    network, *wrapped = fabric.setup(run, *made)
    for optimizer in wrapped:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    return Learner(
        model,
        network,
        wrapped,
        average,
        settings,
        fabric,
        mixed,
        mixed_epochs=range(settings.epochs) if mixed_epochs is None else mixed_epochs,
        criterion=criterion or partial(F.cross_entropy, label_smoothing=settings.label_smoothing),
    )


def _averages_of_floats(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return what updates moving averages; buffers of integers are copied."""
    average = get_ema_multi_avg_fn(decay)

    def update(averages: Any, values: Any, count: Any) -> None:
        if averages[0].is_floating_point():  # all are of one type
            average(averages, values, count)
            return
        for own, value in zip(averages, values, strict=True):
            own.copy_(value)

    return update


def train(
    learner: Learner,
    loader: Loader,
    *,
    seed: int,
    start: TrainingProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda _sentence: None,
) -> Iterator[TrainingProgress]:
    """Train a network, and yield after each epoch.

    The network trains while the generator is iterated, and stays in train mode. All random numbers
    come from ``generator_at(seed, step, rank)``, so training that resumes from ``start`` ends
    with the same weights as without the interruption.

    Args:
        learner: the network, new or restored.
        loader: yields inputs, and the targets of the criterion, on the device of the learner. An
            optimizer step takes ``accumulation_steps`` of its batches.
        seed: the seed of mixing and of the network's random layers.
        start: where to resume.
        should_stop: is called after each optimizer step but the last one of an epoch. If it returns
            true, the progress is yielded there. With several processes, it is called less often.
        log: is called with messages for the user.

    Yields:
        The progress after each epoch, and after each step where ``should_stop`` returns true. It
        is always the same object.

    Raises:
        TrialError: if the loss is not finite.
    """
    settings, fabric = learner.settings, learner.fabric
    progress = start or TrainingProgress()
    narrow = fabric.device.type == "mps"  # has no float64
    progress.loss = progress.loss.to(fabric.device, torch.float32 if narrow else torch.float64)
    accumulated = settings.accumulation_steps
    steps_per_epoch = math.ceil(len(loader) / accumulated)
    compiles = settings.compile
    while progress.epoch < settings.epochs:
        learner.network.train()
        learner.model.zero_grad(set_to_none=True)
        begun = False
        for x, y in loader.every_batch(progress.epoch, progress.step):
            k = progress.step
            step = progress.epoch * steps_per_epoch + k // accumulated
            closes_step = (k + 1) % accumulated == 0 or k + 1 == len(loader)
            if len(y):  # else no example of the batch can be read
                # Each example of a step counts the same, whatever process and batch it is in.
                weight = len(y) * fabric.world_size / _examples_in_step(loader, k, accumulated)
                number = progress.epoch * len(loader) + k
                mixed = progress.epoch in learner.mixed_epochs
                backward = partial(
                    _backward, learner, x, y, seed, number, mixed=mixed, weight=weight
                )
                with fabric.no_backward_sync(learner.network, enabled=not closes_step):
                    loss = _try_compiled(backward, learner, log) if compiles else backward()
                # Mixing is compiled on its own, in the first epoch that mixes.
                compiles = compiles and learner.mixed is not None and not mixed
                begun = True
                progress.loss += loss * len(y)
                progress.seen += len(y)
            if closes_step and begun:
                _optimizer_step(learner, rate_factor(step, settings, steps_per_epoch))
                begun = False
            progress.step += 1
            if closes_step and progress.step < len(loader) and _agree(should_stop, step, fabric):
                yield progress
        sums = torch.stack([progress.loss, torch.full_like(progress.loss, progress.seen)])
        loss_sum, seen = fabric.all_reduce(sums, reduce_op="sum")
        progress.mean = float(loss_sum / seen)
        progress.epoch, progress.step, progress.seen = progress.epoch + 1, 0, 0
        progress.loss = torch.zeros_like(progress.loss)
        check_finite("training", progress.mean, progress.epoch, learner)
        yield progress


def _examples_in_step(loader: Loader, k: int, accumulated: int) -> int:
    """Return the number of examples of the optimizer step of batch ``k``, over all processes."""
    first = k // accumulated * accumulated
    return loader.seen_before(min(first + accumulated, len(loader))) - loader.seen_before(first)


def _backward(
    learner: Learner, x: Tensor, y: Tensor, seed: int, number: int, *, mixed: bool, weight: float
) -> Tensor:
    """Add the gradient of one batch, the ``number``-th over all epochs; return its loss."""
    settings, fabric = learner.settings, learner.fabric
    if settings.channels_last and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    plan: Plan | CleanAndMixed | None = None
    layer = "input"
    if mixed and learner.mixed is not None:
        generator = generator_at(seed, number, fabric.global_rank, MIXING)
        layer, plan = learner.mixed.draw(
            len(x), generator=generator, y=y, features=x, image_size=image_size_of(x)
        )
    _seed_layers(generator_at(seed, number, fabric.global_rank, NETWORK).initial_seed(), x.device)
    try:
        outputs = learner.network(x) if plan is None else learner.network(x, plan, at=layer)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "training.batch_size: batch norms expect at least two examples in each forward pass, "
            "got one. Raise it, or lower training.accumulation_steps or the number of devices."
        ) from error
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"model.name: expected one tensor of outputs in train mode, got {type(outputs)}. "
            "Return the outputs of the head alone."
        )
    criterion = learner.criterion
    loss = criterion(outputs, y) if plan is None else plan.loss(criterion, outputs, y)
    fabric.backward(loss * weight)
    return loss.detach()


def image_size_of(x: Tensor) -> tuple[int, ...]:
    """Return the size of images, signals or volumes with channels, or the columns of a table.

    Example:
        >>> image_size_of(torch.zeros(8, 3, 32, 16)), image_size_of(torch.zeros(8, 4))
        ((32, 16), (4,))
    """
    return tuple(x.shape[2:] or x.shape[1:])


def _try_compiled(
    backward: Callable[[], Tensor], learner: Learner, log: Callable[[str], None]
) -> Tensor:
    """Run the first step, and undo ``torch.compile`` if the step works only without it."""
    try:
        return backward()
    except Exception as error:
        for module in learner.network.modules():
            module._compiled_call_impl = None
        learner.model.zero_grad(set_to_none=True)
        loss = backward()
        log(
            "torch.compile does not work here, so the network is trained uncompiled "
            f"({one_line(error)})"
        )
        return loss


def _seed_layers(seed: int, device: torch.device) -> None:
    """Seed the random numbers of layers such as dropout.

    Without a GPU, ``torch.manual_seed`` takes half a millisecond: PyTorch stores
    each call for the GPU, with its stack trace, until one is used.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _optimizer_step(learner: Learner, factor: float) -> None:
    max_norm = learner.settings.max_grad_norm
    for optimizer in learner.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if max_norm is not None:
            learner.fabric.clip_gradients(
                learner.network, optimizer, max_norm=max_norm, error_if_nonfinite=False
            )
        optimizer.step()
    learner.model.zero_grad(set_to_none=True)
    if learner.average is not None:
        learner.average.update_parameters(learner.model)


def _agree(should_stop: Callable[[], bool], step: int, fabric: Fabric) -> bool:
    """Return whether to stop here: all processes together, or none."""
    if fabric.world_size == 1:
        return should_stop()
    if step % AGREE_EVERY:
        return False
    asked = torch.tensor(float(should_stop()), device=fabric.device)
    return bool(fabric.all_reduce(asked, reduce_op="sum"))


def check_finite(kind: str, loss: float, epoch: int, learner: Learner) -> None:
    """Stop training that diverged.

    Args:
        kind: ``"training"`` or ``"test"``; the last step can diverge after its loss was measured.
        loss: the loss of the epoch.
        epoch: the epoch, from 1.
        learner: for its learning rates.

    Raises:
        TrialError: if the loss is not finite.
    """
    if math.isfinite(loss):
        return
    groups = (group for optimizer in learner.optimizers for group in optimizer.param_groups)
    rates = ", ".join(dict.fromkeys(f"{group['initial_lr']:g}" for group in groups))
    one_cycle = learner.settings.schedule.name == "one-cycle"
    longer = "training.schedule.pct_start" if one_cycle else "training.warmup_epochs"
    raise TrialError(
        f"the {kind} loss became {loss} in epoch {epoch}. Lower the learning rate "
        f"(training.optimizer, now {rates}), or raise {longer} for a longer warm-up."
    )
