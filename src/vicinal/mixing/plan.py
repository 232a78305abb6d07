"""The plan: the partner of each row, and the share that each row keeps."""

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.mixing.losses import Criterion, Side, mixed_accuracy, mixed_loss, mixed_targets
from vicinal.mixing.operator import (
    blend,
    blend_,
    check_dtype,
    check_reach,
    check_rows_there,
    check_shares,
)
from vicinal.mixing.passes import mixing_inside
from vicinal.mixing.plain import is_plain
from vicinal.mixing.regions import has_region_size, show_region, shrunk_into


class _Opaque:
    """A read-only record that tools for nested containers leave alone.

    FSDP, Fabric and mixed precision walk through the arguments of a model and cast the tensors that
    they find in containers, and in dataclasses; ``lam`` must not be rounded on the way.
    """

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self) -> str:
        fields = (f"{k}={v!r}" for k, v in self.__dict__.items() if not k.startswith("_"))
        return f"{type(self).__name__}({', '.join(fields)})"


class Plan(_Opaque):
    """A frozen plan for one batch, as a policy's ``draw`` makes it.

    Every method is plain arithmetic without chance: row ``i`` becomes
    ``lam[i] * own + (1 - lam[i]) * partner``. The plan follows the device of what it is given.

    Where a policy shows the partner in a region of the image (``CutMix`` and others), ``mix``
    puts it there and leaves the rest alone, and ``lam`` is the share of the pixels that are left.
    Where a blend has more than two parents, ``partner`` and ``shares`` have a row for each further
    parent.

    ``plan[3:7]`` is the plan of these rows: to cut one plan in pieces, for gradient accumulation,
    give each method the whole batch as ``other``: ``plan[3:7].mix(x[3:7], other=x)``.

    Args:
        partner: ``(batch,)`` or ``(parents - 1, batch)`` int64, the partner of each row.
        lam: ``(batch,)`` floating point in ``[0, 1]``, the share that each row keeps.
        shares: ``(parents - 1, batch)``, what each partner gives; ``1 - lam`` where left out.
        region: ``(batch, height, width)`` bool, True where the partner shows, or ``(batch,
            length)`` for signals, ``(batch, depth, height, width)`` for volumes and so on. Its
            first dimension may be 1, for one region that all share.
        shrunk: whether the region, then a box, shows the whole partner, made smaller.

    Raises:
        TypeError, ValueError: if these do not fit together.

    Example:
        >>> plan = Plan(partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 1.0]))
        >>> plan.mix(torch.tensor([[0.0], [8.0]])).tolist()
        [[2.0], [8.0]]
        >>> plan.targets(torch.tensor([0, 1]), num_classes=2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """

    partner: Tensor
    lam: Tensor
    shares: Tensor | None = None
    region: Tensor | None = None
    shrunk: bool = False
    _reach: int | None = None
    _piece: bool = False

    def __init__(
        self,
        partner: Tensor,
        lam: Tensor,
        shares: Tensor | None = None,
        region: Tensor | None = None,
        shrunk: bool = False,
    ) -> None:
        """Check that partners, shares and region fit together."""
        if shares is None:
            check_shares(partner, lam)
        else:
            _check_several(partner, lam, shares)
        if region is not None:
            _check_region(region, len(lam), shares, shrunk)
        self.__dict__.update(
            partner=partner,
            lam=lam,
            shares=shares,
            region=region,
            shrunk=shrunk,
            _reach=check_reach(partner),
        )

    def __len__(self) -> int:
        """Return the number of examples that the plan was drawn for."""
        return len(self.lam)

    def __getitem__(self, rows: slice) -> "Plan":
        """Return the plan of some of the rows; their partners are rows of the whole batch."""
        if not isinstance(rows, slice):
            raise TypeError(f"a plan is cut by slices, such as plan[:4], got {rows!r}.")
        one_for_all = self.region is None or len(self.region) == 1
        partner = self.partner[..., rows]
        return trusted_plan(
            check_reach(partner),
            partner=partner,
            lam=self.lam[rows],
            shares=None if self.shares is None else self.shares[:, rows],
            region=self.region if one_for_all else self.region[rows],  # type: ignore[index]
            shrunk=self.shrunk,
            _piece=True,
        )

    def mix(
        self, x: Tensor, other: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return a new batch of blends; ``x`` is not modified.

        Args:
            x: ``(batch, ...)`` floating point or uint8 (rounded back). For a plan with a region
                ``(batch, ..., height, width)`` of any type, or as many dimensions as the region
                has, of the size that the plan was drawn for.
            other: ``(rows, ...)``, the batch that the partners come from, if it is not ``x``.
            dtype: as for ``vicinal.mix``: a floating-point type for the result, for uint8 only.

        Raises:
            TypeError, ValueError: as ``vicinal.mix``, and if ``x`` has another batch size.
        """
        self._check_size("x", x)
        self._check_other("x", other)
        check_dtype(x, dtype)
        here = self.to(x.device)
        if here.region is not None:
            check_rows_there(self._reach, len(x if other is None else other))
            shown = show_region(x, other, here.partner, here.region, shrunk=self.shrunk)
            return shown if dtype is None else shown.to(dtype)
        if here.shares is None:
            return blend(x, other, here.partner, here.lam, dtype, reach=self._reach)
        if x.dtype in (
            torch.uint8,
            torch.float16,
            torch.bfloat16,
        ):  # to be rounded once, at the end
            whole = self.mix(x.float(), None if other is None else other.float())
            whole = whole.round() if x.dtype == torch.uint8 and dtype is None else whole
            return whole.to(dtype or x.dtype)
        source, kept, mixed = x if other is None else other, here.lam, x
        for partner, share in zip(here.partner, here.shares, strict=True):
            whole = kept + share
            lam = torch.where(whole > 0, kept / whole, 1)
            mixed = blend(mixed, source, partner, lam, reach=self._reach)
            kept = whole
        return mixed

    def mix_(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Write the blends into ``x`` and return it; otherwise as ``mix``.

        Example:
            >>> x = torch.tensor([[0.0], [8.0]])
            >>> _ = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 1.0])).mix_(x)
            >>> x.tolist()
            [[2.0], [8.0]]
        """
        if self.region is not None or self.shares is not None:
            return x.copy_(self.mix(x, other))
        self._check_size("x", x)
        self._check_other("x", other)
        here = self.to(x.device)
        return blend_(x, other, here.partner, here.lam, reach=self._reach)

    def targets(
        self, y: Tensor, num_classes: int | None = None, *, other: Tensor | None = None
    ) -> Tensor:
        """Return soft targets: each row's own target and its partner's, by their shares.

        Args:
            y: integer classes ``(batch, ...)``, such as labels or masks: turned into shares of
                ``num_classes`` along a new dimension 1, as PyTorch's cross-entropy wants them; or
                soft, multi-label or real-valued targets ``(batch, ...)`` of a floating-point type
                (booleans count as 0 and 1): blended as they are. Under a region, integer classes
                ``(batch, ..., height, width)`` and other targets ``(batch, channels, height,
                width)`` are masks, taken from where the pixel is; ``(batch, classes)`` targets
                are blended.
            num_classes: for integer classes, their number; to be left out otherwise.
            other: ``(rows, ...)``, targets of the batch that the partners come from, if not ``y``.

        Returns:
            float32 for integer and boolean ``y``, otherwise the type of ``y``.

        Raises:
            ValueError: if ``num_classes`` is missing or out of place, a class is outside it, ``y``
                looks one-hot but is not floating point, or a mask is not of the region's size.
        """
        return mixed_targets(self._sides(y, other), num_classes)

    def loss(
        self, criterion: Criterion, output: Tensor, y: Tensor, *, other: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a blended batch: ``lam * own + (1 - lam) * partner``, averaged.

        For plain cross-entropy this equals the loss against soft targets, without making them.
        See ``vicinal.mixing.losses.mixed_loss`` for class weights and ignored classes. A network
        with several heads takes one plan: add ``plan.loss(...)`` of each.

        Args:
            criterion: ``F.cross_entropy``, ``nn.CrossEntropyLoss(...)``, or any criterion, function
                or module, that can return one loss per example with ``reduction="none"``. To
                ignore a class, pass ``functools.partial(F.cross_entropy, ignore_index=255)`` or
                the module: inside a function of your own, ``ignore_index`` cannot be seen, and
                ignored pixels would count in the mean.
            output: the output of the network for the blended batch, ``(batch, ...)``.
            y: targets of the batch as it was before mixing, in the form that ``criterion`` takes.
            other: ``(rows, ...)``, targets of the batch that the partners come from, if not ``y``.

        Raises:
            TypeError: if ``criterion`` knows no ``reduction="none"``, or ``y`` is of a type that it
                cannot be compared in.
            ValueError: if the sizes do not fit or the losses are not one per example.

        Example:
            >>> import torch.nn.functional as F
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
            >>> plan.loss(F.cross_entropy, torch.zeros(2, 4), torch.tensor([0, 3])).item()
            1.3862943649291992
        """
        self._check_size("output", output)
        return mixed_loss(criterion, output, self._sides(y, other))

    def accuracy(
        self,
        output: Tensor,
        y: Tensor,
        *,
        other: Tensor | None = None,
        ignore_index: int = -100,
    ) -> Tensor:
        """Return the accuracy under mixing, a fraction: each row counts lam if the prediction is
        its own class and ``1 - lam`` if it is its partner's.

        Comparable between blended batches, not with the accuracy on whole examples: a perfect
        network, which predicts the class with the larger share, reaches the mean of
        ``max(lam, 1 - lam)``.

        Args:
            output: ``(batch, classes)`` or ``(batch, classes, ...)``: logits.
            y: ``(batch,)`` or ``(batch, ...)`` int64: classes before mixing.
            other: ``(rows, ...)``, classes of the batch that the partners come from, if not ``y``.
            ignore_index: class that counts nowhere; a partner of it leaves its share to the other.

        Raises:
            ValueError: if the sizes do not fit, or ``y`` does not hold classes.

        Example:
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
            >>> plan.accuracy(torch.eye(2), torch.tensor([0, 1])).item()
            0.75
        """
        self._check_size("output", output)
        return mixed_accuracy(output, self._sides(y, other), ignore_index=ignore_index)

    def inside(
        self, module: nn.Module, *, entry: int | str | None = None
    ) -> AbstractContextManager[None]:
        """Mix what ``module`` puts out, for the one forward pass inside the ``with`` block.

        Works with any module of any model; the model itself is not changed. Like ``mix``, this
        does not depend on train or eval mode, so frozen modules are mixed too; to evaluate, run the
        model outside of a block. For a compiled model, and to draw the module too, see
        ``MixedInside``. Under gradient checkpointing, run ``backward`` inside the block as well, so
        that what is computed again is mixed again.

        Args:
            module: a module of the model.
            entry: which entry of the output to mix, where that is a tuple, a list or a dict.

        Raises:
            TypeError: if the module puts out something else than a tensor, and no ``entry`` is
                given that finds one.
            RuntimeError: if the module runs twice inside the block (the loss knows of one mixing
                only), or, at the end of the block, if it did not run at all, or ran under gradient
                checkpointing without ``backward`` in the block.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
            >>> with plan.inside(model[0]):
            ...     output = model(torch.rand(2, 4))
        """
        return mixing_inside(module, self.mix, entry)

    def to(self, device: torch.device | str) -> "Plan":
        """Return this plan on ``device``: itself where it is there already.

        The way to a GPU goes through pinned memory, so that neither side waits for the other; and
        it is gone once: the plan remembers itself there.
        """
        target = torch.device(device)
        if self.lam.device == target and not _only_for_inference(self.lam):
            return self
        known: Plan | None = self.__dict__.get("_moved")
        if known is not None and known.lam.device == target and not _only_for_inference(known.lam):
            return known
        moved = trusted_plan(
            self._reach,
            partner=_moved(self.partner, target),
            lam=_moved(self.lam, target),
            shares=_moved(self.shares, target),
            region=_moved(self.region, target),
            shrunk=self.shrunk,
            _piece=self._piece,
        )
        if not torch.compiler.is_compiling():
            self.__dict__["_moved"] = moved
        return moved

    def _sides(self, y: Tensor, other: Tensor | None) -> list[Side]:
        """Return each row's own targets with their share, then those of each partner."""
        self._check_size("y", y)
        self._check_other("y", other)
        here = self.to(y.device)
        source = y if other is None else other
        if other is not None and (other.shape[1:] != y.shape[1:] or other.dtype != y.dtype):
            raise ValueError(
                f"y and other need one type, and one shape after the first dimension, got "
                f"{y.dtype} {tuple(y.shape)} and {other.dtype} {tuple(other.shape)}."
            )
        if self._reach is not None and self._reach > source.shape[0]:
            raise ValueError(
                f"this plan has partners up to row {self._reach - 1}, got y of shape "
                f"{tuple(y.shape)}; pass the targets of the partners' batch as other."
            )
        lam = here.lam
        if here.shares is not None:
            further = zip(here.partner, here.shares, strict=True)
            return [
                Side(y, lam),
                *(Side(source.index_select(0, row), share) for row, share in further),
            ]
        if here.region is not None and _is_mask(y, here.region):
            lam = (~here.region).to(lam.dtype).expand(len(y), *here.region.shape[1:])
            partners = source.index_select(0, here.partner)
            if self.shrunk:
                partners = shrunk_into(partners, here.region, smooth=y.dtype.is_floating_point)
            return [Side(y, lam), Side(partners, 1 - lam)]
        return [Side(y, lam), Side(source.index_select(0, here.partner), 1 - lam)]

    def _check_other(self, name: str, other: Tensor | None) -> None:
        if self._piece and other is None:
            raise ValueError(
                "the partners of a slice of a plan are rows of the whole batch; pass other="
                f"{name}, the whole batch."
            )

    def _check_size(self, name: str, value: Tensor) -> None:
        if value.shape[:1] != self.lam.shape:
            raise ValueError(
                f"this plan was drawn for a batch of {len(self)}, {name} has shape "
                f"{tuple(value.shape)}; draw one plan per batch: policy.draw(len(x))."
            )


class CleanAndMixed(_Opaque):
    """A batch as it is and its blends, one under the other: what ``RegMixUp`` draws.

    Has the methods of a plan except ``mix_`` and cutting; what they hand on has twice as many
    rows: first the clean ones, then the blends.

    Args:
        plan: of the blends.
        weight: of their loss, beside that of the clean rows.

    Example:
        >>> both = CleanAndMixed(Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5])), 1.0)
        >>> both.mix(torch.tensor([0.0, 8.0])).tolist()
        [0.0, 8.0, 2.0, 4.0]
    """

    plan: Plan
    weight: float

    def __init__(self, plan: Plan, weight: float) -> None:
        """Keep the plan of the blends and their weight."""
        self.__dict__.update(plan=plan, weight=weight)

    def __len__(self) -> int:
        """Return the number of examples that come in: half of those that go out."""
        return len(self.plan)

    @property
    def lam(self) -> Tensor:
        """The share that each row which goes out keeps, ``(2 * batch,)``."""
        return torch.cat([torch.ones_like(self.plan.lam), self.plan.lam])

    def mix(
        self, x: Tensor, other: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the batch and its blends, ``(2 * batch, ...)``; see ``Plan.mix``."""
        return torch.cat([x.to(dtype or x.dtype), self.plan.mix(x, other, dtype=dtype)])

    def targets(
        self, y: Tensor, num_classes: int | None = None, *, other: Tensor | None = None
    ) -> Tensor:
        """Return soft targets of both, ``(2 * batch, ...)``; see ``Plan.targets``."""
        mixed = self.plan.targets(y, num_classes, other=other)
        return torch.cat([mixed_targets([self._clean(y)], num_classes), mixed])

    def loss(
        self, criterion: Criterion, output: Tensor, y: Tensor, *, other: Tensor | None = None
    ) -> Tensor:
        """Return the loss of the clean rows plus ``weight`` times that of the blends.

        Args:
            criterion: as for ``Plan.loss``.
            output: ``(2 * batch, ...)``, for what ``mix`` handed on.
            y: ``(batch, ...)``, targets of the batch as it came.
            other: as for ``Plan.loss``.
        """
        clean, mixed = self._halves(output)
        loss = mixed_loss(criterion, clean, [self._clean(y)])
        return loss + self.weight * self.plan.loss(criterion, mixed, y, other=other)

    def accuracy(
        self,
        output: Tensor,
        y: Tensor,
        *,
        other: Tensor | None = None,
        ignore_index: int = -100,
    ) -> Tensor:
        """Return the mean accuracy of clean rows and blends; see ``Plan.accuracy``."""
        clean, mixed = self._halves(output)
        whole = mixed_accuracy(clean, [self._clean(y)], ignore_index=ignore_index)
        blends = self.plan.accuracy(mixed, y, other=other, ignore_index=ignore_index)
        return (whole + blends) / 2

    def inside(
        self, module: nn.Module, *, entry: int | str | None = None
    ) -> AbstractContextManager[None]:
        """Put the blends under what ``module`` puts out; see ``Plan.inside``."""
        return mixing_inside(module, self.mix, entry)

    def to(self, device: torch.device | str) -> "CleanAndMixed":
        """Return this plan on ``device``."""
        return CleanAndMixed(self.plan.to(device), self.weight)

    def _clean(self, y: Tensor) -> Side:
        return Side(y, torch.ones_like(self.plan.to(y.device).lam))

    def _halves(self, output: Tensor) -> tuple[Tensor, Tensor]:
        if output.dim() == 0 or len(output) != 2 * len(self):
            raise ValueError(
                f"the loss of clean rows and blends needs {2 * len(self)} rows of output, got "
                f"shape {tuple(output.shape)}; pass the output for plan.mix(x)."
            )
        clean, mixed = output.chunk(2) if len(self) else (output, output)
        return clean, mixed


def trusted_plan(reach: int | None, **fields: Any) -> Plan:
    """Return a plan without checks, of values that were drawn or checked before."""
    plan = object.__new__(Plan)
    plan.__dict__.update(fields, _reach=reach)
    return plan


def _is_mask(y: Tensor, region: Tensor) -> bool:
    """Return whether targets have a value for each pixel of the region.

    Floating-point and boolean targets of two dimensions are ``(batch, classes)``, also where the
    region is a segment of as many steps.

    Raises:
        ValueError: if they are a mask of another size.
    """
    whole = y.dim() < 2 or (y.dim() == 2 and (region.dim() > 2 or _is_soft(y)))
    if whole:
        return False
    if not has_region_size(region, y):
        raise ValueError(
            f"this plan was drawn for image_size={tuple(region.shape[1:])}, and y of shape "
            f"{tuple(y.shape)} does not end in it: resize masks to the size of the inputs, or pass "
            "targets of the whole example, (batch,) or (batch, classes), one at a time."
        )
    return True


def _is_soft(y: Tensor) -> bool:
    return y.dtype.is_floating_point or y.dtype == torch.bool


def _only_for_inference(values: Tensor) -> bool:
    """Return whether autograd could not save this tensor, which was made in inference mode."""
    return (
        not torch.compiler.is_compiling()
        and values.is_inference()
        and not torch.is_inference_mode_enabled()
    )


def _moved(values: Tensor | None, device: torch.device) -> Tensor | None:
    if values is None:
        return None
    if _only_for_inference(values):
        values = values.clone()
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _check_several(partner: Tensor, lam: Tensor, shares: Tensor) -> None:
    if partner.dim() != 2 or shares.shape != partner.shape or lam.shape != partner.shape[1:]:
        raise ValueError(
            f"a plan with shares needs partner and shares (parents - 1, batch) and lam (batch,), "
            f"got {tuple(partner.shape)}, {tuple(shares.shape)} and {tuple(lam.shape)}."
        )
    for row, share in zip(partner, shares, strict=True):
        check_shares(row, share)
    check_shares(partner[0], lam)
    if is_plain(lam) and not torch.allclose(lam + shares.sum(0), torch.ones_like(lam), atol=1e-5):
        raise ValueError(
            f"the shares of a blend need to sum to one, got {(lam + shares.sum(0)).tolist()}."
        )


def _check_region(region: Tensor, size: int, shares: Tensor | None, shrunk: bool) -> None:
    if shares is not None:
        raise ValueError("a plan has a region or several partners, not both; draw two plans.")
    if region.dtype != torch.bool or region.dim() < 2 or len(region) not in (1, size):
        raise ValueError(
            f"region needs bool (batch, height, width) with batch 1 or {size}, or other "
            f"sizes after the batch, got {region.dtype} of shape {tuple(region.shape)}."
        )
    if shrunk and region.dim() != 3:
        raise ValueError(
            f"shrunk needs a region of images, (batch, height, width), got {tuple(region.shape)}."
        )
