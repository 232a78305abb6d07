"""A figure of mixing: a batch, its partners, and their blends by each policy."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vicinal.data import load
from vicinal.errors import UserError, unknown
from vicinal.files import write_whole
from vicinal.mixing import CutMix, DirichletMixUp, FMix, MixUp, Plan, Policy, ResizeMix, Shuffle
from vicinal.reports.image_figures import ImageRow, image_rows
from vicinal.reports.svg import figure_style, standalone_svg, to_svg

_OTHERS = Shuffle(meet_self=False)

POLICIES: dict[str, Callable[[float], Policy]] = {
    "mixup": lambda alpha: MixUp(alpha, per="example", pairing=_OTHERS),
    "cutmix": lambda alpha: CutMix(alpha, per="example", pairing=_OTHERS),
    "resizemix": lambda alpha: ResizeMix(per="example", pairing=_OTHERS),
    "fmix": lambda alpha: FMix(alpha, per="example", pairing=_OTHERS),
    "dirichlet": lambda alpha: DirichletMixUp(alpha, per="example", pairing=_OTHERS),
}
"""The policies that can be shown, as functions of alpha. All of them draw partners first, so that
one seed gives all the same partners."""


class Batch(NamedTuple):
    """Some labeled images.

    Args:
        inputs: ``(batch, 1 or 3, height, width)`` uint8.
        targets: ``(batch,)`` int64 classes.
        classes: the name of each class.
        brightest: the value of white, such as 255.
    """

    inputs: Tensor
    targets: Tensor
    classes: Sequence[str]
    brightest: int = 255


def run_show(
    policies: Sequence[str] = (),
    *,
    alpha: float = 1.0,
    seed: int = 0,
    size: int = 6,
    out: Path = Path("mixed.svg"),
) -> dict[str, Any]:
    """Make a figure of digits, their partners, and their blends by each policy, in a file.

    Args:
        policies: names of ``POLICIES``; all of them by default.
        alpha: concentration, positive and finite. ResizeMix does not use it.
        seed: seed of partners, lam and regions.
        size: number of examples, at least 2.
        out: the file, ending in .svg.

    Returns:
        A dict with ``file`` and ``rows``. There is one row for each policy: its name, ``policy``,
        and lists with an entry for each example: ``lam``, the class ``own``, and the classes
        ``partner`` and the shares ``share`` of its partners.

    Raises:
        UserError: if an argument is invalid, or the file cannot be written.
    """
    for name in policies:
        if name not in POLICIES:
            raise UserError(unknown("policy", name, POLICIES))
    if not 0 < alpha < math.inf:
        raise UserError(
            f"--alpha: expected a positive finite number, got {alpha}. Try 1, which makes all "
            "shares equally likely."
        )
    if out.suffix.lower() != ".svg":
        raise UserError(f"--out: expected a file that ends in .svg, got {out}. Try mixed.svg.")
    data = load("digits", test_fraction=0.3, seed=0)
    batch = Batch(data.train.read(range(size)).inputs, data.train.targets[:size], data.classes, 16)
    chosen = {name: POLICIES[name](alpha) for name in policies or POLICIES}
    plans = {name: draw_plan(policy, batch, seed=seed) for name, policy in chosen.items()}
    titled = {type(chosen[name]).__name__: plan for name, plan in plans.items()}
    write_whole(out, mixing_svg("mixed", batch, titled))
    names = [data.classes[k] for k in batch.targets]
    rows = [
        {
            "policy": name,
            "lam": plan.lam.tolist(),
            "own": names,
            "partner": [[names[k] for k in partners] for partners in _partners(plan).T],
            "share": ((1 - plan.lam)[None] if plan.shares is None else plan.shares).T.tolist(),
        }
        for name, plan in plans.items()
    ]
    return {"file": str(out), "rows": rows}


def draw_plan(policy: Policy, batch: Batch, *, seed: int) -> Plan:
    """Draw a plan for a batch of images from a seed alone."""
    return policy.draw(
        len(batch.inputs),
        generator=torch.Generator().manual_seed(seed),
        y=batch.targets,
        image_size=batch.inputs.shape[-2:],
    )


def mixing_svg(name: str, batch: Batch, plans: Mapping[str, Plan]) -> str:
    """Draw a batch, its partners, and its blends by each plan, as an SVG file.

    Args:
        name: lowercase letters and dashes.
        batch: the images to mix.
        plans: plans for this batch by title.

    Returns:
        The content of the file, light or dark as the reader prefers, with a text alternative.
    """
    with figure_style():
        figure = _figure(batch, plans)
        svg = standalone_svg(to_svg(name, _text(batch, plans), figure))
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)


def _figure(batch: Batch, plans: Mapping[str, Plan]) -> Figure:
    """Draw the batch, then the blends of each plan below those partners that are not drawn yet."""
    names = [batch.classes[k] for k in batch.targets]
    rows = [ImageRow("example", batch.inputs, names)]
    seen = {tuple(range(len(names)))}
    for title, plan in plans.items():
        for n, partner in enumerate(_partners(plan)):
            if tuple(partner.tolist()) not in seen:
                ordinal = f" {n + 1}" if n else ""
                captions = [names[k] for k in partner]
                rows.append(ImageRow(f"partner{ordinal}", batch.inputs[partner], captions))
                seen.add(tuple(partner.tolist()))
        captions = [
            "\n+ ".join([f"lam {lam:.2f}\n{first}", *others])
            for lam, (first, *others) in zip(plan.lam.tolist(), _labels(batch, plan), strict=True)
        ]
        regions = None if plan.region is None else plan.region.expand(len(plan), -1, -1)
        rows.append(ImageRow(title, plan.mix(batch.inputs), captions, regions))
    lines = sum(1 + max(text.count("\n") for text in row.captions) for row in rows)
    size = (1.2 + 1.35 * len(names), 1.3 * len(rows) + 0.18 * lines)
    return image_rows(rows, batch.brightest, size)


def _text(batch: Batch, plans: Mapping[str, Plan]) -> str:
    """Return the text alternative of the figure."""
    names = ", ".join(batch.classes[k] for k in batch.targets)
    blends = "; ".join(
        f"{' '.join(title.split())}: {', '.join(map(' + '.join, _labels(batch, plan)))}"
        for title, plan in plans.items()
    )
    return f"{len(batch.targets)} examples ({names}), their partners and their blends. {blends}."


def _partners(plan: Plan) -> Tensor:
    """Return the partners as ``(parents - 1, batch)``."""
    return plan.partner.reshape(-1, len(plan))


def _labels(batch: Batch, plan: Plan) -> list[list[str]]:
    """Return the terms of each mixed label: the example's own class first, then its partners'."""
    targets = plan.targets(batch.targets, len(batch.classes)).tolist()
    parents = torch.cat([batch.targets[None], batch.targets[_partners(plan)]]).T.tolist()
    return [
        [f"{target[k]:.2f} · {batch.classes[k]}" for k in dict.fromkeys(classes) if target[k]]
        for target, classes in zip(targets, parents, strict=True)
    ]
