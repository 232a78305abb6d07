"""Whether the probabilities of a network can be believed, before and after temperature scaling."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vicinal import per_example
from vicinal.errors import UserError
from vicinal.per_example import Array
from vicinal.probes.running import Data, check_labels, check_logits, predictions_of

_STEPS = 100
"""Of the search for a temperature; about 10 are needed."""


class Reliability(NamedTuple):
    """A reliability diagram: one entry for each bin of about equally many examples.

    Equal confidences share a bin, so there can be fewer than 15 bins.

    Args:
        confidence: ``(bins,)``, the mean of the largest probability.
        accuracy: ``(bins,)``, the share of correct predictions.
        low: ``(bins,)``, lower end of Wilson's 95% interval of the accuracy.
        high: ``(bins,)``, its upper end.
        examples: ``(bins,)`` int64, how many there are.
    """

    confidence: Tensor
    accuracy: Tensor
    low: Tensor
    high: Tensor
    examples: Tensor


class Calibration(NamedTuple):
    """How far probabilities are from the truth; the ``..._values`` are ``(n,)`` float64.

    Args:
        nll_values: negative log-likelihood of each true class, in nats.
        brier_values: squared error of the probabilities, summed over classes.
        ece_values: what each example adds to the expected calibration error: the difference of
            confidence and accuracy, with the sign of the difference in its bin.
        ece_by_chance: about the calibration error that a perfectly calibrated network with these
            confidences has on so few examples. An error that is not larger is no evidence of
            miscalibration.
        reliability: the reliability diagram.
    """

    nll_values: Tensor
    brier_values: Tensor
    ece_values: Tensor
    ece_by_chance: float
    reliability: Reliability

    @property
    def nll(self) -> float:
        """The mean negative log-likelihood, in nats."""
        return float(self.nll_values.mean())

    @property
    def brier(self) -> float:
        """The mean Brier score, from 0 to 2."""
        return float(self.brier_values.mean())

    @property
    def ece(self) -> float:
        """The expected calibration error, a fraction."""
        return float(self.ece_values.mean())


class RawAndScaled(NamedTuple):
    """Calibration before and after temperature scaling.

    Args:
        raw: calibration of the logits as they are.
        scaled: calibration of the logits divided by a temperature.
        temperatures: the one fitted on held-out examples, or those fitted on the two halves. Above
            1, the network is overconfident. Infinity means that equal probabilities are better
            than the network; 1 is also used if there is no best temperature.
    """

    raw: Calibration
    scaled: Calibration
    temperatures: tuple[float, ...]


def calibration(
    model: nn.Module, data: Data, *, held_out: Data | None = None, seed: int = 0
) -> RawAndScaled:
    """Measure how well the probabilities of a network are calibrated.

    Args:
        model: maps inputs ``(batch, ...)`` to logits ``(batch, classes)``. It is run in eval mode;
            its mode is restored.
        data: batches ``(inputs, labels)`` of examples that it was not trained with.
        held_out: other such batches, on which the temperature is fitted; see
            ``calibration_of_logits``.
        seed: seed of the random division into halves, if ``held_out`` is not given.

    Returns:
        The measures before and after temperature scaling, with values in the order of the data.

    Raises:
        UserError: if data or outputs are not as expected, for example if the outputs are
            probabilities already.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.0, 4.0]])
        >>> data = [(logits, torch.tensor([0, 0, 0, 1]))]
        >>> found = calibration(nn.Identity(), data, held_out=data)
        >>> round(found.raw.nll, 2), round(found.scaled.nll, 2), round(found.temperatures[0], 2)
        (1.02, 0.56, 3.64)
    """
    logits, labels = predictions_of(model, data)
    other = None if held_out is None else predictions_of(model, held_out, where="held_out")
    return calibration_of_logits(logits, labels, held_out=other, seed=seed)


def calibration_of_logits(
    logits: Tensor | Array,
    targets: Tensor | Array,
    *,
    held_out: tuple[Tensor | Array, Tensor | Array] | None = None,
    seed: int = 0,
) -> RawAndScaled:
    """Measure how well the probabilities that logits stand for are calibrated.

    The calibration error has 15 bins of about equally many examples, of the largest probability.
    One temperature divides all logits so that the NLL is smallest (Guo et al.,
    https://arxiv.org/abs/1706.04599). It is never fitted on the examples that it is judged on: it
    comes from ``held_out``, or each of two random halves is judged with the temperature that was
    fitted on the other one. If the NLL falls as long as the temperature does, as it does where all
    predictions are correct, there is no best temperature, and the logits stay as they are.

    Args:
        logits: ``(n, classes)``, or ``(seeds, n, classes)`` for an ensemble, which predicts the
            mean of the probabilities. Its temperature divides the logarithm of that mean.
        targets: ``(n,)`` integer labels.
        held_out: logits and targets of other examples, from the same networks.
        seed: seed of the two halves.

    Raises:
        UserError: if the logits are probabilities, NaN or plus infinity; a label does not fit them;
            or a true class is impossible (minus infinity) where the temperature is fitted.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.0, 4.0]])
        >>> found = calibration_of_logits(logits, torch.tensor([0, 0, 0, 1]))
        >>> round(found.raw.ece, 3), round(found.raw.brier, 3)
        (0.232, 0.483)
    """
    z, y = _checked(logits, targets, "logits", "targets")
    if held_out is not None:
        other = _checked(*held_out, "held_out, logits", "held_out, targets")
        temperatures: tuple[float, ...] = (_temperature(*other),)
        scaled = _divided(z, temperatures[0])
    elif len(z) < 2:
        raise UserError(
            "targets: expected at least two examples, since the temperature is fitted on one half "
            f"and judged on the other, got {len(z)}. Or pass held_out."
        )
    else:
        rows = np.random.default_rng(seed).permutation(len(z))
        halves = rows[: len(z) // 2], rows[len(z) // 2 :]
        temperatures = tuple(_temperature(z[half], y[half]) for half in halves[::-1])
        scaled = np.empty_like(z)
        for half, temperature in zip(halves, temperatures, strict=True):
            scaled[half] = _divided(z[half], temperature)
    right = per_example.correct(z, y)  # an infinite temperature makes all classes equal
    return RawAndScaled(_measured(z, y, right), _measured(scaled, y, right), temperatures)


def _checked(logits: Tensor | Array, targets: Tensor | Array, *where: str) -> tuple[Array, Array]:
    """Return ``(n, classes)`` float64 log-probabilities, and int64 labels."""
    z, y = (torch.as_tensor(one).detach().cpu() for one in (logits, targets))
    if z.dim() not in (2, 3) or not z.is_floating_point() or z.shape[-1] < 2 or not z.numel():
        raise UserError(
            f"{where[0]}: expected floating-point logits (n, classes) or (seeds, n, classes) of at "
            f"least one example and two classes, got {z.dtype} of shape {tuple(z.shape)}."
        )
    if len(y) != z.shape[-2]:
        raise UserError(
            f"{where[1]}: expected one label for each of {z.shape[-2]} examples, got {len(y)}."
        )
    check_logits(z.flatten(0, -2), where=where[0])
    check_labels(y, z.shape[-1], where=where[1])
    z = z.double().log_softmax(-1)
    if z.dim() == 3:
        z = z.logsumexp(0) - math.log(len(z))
    return z.numpy(), y.long().numpy()


def _divided(z: Array, temperature: float) -> Array:
    """Divide logits; impossible classes stay impossible, also at an infinite temperature."""
    return np.multiply(z, 1 / temperature, out=z.copy(), where=np.isfinite(z))


def _temperature(z: Array, y: Array) -> float:
    """Return the temperature with the smallest NLL, by Newton's method within a bracket.

    The NLL is a convex function of ``1 / temperature``. Its slope there is the mean over examples
    of the expected logit minus that of the true class.
    """
    true = np.take_along_axis(z, y[:, None], 1)[:, 0]
    if np.isneginf(true).any():
        count = int(np.isneginf(true).sum())
        raise UserError(
            "logits: expected finite logits of the true classes, since no temperature makes the "
            f"NLL finite otherwise, got minus infinity for {count} examples. Clamp the logits, or "
            "the probabilities before their logarithm."
        )
    z, true = z - z.max(1, keepdims=True), true - z.max(1)
    if not true.any():
        return 1.0
    possible = ~np.isneginf(z)
    finite = np.where(possible, z, 0.0)

    def slopes(inverse: float) -> tuple[float, float]:
        weight = np.where(possible, np.exp(inverse * finite), 0.0)
        p = weight / weight.sum(1, keepdims=True)
        mean = (p * finite).sum(1)
        second = (p * np.square(finite)).sum(1) - np.square(mean)
        return float((mean - true).mean()), float(second.mean())

    if slopes(0.0)[0] >= 0:
        return math.inf
    low, high, inverse = 0.0, math.inf, 1.0
    for _ in range(_STEPS):
        first, second = slopes(inverse)
        if second > 0 and abs(first / second) <= 1e-12 * inverse:
            break
        low, high = (inverse, high) if first < 0 else (low, inverse)
        step = inverse - first / second if second > 0 else math.inf
        if not low < step < min(high, 10 * inverse):
            step = 2 * inverse if high == math.inf else (low + high) / 2
        inverse = step
    return 1 / inverse


def _measured(z: Array, y: Array, right: Array) -> Calibration:
    confidence = np.exp(per_example.log_probabilities(z)).max(1)
    given, share, count = per_example.reliability(confidence, right)
    low, high = per_example.wilson(share, count)
    # The sum x of the deviations in a bin is about normal, so |x| is sqrt(2 / pi) * std on average.
    bins = per_example.equal_mass_bins(confidence)
    std = np.sqrt(np.bincount(bins, confidence * (1 - confidence)))
    values = (
        per_example.nll(z, y),
        per_example.brier(z, y),
        per_example.calibration_error(confidence, right),
    )
    nll, brier, ece = map(torch.from_numpy, values)
    diagram = map(torch.from_numpy, (given, share, low, high, count))
    by_chance = math.sqrt(2 / math.pi) * float(std.sum()) / len(z)
    return Calibration(nll, brier, ece, by_chance, Reliability(*diagram))
