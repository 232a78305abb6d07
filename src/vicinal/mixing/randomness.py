"""Random generators that depend on a few numbers only."""

import operator
from typing import Any

import numpy as np
import torch

CPU = torch.device("cpu")
"""Device of all random numbers, whatever PyTorch's default device is."""


def generator_at(seed: int, step: int, rank: int = 0, stream: int = 0) -> torch.Generator:
    """Return the random generator of one step of one run, on the CPU.

    It depends on its arguments only, so a resumed run draws the same numbers as an uninterrupted
    one, and there is no state to save. Similar numbers give unrelated generators, since they are
    hashed by NumPy's ``SeedSequence``. PyTorch's CPU generator uses 32 bits of a seed, so among
    ``n`` steps about ``n**2 / 2**33`` pairs share a generator: one pair in 100,000 steps.

    Args:
        seed: seed of the run.
        step: counted over the whole run, from 0.
        rank: rank of the process, from 0.
        stream: a different number for each independent use at the same step, such as mixing (0)
            and the order of the data (1).

    Raises:
        TypeError: if one of the numbers is not an integer.
        ValueError: if one of the numbers is negative, or ``2**64`` or more.

    Example:
        >>> a, b = generator_at(seed=1, step=7), generator_at(seed=1, step=7)
        >>> torch.equal(torch.randperm(9, generator=a), torch.randperm(9, generator=b))
        True
    """
    named = {"seed": seed, "step": step, "rank": rank, "stream": stream}
    numbers = [_whole_number(name, number) for name, number in named.items()]
    # SeedSequence divides larger numbers into words of 32 bits and joins all words, so it could not
    # distinguish (5 + 7 * 2**32, 9) from (5, 7 + 9 * 2**32).
    low, high = [number % 2**32 for number in numbers], [number >> 32 for number in numbers]
    (word,) = np.random.SeedSequence(low + high if any(high) else low).generate_state(1)
    return torch.Generator(CPU).manual_seed(int(word))


def named(generator: torch.Generator | None) -> dict[str, Any]:
    """Return the generator as a keyword argument, or nothing.

    With ``generator=None``, the compiler cannot draw as many numbers as a batch of unknown size
    needs.
    """
    return {} if generator is None else {"generator": generator}


def _whole_number(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(
            f"generator_at: expected {name} as an integer, got {type(value).__name__} {value!r}."
        ) from error
    if not 0 <= number < 2**64:
        raise ValueError(f"generator_at: expected {name} from 0 to 2**64 - 1, got {number}.")
    return number
