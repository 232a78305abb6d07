"""The optimizers of a network's parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from vicinal.errors import UserError
from vicinal.models import head_parameters
from vicinal.training import settings
from vicinal.training.settings import Training


def make_optimizers(model: nn.Module, training: Training) -> list[Optimizer]:
    """Return optimizers that together train all parameters of a network, each parameter once.

    With ``"muon"``, Muon trains the filters of ``nn.Conv2d``, and SGD all other parameters. The
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
        head = head_parameters(model)
        rates = [
            ([p for p in parameters if id(p) not in head], 1.0),
            ([p for p in parameters if id(p) in head], factor),
        ]
    if not isinstance(chosen, settings.Muon):
        return [_make(model, rates, chosen, training)]
    filtering = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d)}
    filters = [([p for p in each if id(p) in filtering], factor) for each, factor in rates]
    rest = [([p for p in each if id(p) not in filtering], factor) for each, factor in rates]
    if not any(each for each, _ in filters):
        raise UserError(
            f"training.optimizer: muon trains 2D convolutions, and {type(model).__name__} has none "
            "to train. Choose sgd or adamw."
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
    others = any(each for each, _ in rest)
    return [*made, *([_make(model, rest, chosen.rest, training)] if others else [])]


_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def _make(
    model: nn.Module,
    rates: Sequence[tuple[Sequence[nn.Parameter], float]],
    chosen: settings.SGD | settings.AdamW,
    training: Training,
) -> Optimizer:
    """Return an optimizer of parameters, each sequence with a factor of its learning rate."""
    every = training.weight_decay_on == "all"
    # Other norms and biases have one dimension.
    exempt = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    groups: list[dict[str, Any]] = []
    for parameters, factor in rates:
        decaying = [p for p in parameters if every or (p.dim() >= 2 and id(p) not in exempt)]
        others = [p for p in parameters if not every and (p.dim() < 2 or id(p) in exempt)]
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
