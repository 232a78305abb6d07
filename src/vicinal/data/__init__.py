"""Data: sets in the forms that they come in, loaders, augmentation, labels corrupted on purpose.

The public names are imported when they are first used, so that listing the data sources does not
wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vicinal.data.augmentation import (
        AUGMENTATIONS,
        Augmentation,
        CentreCrop,
        ColourJitter,
        Flip,
        PaddedCrop,
        RandomResizedCrop,
    )
    from vicinal.data.catalog import MAX_BYTES, SOURCES, TEST_FRACTION
    from vicinal.data.corruption import CorruptedLabels, corrupt_labels
    from vicinal.data.dataset import DataSet, Note, Part, Read, Stored
    from vicinal.data.description import describe, majority
    from vicinal.data.loaders import Loader, epoch_order
    from vicinal.data.sources import data_root, load, parse_known
    from vicinal.data.standardise import Standardise, standardise_by

__all__ = [
    "AUGMENTATIONS",
    "MAX_BYTES",
    "SOURCES",
    "TEST_FRACTION",
    "Augmentation",
    "CentreCrop",
    "ColourJitter",
    "CorruptedLabels",
    "DataSet",
    "Flip",
    "Loader",
    "Note",
    "PaddedCrop",
    "Part",
    "RandomResizedCrop",
    "Read",
    "Standardise",
    "Stored",
    "corrupt_labels",
    "data_root",
    "describe",
    "epoch_order",
    "load",
    "majority",
    "parse_known",
    "standardise_by",
]

_MODULES = (
    "catalog",
    "sources",
    "dataset",
    "loaders",
    "standardise",
    "description",
    "corruption",
    "augmentation",
)
"""The modules that define these names; only the first imports nothing heavy."""


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name in __all__:
        for module in _MODULES:
            defined = vars(import_module(f"vicinal.data.{module}"))
            if name in defined:
                globals()[name] = defined[name]
                return defined[name]
    raise AttributeError(f"module 'vicinal.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, used or not."""
    return sorted({*globals(), *__all__})
