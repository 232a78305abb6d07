"""The log-likelihood of a few classes of each example, and its gradient, in few passes."""

from typing import Any

import torch
from torch import Tensor

from vicinal.mixing.kernels import native
from vicinal.mixing.operator import has_tangent, looked_at

_LEAST = {kind: torch.finfo(kind).tiny ** 0.5 for kind in (torch.float32, torch.float64)}
"""From this to its inverse: the quotient of two such numbers has all its digits."""


def log_likelihood(
    scores: Tensor, classes: Tensor, factors: Tensor, *, each: bool = False
) -> Tensor | None:
    """Return the sum of ``factors * log_softmax(scores, 1)`` at classes.

    PyTorch's own way subtracts the largest score of each example, takes the logarithms of all
    probabilities, and for the gradient the exponentials of all once more. Where the scores are as
    small as they mostly are, their exponentials can be taken as they come, once for both, and the
    logarithm of those probabilities only that are asked for.

    Args:
        scores: ``(batch, classes, ...)``.
        classes: ``(batch, k, ...)`` int64.
        factors: what broadcasts to the shape of ``classes``; float32, or float64 if ``scores`` is.
        each: whether to answer with a sum for each example, ``(batch, ...)``, not with one of all.

    Returns:
        The sum, in the type of ``factors``. None where this way does not lead: off the CPU (to
        look at numbers would make a GPU wait), under transforms, the compiler and ``jit.trace``,
        with a class out of range, or where exponentials may leave the range of the type (in
        float32 scores beyond 43, or the scores of the classes below -43).

    Example:
        >>> log_likelihood(torch.zeros(1, 4), torch.tensor([[0, 3]]), torch.tensor([[0.5, 0.5]]))
        tensor(-1.3863)
    """
    if classes.numel() == 0 or not looked_at(scores) or has_tangent(scores, factors):
        return None
    if torch._C._get_tracing_state() is not None:  # torch.jit.trace would keep this way for good
        return None
    try:
        value: Tensor = _LogLikelihood.apply(scores, classes, factors, each)[0]  # type: ignore[no-untyped-call]
    except (FloatingPointError, RuntimeError):  # gather refuses a class out of range
        return None
    return value


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, classes: Tensor, factors: Tensor, each: bool
    ) -> tuple[Tensor, Tensor]:
        exponentials = scores.to(factors.dtype).exp()
        least = _LEAST[factors.dtype]
        found = native.likelihood(exponentials, classes, factors, least, each=each)
        value, totals = found or _likelihood(exponentials, classes, factors, least, each=each)
        # An output of their own, so that the gradient, which is made of them, can have one.
        ctx.save_for_backward(exponentials, totals, classes, factors)
        ctx.set_materialize_grads(False)
        ctx.each, ctx.dtype = each, scores.dtype
        return value, exponentials

    @staticmethod
    def backward(
        ctx: Any, g: Tensor | None, g_exponentials: Tensor | None
    ) -> tuple[Tensor | None, None, Tensor | None, None]:
        exponentials, totals, classes, factors = ctx.saved_tensors
        by_scores = by_factors = None
        if g_exponentials is not None and ctx.needs_input_grad[0]:  # of a gradient's own gradient
            by_scores = exponentials * g_exponentials
        if torch.is_grad_enabled():
            # Of the gradient there will be one, and so forth: powers of the totals, close to one.
            exponentials = exponentials / totals
            totals = exponentials.sum(1, keepdim=True)
        if g is not None:
            over_classes = g.unsqueeze(1) if ctx.each else g
            if ctx.needs_input_grad[0]:
                slope = None
                if not torch.is_grad_enabled():
                    slope = native.likelihood_slope(exponentials, totals, classes, factors, g)
                if slope is None:
                    given = over_classes * factors
                    slope = exponentials * given.sum(1, keepdim=True).div(totals).neg_()
                    slope.scatter_add_(1, classes, given.expand_as(classes))
                by_scores = slope if by_scores is None else by_scores + slope
            if ctx.needs_input_grad[2]:
                logarithms = (exponentials.gather(1, classes) / totals).log()
                by_factors = (over_classes * logarithms).sum_to_size(factors.shape)
        if by_scores is not None and by_scores.dtype != ctx.dtype:
            by_scores = by_scores.to(ctx.dtype)
        return by_scores, None, by_factors, None


def _likelihood(
    exponentials: Tensor, classes: Tensor, factors: Tensor, least: float, *, each: bool
) -> tuple[Tensor, Tensor]:
    """Do as ``vicinal.mixing.kernels.native.likelihood``, for scores of any dimensions."""
    totals = exponentials.sum(1, keepdim=True)
    chosen = exponentials.gather(1, classes)
    if not (float(chosen.min()) >= least and float(totals.max()) <= 1 / least):
        raise FloatingPointError
    weighted = chosen.div_(totals).log_().mul_(factors)
    return weighted.sum(1) if each else weighted.sum(), totals
