"""Accuracy of a network on inputs that an attack has changed by at most epsilon in each value."""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.errors import UserError
from vicinal.mixing import generator_at
from vicinal.probes.auto_attack import auto_attack
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

NAMES = ("noise", "fgsm", "i-fgsm-10", "pgd-20", "pgd-margin-20")
"""The attacks that run if none are named."""

_KNOWN = "noise, fgsm, i-fgsm-STEPS, pgd-STEPS, pgd-margin-STEPS or autoattack, such as pgd-20"


class Attack(NamedTuple):
    """What distinguishes the attacks that take steps along the sign of a gradient.

    Args:
        kind: the name without the number of steps.
        steps: how many gradients are computed for each restart.
        size: size of one step, as a multiple of ``epsilon / steps``.
        start: maps random numbers between -1 and 1 to a start, in multiples of epsilon.
        loss: maps logits and labels to the sum that a step increases.
    """

    kind: str
    steps: int
    size: float
    start: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]

    @property
    def random(self) -> bool:
        """Whether each restart starts somewhere else."""
        return self.start is not torch.zeros_like


def parse_attack(name: str) -> Attack:
    """Return the attack of a name.

    Raises:
        UserError: if there is no such attack.

    Example:
        >>> parse_attack("pgd-margin-20").steps
        20
    """
    found = re.fullmatch(r"(noise|fgsm|autoattack)|(i-fgsm|pgd|pgd-margin)-([1-9]\d{0,5})", name)
    if not found:
        raise UserError(f"names: expected {_KNOWN}, got {name!r}.")
    kind, steps = found[1] or found[2], int(found[3] or 0)
    if kind == "noise":
        return Attack(kind, 0, 0.0, torch.sign, _cross_entropy)
    if kind == "autoattack":
        return Attack(kind, 0, 0.0, torch.zeros_like, _cross_entropy)
    if kind in {"fgsm", "i-fgsm"}:
        return Attack(kind, steps or 1, 1.0, torch.zeros_like, _cross_entropy)
    loss = _margin if kind == "pgd-margin" else _cross_entropy
    return Attack(kind, steps, 2.5, torch.clone, loss)


class Attacks(NamedTuple):
    """What ``attacks`` returns. All tensors are on the CPU.

    The rank of an example is the number of other classes whose logit is at least that of the true
    class, at the worst input that counts (see ``attacks``). It is cut off at ``top``. An example is
    correct in the sense of top-k accuracy if its rank is below k.

    Args:
        epsilons: largest changes of a value.
        bounds: bounds of the values of inputs.
        top: the largest rank that is distinguished.
        targets: ``(n,)`` int64, the true classes.
        clean: ``(n,)`` int32, ranks for the unchanged inputs.
        ranks: ``(epsilons, n)`` int32 of each attack, in the order in which they were named.
        zero_gradient: ``(n,)`` bool, of the network that is attacked (the source): whether the
            gradient of the cross-entropy with respect to the unchanged input is zero in all values.
        repeatable: ``(n,)`` bool, likewise, whether a second forward pass, of each half of a batch
            by itself, gave the same logits up to rounding.
    """

    epsilons: tuple[float, ...]
    bounds: tuple[float, float]
    top: int
    targets: Tensor
    clean: Tensor
    ranks: dict[str, Tensor]
    zero_gradient: Tensor
    repeatable: Tensor

    def correct(self, *names: str, top: int = 1) -> Tensor:
        """Return ``(epsilons, n)`` bool: whether the true class stays among the first ``top``.

        Args:
            names: names of attacks. With several of them, an example has to withstand each.
            top: how many classes may be predicted; 1 for accuracy.

        Raises:
            ValueError: without a name, if one was not run, or if ranks do not go as far as ``top``.
        """
        if not names or not set(names) <= set(self.ranks) or not 1 <= top <= self.top:
            raise ValueError(
                f"correct: expected some of {', '.join(self.ranks)}, and top from 1 to {self.top}, "
                f"got {', '.join(names) or 'no name'}, and top={top}. Pass them to attacks first."
            )
        return torch.stack([self.ranks[name] for name in names]).amax(0) < top

    def accuracy(self, *names: str, top: int = 1) -> Tensor:
        """Return ``(epsilons,)`` float64: the mean of ``correct`` over the examples."""
        return self.correct(*names, top=top).double().mean(1)


