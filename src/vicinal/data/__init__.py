"""Data sets in many formats, loaders, transforms, normalization and label noise.

Public names are imported when they are first used, so that listing the sources does not import
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vicinal.data.catalog import MAX_BYTES, SOURCES, TEST_FRACTION
    from vicinal.data.dataset import DataSet, Note, ReadResult, Split, StoredInputs
    from vicinal.data.description import describe
    from vicinal.data.label_noise import CorruptedLabels, corrupt_labels
    from vicinal.data.load_data_set import data_root, load
    from vicinal.data.loader import Loader
    from vicinal.data.normalize import Normalize, normalization_of
    from vicinal.data.order import balanced_order, epoch_order
    from vicinal.data.recognize import Recognized, recognized
    from vicinal.data.source_spec import parse_spec
    from vicinal.data.transforms import (
        TRANSFORMS,
        CenterCrop,
        GaussianNoise,
        HLSJitter,
        RandomCrop,
        RandomHorizontalFlip,
        RandomResizedCrop,
        Transform,
    )

__all__ = [
    "MAX_BYTES",
    "SOURCES",
    "TEST_FRACTION",
    "TRANSFORMS",
    "CenterCrop",
    "CorruptedLabels",
    "DataSet",
    "GaussianNoise",
    "HLSJitter",
    "Loader",
    "Normalize",
    "Note",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "ReadResult",
    "Recognized",
    "Split",
    "StoredInputs",
    "Transform",
    "balanced_order",
    "corrupt_labels",
    "data_root",
    "describe",
    "epoch_order",
    "load",
    "normalization_of",
    "parse_spec",
    "recognized",
]

_MODULES = (
    *("catalog", "load_data_set", "dataset", "loader", "order", "normalize", "recognize"),
    *("description", "label_noise", "source_spec", "transforms"),
)
"""The modules that define these names; only the first imports nothing heavy."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name in __all__:
        for module in _MODULES:
            defined = vars(import_module(f"vicinal.data.{module}"))
            if name in defined:
                globals()[name] = defined[name]
                return defined[name]
    raise AttributeError(f"module 'vicinal.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
