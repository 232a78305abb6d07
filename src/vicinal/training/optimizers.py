"""Optimizers: which parameter is learned how."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from vicinal.errors import UserError
from vicinal.training import settings


def optimizers(
    model: nn.Module,
    chosen: settings.SGD | settings.AdamW | settings.Muon,
    *,
    weight_decay_on: str,
    fused: bool = True,
) -> list[Optimizer]:
    """Return the optimizers that learn a network's parameters together, each parameter by one.

    Muon takes the convolutions, as matrices of
    (filters, weights of a filter), and SGD what is left.

    Args:
        model: whose parameters with ``requires_grad`` are learned. Put it on its device, and into
            its memory format, before.
        chosen: what they are learned by.
        weight_decay_on: ``"weights"`` exempts parameters with fewer than two dimensions, such as
            norms and biases; ``"all"`` exempts none.
        fused: whether SGD and AdamW are PyTorch's fused ones, which are faster; they undo the scale
            of a float16 loss themselves, so that Fabric cannot clip gradients before.

    Raises:
        UserError: if nothing is left to learn, or this PyTorch has no Muon.

    Example:
        >>> sgd = settings.SGD(name="sgd", lr=0.1, weight_decay=5e-4)
        >>> (optimizer,) = optimizers(nn.Linear(2, 2), sgd, weight_decay_on="weights")
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.0005, 0.0]
    """
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not learned:
        raise UserError(f"{type(model).__name__} has no parameter to learn: nothing can be trained")
    if isinstance(chosen, settings.AdamW):
        groups = _groups(learned.values(), chosen.weight_decay, weight_decay_on)
        return [AdamW(groups, lr=chosen.lr, fused=fused)]
    if isinstance(chosen, settings.SGD):
        return [_sgd(learned.values(), chosen, weight_decay_on, fused)]
    filters = [p for p in learned.values() if p.dim() == 4]
    rest = [p for p in learned.values() if p.dim() != 4]
    if not filters:
        raise UserError(
            f"muon learns convolutions, and {type(model).__name__} has none: choose sgd or adamw"
        )
    try:
        from vicinal.training.muon import FilterMuon
    except ImportError as error:
        raise UserError(
            f"muon is in PyTorch from 2.9 on, and this is {torch.__version__}: "
            "pip install --upgrade torch, or choose sgd or adamw"
        ) from error
    muon = FilterMuon(filters, lr=chosen.lr, momentum=chosen.momentum)
    return [muon, *([_sgd(rest, chosen.rest, weight_decay_on, fused)] if rest else [])]


def _sgd(
    parameters: Iterable[nn.Parameter], chosen: settings.SGD, weight_decay_on: str, fused: bool
) -> Optimizer:
    return SGD(
        _groups(parameters, chosen.weight_decay, weight_decay_on),
        lr=chosen.lr,
        momentum=chosen.momentum,
        nesterov=chosen.nesterov and chosen.momentum > 0,
        fused=fused,
    )


def _groups(
    parameters: Iterable[nn.Parameter], weight_decay: float, weight_decay_on: str
) -> list[dict[str, Any]]:
    """Divide parameters into those that decay and those that do not."""
    parameters = list(parameters)
    spared = [p for p in parameters if weight_decay_on == "weights" and p.dim() < 2]
    decaying = [p for p in parameters if weight_decay_on == "all" or p.dim() >= 2]
    groups = (
        {"params": decaying, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]
