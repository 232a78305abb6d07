"""The training loop, whole and readable: what Fabric does not do, happens here."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from vicinal.data import Loader
from vicinal.errors import UserError
from vicinal.mixing import MixUp, generator_at

MIXING = 0
"""The stream of ``generator_at`` that the loop draws from; loaders draw from others."""


def train(
    model: nn.Module,
    loader: Loader,
    *,
    fabric: Fabric,
    policy: MixUp | None,
    at: Sequence[str] = ("input",),
    epochs: int,
    lr: float,
    weight_decay: float,
    seed: int,
) -> Iterator[float]:
    """Train a network for classification, and hand over after each epoch.

    A generator: it trains while it is being read, and leaves ``model`` in train mode and on
    Fabric's device. AdamW, cross-entropy, and a one-cycle schedule from ``lr / 25`` up to ``lr``
    and down to almost nothing. Mixing is drawn from ``generator_at(seed, step)`` alone, as the
    loader draws its order.

    Args:
        model: ``(batch, ...)`` to ``(batch, classes)``. Trained in place.
        loader: of floating point inputs and int64 classes, on Fabric's device.
        fabric: the engine: device and precision.
        policy: what to draw the mixing from; ``None`` for none.
        at: places to mix at, one of which is drawn each step: ``"input"`` or names of modules.
        epochs: passes over the data, from 1.
        lr: peak learning rate.
        weight_decay: decoupled, multiplied by the learning rate.
        seed: of this run.

    Yields:
        After each epoch: the mean over its examples of the loss that was minimised.

    Raises:
        UserError: when the loss stops being finite.
    """
    steps = len(loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * steps, cycle_momentum=False)
    network, engine = fabric.setup(model, optimizer)
    for epoch in range(epochs):
        model.train()
        total, seen = torch.zeros((), device=fabric.device), 0
        for k, (x, y) in enumerate(loader.epoch(epoch)):
            generator = generator_at(seed, epoch * steps + k, stream=MIXING)
            loss = _mixed_loss(network, x, y, policy=policy, at=at, generator=generator)
            engine.zero_grad()
            fabric.backward(loss)
            engine.step()
            schedule.step()
            total += loss.detach() * len(y)
            seen += len(y)
        mean = float(total) / seen
        if not math.isfinite(mean):
            raise UserError(
                f"the training loss became {mean} in epoch {epoch + 1}: lower training.lr, now {lr}"
            )
        yield mean


def _mixed_loss(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    policy: MixUp | None,
    at: Sequence[str],
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of one batch, mixed at one of the places."""
    if policy is None:
        return F.cross_entropy(network(x), y)
    place = at[int(torch.randint(len(at), (), generator=generator))]
    plan = policy.draw(len(x), generator=generator)
    if place == "input":
        return plan.loss(F.cross_entropy, network(plan.mix(x)), y)
    with plan.inside(network.get_submodule(place)):
        output = network(x)
    return plan.loss(F.cross_entropy, output, y)
