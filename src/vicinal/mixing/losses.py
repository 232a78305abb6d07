"""Losses, targets and accuracies under mixed labels."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.mixing.operator import wide_type
from vicinal.mixing.plain import is_plain

Criterion = Callable[..., Tensor] | nn.Module
"""A function ``criterion(output, y, reduction=...)`` or a module with ``reduction``."""


class Side(NamedTuple):
    """One parent of each blend: its targets ``(batch, ...)`` before mixing, and its share.

    Shares are ``(batch,)``, or ``(batch, *sizes)``, such as ``(batch, height, width)``, if they
    differ between pixels. The shares of all sides sum to one.
    """

    y: Tensor
    share: Tensor


def mixed_loss(criterion: Criterion, output: Tensor, sides: Sequence[Side]) -> Tensor:
    """Return the loss of blends, for most criteria ``lam * own loss + (1 - lam) * partner's loss``.

    This is the sum of two losses in Zhang et al. (https://arxiv.org/abs/1710.09412), section 2. For
    plain cross-entropy it equals the cross-entropy against soft targets. In other cases:

    * The losses of real values (``mse_loss``, ``l1_loss``, ``smooth_l1_loss``, ``huber_loss`` and
      their modules) are not linear in the target, so they compare the output with the blended
      target, as the paper's objective does: ``criterion(output, plan.targets(y))``. For a loss of
      your own that is not linear in the target, call it with ``plan.targets(y)`` yourself.
    * The mean is over examples (over elements, if the criterion returns several per example).
      With class weights, PyTorch divides by the sum of the weights instead, but only for integer
      labels, so its results for integer and soft labels differ. Here, the mean
      stays over examples, and class weights only multiply their losses.
    * A side of a blend that has the ignored class is not counted, neither in the loss nor in the
      mean, which is divided by the sum of the shares that are left. ``ignore_index`` is an
      attribute of a module, or an argument of a function: its default, or as set by
      ``functools.partial``. A module without this attribute is searched for modules that have it,
      which have to agree. The number in a ``lambda`` cannot be seen: in masks on the CPU, classes
      that the output does not have are then an error; on a GPU, the zeros for ignored pixels count
      in the mean.
    * Hooks of a module run once for each side of the blends, and see one loss for each example;
      those of losses of real values run once.
    * If masks are mixed by a region, a criterion other than cross-entropy is called with the pasted
      masks.
    * ``reduction="sum"`` and ``"none"`` are supported, the default is ``"mean"``, and other
      reductions raise an error.
    * The loss of float16 and bfloat16 outputs is float32.

    Cross-entropy of integer classes computes one softmax for all sides, and no one-hot matrix. For
    the arguments and errors, see ``Plan.loss``; the first side has the own targets.
    """
    settings = _cross_entropy(criterion)
    first = sides[0].y
    if settings is not None and not first.dtype.is_floating_point:
        return _mixed_cross_entropy(output, sides, settings)
    if settings is not None and first.shape != output.shape:
        raise ValueError(
            f"cross-entropy: expected logits (batch, classes, ...) and soft labels of the same "
            f"shape, got {tuple(output.shape)} and soft labels {tuple(first.shape)}. If these are "
            "classes, pass y.long()."
        )
    ignored = _ignore_index(criterion)
    if ignored is None:
        _check_classes(output, sides)
    if _compares_real_values(criterion) and _is_soft(first):
        wide = torch.promote_types(wide_type(output.dtype), wide_type(first.dtype))
        blended = mixed_targets([Side(y.to(wide), share) for y, share in sides])
        if output.shape != blended.shape:
            raise ValueError(
                f"output: expected the shape of y, {tuple(blended.shape)}, got "
                f"{tuple(output.shape)}. Call output.reshape(y.shape)."
            )
        _per_element(criterion)  # it checks the criterion
        value: Tensor = criterion(output.to(wide), blended)
        return value
    each, reduction = _per_element(criterion)
    if sides[0].share.dim() > 1:  # of each pixel, 0 or 1
        own, partner = sides
        pasted = torch.where(spread(partner.share, first) > 0, partner.y, first)
        sides = [Side(pasted, torch.ones_like(own.share.flatten(1)[:, 0]))]
    losses = [_evaluate(each, output, _as_numbers(y, output)) for y in _with_shares(sides)]
    shares = [spread(side.share, losses[0]) for side in sides]
    counted: Tensor | int = losses[0].numel()
    if ignored is not None and not first.dtype.is_floating_point and first.shape == losses[0].shape:
        here = torch.stack([side.y.long() != ignored for side in sides])
        left = torch.where(here, torch.stack(shares), 0)
        shares, counted = list(left), left.sum()
    pairs = zip(shares, losses, strict=True)
    parts = [_without_infinity(share * loss, share) for share, loss in pairs]
    loss = functools.reduce(torch.add, parts)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / counted


def _with_shares(sides: Sequence[Side]) -> list[Tensor]:
    """Return the targets of all sides, those without a share replaced by some that have one.

    The gradient of a loss against a missing value, or against a class that is impossible, is NaN,
    even if the share of the loss is zero. If the derivative by the share is wanted, it needs the
    target of the side, so only missing values are replaced.
    """
    targets = [side.y for side in sides]
    if len(sides) > 1:
        none = [spread(side.share, side.y) == 0 for side in sides]
        some = targets[-1]
        for y, without in zip(reversed(targets[:-1]), reversed(none[:-1]), strict=True):
            some = torch.where(without, some, y)
        if any(side.share.requires_grad for side in sides):
            none = [without & ~y.isfinite() for without, y in zip(none, targets, strict=True)]
        targets = [torch.where(w, some, y) for w, y in zip(none, targets, strict=True)]
    return targets


def _without_infinity(loss: Tensor, share: Tensor) -> Tensor:
    """Set losses to 0 that are NaN because an infinite loss was multiplied with a share of 0."""
    return loss.masked_fill((share == 0) & loss.isnan(), 0)


def mixed_targets(sides: Sequence[Side], num_classes: int | None = None) -> Tensor:
    """Return soft targets; see ``Plan.targets``."""
    parts = []
    for y, share in sides:
        if _is_soft(y):
            if num_classes is not None:
                raise ValueError(
                    f"y: expected integer classes, since num_classes is given, got type {y.dtype} "
                    f"and shape {tuple(y.shape)}. Omit num_classes to blend y as it is, or pass "
                    "y.long() if y holds classes."
                )
            soft = y.float() if y.dtype == torch.bool else y
        else:
            soft = _one_hot(y, num_classes)
        narrow, soft = soft.dtype, soft.to(wide_type(soft.dtype))
        shares = spread(share.to(soft.dtype), soft)
        # Zero times NaN is NaN. What is finite stays, for the derivative by the share.
        parts.append(shares * soft.masked_fill((shares == 0) & ~soft.isfinite(), 0))
    return functools.reduce(torch.add, parts).to(narrow)


def mixed_accuracy(output: Tensor, sides: Sequence[Side], *, ignore_index: int) -> Tensor:
    """Return the accuracy weighted by shares; see ``Plan.accuracy``."""
    first = sides[0].y
    fits = output.dim() > 1 and output.shape[:1] + output.shape[2:] == first.shape
    if not fits or output.shape[1] < 2 or first.dtype.is_floating_point:
        raise ValueError(
            f"accuracy: expected logits (batch, classes, ...) of two classes or more, and integer "
            f"classes (batch, ...), got {tuple(output.shape)} and {first.dtype} "
            f"{tuple(first.shape)}. For one-hot labels, pass y.argmax(1)."
        )
    for y, _ in sides:
        _may_be_ignored(y.long(), output, ignore_index, where="accuracy")
    prediction = output.argmax(1)
    shares = torch.stack([spread(share, prediction).expand_as(prediction) for _, share in sides])
    here = torch.stack([y.long() != ignore_index for y, _ in sides])
    shares = torch.where(here, shares, 0)
    right = torch.stack([prediction == y for y, _ in sides])
    return (shares * right).sum() / shares.sum()


def spread(share: Tensor, values: Tensor) -> Tensor:
    """Return shares in a shape that can be multiplied with ``values``.

    Example:
        >>> spread(torch.ones(2), torch.zeros(2, 3, 4)).shape
        torch.Size([2, 1, 1])
        >>> spread(torch.ones(2, 8, 8), torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """
    missing = [1] * (values.dim() - share.dim())
    return share.reshape(len(share), *missing, *share.shape[1:])


class _CrossEntropy(NamedTuple):
    """The settings of a cross-entropy."""

    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    reduction: str = "mean"


def _cross_entropy(criterion: Criterion) -> _CrossEntropy | None:
    """Return the settings of a criterion that is PyTorch's cross-entropy, else None."""
    if criterion is F.cross_entropy:
        return _CrossEntropy()
    if type(criterion) is nn.CrossEntropyLoss and not _is_hooked(criterion):
        _check_reduction(criterion.reduction)
        return _CrossEntropy(
            criterion.weight,
            criterion.ignore_index,
            criterion.label_smoothing,
            criterion.reduction,
        )
    if isinstance(criterion, functools.partial) and criterion.func is F.cross_entropy:
        # A difference of sets breaks the graph under torch.compile in PyTorch 2.8.
        if criterion.args or any(name not in _CrossEntropy._fields for name in criterion.keywords):
            return None
        _check_reduction(criterion.keywords.get("reduction", "mean"))
        return _CrossEntropy(**criterion.keywords)
    return None


def _is_hooked(module: nn.Module) -> bool:
    """Return whether calling a module does more than the ``forward`` of its class."""
    own = vars(module)
    return "forward" in own or any(own[name] for name in ("_forward_hooks", "_forward_pre_hooks"))


def _compares_real_values(criterion: Criterion) -> bool:
    """Return whether a criterion is one of PyTorch's losses of real values."""
    if isinstance(criterion, nn.Module):
        module = getattr(criterion, "_orig_mod", criterion)  # of torch.compile
        return any(
            isinstance(module, one) and type(module).forward is one.forward for one in _REAL_MODULES
        )
    function = criterion.func if isinstance(criterion, functools.partial) else criterion
    # Compared by name, since torch.compile wraps a function.
    known = getattr(function, "__module__", "") == F.__name__
    return known and getattr(function, "__name__", "") in _REAL_FUNCTIONS


_REAL_MODULES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_REAL_FUNCTIONS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


def _is_soft(y: Tensor) -> bool:
    return y.dtype.is_floating_point or y.dtype == torch.bool


def _check_classes(output: Tensor, sides: Sequence[Side]) -> None:
    """Raise if a mask has classes that the output does not have, since they may be ignored ones."""
    for y, _ in sides:
        is_mask = output.dim() > 2 and y.shape == output.shape[:1] + output.shape[2:]
        if _is_soft(y) or not is_mask or not is_plain(y) or y.numel() == 0:
            return
        count, (low, high) = output.shape[1], (int(one) for one in torch.aminmax(y))
        if count > 1 and (low < 0 or high >= count):
            raise ValueError(
                f"y: expected classes from 0 to {count - 1} in a mask, since the output has "
                f"{count} channels, got {low if low < 0 else high}. If the criterion "
                "ignores this class, give it an attribute or an argument ignore_index, so that it "
                "is not counted. If these are not classes, pass y.float()."
            )


def _mixed_cross_entropy(output: Tensor, sides: Sequence[Side], settings: _CrossEntropy) -> Tensor:
    """Return the cross-entropy of integer classes, with one softmax for all sides."""
    first = sides[0].y
    if output.dim() < 2 or first.shape != output.shape[:1] + output.shape[2:]:
        raise ValueError(
            f"cross-entropy: expected logits (batch, classes, ...) and classes (batch, ...), "
            f"got {tuple(output.shape)} and {tuple(first.shape)}. Pass y.float() for one-hot "
            "labels, or y.squeeze(1) for classes in a column."
        )
    if not 0 <= settings.label_smoothing <= 1:
        raise ValueError(
            f"cross-entropy: expected label_smoothing from 0 to 1, got {settings.label_smoothing}."
        )
    if settings.weight is not None and settings.weight.shape != output.shape[1:2]:
        raise ValueError(
            f"cross-entropy: expected one weight for each of {output.shape[1]} classes, got "
            f"weights of shape {tuple(settings.weight.shape)}."
        )
    targets, shares = zip(*sides, strict=True)
    chosen, factors = torch.stack(targets, 1), torch.stack(shares, 1)
    if chosen.dtype != torch.int64:
        chosen = chosen.long()
    if missing := chosen.dim() - factors.dim():  # as spread would insert them
        factors = factors.reshape(*factors.shape[:2], *[1] * missing, *factors.shape[2:])
    # In float16 the share of one pixel would vanish: sums are taken in float32, as autocast does.
    wide = wide_type(output.dtype)
    each, mean = settings.reduction == "none", settings.reduction == "mean"
    smoothing, weight = settings.label_smoothing, settings.weight
    counted: Tensor | int = first.numel()
    factors = factors.to(wide)
    if _may_be_ignored(chosen, output, settings.ignore_index):
        here = chosen != settings.ignore_index
        chosen, factors = torch.where(here, chosen, 0), torch.where(here, factors, 0)
        counted = factors.sum()
    factors = -factors
    log_probabilities = F.log_softmax(output, 1, dtype=wide)
    weighted = factors if weight is None else factors * weight[chosen]
    loss = log_probabilities.gather(1, chosen) * weighted
    if smoothing:
        if weight is not None:
            every = weight.reshape(-1, *[1] * (output.dim() - 2))
            log_probabilities = log_probabilities * every
        even = log_probabilities.sum(1, keepdim=True) / output.shape[1]
        loss = loss * (1 - smoothing) + smoothing * even * factors
    loss = _without_infinity(loss, factors)
    if each:
        return loss.sum(1)
    return loss.sum() / counted if mean else loss.sum()


def _may_be_ignored(
    classes: Tensor, output: Tensor, ignored: int, *, where: str = "cross-entropy"
) -> bool:
    """Return whether some of the classes may be the ignored one; raise if one is out of range.

    Values are only read on the CPU, since reading them makes a GPU wait.
    """
    if not is_plain(classes):
        return True
    count = output.shape[1]
    if classes.numel() == 0:
        return False
    low, high = torch.aminmax(classes)
    if int(low) >= 0 and int(high) < count:
        return 0 <= ignored < count
    wrong = classes[((classes < 0) | (classes >= count)) & (classes != ignored)]
    if len(wrong):
        raise ValueError(
            f"{where}: expected classes from 0 to {count - 1}, or its ignore_index "
            f"{ignored}, got {int(wrong[0])} with logits of shape {tuple(output.shape)}."
        )
    return True


def _per_element(criterion: Criterion) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Split a criterion into a loss per element, and the reduction that was asked for."""
    if isinstance(criterion, type):
        name = criterion.__name__
        raise TypeError(f"criterion: expected an instance, got the class {name}. Pass {name}().")
    if isinstance(criterion, nn.Module):
        reduction = getattr(criterion, "reduction", None)
        if not isinstance(reduction, str):
            raise TypeError(
                f"criterion: {type(criterion).__name__} has no attribute reduction, so it cannot "
                "return one loss per example. Pass a function criterion(output, y, reduction)."
            )
        _check_reduction(reduction)
        return _unreduced(criterion, reduction), reduction
    function, asked = _function_and_keywords(criterion)
    if asked.get("reduce") is not None or asked.get("size_average") is not None:
        raise TypeError(
            "criterion: expected reduction, got reduce or size_average, which PyTorch has "
            'deprecated. Pass reduction="mean", "sum" or "none".'
        )
    if isinstance(function, nn.Module) or not _takes_reduction(function):
        raise TypeError(
            f"criterion: {getattr(criterion, '__name__', criterion)} has no argument reduction, "
            "so it cannot return one loss per example. Pass a function criterion(output, y, "
            "reduction)."
        )
    default = _default_of(function, "reduction")
    reduction = _check_reduction(asked.get("reduction", default or "mean"))
    return functools.partial(criterion, reduction="none"), reduction


def _unreduced(criterion: nn.Module, asked: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a criterion without reduction, which shares everything else with the original."""
    original: Any = getattr(criterion, "_orig_mod", criterion)  # of torch.compile
    each = object.__new__(type(original))  # the compiler cannot trace copy.copy
    each.__dict__.update(original.__dict__)
    each.reduction = "none"
    if torch.compiler.is_compiling():
        return each  # type: ignore[no-any-return]
    each.__dict__["_compiled_call_impl"] = None  # it is bound to the original

    # A forward that was set on the module is bound to the original.
    changed: list[Any] = [each, original] if "forward" in original.__dict__ else [each]

    def call(output: Tensor, y: Tensor) -> Tensor:
        for one in changed:
            one.reduction = "none"
        try:
            loss: Tensor = each(output, y)
            return loss
        finally:
            for one in changed:  # it may be a property of a part that both share
                one.reduction = asked
            for name, value in each.__dict__.items():  # such as a counter
                if name not in _OWN and original.__dict__.get(name, each) is not value:
                    original.__dict__[name] = value

    return call


_OWN = ("reduction", "_compiled_call_impl")


def _check_reduction(reduction: str) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f'criterion: expected reduction="mean", "sum" or "none", got {reduction!r}. Pass '
            '"none" and reduce the result.'
        )
    return reduction


def _function_and_keywords(
    criterion: Callable[..., Tensor],
) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    if isinstance(criterion, functools.partial):
        return criterion.func, criterion.keywords
    return criterion, {}


def _takes_reduction(function: Callable[..., Tensor]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == "reduction" or p.kind is p.VAR_KEYWORD for p in parameters)


def _default_of(function: Callable[..., Tensor], name: str) -> Any:
    """Return the default of an argument; None if there is none."""
    parameter = inspect.signature(function).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


# The compiler calls them and does not trace them, as it cannot trace inspect.signature.
_takes_reduction._dynamo_marked_constant = True  # type: ignore[attr-defined]
_default_of._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _ignore_index(criterion: Criterion) -> int | None:
    if isinstance(criterion, nn.Module):
        value: Any = getattr(criterion, "ignore_index", None)
        if value is None:
            parts = {getattr(one, "ignore_index", None) for one in criterion.modules()} - {None}
            value = parts.pop() if len(parts) == 1 else None
    else:
        function, keywords = _function_and_keywords(criterion)
        value = keywords.get("ignore_index", _default_of(function, "ignore_index"))
    return value if isinstance(value, int) else None


def _as_numbers(y: Tensor, output: Tensor) -> Tensor:
    """Convert boolean targets that are compared with outputs element by element."""
    if y.shape != output.shape or y.dtype.is_floating_point:
        return y
    if y.dtype == torch.bool:
        return y.to(output.dtype)
    raise TypeError(
        f"y: expected a floating-point type or bool, got {y.dtype}. y has the shape of the output, "
        f"{tuple(y.shape)}, so the two are compared element by element. Call y.float(), or pass "
        "a criterion that takes floats."
    )


def _evaluate(each: Callable[[Tensor, Tensor], Tensor], output: Tensor, y: Tensor) -> Tensor:
    if y.dtype.is_floating_point and {y.shape, output.shape} == {(len(y),), (len(y), 1)}:
        raise ValueError(
            f"output: expected the shape of y, {tuple(y.shape)}, got {tuple(output.shape)}. With "
            "these shapes, PyTorch would compare each output with all targets. Call "
            "output.reshape(y.shape)."
        )
    loss = each(output, y)
    if loss.numel() > max(output.numel(), y.numel()) and loss.shape == _broadcast(output, y):
        raise ValueError(
            f"output: expected a shape that fits y, {tuple(y.shape)}, got {tuple(output.shape)}. "
            f"The criterion broadcast the two, so that its losses have the shape "
            f"{tuple(loss.shape)}. Reshape one of them."
        )
    if loss.dim() == 0 or len(loss) != len(output):
        raise ValueError(
            f"criterion: expected one loss for each of {len(output)} examples, got shape "
            f'{tuple(loss.shape)}. It has to support reduction="none".'
        )
    return loss


def _broadcast(output: Tensor, y: Tensor) -> torch.Size | None:
    try:
        return torch.Size(torch.broadcast_shapes(output.shape, y.shape))
    except RuntimeError:
        return None


def _one_hot(y: Tensor, num_classes: int | None) -> Tensor:
    if num_classes is None:
        raise ValueError(
            f"targets: expected num_classes, since y has type {y.dtype} and shape "
            f"{tuple(y.shape)}. Pass it, or y.float() if these are real values."
        )
    if y.dim() == 2 and y.shape[1] == num_classes:
        raise ValueError(
            f"y: expected classes, got type {y.dtype} and shape {tuple(y.shape)}, which can be "
            f"one-hot labels or {num_classes} classes for each example. Pass y.float() without "
            "num_classes for one-hot labels, or y[:, :, None] for classes."
        )
    y = y.long()
    if is_plain(y) and bool(((y < 0) | (y >= num_classes)).any()):
        raise ValueError(
            f"y: expected classes from 0 to {num_classes - 1}, got {int(y.min())} to "
            f"{int(y.max())}. Correct y or num_classes. A class that the criterion ignores has no "
            "soft target: use plan.loss, or leave such examples out."
        )
    return F.one_hot(y, num_classes).movedim(-1, 1).float()
