"""The losses of a GAN whose discriminator is trained on blends, and the plans of two variants.

A plan is about a *pool*: the real examples of a batch, then the generated ones. The target of a
real row is 1 and that of a generated row is 0, so the target of a blend is the share of what is
real in it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vicinal.mixing import MixUp, OtherBatch, Plan, Shuffle
from vicinal.mixing.operator import wide_type
from vicinal.mixing.randomness import CPU

_SHAPES = (
    *("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Alias", "ToCopy", "Select"),
    *("Slice", "Permute", "Transpose", "TBackward", "Clone", "Unbind", "Expand", "Clamp", "Mean"),
    "Cat",
)
"""The names of autograd nodes that change the shape or the type of a result, or select from it."""

Discriminator = Callable[[Tensor], Tensor]
"""A network or function from examples ``(rows, ...)`` to logits ``(rows, ...)``, such as
``(rows,)``, ``(rows, 1)``, or one for each patch of an image. A positive logit means real."""


def paper_plan(size: int, *, alpha: float = 0.2, generator: Generator | None = None) -> Plan:
    """Draw a plan of the mixup paper: each real row is blended with a generated one.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (https://arxiv.org/abs/1710.09412),
    section 3.7: the discriminator is trained on ``lam * real + (1 - lam) * generated``, with the
    target ``lam``, drawn from ``Beta(alpha, alpha)``. The paper writes an expectation over
    lam; each row draws its own here, which estimates it better than one lam for the batch.

    Args:
        size: number of real rows, and of generated rows.
        alpha: from 0, where each lam is 0 or 1, so that about half of the rows are real ones and
            the others generated ones, unmixed.
        generator: a CPU generator of random numbers, instead of PyTorch's global one.

    Returns:
        A plan of ``size`` rows, whose partners are rows ``size`` to ``2 * size - 1`` of the real
        and the generated rows together.

    Example:
        >>> plan = paper_plan(3)
        >>> len(plan), plan.partner.sort().values.tolist()
        (3, [3, 4, 5])
    """
    # MixUp(0) means that rows keep everything; here, a generated row has to be as likely as a real.
    policy = MixUp(alpha or 1e-9, per="example", pairing=OtherBatch(size))
    plan = policy.draw(size, generator=generator)
    return Plan(plan.partner + size, plan.lam)


def author_plan(size: int, *, share: float = 0.2, generator: Generator | None = None) -> Plan:
    """Draw a plan as in the toy program of the paper's first author.

    All rows of the pool are blended with a random partner: real with generated ones, but also real
    with real, and generated with generated. The share of the partner is uniform from 0 to
    ``share``, one for each row, so ``lam`` is at least ``1 - share``.

    Args:
        size: number of real rows, and of generated rows.
        share: the largest share of a partner, from 0 to 1.
        generator: a CPU generator of random numbers, instead of PyTorch's global one.

    Returns:
        A plan of ``2 * size`` rows, the pool.

    Raises:
        ValueError: if ``share`` is not from 0 to 1.

    Example:
        >>> plan = author_plan(2, share=0.2)
        >>> len(plan), bool((plan.lam >= 0.8).all())
        (4, True)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"author_plan: expected share from 0 to 1, got {share}.")
    partner = Shuffle()(2 * size, generator)
    return Plan(partner, 1 - share * torch.rand(2 * size, generator=generator, device=CPU))


def discriminator_loss(
    discriminator: Discriminator, real: Tensor, generated: Tensor, plan: Plan | None = None
) -> Tensor:
    """Return the binary cross-entropy of a discriminator on blends of real and generated rows.

    No gradient reaches the generator.

    Args:
        discriminator: see ``Discriminator``. It runs once, on all rows.
        real: ``(batch, ...)``.
        generated: rows of the same shape and type, from the generator. Rows in bfloat16 or
            float16, as under autocast, are converted if the real ones are float32.
        plan: plan of ``paper_plan`` or ``author_plan``; without one, the rows are not mixed.

    Returns:
        A scalar: the mean over all rows. Without a plan, half of the rows are real.

    Raises:
        ValueError: if real and generated rows do not have the same shape, the plan is of another
            size, or the discriminator returns something other than one or more logits a row.

    Example:
        >>> real, generated = torch.ones(2, 1), torch.zeros(2, 1)
        >>> plan = Plan(torch.tensor([2, 3]), lam=torch.tensor([0.5, 1.0]))
        >>> seen = []
        >>> discriminator_loss(lambda x: seen.append(x) or 0 * x, real, generated, plan).item()
        0.6931471824645996
        >>> seen[0].tolist()
        [[0.5], [1.0]]
    """
    return _cross_entropy(discriminator, real, generated.detach(), plan)


