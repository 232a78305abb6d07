"""Mixup for the discriminator of a GAN, in three lines of your own training loop.

Example:
    >>> import torch
    >>> from vicinal import generative
    >>> discriminator, generator = torch.nn.Linear(2, 1), torch.nn.Linear(3, 2)
    >>> real, generated = torch.randn(64, 2), generator(torch.randn(64, 3))
    >>> plan = generative.paper_plan(len(real))
    >>> generative.discriminator_loss(discriminator, real, generated, plan).backward()
    >>> generative.generator_loss(discriminator, generated).backward()
"""

from vicinal.generative.losses import (
    author_plan,
    discriminator_loss,
    generator_loss,
    minimax_generator_loss,
    paper_plan,
)

__all__ = [
    "author_plan",
    "discriminator_loss",
    "generator_loss",
    "minimax_generator_loss",
    "paper_plan",
]
