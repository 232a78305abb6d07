"""The training loop, whole and readable: what Fabric does not do, happens here."""

import contextlib
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
from vicinal.mixing import MixedInside, Policy, generator_at
from vicinal.training.engine import total

MIXING, NETWORK = 0, 3
"""The streams of ``generator_at`` that the loop draws from; loaders draw from others."""

AGREE_EVERY = 16
"""Optimizer steps after which several processes agree on whether one of them was asked to stop."""


@dataclass
class Learner:
    """A network with all that learns it, on its device; made by ``learner``.

    Args:
        model: the network itself.
        network: what runs it in training: with mixing inside, and wrapped by Fabric.
        optimizers: wrapped by Fabric.
        average: the moving average of the weights, if there is one.
        policy: what the mixing is drawn from, if there is any.
        at: layers to mix after.
    """

    model: nn.Module
    network: _FabricModule
    optimizers: list[Any]
    average: AveragedModel | None
    policy: Policy | None
    at: Sequence[str]

    @property
    def tested(self) -> nn.Module:
        """The network that is tested and kept: the average where there is one."""
        return self.model if self.average is None else self.average.module


@dataclass
class TrainingProgress:
    """How far training has come.

    Args:
        epoch: epochs that are finished.
        step: batches of this rank that the next epoch has gone through.
        loss: sum over the examples of the next epoch of the loss that was minimized.
        seen: number of these examples.
        mean: mean of the last epoch that was finished.
    """

    epoch: int = 0
    step: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    seen: int = 0
    mean: float = math.nan


def learner(
    model: nn.Module,
    optimizers: Callable[[nn.Module], list[Optimizer]],
    *,
    fabric: Fabric,
    policy: Policy | None = None,
    at: Sequence[str] = ("input",),
    ema_decay: float | None = None,
    channels_last: bool = False,
    compiled: bool = False,
    cuda_graphs: bool = False,
    sync_batch_norm: bool = False,
) -> Learner:
    """Bring a network to its device, and put around it what learns it.

    Args:
        model: ``(batch, ...)`` to ``(batch, classes)``. Trained in place.
        optimizers: makes the optimizers of a network that is on its device.
        fabric: the engine: device, precision, processes.
        policy: what to draw the mixing from; ``None`` for none.
        at: layers to mix after, one of which is drawn each step: ``"input"`` or names of modules.
        ema_decay: decay per step of an average of the weights and of the statistics of norms.
        channels_last: whether the channels of a pixel lie together in memory.
        compiled: whether ``torch.compile`` makes a program of it.
        cuda_graphs: whether the compiled program is replayed as a whole.
        sync_batch_norm: whether norms see the batches of all processes.

    Raises:
        UserError: if synchronized norms or an average are asked for where they cannot be had.
        ValueError: if the network has no such layer.
    """
    if sync_batch_norm and fabric.world_size > 1:
        if fabric.device.type != "cuda":
            raise UserError(
                "training.sync_batch_norm wants GPUs: PyTorch has no synchronized batch norm for "
                f"the {fabric.device.type}; leave it out"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    sharded = "FSDP" in type(fabric.strategy).__name__
    if ema_decay is not None and sharded:
        raise UserError(
            "training.ema_decay averages whole weights, and fsdp divides them: choose ddp"
        )
    with fabric.init_tensor():
        dtype = torch.get_default_dtype()
    model.to(fabric.device, dtype)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = None
    if ema_decay is not None:
        average = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True
        )
    inner = model if policy is None else MixedInside(model, policy, at=at)
    if compiled:
        inner.compile(mode="reduce-overhead" if cuda_graphs else None)
    network, *engines = fabric.setup(inner, *optimizers(model))
    for engine in engines:
        for group in engine.param_groups:
            group.setdefault("initial_lr", group["lr"])
    layers = inner.layers if isinstance(inner, MixedInside) else ()
    return Learner(model, network, engines, average, policy, layers)


