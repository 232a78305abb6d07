"""Whether the confidence of a network tells other data from its own."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vicinal import per_example
from vicinal.per_example import Array
from vicinal.probes.running import Data, batches, check_logits, eval_mode, logits_of


class OutOfDistribution(NamedTuple):
    """How well the largest probability separates examples of the data set from others.

    Args:
        scores: ``(n,)`` float64, the logarithm of the largest probability of each own example.
        other_scores: ``(m,)``, of each other example.
        auroc_values: ``(n + m,)``, values of the own and then of the other examples, whose mean is
            the AUROC: the AUROC plus the influence of the example.
        auroc_low: lower end of the 95% interval of the AUROC.
        auroc_high: its upper end.
        fpr95_values: ``(n + m,)``, likewise of the share of ``accepted``. The influence of an own
            example is that on the threshold.
        accepted: ``(m,)`` bool, the other examples with at least the confidence that 95% of the own
            examples have.
        fpr95_low: lower end of the 95% interval of the share of ``accepted``.
        fpr95_high: its upper end.
    """

    scores: Tensor
    other_scores: Tensor
    auroc_values: Tensor
    auroc_low: float
    auroc_high: float
    fpr95_values: Tensor
    accepted: Tensor
    fpr95_low: float
    fpr95_high: float

    @property
    def auroc(self) -> float:
        """The chance that an own example has a higher confidence than another; ties count half."""
        return float(self.auroc_values.mean())

    @property
    def fpr95(self) -> float:
        """The false positive rate at 95% true positives: the share of ``accepted``."""
        return float(self.accepted.double().mean())


def ood(model: nn.Module, data: Data, other: Data) -> OutOfDistribution:
    """Measure how well the confidence of a network detects examples of another distribution.

    The score is the largest softmax probability (Hendrycks and Gimpel,
    https://arxiv.org/abs/1610.02136). It is computed as a logarithm, in which probabilities that
    round to 1 still differ; the order is the same.

    Args:
        model: maps inputs ``(batch, ...)`` to logits ``(batch, classes)``. It is run in eval mode;
            its mode is restored.
        data: batches ``(inputs, ...)`` of test examples like those of the training. Labels are not
            used.
        other: such batches of examples that the network should not be sure about, prepared in the
            same way.

    Returns:
        AUROC and FPR95, with intervals over the examples of both. The interval of the AUROC is
        DeLong's, with a half width of at least ``3 / n``, where ``n`` is the size of the smaller
        data set. That of the FPR95 combines Wilson's interval with the one of the threshold (Zou
        and Donner, 2008).

    Raises:
        UserError: if data or outputs are not as expected.

    Example:
        >>> sure, unsure = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.1, 0.0]])
        >>> data, other = [(sure.repeat(100, 1),)], [(torch.cat([sure, unsure, unsure, unsure]),)]
        >>> found = ood(nn.Identity(), data, other)
        >>> found.auroc, found.fpr95
        (0.875, 0.25)
    """
    own, others = _scores(model, data, "data"), _scores(model, other, "other")
    values = per_example.auroc(
        np.concatenate([own, others]), np.arange(len(own) + len(others)) < len(own)
    )
    area = values.mean()
    half = max(
        per_example.Z * values.std(ddof=1) / math.sqrt(len(values)), 3 / min(len(own), len(others))
    )
    shares, accepted, low, high = _fpr95(own, others)
    return OutOfDistribution(
        torch.from_numpy(own),
        torch.from_numpy(others),
        torch.from_numpy(values),
        max(area - half, 0.0),
        min(area + half, 1.0),
        torch.from_numpy(shares),
        torch.from_numpy(accepted),
        low,
        high,
    )


def _scores(model: nn.Module, data: Data, where: str) -> Array:
    """Return the logarithm of the largest probability of each example, precise near 0."""
    with eval_mode(model), torch.no_grad():
        found = [
            logits_of(model, x).cpu()
            for (x,) in batches(model, data, where=where, names=("inputs",))
        ]
    logits = torch.cat(found)
    check_logits(logits, where=f"outputs for {where}")
    ordered = logits.double().sort(1).values
    below: Tensor = (ordered[:, :-1] - ordered[:, -1:]).exp().sum(1)
    return -below.log1p().numpy()


def _fpr95(own: Array, others: Array) -> tuple[Array, Array, float, float]:
    """Return which others are accepted, after values of their share, and before its interval."""
    n, ranked, sorted_others = len(own), np.sort(own), np.sort(others)

    def share(below: float) -> float:
        """Return the share of others that have at least the score of this rank from below."""
        if below < 0:
            return 1.0
        threshold = ranked[min(int(below), n - 1)]
        return 1 - float(np.searchsorted(sorted_others, threshold)) / len(others)

    rank = n // 20
    rate = share(rank)
    low, high = (float(one) for one in per_example.wilson(np.array(rate), len(others)))
    spread = per_example.Z * math.sqrt(0.05 * 0.95 * n)
    ends = math.ceil(0.05 * n + spread), math.floor(0.05 * n - spread)
    least, most = map(share, ends)
    accepted, rejected = others >= ranked[rank], own < ranked[rank]
    # How much the share changes with the threshold: the ratio of the densities there.
    slope = (most - least) * n / (ends[0] - ends[1])
    total = n + len(others)
    values = rate + np.concatenate(
        [
            total / n * slope * (rejected - rejected.mean()),
            total / len(others) * (accepted - accepted.mean()),
        ]
    )
    return (
        values,
        accepted,
        max(rate - math.hypot(rate - low, rate - least), 0.0),
        min(rate + math.hypot(high - rate, most - rate), 1.0),
    )
