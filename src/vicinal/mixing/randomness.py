"""Random generators that depend on nothing but a few numbers."""

import numpy as np
import torch

CPU = torch.device("cpu")
"""Where all is drawn, whatever PyTorch's default device is."""


def generator_at(seed: int, step: int, rank: int = 0, stream: int = 0) -> torch.Generator:
    """Return the random generator of one step of one run, on the CPU.

    It depends on its arguments alone, so a run that is resumed at a step draws what the unbroken
    run drew there, with no state to save. Nearby numbers give unrelated generators: they are
    hashed by NumPy's ``SeedSequence``. PyTorch's CPU generator takes 32 bits of a seed, so among
    ``n`` steps about ``n**2 / 2**33`` pairs share a generator: one pair in 100,000 steps.

    Args:
        seed: of the run, from 0.
        step: counted over the whole run, from 0.
        rank: of the process among several, from 0.
        stream: keeps apart what is drawn independently at the same step, such as mixing (0) and
            the order of the data (1), from 0.

    Raises:
        ValueError: if one of the numbers is negative.

    Example:
        >>> a, b = generator_at(seed=1, step=7), generator_at(seed=1, step=7)
        >>> torch.equal(torch.randperm(9, generator=a), torch.randperm(9, generator=b))
        True
    """
    numbers = {"seed": seed, "step": step, "rank": rank, "stream": stream}
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"generator_at needs {name} to be 0 or more, got {number}.")
    (word,) = np.random.SeedSequence(list(numbers.values())).generate_state(1)
    return torch.Generator(CPU).manual_seed(int(word))
