"""The share of blends that look like an example of a third class."""

import math

import torch

from vicinal.data import DataSet
from vicinal.mixing import Policy, generator_at

BLENDS, BATCH, NEIGHBORS = 500, 50, 3000
"""How many blends are drawn, in batches, and how many training examples are searched, at most."""

_VALUES = 1 << 28
"""How many values of training examples are in memory, at most."""


def third_class_share(data: DataSet, policy: Policy, *, seed: int) -> float | None:
    """Return the fraction of blends whose nearest training example is of a third class.

    Such a blend has the label of its parents, but lies where a different class is ("manifold
    intrusion": Guo et al., "MixUp as Locally Linear Out-Of-Manifold Regularization",
    https://arxiv.org/abs/1809.02499). Distances are Euclidean, between inputs.

    Args:
        data: the data set; a sample of its training split is read.
        policy: draws the blends.
        seed: seed of the sample and of the blends.

    Returns:
        A fraction, or None with fewer than three classes, or if inputs are not numbers or the
        policy returns something else than a blend for each example.

    Example:
        >>> from vicinal import MixUp
        >>> from vicinal.data import load
        >>> 0 < third_class_share(load("digits"), MixUp(8.0), seed=0) < 0.2
        True
    """
    if len(data.classes) < 3:
        return None
    generator = generator_at(seed, 0)
    most = min(NEIGHBORS, _VALUES // math.prod(data.train.inputs.shape[1:]))
    rows = torch.randperm(len(data.train), generator=generator)[:most]
    read = data.train.read(rows.tolist())
    inputs, labels = read.inputs, data.train.targets[rows[torch.from_numpy(read.kept)]]
    if not (inputs.is_floating_point() or inputs.dtype == torch.uint8) or not len(inputs):
        return None
    known, thirds = inputs.float().flatten(1), list[torch.Tensor]()
    center = known.mean(0)  # torch.cdist rounds far from zero
    known = known.sub_(center) if inputs.dtype == torch.uint8 else known - center
    pieces = (one[:BLENDS].split(BATCH) for one in (inputs, labels))
    for x, y in zip(*pieces, strict=True):
        size = x.shape[2:] or x.shape[1:]
        plan = policy.draw(len(x), generator=generator, y=y, features=x, image_size=size)
        blends = plan.mix(x.float())
        if len(blends) != len(x) or plan.partner.dim() != 1:
            return None
        nearest = labels[torch.cdist(blends.flatten(1) - center, known).argmin(1)]
        thirds.append((nearest != y) & (nearest != y[plan.partner]))
    return float(torch.cat(thirds).double().mean())