def attacks(
    model: nn.Module,
    data: Data,
    *,
    epsilons: Sequence[float],
    names: Sequence[str] = NAMES,
    bounds: tuple[float, float] = (0.0, 1.0),
    source: nn.Module | None = None,
    restarts: int = 1,
    top: int = 1,
    seed: int = 0,
) -> Attacks:
    """Return which examples a network still gets right under attacks with known gradients.

    An attack changes each value of an input by at most epsilon (L-infinity), within the bounds:

    * ``noise``: plus or minus epsilon at random. This is a control, not an attack.
    * ``fgsm``: one step of epsilon along the sign of the gradient (https://arxiv.org/abs/1412.6572).
    * ``i-fgsm-N``: N equal steps of ``epsilon / N`` (https://arxiv.org/abs/1607.02533).
    * ``pgd-N``: from a random start, N steps of ``2.5 * epsilon / N``, each followed by a
      projection (https://arxiv.org/abs/1706.06083).
    * ``pgd-margin-N``: the same with the largest other logit minus the true one as loss
      (https://arxiv.org/abs/1608.04644), instead of the cross-entropy.
    * ``autoattack``: see ``auto_attack``; needs the package ``pyautoattack`` and much more time.

    An example is correct only if the network is right for the unchanged input and for every input
    that the attack visits, in all restarts. So an example leaves the batch as soon as its rank is
    ``top``, which does not change the results.

    Args:
        model: maps ``(batch, ...)`` to logits ``(batch, classes)``. It is run in eval mode.
        data: batches of floating-point inputs ``(batch, ...)`` and integer labels ``(batch,)``.
        epsilons: largest changes of a value, in the units of the inputs.
        names: names of the attacks.
        bounds: lowest and highest value of an input. For a network that takes normalized images,
            pass ``nn.Sequential(normalization, network)`` and images in ``[0, 1]``.
        source: a network to attack instead, on the same device (black box). The attacks take all
            their steps by its gradients, and the model is run on the last inputs only.
        restarts: how often attacks with a random start, and noise, are repeated.
        top: the largest k for which top-k accuracy is wanted; larger values need more time.
        seed: seed of the random starts. These do not depend on the batch size.

    Raises:
        UserError: if an attack is unknown or does not fit ``top``, an epsilon is negative or
            exceeds the bounds, inputs are outside of the bounds, there are no gradients, or outputs
            are not logits.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> model = nn.Sequential(nn.Threshold(-9, 0), model)
        >>> x, y = torch.tensor([[0.3], [-0.1]]), torch.tensor([1, 0])
        >>> found = attacks(model, [(x, y)], epsilons=[0.0, 0.2, 0.4], bounds=(-1, 1))
        >>> found.correct("pgd-20").tolist()
        [[True, True], [True, False], [False, False]]
        >>> found.accuracy("fgsm").tolist()
        [1.0, 0.5, 0.0]
    """
    low, high = _checked_bounds(bounds, epsilons)
    if isinstance(names, str):
        raise UserError(f"names: expected a sequence of names, got {names!r}. Pass [{names!r}].")
    chosen = {name: parse_attack(name) for name in names}
    if restarts < 1 or top < 1 or not chosen or not len(epsilons):
        raise UserError(
            "attacks: expected at least one name, one epsilon, one restart and a top of at least "
            f"1, got {len(chosen)} names, {len(epsilons)} epsilons, {restarts=} and {top=}."
        )
    if "autoattack" in chosen and top > 1:
        raise UserError(
            f"attacks: expected top=1 for autoattack, which does not try to change more than the "
            f"first prediction, got {top=}. Call attacks once more for the others."
        )
    network = model if source is None else source
    dtypes = {one: _dtype(one) for one in (model, network)}
    if len(set(dtypes.values()) - {None}) > 1:
        raise UserError(
            f"source: expected a network in {dtypes[model]}, as the model, got {dtypes[network]}. "
            "Convert one of them with .to(dtype)."
        )
    generators = [generator_at(seed, restart) for restart in range(restarts)]
    found: list[list[Tensor]] = []
    seen: list[tuple[Tensor, Tensor]] = []
    with ExitStack() as stack:
        for one in {model, network}:
            stack.enter_context(eval_mode(one))
        for batch in batches(model, data, names=("inputs", "targets")):
            x, y, once = _checked_batch(network, batch, low, high)
            own = once if source is None else _checked_batch(model, batch, low, high)[2]
            seen.append((own.cpu(), once.cpu()))
            if len(x) > 8 and not found:
                _check_all(seen)
            parts = 2 if len(x) > 3 else 1
            halves = zip(x.chunk(parts), y.chunk(parts), strict=True)
            found_again = [_logits_and_gradient(network, *half, _cross_entropy) for half in halves]
            again, gradient = map(torch.cat, zip(*found_again, strict=True))
            repeatable = _are_equal(again, once)
            clean = _ranks(own, y, top)
            ranks = clean.repeat(len(chosen), len(epsilons), 1)
            for restart, generator in enumerate(generators):
                unit = _unit(x, generator)
                for attack, of_attack in zip(chosen.values(), ranks, strict=True):
                    for epsilon, row in zip(epsilons, of_attack, strict=True):
                        left = (row < top).nonzero()[:, 0]
                        if (restart and not attack.random) or not epsilon or not len(left):
                            continue
                        points, worst = _walk(
                            network,
                            *(x[left], y[left], unit[left]),
                            attack=attack,
                            epsilon=epsilon,
                            bounds=bounds,
                            top=top if source is None else None,
                            seed=seed,
                        )
                        with torch.no_grad():
                            last = _ranks(logits_of(model, points), y[left], top)
                        row[left] = torch.stack([row[left], worst, last]).amax(0)
            zero = gradient.flatten(1).count_nonzero(1) == 0
            found.append([one.cpu() for one in (y, clean, ranks, zero, repeatable)])
    _check_all(seen)
    y, clean, ranks, zero, repeatable = (torch.cat(each, -1) for each in zip(*found, strict=True))
    return Attacks(
        tuple(epsilons),
        (low, high),
        top,
        y,
        clean,
        dict(zip(chosen, ranks, strict=True)),
        zero,
        repeatable,
    )


