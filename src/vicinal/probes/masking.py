"""Signs that attacks failed because a network hides its gradients, not because it is robust."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from vicinal.errors import UserError
from vicinal.probes.adversarial import Attacks, parse_attack

LEVEL = 0.05
"""Probability of a false alarm of one check that compares attacks, at most."""

TOLERATED = 0.01
"""Fraction of the correct examples that may have a zero gradient, or withstand any change."""


class Check(NamedTuple):
    """One check for masked gradients.

    Args:
        name: name of the check.
        ok: whether it passed; None if the attacks that it needs were not run.
        sentence: what was found, or what the check needs to run.
        numbers: the counts in the sentence.
    """

    name: str
    ok: bool | None
    sentence: str
    numbers: dict[str, float]


class _Pair(NamedTuple):
    """Two attacks, the first of which should be at least as strong, and what they left correct.

    ``strong_correct`` and ``weak_correct`` are ``(n,)`` booleans.
    """

    strong: str
    weak: str
    epsilon: float
    strong_correct: Tensor
    weak_correct: Tensor


def masking_checks(white: Attacks, black: Attacks | None = None) -> list[Check]:
    """Return checks that fail if a network masks its gradients, so that its accuracy misleads.

    Most of them are those of Athalye, Carlini and Wagner (https://arxiv.org/abs/1802.00420). FGSM
    is only compared with iterated attacks: its one step may be too long, so it may well be weaker
    than noise, and weaker at a larger epsilon than at a smaller one. An attack is called weaker
    than another if it fails on significantly more of the examples on which just one of the two
    fails (sign test, with Bonferroni's correction).

    Args:
        white: attacks with the gradients of the network itself. For all checks, they need noise,
            FGSM, an iterated attack with two numbers of steps, two epsilons, and an epsilon that is
            the whole range of the inputs.
        black: some of the iterated attacks, with the same epsilons and data, and the gradients of
            another network.

    Raises:
        UserError: if the two were not measured on the same examples.

    Example:
        >>> import torch
        >>> from vicinal.probes import attacks
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> x, y = torch.linspace(-1, 1, 50)[:, None], (torch.arange(50) >= 25).long()
        >>> white = attacks(model, [(x, y)], epsilons=[0.1, 2.0], bounds=(-1, 1))
        >>> for check in masking_checks(white):
        ...     print(check.ok, check.name)
        True same outputs twice
        True nonzero gradients
        True iterated attacks against FGSM
        None more steps
        True larger epsilon
        True noise
        True unbounded epsilon
        None black box
    """
    iterated = [name for name in white.ranks if name.startswith(("i-fgsm", "pgd"))]
    longer = [(a, b) for a in iterated for b in iterated if _longer(a, b)]
    one = "an iterated attack, such as pgd-20"
    return [
        _same_outputs_twice(white),
        _nonzero_gradients(white),
        _compared(
            "iterated attacks against FGSM",
            _pairs(white, white, [(name, "fgsm") for name in iterated]),
            f"fgsm and {one}, and an epsilon above 0",
        ),
        _compared(
            "more steps",
            _pairs(white, white, longer),
            "an iterated attack with two numbers of steps, such as pgd-20 and pgd-100",
        ),
        _compared("larger epsilon", _pairs_of_epsilons(white, iterated), f"two epsilons and {one}"),
        _compared(
            "noise",
            _pairs(white, white, [(name, "noise") for name in iterated]),
            f"noise and {one}, and an epsilon above 0",
        ),
        _unbounded(white, iterated),
        _compared(
            "black box",
            _pairs(white, black, [(name, name) for name in iterated]) if black else [],
            f"{one}, with the gradients of another network",
        ),
    ]


def _same_outputs_twice(white: Attacks) -> Check:
    differ, n = int((~white.repeatable).sum()), len(white.repeatable)
    sentence = (
        f"A second forward pass, of half batches, returned other logits for {differ} of {n} "
        "examples"
    )
    reasons = "the network is random in eval mode, or depends on the other examples of a batch"
    sentence += f": {reasons}." if differ else "."
    return Check("same outputs twice", not differ, sentence, {"differ": differ, "examples": n})


def _nonzero_gradients(white: Attacks) -> Check:
    correct = white.clean < 1
    zero, n = int((white.zero_gradient & correct).sum()), int(correct.sum())
    ok = zero <= TOLERATED * n
    sentence = f"The gradient is zero for {zero} of {n} correct examples"
    sentence += "." if ok else ": attacks by the gradient of the cross-entropy cannot change these."
    return Check("nonzero gradients", ok, sentence, {"zero": zero, "examples": n})


def _unbounded(white: Attacks, iterated: list[str]) -> Check:
    name = "unbounded epsilon"
    whole = white.bounds[1] - white.bounds[0]
    rows = [
        row
        for row, epsilon in enumerate(white.epsilons)
        if whole < math.inf and math.isclose(epsilon, whole)
    ]
    if not rows or not iterated:
        return _missing(name, f"the epsilon {whole:g} and an iterated attack, such as pgd-20")
    correct = white.clean < 1
    if len(white.targets[correct].unique()) < 2:
        # No input is certain to be predicted as another class.
        return _missing(name, "correct examples of two classes")
    n, left = int(correct.sum()), int(white.correct(*iterated)[rows[0]].sum())
    ok = left <= TOLERATED * n
    sentence = f"With an epsilon of the whole range, {left} of {n} correct examples stay correct"
    sentence += "." if ok else ", although each of them could become any other input."
    return Check(name, ok, sentence, {"correct": left, "examples": n})


def _longer(one: str, other: str) -> bool:
    a, b = parse_attack(one), parse_attack(other)
    return a.kind == b.kind and a.steps > b.steps


def _pairs(white: Attacks, other: Attacks, names: list[tuple[str, str]]) -> list[_Pair]:
    if white.epsilons != other.epsilons or not white.targets.equal(other.targets):
        raise UserError(
            "masking_checks: expected white-box and black-box results for the same epsilons and "
            f"examples, got epsilons {white.epsilons} and {other.epsilons} for "
            f"{len(white.targets)} and {len(other.targets)} examples."
        )
    origin = "" if other is white else " by another network"
    return [
        _Pair(strong, weak + origin, epsilon, a, b)
        for strong, weak in names
        if weak in other.ranks
        for epsilon, a, b in zip(
            white.epsilons, white.correct(strong), other.correct(weak), strict=True
        )
        if epsilon  # 0 changes nothing
    ]


def _pairs_of_epsilons(white: Attacks, names: list[str]) -> list[_Pair]:
    order = sorted(
        (k for k, epsilon in enumerate(white.epsilons) if epsilon), key=white.epsilons.__getitem__
    )
    pairs = []
    for name in names:
        correct = white.correct(name)
        for low, high in pairwise(order):
            weak = f"{name} at {white.epsilons[low]:g}"
            pairs.append(_Pair(name, weak, white.epsilons[high], correct[high], correct[low]))
    return pairs


def _compared(name: str, pairs: list[_Pair], needed: str) -> Check:
    """Return the check that no attack is weaker than the one that it is paired with."""
    if not pairs:
        return _missing(name, needed)
    # Examples that only the weak attack changes, and those that only the strong one does.
    lost = torch.tensor([int((p.strong_correct & ~p.weak_correct).sum()) for p in pairs])
    won = torch.tensor([int((p.weak_correct & ~p.strong_correct).sum()) for p in pairs])
    chances = [_sign_test(a, b) for a, b in zip(lost.tolist(), won.tolist(), strict=True)]
    k = min(range(len(pairs)), key=chances.__getitem__)
    worst, p = pairs[k], min(1.0, chances[k] * len(pairs))
    sentence = (
        f"{worst.weak} changes {lost[k]} predictions that {worst.strong} at {worst.epsilon:g} does "
        f"not, and {won[k]} vice versa (the least favorable of {len(pairs)} comparisons, p = "
        f"{p:.2g})."
    )
    numbers = {"lost": int(lost[k]), "won": int(won[k]), "p": p, "comparisons": len(pairs)}
    return Check(name, p >= LEVEL, sentence, numbers)


def _sign_test(lost: int, won: int) -> float:
    """Return the probability that at least ``lost`` of ``lost + won`` fair coins show heads.

    Example:
        >>> round(_sign_test(3, 0), 6), round(_sign_test(0, 5), 6)
        (0.125, 1.0)
    """
    n = torch.tensor(lost + won, dtype=torch.float64)
    k = torch.arange(lost, lost + won + 1, dtype=torch.float64)
    logs = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1) - n * math.log(2)
    return float(logs.exp().sum())


def _missing(name: str, needed: str) -> Check:
    return Check(name, None, f"needs {needed}.", {})
