"""How a network behaves on lines between training examples of different classes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vicinal.errors import UserError
from vicinal.probes.running import (
    Data,
    batches,
    check_finite,
    check_labels,
    check_logits,
    eval_mode,
    input_gradient,
    logits_of,
)

BATCH = 256
"""How many blends go through the network together."""


class Between(NamedTuple):
    """Measures of blends ``lam * x_i + (1 - lam) * x_j`` of pairs of training examples.

    Args:
        lam: ``(lams,)`` float64, the share of the first example of a pair.
        missed: ``(lams, pairs)`` bool, whether the prediction is neither class of the pair.
        gradient_norms: ``(lams, pairs)`` float32, the Euclidean norm of the gradient of the
            log-probability of the predicted class with respect to the blend.
        classes: ``(pairs, 2)`` int64, the labels of each pair.
    """

    lam: Tensor
    missed: Tensor
    gradient_norms: Tensor
    classes: Tensor

    @property
    def miss_rate(self) -> Tensor:
        """The share of misses for each ``lam``, ``(lams,)`` float64."""
        return self.missed.double().mean(1)

    @property
    def gradient_norm(self) -> Tensor:
        """The mean norm for each ``lam``, ``(lams,)`` float64."""
        return self.gradient_norms.double().mean(1)


def between(
    model: nn.Module, data: Data, *, pairs: int = 1000, lams: int = 11, seed: int = 0
) -> Between:
    """Measure misses and gradients between training examples, as in figure 2 of the mixup paper.

    Zhang et al. (https://arxiv.org/abs/1710.09412) count the predictions that are in neither class
    of a pair, and show norms of gradients with respect to the input, without saying of which
    quantity. Here it is the log-probability of the class that the network predicts. The gradient of
    the training loss would depend on a label for the blend, and a network that was trained with
    such labels has a small loss, and so small gradients, by construction. Without labels there is
    no such advantage; on the contrary, a network that is very confident has small gradients.

    Args:
        model: maps inputs ``(batch, ...)`` to logits ``(batch, classes)``. It is run in eval mode;
            its mode is restored.
        data: batches ``(inputs, labels)`` of training examples, unmixed and without augmentation.
            At most ``2 * pairs`` (or 1,000) of them, chosen at random, are kept in memory.
        pairs: how many pairs are drawn, each of two different classes.
        lams: how many equally spaced values of ``lam`` there are from 0 to 1.
        seed: seed of the pairs. The same seed and order of the data give the same pairs for any
            network and batch size.

    Raises:
        UserError: if data or outputs are not as expected, if all examples are of one class, or if
            the network has no gradients with respect to its inputs.

    Example:
        >>> data = [(torch.tensor([[2.0, 0.0, 1.5], [0.0, 2.0, 1.5]]), torch.tensor([0, 1]))]
        >>> found = between(nn.Identity(), data, pairs=4, lams=3)
        >>> found.lam.tolist(), found.miss_rate.tolist()
        ([0.0, 0.5, 1.0], [0.0, 1.0, 0.0])
    """
    if pairs < 1 or lams < 2:
        raise UserError(
            f"between: expected at least one pair and two values of lam, got pairs={pairs} and "
            f"lams={lams}."
        )
    chance = np.random.default_rng(seed)
    x, y = _sample(model, data, max(2 * pairs, 1000), chance)
    device = next((one.device for one in model.parameters()), x.device)
    grid = torch.linspace(0, 1, lams, dtype=torch.float64)
    outputs, norms = [], []
    with eval_mode(model):
        check_labels(y, logits_of(model, x[:1].to(device)).shape[1], where="data, targets")
        first, second = _different(y.numpy(), pairs, chance)
        for rows in torch.arange(lams * pairs).split(BATCH):
            pair = rows % pairs
            one, other = x[first[pair]].to(device), x[second[pair]].to(device)
            lam = grid[rows // pairs].to(one).reshape(-1, *[1] * (x.dim() - 1))
            blends = torch.lerp(other, one, lam).requires_grad_()
            logits = logits_of(model, blends)
            check_finite(logits.detach().amax(1), where="outputs for a batch of blends")
            gradient = input_gradient(logits.log_softmax(1).max(1).values.sum(), blends)
            norms.append(gradient.flatten(1).float().norm(dim=1).cpu())
            outputs.append(logits.detach().cpu())
    logits = torch.cat(outputs)
    check_logits(logits, where="outputs for blends")
    predicted = logits.argmax(1).reshape(lams, pairs)
    return Between(
        grid,
        (predicted != y[first]) & (predicted != y[second]),
        torch.cat(norms).reshape(lams, pairs),
        torch.stack([y[first], y[second]], 1).long(),
    )


def _sample(
    model: nn.Module, data: Data, size: int, chance: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random sample of examples on the CPU, without keeping all of them in memory."""
    kept: tuple[Tensor, ...] = ()
    for inputs, targets in batches(model, data, names=("inputs", "targets")):
        if not inputs.is_floating_point():
            raise UserError(
                f"data: expected floating-point inputs, which can be blended, got {inputs.dtype}."
            )
        # The examples with the smallest of independent random keys are a random sample.
        keys = torch.from_numpy(chance.random(len(inputs)))
        new: tuple[Tensor, ...] = (keys, inputs.cpu(), targets.cpu())
        if kept and inputs.shape[1:] != kept[1].shape[1:]:
            raise UserError(
                f"data: expected inputs of one shape, which can be blended, got "
                f"{tuple(kept[1].shape[1:])} and {tuple(inputs.shape[1:])}."
            )
        if kept and len(kept[0]) == size:
            new = tuple(one[keys < kept[0][-1]] for one in new)
        joined = tuple(map(torch.cat, zip(kept, new, strict=True))) if kept else new
        rows = joined[0].argsort()[:size]
        kept = tuple(one[rows] for one in joined)
    return kept[1], kept[2]


def _different(y: np.ndarray, pairs: int, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw ordered pairs of rows uniformly from all with two classes."""
    order = np.argsort(y, kind="stable")
    _, start, level, count = np.unique(
        y[order], return_index=True, return_inverse=True, return_counts=True
    )
    others = len(y) - count[level]
    if not others.any():
        raise UserError(f"data: expected at least two classes, got class {y[0]} only.")
    first = chance.choice(len(y), pairs, p=others / others.sum())
    second = chance.integers(0, others[first])
    # Skip the rows of the own class, which are next to each other.
    second += np.where(second >= start[level[first]], count[level[first]], 0)
    return torch.from_numpy(order[first]), torch.from_numpy(order[second])