def train(
    learner: Learner,
    loader: Loader,
    *,
    fabric: Fabric,
    epochs: int,
    seed: int,
    rate: Callable[[int], float] = lambda _step: 1.0,
    mixed_epochs: range | None = None,
    label_smoothing: float = 0.0,
    accumulation_steps: int = 1,
    max_grad_norm: float | None = None,
    channels_last: bool = False,
    start: TrainingProgress | None = None,
    stopping: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Iterator[TrainingProgress]:
    """Train a network for classification, and hand over after each epoch.

    A generator: it trains while it is being read, and leaves the network in train mode. Chance is
    drawn from ``generator_at(seed, step, rank)`` alone, as the loader draws its order, and what
    the network draws (dropout) from a seed of each step; so a run that begins at ``start`` goes on
    as the unbroken run went.

    Args:
        learner: what is trained, as ``learner`` makes it or as a checkpoint has left it.
        loader: of floating point inputs and int64 classes, on Fabric's device. An optimizer step
            takes ``accumulation_steps`` of its batches.
        fabric: the engine: device, precision, processes.
        epochs: passes over the data, from 1.
        seed: of this run.
        rate: what the learning rate is multiplied by at an optimizer step.
        mixed_epochs: the epochs, from 0, in which batches are mixed; all of them if None.
        label_smoothing: share of each target that is spread over all classes.
        accumulation_steps: batches of the loader to a step.
        max_grad_norm: the longest gradient; longer ones are shortened.
        channels_last: whether the channels of a pixel lie together in memory.
        start: where to begin, if not at the start.
        stopping: says whether to hand over before the epoch is over.
        tell: what to do with a sentence for people.

    Yields:
        How far it has come: after each epoch, and where ``stopping`` says so. The same object.

    Raises:
        UserError: when the loss stops being finite.
    """
    reached = start or TrainingProgress()
    narrow = fabric.device.type == "mps"  # which has no float64
    reached.loss = reached.loss.to(fabric.device, torch.float32 if narrow else torch.float64)
    steps = math.ceil(len(loader) / accumulation_steps)
    criterion = partial(F.cross_entropy, label_smoothing=label_smoothing)
    fresh = True
    while reached.epoch < epochs:
        learner.network.train()
        mixing = mixed_epochs is None or reached.epoch in mixed_epochs
        for x, y in loader.epoch(reached.epoch, reached.step):
            k = reached.step
            number = reached.epoch * len(loader) + k
            closing = (k + 1) % accumulation_steps == 0 or k + 1 == len(loader)
            if k % accumulation_steps == 0:
                learner.model.zero_grad(set_to_none=True)
            with fabric.no_backward_sync(learner.network, enabled=not closing):
                loss = _backward(
                    learner,
                    x.to(memory_format=torch.channels_last)
                    if channels_last and x.dim() == 4
                    else x,
                    y,
                    criterion=criterion,
                    # Of the examples of a step, in all processes and parts: each counts the same.
                    share=len(y) * fabric.world_size / _examples(loader, k, accumulation_steps),
                    fabric=fabric,
                    mixing=mixing,
                    draws=(seed, number, fabric.global_rank),
                    first=fresh,
                    tell=tell,
                )
            fresh = False
            if closing:
                _step(
                    learner,
                    fabric,
                    rate(reached.epoch * steps + k // accumulation_steps),
                    max_grad_norm,
                )
            reached.loss += loss * len(y)
            reached.seen += len(y)
            reached.step += 1
            step = reached.epoch * steps + k // accumulation_steps
            if closing and reached.step < len(loader) and _agreed(stopping, step, fabric):
                yield reached
        _close_epoch(reached, fabric, learner)
        yield reached


def _examples(loader: Loader, k: int, accumulation_steps: int) -> int:
    """Return how many examples the optimizer step of batch ``k`` has, in all processes."""
    first = k // accumulation_steps * accumulation_steps
    return loader.seen_before(min(first + accumulation_steps, len(loader))) - loader.seen_before(
        first
    )


def _backward(
    learner: Learner,
    x: Tensor,
    y: Tensor,
    *,
    criterion: Callable[..., Tensor],
    share: float,
    fabric: Fabric,
    mixing: bool,
    draws: tuple[int, int, int],
    first: bool,
    tell: Callable[[str], None],
) -> Tensor:
    """Add the gradient of one batch; return its loss, detached."""
    seed, number, rank = draws
    plan = layer = None
    if mixing and learner.policy is not None:
        generator = generator_at(seed, number, rank, MIXING)
        layer = learner.at[int(torch.randint(len(learner.at), (), generator=generator))]
        size = tuple(x.shape[-2:]) if x.dim() == 4 else None
        plan = learner.policy.draw(len(x), generator=generator, y=y, image_size=size)

    def attempt() -> Tensor:
        _seed_network(generator_at(seed, number, rank, NETWORK).initial_seed(), x.device)
        with _norms_in_words(len(x)):
            output = learner.network(x) if plan is None else learner.network(x, plan, at=layer)
        loss = criterion(output, y) if plan is None else plan.loss(criterion, output, y)
        fabric.backward(loss * share)
        return loss.detach()

    if not first or _compiled(learner.network) is None:
        return attempt()
    try:
        return attempt()
    except Exception as error:
        # The first step of a compiled network: if it works without, the compiler is to blame.
        _compiled(learner.network, forget=True)
        learner.model.zero_grad(set_to_none=True)
        loss = attempt()
        reason = str(error).strip().splitlines()
        tell(
            "torch.compile does not work here, so the network is trained uncompiled "
            f"({type(error).__name__}: {reason[0] if reason else ''})"
        )
        return loss


@contextlib.contextmanager
def _norms_in_words(size: int) -> Iterator[None]:
    """Explain PyTorch's error about a batch norm that sees one value per channel."""
    try:
        yield
    except ValueError as error:
        if size > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "a batch norm cannot be trained on batches of one example: raise training.batch_size, "
            "or lower training.accumulation_steps or the number of devices, so that each pass "
            f"through the network has at least two ({error})"
        ) from error


def _seed_network(seed: int, device: torch.device) -> None:
    """Seed what layers such as dropout draw from.

    ``torch.manual_seed`` would do, but takes half a millisecond where there is no GPU: it remembers
    each call, with its stack, for the case that there will be one.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _compiled(network: nn.Module, *, forget: bool = False) -> nn.Module | None:
    """Return the module in a network that was compiled, if there is one; or undo it."""
    for module in network.modules():
        if getattr(module, "_compiled_call_impl", None) is not None:
            if forget:
                module._compiled_call_impl = None  # what nn.Module.compile has set
            return module
    return None


def _step(learner: Learner, fabric: Fabric, factor: float, max_grad_norm: float | None) -> None:
    for optimizer in learner.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if max_grad_norm is not None:
            fabric.clip_gradients(
                learner.network, optimizer, max_norm=max_grad_norm, error_if_nonfinite=False
            )
        optimizer.step()
    if learner.average is not None:
        learner.average.update_parameters(learner.model)


def _agreed(stopping: Callable[[], bool], step: int, fabric: Fabric) -> bool:
    """Say whether to stop here: all processes together, or none."""
    if fabric.world_size == 1:
        return stopping()
    if step % AGREE_EVERY:
        return False
    asked = torch.tensor(float(stopping()), device=fabric.device)
    return bool(total(asked, fabric=fabric) > 0)


def _close_epoch(reached: TrainingProgress, fabric: Fabric, learner: Learner) -> None:
    """Count an epoch that is over, and check that its loss is finite."""
    sums = torch.stack([reached.loss, torch.full_like(reached.loss, reached.seen)])
    loss, seen = total(sums, fabric=fabric).tolist()
    reached.mean = loss / seen
    reached.epoch, reached.step, reached.seen = reached.epoch + 1, 0, 0
    reached.loss = torch.zeros_like(reached.loss)
    check_finite("training", reached.mean, reached.epoch, learner)


def check_finite(kind: str, loss: float, epoch: int, learner: Learner) -> None:
    """Stop a run that diverged.

    Args:
        kind: of loss, "training" or "test"; a last step can explode after its loss was measured.
        loss: after the epoch.
        epoch: from 1.
        learner: for its learning rates.

    Raises:
        TrialError: if the loss is not finite.
    """
    if math.isfinite(loss):
        return
    rates = ", ".join(f"{g['initial_lr']:g}" for o in learner.optimizers for g in o.param_groups)
    raise TrialError(
        f"the {kind} loss became {loss} in epoch {epoch}: lower the learning rate "
        f"(training.optimizer, now {rates}) or raise training.warmup_epochs; the last checkpoint "
        "from before is kept"
    )