def minimax_generator_loss(
    discriminator: Discriminator, real: Tensor, generated: Tensor, plan: Plan | None = None
) -> Tensor:
    """Return minus the discriminator's loss, whose gradient reaches the generator.

    The paper states the game as ``max_g min_d`` of one objective, so this is its loss of the
    generator, with a new plan of ``paper_plan``. Without a plan, it is the loss in the program of
    the first author. Either gradient vanishes where the discriminator is sure; ``generator_loss``
    is the usual remedy.

    Args:
        discriminator: as for ``discriminator_loss``. Its parameters get gradients too, so set
            them to zero before its next step, as usual.
        real: as for ``discriminator_loss``.
        generated: likewise.
        plan: likewise; not the one that the discriminator was just trained with.

    Raises:
        ValueError: as ``discriminator_loss``.

    Example:
        >>> generated = torch.zeros(2, 1, requires_grad=True)
        >>> loss = minimax_generator_loss(torch.nn.Linear(1, 1), torch.ones(2, 1), generated)
        >>> loss.backward()
        >>> generated.grad.shape
        torch.Size([2, 1])
    """
    return -_cross_entropy(discriminator, real, generated, plan)


def generator_loss(discriminator: Discriminator, generated: Tensor) -> Tensor:
    """Return the non-saturating loss of a generator, on rows that are not mixed.

    It is the cross-entropy of the discriminator on the generated rows, with all of them labeled as
    real (Goodfellow et al., https://arxiv.org/abs/1406.2661, section 3), which is common practice.
    Its gradient is large where the discriminator rejects the rows.

    Args:
        discriminator: as for ``discriminator_loss``. Its parameters get gradients too.
        generated: ``(batch, ...)``, from the generator.

    Example:
        >>> generator_loss(lambda x: 0 * x, torch.zeros(2, 1)).item()
        0.6931471824645996
    """
    logits = _logits(discriminator, generated)
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def _cross_entropy(
    discriminator: Discriminator, real: Tensor, generated: Tensor, plan: Plan | None
) -> Tensor:
    if real.dtype == torch.float32 and generated.dtype in (torch.bfloat16, torch.float16):
        generated = generated.float()
    if real.shape != generated.shape or real.dtype != generated.dtype:
        raise ValueError(
            f"generated: expected rows like the real ones, {tuple(real.shape)} {real.dtype}, got "
            f"{tuple(generated.shape)} {generated.dtype}. Convert one of them."
        )
    pool = torch.cat([real, generated])
    rows = len(pool) if plan is None else len(plan)
    fits = plan is None or rows in (len(real), len(pool))
    if plan is not None and fits and len(real) and not torch.compiler.is_compiling():
        # Half of a plan for more rows, or all of one for fewer, would blend real rows alone.
        low, high = (int(one) for one in torch.aminmax(plan.partner))
        fits = high < len(pool) and (rows == len(pool) or low >= len(real))
    if plan is not None and not fits:
        raise ValueError(
            f"plan: expected one for {len(real)} real rows whose partners are generated rows, "
            f"{len(real)} to {len(pool) - 1}, as of paper_plan({len(real)}), got one with {rows} "
            "rows or other partners."
        )
    mixed = pool if plan is None else plan.mix(pool[:rows], other=pool)
    logits = _logits(discriminator, mixed)
    targets = logits.new_zeros(len(pool), *logits.shape[1:])
    targets[: len(real)] = 1
    if plan is not None:
        targets = plan.targets(targets[:rows], other=targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def _logits(discriminator: Discriminator, rows: Tensor) -> Tensor:
    logits = discriminator(rows)
    if logits.shape[:1] != rows.shape[:1]:
        raise ValueError(
            f"discriminator: expected logits of {len(rows)} rows, got shape {tuple(logits.shape)}."
        )
    node = logits.grad_fn
    while node is not None and node.name().startswith(_SHAPES):
        node = node.next_functions[0][0]
    if node is not None and node.name() == "SigmoidBackward0":
        raise ValueError(
            "discriminator: expected logits, got the result of a sigmoid. Remove the sigmoid; "
            "these losses apply it, in a way that does not lose precision."
        )
    return logits.to(wide_type(logits.dtype))  # float16 would round targets near 0 and 1