def _dtype(model: nn.Module) -> torch.dtype | None:
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), None)


def _are_equal(again: Tensor, once: Tensor) -> Tensor:
    """Return for which examples two outputs agree; logits of impossible classes may be -inf."""
    a, b = (one.log_softmax(1) for one in (again, once))
    return a.isclose(b, rtol=1e-3, atol=1e-3).all(1)


def attacked_inputs(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    epsilon: float,
    name: str = "pgd-20",
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Tensor:
    """Return the inputs at the end of an attack that takes all its steps.

    Args:
        model: maps ``(batch, ...)`` to logits ``(batch, classes)``. It is run in eval mode.
        inputs: ``(batch, ...)``, floating point. Not modified.
        targets: ``(batch,)`` integer labels.
        epsilon: largest change of a value, in the units of the inputs.
        name: name of the attack, as for ``attacks``.
        bounds: lowest and highest value of an input.
        seed: seed of the random start.

    Returns:
        ``(batch, ...)`` on the device and in the dtype of the model.

    Raises:
        UserError: as for ``attacks``.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
        >>> attacked_inputs(model, torch.tensor([[0.5, 0.9]]), torch.tensor([0]), epsilon=0.25)
        tensor([[0.2500, 1.0000]])
    """
    low, high = _checked_bounds(bounds, [epsilon])
    attack = parse_attack(name)
    with eval_mode(model):
        (batch,) = batches(model, [(inputs, targets)], where="inputs", names=("inputs", "targets"))
        x, y, logits = _checked_batch(model, batch, low, high)
        check_logits(logits)
        unit = _unit(x, generator_at(seed, 0))
        points, _ = _walk(
            model, x, y, unit, attack=attack, epsilon=epsilon, bounds=bounds, top=None, seed=seed
        )
    return points


def _walk(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    unit: Tensor,
    *,
    attack: Attack,
    epsilon: float,
    bounds: tuple[float, float],
    top: int | None,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return the last inputs of an attack, and the worst ranks of the network before these.

    With ``top=None`` all steps are taken and ranks are 0. Otherwise, an example whose rank is
    ``top`` takes no further step.
    """
    lowest = (x - epsilon).clamp(min=bounds[0])
    highest = (x + epsilon).clamp(max=bounds[1])
    points = (x + epsilon * attack.start(unit)).clamp(lowest, highest)
    ranks = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    if attack.kind == "autoattack":
        return auto_attack(network, x, y, epsilon=epsilon, bounds=bounds, seed=seed), ranks
    active = torch.arange(len(x), device=x.device)
    for _ in range(attack.steps):
        logits, gradient = _logits_and_gradient(network, points[active], y[active], attack.loss)
        if top is not None:
            ranks[active] = torch.maximum(ranks[active], _ranks(logits, y[active], top))
            left = ranks[active] < top
            active, gradient = active[left], gradient[left]
            if not len(active):
                break
        moved = points[active] + attack.size * epsilon / attack.steps * gradient.sign()
        points[active] = moved.clamp(lowest[active], highest[active])
    return points, ranks


def _logits_and_gradient(
    network: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    logits = logits_of(network, x)
    return logits.detach(), input_gradient(loss(logits, y), x)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="sum")


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    own = F.one_hot(y, logits.shape[1]).bool()
    return (logits.masked_fill(own, -torch.inf).amax(1) - logits[own]).sum()


def _ranks(logits: Tensor, y: Tensor, top: int) -> Tensor:
    if logits.isnan().any():
        raise UserError(
            "outputs: expected finite logits, got NaN for an attacked input. Low-precision dtypes "
            "overflow easily: use float32."
        )
    own = logits.gather(1, y[:, None])
    return ((logits >= own).sum(1, dtype=torch.int32) - 1).clamp(max=top)


def _unit(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return random numbers between -1 and 1, the same ones in batches of any size and dtype."""
    return (2 * torch.rand(x.shape, generator=generator, dtype=torch.float32) - 1).to(x)


def _checked_bounds(bounds: tuple[float, float], epsilons: Sequence[float]) -> tuple[float, float]:
    if isinstance(epsilons, (int, float)):
        raise UserError(
            f"epsilons: expected a sequence of numbers, got {epsilons!r}. Pass [{epsilons!r}]."
        )
    low, high = bounds
    if not low < high:
        raise UserError(f"bounds: expected the lowest value, then a higher one, got {bounds}.")
    for epsilon in epsilons:
        if not 0 <= epsilon <= high - low and not math.isclose(epsilon, high - low):
            raise UserError(
                f"epsilons: expected numbers from 0 to {high - low:g}, the range of the inputs, "
                f"got {epsilon!r}. They are in units of the inputs: for images in [0, 1] write "
                "8 / 255."
            )
    return low, high


def _check_all(seen: list[tuple[Tensor, Tensor]]) -> None:
    for each in zip(*seen, strict=True):
        check_logits(torch.cat(each))


def _checked_batch(
    network: nn.Module, batch: tuple[Tensor, ...], low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, int64 labels, and the logits of a network."""
    inputs, targets = batch
    if not inputs.is_floating_point():
        raise UserError(
            f"inputs: expected floating-point numbers, got {inputs.dtype}. For images, pass "
            "inputs.float() / 255."
        )
    if inputs.dtype in (torch.float16, torch.bfloat16):
        raise UserError(
            f"model: expected a network in float32 or float64, got {inputs.dtype}, in which the "
            "steps of attacks are rounded away. Call model.float()."
        )
    if not ((inputs >= low) & (inputs <= high)).all():
        raise UserError(
            f"inputs: expected values from {low:g} to {high:g}, the bounds, got "
            f"{inputs.min():g} to {inputs.max():g}. If the network takes normalized inputs, pass "
            "nn.Sequential(normalization, network) and inputs that are not normalized."
        )
    with torch.no_grad():
        logits = logits_of(network, inputs)
    check_finite(logits.amax(1), where="outputs for a batch")
    check_labels(targets, logits.shape[1])
    return inputs, targets.long(), logits
