"""The plan: the partner of each row, and the share that each row keeps."""

import dataclasses
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from vicinal.mixing.losses import Criterion, Side, mixed_accuracy, mixed_loss, mixed_targets
from vicinal.mixing.operator import (
    blend,
    blend_,
    blend_several,
    check_batch,
    check_dtype,
    check_overlap,
    check_shares,
    check_tensor,
    shares_memory,
    wide_type,
)
from vicinal.mixing.passes import mixing_inside
from vicinal.mixing.plain import is_plain
from vicinal.mixing.regions import check_region, is_mask, show_region, shrunk_into
from vicinal.mixing.target_modes import TargetMode, check_target_mode, union_of_targets


class Plan:
    """A read-only plan for one batch, as the ``draw`` of a policy returns it.

    Its methods draw no random numbers. Row ``i`` becomes
    ``lam[i] * own + (1 - lam[i]) * partner``, on the device of the arguments.

    If a policy shows the partner in a region of the image (``CutMix`` and others), ``mix`` takes
    the region from the partner and the other pixels from the example, and ``lam`` is the share of
    these other pixels; likewise for columns of a table. If a blend has more than two parents,
    ``partner`` and ``shares`` have a row for each further parent.

    ``plan[3:7]`` is the plan of these rows. To divide a batch, as for gradient accumulation, pass
    the whole batch to each method as ``other``: ``plan[3:7].mix(x[3:7], other=x)``. Do not mix
    slices of it in place: the partners of later slices would be blends.

    Args:
        partner: ``(batch,)`` or ``(parents - 1, batch)`` int64, the row of the batch that each row
            is blended with.
        lam: ``(batch,)`` floating point in ``[0, 1]``, the share that each row keeps.
        shares: ``(parents - 1, batch)``, the share of each partner; ``1 - lam`` if not given.
        region: ``(batch, height, width)`` bool, True where the partner shows; ``(batch, length)``
            for signals, ``(batch, depth, height, width)`` for volumes and so on. The first
            dimension may be 1, for one region that all rows share.
        shrunk: whether the region is a box into which the whole partner is resized (``ResizeMix``).
        columns: whether the region, ``(batch, features)``, is columns of a table: inputs then have
            that shape, and targets are those of whole rows, never masks.
        target_mode: the targets of a blend, as the policy's ``targets``: ``"weighted"`` by the
            shares; ``"union"``, all labels of the parents with a share above 0; or ``"own"``, those
            of the row itself.

    Raises:
        TypeError: if ``partner`` is not int64, or ``lam`` or ``shares`` is not floating point.
        ValueError: if shapes or devices do not fit together, a region is not bool, or a value is
            out of range.

    Example:
        >>> plan = Plan(partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 1.0]))
        >>> plan.mix(torch.tensor([[0.0], [8.0]])).tolist()
        [[2.0], [8.0]]
        >>> plan.targets(torch.tensor([0, 1]), num_classes=2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """

    # Not a dataclass: FSDP, Fabric and mixed precision search the arguments of a model for
    # containers and dataclasses and cast the tensors in them; lam must not be rounded.
    partner: Tensor
    lam: Tensor
    shares: Tensor | None
    region: Tensor | None
    shrunk: bool
    columns: bool
    target_mode: TargetMode
    _rows: int | None  # that the batch of the partners needs; None if that is unknown
    _is_slice: bool
    _of_second_batch: bool  # whether the partners are rows of a second batch
    _unmixed: bool  # whether inputs of any type stay as they are
    _moved: "Plan | None"  # this plan on the device that it was last needed on

    def __init__(
        self,
        partner: Tensor,
        lam: Tensor,
        shares: Tensor | None = None,
        region: Tensor | None = None,
        *,
        shrunk: bool = False,
        columns: bool = False,
        target_mode: TargetMode = "weighted",
    ) -> None:
        """Check that partners, shares and region fit together."""
        check_target_mode("Plan: expected target_mode", target_mode)
        check_tensor("lam", lam, "For one number, pass torch.full((len(x),), lam).")
        if region is not None:
            check_region(region, len(lam), shares, shrunk=shrunk, columns=columns)
        tensors = {"partner": partner, "shares": shares, "region": region}
        for name, one in tensors.items():
            if isinstance(one, Tensor) and one.device != lam.device:
                raise ValueError(
                    f"{name}: expected {lam.device}, the device of lam, got {one.device}. Move "
                    "all tensors to one device; mix and loss move the plan to that of the batch."
                )
        self.__dict__.update(
            partner=partner,
            lam=lam,
            shares=shares,
            region=region,
            shrunk=shrunk,
            columns=columns,
            target_mode=target_mode,
            _rows=_checked_rows(partner, lam, shares),
            _is_slice=False,
            _of_second_batch=False,
            _unmixed=False,
            _moved=None,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __getstate__(self) -> dict[str, object]:
        """Leave out the copy on another device, which may not exist where this is loaded."""
        return self.__dict__ | {"_moved": None}

    def __repr__(self) -> str:
        fields = (f"{k}={v!r}" for k, v in self.__dict__.items() if not k.startswith("_"))
        return f"{type(self).__name__}({', '.join(fields)})"

    def __len__(self) -> int:
        """Return the number of examples that the plan was drawn for."""
        return len(self.lam)

    def __getitem__(self, rows: slice) -> "Plan":
        """Return the plan of some of the rows; their partners are rows of the whole batch."""
        if not isinstance(rows, slice):
            raise TypeError(f"plan: expected a slice, such as plan[:4], got {rows!r}.")
        region = self.region
        return self._changed(
            partner=self.partner[..., rows],
            lam=self.lam[rows],
            shares=None if self.shares is None else self.shares[:, rows],
            region=region if region is None or len(region) == 1 else region[rows],
            _is_slice=True,
        )

    def mix(
        self, x: Tensor, other: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return a new batch of blends; ``x`` is not modified.

        Args:
            x: ``(batch, ...)`` floating point or uint8. If the plan has a region, ``x`` may have
                any type, and its last dimensions are the ``image_size`` that the plan was drawn
                for, such as ``(batch, ..., height, width)`` or ``(batch, ..., length)``; if the
                region is columns of a table, ``x`` is ``(batch, features)``. ``ResizeMix``
                interpolates floating-point and uint8 values, and takes the nearest of other types.
            other: ``(rows, ...)``, the batch that the partners come from, if it is not ``x``.
            dtype: floating-point type of the result, for uint8 input only. Without it, the blend
                of uint8 input is rounded back to uint8.

        Raises:
            TypeError, ValueError: as ``vicinal.mix``, and if ``x`` does not have the size that the
                region was drawn for.
        """
        here = self._on_device_of("x", x, other)
        check_dtype(x, dtype)
        if self._unmixed:
            return x.to(dtype or x.dtype, copy=True)
        if here.region is not None:
            if self.columns and x.dim() != 2:
                raise ValueError(
                    f"x: expected rows of a table, (batch, {here.region.shape[1]}), since the plan "
                    f"takes columns from the partner, got {tuple(x.shape)}. Use CutMix for images "
                    "and signals, and mix features only after layers with outputs of that shape."
                )
            if self.shrunk and dtype is not None:  # so that what is interpolated is not rounded
                x, other = x.to(dtype), None if other is None else other.to(dtype)
            shown = show_region(x, other, here.partner, here.region, shrunk=self.shrunk)
            return shown if dtype is None else shown.to(dtype)
        if here.shares is not None:
            return blend_several(x, other, here.partner, here.lam, shares=here.shares, dtype=dtype)
        return blend(x, other, here.partner, here.lam, dtype)

    def mix_(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Write the blends into ``x`` and return it; otherwise as ``mix``.

        Example:
            >>> x = torch.tensor([[0.0], [8.0]])
            >>> _ = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 1.0])).mix_(x)
            >>> x.tolist()
            [[2.0], [8.0]]
        """
        if self._is_slice and other is not None and shares_memory(x, other):
            raise ValueError(
                "mix_: expected a slice that does not share the memory of the batch, since mixing "
                "it in place overwrites rows that other slices need. Use mix, or call mix_ once "
                "with the whole batch."
            )
        if self.region is not None or self.shares is not None:
            check_overlap(x)
            # The gradient of shares needs the values before.
            graded = any(one is not None and one.requires_grad for one in (self.lam, self.shares))
            return x.copy_(self.mix(x.clone() if graded else x, other))
        here = self._on_device_of("x", x, other)
        if self._unmixed:
            return x
        return blend_(x, other, here.partner, here.lam)

    def targets(
        self, y: Tensor, num_classes: int | None = None, *, other: Tensor | None = None
    ) -> Tensor:
        """Return soft targets: the shares of each row's own target and its partner's.

        With the target mode ``"union"``, the result is the sum of the targets of all parents with
        a share above 0, at most 1. With ``"own"``, the targets are converted and not mixed.

        Args:
            y: integer classes ``(batch, ...)``, such as labels or masks, which become shares of
                ``num_classes`` along a new dimension 1, as PyTorch's cross-entropy expects them;
                or soft, multi-label or real-valued targets ``(batch, ...)`` of a floating-point
                type (booleans count as 0 and 1), which are blended without conversion. Under a
                region, integer classes ``(batch, ..., height, width)`` and other targets ``(batch,
                channels, height, width)`` are masks: each pixel has the target of the example that
                it comes from. Targets ``(batch, classes)`` are blended.
            num_classes: the number of classes, for integer classes only.
            other: ``(rows, ...)``, targets of the batch that the partners come from, if not ``y``.
                Not used with the target mode ``"own"``.

        Returns:
            float32 for integer and boolean ``y``, otherwise the type of ``y``.

        Raises:
            TypeError: if ``other`` has a different type.
            ValueError: if ``num_classes`` is missing or not allowed, a class is out of range, ``y``
                looks one-hot but is not floating point, a mask does not have the region's size, or
                the target mode is ``"union"`` and ``y`` is not multi-label: boolean, or floating
                point from 0 to 1 with two dimensions or more.
        """
        return mixed_targets(self._sides(y, other), num_classes)

    def loss(
        self, criterion: Criterion, output: Tensor, y: Tensor, *, other: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a blended batch, averaged over examples.

        This is ``lam`` times the loss against the example's own target plus ``1 - lam`` times that
        against the partner's. For plain cross-entropy it equals the loss against soft targets,
        without creating them. For real values (``F.mse_loss``, ``F.l1_loss``,
        ``F.smooth_l1_loss``, ``F.huber_loss`` and their modules) it is the loss against the blended
        target instead, ``plan.targets(y)``.
        See ``vicinal.mixing.losses.mixed_loss`` for class weights and ignored classes. For a
        network with several heads, add ``plan.loss(...)`` of each head, with the same plan.

        With the target mode ``"union"`` this is ``criterion(output, plan.targets(y))``, and with
        ``"own"`` it is ``criterion(output, y)``, averaged over examples as above.

        Args:
            criterion: ``F.cross_entropy``, ``nn.CrossEntropyLoss(...)``, or any criterion, function
                or module, that can return one loss per example with ``reduction="none"``. To
                ignore a class, pass ``functools.partial(F.cross_entropy, ignore_index=255)`` or
                the module, or give your own criterion an argument or an attribute
                ``ignore_index``, so that ignored pixels do not count in the mean.
            output: the output of the network for the blended batch, ``(batch, ...)``.
            y: targets of the batch before mixing, in the form that ``criterion`` takes.
            other: as for ``targets``.

        Raises:
            TypeError: if ``criterion`` does not support ``reduction="none"``, or cannot compare
                the type of ``y`` with ``output``.
            ValueError: if the sizes do not fit, the losses are not one per example, a class is out
                of range (checked on the CPU only), or the target mode is ``"union"`` and ``y`` is
                not multi-label.

        Example:
            >>> import torch.nn.functional as F
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
            >>> plan.loss(F.cross_entropy, torch.zeros(2, 4), torch.tensor([0, 3])).item()
            1.3862943649291992
        """
        check_batch("output", output, None, len(self), None)
        return mixed_loss(criterion, output, self._sides(y, other))

    def accuracy(
        self,
        output: Tensor,
        y: Tensor,
        *,
        other: Tensor | None = None,
        ignore_index: int = -100,
    ) -> Tensor:
        """Return the accuracy under mixing, a fraction: a row counts ``lam`` if its own class is
        predicted, and ``1 - lam`` if its partner's class is. With the target mode ``"own"``, a row
        counts if its own class is predicted.

        It can be compared between blended batches, but not with the accuracy on whole examples: a
        perfect network, which predicts the class with the larger share, reaches the mean of
        ``max(lam, 1 - lam)``.

        Args:
            output: ``(batch, classes)`` or ``(batch, classes, ...)``: logits.
            y: ``(batch,)`` or ``(batch, ...)`` integers: classes before mixing.
            other: as for ``targets``.
            ignore_index: a class that is not counted. If one side of a blend has it, the other
                side counts with its share, also in the mean.

        Raises:
            ValueError: if the sizes do not fit, ``y`` does not hold classes of the output (their
                range is checked on the CPU only), or the target mode is ``"union"``.

        Example:
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
            >>> plan.accuracy(torch.eye(2), torch.tensor([0, 1])).item()
            0.75
        """
        check_batch("output", output, None, len(self), None)
        if self.target_mode == "union":
            raise ValueError(
                'accuracy: expected one class per example, got targets="union", where a blend has '
                "every label of its parents. Compare the output with plan.targets(y)."
            )
        return mixed_accuracy(output, self._sides(y, other), ignore_index=ignore_index)

    def inside(
        self, module: nn.Module, *, entry: int | str | None = None
    ) -> AbstractContextManager[None]:
        """Mix the output of ``module`` in one forward pass, inside the ``with`` block.

        Works with any module of any model; the model itself is not changed. Like ``mix``, this
        does not depend on train or eval mode, so frozen modules are mixed too. To evaluate, run the
        model outside of a block. For a compiled model, and to draw the module too, see
        ``MixedInside``. Under gradient checkpointing, run ``backward`` inside the block as well, so
        that the recomputation is mixed too.

        Mix at one module for each forward pass, and choose one that all of an example passes
        through: if a branch goes past it, as in a residual block, or if the model has a second
        input, that part of the example is not mixed, but the loss assumes that it is.

        Args:
            module: a module of the model.
            entry: the entry of the output to mix, if the output is a tuple, a list or a dict.

        Raises:
            TypeError: if the output of the module is not a tensor, and ``entry`` does not select
                one.
            ValueError: if this is a slice of a plan, whose partners the module does not see.
            RuntimeError: if the module runs twice inside the block (the loss assumes that it was
                mixed once), or, at the end of the block, if it did not run at all, or ran under
                gradient checkpointing without ``backward`` in the block.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
            >>> with plan.inside(model[0]):
            ...     output = model(torch.rand(2, 4))
        """
        if self._is_slice:
            raise ValueError(
                "inside: expected the plan of a whole batch, got a slice, whose partners are not "
                "in the output of the module. Draw a plan for each part of the batch."
            )
        return mixing_inside(module, self.mix, entry)

    def to(self, device: torch.device | str) -> "Plan":
        """Return this plan on ``device``; the plan itself if it is there already.

        It is copied to a GPU through pinned memory, so that neither side waits for the other, and
        only once: the plan keeps the copy.
        """
        target = torch.device(device)
        if target.type == "cuda" and target.index is None:
            target = torch.device("cuda", torch.cuda.current_device())
        if self.lam.device == target:
            return self
        if self._moved is not None and self._moved.lam.device == target:
            return self._moved
        names = ("partner", "lam", "shares", "region")
        with torch.inference_mode(False):  # the copy may outlive this mode
            moved = self._changed(**{n: _copied(getattr(self, n), target) for n in names})
        if not torch.compiler.is_compiling():
            self.__dict__["_moved"] = moved
        return moved

    def _changed(self, **changes: object) -> "Plan":
        plan = object.__new__(type(self))
        plan.__dict__.update(self.__dict__ | {"_moved": None} | changes)
        return plan

    def _on_device_of(self, name: str, x: Tensor, other: Tensor | None) -> "Plan":
        """Return this plan on the device of ``x``, after a check that both fit it."""
        if self._is_slice and other is None:
            raise ValueError(
                "other: the partners of a slice of a plan are rows of the whole batch. Pass the "
                f"whole batch: other={name}."
            )
        if self._of_second_batch and other is None:
            raise ValueError(
                "other: expected the second batch, from which the pairing OtherBatch takes the "
                "partners, got none. Pass it as other=. To mix inside a network, choose another "
                "pairing."
            )
        check_batch(name, x, other, len(self), self._rows)
        return self.to(x.device)

    def _sides(self, y: Tensor, other: Tensor | None) -> list[Side]:
        """Return each row's own targets with their share, then those of each partner.

        With the target modes ``"own"`` and ``"union"``, there is one side, which has everything.
        """
        if self.target_mode == "own" or self._unmixed:
            check_batch("y", y, None, len(self), None)
            return [Side(y, _ones(self.lam, y.device))]
        here = self._on_device_of("y", y, other)
        source = y if other is None else other
        # 1 - lam is rounded as mix does it.
        wide = wide_type(y.dtype if y.dtype.is_floating_point else here.lam.dtype)
        lam, shares = here.lam.to(torch.promote_types(here.lam.dtype, wide)), here.shares
        partners = [source.index_select(0, row) for row in torch.atleast_2d(here.partner)]
        if here.region is not None and not self.columns and is_mask(y, here.region):
            lam = (~here.region).to(lam.dtype).expand(len(y), *here.region.shape[1:])
            if self.shrunk:
                smooth = y.dtype.is_floating_point
                partners = [shrunk_into(partners[0], here.region, smooth=smooth)]
        if shares is None:
            shares = (1 - lam)[None]
        else:
            shares = shares.to(lam.dtype)
            lam = (1 - shares.sum(0)).clamp(min=0)
        sides = [Side(y, lam), *map(Side, partners, shares)]
        if self.target_mode == "union":
            return [Side(union_of_targets(sides), _ones(here.lam, y.device))]
        return sides


def _ones(lam: Tensor, device: torch.device) -> Tensor:
    """Return whole shares, in the type that losses are computed in."""
    return torch.ones_like(lam, dtype=wide_type(lam.dtype), device=device)


def _copied(values: Tensor | None, device: torch.device) -> Tensor | None:
    if values is None:
        return None
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    # A copy to the CPU that nobody waits for could be read before it has arrived.
    return values.to(device, non_blocking=device.type == "cuda")


def _checked_rows(partner: Tensor, lam: Tensor, shares: Tensor | None) -> int | None:
    """Check partners and shares; return the number of rows that the partners' batch needs."""
    if shares is None:
        return check_shares(partner, lam)
    if partner.dim() != 2 or shares.shape != partner.shape or lam.shape != partner.shape[1:]:
        raise ValueError(
            "Plan: expected partner and shares of shape (parents - 1, batch) and lam (batch,), got "
            f"{tuple(partner.shape)}, {tuple(shares.shape)} and {tuple(lam.shape)}."
        )
    check_shares(partner[0], lam)
    rows = [check_shares(row, share) for row, share in zip(partner, shares, strict=True)]
    if is_plain(lam):
        whole = lam.double() + shares.double().sum(0)
        if not torch.allclose(whole, torch.ones_like(whole), atol=1e-5):
            raise ValueError(f"shares: expected a sum of one with lam, got {whole.tolist()}.")
    known = [one for one in rows if one is not None]
    return max(known) if known else None
