"""The optimizers of a network's parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from vicinal.errors import UserError
from vicinal.models import head_names
from vicinal.training import settings
from vicinal.training.settings import Training


def make_optimizers(model: nn.Module, training: Training) -> list[Optimizer]:
    """Return optimizers that together train all parameters of a network, each parameter once.

    With ``"muon"``, Muon trains the filters of convolutions, and SGD all other parameters. The
    learning rate of the head is multiplied by ``training.head_lr_factor``.

    Args:
        model: on its device and in its memory format. Parameters without ``requires_grad`` are
            not trained.
        training: chooses the optimizer, the parameters with weight decay, and the learning rates.

    Raises:
        UserError: if there is nothing to train, there are no convolutions for Muon, the network
            has no head, or this PyTorch has no Muon.

    Example:
        >>> sgd = settings.SGD(name="sgd", lr=0.1, weight_decay=5e-4)
        >>> cosine = settings.Cosine(name="cosine")
        >>> training = Training(epochs=1, batch_size=8, optimizer=sgd, schedule=cosine)
        >>> (optimizer,) = make_optimizers(nn.Linear(2, 2), training)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.0005, 0.0]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise UserError(
            f"model.name: expected a network with parameters to train, got {type(model).__name__} "
            "without any. Choose another network."
        )
    chosen, factor = training.optimizer, training.head_lr_factor
    rates: list[tuple[list[nn.Parameter], float]] = [(parameters, 1.0)]
    if factor != 1:
        names = head_names(model)
        head = {id(p) for name, p in model.named_parameters() if name in names}
        rates = [
            ([p for p in parameters if id(p) not in head], 1.0),
            ([p for p in parameters if id(p) in head], factor),
        ]
    if not isinstance(chosen, settings.Muon):
        return [_make(rates, chosen, training)]
    filters = [([p for p in each if p.dim() == 4], factor) for each, factor in rates]
    rest = [([p for p in each if p.dim() != 4], factor) for each, factor in rates]
    if not any(each for each, _ in filters):
        raise UserError(
            f"training.optimizer: muon trains convolutions, and {type(model).__name__} has none to "
            "train. Choose sgd or adamw."
        )
    try:
        from vicinal.training.muon import FilterMuon
    except ImportError as error:
        raise UserError(
            f"training.optimizer: muon expects PyTorch 2.9 or later, got {torch.__version__}. "
            "Run pip install --upgrade torch, or choose sgd or adamw."
        ) from error
    made: list[Optimizer] = [
        FilterMuon(each, lr=chosen.lr * factor, momentum=chosen.momentum)
        for each, factor in filters
        if each
    ]
    return [*made, *([_make(rest, chosen.rest, training)] if any(e for e, _ in rest) else [])]


def _make(
    rates: Sequence[tuple[Sequence[nn.Parameter], float]],
    chosen: settings.SGD | settings.AdamW,
    training: Training,
) -> Optimizer:
    """Return an optimizer of parameters, each sequence with a factor of its learning rate."""
    every = training.weight_decay_on == "all"
    groups: list[dict[str, Any]] = []
    for parameters, factor in rates:
        decaying = [p for p in parameters if every or p.dim() >= 2]
        others = [p for p in parameters if not every and p.dim() < 2]
        groups += [
            {"params": each, "weight_decay": decay, "lr": chosen.lr * factor}
            for each, decay in ((decaying, chosen.weight_decay), (others, 0.0))
            if each
        ]
    # Fused optimizers undo the scaling of a float16 loss themselves, so that Fabric cannot clip
    # gradients before.
    fused = training.max_grad_norm is None or training.precision != "float16"
    if isinstance(chosen, settings.AdamW):
        return AdamW(groups, lr=chosen.lr, fused=fused)
    nesterov = chosen.nesterov and chosen.momentum > 0
    return SGD(groups, lr=chosen.lr, momentum=chosen.momentum, nesterov=nesterov, fused=fused)
