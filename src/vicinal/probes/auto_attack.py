"""AutoAttack, by the package ``pyautoattack`` if it is installed."""

import sys

import torch
from torch import Tensor, nn

from vicinal.errors import UserError


def auto_attack(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    bounds: tuple[float, float],
    seed: int,
) -> Tensor:
    """Return adversarial examples of the standard version of AutoAttack, in the L-infinity norm.

    It combines three gradient-based attacks and a query-based one (Croce and Hein,
    https://arxiv.org/abs/2003.01690). Its random numbers depend on the batch.

    Args:
        network: maps images to logits, in eval mode.
        x: ``(n, channels, height, width)``, from 0 to 1.
        y: ``(n,)`` int64 labels.
        epsilon: largest change of a value.
        bounds: bounds of the values, which have to be 0 and 1.
        seed: seed of its random numbers.

    Raises:
        UserError: if the package is not installed, for other inputs, or with fewer than 4 classes.
    """
    try:
        from pyautoattack import AutoAttack
    except ModuleNotFoundError as error:
        raise UserError(
            "autoattack: the Python package pyautoattack is not installed. Run: pip install "
            "pyautoattack"
        ) from error
    with torch.no_grad():
        classes = network(x[:1]).shape[1]
    if x.dim() != 4 or tuple(bounds) != (0, 1) or classes < 4:
        raise UserError(
            "autoattack: expected images (batch, channels, height, width) with bounds 0 and 1, and "
            f"at least 4 classes, got inputs {tuple(x.shape)} with bounds {bounds} and {classes} "
            "classes. Use pgd-20 and pgd-margin-20."
        )
    traced = sys.gettrace()  # the package removes the function of debuggers and of coverage
    try:
        # It seeds the current GPU too.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            attack = AutoAttack(network, eps=epsilon, seed=seed, device=x.device)
            for one in (attack.apgd_targeted, attack.fab):
                one.n_target_classes = min(9, classes - 1)
            points, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
    finally:
        sys.settrace(traced)
    lowest, highest = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    inside: Tensor = points.detach().clamp(lowest, highest)
    return inside
