"""The peers: what other libraries do to a batch, by themselves or by a stand-in that says so."""

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Mixer = Callable[[Tensor], Tensor]
Formula = Callable[[Tensor, Tensor], Mixer]
"""Answers, for partners and shares of a batch, with what mixes it."""

STAND_IN = "stand-in"
"""The version of a formula that is written here, after what a library computes."""


class Peer(NamedTuple):
    """Another way to mix a batch.

    Args:
        key: who it is, whether the library itself or its stand-in: "timm batch".
        name: the same, labeled where it is a stand-in: "timm batch's formula (stand-in)".
        version: of the library; ``STAND_IN``; or that of PyTorch for a plain expression.
        writes: whether it writes into the batch that it is given.
        formula: how it mixes. A library draws partners and shares of its own in each call, and
            blends labels of two classes as well.
    """

    key: str
    name: str
    version: str
    writes: bool
    formula: Formula


class Absent(NamedTuple):
    """A library that cannot be used here, and why."""

    key: str
    why: str


def find_peers() -> tuple[list[Peer], list[Absent]]:
    """Return the peers that work here, and the libraries that do not.

    A library that is installed and mixes a small batch takes part itself. Otherwise its stand-in
    takes its place where there is one, and nobody where there is none.
    """
    peers = [
        Peer("textbook", "textbook expression", torch.__version__, False, textbook),
        _stand_in("OpenMixup", False, one_share),
    ]
    absent = []
    for key, package, writes, library, formula in _LIBRARIES:
        try:
            _try(library)
            version = importlib.metadata.version(package)
        except Exception as error:  # whatever keeps a library from working here
            absent.append(Absent(key, f"{type(error).__name__}: {error}".partition("\n")[0]))
            if formula is not None:
                peers.append(_stand_in(key, writes, formula))
        else:
            peers.append(Peer(key, key, version, writes, library))
    return peers, absent


def textbook(partner: Tensor, lam: Tensor) -> Mixer:
    """Blend as the paper writes it, with a share for each row."""

    def mix(x: Tensor) -> Tensor:
        share = lam.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        return share * x + (1 - share) * x[partner]

    return mix


def one_share(partner: Tensor, lam: Tensor) -> Mixer:
    """Blend with one share for the batch: OpenMixup's formula, and that of the paper's authors."""
    kept = float(lam[0])
    return lambda x: x * kept + (1 - kept) * x[partner]


def rolled(partner: Tensor, lam: Tensor) -> Mixer:
    """Blend each row with the one before it: torchvision's formula."""
    kept = float(lam[0])
    return lambda x: x.roll(1, 0).mul_(1 - kept).add_(x.mul(kept))


def flipped(partner: Tensor, lam: Tensor) -> Mixer:
    """Blend each row with that of the reversed batch, in place: timm's formula for batches."""
    kept = float(lam[0])

    def mix(x: Tensor) -> Tensor:
        given = x.flip(0).mul_(1 - kept)
        return x.mul_(kept).add_(given)

    return mix


def row_by_row(partner: Tensor, lam: Tensor) -> Mixer:
    """Do as ``flipped`` with a share and a step in Python for each row: timm's for elements.

    Its shares are NumPy's numbers, which PyTorch takes longer to multiply by than by Python's, and
    for each row it asks whether there is something to do and whether that is a CutMix.
    """
    shares, boxes = lam.cpu().numpy(), np.zeros(len(lam), dtype=bool)

    def mix(x: Tensor) -> Tensor:
        whole = x.clone()
        for i in range(len(x)):
            kept = shares[i]
            if kept != 1 and not boxes[i]:
                x[i] = x[i] * kept + whole[len(x) - i - 1] * (1 - kept)
        return x

    return mix


def _torchvision(partner: Tensor, lam: Tensor) -> Mixer:
    mixup: Any = importlib.import_module("torchvision.transforms.v2").MixUp(
        alpha=1.0, num_classes=2
    )
    labels = _labels(partner)
    return lambda x: mixup(x, labels)[0]


@functools.cache
def _timm_mixup(package: str) -> Any:
    """Import one file of timm, which needs PyTorch and NumPy only; the rest needs torchvision."""
    spec = importlib.util.spec_from_file_location("timm_mixup", Path(package, "data", "mixup.py"))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.Mixup


def _timm(mode: str) -> Formula:
    def formula(partner: Tensor, lam: Tensor) -> Mixer:
        timm = importlib.util.find_spec("timm")
        if timm is None or timm.origin is None:
            raise ModuleNotFoundError("no timm is installed")
        mixup = _timm_mixup(str(Path(timm.origin).parent))(
            mixup_alpha=1.0, mode=mode, num_classes=2, label_smoothing=0.0
        )
        labels = _labels(partner)
        return lambda x: mixup(x, labels)[0]

    return formula


def _kornia(partner: Tensor, lam: Tensor) -> Mixer:
    mixup: Any = importlib.import_module("kornia.augmentation").RandomMixUpV2(
        p=1.0, data_keys=["input", "class"]
    )
    labels = _labels(partner)
    return lambda x: mixup(x, labels)[0]


_LIBRARIES: list[tuple[str, str, bool, Formula, Formula | None]] = [
    ("torchvision", "torchvision", False, _torchvision, rolled),
    ("timm batch", "timm", True, _timm("batch"), flipped),
    ("timm elem", "timm", True, _timm("elem"), row_by_row),
    ("kornia", "kornia", False, _kornia, None),
]


def _stand_in(key: str, writes: bool, formula: Formula) -> Peer:
    return Peer(key, f"{key}'s formula ({STAND_IN})", STAND_IN, writes, formula)


def _try(library: Formula) -> None:
    """Mix a small batch, and raise where the answer is none."""
    x = torch.rand(4, 3, 8, 8)
    mixed: object = library(torch.arange(4), torch.ones(4))(x.clone())
    if not isinstance(mixed, Tensor) or mixed.shape != x.shape:
        raise TypeError(f"its mixup answers with {type(mixed).__name__}")


def _labels(partner: Tensor) -> Tensor:
    return torch.arange(len(partner), device=partner.device) % 2
