"""GANs on mixtures of Gaussians in the plane, as in section 3.7 of the mixup paper."""

import itertools
import math
from collections.abc import Collection, Iterator
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from vicinal.generative.losses import (
    author_plan,
    discriminator_loss,
    generator_loss,
    minimax_generator_loss,
    paper_plan,
)
from vicinal.mixing import Plan, generator_at

Arm = Literal["plain", "paper", "author"]
GeneratorLoss = Literal["minimax", "non-saturating"]
Mixture = Literal["grid", "ring"]
"""A grid of 5 x 5 Gaussians in [-1, 1], or 8 of them on a circle of radius 1."""


def mode_centers(data: Mixture) -> Tensor:
    """Return the centers of the Gaussians of a mixture: ``(modes, 2)`` float32.

    Example:
        >>> len(mode_centers("grid")), mode_centers("ring")[0].tolist()
        (25, [1.0, 0.0])
    """
    if data == "grid":
        line = torch.linspace(-1, 1, 5)
        return torch.cartesian_prod(line, line)
    angles = torch.arange(8) * (math.pi / 4)
    return torch.stack([angles.cos(), angles.sin()], 1)


def draw_real(centers: Tensor, std: float, size: int, generator: Generator) -> Tensor:
    """Draw ``(size, 2)`` from a mixture with equal weights, and the std of each Gaussian.

    Example:
        >>> centers = mode_centers("ring")
        >>> draw_real(centers, 0.01, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """
    chosen = torch.randint(len(centers), (size,), generator=generator)
    return centers[chosen] + std * torch.randn(size, 2, generator=generator)


def train(
    data: Mixture,
    arm: Arm,
    seed: int,
    *,
    yield_at: Collection[int],
    iterations: int,
    batch_size: int = 128,
    discriminator_steps: int = 5,
    latent: int = 2,
    width: int = 512,
    std: float = 0.01,
    alpha: float = 0.2,
    share: float = 0.2,
    loss: GeneratorLoss = "minimax",
    samples: int = 1000,
) -> Iterator[tuple[int, Tensor]]:
    """Train a GAN on a mixture of Gaussians, and yield what its generator draws meanwhile.

    Both networks have three hidden layers of ReLU units, and Adam with its defaults. The seed
    decides on weights, data and noise, which are the same for all arms.

    Args:
        data: the mixture.
        arm: how the discriminator is trained: ``"plain"`` without mixing, or on blends of
            ``paper_plan`` or ``author_plan``.
        seed: seed of all random numbers.
        yield_at: the iterations to yield after.
        iterations: steps of the generator, each after ``discriminator_steps``.
        batch_size: real rows of a step, and generated rows.
        discriminator_steps: before each step of the generator, on new rows.
        latent: dimensions of the noise.
        width: width of each hidden layer.
        std: std of each Gaussian.
        alpha: alpha of ``paper_plan``.
        share: share of ``author_plan``.
        loss: loss of the generator: ``"minimax"`` is minus that of the discriminator, on blends for
            the arm ``"paper"``, as it is written there, and without mixing for the others.
        samples: number of samples to yield.

    Yields:
        The iteration, and ``(samples, 2)`` from the generator, for the same noise each time.

    Example:
        >>> for iteration, drawn in train("ring", "paper", 0, iterations=2, yield_at=[2], width=8):
        ...     print(iteration, drawn.shape)
        2 torch.Size([1000, 2])
    """
    centers = mode_centers(data)
    weights, rows, mixing, shown = (generator_at(seed, 0, stream=one) for one in range(4))
    g, d = network(latent, width, 2, weights), network(2, width, 1, weights)
    for_g, for_d = (torch.optim.Adam(one.parameters(), fused=True) for one in (g, d))
    fixed = torch.randn(samples, latent, generator=shown)

    def batch() -> tuple[Tensor, Tensor]:
        """Draw real rows and noise."""
        real = draw_real(centers, std, batch_size, rows)
        return real, torch.randn(batch_size, latent, generator=rows)

    def plan(arm: Arm) -> Plan | None:
        if arm == "paper":
            return paper_plan(batch_size, alpha=alpha, generator=mixing)
        return author_plan(batch_size, share=share, generator=mixing) if arm == "author" else None

    for iteration in range(1, iterations + 1):
        for _ in range(discriminator_steps):
            real, noise = batch()
            with torch.no_grad():
                generated = g(noise)
            for_d.zero_grad()
            discriminator_loss(d, real, generated, plan(arm)).backward()
            for_d.step()
        real, noise = batch()
        for_g.zero_grad()
        if loss == "minimax":
            mixed = plan("paper") if arm == "paper" else None
            minimax_generator_loss(d, real, g(noise), mixed).backward()
        else:
            generator_loss(d, g(noise)).backward()
        for_g.step()
        if iteration in yield_at:
            with torch.no_grad():
                yield iteration, g(fixed)


def network(inputs: int, width: int, outputs: int, generator: Generator) -> nn.Sequential:
    """Return a fully connected network with three hidden layers, initialized as ``nn.Linear``.

    Example:
        >>> network(2, 8, 1, torch.Generator().manual_seed(0))(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """
    widths = [inputs, width, width, width, outputs]
    layers: list[nn.Module] = []
    for wide, to in itertools.pairwise(widths):
        linear = nn.utils.skip_init(nn.Linear, wide, to)
        for values in linear.parameters():
            nn.init.uniform_(values, -(wide**-0.5), wide**-0.5, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
